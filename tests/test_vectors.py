"""Vector features on the stream: what a pane keeps, the online test over panes, the way through."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_helpers import (
    MINUTE,
    T0,
    Log,
    always,
    at_random,
    config_of,
    one_by_one,
    reference_of,
    replayed,
    shuffled,
)

from driftline.detectors import OnlineMMD
from driftline.detectors.kernels import unbiased_mmd2
from driftline.detectors.mmd_fit import Fitted
from driftline.detectors.pane_mmd import PaneMMD
from driftline.detectors.reduce import make_reducer
from driftline.detectors.vectors import VectorRows, VectorSpec, fit_vectors, taken
from driftline.schemas.errors import ConfigError, EventError, ProfileError
from driftline.schemas.pane import Delta
from driftline.schemas.verdict import Verdict as Contract
from driftline.stream import profiles
from driftline.stream.config.document import Config
from driftline.stream.deltas import to_delta, to_panes
from driftline.stream.monitor import Mark, Monitor
from driftline.stream.profiles import Reference
from driftline.stream.reference.check import references

YAML = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [2m]
allowed_lateness: 10m
min_events: 2
features:
  x: numeric
  y: numeric
  v: {kind: vector, windows: [20 events, 50 events], ert: 1000, sample: 25}
groups: {both: {features: [x, y], windows: [30 events], ert: 500}}
"""


def event(rng: np.random.Generator, i: int, shift: float = 0.0, **changes: Any) -> dict[str, Any]:
    x, y = rng.normal(size=2)
    features = {
        "x": float(x),
        "y": None if i % 19 == 0 else float(y + shift),
        "v": None if i % 13 == 0 else (rng.normal(size=4) + shift).tolist(),
    }
    return {"id": f"e{i}", "ts": T0 + i * 2000, "features": features | changes}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Reference]:
    directory = tmp_path_factory.mktemp("vectors")
    config = config_of(directory, YAML)
    rng = np.random.default_rng(0)
    reference = reference_of(config, [event(rng, i) for i in range(300)])
    profiles.save(reference, config.models["fraud"].reference)
    return config, reference


def stream(n: int = 400, turn: int = 250) -> list[bytes]:
    rng = np.random.default_rng(2)
    return [orjson.dumps(event(rng, i, 0.0 if i < turn else 2.0)) for i in range(n)]


# What a pane keeps


def rows_of(entries: list[tuple[int, str, int]]) -> VectorRows:
    return VectorRows(
        np.array([t for t, _, _ in entries], np.int64),
        [i for _, i, _ in entries],
        np.array([[v, -v] for _, _, v in entries], np.float32).reshape(len(entries), 2),
        [f"text {v}" for _, _, v in entries],
    )


def same(a: VectorRows, b: VectorRows) -> bool:
    return (
        a.times_ms.tolist() == b.times_ms.tolist()
        and list(a.ids) == list(b.ids)
        and a.rows.tobytes() == b.rows.tobytes()
        and list(a.texts) == list(b.texts)
    )


ENTRIES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("abcdefgh"), st.integers(0, 2)),
    min_size=1,
    max_size=20,
)


@settings(max_examples=150, deadline=None)
@given(entries=ENTRIES, cuts=st.lists(st.integers(0, 20), max_size=4), most=st.integers(1, 12))
def test_parts_of_a_pane_merge_to_the_same_rows_however_they_are_cut(
    entries: list[tuple[int, str, int]], cuts: list[int], most: int
) -> None:
    whole = VectorRows.merged([rows_of(entries)], most)
    edges = [0, *sorted(cuts), len(entries)]
    parts = [entries[a:b] for a, b in pairwise(edges)]
    # Each part is cut to the sample by itself, as ingest does with every batch.
    cut = [VectorRows.merged([rows_of(part)], most) for part in parts if part]
    merged = VectorRows.merged(cut[::-1], most)
    assert same(whole, merged)
    assert len(whole) == min(most, len(entries))
    assert whole.times_ms.tolist() == sorted(whole.times_ms.tolist())


def test_a_share_is_taken_by_id() -> None:
    ids = [f"event-{i}" for i in range(20_000)]
    tenth = taken(ids, 0.1)
    assert abs(tenth.mean() - 0.1) < 0.01
    assert not (tenth & ~taken(ids, 0.2)).any()
    assert taken(ids, 1.0).all()


