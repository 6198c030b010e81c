"""Pane deltas and progress as bytes: there and back, in pieces, and damaged."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors import Columns, Profile, fit, merge, summarize
from driftline.detectors.panes import Pane
from driftline.schemas.errors import EventError
from driftline.schemas.pane import MAX_DELTA_BYTES, Delta, PartitionProgress, Progress
from driftline.stream.deltas import to_delta, to_panes

KAFKA_LIMIT_BYTES = 1_048_588


def profile_of(n_numeric: int, n_rows: int, n_categorical: int) -> Profile:
    columns: dict[str, Any] = {f"x{i}": np.arange(n_rows) * 1.0 for i in range(n_numeric)}
    columns |= {f"c{i}": ["a", "b", "c", None] * (n_rows // 4) for i in range(n_categorical)}
    return fit(columns, {n: "numeric" if n[0] == "x" else "categorical" for n in columns})[0]


def panes_of(profile: Profile, n: int, n_panes: int, seed: int, width: int = 1) -> list[Pane]:
    """Panes of `n` events; strangers among the categories have names of `width` characters."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for f in profile.numeric:
        x = rng.uniform(-0.1, 1.1, n) * len(f.values)
        x[rng.random(n) < 0.5] //= 1
        columns[f.name] = [*x[: n - 3].tolist(), None, np.nan, np.inf][:n]
    for f in profile.categorical:
        names = ["a", "b", "c", None, *("é" * width + str(i) for i in range(9))]
        columns[f.name] = [names[i] for i in rng.integers(0, len(names), n)]
    plain = Columns.of(profile, columns)
    versions = [f"v{i % 7}" for i in range(n)]
    columns_ = Columns(plain.n, plain.numeric, plain.categorical, plain.nan, versions)
    return summarize(profile, columns_, rng.integers(0, n_panes, n) * 60_000)


def same(profile: Profile, a: list[Pane], b: list[Pane]) -> bool:
    """Whether two lists of parts come to the same panes."""
    for one, two in zip(merge(profile, a), merge(profile, b), strict=True):
        first, second = np.argsort(one.cells), np.argsort(two.cells)
        assert one.start_ms == two.start_ms
        assert one.events == two.events
        assert one.cells[first].tolist() == two.cells[second].tolist()
        assert one.counts[first].tolist() == two.counts[second].tolist()
        assert one.sums.tolist() == two.sums.tolist()
        np.testing.assert_array_equal(one.low, two.low)
        np.testing.assert_array_equal(one.high, two.high)
        assert one.unseen == two.unseen
        assert one.versions == two.versions
    return True


@pytest.mark.parametrize(("numeric", "categorical", "n", "n_panes"), [
    (1, 0, 1, 1), (0, 1, 40, 3), (2, 2, 500, 7), (3, 0, 80, 60), (0, 2, 300, 300),
])  # fmt: skip
def test_a_delta_comes_back_as_it_went(
    numeric: int, categorical: int, n: int, n_panes: int
) -> None:
    profile = profile_of(numeric, 40, categorical)
    panes = panes_of(profile, n, n_panes, 1)
    delta = to_delta("fraud", {"country": "ES", "tier": "a|b"}, profile, panes)
    back = Delta.decode(delta.encode())
    assert (back.model, back.segment, back.profile) == (
        "fraud", {"country": "ES", "tier": "a|b"}, profile.id,
    )  # fmt: skip
    assert same(profile, to_panes(back, profile), panes)
    if categorical:
        assert back.unseen
    assert back.versions


@pytest.mark.parametrize("max_bytes", [3000, 20_000, 200_000])
@pytest.mark.parametrize(
    ("numeric", "categorical", "n", "n_panes", "width"),
    [(1, 0, 5000, 1, 1), (3, 2, 3000, 1, 1), (2, 2, 3000, 40, 60), (0, 3, 400, 400, 1)],
)
def test_pieces_add_up_and_are_small(
    max_bytes: int, numeric: int, categorical: int, n: int, n_panes: int, width: int
) -> None:
    profile = profile_of(numeric, 2000, categorical)
    panes = panes_of(profile, n, n_panes, 2, width)
    whole = to_delta("fraud", {"country": "ES"}, profile, panes)
    pieces = [Delta.decode(piece.encode()) for piece in whole.split(max_bytes)]
    sizes = [len(piece.encode()) for piece in whole.split(max_bytes)]
    assert max(sizes) <= max_bytes
    assert len(sizes) <= 1 + 3 * n * 20 // max_bytes + 40 * n_panes
    assert sum(int(piece.events.sum()) for piece in pieces) == n
    assert same(profile, [p for piece in pieces for p in to_panes(piece, profile)], panes)


def test_a_delta_below_the_limit_is_one_message() -> None:
    profile = profile_of(2, 40, 1)
    delta = to_delta("fraud", {}, profile, panes_of(profile, 200, 3, 3))
    assert list(delta.split()) == [delta]


