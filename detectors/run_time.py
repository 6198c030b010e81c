"""From the looks of simulated monitors to a level: what each p-value stands for, and how long a run
to the first alarm is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .looks import Looks, Probe, Seen
from .survival import expected

_BOOTSTRAP: Final = 500
_GRID: Final = 400
# Expected run times up to so many horizons are read off the runs themselves.
_COVERED: Final = 0.6
# Between two v of the grid the log of the run time is interpolated, but for a fall larger than this.
_JUMP: Final = math.log(1.5)
FEWEST_TAIL: Final = 50
# Weight, in replicates, of the slope that tests of one detector and window have in common.
_COMMON: Final = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """log u = log_share + slope·(log p - log_p): how often a test's p-value is so small.

    log_p: looks at larger p-values were not noted. ceiling: log u that is seen completely for every
        test. highest: log u that is seen completely for any of them.
    """

    log_share: npt.NDArray[np.float64]
    slope: npt.NDArray[np.float64]
    log_p: npt.NDArray[np.float64]
    ceiling: float
    highest: float
    nominal: int

    def log_u(self, seen: Seen) -> npt.NDArray[np.float64]:
        t = seen.test
        return self.log_share[t] + self.slope[t] * (seen.log_p - self.log_p[t])

    def log_level(self, rate: float) -> npt.NDArray[np.float64]:
        """(tests,) log p of which u is `rate`, also beyond what was noted."""
        return self.log_p + (math.log(rate) - self.log_share) / self.slope

    def levels(self, rate: float) -> list[float]:
        """No level is above what was noted of its test, since no run was ended by such a look."""
        return np.exp(np.minimum(self.log_level(rate), np.minimum(self.log_p, 0.0))).tolist()


def scales_of(
    tests: Sequence[Probe],
    looks: Sequence[Looks],
    seen: Sequence[Seen],
    screen: npt.NDArray[np.float64],
    n_panes: int,
    fewest: int = FEWEST_TAIL,
) -> Scales:
    """The tails: the share of full looks below the screen, and from there a power of p whose
    exponent is Hill's (1975) estimate, drawn towards that of the same detector and window.

    fewest: a tail with fewer looks than this is not fitted: the test's own p-value is believed.
    """
    n_tests = len(tests)
    panes = np.array([looks[t.window].panes for t in tests])
    possible = np.array([len(seen) * int((w.due(0, n_panes) >= w.panes).sum()) for w in looks])[
        [t.window for t in tests]
    ]
    below, depth, replicates = np.zeros(n_tests), np.zeros(n_tests), np.zeros(n_tests)
    for s in seen:
        full = s.pane >= panes[s.test]
        test = s.test[full]
        own = np.bincount(test, minlength=n_tests)
        below += own
        replicates += own > 0
        depth += np.bincount(test, screen[test] - s.log_p[full], minlength=n_tests)
    fitted = (below >= fewest) & (depth > 0)
    slope = np.where(fitted, below / np.where(fitted, depth, 1.0), 1.0)
    groups: dict[tuple[str, int], list[int]] = {}
    for i, t in enumerate(tests):
        if fitted[i]:
            groups.setdefault((t.detector.name, t.window), []).append(i)
    for own in groups.values():
        common = below[own].sum() / depth[own].sum()
        slope[own] = (replicates[own] * slope[own] + _COMMON * common) / (replicates[own] + _COMMON)
    share = np.where(fitted, below / np.maximum(possible, 1), np.exp(screen))
    log_share = np.log(np.maximum(share, 1e-300))
    seen_to = log_share[fitted] if fitted.any() else log_share
    return Scales(
        log_share,
        slope,
        screen,
        float(seen_to.min()),
        float(seen_to.max()),
        int((~fitted).sum()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
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


def runs_of(seen: Sequence[Seen], scales: Scales, n_panes: int, pane_events: int) -> Runs:
    records = []
    for s in seen:
        log_u = scales.log_u(s)
        lowest = np.minimum.accumulate(log_u) if len(log_u) else log_u
        new = np.diff(lowest, prepend=np.inf) < 0
        at, best = s.pane[new] * float(pane_events), log_u[new]
        records.append((at, best))
    return Runs(records, float(n_panes * pane_events))


@dataclass(frozen=True, slots=True)
class Solved:
    """estimate, low, high: the expected run time. early: see `Calibration`. steady: the longest
    expected run time simulated that is not early more often than it was allowed, 0 for none."""

    log_rate: float
    estimate: float
    low: float
    high: float
    early: float
    steady: float
    tail: str


def solve(runs: Runs, ert_events: float, ceiling: float, most_early: float) -> Solved | None:
    """The rate v whose expected run time is the one asked for; None where it lies above `ceiling`.

    E[T] = E[min(T, H)] + P(T > H) · (mean residual life), and the residual life of what survives
    the horizon H is exposure over alarms in its second half: references differ, so survivors
    are the lucky ones, and their rate is not that of all. A budget beyond 0.7 horizons is
    reached on a straight line of log E[T] over log v through the last decade that is covered
    (`_line`).
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
        if not ert[0, -1] < _COVERED * runs.horizon:
            return None
        lines = [_line(grid, row, runs.horizon) for row in ert]
        slope, start = lines[0]
        log_rate = (math.log(ert_events) - start) / slope
        at = np.exp([line[0] * log_rate + line[1] for line in lines])
    low, high = np.quantile(at[1:], [0.025, 0.975])
    early = (times <= ert[0] / 10).mean(axis=0)
    reach = np.searchsorted(-ert[0], -min(ert_events, 0.7 * runs.horizon))
    steady = float(ert[0, early <= most_early].max(initial=0.0))
    return Solved(
        float(log_rate),
        float(at[0]),
        float(low),
        float(high),
        float(early[min(reach, len(grid) - 1)]),
        min(steady, 0.7 * runs.horizon),
        "survivors" if direct else "log-linear",
    )


def _line(
    grid: npt.NDArray[np.float64], ert: npt.NDArray[np.float64], horizon: float
) -> tuple[float, float]:
    """(slope, start) of log E[T] over log v.

    Where alarms come all at once, E[T] falls in few steps, and a line through fewer than three of
    them may have any slope. Then E[T] is one over v, as of alarms that come one by one, from where
    it is covered on.
    """
    log_ert = np.log(ert)
    inside = (ert < _COVERED * horizon) & (ert > _COVERED / 10 * horizon)
    if len(np.unique(ert[inside])) >= 3:
        slope, start = np.polyfit(grid[inside], log_ert[inside], 1)
        return float(slope), float(start)
    nearest = int(np.abs(log_ert - math.log(_COVERED * horizon)).argmin())
    return -1.0, float(log_ert[nearest] + grid[nearest])


def _crossing(
    grid: npt.NDArray[np.float64], ert: npt.NDArray[np.float64], asked: float
) -> float | None:
    """log v where the expected run time, which falls with v, is the one asked for; where it falls all
    at once past that, the last v before it does."""
    falling = np.log(np.minimum.accumulate(ert))
    if falling[-1] > math.log(asked):
        return None
    before = int((falling >= math.log(asked)).sum()) - 1
    if 0 <= before < len(grid) - 1 and falling[before] - falling[before + 1] > _JUMP:
        return float(grid[before])
    return float(np.interp(-math.log(asked), -falling, grid))