def test_vectors_travel_in_deltas_of_any_size(fitted: tuple[Config, Reference]) -> None:
    _, reference = fitted
    profile = reference.whole
    rng = np.random.default_rng(2)
    rows = VectorRows(
        np.arange(25, dtype=np.int64),
        [f"ключ-{i}-🙂" * (1 + i % 3) for i in range(25)],
        rng.normal(size=(25, 4)).astype(np.float32),
        ["" if i % 4 == 0 else "日本" * i for i in range(25)],
    )
    empty: npt.NDArray[Any] = np.empty(0, np.int32)
    from driftline.detectors import Pane

    index = profile.names.index("v")
    sums, far = np.zeros((profile.n_numeric, 3), np.int64), np.full(profile.n_numeric, np.nan)
    panes = [
        Pane(T0, 9, empty, empty, sums, far, far),
        Pane(T0 + MINUTE, 25, empty, empty, sums, far, far, vectors={index: rows}),
    ]
    delta = to_delta("fraud", {}, profile, panes)
    for size in (900_000, 3_500, 2_800):
        pieces = [Delta.decode(piece.encode()) for piece in delta.split(size)]
        assert len(pieces) > (size < 900_000)
        assert all(len(piece.encode()) <= size for piece in pieces)
        made = [pane for piece in pieces for pane in to_panes(piece, profile)]
        assert sum(p.events for p in made) == 34
        found = [p.vectors[index] for p in made if index in p.vectors]
        assert all(p.start_ms == T0 + MINUTE for p in made if p.vectors)
        assert same(VectorRows.merged(found, 25), rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: {"rows": v.rows[:, :3]}, "vectors of 3 numbers where profile"),
        (lambda v: {"rows": np.where(v.rows > 2, np.nan, v.rows)}, "do not fit"),
        (lambda v: {"part": v.part + 7}, "do not fit"),
        (lambda v: {"feature": 0}, "vectors of feature 0, no vector"),
        (lambda v: {"ids": v.ids[1:]}, "do not fit"),
    ],
)
def test_damaged_vectors_are_refused(
    fitted: tuple[Config, Reference], change: Any, message: str
) -> None:
    import dataclasses

    config, reference = fitted
    [delta, *_] = deltas_of(config, reference, stream(60))
    [own] = [v for v in delta.vectors if v.rows.shape[1] == 4]
    wrong = dataclasses.replace(delta, vectors=[dataclasses.replace(own, **change(own))])
    with pytest.raises(EventError, match=message):
        to_panes(Delta.decode(wrong.encode()), reference.whole)


def deltas_of(config: Config, reference: Reference, values: list[bytes]) -> list[Delta]:
    from driftline.stream.summarise import Messages, summarisers

    [summariser] = summarisers(config, {"fraud": reference}).values()
    n = len(values)
    messages = Messages(values, np.zeros(n, np.int64), np.full(n, -1, np.int64))
    return [delta for _, delta in summariser.summarise(messages, {}).deltas]


# The online test over panes


@pytest.fixture(scope="module")
def online() -> Fitted:
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(400, 6))
    return OnlineMMD.fit(reference, (20, 60), ert=2000, seed=0, n_bootstraps=200).fitted


def panes_of(rng: np.random.Generator, n: int) -> list[npt.NDArray[np.float64]]:
    sizes = rng.integers(1, 45, n)
    # Some rows lie so far out that float32 does not do.
    return [rng.normal(size=(k, 6)) * (30.0 if k % 7 == 0 else 1.0) for k in sizes.tolist()]


def test_over_panes_the_looks_are_those_of_online_mmd(online: Fitted) -> None:
    panes = panes_of(np.random.default_rng(4), 40)
    whole = OnlineMMD(online).update(np.concatenate(panes))
    test = PaneMMD(online)
    looks = [test.push(pane) for pane in panes]
    statistic = np.concatenate([look.statistic for look in looks])
    np.testing.assert_allclose(statistic, whole.statistic, rtol=0, atol=2e-6)
    threshold = np.concatenate([look.threshold for look in looks])
    np.testing.assert_array_equal(threshold, whole.threshold)