def test_one_pane_larger_than_the_limit_in_every_half_of_its_features() -> None:
    profile = profile_of(8, 60_000, 1)
    panes = panes_of(profile, 100_000, 1, 4)
    whole = to_delta("fraud", {}, profile, panes)
    # Half of the features alone would not fit either.
    assert len(whole.encode()) > 2 * KAFKA_LIMIT_BYTES
    pieces = list(whole.split())
    assert max(len(p.encode()) for p in pieces) <= MAX_DELTA_BYTES
    assert same(profile, [p for piece in pieces for p in to_panes(piece, profile)], panes)


def test_many_small_panes_are_cut_too() -> None:
    """A backfill: every event has a pane of its own."""
    profile = profile_of(0, 40, 1)
    n = 60_000
    columns = Columns.of(profile, {"c0": ["a"] * n})
    panes = summarize(profile, columns, np.arange(n) * 60_000)
    pieces = list(to_delta("fraud", {}, profile, panes).split())
    assert max(len(p.encode()) for p in pieces) <= MAX_DELTA_BYTES
    assert sum(len(p.start_ms) for p in pieces) == n


def test_names_that_strangers_send_do_not_outgrow_a_message() -> None:
    profile = profile_of(0, 40, 400)
    row = {f"c{i}": [chr(1) * 190 + str(j) for j in range(5)] for i in range(400)}
    panes = summarize(profile, Columns.of(profile, row), np.zeros(5, np.int64))
    pieces = list(to_delta("fraud", {}, profile, panes).split())
    assert len(pieces) > 2
    assert max(len(p.encode()) for p in pieces) <= MAX_DELTA_BYTES
    assert same(profile, [p for piece in pieces for p in to_panes(piece, profile)], panes)


PROFILE = profile_of(2, 40, 1)
GOOD = to_delta("fraud", {"country": "ES"}, PROFILE, panes_of(PROFILE, 60, 2, 5))
RAW = GOOD.encode()


def taken_in(raw: bytes) -> str:
    """What becomes of a message: fine, or the reason of the refusal. Anything else escapes."""
    try:
        to_panes(Delta.decode(raw), PROFILE)
    except EventError as error:
        assert error.message
        return error.reason
    return "fine"


DAMAGE = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, len(RAW) - 1), st.just(0)),
    st.tuples(st.just("flip"), st.integers(0, len(RAW) - 1), st.integers(1, 255)),
    st.tuples(st.just("head"), st.integers(8, 900), st.integers(1, 255)),
    st.tuples(st.just("drop"), st.integers(0, len(RAW) - 1), st.integers(1, 40)),
    st.tuples(st.just("double"), st.integers(0, len(RAW) - 1), st.integers(1, 40)),
)


@settings(max_examples=700, deadline=None, derandomize=True, database=None)
@given(st.lists(DAMAGE, min_size=1, max_size=3))
def test_a_damaged_delta_is_an_event_error(damage: list[tuple[str, int, int]]) -> None:
    raw = bytearray(RAW)
    for how, at, by in damage:
        at = min(at, len(raw))
        if how == "cut":
            del raw[at:]
        elif how in ("flip", "head") and at < len(raw):
            raw[at] ^= by
        elif how == "drop":
            del raw[at : at + by]
        else:
            raw[at:at] = raw[at : at + by]
    assert taken_in(bytes(raw)) in ("fine", "bad_pane")


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_an_event_error(raw: bytes) -> None:
    assert taken_in(raw) == "bad_pane"
    with pytest.raises(EventError):
        Progress.decode(raw)


def with_array(**changed: Any) -> bytes:
    fields = {name: getattr(GOOD, name) for name in Delta.__slots__} | changed
    return Delta(**fields).encode()


def reencoded(name: str, change: Any) -> bytes:
    """The delta with one array replaced as it stands on the wire."""
    from safetensors.numpy import load, save

    arrays = load(RAW)
    size = int.from_bytes(RAW[:8], "little")
    import orjson

    metadata = orjson.loads(RAW[8 : 8 + size])["__metadata__"]
    arrays[name] = np.ascontiguousarray(change(arrays[name]))
    return save(arrays, metadata)


