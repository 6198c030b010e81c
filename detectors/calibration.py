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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..schemas.errors import ProfileError
from .base import Detector
from .levels import Calibration
from .profile import Column, Profile
from .resample import Rows
from .run_length import Seen, Simulator
from .survival import expected
from .windows import WindowSpec

# Fewer rows than this say too little about how the features depend on each other.
FEWEST_ROWS: Final = 200
# Events of a budget per independent row of the reference. Beyond it what decides is events so rare
# that the reference has hardly an example of how they come together.
EVENTS_PER_ROW: Final = 25

_PILOT: Final = 24
# The pilot's quantiles are taken no lower than this; below, the tail's slope leads on.
_RARE: Final = 5e-3
# Looks are kept that are so many times likelier than if all tests alarmed one at a time.
_ABOVE: Final = 15.0
_MOST_REPLICATES: Final = 500
_FEWEST_REPLICATES: Final = 200
# Run lengths are followed for so many times the budget, where that can be paid for.
_HORIZON: Final = 3.0
# Farthest that a budget may lie beyond what was simulated.
_FARTHEST: Final = 10.0
_BOOTSTRAP: Final = 500
_GRID: Final = 400
# A tail with fewer looks than this is not fitted: the test's own p-value is believed.
_FEWEST_TAIL: Final = 50
# Weight, in replicates, of the slope that tests of one detector and window have in common.
_COMMON: Final = 50.0
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
    rows = Rows.of(profile, columns)
    n_tests = len(windows) * sum(len(features) for _, features in plan)
    wanted = min(0.02, max(1e-4, _ABOVE * pane_events / (ert_events * n_tests)))
    simulator = Simulator(
        profile,
        rows,
        plan,
        windows,
        pane_events=pane_events,
        pane_ms=pane_ms,
        min_events=min_events,
        seed=seed,
        rare=wanted < _RARE,
    )
    filled = min(w.panes if w.full_only else 1 for w in simulator.looks) * pane_events
    _refuse(rows, ert_events, filled)
    say = progress or (lambda share: None)
    size = _size(simulator, ert_events)
    done = 0.0
    for _ in range(3):
        screen = _screen(simulator, size, wanted)
        seen = []
        for r in range(size.replicates):
            seen.append(simulator.run(r, size.n_panes, screen))
            # Where it has to begin again, what was said stays said.
            done = max(done, (r + 1) / size.replicates)
            say(done)
        scales = _scales(simulator, seen, screen, size)
        runs = _runs(seen, scales, size, pane_events)
        solved = _solve(runs, ert_events, scales.ceiling)
        if solved is not None:
            break
        # Alarms come in longer runs than thought: look at larger p-values, too.
        wanted = min(1.0, wanted * 5)
    else:
        raise ProfileError(
            f"no levels give one false alarm per {ert_events:,.0f} events: even with levels near 1 "
            f"the first alarm comes later; ask for a longer time, or for smaller windows or panes"
        )
    rate = math.exp(solved.log_rate)
    levels = {
        (profile.features[t.feature].name, t.detector.name, windows[t.window].label): level
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
        events=size.replicates * size.n_panes * pane_events,
        replicates=size.replicates,
        horizon=size.n_panes * pane_events,
        pane_events=pane_events,
        rows=rows.n,
        correlation_time=rows.correlation_time,
        block=rows.block,
        nominal=scales.nominal,
        tail=solved.tail,
        seed=seed,
        profile=profile.id,
    )


def _refuse(rows: Rows, ert_events: float, filled: int) -> None:
    supported = EVENTS_PER_ROW * rows.n_effective
    if not ert_events > 2 * filled:
        raise ProfileError(
            f"one false alarm per {ert_events:,.0f} events cannot be kept apart from the start: "
            f"the smallest window is tested after {filled:,} events, and the time asked for must "
            f"be more than twice that; ask for a longer time, or add a smaller window"
        )
    if rows.n < FEWEST_ROWS:
        raise ProfileError(
            f"{rows.n:,} reference rows cannot be calibrated with; at least {FEWEST_ROWS} are "
            "needed: fit on more rows"
        )
    if ert_events > supported:
        which = f"{rows.n:,} rows"
        if rows.correlation_time > 1:
            which += f" that follow each other (they carry the information of {rows.n_effective:,})"
        need = math.ceil(ert_events / EVENTS_PER_ROW * rows.correlation_time)
        raise ProfileError(
            f"{which} support at most 1 false alarm per {supported:,} events; 1 per "
            f"{ert_events:,.0f} was asked for: fit on {need:,} rows or more, or ask for more alarms"
        )


