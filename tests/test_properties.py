"""Properties that hold for any values, any order, any batches and any timeline."""

from __future__ import annotations

import copy
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from driftline.detectors import (
    Columns,
    Kind,
    OpenPane,
    Pane,
    Profile,
    Window,
    WindowBank,
    fit,
    merge,
)
from driftline.detectors import summarize as summarize_columns
from driftline.detectors.numeric import BEYOND, FARTHEST_SD, FIXED_POINT_BITS, SUM, SUM_OF_SQUARES
from driftline.detectors.panes import SAMPLE, merge_names, sample_names
from driftline.detectors.profile import ABSENT, MISSING, NAN, NEG_INF, POS_INF, UNSEEN
from driftline.detectors.ranks import Ranker
from driftline.schemas.units import EventWindow, TimeWindow

# The same examples in every run, and no deadline: nothing here depends on the clock.
SETTINGS: dict[str, Any] = {"derandomize": True, "deadline": None, "database": None}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = hnp.from_dtype(np.dtype(np.float64), allow_nan=False, allow_infinity=False)


# Ranks


def cells_by_searchsorted(
    values: npt.NDArray[np.float64], x: npt.NDArray[np.float64]
) -> npt.NDArray[np.intp]:
    below = np.searchsorted(values, x, "left")
    on = np.searchsorted(values, x, "right") > below
    return np.where(on, len(values) + 1 + below, below)


