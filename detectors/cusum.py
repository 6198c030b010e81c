"""A two-sided CUSUM over the panes of a window, for slow changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy import special

from .base import Outcome
from .cells import finite_detail, mean_effect, too_few
from .moments import in_units, sums_in_sd
from .numeric import BEYOND, ONE, SUM
from .profile import Kind, NumericProfile, Profile
from .windows import Kept, Window


class Cusum:
    """Has the mean of a numeric feature crept away, or moved for a while, within the window?

    S_k is the sum of what the values of the window's first k panes lie above the reference mean, in
    reference standard deviations; the statistic is max_k |S_k| / √n. Choose it, with a long
    window, for changes too small or too short-lived to be seen in the whole window's distribution:
    a ramp, or a stretch that came and went, which S keeps until the opposite has made up for it.
    Blind to changes that leave the mean; a larger spread alone makes it alarm, too. Values
    that follow each other make its p-values too small, like those of every test here.

    The p-value is P(sup |W(t)| > statistic / √(1 + n/m)) for a Wiener process W. The factor stands
    for the error of the reference mean, which has m values: that error adds (n/m)·s·t to the
    covariance min(s, t) of S/√n, the factor (n/m)·min(s, t), which exceeds it by that of a Brownian
    bridge; so by Anderson's inequality the p-value is too large, if anything. So it is with few
    panes, between which S is not looked at. Values more than 256 standard deviations away count as
    256. Stateless: S begins anew at the window's start. Cost: one sum per pane in the window.

    Source: Page (1954) for the idea; Ploberger & Krämer (1992) for a test by sup |W|; Anderson
    (1955) for the inequality.

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"x": np.arange(100.0)})
    >>> bank = WindowBank(profile, [parse_window("3m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"x": [50.0] * 20 + [75.0] * 20 + [35.0] * 20})
    >>> for pane in summarize(profile, columns, np.repeat([0, 60_000, 120_000], 20)):
    ...     due = bank.push(pane.start_ms + 60_000, pane)
    >>> [[outcome]] = Cusum().test(profile, due, [0])
    >>> round(outcome.statistic, 3), round(outcome.p_value, 4), outcome.detail["panes"]
    (2.314, 0.1347, 3)
    """

    name: ClassVar[str] = "cusum"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric"})
    # Its outcome depends on which pane of the window a value is in, not only on the window's counts.
    reads_panes: ClassVar[bool] = True

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        return [_outcomes(profile, window, features) for window in windows]


def _outcomes(profile: Profile, window: Window, features: Sequence[int]) -> list[Outcome]:
    absent = window.absent()
    panes = list(window.panes())
    shape = (len(panes), profile.n_numeric)
    # Whole numbers until here, so that the sums do not depend on what was added first.
    steps = np.array([pane.sums[:, SUM] for pane in panes], np.int64).reshape(shape)
    through = np.cumsum(steps, axis=0) / ONE
    beyond = window.sums[:, BEYOND]
    outcomes = []
    for i in features:
        f, n = profile.numeric[i], window.events - sum(absent[i])
        detail = finite_detail(f, absent[i], n)
        none = too_few(window, i, detail, 1)
        if none is not None:
            outcomes.append(none)
            continue
        path = through[:, i]
        if beyond[i]:
            path = _with_beyond(f, i, panes)
            detail["beyond"] = int(beyond[i])
        detail["panes"] = len(panes)
        statistic = float(np.abs(path).max()) / math.sqrt(n)
        p = sup_wiener_sf(statistic / math.sqrt(1 + n / f.n))
        mean = in_units(f, float(path[-1]) / n)
        outcomes.append(Outcome(i, statistic, p, mean_effect(f, mean), detail=detail))
    return outcomes


def _with_beyond(f: NumericProfile, index: int, panes: Sequence[Kept]) -> np.ndarray:
    own = [sums_in_sd(f, p.sums[index], float(p.low[index]), float(p.high[index])) for p in panes]
    return np.cumsum([total for total, _ in own])


def sup_wiener_sf(u: float) -> float:
    """P(sup |W(t)| > u) over t from 0 to 1: by reflection in the tail, else by the theta series.

    >>> round(sup_wiener_sf(2.2414), 4), round(sup_wiener_sf(0.5), 6)
    (0.05, 0.990843)
    """
    if u >= 1.0:
        # 4·Σ (-1)^k Φ(-(2k + 1)u)
        return float(4 * sum((-1) ** k * special.ndtr(-(2 * k + 1) * u) for k in range(6)))
    if u <= 0.0:
        return 1.0
    terms = (
        (-1) ** k / (2 * k + 1) * math.exp(-(((2 * k + 1) * math.pi / u) ** 2) / 8)
        for k in range(4)
    )
    return min(1.0, max(0.0, 1 - 4 / math.pi * sum(terms)))
