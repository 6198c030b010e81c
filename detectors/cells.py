"""A window's numeric counts in the order of the values, for detectors that run along them.

All numeric features lie end to end: gap 0, value 0, gap 1, …, value U-1, gap U of the first, then
those of the next. What a window adds is sparse: only the cells it hit are looked at (`Hits`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Effect, Outcome
from .layout import layout_of
from .profile import NumericProfile, Profile
from .windows import Window


class Cells:
    """The reference of all F numeric features, cell by cell in order; K cells in all.

    places: (K,) where a window's store has each. feature: (K,) whose it is. first: (F,) the first
    of each feature, last: (F,) its last. reference: (K,) int64, how many reference values are in it
    (0 for a gap, unless the profile was made with `slots`); below: (K,) how many in earlier ones.
    is_gap: (K,) bool. n: (F,) finite reference values. squares_before: (K,) with r reference values
    before a group of t equal ones, Σ t·(r² + (r + t)²)/2 over the groups in earlier cells, squares:
    (F,) over all. ties_in_gaps: (F,) Σ(t³ - t) over the t that share a gap.
    """

    def __init__(self, profile: Profile) -> None:
        position = layout_of(profile).position
        places, within_all = [], []
        for i, f in enumerate(profile.numeric):
            begin, n_values = int(profile.offsets[i]), len(f.values)
            at = np.empty(f.n_finite_cells, np.intp)
            at[0::2] = np.arange(begin, begin + n_values + 1)
            at[1::2] = np.arange(begin + n_values + 1, begin + f.n_finite_cells)
            places.append(position[at])
            within_all.append(f.through)
        sizes = np.array([f.n_finite_cells for f in profile.numeric], np.int64)
        self.n = np.array([f.n for f in profile.numeric], np.int64)
        self.first = np.cumsum(sizes) - sizes
        self.last = self.first + sizes - 1
        self.places = np.concatenate([*places, np.zeros(0, np.int64)]).astype(np.intp)
        self.feature = np.repeat(np.arange(len(sizes)), sizes)
        self.reference = np.concatenate(
            [*(np.diff(t, prepend=0) for t in within_all), np.zeros(0, np.int64)]
        )
        self.is_gap = (np.arange(len(self.places)) - self.first[self.feature]) % 2 == 0
        self.below = np.concatenate([*within_all, np.zeros(0, np.int64)]) - self.reference
        behind = self.below + self.reference
        # Halves of whole numbers, so exact up to some 200,000 reference values.
        squares = self.reference * (self.below**2 + behind**2) / 2
        through = np.concatenate([np.zeros(1), np.cumsum(squares)])
        base = through[self.first]
        self.squares = through[self.last + 1] - base
        self.squares_before = through[:-1] - base[self.feature]
        self.ties_in_gaps = np.zeros_like(self.n)
        gaps = np.flatnonzero(self.is_gap & (self.reference > 1))
        shared = self.reference[gaps]
        np.add.at(self.ties_in_gaps, self.feature[gaps], shared**3 - shared)

    def hits(self, window: Window) -> Hits:
        counts = window.store.take(self.places)
        cell = np.flatnonzero(counts != 0)  # many times faster than of the counts themselves
        count = counts[cell].astype(np.int64)
        ends = np.searchsorted(cell, self.last, "right")
        begins = np.concatenate([[0], ends])[: len(ends)]
        total = np.concatenate([[0], np.cumsum(count)])
        n = total[ends] - total[begins]
        met = ends - begins
        feature = np.repeat(np.arange(len(n)), met)
        through = total[1:] - np.repeat(total[begins], met)
        return Hits(cell, count, feature, through, n, begins, ends)


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The H cells that a window hit, in order.

    cell, count, feature: (H,). through: (H,) how many of the feature's values lie in it or before
    it. n: (F,) finite values. ends: (F,) behind each feature's last hit.
    """

    cell: npt.NDArray[np.intp]
    count: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    through: npt.NDArray[np.int64]
    n: npt.NDArray[np.int64]
    begins: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]

    def sums(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(F,) the sum of x (H,) over each feature's hits, in the type of x."""
        total = np.zeros(len(self.n), x.dtype)
        met = np.flatnonzero(self.n)
        if len(met):
            total[met] = np.add.reduceat(x, self.begins[met])
        return total

    def quantile_cells(self, rank: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """(F,) the cell of each feature's value number `rank` (F,), from 0; any cell where it
        has no values."""
        if not len(self.cell):
            return np.zeros(len(self.n), np.intp)
        base = np.cumsum(self.n) - self.n
        at = np.searchsorted(self.through + base[self.feature], base + rank, "right")
        return self.cell[np.minimum(at, len(self.cell) - 1)]


def cells_of(profile: Profile) -> Cells:
    """The cells of a profile, made once."""
    return profile.cached("cells", lambda: Cells(profile))


def standardised(f: NumericProfile) -> npt.NDArray[np.float64]:
    """(U,) how far each reference value lies from the reference mean, in standard deviations."""
    return _standardised(f.values, f.mean, f.sd)


def _standardised(
    values: npt.NDArray[np.float64], mean: float, sd: float
) -> npt.NDArray[np.float64]:
    # In units of a power of two near the largest, so that nothing overflows or vanishes.
    exponent = int(np.frexp(np.abs(values).max())[1])
    mean, sd = math.ldexp(mean, -exponent), math.ldexp(sd, -exponent)
    return (np.ldexp(values, -exponent) - mean) / sd


def middles(profile: Profile) -> npt.NDArray[np.float64]:
    """(K,) where a value of each cell is put, in reference standard deviations from the mean: on the
    value, in the middle of the gap, at the end of the range for what lies outside it."""
    return profile.cached("middles", lambda: _middles(profile))


def _middles(profile: Profile) -> npt.NDArray[np.float64]:
    own = [middles_of(f.values, f.mean, f.sd) for f in profile.numeric]
    return np.concatenate([np.zeros(0), *own])


def middles_of(values: npt.NDArray[np.float64], mean: float, sd: float) -> npt.NDArray[np.float64]:
    """(2U + 1,) `middles` of one feature with these reference values (U,), sorted and distinct."""
    z = _standardised(values, mean, sd)
    place = np.empty(2 * len(z) + 1)
    place[1::2] = z
    place[2:-1:2] = z[:-1] + np.diff(z) / 2
    place[0], place[-1] = z[0], z[-1]
    return place


def finite_detail(f: NumericProfile, absent: list[int], n: int) -> dict[str, object]:
    """What a verdict on the finite values of a feature says in `detail`, whatever the test.

    absent: how many are missing, NaN, +inf and -inf. n: how many are finite.
    """
    missing, *non_finite = absent
    detail: dict[str, object] = {"n_reference": f.n, "n_test": n}
    if missing:
        detail["missing"] = missing
    if any(non_finite):
        detail["non_finite"] = sum(non_finite)
    return detail


def too_few(
    window: Window,
    index: int,
    detail: dict[str, object],
    needed: int,
    usable: str = "a finite number",
) -> Outcome | None:
    """The outcome of a window with fewer values than a test needs, None where it has them.

    index: of the feature. detail: with `n_test`, how many there are. usable: what they must be.
    """
    n = detail["n_test"]
    assert isinstance(n, int)
    if n >= needed:
        return None
    if not window.events:
        reason = "the window is empty"
    elif n:
        reason = f"only {n} of its values is {usable}; the test needs {needed}"
    else:
        reason = f"none of its {window.events} values is {usable}"
    return Outcome(index, None, None, reason=reason, detail=detail)


def mean_effect(f: NumericProfile, mean: float | None) -> Effect | None:
    """`mean_shift` to a window's mean, in reference standard deviations."""
    if mean is None or not math.isfinite(mean):
        return None
    shift = (mean - f.mean) / f.sd
    return Effect("mean_shift", shift, "reference standard deviations", f.mean, mean)