def neighbours(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The values and the floats on both sides of each, where those are finite."""
    with np.errstate(over="ignore"):
        x = np.concatenate([values, np.nextafter(values, np.inf), np.nextafter(values, -np.inf)])
    return x[np.isfinite(x)]


def distinct(values: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.unique(np.asarray(values, np.float64) + 0.0)


@settings(max_examples=150, **SETTINGS)
@given(
    references=st.lists(hnp.arrays(np.float64, st.integers(1, 150), elements=NUMBERS), min_size=1,
                        max_size=3),
    more=st.lists(FINITE, max_size=20),
)  # fmt: skip
@example(references=[np.array([-1.7e308, 1.6e308, 1.7e308])], more=[1.5e308, -1.79e308, 1.79e308])
@example(references=[np.array([0.0, 5e-324]), np.array([1e308])], more=[-1.7e308, 1e-323, 1e308])
def test_cells_are_those_of_a_binary_search(
    references: list[npt.NDArray[np.float64]], more: list[float]
) -> None:
    values = [distinct(reference) for reference in references]
    x = np.concatenate([*map(neighbours, values), more, [0.0, -0.0, 1.7e308, -1.7e308, 5e-324]])
    rows = np.broadcast_to(x, (len(values), len(x))).copy()
    ranker = Ranker(values)
    for found in (ranker.cells(rows), ranker.cells(np.asfortranarray(rows))):
        for row, own in zip(found, values, strict=True):
            np.testing.assert_array_equal(row, cells_by_searchsorted(own, x))


SHAPES: dict[str, Callable[[np.random.Generator], npt.NDArray[np.float64]]] = {
    "even": lambda r: np.linspace(-3, 7, 500),
    "normal": lambda r: r.normal(size=3000),
    "one far away": lambda r: np.append(r.normal(size=800), 1e300),
    "two clusters": lambda r: np.concatenate([r.normal(size=900), 1e9 + r.normal(size=900)]),
    "geometric": lambda r: np.geomspace(1e-300, 1e300, 900),
    "width overflows": lambda r: np.linspace(-8.9, 8.9, 500) * 2e307,
    "denormal": lambda r: np.arange(-300, 500) * 5e-324,
    "neighbouring floats": lambda r: 1.0 + np.arange(500) * 2.0**-52,
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_cells_of_large_references_are_those_of_a_binary_search(
    shape: Callable[[np.random.Generator], npt.NDArray[np.float64]],
) -> None:
    """Also with every other shape beside it: the tables of all features lie end to end."""
    rng = np.random.default_rng(1)
    own = distinct(shape(rng))
    others = [distinct(other(rng)) for other in SHAPES.values()]
    x = np.concatenate([neighbours(own), rng.normal(size=500), rng.choice(own, 500) * 0.99])
    x = x[np.isfinite(x)]
    expected = cells_by_searchsorted(own, x)
    np.testing.assert_array_equal(Ranker([own]).cells(x[None, :])[0], expected)
    rows = np.broadcast_to(x, (len(others) + 1, len(x))).copy()
    together = Ranker([*others, own]).cells(rows)
    np.testing.assert_array_equal(together[-1], expected)
    for row, other in zip(together, others, strict=False):
        np.testing.assert_array_equal(row, cells_by_searchsorted(other, x))


# Fitting


@settings(max_examples=300, **SETTINGS)
@given(st.lists(st.one_of(FINITE, st.sampled_from([0.0, 5e-324, 1e-310, 1e308, -1e308, 1e9])),
                min_size=20, max_size=20))  # fmt: skip
@example([0.0] * 19 + [5e-324])
@example([1.7e308, -1.7e308] * 10)
@example([1e9 + i * 1e-7 for i in range(20)])
def test_any_numbers_are_fitted_or_refused(values: list[float]) -> None:
    """No warning, no NaN: a mean and a spread that are right, or an error that says why not."""
    usual = {"c": ["a", "b"] * 10}
    profile, left_out = fit({"x": values, **usual})
    if left_out:
        [why] = left_out
        assert "cannot be represented" in why.reason
        assert max(map(abs, values)) < 1e-320 or max(values) > 1e308
        return
    if len(set(values)) == 1:
        [x] = [f for f in profile.categorical if f.name == "x"]
        assert (x.constant, x.counts.tolist()) == (values[0], [20])
        return
    [f] = profile.numeric
    exact = [Fraction(v) for v in values]
    mean = sum(exact) / len(exact)
    variance = sum((v - mean) ** 2 for v in exact) / (len(exact) - 1)
    spread = max(exact) - min(exact)
    assert abs(Fraction(f.mean) - mean) <= spread * Fraction(1, 10**12) + Fraction(1e-322)
    assert float(Fraction(f.sd) ** 2 / variance) == pytest.approx(1.0, rel=1e-3)
    if spread > Fraction(1e-300):
        assert float(Fraction(f.sd) ** 2 / variance) == pytest.approx(1.0, rel=1e-9)


def test_numpy_scalars_in_lists_are_what_they_stand_for() -> None:
    """As they come out of a column of objects."""
    columns: dict[str, list[Any]] = {
        "flag": [True, False] * 20,
        "code": ["a", 7, 2.5, True] * 10,
        "amount": [0.5 * i for i in range(40)],
    }
    types = {bool: np.bool_, str: np.str_, int: np.int64, float: np.float32}
    boxed = {name: [types[type(v)](v) for v in column] for name, column in columns.items()}
    kinds: dict[str, Kind] = {"flag": "boolean", "code": "categorical", "amount": "numeric"}
    profile, _ = fit(columns, kinds)
    assert fit(boxed, kinds)[0].id == profile.id
    starts = np.zeros(40, np.int64)
    [plain] = summarize_columns(profile, Columns.of(profile, columns), starts)
    [unboxed] = summarize_columns(profile, Columns.of(profile, boxed), starts)
    assert content(unboxed) == content(plain)
    assert not plain.unseen


# Panes


PANE_MS = 1000
REFERENCE: dict[str, list[Any]] = {
    "x": [*(i / 4 for i in range(60)), 7.0, 7.0, None],
    "y": [1e9 + i % 7 for i in range(63)],
    "colour": ["red", "green", "blue"] * 21,
    "flag": [True, False, None] * 21,
}
PROFILE, _ = fit(REFERENCE)

numbers = st.one_of(
    st.none(),
    st.sampled_from([7.0, 3.25, 0.0, -0.0, 1e9, 1e9 + 3, float("nan"), float("inf"), -1e300]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(10**400), 10**400),
)
names = st.one_of(
    st.none(),
    st.sampled_from(["red", "green", "blue", "mauve", "", "1", "NaN"]),
    st.text(max_size=3),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(-3, 3),
    st.just(float("nan")),
)


@dataclass(frozen=True)
class Event:
    slot: int
    x: Any
    y: Any
    colour: Any
    flag: Any
    version: str | None


events = st.builds(
    Event,
    slot=st.integers(0, 3),
    x=numbers,
    y=numbers,
    colour=names,
    flag=st.one_of(st.none(), st.booleans(), st.sampled_from(["true", "0", "yes"])),
    version=st.one_of(st.none(), st.sampled_from("abcdefgh")),
)


def summarize(happened: Sequence[Event]) -> list[Pane]:
    columns = {name: [getattr(e, name) for e in happened] for name in ("x", "y", "colour", "flag")}
    plain = Columns.of(PROFILE, columns)
    with_versions = Columns(
        plain.n, plain.numeric, plain.categorical, plain.nan, [e.version for e in happened]
    )
    starts = np.array([e.slot * PANE_MS for e in happened], np.int64)
    return summarize_columns(PROFILE, with_versions, starts)


def content(pane: Pane) -> dict[str, Any]:
    """Everything a pane holds, the order of its entries apart, bits of floats included."""
    order = np.argsort(pane.cells, kind="stable")
    return {
        "start_ms": pane.start_ms,
        "events": pane.events,
        "cells": pane.cells[order].tolist(),
        "counts": pane.counts[order].tolist(),
        "sums": pane.sums.tolist(),
        "low": pane.low.tobytes(),
        "high": pane.high.tobytes(),
        "unseen": {i: sampled for i, sampled in sorted(pane.unseen.items()) if sampled},
        "versions": pane.versions,
    }


def contents(panes: Sequence[Pane]) -> list[dict[str, Any]]:
    return [content(pane) for pane in panes]


@settings(max_examples=150, **SETTINGS)
@given(st.lists(events, min_size=1, max_size=40), st.data())
def test_summary_of_parts_is_the_summary_of_the_whole(
    happened: list[Event], data: st.DataObject
) -> None:
    """Whatever the parts, the order of the events, and the order in which the parts arrive."""
    whole = contents(merge(PROFILE, summarize(happened)))
    shuffled = data.draw(st.permutations(happened))
    n_parts = data.draw(st.integers(1, 6))
    part_of = data.draw(st.lists(st.integers(0, n_parts - 1), min_size=len(happened),
                                 max_size=len(happened)))  # fmt: skip
    parts = [
        pane
        for wanted in range(n_parts)
        for pane in summarize([e for e, p in zip(shuffled, part_of, strict=True) if p == wanted])
    ]
    arrived = data.draw(st.permutations(parts))
    assert contents(merge(PROFILE, arrived)) == whole
    # And in groups: merge is associative.
    cut = data.draw(st.integers(0, len(arrived)))
    halves = [*merge(PROFILE, arrived[:cut]), *merge(PROFILE, arrived[cut:])]
    assert contents(merge(PROFILE, halves)) == whole


@pytest.mark.parametrize("values", [[0.0, -0.0], [0.0, -0.0, None], [-0.0, 0.0, 1.0], [-0.0, -0.0]])
def test_sign_of_zero_does_not_depend_on_the_order(values: list[float | None]) -> None:
    """Both zeros are one value, so which of them came first may not show."""
    happened = [Event(0, v, 1.0, "red", True, None) for v in values]
    whole = contents(summarize(happened))
    assert contents(summarize(happened[::-1])) == whole
    parts = [summarize([event])[0] for event in happened]
    assert contents(merge(PROFILE, parts)) == contents(merge(PROFILE, parts[::-1])) == whole


@settings(max_examples=150, **SETTINGS)
@given(st.lists(events, min_size=1, max_size=40))
def test_panes_count_every_value_once(happened: list[Event]) -> None:
    """Against a count by hand, cell by cell."""
    panes = summarize(happened)
    assert [p.start_ms for p in panes] == sorted({e.slot * PANE_MS for e in happened})
    for pane in panes:
        inside = [e for e in happened if e.slot * PANE_MS == pane.start_ms]
        assert pane.events == len(inside)
        assert len(set(pane.cells.tolist())) == len(pane.cells)
        assert (pane.counts > 0).all()
        expected: Counter[int] = Counter()
        for index, f in enumerate(PROFILE.features):
            for event in inside:
                cell = cell_of(PROFILE, index, getattr(event, f.name))
                expected[int(PROFILE.offsets[index]) + cell] += 1
        found = dict(zip(pane.cells.tolist(), pane.counts.tolist(), strict=True))
        assert found == dict(expected)
        assert pane.versions == lowest_checksums(Counter(e.version for e in inside if e.version))


def cell_of(profile: Profile, index: int, value: Any) -> int:
    """The cell of one value, by the drawings at the top of profile.py."""
    f = profile.features[index]
    if f.name in ("x", "y"):
        values = profile.numeric[index].values.tolist()
        finite = 2 * len(values) + 1
        if value is None:
            return finite + MISSING
        if value != value:
            return finite + NAN
        if value > 1.7976931348623157e308:
            return finite + POS_INF
        if value < -1.7976931348623157e308:
            return finite + NEG_INF
        number = float(value)
        below = sum(v < number for v in values)
        return len(values) + 1 + below if number in values else below
    categories = profile.categorical[index - profile.n_numeric].categories
    if value is None or value != value:
        return len(categories) + ABSENT
    text = spelled(value)
    if f.name == "flag":
        text = {"1": "true", "0": "false"}.get(text, text)
    return categories.index(text) if text in categories else len(categories) + UNSEEN


def spelled(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)


@settings(max_examples=100, **SETTINGS)
@given(st.lists(events, min_size=1, max_size=30))
def test_summarize_leaves_its_input_alone(happened: list[Event]) -> None:
    columns = {name: [getattr(e, name) for e in happened] for name in ("x", "y", "colour", "flag")}
    plain = Columns.of(PROFILE, columns)
    before = copy.deepcopy((plain.numeric, plain.nan, plain.categorical))
    starts = np.array([e.slot * PANE_MS for e in happened], np.int64)
    kept = starts.copy()
    summarize_columns(PROFILE, plain, starts)
    np.testing.assert_array_equal(plain.numeric, before[0])
    np.testing.assert_array_equal(plain.nan, before[1])
    assert repr(plain.categorical) == repr(before[2])
    np.testing.assert_array_equal(starts, kept)


def test_summarize_of_no_events_is_no_pane() -> None:
    nothing = Columns.of(PROFILE, {name: [] for name in REFERENCE})
    assert summarize_columns(PROFILE, nothing, np.empty(0, np.int64)) == []


@pytest.mark.parametrize("n_categories", [3, 900])
@pytest.mark.parametrize("n_panes", [1, 2, 70, 5000])
def test_many_panes_and_categories_in_one_batch(n_panes: int, n_categories: int) -> None:
    """Batches and profiles of any shape count alike, however the counting is done."""
    rng = np.random.default_rng([n_panes, n_categories])
    known = [f"c{i}" for i in range(n_categories)]
    profile, _ = fit({"c": known * 30, "x": np.arange(30.0 * n_categories)})
    n = max(200, n_panes)
    values = rng.integers(0, 2 * n_categories, n)
    slots = rng.permutation(np.arange(n) % n_panes)
    columns = Columns.of(profile, {
        "c": [f"c{v}" for v in values], "x": values.astype(np.float64),
    })  # fmt: skip
    panes = summarize_columns(profile, columns, slots * PANE_MS)
    assert [p.start_ms for p in panes] == [s * PANE_MS for s in range(n_panes)]
    expected: Counter[tuple[int, int]] = Counter()
    for slot, value in zip(slots.tolist(), values.tolist(), strict=True):
        x, c = profile.numeric[0], sorted(known)
        at = int(profile.offsets[1])
        expected[slot, at + (c.index(f"c{value}") if value < n_categories else n_categories)] += 1
        expected[slot, len(x.values) + 1 + value] += 1
    found = {
        (p.start_ms // PANE_MS, cell): count
        for p in panes
        for cell, count in zip(p.cells.tolist(), p.counts.tolist(), strict=True)
    }
    assert found == dict(expected)


# Sums


@settings(max_examples=150, **SETTINGS)
@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=60), st.data())
def test_fixed_point_sums_do_not_depend_on_the_order(
    values: list[float], data: st.DataObject
) -> None:
    """Values around 1e9, where floating sums in another order differ in their last bits."""
    profile, _ = fit({"x": [1e9 + i * 0.37 for i in range(50)]})
    column = [1e9 + v for v in values]
    [pane] = sums_of(profile, column)
    [shuffled] = sums_of(profile, data.draw(st.permutations(column)))
    assert pane.sums.tolist() == shuffled.sums.tolist()
    # Exactly what Python's whole numbers make of each value.
    [f] = profile.numeric
    z = [(v - f.mean) * (1.0 / f.sd) for v in column]
    near = [round(v * 2**FIXED_POINT_BITS) for v in z if abs(v) <= FARTHEST_SD]
    assert int(pane.sums[0, SUM]) == sum(near)
    assert int(pane.sums[0, SUM_OF_SQUARES]) == sum(q * q >> FIXED_POINT_BITS for q in near)
    assert int(pane.sums[0, BEYOND]) == len(z) - len(near)
    assert (pane.low[0], pane.high[0]) == (min(column), max(column))


def sums_of(profile: Profile, column: Sequence[float]) -> list[Pane]:
    columns = Columns.of(profile, {"x": column})
    return summarize_columns(profile, columns, np.zeros(len(column), np.int64))


def test_sums_hold_as_many_values_as_promised() -> None:
    """2**27 values, each as far away as is summed at all, stay within an int64."""
    profile, _ = fit({"x": np.arange(100.0)})
    [f] = profile.numeric
    [pane] = sums_of(profile, [f.mean + 255.99 * f.sd] * 1000)
    largest = int(pane.sums[0, SUM_OF_SQUARES]) / 1000
    assert 2**35.9 < largest <= 2**36
    assert largest * 2**27 <= 2**63


def test_values_too_far_away_are_counted_apart() -> None:
    profile, _ = fit({"x": np.arange(100.0)})
    [f] = profile.numeric
    column = [f.mean + 257 * f.sd, f.mean - 257 * f.sd, 1e300, -1.7e308, f.mean]
    [pane] = sums_of(profile, column)
    assert pane.sums.tolist() == [[0, 0, 4]]


# Samples of names


def lowest_checksums(counts: Mapping[str, int]) -> dict[str, int]:
    ranked = sorted(counts, key=lambda name: (zlib.crc32(name.encode()), name))
    return {name: counts[name] for name in sorted(ranked[:SAMPLE], key=lambda n: (n,))}


tallies = st.dictionaries(st.text(max_size=4).filter(lambda s: s.isprintable()),
                          st.integers(1, 9), max_size=15)  # fmt: skip


@settings(max_examples=200, **SETTINGS)
@given(st.lists(tallies, max_size=6), st.data())
def test_samples_of_names_merge_exactly(parts: list[dict[str, int]], data: st.DataObject) -> None:
    """The sample of a union, with its counts, is that of the parts' samples, in any grouping."""
    whole: Counter[str] = Counter()
    for part in parts:
        whole.update(part)
    expected = lowest_checksums(whole)
    assert sample_names(whole) == expected
    assert len(expected) <= SAMPLE
    samples = data.draw(st.permutations([sample_names(part) for part in parts]))
    assert merge_names(samples) == expected
    running: dict[str, int] = {}
    for sample in samples:
        running = merge_names([running, sample])
    assert running == expected
    assert list(running) == sorted(running)


def test_memory_of_an_open_pane_is_bounded_by_its_cells() -> None:
    """However many parts it is put together from, and thousands of new categories among them."""
    opened = OpenPane(PROFILE, 0)
    for i in range(1000):
        for part in summarize([Event(0, i, -i, f"new{i}", True, f"v{i}")]):
            opened.add(part)
        pending = sum(len(cells) for cells, _ in opened._parts)
        assert pending <= PROFILE.n_cells
    pane = opened.close()
    assert pane.events == 1000
    assert int(pane.counts.sum()) == 1000 * len(PROFILE.features)
    assert [len(sampled) for sampled in pane.unseen.values()] == [SAMPLE]
    assert len(pane.versions) == SAMPLE


# Windows


HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Timeline:
    """slots: per pane, the values of its events, None where no pane comes. All of `specs` watch."""

    slots: list[list[int] | None]
    specs: list[TimeWindow | EventWindow]
    retention_ms: int
    start_ms: int


time_windows = st.builds(
    lambda size, hop: TimeWindow(size * PANE_MS, hop and hop * PANE_MS, f"{size}/{hop}"),
    st.integers(1, 6),
    st.one_of(st.none(), st.integers(1, 8)),
)
event_windows = st.builds(lambda n: EventWindow(n, f"{n} events"), st.integers(1, 12))
timelines = st.builds(
    Timeline,
    slots=st.lists(
        st.one_of(st.none(), st.none(), st.lists(st.integers(-5, 70), min_size=1, max_size=6)),
        min_size=1,
        max_size=30,
    ),
    specs=st.lists(st.one_of(time_windows, event_windows), min_size=1, max_size=4),
    retention_ms=st.integers(1, 12).map(lambda n: n * PANE_MS),
    start_ms=st.integers(0, 9).map(lambda n: HOUR_MS + n * PANE_MS),
)
BANK_PROFILE, _ = fit({"x": np.arange(64.0), "c": [f"c{i % 8}" for i in range(64)]})


def pane_of(start_ms: int, values: list[int] | None) -> Pane | None:
    if values is None:
        return None
    columns = Columns.of(BANK_PROFILE, {
        "x": [float(v) for v in values], "c": [f"c{v % 11}" for v in values],
    })  # fmt: skip
    stamped = Columns(
        columns.n, columns.numeric, columns.categorical, None, [f"v{v % 7}" for v in values]
    )
    [pane] = summarize_columns(BANK_PROFILE, stamped, np.full(len(values), start_ms))
    return pane


class Recount:
    """What a bank should answer, worked out from all events again at every push."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.panes: list[tuple[int, list[int]]] = []
        self.was_empty = [True] * len(timeline.specs)

    def inside(self, spec: TimeWindow | EventWindow, end_ms: int) -> list[tuple[int, list[int]]]:
        if isinstance(spec, TimeWindow):
            return [(s, v) for s, v in self.panes if end_ms - spec.size_ms <= s < end_ms]
        reachable = [(s, v) for s, v in self.panes if s >= end_ms - self.timeline.retention_ms]
        for first in range(len(reachable) - 1, -1, -1):
            if sum(len(v) for _, v in reachable[first:]) >= spec.events:
                return reachable[first:]
        return reachable

    def push(self, end_ms: int, values: list[int] | None) -> list[dict[str, Any]]:
        if values is not None:
            self.panes.append((end_ms - PANE_MS, values))
        due = []
        for i, spec in enumerate(self.timeline.specs):
            if isinstance(spec, EventWindow):
                if values is None:
                    continue
            elif end_ms % (spec.hop_ms or PANE_MS):
                continue
            held = self.inside(spec, end_ms)
            if held or not self.was_empty[i]:
                due.append(self.expected(spec, end_ms, held))
            self.was_empty[i] = not held
        return due

    def expected(
        self, spec: TimeWindow | EventWindow, end_ms: int, held: list[tuple[int, list[int]]]
    ) -> dict[str, Any]:
        values = [v for _, vs in held for v in vs]
        counts = np.zeros(BANK_PROFILE.n_cells, np.int64)
        sums = np.zeros((1, 3), np.int64)
        if values:
            pane = pane_of(0, values)
            assert pane is not None
            counts[pane.cells] = pane.counts
            sums = pane.sums
        if isinstance(spec, TimeWindow):
            start_ms, short = end_ms - spec.size_ms, 0
        else:
            start_ms, short = held[0][0], max(0, spec.events - len(values))
        strangers = Counter(f"c{v % 11}" for v in values if v % 11 > 7)
        return {
            "label": spec.label,
            "start_ms": start_ms,
            "end_ms": end_ms,
            "events": len(values),
            "counts": counts.tolist(),
            "sums": sums.tolist(),
            "missing_events": short,
            "panes": [s for s, _ in held],
            "unseen": lowest_checksums(strangers),
            "versions": lowest_checksums(Counter(f"v{v % 7}" for v in values)),
        }


def seen(window: Window) -> dict[str, Any]:
    return {
        "label": window.label,
        "start_ms": window.start_ms,
        "end_ms": window.end_ms,
        "events": window.events,
        "counts": window.counts.tolist(),
        "sums": window.sums.tolist(),
        "missing_events": window.missing_events,
        "panes": [pane.start_ms for pane in window.panes()],
        "unseen": window.unseen(1),
        "versions": window.versions(),
    }


def bank_for(timeline: Timeline) -> WindowBank:
    return WindowBank(BANK_PROFILE, timeline.specs, PANE_MS, timeline.retention_ms)


def copied(bank: WindowBank) -> WindowBank:
    return copy.deepcopy(bank, {id(BANK_PROFILE): BANK_PROFILE})


@settings(max_examples=300, **SETTINGS)
@given(timelines)
def test_windows_hold_what_a_recount_of_all_events_finds(timeline: Timeline) -> None:
    """At every push: which windows are due, their borders, and every count in them."""
    bank, recount = bank_for(timeline), Recount(timeline)
    for i, values in enumerate(timeline.slots):
        start_ms = timeline.start_ms + i * PANE_MS
        due = bank.push(start_ms + PANE_MS, pane_of(start_ms, values))
        assert [seen(w) for w in due] == recount.push(start_ms + PANE_MS, values)


@settings(max_examples=200, **SETTINGS)
@given(timelines)
def test_settled_bank_has_nothing_to_say_about_empty_panes(timeline: Timeline) -> None:
    """So a stage may skip them: straight to the next pane with events, with the same result."""
    bank = bank_for(timeline)
    for i, values in enumerate(timeline.slots):
        start_ms = timeline.start_ms + i * PANE_MS
        bank.push(start_ms + PANE_MS, pane_of(start_ms, values))
        through, over = copied(bank), copied(bank)
        end_ms = start_ms + PANE_MS
        due = []
        for _ in range(60):
            end_ms += PANE_MS
            due += through.push(end_ms, None)
        # An empty window says so once, and then the bank is settled.
        assert through.settled
        if bank.settled:
            assert not due
            later = pane_of(end_ms, [1, 2, 3])
            assert [seen(w) for w in through.push(end_ms + PANE_MS, later)] == [
                seen(w) for w in over.push(end_ms + PANE_MS, later)
            ]
        holds_events = any(isinstance(w.spec, TimeWindow) and w.events for w in bank.windows)
        assert not (holds_events and bank.settled)


@settings(max_examples=150, **SETTINGS)
@given(timelines)
def test_empty_window_is_due_once(timeline: Timeline) -> None:
    """After the last event every time window that was reported with events is reported empty."""
    assume(any(isinstance(spec, TimeWindow) for spec in timeline.specs))
    bank = bank_for(timeline)
    last: dict[int, int] = {}
    end_ms = timeline.start_ms
    for values in timeline.slots + [None] * 60:
        end_ms += PANE_MS
        for window in bank.push(end_ms, pane_of(end_ms - PANE_MS, values)):
            at = bank.windows.index(window)
            # Never empty twice in a row, nor empty before anything was in it.
            assert window.events > 0 or last.get(at, 0) > 0
            last[at] = window.events
    for at, events_then in last.items():
        if isinstance(timeline.specs[at], TimeWindow):
            assert events_then == 0


@settings(max_examples=150, **SETTINGS)
@given(timelines)
def test_bank_keeps_the_panes_its_windows_need_and_no_others(timeline: Timeline) -> None:
    """`earliest_ms` is where a restarted stage begins to read, so it may not be too late; and what
    is kept may not grow with the stream."""
    bank = bank_for(timeline)
    for i, values in enumerate(timeline.slots):
        start_ms = timeline.start_ms + i * PANE_MS
        end_ms = start_ms + PANE_MS
        bank.push(end_ms, pane_of(start_ms, values))
        starts = [pane.start_ms for pane in bank.kept]
        assert starts == sorted(starts)
        assert bank.earliest_ms == (starts[0] if starts else None)
        inside = [p.start_ms for w in bank.windows for p in w.panes()]
        assert set(inside) <= set(starts)
        # A window that is not due yet still needs what came since it was.
        waiting = [s for s in starts for w in bank.windows if s >= w.end_ms and s not in inside]
        if starts:
            assert starts[0] in {*inside, *waiting}


def test_windows_of_a_drawn_timeline() -> None:
    """
    pane      0   1   2   3   4   5   6   7   8
    events    2   3   ·   1   ·   ·   ·   ·   4
    2 panes   2   5   3   1   1   0   ·   ·   4
    hop of 3          5           1           4     (size 3, hop 3: ends at 3, 6, 9)
    4 events  2   5       4                   4     (first: 2 are there, 4 are wanted)
    """
    specs = [
        TimeWindow(2 * PANE_MS, None, "2"),
        TimeWindow(3 * PANE_MS, 3 * PANE_MS, "3 hop 3"),
        EventWindow(4, "4 events"),
    ]
    bank = WindowBank(BANK_PROFILE, specs, PANE_MS, retention_ms=100 * PANE_MS)
    happened = [2, 3, 0, 1, 0, 0, 0, 0, 4]
    said: dict[str, list[tuple[int, int]]] = {spec.label: [] for spec in specs}
    for slot, n in enumerate(happened):
        pane = pane_of(slot * PANE_MS, [1] * n if n else None)
        for window in bank.push((slot + 1) * PANE_MS, pane):
            said[window.label].append((slot, window.events))
    assert said == {
        "2": [(0, 2), (1, 5), (2, 3), (3, 1), (4, 1), (5, 0), (8, 4)],
        "3 hop 3": [(2, 5), (5, 1), (8, 4)],
        "4 events": [(0, 2), (1, 5), (3, 4), (8, 4)],
    }