@dataclass(frozen=True, slots=True)
class _Size:
    n_panes: int
    replicates: int


def _size(simulator: Simulator, ert_events: float) -> _Size:
    """How long and how often to simulate, from what it will cost; no clock, so repeatable."""
    n_features = len(simulator.profile.features)
    per_pane = 12 * n_features * simulator.pane_events + sum(
        5 * n_features * simulator.bins // stride for stride in simulator.stride
    )
    if simulator.slow:
        per_pane += 200_000 * len(simulator.looks) * n_features
    back = max(w.panes for w in simulator.looks)
    wanted = math.ceil(_HORIZON * ert_events / simulator.pane_events)
    wanted = max(wanted, back + 20)
    affordable = int(_WORK / per_pane / _FEWEST_REPLICATES)
    n_panes = max(min(wanted, affordable), min(wanted, 2 * back))
    if wanted > _HORIZON * _FARTHEST * n_panes:
        most = int(_FARTHEST * n_panes * simulator.pane_events)
        raise ProfileError(
            f"1 false alarm per {ert_events:,.0f} events is too rare to simulate with "
            f"{n_features} features; at most 1 per {most:,} events: ask for more alarms, or "
            "use longer panes"
        )
    replicates = int(_WORK / per_pane / n_panes)
    return _Size(n_panes, min(_MOST_REPLICATES, max(_FEWEST_REPLICATES, replicates)))


def _screen(simulator: Simulator, size: _Size, wanted: float) -> npt.NDArray[np.float64]:
    """(tests,) log p that about the share `wanted` of full looks falls below, from a pilot."""
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
            depth = (start - own[own <= start]).mean()
            beyond = math.log(min(1.0, wanted / _RARE))
            screen[t] = start + beyond * min(10.0, max(1.0, float(depth)))
    # A p-value of 1 is no tail.
    return np.minimum(screen, math.log(0.9))


@dataclass(frozen=True, slots=True, eq=False)
class _Scales:
    """log u = log_share + slope·(log p - log_p): how often a test's p-value is so small.

    ceiling: log u that is seen completely for every test.
    """

    log_share: npt.NDArray[np.float64]
    slope: npt.NDArray[np.float64]
    log_p: npt.NDArray[np.float64]
    ceiling: float
    nominal: int

    def log_u(self, seen: Seen) -> npt.NDArray[np.float64]:
        t = seen.test
        return self.log_share[t] + self.slope[t] * (seen.log_p - self.log_p[t])

    def levels(self, rate: float) -> list[float]:
        log_level = self.log_p + (math.log(rate) - self.log_share) / self.slope
        return np.exp(np.minimum(log_level, 0.0)).tolist()