@pytest.mark.parametrize(("name", "change"), [
    ("lengths", lambda a: a.ravel()),
    ("lengths", lambda a: a[:, :1]),
    ("lengths", lambda a: a.astype(np.float64)),
    ("lengths", lambda a: a.astype(np.int8)),
    ("lengths", lambda a: a + np.array([[2**63, 2**63, 0], [0, 0, 0]], np.uint64)),
    ("cells", lambda a: a.astype(np.int16) - 1),
    ("cells", lambda a: a.astype(np.uint32) + 1000),
    ("cells", lambda a: a[:-1]),
    ("cells", lambda a: a[:, np.newaxis]),
    ("counts", lambda a: a.astype(np.uint64) + 2**31),
    ("counts", lambda a: a.astype(np.float32)),
    ("counts", lambda a: a[1:]),
    ("events", lambda a: -a),
    ("events", lambda a: a[:1]),
    ("events", lambda a: a.astype(np.uint64)),
    ("start_ms", lambda a: a.astype(np.float64)),
    ("start_ms", lambda a: a[0]),
    ("sums", lambda a: a.astype(np.float64)),
    ("sums", lambda a: a[:, :, :2]),
    ("low", lambda a: a.ravel()),
    ("low", lambda a: a.astype(np.int64)),
    ("high", lambda a: a[:1]),
    ("extra", lambda a: np.zeros(3)),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(name: str, change: Any) -> None:
    if name == "extra":
        from safetensors.numpy import load, save

        raw = save(load(RAW) | {"extra": np.zeros(3)}, {"format": "1"})
    else:
        raw = reencoded(name, change)
    assert taken_in(raw) == "bad_pane"


@pytest.mark.parametrize("changed", [
    {"unseen": [(0, 2, "x")]}, {"unseen": [(2, 2, "x", 1)]}, {"unseen": [(-1, 2, "x", 1)]},
    {"unseen": [(0, 3, "x", 1)]}, {"unseen": [(0, 2, 7, 1)]}, {"unseen": [(0, 2, "x", "1")]},
    {"versions": [(0, "7")]}, {"versions": [(2, "7", 1)]}, {"versions": [(0, 7, 1)]},
    {"versions": [("0", "7", 1)]}, {"segment": {"country": 7}},
])  # fmt: skip
def test_names_that_do_not_fit_are_refused(changed: dict[str, Any]) -> None:
    assert taken_in(RAW) == "fine"
    assert taken_in(with_array(**changed)) == "bad_pane"


def test_a_segment_that_is_no_object_is_refused() -> None:
    assert (
        taken_in(RAW.replace(b'{\\"country\\":\\"ES\\"}', b'[\\"country\\",\\"ES\\"]'))
        == "bad_pane"
    )


def test_another_format_says_what_to_do() -> None:
    with pytest.raises(EventError, match="format '2'.*one version of driftline for all stages"):
        Delta.decode(RAW.replace(b'"format":"1"', b'"format":"2"'))


def test_a_profile_of_another_shape_is_refused() -> None:
    for other in (profile_of(1, 40, 1), profile_of(2, 40, 2), profile_of(3, 40, 0)):
        with pytest.raises(EventError, match="pane delta with 3 features") as caught:
            to_panes(Delta.decode(RAW), other)
        assert caught.value.reason == "bad_pane"
    with pytest.raises(EventError, match="a cell beyond those"):
        to_panes(Delta.decode(RAW), profile_of(2, 28, 1))


PROGRESS = Progress("inference", 3, [
    PartitionProgress(0, 17, 1_700_000_000_000, False, {"received": 5, "late": 1}),
    PartitionProgress(2, 0, None, True, {}),
])  # fmt: skip


def test_progress_comes_back_as_it_went() -> None:
    assert Progress.decode(PROGRESS.encode()) == PROGRESS
    bare = Progress("t", 1, [PartitionProgress(0, 1, 2)])
    assert Progress.decode(bare.encode()).partitions[0].counts == {}


@settings(max_examples=700, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 230), st.binary(max_size=12), st.integers(0, 20))
def test_damaged_progress_is_an_event_error(at: int, put: bytes, cut: int) -> None:
    raw = PROGRESS.encode()
    raw = raw[:at] + put + raw[at + cut :]
    try:
        Progress.decode(raw)
    except EventError as error:
        assert error.reason == "bad_pane"


@pytest.mark.parametrize("raw", [
    b"[]", b"7", b"null", b"{}", b'{"format":"2","topic":"t","n_partitions":1,"partitions":[]}',
    b'{"format":"1","topic":"t","n_partitions":null,"partitions":[]}',
    b'{"format":"1","topic":"t","n_partitions":1,"partitions":[7]}',
    b'{"format":"1","topic":"t","n_partitions":1,"partitions":{"a":1}}',
    b'{"format":"1","topic":"t","n_partitions":1,"partitions":[{"partition":0,"offset":1,'
    b'"event_time_ms":"x","idle":false,"counts":{}}]}',
    b'{"format":"1","topic":"t","n_partitions":1,"partitions":[{"partition":0,"offset":1,'
    b'"event_time_ms":1,"idle":false,"counts":[]}]}',
])  # fmt: skip
def test_progress_with_other_content_is_refused(raw: bytes) -> None:
    with pytest.raises(EventError) as caught:
        Progress.decode(raw)
    assert caught.value.reason == "bad_pane"


def test_damage_is_noticed_more_often_than_not() -> None:
    """The tests above would pass if nothing were ever refused."""
    rng = np.random.default_rng(6)
    fates: Counter[str] = Counter()
    for _ in range(2000):
        raw = bytearray(RAW)
        raw[rng.integers(0, len(raw) // 2)] ^= 1 << rng.integers(0, 8)
        fates[taken_in(bytes(raw))] += 1
    assert fates["bad_pane"] > 1500


def test_the_last_cell_of_a_feature_is_one_and_the_next_is_not() -> None:
    sizes = np.diff(PROFILE.offsets)
    ends = GOOD.lengths[0].cumsum()
    for feature, size in enumerate(sizes.tolist()):
        cells = GOOD.cells.copy()
        cells[ends[feature] - 1] = size - 1
        assert taken_in(with_array(cells=cells)) == "fine"
        cells[ends[feature] - 1] = size
        assert taken_in(with_array(cells=cells)) == "bad_pane"