def test_a_look_is_the_unbiased_estimate_on_the_raw_rows(online: Fitted) -> None:
    rng = np.random.default_rng(5)
    panes = [rng.normal(size=(25, 6)) for _ in range(6)]
    test = PaneMMD(online)
    last = [test.push(pane) for pane in panes][-1]
    rows = np.concatenate(panes)
    for k, size in enumerate(online.window_sizes):
        expected = unbiased_mmd2(online.reference_window, rows[-size:], online.bandwidth)
        assert last.statistic[-1, k] == pytest.approx(expected, abs=2e-6)


def test_a_test_given_the_panes_that_count_goes_on_to_the_same_bits(online: Fitted) -> None:
    panes = panes_of(np.random.default_rng(6), 40)
    test = PaneMMD(online)
    looks: list[bytes] = []
    for pane in panes:
        looks.append(test.push(pane).statistic.tobytes())
        test.forget(test.spare())
        assert test.events < test.largest + 45
    for begin in range(0, 40, 3):
        again = PaneMMD(online)
        # From the pane that holds the first of the largest window's events, or an earlier one;
        # before the windows are full of events, from the first.
        held = np.cumsum([len(p) for p in panes[:begin]][::-1])
        first = begin - int(np.searchsorted(held, again.largest) + 1)
        for pane in panes[max(0, first) : begin]:
            again.push(pane)
        again.seen = sum(map(len, panes[:begin]))
        for number in range(begin, 40):
            assert again.push(panes[number]).statistic.tobytes() == looks[number], (begin, number)


def test_a_window_that_lost_events_begins_again(online: Fitted) -> None:
    panes = [np.random.default_rng(7).normal(size=(30, 6)) for _ in range(4)]
    test = PaneMMD(online)
    for pane in panes:
        test.push(pane)
    test.forget(3)
    assert test.seen == 30
    fresh = PaneMMD(online)
    fresh.push(panes[3])
    assert test.push(panes[0]).statistic.tobytes() == fresh.push(panes[0]).statistic.tobytes()


def test_a_pane_larger_than_the_largest_window_is_tested_at_each_event(online: Fitted) -> None:
    rows = np.random.default_rng(8).normal(size=(300, 6))
    test = PaneMMD(online)
    looks = test.push(rows)
    whole = OnlineMMD(online).update(rows)
    np.testing.assert_allclose(looks.statistic, whole.statistic, rtol=0, atol=2e-6)
    assert len(test.similarity) == 300
    test.push(rows[:7])
    # The events of the largest window before the pane stay known.
    assert len(test.similarity) == 67


def test_principal_components_do_not_set_the_reference_apart_from_the_stream() -> None:
    """Directions in which some rows vary most are those in which others vary less: where the rows
    that the components are fitted on are the ones compared, streams without drift alarm."""
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(450, 160)).astype(np.float32)
    quiet = rng.normal(size=(1_500, 160)).astype(np.float32)
    spec = VectorSpec("vector", reduce="pca 16", windows=(100,), ert=300)
    profile = fit_vectors("v", spec, reference)
    assert len(profile.mmd.reference_window) == 300 - 2 * 100
    assert OnlineMMD(profile.mmd).update(profile.reduced(quiet)).drifted.mean() < 0.2
    reducer = make_reducer("pca 16", reference)
    both = OnlineMMD.fit(reducer.reduce(reference), (100,), ert=300, n_bootstraps=200)
    assert both.update(reducer.reduce(quiet)).drifted.mean() > 0.9


def test_too_few_rows_for_the_components_are_counted_in_the_message() -> None:
    rows = np.random.default_rng(4).normal(size=(60, 40)).astype(np.float32)
    with pytest.raises(ProfileError, match="of 60 reference rows, 20 are for `pca 32` alone"):
        fit_vectors("v", VectorSpec("vector", reduce="pca 32", windows=(10,)), rows)


# The way through


def online_verdicts(values: list[bytes]) -> list[dict[str, Any]]:
    return [v for v in map(orjson.loads, values) if v["detector"] == "online_mmd"]


