"""What every detector promises, whoever wrote it: all of `detectors()` × all of `CHECKS`.

A detector of another package is found by its entry point, and so is tested here too wherever that
package is installed.
"""

from __future__ import annotations

import copy
import doctest
import importlib
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt
import orjson
import pytest

from driftline.detectors import (
    Columns,
    Detector,
    Effect,
    Kind,
    Outcome,
    Pane,
    Profile,
    Window,
    WindowBank,
    detectors,
    fit,
    merge,
    summarize,
)
from driftline.schemas.units import EventWindow, TimeWindow

PANE_MS = 60_000
N_PANES = 12
N_EVENTS = 900
SPECS = [
    TimeWindow(3 * PANE_MS, None, "3m"),
    TimeWindow(6 * PANE_MS, 2 * PANE_MS, "6m hop 2m"),
    EventWindow(250, "250 events"),
]
STRANGE = [None, float("nan"), float("inf"), float("-inf")]


@dataclass(frozen=True)
class World:
    """A profile with features of every kind, and a stream whose second half has changed."""

    profile: Profile
    reference: Mapping[str, list[Any]]
    stream: Mapping[str, list[Any]]
    slots: npt.NDArray[np.int64]

    def columns(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> Columns:
        chosen = {name: [values[i] for i in rows] for name, values in self.stream.items()}
        columns = Columns.of(self.profile, chosen)
        return replace(columns, versions=[f"v{i % 7}" for i in rows])

    def summarize(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> list[Pane]:
        return summarize(self.profile, self.columns(rows), self.slots[np.asarray(rows, int)])

    def of_kinds(self, detector: Detector) -> list[int]:
        return [i for i, f in enumerate(self.profile.features) if f.kind in detector.kinds]


@cache
def world() -> World:
    rng = np.random.default_rng(7)

    def rows(n: int, changed: npt.NDArray[np.bool_]) -> dict[str, list[Any]]:
        level = rng.normal(size=n) + 0.8 * changed
        tied = rng.poisson(3 + 2 * changed)
        colour = rng.choice(["red", "green", "blue", "grey"], n, p=[0.5, 0.3, 0.15, 0.05])
        strange = rng.random(n) < np.where(changed, 0.15, 0.05)
        return {
            "level": [STRANGE[i % 4] if s else x
                      for i, (x, s) in enumerate(zip(level.tolist(), strange, strict=True))],
            "tied": (1e9 + tied).tolist(),
            "steady": rng.normal(size=n).tolist(),
            "colour": [None if s else f"new{i % 9}" if c and i % 5 == 0 else name
                       for i, (name, s, c) in enumerate(
                           zip(colour.tolist(), strange, changed, strict=True))],
            "flag": [None if s else bool(u < 0.3 + 0.3 * c)
                     for u, s, c in zip(rng.random(n), strange, changed, strict=True)],
        }  # fmt: skip

    reference = rows(700, np.zeros(700, np.bool_))
    slots = np.sort(rng.integers(0, N_PANES, N_EVENTS)) * PANE_MS
    # One slice without events, so that there is a gap to step over.
    slots[slots == 4 * PANE_MS] = 5 * PANE_MS
    stream = rows(N_EVENTS, slots >= 6 * PANE_MS)
    profile, left_out = fit(reference, slots=None)
    assert not left_out
    return World(profile, reference, stream, slots)


def bank(specs: Sequence[TimeWindow | EventWindow] = tuple(SPECS)) -> WindowBank:
    return WindowBank(world().profile, specs, PANE_MS, retention_ms=100 * PANE_MS)


def outcomes_of(detector: Detector, windows: Sequence[Window]) -> list[list[Outcome]]:
    return detector.test(world().profile, windows, world().of_kinds(detector))


def history(detector: Detector, panes: Sequence[Pane]) -> list[tuple[str, int, list[Outcome]]]:
    """Every outcome of a whole stream: window, its end, one outcome per feature."""
    by_start = {pane.start_ms: pane for pane in panes}
    windows = bank()
    said = []
    for slot in range(N_PANES + 7):
        due = windows.push((slot + 1) * PANE_MS, by_start.get(slot * PANE_MS))
        for window, outcomes in zip(due, outcomes_of(detector, due), strict=True):
            said.append((window.label, window.end_ms, outcomes))
    assert len(said) > 3 * N_PANES // 2
    return said


def one_window(pane: Pane) -> Window:
    """A window that holds one pane, which begins at 0."""
    windows = bank([TimeWindow(PANE_MS, None, "1m")])
    [window] = windows.push(PANE_MS, pane)
    return window


def window_of(panes: Sequence[Pane]) -> Window:
    """A window that holds these panes and never held another."""
    windows = bank([TimeWindow(N_PANES * PANE_MS, None, "all")])
    [[window]] = [windows.push(p.start_ms + PANE_MS, p) for p in panes][-1:]
    return window


def in_one_pane(rows: Sequence[int] | npt.NDArray[np.intp]) -> list[Pane]:
    return summarize(world().profile, world().columns(rows), np.zeros(len(rows), np.int64))


def same(a: Sequence[Outcome], b: Sequence[Outcome]) -> bool:
    """Equal to the last bit, what is written into a verdict included."""
    return list(a) == list(b) and repr(list(a)) == repr(list(b))


# The checks


def name_and_kinds_are_sane(detector: Detector) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,40}", detector.name)
    assert detectors()[detector.name] is detector or type(detector) in BROKEN
    assert isinstance(detector.kinds, frozenset)
    assert detector.kinds
    assert detector.kinds <= set(get_args(Kind))
    assert isinstance(type(detector)(), Detector)
    # The contract below is about nothing unless there is something it can be tested with.
    assert world().of_kinds(detector)


def docstring_has_an_executed_example(detector: Detector) -> None:
    cls = type(detector)
    module = importlib.import_module(cls.__module__)
    examples = doctest.DocTestFinder(recurse=False).find(
        cls, cls.__name__, globs=vars(module).copy()
    )
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for example in examples:
        runner.run(example, out=said.append)
    assert runner.tries > 0, f"{cls.__name__} has no example in its docstring"
    assert runner.failures == 0, "".join(said)


def merge_commutes(detector: Detector) -> None:
    rng = np.random.default_rng(1)
    rows = rng.permutation(300)
    parts = [pane for part in np.array_split(rows, 5) for pane in in_one_pane(part)]
    [expected] = outcomes_of(detector, [one_window(in_one_pane(rows)[0])])
    for _ in range(6):
        order = rng.permutation(len(parts))
        [merged] = merge(world().profile, [parts[i] for i in order])
        [outcomes] = outcomes_of(detector, [one_window(merged)])
        assert same(outcomes, expected)


def merge_is_associative(detector: Detector) -> None:
    profile = world().profile
    a, b, c = (in_one_pane(part)[0] for part in np.array_split(np.arange(300), 3))
    [left] = merge(profile, [*merge(profile, [a, b]), c])
    [right] = merge(profile, [a, *merge(profile, [b, c])])
    [outcomes_left] = outcomes_of(detector, [one_window(left)])
    [outcomes_right] = outcomes_of(detector, [one_window(right)])
    [flat] = outcomes_of(detector, [one_window(in_one_pane(np.arange(300))[0])])
    assert same(outcomes_left, outcomes_right)
    assert same(outcomes_left, flat)


def batches_do_not_matter(detector: Detector) -> None:
    """Event by event, in batches of any size and order, or all at once."""
    profile, everything = world().profile, np.arange(N_EVENTS)
    expected = history(detector, world().summarize(everything))
    rng = np.random.default_rng(2)
    batchings = [
        [[i] for i in everything],
        np.array_split(everything, 7),
        np.array_split(rng.permutation(N_EVENTS), 31),
        [everything[::-1]],
    ]
    for batches in batchings:
        panes = merge(profile, [p for rows in batches for p in world().summarize(rows)])
        found = history(detector, panes)
        assert len(found) == len(expected)
        for (label, end, outcomes), (label_then, end_then, then) in zip(
            found, expected, strict=True
        ):
            assert (label, end) == (label_then, end_then)
            assert same(outcomes, then)


def streamed_is_batch(detector: Detector) -> None:
    """A window that panes came into and left again is the one made of its events alone: at once,
    or pane by pane where the detector says that it reads panes."""
    windows = bank()
    by_start = {pane.start_ms: pane for pane in world().summarize(np.arange(N_EVENTS))}
    compared = 0
    for slot in range(N_PANES):
        for window in windows.push((slot + 1) * PANE_MS, by_start.get(slot * PANE_MS)):
            slots = world().slots
            rows = np.flatnonzero((slots >= window.start_ms) & (slots < window.end_ms))
            if len(rows) == 0:
                continue
            [pane] = in_one_pane(rows)
            alone = one_window(pane)
            if getattr(detector, "reads_panes", False):
                alone = window_of(world().summarize(rows))
            [streamed], [batch] = (outcomes_of(detector, [w]) for w in (window, alone))
            assert same(streamed, batch)
            compared += 1
    assert compared > 2 * N_PANES


def frozen(window: Window) -> dict[str, Any]:
    """All there is to see of a window, as values that cannot change with it."""
    arrays = {
        "store": window.store,
        "block_sums": window.block_sums,
        "counts": window.counts,
        "sums": window.sums,
    }
    return {
        "arrays": {name: array.tobytes() for name, array in arrays.items()},
        "events": window.events,
        "span": (window.start_ms, window.end_ms),
        "panes": [
            # But for what detectors keep there of the pane itself.
            {f.name: bytes_or_text(getattr(pane, f.name)) for f in fields(pane) if f.name != "made"}
            for pane in window.panes()
        ],
    }


def bytes_or_text(value: object) -> bytes | str:
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value)