def _scales(
    simulator: Simulator, seen: Sequence[Seen], screen: npt.NDArray[np.float64], size: _Size
) -> _Scales:
    """The tails: the share of full looks below the screen, and from there a power of p whose
    exponent is Hill's (1975) estimate, drawn towards that of the same detector and window."""
    n_tests = len(simulator.tests)
    panes = np.array([simulator.looks[t.window].panes for t in simulator.tests])
    possible = np.array(
        [size.replicates * int((w.due(0, size.n_panes) >= w.panes).sum()) for w in simulator.looks]
    )[[t.window for t in simulator.tests]]
    below, depth, replicates = np.zeros(n_tests), np.zeros(n_tests), np.zeros(n_tests)
    for s in seen:
        full = s.pane >= panes[s.test]
        test = s.test[full]
        own = np.bincount(test, minlength=n_tests)
        below += own
        replicates += own > 0
        depth += np.bincount(test, screen[test] - s.log_p[full], minlength=n_tests)
    fitted = (below >= _FEWEST_TAIL) & (depth > 0)
    slope = np.where(fitted, below / np.where(fitted, depth, 1.0), 1.0)
    groups: dict[tuple[str, int], list[int]] = {}
    for i, t in enumerate(simulator.tests):
        if fitted[i]:
            groups.setdefault((t.detector.name, t.window), []).append(i)
    for own in groups.values():
        common = below[own].sum() / depth[own].sum()
        slope[own] = (replicates[own] * slope[own] + _COMMON * common) / (replicates[own] + _COMMON)
    share = np.where(fitted, below / np.maximum(possible, 1), np.exp(screen))
    log_share = np.log(np.maximum(share, 1e-300))
    ceiling = float(log_share[fitted].min()) if fitted.any() else float(log_share.min())
    return _Scales(log_share, slope, screen, ceiling, int((~fitted).sum()))


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """records: per replicate, (events, log u) of each look that was the smallest so far."""

    records: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]
    horizon: float

    def times(self, log_v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(replicates, V) events until the first look with u ≤ v, infinite beyond the horizon."""
        out = np.full((len(self.records), len(log_v)), np.inf)
        for r, (at, log_u) in enumerate(self.records):
            # log_u falls from record to record: the first that is at most v.
            first = np.searchsorted(-log_u, -log_v, "left")
            out[r] = np.append(at, np.inf)[first]
        return out


def _runs(seen: Sequence[Seen], scales: _Scales, size: _Size, pane_events: int) -> _Runs:
    records = []
    for s in seen:
        log_u = scales.log_u(s)
        lowest = np.minimum.accumulate(log_u) if len(log_u) else log_u
        new = np.diff(lowest, prepend=np.inf) < 0
        at, best = s.pane[new] * float(pane_events), log_u[new]
        records.append((at, best))
    return _Runs(records, float(size.n_panes * pane_events))


@dataclass(frozen=True, slots=True)
class _Solved:
    log_rate: float
    estimate: float
    low: float
    high: float
    early: float
    tail: str


def _solve(runs: _Runs, ert_events: float, ceiling: float) -> _Solved | None:
    """The rate v whose expected run time is the one asked for; None where it lies above `ceiling`.

    E[T] = E[min(T, H)] + P(T > H) · (mean residual life), and the residual life of what survives
    the horizon H is exposure over alarms in its second half: references differ, so survivors
    are the lucky ones, and their rate is not that of all. A budget beyond 0.7 horizons is
    reached on a straight line of log E[T] over log v through the last decade that is covered.
    """
    lowest = min((float(u[-1]) for _, u in runs.records if len(u)), default=ceiling)
    if lowest >= ceiling:
        return None
    grid = np.linspace(lowest, ceiling, _GRID)
    times = runs.times(grid)
    n = len(runs.records)
    rng = np.random.default_rng(n)
    weights = rng.multinomial(n, np.full(n, 1 / n), _BOOTSTRAP).astype(np.float64)
    weights = np.concatenate([np.ones((1, n)), weights])
    ert = expected(times, runs.horizon, weights)
    direct = ert_events <= 0.7 * runs.horizon
    if direct:
        log_rate = _crossing(grid, ert[0], ert_events)
        if log_rate is None:
            return None
        at = np.array([np.interp(log_rate, grid, row) for row in ert])
    else:
        lines = []
        for row in ert:
            inside = (row < 0.6 * runs.horizon) & (row > 0.06 * runs.horizon)
            if inside.sum() < 3:
                return None
            lines.append(np.polyfit(grid[inside], np.log(row[inside]), 1))
        slope, start = lines[0]
        log_rate = (math.log(ert_events) - start) / slope
        at = np.exp([line[0] * log_rate + line[1] for line in lines])
    early = float((runs.times(np.array([log_rate])) <= ert_events / 10).mean())
    low, high = np.quantile(at[1:], [0.025, 0.975])
    tail = "survivors" if direct else "log-linear"
    return _Solved(float(log_rate), float(at[0]), float(low), float(high), early, tail)


def _crossing(
    grid: npt.NDArray[np.float64], ert: npt.NDArray[np.float64], asked: float
) -> float | None:
    """log v where the expected run time, which falls with v, is the one asked for."""
    falling = np.log(np.minimum.accumulate(ert))
    if falling[-1] > math.log(asked):
        return None
    return float(np.interp(-math.log(asked), -falling, grid))
