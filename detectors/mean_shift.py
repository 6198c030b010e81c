"""Welch's test of the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy import special

from .base import Outcome
from .cells import finite_detail, mean_effect, too_few
from .moments import in_units, sums_in_sd
from .numeric import BEYOND
from .profile import Kind, NumericProfile, Profile
from .windows import Window


class MeanShift:
    """Has the mean of a numeric feature moved?

    Welch's t test of the window's mean against the reference's. Choose it where the mean is what
    matters (a total, a cost), and for the smallest shift of values that are roughly normal. Blind to
    any change that leaves the mean; one wild value may hide a shift or, in a small window of
    skewed values, look like one. Cost: a fraction of `ks`, whatever the reference holds.

    The p-value is that of `scipy.stats.ttest_ind(reference, window, equal_var=False)`, to the
    resolution of the sums (2^-20 reference standard deviations for each value). Values more than
    256 standard deviations away enter as if they lay there (`detail.beyond` says how many).

    Source: Welch (1947).

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"x": np.arange(100.0)})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"x": np.arange(30.0, 90.0)})
    >>> [pane] = summarize(profile, columns, np.zeros(60, np.int64))
    >>> [[outcome]] = MeanShift().test(profile, bank.push(60_000, pane), [0])
    >>> round(outcome.statistic, 5), round(outcome.p_value, 6), outcome.effect.window
    (2.72166, 0.007225, 59.5)
    """

    name: ClassVar[str] = "mean_shift"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        rows = [(window, window.absent()) for window in windows]
        return [
            [_test(profile.numeric[i], window, i, absent[i]) for i in features]
            for window, absent in rows
        ]


def _test(f: NumericProfile, window: Window, index: int, absent: list[int]) -> Outcome:
    n = window.events - sum(absent)
    detail = finite_detail(f, absent, n)
    none = too_few(window, index, detail, 2)
    if none is not None:
        return none
    sums, low, high = window.sums[index], np.nan, np.nan
    if sums[BEYOND]:
        detail["beyond"] = int(sums[BEYOND])
        low, high = window.extremes(index)
    total, squares = sums_in_sd(f, sums, low, high)
    mean = total / n
    variance = max(0.0, (squares - n * mean * mean) / (n - 1))
    of_window, of_reference = variance / n, 1.0 / f.n
    error = of_window + of_reference
    degrees = error**2 / (of_window**2 / (n - 1) + of_reference**2 / (f.n - 1))
    t = mean / math.sqrt(error)
    p = min(1.0, 2 * float(special.stdtr(degrees, -abs(t))))
    detail["degrees_of_freedom"] = degrees
    return Outcome(index, t, p, mean_effect(f, in_units(f, mean)), detail=detail)
