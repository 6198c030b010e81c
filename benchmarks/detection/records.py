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

_BOOTSTRAP: Final = 200


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

    def _at(self, threshold: float) -> Array:
        """(runs,) what a score must reach: less by the run's own share of a step."""
        share = np.array([np.random.default_rng([7, r.number]).random() for r in self.runs])
        return threshold - self.step * share

    def run_lengths(self, threshold: float) -> Array:
        """(runs,) events to the first false alarm, infinite beyond the horizon, NaN where there was
        one on the reference rows."""
        out = np.full(len(self.runs), np.nan)
        for i, (run, h) in enumerate(zip(self.runs, self._at(threshold), strict=True)):
            if run.warm < h:
                out[i] = _first(run.quiet, h)
        return out

    def delays(self, case: str, threshold: float) -> Array:
        """(runs,) events from the change to the alarm, infinite where missed, NaN where there was an
        alarm before it or the case was not run."""
        out = np.full(len(self.runs), np.nan)
        for i, (run, h) in enumerate(zip(self.runs, self._at(threshold), strict=True)):
            if max(run.warm, run.before) < h and case in run.after:
                out[i] = _first(run.after[case], h)
        return out

    def threshold(self, ert: float, chosen: Array | None = None) -> float:
        """The threshold of this expected run time; chosen: numbers of runs, drawn anew."""
        scores = [s for r in self.runs for _, s in r.quiet]
        low, high = min(scores), max(scores) + self.step + 1e-9
        for _ in range(30):
            middle = (low + high) / 2
            found = self.run_lengths(middle)
            if expected(found if chosen is None else found[chosen], self.horizon) < ert:
                low = middle
            else:
                high = middle
        return high


def _first(found: Record, threshold: float) -> float:
    return next((float(t) for t, s in found if s >= threshold), np.inf)


def expected(times: Array, horizon: int) -> float:
    """Expected run time of runs cut off at the horizon: those beyond it go on at the rate of alarms of
    its second half. 0 where fewer than five runs got past the reference rows."""
    times = times[~np.isnan(times)]
    if len(times) < 5:
        return 0.0
    until = np.minimum(times, horizon)
    late = int(((times > horizon / 2) & (times <= horizon)).sum())
    exposure = np.maximum(until - horizon / 2, 0).sum()
    if late < 5:
        late, exposure = int((times <= horizon).sum()), until.sum()
    return float(until.mean() + (times > horizon).mean() * exposure / max(late, 1))


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean with its standard error, over `n` runs of which `missed` saw no alarm (and count with the
    limit)."""

    mean: float
    error: float
    n: int
    missed: int


def run_time(runs: Runs, threshold: float) -> Figure:
    times = runs.run_lengths(threshold)
    times = times[~np.isnan(times)]
    rng = np.random.default_rng(1)
    again = [expected(rng.choice(times, len(times)), runs.horizon) for _ in range(_BOOTSTRAP)]
    beyond = int((times > runs.horizon).sum())
    return Figure(expected(times, runs.horizon), float(np.std(again)), len(times), beyond)


def delay(runs: Runs, case: str, threshold: float, ert: float | None) -> Figure:
    """Mean delay, at most `limit`. ert: the threshold was tuned for it on these runs, and the standard
    error holds what tuning on others would have changed."""
    found = runs.delays(case, threshold)
    seen = found[~np.isnan(found)]
    rng = np.random.default_rng(2)
    n, means = len(runs.runs), []
    for _ in range(_BOOTSTRAP):
        again = found
        if ert is not None:
            again = runs.delays(case, runs.threshold(ert, rng.integers(0, n, n)))
        again = rng.choice(again[~np.isnan(again)], max(1, int((~np.isnan(again)).sum())))
        means.append(np.minimum(again, runs.limit).mean())
    missed = int(np.isinf(seen).sum())
    mean = float(np.minimum(seen, runs.limit).mean()) if len(seen) else float("nan")
    return Figure(mean, float(np.std(means)), len(seen), missed)
