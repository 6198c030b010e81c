"""From scores to run lengths: thresholds of equal run time, and delays at them.

A detector gives every event a score; it would alarm where the score reaches its threshold, and until
then the threshold has no part in it. So one pass over a stream tells the time of the first alarm for
every threshold: what is kept is each score that was the highest so far (`Record`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# (events until then, score) of each score that was the highest so far.
Record = list[tuple[int, float]]

_BOOTSTRAP: Final = 100


def record(scores: Array, first: int = 1) -> Record:
    """Of the scores of a stream's events, the first of which is number `first`.

    >>> record(np.array([1.0, 0.5, 2.0, 2.0]))
    [(1, 1.0), (3, 2.0)]
    """
    highest = np.maximum.accumulate(scores)
    new = np.flatnonzero(np.diff(highest, prepend=-np.inf) > 0)
    return [(int(i) + first, float(highest[i])) for i in new]


def joined(a: Record, b: Record) -> Record:
    """The record of a stream of which `b` is the later part."""
    top = a[-1][1] if a else -np.inf
    return a + [(t, s) for t, s in b if s > top]


@dataclass(frozen=True, slots=True)
class Run:
    """warm: the highest score on the reference rows, of a detector that reads them as a stream first.
    quiet: of a stream without change. before: the highest score up to a change. after: by case, from
    the change on. calibration: which one its score is relative to."""

    number: int
    warm: float
    quiet: Record
    before: float
    after: dict[str, Record]
    calibration: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """All runs of one detector on one model.

    step: its scores are multiples of this; a share of a step, drawn for each run, is added, so that
    every run time can be reached. horizon, limit: events of a quiet stream, and after a change.
    """

    runs: Sequence[Run]
    horizon: int
    limit: int
    step: float = 0.0

    def _shares(self) -> Array:
        """(runs,) of a step, that is added to each score of a run."""
        return np.array([np.random.default_rng([7, r.number]).random() for r in self.runs])

    def run_lengths(self, thresholds: Array) -> Array:
        """(runs, thresholds) events to the first false alarm, infinite beyond the horizon, NaN where
        there was one on the reference rows."""
        out = np.full((len(self.runs), len(thresholds)), np.nan)
        for i, (run, share) in enumerate(zip(self.runs, self._shares(), strict=True)):
            h = thresholds - self.step * share
            out[i] = np.where(run.warm < h, _first(run.quiet, h), np.nan)
        return out

    def delays(self, case: str, threshold: float) -> Array:
        """(runs,) events from the change to the alarm, infinite where missed, NaN where there was an
        alarm before it or the case was not run."""
        out = np.full(len(self.runs), np.nan)
        for i, (run, share) in enumerate(zip(self.runs, self._shares(), strict=True)):
            h = threshold - self.step * share
            if max(run.warm, run.before) < h and case in run.after:
                out[i] = _first(run.after[case], np.array([h]))[0]
        return out

    def thresholds(self, ert: float, draws: int = 0) -> Array:
        """The threshold of this expected run time on these runs, and on so many bootstrap samples of
        them."""
        scores = np.array([s for r in self.runs for _, s in r.quiet])
        grid = np.unique(np.quantile(scores[scores > -50], np.linspace(0, 1, 600)))
        grid = np.append(grid, grid[-1] + self.step + 1e-9)
        times = self.run_lengths(grid)
        rng, n = np.random.default_rng(3), len(self.runs)
        chosen = [np.arange(n), *(rng.integers(0, n, n) for _ in range(draws))]
        out = []
        for own in chosen:
            found = expected(times[own], self.horizon)
            out.append(grid[int(np.argmax(found >= ert))] if (found >= ert).any() else grid[-1])
        return np.array(out)

    def threshold(self, ert: float) -> float:
        return float(self.thresholds(ert)[0])


def _first(found: Record, thresholds: Array) -> Array:
    """Events until a score reaches each threshold; scores of a record rise."""
    times = np.array([float(t) for t, _ in found] + [np.inf])
    return times[np.searchsorted(np.array([s for _, s in found]), thresholds, "left")]


def expected(times: Array, horizon: int) -> Array:
    """(…,) expected run times of (runs, …) runs cut off at the horizon, NaN ones left out: those beyond
    it go on at the rate of alarms of its second half. 0 where fewer than five runs are left.

    >>> expected(np.array([[1.0], [2.0], [3.0], [np.inf], [np.inf]]), 4).tolist()
    [4.933333333333334]
    """
    known = ~np.isnan(times)
    n = known.sum(axis=0)
    until = np.where(known, np.minimum(times, horizon), 0.0)
    seen = known & (times <= horizon)
    late = seen & (times > horizon / 2)
    few = late.sum(axis=0) < 5
    alarms = np.where(few, seen.sum(axis=0), late.sum(axis=0))
    half = np.where(known, np.maximum(until - horizon / 2, 0), 0.0).sum(axis=0)
    exposure = np.where(few, until.sum(axis=0), half)
    beyond = (known & (times > horizon)).sum(axis=0) / np.maximum(n, 1)
    found = until.sum(axis=0) / np.maximum(n, 1) + beyond * exposure / np.maximum(alarms, 1)
    return np.where(n < 5, 0.0, found)


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean with its standard error, over `n` runs of which `missed` saw no alarm (and count with the
    limit)."""

    mean: float
    error: float
    n: int
    missed: int


def run_time(runs: Runs, threshold: float) -> Figure:
    times = runs.run_lengths(np.array([threshold]))[:, 0]
    times = times[~np.isnan(times)]
    rng = np.random.default_rng(1)
    again = expected(rng.choice(times, (len(times), _BOOTSTRAP)), runs.horizon)
    beyond = int((times > runs.horizon).sum())
    return Figure(float(expected(times, runs.horizon)), float(np.std(again)), len(times), beyond)


def delay(runs: Runs, case: str, thresholds: Array) -> Figure:
    """Mean delay at the first threshold, at most `limit`. Further thresholds are what tuning on other
    runs might have found: the standard error then holds that, too."""
    found = runs.delays(case, float(thresholds[0]))
    rng = np.random.default_rng(2)
    means = []
    others = [runs.delays(case, float(t)) for t in thresholds[1:]] or [found]
    for b in range(_BOOTSTRAP):
        again = others[b % len(others)]
        again = again[~np.isnan(again)]
        if len(again):
            means.append(np.minimum(rng.choice(again, len(again)), runs.limit).mean())
    seen = found[~np.isnan(found)]
    mean = float(np.minimum(seen, runs.limit).mean()) if len(seen) else float("nan")
    return Figure(mean, float(np.std(means)), len(seen), int(np.isinf(seen).sum()))