def input_is_left_alone(detector: Detector) -> None:
    profile = world().profile
    window = one_window(in_one_pane(np.arange(400))[0])
    before = frozen(window)
    meta, arrays = profile.to_parts()
    arrays = {name: array.tobytes() for name, array in arrays.items()}
    outcomes_of(detector, [window])
    assert frozen(window) == before
    meta_after, arrays_after = profile.to_parts()
    assert meta_after == meta
    assert {name: array.tobytes() for name, array in arrays_after.items()} == arrays


def outcomes_are_repeatable(detector: Detector) -> None:
    """The same again, from another instance, and from a detector that met other windows before."""
    first, second = (
        one_window(in_one_pane(rows)[0]) for rows in (np.arange(300), np.arange(600, 900))
    )
    [expected] = outcomes_of(detector, [first])
    outcomes_of(detector, [second])
    again, other = outcomes_of(detector, [first]), outcomes_of(type(detector)(), [first])
    assert same(again[0], expected)
    assert same(other[0], expected)


def outcomes_come_in_the_order_asked_for(detector: Detector) -> None:
    profile, features = world().profile, world().of_kinds(detector)
    windows = [
        one_window(in_one_pane(rows)[0])
        for rows in (np.arange(300), np.arange(600, 900), np.arange(450, 700))
    ]
    alone = [[detector.test(profile, [w], [i])[0][0] for i in features] for w in windows]
    assert [[o.feature for o in row] for row in alone] == [features] * 3
    for order in ([0, 1, 2], [2, 0, 1], [1, 1]):
        backwards = features[::-1]
        found = detector.test(profile, [windows[k] for k in order], backwards)
        assert len(found) == len(order)
        for k, row in zip(order, found, strict=True):
            assert same(row[::-1], alone[k])
    assert detector.test(profile, [], features) == []
    assert detector.test(profile, windows, []) == [[], [], []]


