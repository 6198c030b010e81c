"""Another reference takes over: each event is compared with the one of its time, and no window holds
panes of two.

    events     ●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●
    first      ═══════════════╡ until = from of the next
    second             ╌╌╌╌╌╌╌╞════════════════════▶
                       since  from: windows that end behind it are tested against the second
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from stream_helpers import (
    MINUTE,
    T0,
    Log,
    Order,
    always,
    at_random,
    config_of,
    in_turn,
    one_by_one,
    python_json,
    reference_of,
    replayed,
    shuffled,
)
from typer.testing import CliRunner

from driftline.detectors import Columns, summarize
from driftline.schemas.errors import ProfileError
from driftline.schemas.pane import Delta, PartitionProgress, Progress
from driftline.schemas.units import iso_ms, parse_time_ms
from driftline.stream import profiles
from driftline.stream.cli import app
from driftline.stream.config.document import Config
from driftline.stream.deltas import to_delta
from driftline.stream.mark import START, Mark
from driftline.stream.monitor import Monitor
from driftline.stream.profiles import Reference
from driftline.stream.reference import history
from driftline.stream.reference.check import references
from driftline.stream.reference.history import Entry, Era, History, Pending
from driftline.stream.reference.switch import promote, withdraw

S = 1000
CONFIG = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [2m, {size: 10m, hop: 5m}, 60 events]
segment_by: [country]
features: {x: numeric, c: categorical}
allowed_lateness: 10s
min_events: 10
"""
VECTORS = CONFIG.replace("segment_by: [country]\n", "").replace(
    "categorical}", "categorical, v: {kind: vector, windows: [40 events], ert: 150 events}}"
)
T = T0 + 20 * MINUTE


def rows_of(seed: int, n: int, shift: float = 0.0) -> list[dict[str, Any]]:
    """Events in order of time, fifteen a minute or so from `T0` on."""
    rng = np.random.default_rng(seed)
    times = T0 + np.sort(rng.integers(0, n * 4 * S, n))
    return [
        {
            "id": f"e{i}",
            "ts": int(ms),
            "features": {
                "x": round(float(rng.normal(shift)), 2),
                "c": str(rng.choice(["a", "b", "c"] if shift else ["a", "b"])),
                "v": rng.normal(shift, 1, 3).round(3).tolist(),
            },
            "segment": {"country": str(rng.choice(["ES", "FR"]))},
        }
        for i, ms in enumerate(times.tolist())
    ]


FITTED: dict[Any, tuple[Reference, ...]] = {}


def two(config: Config, directory: Path) -> tuple[Reference, Reference]:
    """Two references, the first where the configuration looks for it, the second beside it."""
    vectors, segments = bool(config.models["fraud"].vectors), config.models["fraud"].segment_by
    key = (vectors, segments)
    if key not in FITTED:  # thresholds of vectors are simulated, which takes seconds
        fitted = (rows_of(1, 300), rows_of(2, 300, 1.0))
        FITTED[key] = tuple(reference_of(config, rows) for rows in fitted)
    first, second = FITTED[key]
    profiles.save(first, str(directory / "reference"))
    profiles.save(second, str(directory / "new"))
    return first, second


def dealt(rows: Sequence[dict[str, Any]], n_partitions: int = 2) -> Log:
    owner = [i % n_partitions for i in range(len(rows))]
    return Log.dealt([python_json(row) for row in rows], owner, n_partitions)


def ends(values: Sequence[bytes]) -> list[int]:
    return [parse_time_ms(orjson.loads(v)["window"]["end"]) for v in values]


