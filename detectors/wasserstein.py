"""The Wasserstein distance, in the feature's own unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
from scipy import special

from .base import Effect, Outcome
from .cells import (
    Cells,
    Hits,
    cells_of,
    finite_detail,
    middles,
    standardised,
    too_few,
)
from .moments import sums_in_sd
from .numeric import BEYOND, FARTHEST_SD
from .profile import Kind, NumericProfile, Profile
from .windows import Window

# The law is simulated on so many points of a feature, with so many draws at each tilt.
_POINTS: Final = 64
_DRAWS: Final = 800
_TILTS: Final = (0.0, 1.5, 3.0, 5.0, 8.0, 12.0)
_SEED: Final = 20


class Wasserstein:
    """How far, in its own unit, must the values of a numeric feature move to be the reference's?

    W = ∫ |F_reference - F_window| dx, the least mean distance by which the window's values must be
    moved (the earth mover's distance of order 1). Choose it where the size of a change matters and
    large moves count for more; a shift by δ is W = δ. Weak for what happens among values close to
    each other. Finite values only. Cost: several times `ks`; at first use of a profile some
    milliseconds per feature for the law.

    *Statistic and p-value* are about the part of W inside the reference's range (values outside
    count at its ends), in reference standard deviations: √(m·n/(m + n))·W has there the limit law
    of ∫ |B(F(x))| dx, a Brownian bridge B along the reference's distribution function F. It is
    simulated once per profile, from a fixed seed, on 64 points; tails by importance sampling: the
    likeliest way to a large area is a bridge pushed along the covariance of ∫ B(F) dx, whose
    variance is the reference's. It takes the reference's spread for known, so it suits references
    that are larger than the window.

    *Effect* is the whole distance. Counts do not say where in the gap between two reference values
    a value lies: it is put in the middle. What lies outside the range is settled by Σ where only
    one side has any, else by Σ and the extremes, the middle of what is possible; more than 256
    standard deviations away counts as 256 (`detail.beyond`).
    `detail.distance_error` bounds the error of the distance, in the same unit.

    Source: Vallender (1974) for the formula; del Barrio, Giné & Matrán (1999) for the law; Owen &
    Zhou (2000) for sampling from several tilts at once.

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"x": np.arange(100.0)})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"x": np.arange(100.0) + 20})
    >>> [pane] = summarize(profile, columns, np.zeros(100, np.int64))
    >>> [[outcome]] = Wasserstein().test(profile, bank.push(60_000, pane), [0])
    >>> round(outcome.effect.window, 4), round(outcome.effect.value * profile.numeric[0].sd, 4)
    (20.0, 20.0)
    >>> bool(outcome.p_value < 1e-4)
    True
    """

    name: ClassVar[str] = "wasserstein"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        if not features:
            return [[] for _ in windows]
        places = profile.cached("wasserstein", lambda: _Places(profile))
        return [_outcomes(profile, places, window, features) for window in windows]


class _Places:
    """What a profile's cells count for in a distance, in reference standard deviations.

    middle: (K,) as of `middles`.
    width: (K,) the stretch over which the distribution functions keep what they are after the cell,
    as a value in the middle of its gap has it: half a gap, 0 outside the range.
    share: (K,) the reference's distribution function after the cell.
    """

    def __init__(self, profile: Profile) -> None:
        self.cells = cells = cells_of(profile)
        self.middle = middles(profile)
        self.width = np.zeros(len(cells.places))
        for a, b in zip(cells.first.tolist(), (cells.last + 1).tolist(), strict=True):
            half = np.diff(self.middle[a + 1 : b - 1])
            self.width[a + 1 : b - 2] = half
        self.share = (cells.below + cells.reference) / cells.n[cells.feature]
        # Half of a gap's width is in doubt for each reference value that `slots` left in it.
        lost = np.where(cells.is_gap, self.width * cells.reference / cells.n[cells.feature], 0.0)
        self.lost = np.add.reduceat(lost, cells.first)

    def inside(self, hits: Hits) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(F,) W inside the reference's range, and the bound of its error."""
        count = np.zeros(len(self.share), np.int64)
        count[hits.cell] = hits.count
        before = np.cumsum(hits.n) - hits.n
        through = np.cumsum(count) - before[self.cells.feature]
        n = np.maximum(hits.n, 1)
        share = through / n[self.cells.feature]
        distance = np.add.reduceat(self.width * np.abs(share - self.share), self.cells.first)
        doubt = np.where(self.cells.is_gap[hits.cell], self.width[hits.cell], 0.0)
        return distance, hits.sums(doubt * hits.count) / n + self.lost