def outcome_does_not_move_on_with_its_window(detector: Detector) -> None:
    """Windows are reused: a detector may look at their arrays but not keep them."""
    windows = bank([TimeWindow(PANE_MS, None, "1m")])
    before, after = (in_one_pane(rows)[0] for rows in (np.arange(300), np.arange(600, 900)))
    [outcomes] = outcomes_of(detector, windows.push(PANE_MS, before))
    kept = copy.deepcopy(outcomes)
    windows.push(2 * PANE_MS, replace(after, start_ms=PANE_MS))
    assert same(outcomes, kept)


def empty_window_says_so(detector: Detector) -> None:
    windows = bank([TimeWindow(PANE_MS, None, "1m")])
    windows.push(PANE_MS, in_one_pane(np.arange(50))[0])
    [empty] = windows.push(2 * PANE_MS, None)
    assert empty.events == 0
    full = one_window(in_one_pane(np.arange(50))[0])
    # Also beside a window that is not empty.
    for windows_given in ([empty], [full, empty]):
        for outcome in outcomes_of(detector, windows_given)[-1]:
            assert outcome.statistic is None
            assert outcome.p_value is None
            assert outcome.reason
            assert "empty" in outcome.reason
            assert not outcome.significant(1.0)


def outcome_is_fit_for_a_verdict(detector: Detector) -> None:
    """A p-value or a reason, never both or neither; and nothing JSON cannot hold."""
    histories = history(detector, world().summarize(np.arange(N_EVENTS)))
    nothing = {name: [None] * 30 for name in world().profile.names}
    columns = Columns.of(world().profile, nothing)
    [pane] = summarize(world().profile, columns, np.zeros(30, np.int64))
    histories.append(("all missing", PANE_MS, outcomes_of(detector, [one_window(pane)])[0]))
    for _, _, outcomes in histories:
        for outcome in outcomes:
            assert (outcome.p_value is None) == (outcome.reason is not None)
            assert (outcome.p_value is None) == (outcome.statistic is None)
            if outcome.p_value is not None:
                assert type(outcome.p_value) is float
                assert type(outcome.statistic) is float
                assert 0.0 <= outcome.p_value <= 1.0
                assert np.isfinite(outcome.statistic)
            if outcome.confirmed_p is not None:
                assert type(outcome.confirmed_p) is float
                assert 0.0 <= outcome.confirmed_p <= 1.0
            decoded = orjson.loads(orjson.dumps(outcome.detail))
            assert decoded == json.loads(json.dumps(dict(outcome.detail), allow_nan=False))
            if outcome.effect is not None:
                assert_effect(outcome.effect)