@pytest.mark.parametrize(
    ("text", "overlap"),
    [(CONFIG, 0), (CONFIG, 5 * MINUTE), (VECTORS, 10 * MINUTE)],
    ids=["at once", "overlap", "vectors"],
)
def test_each_event_is_compared_with_the_reference_of_its_time(
    tmp_path: Path, text: str, overlap: int
) -> None:
    """Before the switch all is as if there were none; behind it, as if the stream had begun with the
    new reference, at the switch or `overlap` before it."""
    config = config_of(tmp_path, text)
    first, second = two(config, tmp_path)
    promote(
        config,
        config.models["fraud"],
        str(tmp_path / "new"),
        from_ms=T,
        overlap_ms=overlap,
        offline=True,
    )
    found = references(config)
    rows = rows_of(3, 600)
    together, _ = replayed(config, found, dealt(rows))
    old, _ = replayed(config, {"fraud": first}, dealt(rows))
    since = [row for row in rows if row["ts"] >= T - overlap]
    new, _ = replayed(config, {"fraud": second}, dealt(since))
    expected = [v for v, end in zip(old, ends(old), strict=True) if end <= T]
    expected += [v for v, end in zip(new, ends(new), strict=True) if end > T]
    assert together == expected
    by = [orjson.loads(v)["reference"]["id"] for v in together]
    both = {p.id for r in (first, second) for _, p in r.units.values()}
    assert set(by) == both
    # No gap: every pane's end has its looks, and there is one of each test.
    looks = [v["window"]["end"] for v in map(orjson.loads, together) if v["window"]["size"] == "2m"]
    assert set(looks) == {iso_ms(T0 + k * MINUTE) for k in range(1, 41)}
    ids = [orjson.loads(v)["id"] for v in together]
    assert len(ids) == len(set(ids))
    full = [
        v["window"]["n"]
        for v in map(orjson.loads, together)
        if v["window"] == v["window"] | {"size": "2m", "end": iso_ms(T + MINUTE)}
        and v["segment"] == {}
    ]
    # Without an overlap, windows begin at the switch.
    assert full
    assert all((n > 20) == (overlap > 0) for n in full)


@pytest.mark.parametrize("order", [in_turn, one_by_one, shuffled(np.random.default_rng(1))])
def test_the_switch_does_not_depend_on_how_the_log_is_read(tmp_path: Path, order: Order) -> None:
    config = config_of(tmp_path, CONFIG)
    two(config, tmp_path)
    promote(config, config.models["fraud"], str(tmp_path / "new"), from_ms=T, offline=True,
            overlap_ms=2 * MINUTE)  # fmt: skip
    found = references(config)
    log = dealt(rows_of(4, 450), 3)
    expected, _ = replayed(config, found, log, in_turn, always(50))
    made, work = replayed(config, found, log, order, at_random(np.random.default_rng(2), 400))
    assert made
    assert sorted(made) == sorted(expected)
    assert work.monitor.dropped_events == 0
    assert not work.monitor.foreign


def test_going_back_to_the_first_is_a_switch_like_any_other(tmp_path: Path) -> None:
    """first ══╡══ second ══╡══ first: the third era has the profile of the first, and not its
    windows."""
    config = config_of(tmp_path, CONFIG)
    first, second = two(config, tmp_path)
    model = config.models["fraud"]
    promote(config, model, str(tmp_path / "new"), from_ms=T, offline=True)
    back = T + 10 * MINUTE
    promote(config, model, first.id[:8], from_ms=back, offline=True)
    found = references(config)
    assert [r.id for r in found["fraud"].eras] == [first.id, second.id, first.id]
    rows = rows_of(5, 600)
    together, _ = replayed(config, found, dealt(rows))
    late = [row for row in rows if row["ts"] >= back]
    new, _ = replayed(config, {"fraud": first}, dealt(late))
    tail = [v for v, end in zip(together, ends(together), strict=True) if end > back]
    assert tail == [v for v, end in zip(new, ends(new), strict=True) if end > back]


# --- a monitor that learns of it from its log, and one that is begun again -------------------


Message = Delta | Progress


