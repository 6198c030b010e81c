"""Decision levels that keep a budget of false alarms for a whole model.

The user says how many events may pass, on average, until an unchanged model raises its first false
alarm (the expected run time, ERT). `calibrate` simulates the monitor on null draws from the
reference rows and sets a level on the p-value of every (feature, detector, window).

The rule: **every test has the same rate of false alarms of its own.** A p-value is first mapped to
how often a full window of that test is seen with such a p-value or a smaller one, u; then one
number v, the same for all tests, is solved for: an alarm is u ≤ v. So a test that is conservative
(ties, few classes) is not held back by its p-values, and one whose p-values are too small (values
that follow each other) does not eat the budget of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ..schemas.errors import ProfileError
from .base import Detector
from .levels import Calibration
from .looks import Probe, Seen
from .memory import BLOCKS_PER_TIME, FEWEST_PERIODS
from .profile import Column, Profile
from .resample import Rows
from .run_length import Simulator
from .run_time import FEWEST_TAIL, Solved, runs_of, scales_of, solve
from .windows import WindowSpec

# Fewer rows than this say too little about how the features depend on each other.
FEWEST_ROWS: Final = 200
# Events of a budget per independent row of a reference whose rows follow each other. Beyond it what
# decides is runs so rare that the reference has hardly an example of them.
EVENTS_PER_ROW: Final = 25
# Share of references that may alarm within a tenth of the budget; 0.095 without memory.
MOST_EARLY: Final = 0.25
# Fewer blocks than this, and how far means wander would be known to no better than a quarter.
FEWEST_BLOCKS: Final = 20
# With `about`: fewer rows are refused even so, and of fewer blocks shorter ones are made. Of ten, the
# standard deviation of means is known to some 18 %; what shorter blocks lose is put back.
_ABOUT_ROWS: Final = 30
ABOUT_BLOCKS: Final = 10
# Of values that follow each other a p-value means nothing by itself: also a tail of few looks says more.
_ABOUT_TAIL: Final = 2

_PILOT: Final = 24
# The pilot's quantiles are taken no lower than this; below, the tail's slope leads on.
_RARE: Final = 5e-3
# Looks are kept that are so many times likelier than if all tests alarmed one at a time.
_ABOVE: Final = 15.0
_FEWEST_REPLICATES: Final = 200
# Run lengths are followed for so many times the budget, where that can be paid for.
_HORIZON: Final = 3.0
# Farthest that a budget may lie beyond what was simulated.
_FARTHEST: Final = 10.0
# What a coarser grain must leave: events in a pane, in the smallest window and, for each of a
# feature's categories, there and in the reference.
_FEWEST_IN_PANE: Final = 20
_FEWEST_IN_WINDOW: Final = 500
_PER_CLASS: Final = 20
_FEWEST_DRAWN: Final = 1_000
# How often to look at larger p-values where alarms come in longer runs than thought.
_ROUNDS: Final = 3
# A p-value of 1 is no tail.
_LARGEST: Final = math.log(0.9)
# A log p below this stands for any: the smallest p-value that a float tells from 0 is about e^-708.
_LOWEST: Final = -600.0
# The smallest level there is.
_SMALLEST: Final = 5e-324
# Features that a sentence names.
_NAMED: Final = 4
# Work that one calibration may cost, in counts looked at; about 1e9 a second.
_WORK: Final = 2.8e10


def calibrate(
    profile: Profile,
    columns: Mapping[str, Column],
    plan: Sequence[tuple[Detector, Sequence[int]]],
    windows: Sequence[WindowSpec],
    *,
    pane_events: int,
    ert_events: float,
    seed: int = 0,
    pane_ms: int = 60_000,
    min_events: int = 30,
    most_replicates: int = 500,
    about: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Calibration:
    """Levels for which an unchanged model runs `ert_events` events, on average, to its first alarm.

    A run begins with the stream: a window that is not filled yet cannot alarm, and that time
    counts. Each replicate draws its own reference and its own stream, as large as they are, since
    the reference is a sample too. Same input, same seed, same levels.

    Args:
        profile: what `fit` made of `columns`. columns: the reference rows, in the order in which
            they came. plan: (detector, indices of the features it tests), as the monitor runs it.
        windows: the windows. pane_events: events in a pane. pane_ms: length of a pane, for windows
            in time. min_events: as the monitor's; fewer values are not tested.
        most_replicates: pairs of reference and stream to simulate, where they can be paid for; fewer
            are quicker and leave more to chance.
        about: where the reference cannot support the budget, set levels all the same and say in
            `caveats` why they are no promise.
        progress: called with the share done, 0 … 1; begins anew if a round must be repeated.

    Raises:
        ProfileError: the reference cannot support the budget, or no levels can keep it.
        ValueError: an argument is out of its range.

    Source: Cobb, Van Looveren & Klaise (2022) for calibration by simulated run times; Hill (1975)
    for the tails; Efron (1981) for the bootstrap of censored times.
    """
    if pane_events < 1 or not windows or not any(features for _, features in plan):
        raise ValueError(
            f"pane_events is {pane_events}, with {len(windows)} windows: at least one event in a "
            "pane, one window and one feature to test are needed"
        )
    terms = _Terms(about)
    rows = Rows.of(profile, columns, fewest_blocks=ABOUT_BLOCKS if about else 1)
    # Tests of what never varies in the reference take no part of the simulated alarms.
    silent = rows.silent
    n_heard = len(windows) * sum(i not in silent for _, features in plan for i in features)

    def rare() -> float:
        return min(0.02, max(1e-4, _ABOVE * pane_events / (ert_events * max(1, n_heard))))

    wanted = rare()

    def simulator_of(grain: int) -> Simulator:
        return Simulator(
            profile,
            rows,
            plan,
            windows,
            pane_events=pane_events,
            pane_ms=pane_ms,
            min_events=min_events,
            seed=seed,
            grain=grain,
            rare=wanted < _RARE,
            certain=_too_few_blocks(rows),
        )

    simulator = simulator_of(1)
    filled = min(w.panes if w.full_only else 1 for w in simulator.looks) * pane_events
    _check_rows(terms, rows, ert_events, filled)
    say = progress or (lambda share: None)
    if not n_heard:
        say(1.0)
        return _bounded(simulator, windows, ert_events, pane_events, terms.caveats)
    size = _size(simulator, ert_events / pane_events, most_replicates)
    for grain in _grains(simulator):
        if size.n_panes >= size.wanted:
            break
        simulator = simulator_of(grain)
        size = _size(simulator, ert_events / pane_events, most_replicates)
    ert_events = _check_rarity(terms, simulator, size, ert_events, pane_events)
    wanted = rare()
    fewest = _ABOUT_TAIL if _too_few_blocks(rows) else FEWEST_TAIL
    done = 0.0
    scales = solved = None
    for attempt in range(_ROUNDS):
        screen = _screen(terms, simulator, size, wanted)
        if scales is not None:
            # A pilot of bounds may have taken a test's p-values for smaller than they turned out.
            screen = np.maximum(screen, np.minimum(scales.log_level(wanted), _LARGEST))
        seen = []
        for r in range(size.replicates):
            seen.append(simulator.run(r, size.n_panes, screen))
            # Where it has to begin again, what was said stays said.
            done = max(done, (r + 1) / size.replicates)
            say(done)
        scales = scales_of(simulator.tests, simulator.looks, seen, screen, size.n_panes, fewest)
        runs = runs_of(seen, scales, size.n_panes, pane_events)
        solved = solve(runs, ert_events, scales.ceiling, MOST_EARLY)
        if solved is None and attempt == _ROUNDS - 1:
            # Tests of which less was noted keep to that, and have a smaller part than the others.
            solved = solve(runs, ert_events, scales.highest, MOST_EARLY)
        if solved is not None:
            break
        # Alarms come in longer runs than thought: look at larger p-values, too.
        wanted = min(1.0, wanted * 5)
    if solved is None or scales is None:
        raise ProfileError(
            f"no levels give one false alarm per {ert_events:,.0f} events: even with levels near 1 "
            f"the first alarm comes later; ask for a longer time, or for smaller windows or panes"
        )
    _check_steady(terms, simulator, solved, ert_events)
    rate = math.exp(solved.log_rate)
    levels = {
        (profile.name_of(t.feature), t.detector.name, windows[t.window].label): max(
            level, _SMALLEST if terms.caveats else 0.0
        )
        for t, level in zip(simulator.tests, scales.levels(rate), strict=True)
    }
    return Calibration(
        levels=levels,
        ert_events=float(ert_events),
        estimate=solved.estimate,
        low=solved.low,
        high=solved.high,
        early=solved.early,
        rate=rate,
        events=size.replicates * size.n_panes * simulator.pane_events,
        replicates=size.replicates,
        horizon=size.n_panes * pane_events,
        pane_events=pane_events,
        grain=simulator.grain,
        rows=rows.n,
        correlation_time=rows.memory.time,
        block=rows.memory.block,
        period=rows.memory.period,
        nominal=scales.nominal,
        tail=solved.tail,
        seed=seed,
        profile=profile.id,
        caveats=tuple(terms.caveats),
    )


def _bounded(
    simulator: Simulator,
    windows: Sequence[WindowSpec],
    ert_events: float,
    pane_events: int,
    caveats: Sequence[str],
) -> Calibration:
    """Levels where the reference never varies, so that no null draw can alarm: the budget shared
    out among all looks until then, which keeps it as far as each p-value is valid."""
    profile, rows = simulator.profile, simulator.rows
    rate = pane_events / (ert_events * len(simulator.tests))
    return Calibration(
        levels={
            (profile.name_of(t.feature), t.detector.name, windows[t.window].label): rate
            for t in simulator.tests
        },
        ert_events=float(ert_events),
        estimate=float(ert_events),
        low=float(ert_events),
        high=float(ert_events),
        early=0.0,
        rate=rate,
        events=0,
        replicates=0,
        horizon=0,
        pane_events=pane_events,
        grain=1,
        rows=rows.n,
        correlation_time=rows.memory.time,
        block=rows.memory.block,
        period=rows.memory.period,
        nominal=len(simulator.tests),
        tail="bound",
        seed=simulator.seed,
        profile=profile.id,
        caveats=tuple(caveats),
    )


@dataclass(slots=True)
class _Terms:
    """What the reference cannot support: refused, or with `about` a caveat."""

    about: bool
    caveats: list[str] = field(default_factory=list)

    def object(self, problem: str, remedy: str, caveat: str) -> None:
        if not self.about:
            raise ProfileError(
                f"{problem}: {remedy}; or write `about` before the budget, which sets levels for it "
                "without the promise"
            )
        if (said := f"{problem}: {caveat}") not in self.caveats:
            self.caveats.append(said)


def _too_few_blocks(rows: Rows) -> bool:
    memory = rows.memory
    return memory.block > 1 and rows.n < FEWEST_BLOCKS * min(memory.whole_block, rows.n)


def _which(rows: Rows) -> str:
    """The features of which there are too few blocks, those that follow themselves longest first."""
    names = [f.name for f in (*rows.numeric, *rows.categorical)]
    times = [max((a.time for a in own), default=1.0) for own in rows.memory.found]
    found = sorted(
        (-t, name)
        for t, name in zip(times, names, strict=True)
        if rows.n < FEWEST_BLOCKS * math.ceil(BLOCKS_PER_TIME * t)
    )
    said = ", ".join(f"{name!r} over {-t:,.0f}" for t, name in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    enough = len(names) - len(found)
    return said + more + (f"; enough for {enough} of {len(names)} features" if enough else "")


def _check_rows(terms: _Terms, rows: Rows, ert_events: float, filled: int) -> None:
    supported = EVENTS_PER_ROW * rows.n_effective
    if not ert_events > 2 * filled:
        raise ProfileError(
            f"one false alarm per {ert_events:,.0f} events cannot be kept apart from the start: "
            f"the smallest window is tested after {filled:,} events, and the time asked for must "
            f"be more than twice that; ask for a longer time, or add a smaller window"
        )
    if rows.n < FEWEST_ROWS:
        few = f"{rows.n:,} reference rows cannot be calibrated with; at least {FEWEST_ROWS} are needed"
        if rows.n < _ABOUT_ROWS:
            raise ProfileError(f"{few}: fit on more rows")
        terms.object(few, "fit on more rows", "what features have in common is hardly known")
    memory = rows.memory
    whole = min(memory.whole_block, rows.n)
    if _too_few_blocks(rows):
        terms.object(
            f"{rows.n:,} rows whose values follow each other over some {memory.time:,.0f} rows make "
            f"{rows.n // whole} blocks of {whole:,}, and {FEWEST_BLOCKS} are needed to "
            f"tell how far they wander ({_which(rows)})",
            f"fit on {FEWEST_BLOCKS * whole:,} rows or more; where "
            f"it is a cycle (a day), on {FEWEST_PERIODS} whole ones at least, or it is not seen as one",
            f"levels are from blocks of {memory.block:,}, and where it is a trend or a season, false "
            "alarms come more often as soon as it leads beyond these rows",
        )
    if memory.block > 1 and ert_events > supported:
        need = math.ceil(ert_events / EVENTS_PER_ROW * memory.time)
        terms.object(
            f"{rows.n:,} rows that follow each other (they carry the information of "
            f"{rows.n_effective:,}) support at most 1 false alarm per {supported:,} events; 1 per "
            f"{ert_events:,.0f} was asked for",
            f"fit on {need:,} rows or more, or ask for more alarms",
            "such rare runs of values are hardly in these rows, and their levels are a guess",
        )


def _check_rarity(
    terms: _Terms, simulator: Simulator, size: _Size, ert_events: float, pane_events: int
) -> float:
    """The budget that levels are set for."""
    if size.wanted <= _HORIZON * _FARTHEST * size.n_panes:
        return ert_events
    rarest = int(_FARTHEST * size.n_panes * pane_events)
    terms.object(
        f"1 false alarm per {ert_events:,.0f} events is too rare to simulate with "
        f"{len(simulator.profile.features)} features; at most 1 per {rarest:,} events",
        "ask for more alarms, or use longer panes",
        f"levels are for 1 per {rarest:,}",
    )
    return float(rarest)


def _check_steady(terms: _Terms, simulator: Simulator, solved: Solved, ert_events: float) -> None:
    """An average run time that some references reach by never alarming and others miss at once is
    no promise to whoever has one reference."""
    if solved.early <= MOST_EARLY:
        return
    largest = max(simulator.looks, key=lambda w: w.panes)
    events = largest.panes * simulator.pane_events * simulator.grain
    supported = "no budget"
    if solved.steady > 0:
        supported = f"at most 1 false alarm per {solved.steady:,.0f} events"
    terms.object(
        f"{simulator.rows.n:,} rows beside windows of {events:,} events ({largest.spec.label}) support "
        f"{supported}; of 1 per {ert_events:,.0f}, {solved.early:.0%} of such references would "
        "alarm within a tenth (10 % by chance alone)",
        "fit on more rows, use smaller windows, or ask for more alarms",
        "the budget is an average of references that hardly alarm and references that alarm at once",
    )


def _grains(simulator: Simulator) -> Iterator[int]:
    """Coarser and coarser grains: of how many events a simulated one may take the place.

    The laws of these tests depend on how many rows the reference has for an event of the window, and
    hardly on how many there are, as long as they are many: a hundredth of both says the same at a
    hundredth of the price. That takes rows that do not follow each other: of those that do, a
    hundredth would follow each other less.
    """
    rows = simulator.rows
    most_classes = max((len(f.categories) for f in rows.categorical), default=0)
    if rows.memory.block > 1 or rows.memory.period:
        return
    smallest = min(w.panes for w in simulator.looks)
    in_window = max(_FEWEST_IN_WINDOW, _PER_CLASS * most_classes)
    pane_events = max(_FEWEST_IN_PANE, math.ceil(in_window / smallest))
    largest = min(simulator.pane_events // pane_events, rows.n // max(_FEWEST_DRAWN, in_window))
    grain = 2
    while grain < largest:
        yield grain
        grain *= 2
    if largest > 1:
        yield largest


@dataclass(frozen=True, slots=True)
class _Size:
    """How many panes to simulate, how often, and how many panes were wanted."""

    n_panes: int
    replicates: int
    wanted: int


def _size(simulator: Simulator, ert_panes: float, most: int) -> _Size:
    """How long and how often to simulate, from what it will cost; no clock, so repeatable."""
    n_features = len(simulator.profile.features) - len(simulator.rows.silent)
    per_pane = 12 * n_features * simulator.pane_events + sum(
        5 * n_features * simulator.numeric.bins // stride for stride in simulator.numeric.stride
    )
    events, looks = simulator.pane_events, len(simulator.looks)
    per_pane += len(simulator.spread.features) * (100 * events + 700 * looks)
    onset = simulator.onset
    together = simulator.profile.n_numeric if onset.together else 0
    per_pane += max(len(onset.alone), together) * 60 * events + 800 * len(onset.alone)
    per_pane += together * (300 + together)
    per_pane += 250 * simulator.categorical.onset_classes
    if simulator.slow:
        per_pane += 200_000 * len(simulator.looks) * n_features
    back = max(w.panes for w in simulator.looks)
    wanted = max(math.ceil(_HORIZON * ert_panes), back + 20)
    affordable = int(_WORK / per_pane / _FEWEST_REPLICATES)
    n_panes = max(min(wanted, affordable), min(wanted, 2 * back))
    replicates = min(most, max(_FEWEST_REPLICATES, int(_WORK / per_pane / n_panes)))
    return _Size(n_panes, replicates, wanted)


def _screen(
    terms: _Terms, simulator: Simulator, size: _Size, wanted: float
) -> npt.NDArray[np.float64]:
    """(tests,) log p that about the share `wanted` of full looks falls below, from a pilot; of a test
    that is to have no part, minus infinity."""
    n_panes = min(size.n_panes, max(w.panes for w in simulator.looks) + 400)
    everything = np.zeros(len(simulator.tests))
    found: list[Seen] = [
        simulator.run(10_000_000 + r, n_panes, everything, bounds=True) for r in range(_PILOT)
    ]
    test = np.concatenate([s.test for s in found])
    log_p = np.concatenate([s.log_p for s in found])
    pane = np.concatenate([s.pane for s in found])
    screen = np.full(len(simulator.tests), math.log(wanted))
    for t, probe in enumerate(simulator.tests):
        own = log_p[(test == t) & (pane >= simulator.looks[probe.window].panes)]
        if len(own):
            start = np.quantile(own, max(wanted, _RARE), method="higher")
            if start < _LOWEST:
                _check_level(terms, simulator, probe)
                screen[t] = -math.inf
                continue
            depth = (start - own[own <= start]).mean()
            beyond = math.log(min(1.0, wanted / _RARE))
            screen[t] = start + beyond * min(10.0, max(1.0, float(depth)))
    return np.minimum(screen, _LARGEST)


def _check_level(terms: _Terms, simulator: Simulator, probe: Probe) -> None:
    looks = simulator.looks[probe.window]
    period = simulator.rows.memory.period
    remedy = "leave the feature out, or use shorter windows"
    if period:
        remedy = f"use windows of whole cycles (of {period:,.0f} events), or leave the feature out"
    terms.object(
        f"{simulator.profile.name_of(probe.feature)!r} differs so much between windows of "
        f"{looks.spec.label!r} that the p-values of {probe.detector.name} cannot be told from 0, and "
        "no level can keep them quiet",
        remedy,
        "it alarms only where the p-value is 0 to a computer, and the budget leaves it out",
    )