def test_drift_of_a_vector_and_of_a_group_is_found_and_said(
    fitted: tuple[Config, Reference],
) -> None:
    config, reference = fitted
    values, work = replayed(config, {"fraud": reference}, Log([list(stream())]))
    assert work.counts.summarised == 400
    for value in values:
        Contract.from_json(value)
    found = online_verdicts(values)
    assert {(v["feature"], v["window"]["size"]) for v in found} == {
        ("v", "20 events"),
        ("v", "50 events"),
        ("both", "30 events"),
    }
    # 30 events a minute; rows of the reference fill the first windows.
    assert {v["status"] for v in found} == {"ok"}
    first, second, third = [v for v in found if v["window"]["size"] == "50 events"][:3]
    for v, least, most in ((first, 1, 25), (second, 26, 50)):
        assert least <= v["window"]["n"] <= most
        assert v["window"]["start"] == iso(T0)
        assert v["detail"].get("reference_rows", 0) == 50 - v["window"]["n"]
    assert third["window"]["n"] == 50
    assert "reference_rows" not in third["detail"]
    drifted = [v for v in found if v["drifted"] and v["feature"] == "v"]
    turn = T0 + 250 * 2000
    assert drifted
    for v in drifted:
        assert v["statistic"] > v["threshold"]
        assert "alpha" not in v
        assert v["effect"]["kind"] == "similarity_shift"
        assert v["effect"]["value"] < 0
        assert v["detail"]["first"]["time"] >= iso(turn)
        shown = [int(e["id"][1:]) for e in v["detail"]["farthest"]]
        assert max(shown) >= 250
        assert all("text" not in e for e in v["detail"]["farthest"])
    assert any(v["drifted"] for v in found if v["feature"] == "both")
    some = next(v for v in found if v["feature"] == "v" and v["window"]["size"] == "20 events")
    # A pane keeps 25 vectors; two of its 30 events had none.
    assert some["detail"]["n_looks"] == 25
    assert some["detail"]["missing"] + some["detail"]["sampled_out"] == 5


def iso(ms: int) -> str:
    from driftline.schemas.units import iso_ms

    return iso_ms(ms)


def test_a_stream_that_differs_from_its_first_event_is_told_with_its_first_pane(
    fitted: tuple[Config, Reference],
) -> None:
    config, reference = fitted
    values, _ = replayed(config, {"fraud": reference}, Log([list(stream(90, 0))]))
    for size in ("20 events", "50 events"):
        first = next(v for v in online_verdicts(values) if v["window"]["size"] == size)
        assert first["drifted"]
        assert first["window"]["start"] == iso(T0)
        # Of the events alone, not of the rows that fill the window with them.
        assert first["effect"]["window"] < 0.7 * first["effect"]["reference"]
        assert {int(e["id"][1:]) for e in first["detail"]["farthest"]} <= set(range(30))


def test_verdicts_depend_on_the_events_alone(fitted: tuple[Config, Reference]) -> None:
    config, reference = fitted
    values = stream(240, 100)
    refs = {"fraud": reference}
    expected, _ = replayed(config, refs, Log([list(values)]))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(values))
        dealt = Log.dealt(
            [values[i] for i in sorted(order, key=lambda i: i + int(rng.integers(0, 20)))],
            rng.integers(0, 3, len(values)).tolist(),
            3,
        )
        found, work = replayed(config, refs, dealt, shuffled(rng), at_random(rng, 60))
        assert work.counts.late == 0
        assert found == replayed(config, refs, dealt, one_by_one)[0]
        assert [but_idle(v) for v in found] == [but_idle(v) for v in expected]
    assert replayed(config, refs, Log([list(values)]), one_by_one, always(1))[0] == expected


def but_idle(value: bytes) -> dict[str, Any]:
    """Without the partitions that had ended, which follow from how events were dealt."""
    verdict = orjson.loads(value)
    verdict["detail"].pop("idle_partitions", None)
    return verdict


def test_a_monitor_begun_at_any_mark_goes_on_as_if_nothing_had_happened(
    fitted: tuple[Config, Reference],
) -> None:
    from driftline.schemas.pane import PartitionProgress, Progress

    config, reference = fitted
    refs = {"fraud": reference}
    log: list[Any] = []
    values = stream(330, 200)
    for start in range(0, len(values), 17):
        log += deltas_of(config, reference, values[start : start + 17])
        at = T0 + (start + 17) * 2000
        log.append(Progress("inference", 1, [PartitionProgress(0, start, at)]))
    log.append(Progress("inference", 1, [PartitionProgress(0, 999, T0 + 60 * MINUTE)]))

    def take(monitor: Monitor, offset: int) -> list[bytes]:
        message = log[offset]
        if isinstance(message, Delta):
            monitor.delta(offset, message)
            return []
        return [v.value for v in monitor.progress(offset, message)]

    whole = Monitor(config, refs)
    made, marks = [], []
    for offset in range(len(log)):
        marks.append(json.dumps(whole.mark(offset).to_json()))
        made.append(take(whole, offset))
    assert len(online_verdicts([v for of in made for v in of])) > 20
    for position in range(0, len(log), 3):
        mark = Mark.from_json(json.loads(marks[position]))
        monitor = Monitor(config, refs, mark)
        for offset in range(mark.offset, len(log)):
            monitor.quiet = offset < position
            found = take(monitor, offset)
            assert found == ([] if monitor.quiet else made[offset]), (position, offset)