def _outcomes(
    profile: Profile, places: _Places, window: Window, features: Sequence[int]
) -> list[Outcome]:
    cells = places.cells
    hits, absent = cells.hits(window), window.absent()
    inside, doubt = places.inside(hits)
    total = hits.sums(places.middle[hits.cell] * hits.count)
    outcomes = []
    for i in features:
        f, n = profile.numeric[i], int(hits.n[i])
        detail = finite_detail(f, absent[i], n)
        none = too_few(window, i, detail, 1)
        if none is not None:
            outcomes.append(none)
            continue
        law = profile.cached(("wasserstein", i), lambda f=f: AreaLaw.of(f))
        statistic = float(inside[i])
        outer, error = 0.0, 0.0
        at_ends = _at_ends(cells, hits, i)
        if any(at_ends):
            ends = float(places.middle[cells.first[i]]), float(places.middle[cells.last[i]])
            outer, error = _outside(f, ends, at_ends, window, i, float(total[i]), float(doubt[i]))
            detail["outside_range"] = sum(at_ends)
            if window.sums[i, BEYOND]:
                detail["beyond"] = int(window.sums[i, BEYOND])
        distance = statistic + outer
        effect = None
        if math.isfinite(f.sd * distance):
            detail["distance_error"] = f.sd * (float(doubt[i]) + error)
            unit = "reference standard deviations"
            effect = Effect("distance", distance, unit, 0.0, f.sd * distance)
        p = law.p_value(math.sqrt(f.n * n / (f.n + n)) * statistic)
        outcomes.append(Outcome(i, statistic, p, effect, detail=detail))
    return outcomes


def _at_ends(cells: Cells, hits: Hits, index: int) -> tuple[int, int]:
    """How many of a feature's values lie below and above the reference's range."""
    first, last = int(hits.begins[index]), int(hits.ends[index]) - 1
    below = hits.cell[first] == cells.first[index]
    above = hits.cell[last] == cells.last[index]
    return int(hits.count[first]) * bool(below), int(hits.count[last]) * bool(above)


def _outside(
    f: NumericProfile,
    ends: tuple[float, float],
    at_ends: tuple[int, int],
    window: Window,
    index: int,
    sum_of_middles: float,
    doubt: float,
) -> tuple[float, float]:
    """What values outside the reference's range add to W, and by how much that may be wrong.

    Args:
        ends: of the range, in reference standard deviations. at_ends: how many lie below, above.
        sum_of_middles: Σ of the values, each in the middle of its gap, those outside at the ends.
        doubt: by how much the mean of the middles may be wrong.

    With A what the values above add and B what those below do, Σ tells A - B.
    """
    n = window.events - sum(window.absent()[index])
    low, high = window.extremes(index)
    # What lies farther than the sums reach enters as if it lay there.
    nearest = min(-FARTHEST_SD, ends[0]), max(FARTHEST_SD, ends[1])
    low_sd = max((low - f.mean) / f.sd, nearest[0])
    high_sd = min((high - f.mean) / f.sd, nearest[1])
    below, above = at_ends
    b_least = (ends[0] - low_sd) / n if below else 0.0
    a_least = (high_sd - ends[1]) / n if above else 0.0
    b_most, a_most = below * b_least, above * a_least
    sums = window.sums[index]
    one_side = low_sd > -FARTHEST_SD or high_sd < FARTHEST_SD
    within = nearest == (-FARTHEST_SD, FARTHEST_SD)
    if sums[BEYOND] and not (one_side and within):
        least, most = a_least + b_least, a_most + b_most
        return (least + most) / 2, (most - least) / 2
    difference = (sums_in_sd(f, sums, low, high)[0] - sum_of_middles) / n
    if not (below and above):
        return max(0.0, difference if above else -difference), doubt
    b_least = max(b_least, a_least - difference - doubt)
    b_most = max(b_least, min(b_most, a_most - difference + doubt))
    return max(0.0, difference + b_least + b_most), doubt + b_most - b_least


