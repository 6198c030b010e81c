"""The Brown–Forsythe test of spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
from scipy import special

from .base import Effect, Outcome
from .cells import Cells, Hits, cells_of, finite_detail, middles, too_few
from .moments import spread_effect, sums_in_sd
from .numeric import BEYOND
from .profile import Kind, NumericProfile, Profile
from .windows import Window

_ROUNDING: Final = 1e-9


class VarianceShift:
    """Do the values of a numeric feature spread as widely as in the reference?

    Levene's test in the form of Brown & Forsythe: the distances |x - median|, each sample about its
    own median, are compared by a t test. Choose it for a sensor that becomes noisy, or a feature
    that loses its variety, which tests of the whole distribution see late. Unlike a ratio of variances
    it does not take the values for normal. A shift of location alone it does not see. Finite values
    only. Cost: several times `ks`.

    The p-value is that of `scipy.stats.levene(reference, window, center="median")` with each value
    where counts can put it: a value between two reference values in the middle of the gap, one outside
    the reference's range at its end, which also keeps wild values from deciding alone (a window
    that spreads far beyond the reference still shows, by what lies at the ends).

    Effect: `spread_shift`, the window's standard deviation against the reference's, from Σ²; values
    more than 256 standard deviations away enter as if they lay there (`detail.beyond`).

    Source: Levene (1960); Brown & Forsythe (1974).

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"x": np.arange(-50.0, 51.0)})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"x": np.arange(-30.0, 31.0)})
    >>> [pane] = summarize(profile, columns, np.zeros(61, np.int64))
    >>> [[outcome]] = VarianceShift().test(profile, bank.push(60_000, pane), [0])
    >>> round(outcome.statistic, 4), round(outcome.p_value, 9), round(outcome.effect.value, 4)
    (23.2324, 3.313e-06, -0.3941)
    """

    name: ClassVar[str] = "variance_shift"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        if not features:
            return [[] for _ in windows]
        reference = profile.cached("variance_shift", lambda: _reference(profile))
        return [_outcomes(profile, reference, window, features) for window in windows]


def _reference(profile: Profile) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(F,) mean and sum of squared deviations of the reference's distances from its median."""
    cells = cells_of(profile)
    met = np.flatnonzero(cells.reference)
    ends = np.searchsorted(met, cells.last, "right")
    begins = np.concatenate([[0], ends[:-1]])
    through = (cells.below + cells.reference)[met]
    feature = cells.feature[met]
    as_hits = Hits(met, cells.reference[met], feature, through, cells.n, begins, ends)
    return _distances(cells, as_hits, middles(profile))


def _distances(
    cells: Cells, hits: Hits, place: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if not len(hits.cell):
        return np.zeros(len(hits.n)), np.zeros(len(hits.n))
    lower, upper = (hits.quantile_cells(r) for r in ((hits.n - 1) // 2, hits.n // 2))
    median = (place[lower] + place[upper]) / 2
    distance = np.abs(place[hits.cell] - median[hits.feature])
    mean = hits.sums(hits.count * distance) / np.maximum(hits.n, 1)
    return mean, hits.sums(hits.count * (distance - mean[hits.feature]) ** 2)


def p_values(
    m: npt.NDArray[np.int64] | int,
    reference_mean: npt.NDArray[np.float64],
    reference_squares: npt.NDArray[np.float64],
    n: npt.NDArray[np.int64],
    mean: npt.NDArray[np.float64],
    squares: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Statistics and p-values, of m reference values and n in the window: from the mean and the sum
    of squared deviations of the distances from each sample's median."""
    pooled = (squares + reference_squares) / np.maximum(m + n - 2, 1)
    apart = mean - reference_mean
    # In standard deviations, so less than this is rounding; values at two places have no other
    # variance of their distances.
    apart[np.abs(apart) < _ROUNDING] = 0.0
    statistic = apart**2 * m * n / (m + n) / np.maximum(pooled, _ROUNDING**2)
    p = special.fdtrc(1, np.maximum(m + n - 2, 1), statistic)
    return statistic, np.asarray(p, np.float64)


def _outcomes(
    profile: Profile,
    reference: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    window: Window,
    features: Sequence[int],
) -> list[Outcome]:
    cells = cells_of(profile)
    hits, absent = cells.hits(window), window.absent()
    mean, squares = _distances(cells, hits, middles(profile))
    statistic, p = p_values(cells.n, *reference, np.maximum(hits.n, 1), mean, squares)
    outcomes = []
    for i in features:
        f, count = profile.numeric[i], int(hits.n[i])
        detail = finite_detail(f, absent[i], count)
        none = too_few(window, i, detail, 2)
        if none is not None:
            outcomes.append(none)
            continue
        effect = _effect(f, window, i, count, detail)
        outcomes.append(Outcome(i, float(statistic[i]), float(p[i]), effect, detail=detail))
    return outcomes


def _effect(
    f: NumericProfile, window: Window, index: int, n: int, detail: dict[str, object]
) -> Effect | None:
    low, high = math.nan, math.nan
    if window.sums[index, BEYOND]:
        detail["beyond"] = int(window.sums[index, BEYOND])
        low, high = window.extremes(index)
    return spread_effect(f, *sums_in_sd(f, window.sums[index], low, high), n)