def test_a_vector_that_cannot_be_used_is_a_dead_letter(fitted: tuple[Config, Reference]) -> None:
    config, reference = fitted
    rng = np.random.default_rng(8)
    good = [orjson.dumps(event(rng, i)) for i in range(60)]
    bad = {
        "has 3 numbers, and those of the reference have 4": [1.0, 2.0, 3.0],
        "has 0 numbers": [],
        "at position 1; every number is finite": [1.0, 1e300, 1.0, 1.0],
        "must be a list of numbers or null": "no vector",
        "bad_number": [1.0, None, 2.0, 3.0],
    }
    values = list(good)
    for k, vector in enumerate(bad.values()):
        values.insert(10 * k + 5, orjson.dumps(event(rng, 100 + k) | {"features": {"v": vector}}))
    refs = {"fraud": reference}
    found, work = replayed(config, refs, Log([list(values)]))
    assert work.counts.dead_lettered == len(bad)
    assert work.counts.balanced
    assert found == replayed(config, refs, Log([list(good)]))[0]
    said = [str(e) for _, e in work.refused]
    for expected, message in zip(bad, said, strict=True):
        assert expected in message or expected == "bad_number"


def test_the_reference_comes_back_from_disk(fitted: tuple[Config, Reference]) -> None:
    config, reference = fitted
    found = references(config)["fraud"].whole
    assert found.id == reference.whole.id
    values = stream(120)
    a, _ = replayed(config, {"fraud": reference}, Log([list(values)]))
    b, _ = replayed(config, references(config), Log([list(values)]))
    assert a == b


def test_settings_that_changed_since_the_fit_are_refused(
    fitted: tuple[Config, Reference], tmp_path: Path
) -> None:
    config, _ = fitted
    where = config.models["fraud"].reference
    other = config_of(
        tmp_path, YAML.replace("sample: 25", "sample: 26").replace("./reference", where)
    )
    with pytest.raises(ProfileError, match="other settings of 'v'"):
        references(other)


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        ("v: {kind: vector, windows: [5m]}", "features.v.windows", "counted in events"),
        ("v: {kind: vector, sample: 0}", "features.v.sample", "between 1 and 5,000"),
        ("v: {kind: vector, encoder: x}", "features.v.encoder", "no such key"),
        ("v: {kind: text, reduce: umap 2}", "features.v.reduce", "pca K"),
        ("v: {kind: text, pooling: max}", "features.v.pooling", "mean, cls"),
        ("v: {kind: text, include_values: 3}", "features.v.include_values", "true or false"),
        ("v: {kind: vector, share: 2}", "features.v.share", "between"),
    ],
)
def test_a_mistake_in_a_vector_feature_names_its_place(
    tmp_path: Path, text: str, path: str, rule: str
) -> None:
    yaml = YAML.partition("features:")[0] + "features:\n  " + text + "\n"
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, yaml)
    [problem] = caught.value.problems
    assert problem.path == path
    assert rule in problem.rule


def test_a_group_is_made_of_numeric_features(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, YAML.replace("features: [x, y]", "features: [x, z]"))
    assert "z is none" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"v": [1.0, 2.0], "x": 1.0, "y": 2.0}] * 40, "needs 150|too large|equal|constant"),
        ([{"x": float(i), "y": float(-i)} for i in range(400)], "no column 'v'"),
        (
            [{"v": "a", "x": float(i), "y": float(i % 7)} for i in range(400)],
            "is a vector, but row 0",
        ),
    ],
)
def test_a_reference_that_cannot_serve_says_why(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    config = config_of(tmp_path, YAML)
    events = [{"id": str(i), "ts": T0 + i, "features": row} for i, row in enumerate(rows)]
    with pytest.raises(ProfileError, match=message):
        reference_of(config, events)