class AreaLaw:
    """The law of A = ∫ |B(F(x))| dx for one feature, in reference standard deviations.

    Draws of B come from several *tilts*: B + s·h with h = Cov(B, ∫B)/σ, σ² = Var ∫B, under which
    Z = ∫B/σ has mean s. A draw counts 1 / mean_s[exp(-s²/2)·cosh(s·Z)], the tilts ±s being alike
    for |B|, so that P(A ≥ a) is a sum of weights at every size of p. Beyond the farthest draws,
    P(A ≥ a) ~ c·2Φ(-a/σ), since σ² is the largest variance of any ∫ ±B.
    """

    def __init__(self, share: npt.NDArray[np.float64], width: npt.NDArray[np.float64]) -> None:
        """Args: share (G,) in (0, 1), rising, and width (G,): F and how long it stays so."""
        covariance = share[:, None] * (1 - share)
        covariance = np.minimum(covariance, covariance.T)
        towards = covariance @ width
        self.sd = math.sqrt(float(width @ towards))
        towards /= self.sd
        step = np.sqrt(np.diff(share, prepend=0.0, append=1.0))
        walk = np.cumsum(_normals(len(step)) * step, axis=1)
        bridge = walk[:, :-1] - walk[:, -1:] * share
        tilts = np.repeat(_TILTS, _DRAWS)
        bridge += tilts[:, None] * towards
        z = bridge @ width / self.sd
        area = np.abs(bridge, out=bridge) @ width
        s = np.array(_TILTS)[:, None]
        # exp(-s²/2)·cosh(s·z), where cosh alone could overflow.
        densities = (np.exp(s * z - s**2 / 2) + np.exp(-s * z - s**2 / 2)) / 2
        weight = 1 / densities.sum(axis=0) / _DRAWS
        order = np.argsort(-area)
        log_p = np.log(np.cumsum(weight[order]))
        # The last few draws alone are noise; where the farthest tilt is centred there are many.
        beyond = int(np.searchsorted(-area[order], -self.sd * _TILTS[-1]))
        self._area = area[order][beyond:][::-1]
        self._log_p = np.minimum(log_p[beyond:][::-1], 0.0)
        self._log_c = float(self._log_p[-1]) - self._log_normal(float(self._area[-1]))

    def _log_normal(self, area: float) -> float:
        return math.log(2) + float(special.log_ndtr(-area / self.sd))

    def p_value(self, area: float) -> float:
        if area <= self._area[0]:
            return 1.0
        if area > self._area[-1]:
            return math.exp(self._log_c + self._log_normal(area))
        return math.exp(float(np.interp(area, self._area, self._log_p)))

    @staticmethod
    def of(f: NumericProfile) -> AreaLaw:
        """On at most 64 points: neighbours that add little to the area are drawn together."""
        width = np.diff(standardised(f))
        share = f.through_value[:-1] / f.n
        adds = width * np.sqrt(share * (1 - share))
        through = np.cumsum(adds)
        group = np.minimum(_POINTS * (through - adds / 2) / through[-1], _POINTS - 1).astype(int)
        of_group = np.bincount(group, width).astype(np.float64)
        met = of_group > 0
        middle = np.bincount(group, width * share)[met] / of_group[met]
        return AreaLaw(middle, of_group[met])


@cache
def _normals(n_steps: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(_SEED)
    return rng.standard_normal((len(_TILTS) * _DRAWS, n_steps))
