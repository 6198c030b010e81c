"""Ranks of many values among the sorted reference values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Buckets per reference value: more make the first guess better and the table larger.
_BUCKETS_PER_VALUE = 4
# Below so many reference values a binary search is as fast.
_FEWEST = 64


class Ranker:
    """Ranks values by a guide table instead of a binary search (Chen & Asau 1974).

    The range of the reference is cut into equal buckets; a table says how many reference values lie
    in earlier buckets. That count never exceeds a value's rank, and rarely falls short by more than
    one or two, so two vectorised corrections settle nearly all values and a binary search the rest.

    Args:
        values: (U,) float64, sorted, distinct, finite.
    """

    __slots__ = ("_below", "_scale", "values")

    def __init__(self, values: npt.NDArray[np.float64]) -> None:
        self.values = values
        n = len(values) * _BUCKETS_PER_VALUE
        width = float(values[-1]) - float(values[0])
        # Not for ranges whose width overflows, or vanishes in the division.
        self._scale = n / width if len(values) >= _FEWEST and np.isfinite(width) else 0.0
        self._below: npt.NDArray[np.intp] | None = None
        if np.isfinite(self._scale) and self._scale > 0:
            counts = np.bincount(self._bucket(values, n), minlength=n)
            self._below = np.concatenate([[0], np.cumsum(counts)[:-1]])

    def _bucket(self, x: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.intp]:
        # Each step is monotone in x, and that alone makes the table's counts lower bounds. NaN
        # becomes some bucket: its rank means nothing, and nobody asks for it.
        with np.errstate(invalid="ignore", over="ignore"):
            at = (x - self.values[0]) * self._scale
            np.fmin(at, n - 1, out=at)
            np.fmax(at, 0, out=at)
            return at.astype(np.intp)

    def cells(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """(n,) the cell of each value: its gap r (r reference values are smaller), or U + 1 + r
        where it equals the reference value of rank r.

        Of values that are not finite the cell means nothing.

        >>> Ranker(np.array([1.0, 2.0])).cells(np.array([0.5, 1.0, 1.5, 2.0, 9.0])).tolist()
        [0, 3, 1, 4, 2]
        """
        n = len(self.values)
        if self._below is None:
            rank = np.searchsorted(self.values, x)
            return rank + (n + 1) * (self.values[np.minimum(rank, n - 1)] == x)
        rank = self._below[self._bucket(x, len(self._below))]
        for _ in range(2):
            rank += self.values[np.minimum(rank, n - 1)] < x
        np.minimum(rank, n - 1, out=rank)
        at = self.values[rank]
        short = np.flatnonzero(at < x)
        if len(short):
            rank[short] = np.searchsorted(self.values, x[short])
        rank += (n + 1) * (at == x)
        if len(short):
            hit = self.values[np.minimum(rank[short], n - 1)] == x[short]
            rank[short] += (n + 1) * hit
        return rank
