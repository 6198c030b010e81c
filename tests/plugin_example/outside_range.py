"""A detector as another package would bring it: one file, found by its entry point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from scipy import stats

from driftline.detectors import Effect, Kind, Outcome, Profile, Window


class OutsideRange:
    """Do more values than chance allows lie outside the range of the reference?

    The number K of window values below the smallest or above the largest of n_reference values
    follows, for continuous values of one distribution, the beta-binomial law with parameters
    n_test, 2 and n_reference - 1, whatever the distribution. Choose it for sensors and amounts
    whose extremes matter and whose bulk may move; it sees nothing inside the range. Cost: two
    cells per feature. With ties at the extremes it is conservative.

    Source: Wilks (1942), "Statistical prediction with special reference to the problem of
    tolerance limits", Ann. Math. Statist. 13.

    >>> import numpy as np
    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"x": np.arange(100.0)})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"x": np.arange(90.0, 110.0)})
    >>> [pane] = summarize(profile, columns, np.zeros(20, np.int64))
    >>> [[outcome]] = OutsideRange().test(profile, bank.push(60_000, pane), [0])
    >>> outcome.statistic, round(outcome.p_value, 9)
    (0.5, 1.6e-08)
    """

    name: ClassVar[str] = "outside_range"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        return [[_test(profile, window, index) for index in features] for window in windows]


def _test(profile: Profile, window: Window, index: int) -> Outcome:
    f = profile.numeric[index]
    counts = window.feature(index)[: f.n_finite_cells]
    n = int(counts.sum())
    detail = {"n_reference": f.n, "n_test": n}
    if n == 0:
        reason = "the window is empty" if window.events == 0 else "no value is a finite number"
        return Outcome(index, None, None, reason=reason, detail=detail)
    # The gaps before the smallest and after the largest reference value.
    outside = int(counts[0] + counts[len(f.values)])
    effect = Effect("share_shift", outside / n, "share", 0.0, outside / n, "(outside the range)")
    return Outcome(index, outside / n, p_value(outside, n, f.n), effect, detail=detail)


def p_value(outside: int, n_test: int, n_reference: int) -> float:
    """P(K ≥ outside)."""
    return min(1.0, float(stats.betabinom.sf(outside - 1, n_test, 2, n_reference - 1)))