def random_log(
    rng: np.random.Generator, found: Reference, events: Sequence[dict[str, Any]]
) -> list[Message]:
    """What ingest writes of the events: deltas of each era, progress with what ingest knows."""
    log: list[Message] = []
    at = 0
    largest: int | None = None
    while at < len(events):
        batch = events[at : at + int(rng.integers(1, 30))]
        at += len(batch)
        for one in found.eras:
            times = np.array([e["ts"] for e in batch], np.int64)
            mine = one.era.events(times).tolist()
            profile = one.whole
            if mine:
                own = {
                    n: [batch[i]["features"][n] for i in mine]
                    for n in (f.name for f in profile.counted)
                }
                columns = Columns.of(profile, own)
                panes = summarize(profile, columns, times[mine] // MINUTE * MINUTE)
                log.append(to_delta("fraud", {}, profile, panes))
        newest = max(e["ts"] for e in batch)
        largest = newest if largest is None else max(largest, newest)
        known = 1 + sum(largest >= (one.era.since_ms or 0) for one in found.later)
        knows = {"fraud": known} if known > 1 else {}
        log.append(Progress("inference", 1, [PartitionProgress(0, at, largest)], knows))
    log.append(Progress("inference", 1, [PartitionProgress(0, at, largest or 0, True)], knows))
    return log


def take(monitor: Monitor, offset: int, message: Message) -> Iterator[bytes]:
    if isinstance(message, Delta):
        monitor.delta(offset, Delta.decode(message.encode()))
    else:
        for verdict in monitor.progress(offset, Progress.decode(message.encode())):
            yield verdict.value


@pytest.mark.parametrize("overlap", [0, 8 * MINUTE])
def test_a_monitor_begun_anywhere_and_one_that_learns_late_say_the_same(
    tmp_path: Path, overlap: int
) -> None:
    config = config_of(tmp_path, CONFIG.replace("segment_by: [country]", ""))
    first, _ = two(config, tmp_path)
    model = config.models["fraud"]
    promote(config, model, str(tmp_path / "new"), from_ms=T, overlap_ms=overlap, offline=True)
    stages = [references(config)["fraud"]]
    # And back again: a profile that is known already comes for panes of another era.
    back = T + 10 * MINUTE
    promote(config, model, first.id, from_ms=back, overlap_ms=overlap, offline=True)
    found = references(config)
    stages.append(found["fraud"])
    log = random_log(np.random.default_rng(6), found["fraud"], rows_of(7, 600))
    whole = Monitor(config, found)
    marks: list[Mark] = []
    made: list[list[bytes]] = []
    for offset, message in enumerate(log):
        marks.append(Mark.from_json(json.loads(json.dumps(whole.mark(offset).to_json()))))
        made.append(list(take(whole, offset, message)))
    assert {orjson.loads(v)["reference"]["id"] for of in made for v in of} == {
        r.whole.id for r in found["fraud"].eras
    }
    # After the switch nothing keeps the mark at panes of the first reference.
    assert marks[-1].offset > len(log) - 40
    asked: list[str] = []

    def ask(name: str) -> Reference:
        asked.append(name)
        return stages.pop(0)

    learner = Monitor(config, {"fraud": first}, START, ask)
    assert [list(take(learner, o, m)) for o, m in enumerate(log)] == made
    assert asked == ["fraud", "fraud"]
    assert not learner.foreign
    for position in range(0, len(log), 9):
        again = Monitor(config, found, marks[position])
        for offset in range(marks[position].offset, len(log)):
            again.quiet = offset < position
            said = list(take(again, offset, log[offset]))
            assert said == ([] if again.quiet else made[offset]), (position, offset)


def test_stages_that_do_not_see_one_place_are_told(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG)
    first, _ = two(config, tmp_path)
    monitor = Monitor(config, {"fraud": first}, START, lambda name: first)
    progress = Progress("inference", 1, [PartitionProgress(0, 1, T0)], {"fraud": 2})
    with pytest.raises(ProfileError, match="ingest knows 2 references.*1 are found.*one place"):
        list(monitor.progress(0, progress))


# --- what is written down, and what is refused -----------------------------------------------


def test_a_history_comes_back_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    url = str(tmp_path)
    assert history.read(url) is None
    known = History(
        (Entry("a"), Entry("b", "b", T, T + MINUTE), Entry("a", "", T + S, T + 2 * MINUTE)),
        Pending("c", T + 5 * MINUTE, "token"),
    )
    history.write(url, known)
    assert history.read(url) == known
    assert known.eras() == [
        Era(None, None, T + MINUTE),
        Era(T, T + MINUTE, T + 2 * MINUTE),
        Era(T + S, T + 2 * MINUTE, None),
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["history.json"]
    history.write("memory://references/a", known)
    assert history.read("memory://references/a") == known
    path = tmp_path / "history.json"
    whole = json.loads(path.read_text())
    entries = whole["entries"]
    for change in (
        {"format": 2}, {"entries": []}, {"entries": entries[1:]}, {"pending": 7},
        {"entries": [entries[0], entries[2], entries[1]]},
        {"entries": [entries[0], entries[1] | {"from": None}]},
    ):  # fmt: skip
        path.write_text(json.dumps(whole | change))
        with pytest.raises(ProfileError, match=r"history.json of .* (is damaged|is of format 2)"):
            history.read(url)
    path.write_text("{")
    with pytest.raises(ProfileError, match="is damaged"):
        history.read(url)


def test_a_reference_fitted_over_one_that_was_in_force_is_noticed(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG)
    _, second = two(config, tmp_path)
    promote(config, config.models["fraud"], str(tmp_path / "new"), from_ms=T, offline=True)
    profiles.save(second, str(tmp_path / "reference"))
    with pytest.raises(ProfileError, match="fitted again after it had been in force"):
        references(config)


def test_promote_refuses_what_cannot_take_over(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG)
    model = config.models["fraud"]
    first, second = two(config, tmp_path)
    place = str(tmp_path / "other")

    def refused(match: str, source: str = place, **options: Any) -> None:
        with pytest.raises(ProfileError, match=match):
            promote(config, model, source, **({"from_ms": T, "offline": True} | options))
        assert history.read(model.reference) is None

    refused("there is no reference profile")
    refused("is the one in force already", str(tmp_path / "reference"))
    wider = rows_of(2, 300)
    for row in wider:
        row["features"]["y"] = row["features"]["x"] + 1
    extra = config_of(tmp_path, CONFIG, features={"x": "numeric", "y": "numeric", "c": "boolean"})
    for row in wider:
        row["features"]["c"] = row["features"]["x"] > 0
    profiles.save(reference_of(extra, wider), place)
    refused("also has y and has other kinds of c.*same features")
    spanish = [row for row in rows_of(2, 300, 1.0) if row["segment"]["country"] == "ES"]
    profiles.save(reference_of(config, spanish), place)
    refused(r"has no segment fraud\|country=FR, which")
    # Another one in its place does not make up for it.
    german = [row | {"segment": {"country": "DE"}} for row in rows_of(3, 300, 1.0)]
    profiles.save(reference_of(config, spanish + german), place)
    refused(r"has no segment fraud\|country=FR, which")
    profiles.save(second, place)
    refused("--from is .* a border of panes, which are 1m long", from_ms=T + 1)
    refused("--overlap is 90s|--overlap is 1m30s", overlap_ms=90 * S)
    refused("say it with --from", from_ms=None)
    done = promote(config, model, place, from_ms=T, offline=True)
    assert (done.before, done.after, done.entry.from_ms) == (first.id, second.id, T)
    with pytest.raises(ProfileError, match="is not after .* takes over; name a later time"):
        promote(config, model, first.id, from_ms=T, offline=True)
    with pytest.raises(
        ProfileError, match="a reference takes over at .* no border of panes of 45m"
    ):
        references(config_of(tmp_path, CONFIG, pane="45m", windows=["45m"]))


def test_what_has_been_summarised_is_not_summarised_again(tmp_path: Path) -> None:
    """With the newest event at 30:05, the next border is 31:00, and an overlap reaches back from
    where the reference takes over."""
    config = config_of(tmp_path, CONFIG)
    model = config.models["fraud"]
    first, _ = two(config, tmp_path)
    new = str(tmp_path / "new")
    seen: list[Pending | None] = []

    def promoted(newest: int | None, **options: Any) -> Entry:
        def barrier(config: Config, topic: str) -> int | None:
            known = history.read(model.reference)
            seen.append(None if known is None else known.pending)
            return newest

        return promote(
            config, model, new, guess=lambda config, topic: newest, barrier=barrier, **options
        ).entry

    with pytest.raises(ProfileError, match=r"have been summarised .* --from .*00:28:00.000Z or"):
        promoted(T + 5 * S, from_ms=T + 7 * MINUTE, overlap_ms=7 * MINUTE)
    assert history.read(model.reference) == History((Entry(first.id),))  # nothing is pending
    with pytest.raises(ProfileError, match="no event has been summarised yet"):
        promoted(None)
    entry = promoted(T + 5 * S, overlap_ms=7 * MINUTE)
    assert (entry.since_ms, entry.from_ms) == (T + MINUTE, T + 8 * MINUTE)
    # While the barrier was on its way, ingest was told to wait.
    assert [p.since_ms for p in seen if p is not None] == [T, 0, T + MINUTE]


def test_a_promotion_that_was_killed_can_be_ended(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG)
    model = config.models["fraud"]
    first, second = two(config, tmp_path)
    assert withdraw(model) is None
    held = History((Entry(first.id),), Pending("f" * 32, T, "t"))
    history.write(model.reference, held)
    with pytest.raises(ProfileError, match="another promotion, of ffffffffffff, is under way"):
        promote(config, model, str(tmp_path / "new"), from_ms=T, offline=True)
    # A replay does not wait for what is not settled.
    assert references(config)["fraud"].eras[0].era == Era()
    pending = withdraw(model)
    assert pending is not None
    assert pending.id == "f" * 32
    # The same promotion again takes the killed one over.
    history.write(model.reference, replace(held, pending=Pending(second.id, T, "t")))
    promote(config, model, str(tmp_path / "new"), from_ms=T, offline=True)
    known = history.read(model.reference)
    assert known is not None
    assert known.pending is None
    assert len(known.entries) == 2


def test_commands_fit_promote_and_show(tmp_path: Path) -> None:
    config_of(tmp_path, CONFIG)
    path, runner = str(tmp_path / "driftline.yaml"), CliRunner()
    for name, seed in (("one", 1), ("two", 2)):
        lines = [python_json(row) for row in rows_of(seed, 300)]
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(lines))

    def run(*words: str) -> Any:
        return runner.invoke(app, [*words, "--config", path])

    assert run("fit", "--input", str(tmp_path / "one.jsonl")).exit_code == 0
    new = str(tmp_path / "fitted")
    assert run("fit", "--input", str(tmp_path / "two.jsonl"), "--out", new).exit_code == 0
    done = run("reference", "promote", new, "--from", iso_ms(T), "--overlap", "2m", "--offline")
    assert done.exit_code == 0, done.output
    assert f"from {iso_ms(T)} on" in done.output
    assert iso_ms(T - 2 * MINUTE) in done.output
    shown = json.loads(run("reference", "show", "--json").output)
    assert [r["from"] for r in shown["references"]] == [None, iso_ms(T)]
    assert [r["until"] for r in shown["references"]] == [iso_ms(T), None]
    assert shown["pending"] is None
    assert shown["references"][1]["id"][:12] in run("reference", "show").output
    assert "no promotion is under way" in run("reference", "withdraw").output
    refused = run("fit", "--input", str(tmp_path / "one.jsonl"))
    assert isinstance(refused.exception, ProfileError)
    assert "driftline fit --out NEW" in str(refused.exception)
    page = tmp_path / "page.html"
    lines = [python_json(row) for row in rows_of(3, 450)]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines))
    events = str(tmp_path / "events.jsonl")
    assert run("report", "--input", events, "--out", str(page)).exit_code == 0
    assert f"in force since {iso_ms(T)}" in page.read_text()