def assert_effect(effect: Effect) -> None:
    assert effect.kind in ("mean_shift", "share_shift", "spread_shift", "distance")
    assert all(type(x) is float for x in (effect.value, effect.reference, effect.window))
    assert np.isfinite([effect.value, effect.reference, effect.window]).all()
    assert effect.unit
    assert (effect.category is not None) == (effect.kind == "share_shift")


def reference_is_no_drift(detector: Detector) -> None:
    """A window that holds the reference rows themselves is as they are."""
    columns = Columns.of(world().profile, world().reference)
    [pane] = summarize(world().profile, columns, np.zeros(columns.n, np.int64))
    for outcome in outcomes_of(detector, [one_window(pane)])[0]:
        assert outcome.p_value is not None
        assert not outcome.significant(0.05)


def profile_round_trips(detector: Detector) -> None:
    """Through JSON and bytes: the profile that is read gives the outcomes of the one written."""
    profile = world().profile
    meta, arrays = profile.to_parts()
    read = Profile.from_parts(
        orjson.loads(orjson.dumps(meta)),
        {n: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for n, a in arrays.items()},
    )
    assert read.id == profile.id
    assert read.names == profile.names
    columns = world().columns(np.arange(400))
    outcomes = []
    for used in (profile, read):
        [pane] = summarize(used, columns, np.zeros(400, np.int64))
        windows = WindowBank(used, [TimeWindow(PANE_MS, None, "1m")], PANE_MS, PANE_MS)
        due = windows.push(PANE_MS, pane)
        outcomes.append(detector.test(used, due, world().of_kinds(detector))[0])
    assert same(*outcomes)


Check = Callable[[Detector], None]
CHECKS: list[Check] = [
    name_and_kinds_are_sane,
    docstring_has_an_executed_example,
    merge_commutes,
    merge_is_associative,
    batches_do_not_matter,
    streamed_is_batch,
    input_is_left_alone,
    outcomes_are_repeatable,
    outcomes_come_in_the_order_asked_for,
    outcome_does_not_move_on_with_its_window,
    empty_window_says_so,
    outcome_is_fit_for_a_verdict,
    reference_is_no_drift,
    profile_round_trips,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(detectors()))
