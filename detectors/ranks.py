"""Where values fall among the sorted reference values, for all numeric features at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Buckets per reference value: more make the first guess better and the table larger.
_BUCKETS_PER_VALUE = 4

# Steps by one that values short of their rank may take before they are searched for.
_FEW = 6


class Ranker:
    """Ranks values by guide tables instead of binary searches (Chen & Asau 1974).

    The range of each feature's reference is cut into equal buckets; a table says how many reference
    values lie in earlier buckets. That count never exceeds a value's rank, and rarely falls short
    by more than one or two, so two vectorised corrections settle nearly all values and a binary
    search the rest. The tables of all features lie end to end, so one pass serves all of them.

    Args:
        references: per feature (U,) float64, sorted, distinct, finite, at least one value.
    """

    __slots__ = (
        "_below",
        "_bucket_offset",
        "_first",
        "_last",
        "_last_bucket",
        "_low",
        "_scale",
        "_values",
        "references",
    )

    def __init__(self, references: Sequence[npt.NDArray[np.float64]]) -> None:
        self.references = tuple(references)
        sizes = np.array([len(v) for v in references], np.intp)
        ends = np.cumsum(sizes)
        # All per feature, as columns: (F, 1).
        self._first = (ends - sizes)[:, None]
        self._last = (ends - 1)[:, None]
        self._values = np.concatenate([*references, np.empty(0)])
        n_buckets = _BUCKETS_PER_VALUE * sizes
        self._last_bucket = (n_buckets - 1)[:, None].astype(np.float64)
        self._bucket_offset = (np.cumsum(n_buckets) - n_buckets)[:, None]
        self._low = np.array([v[0] for v in references])[:, None]
        with np.errstate(over="ignore", divide="ignore"):
            widths = np.array([v[-1] - v[0] for v in references])
            scale = n_buckets / widths
        # A width that overflows or vanishes leaves one bucket, and the work to the binary search.
        self._scale = np.where(np.isfinite(scale) & np.isfinite(widths), scale, 0.0)[:, None]
        tables = []
        for f, values in enumerate(references):
            one = slice(f, f + 1)
            bucket = self._bucket(values[None, :], one)[0] - self._bucket_offset[f, 0]
            counts = np.bincount(bucket, minlength=int(n_buckets[f]))
            tables.append(self._first[f, 0] + np.cumsum(counts) - counts)
        self._below = np.concatenate([*tables, np.empty(0, np.intp)]).astype(np.int32)

    def _bucket(self, x: npt.NDArray[np.float64], features: slice) -> npt.NDArray[np.intp]:
        # Each step is monotone in x, and that alone makes the table's counts lower bounds. NaN
        # becomes some bucket: its rank means nothing, and nobody asks for it.
        with np.errstate(invalid="ignore", over="ignore"):
            at = (x - self._low[features]) * self._scale[features]
        np.fmin(at, self._last_bucket[features], out=at)
        np.fmax(at, 0, out=at)
        bucket = at.astype(np.intp)
        bucket += self._bucket_offset[features]
        return bucket

    def cells(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """The cell of each value within its feature.

        Args:
            x: (F, n), a row per feature.

        Returns:
            (F, n): the gap r (r reference values are smaller), or U + 1 + r where the value equals
            the reference value of rank r. Of values that are not finite it means nothing.

        >>> ranker = Ranker([np.array([1.0, 2.0])])
        >>> ranker.cells(np.array([[0.5, 1.0, 1.5, 2.0, 9.0]])).tolist()
        [[0, 3, 1, 4, 2]]
        """
        # In C order whatever the order of x, so that the flat views below are views.
        at = self._below[self._bucket(x, slice(None))].astype(np.intp, order="C")
        for _ in range(2):
            np.minimum(at, self._last, out=at)
            at += self._values[at] < x
        # A few more steps for the few that need them, before the search for the rest.
        np.minimum(at, self._last, out=at)
        found = self._values[at]
        short = np.flatnonzero(found < x)
        if len(short):
            feature, wanted = short // x.shape[1], x.ravel()[short]
            last, near = self._last[feature, 0], at.ravel()[short]
            for _ in range(_FEW):
                near += self._values[near] < wanted
                np.minimum(near, last, out=near)
            at.reshape(-1)[short] = near
            found.reshape(-1)[short] = self._values[near]
            short = short[self._values[near] < wanted]
        hit = np.equal(found, x, order="C")
        rank = at
        rank -= self._first
        if len(short):
            feature, values = short // x.shape[1], x.ravel()[short]
            flat_rank, flat_hit = rank.reshape(-1), hit.reshape(-1)
            for f in np.flatnonzero(np.bincount(feature, minlength=len(rank))).tolist():
                which = feature == f
                exact, last = np.searchsorted(self.references[f], values[which]), self._last[f, 0]
                flat_rank[short[which]] = exact
                at_exact = np.minimum(exact, last - self._first[f, 0])
                flat_hit[short[which]] = self.references[f][at_exact] == values[which]
        rank += hit * (self._last - self._first + 2)
        return rank