def test_detector(name: str, check: Check) -> None:
    check(detectors()[name])


def test_the_builtin_detectors_are_found() -> None:
    assert {"ks", "chi_squared", "missing_rate"} <= set(detectors())


# Detectors that break a promise: a check that lets them pass is none.


class _Broken:
    """Broken in one way each; otherwise the test whose name it carries."""

    name: ClassVar[str] = "ks"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        return detectors()["ks"].test(profile, windows, features)


class _NoSuchKind(_Broken):
    kinds = frozenset({"text"})  # type: ignore[assignment]  # what is broken about it


class _WrongExample(_Broken):
    """An example that does not say what happens.

    >>> 1 + 1
    3
    """


class _ReadsTheOrderOfEntries(_Broken):
    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        first = [
            [zlib.crc32(pane.places.tobytes()) for pane in window.panes()] for window in windows
        ]
        rows = super().test(profile, windows, features)
        return [[o._replace(detail={"first": at}) for o in row]
                for at, row in zip(first, rows, strict=True)]  # fmt: skip


class _CountsItsCalls(_Broken):
    def __init__(self) -> None:
        self.calls = 0

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        self.calls += 1
        rows = super().test(profile, windows, features)
        return [[o._replace(detail={"calls": self.calls}) for o in row] for row in rows]


class _WritesIntoTheWindow(_Broken):
    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        rows = super().test(profile, windows, features)
        for window in windows:
            window.store[:3] += 1
            window.block_sums[0] += 3
        return rows


class _KeepsTheWindow(_Broken):
    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        rows = super().test(profile, windows, features)
        return [[o._replace(detail={"counts": w.store}) for o in row]
                for w, row in zip(windows, rows, strict=True)]  # fmt: skip


class _SortsItsFeatures(_Broken):
    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        return super().test(profile, windows, sorted(features))


class _PassesWhenEmpty(_Broken):
    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        rows = super().test(profile, windows, features)
        return [
            [o._replace(statistic=0.0, p_value=1.0, reason=None) if o.reason else o for o in row]
            for row in rows
        ]


class _AnswersNaN(_Broken):
    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        rows = super().test(profile, windows, features)
        return [[o._replace(p_value=float("nan")) for o in row] for row in rows]


class _AlwaysAlarms(_Broken):
    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        rows = super().test(profile, windows, features)
        return [[o._replace(p_value=0.0) for o in row] for row in rows]


class _KnowsProfilesByIdentity(_Broken):
    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        rows = super().test(profile, windows, features)
        return [[o._replace(detail={"new": profile is not world().profile}) for o in row]
                for row in rows]  # fmt: skip


BROKEN: dict[type, list[Check]] = {
    _NoSuchKind: [name_and_kinds_are_sane],
    _WrongExample: [docstring_has_an_executed_example],
    _Broken: [docstring_has_an_executed_example],
    _ReadsTheOrderOfEntries: [merge_commutes, streamed_is_batch],
    _CountsItsCalls: [
        merge_is_associative, batches_do_not_matter, outcomes_are_repeatable,
        outcomes_come_in_the_order_asked_for,
    ],
    _WritesIntoTheWindow: [input_is_left_alone, outcomes_are_repeatable],
    _KeepsTheWindow: [outcome_does_not_move_on_with_its_window, outcome_is_fit_for_a_verdict],
    _SortsItsFeatures: [outcomes_come_in_the_order_asked_for],
    _PassesWhenEmpty: [empty_window_says_so],
    _AnswersNaN: [outcome_is_fit_for_a_verdict],
    _AlwaysAlarms: [reference_is_no_drift],
    _KnowsProfilesByIdentity: [profile_round_trips],
}  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "check"),
    [(broken, check) for broken, checks in BROKEN.items() for check in checks],
    ids=lambda thing: thing.__name__.strip("_"),
)
def test_a_broken_detector_is_noticed(broken: type[Detector], check: Check) -> None:
    with pytest.raises((AssertionError, TypeError, ValueError)):
        check(broken())


def test_every_check_has_a_detector_it_refuses() -> None:
    assert {check for checks in BROKEN.values() for check in checks} == set(CHECKS)
