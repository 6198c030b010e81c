"""Where values fall among the sorted reference values, for all numeric features at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Buckets per reference value: more make the first guess better and the table larger.
_BUCKETS_PER_VALUE = 4

# Steps by one that a value short of its rank may take before it is searched for.
_FEW = 6


class Ranker:
    """Ranks values by guide tables instead of binary searches (Chen & Asau 1974).

    The range of each feature's reference is cut into equal buckets; a table says how many reference
    values lie in earlier buckets. A value whose bucket holds none has its rank from the table;
    the others take a few steps through their bucket, and what that does not settle is searched
    for. The tables of all features lie end to end, so one pass serves all of them.

    Args:
        references: per feature (U,) float64, sorted, distinct, finite, at least one value.
        offsets: per feature the number of its first cell, 0 for all by default.
    """

    __slots__ = (
        "_below",
        "_bucket_offset",
        "_first",
        "_last_bucket",
        "_low",
        "_scale",
        "_shift",
        "_to_value",
        "_values",
        "references",
    )

    def __init__(
        self,
        references: Sequence[npt.NDArray[np.float64]],
        offsets: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.references = tuple(references)
        sizes = np.array([len(v) for v in references], np.intp)
        # An infinity ends each feature's values: no step leads across it.
        self._values = np.concatenate([*(np.append(v, np.inf) for v in references), np.empty(0)])
        self._first = np.cumsum(sizes + 1) - (sizes + 1)
        cells = np.zeros(len(sizes), np.int64) if offsets is None else offsets
        # All per feature, as columns: (F, 1).
        self._shift = (cells - self._first)[:, None].astype(np.int32)
        self._to_value = (sizes + 1).astype(np.int32)
        n_buckets = _BUCKETS_PER_VALUE * sizes
        self._last_bucket = (n_buckets - 1)[:, None].astype(np.float64)
        self._bucket_offset = (np.cumsum(n_buckets + 1) - (n_buckets + 1))[:, None]
        self._low = np.array([v[0] for v in references])[:, None]
        with np.errstate(over="ignore", divide="ignore"):
            widths = np.array([v[-1] - v[0] for v in references])
            scale = n_buckets / widths
        # A width that overflows makes it 0, and a distance that overflows then NaN: the last bucket.
        # One that vanishes makes it infinite; 1 is as good as any other.
        self._scale = np.where(np.isfinite(scale), scale, 1.0)[:, None]
        tables = []
        for f, values in enumerate(references):
            one = slice(f, f + 1)
            bucket = self._bucket(values[None, :], one)[0] - self._bucket_offset[f, 0]
            counts = np.bincount(bucket, minlength=int(n_buckets[f]))
            tables.append(self._first[f] + np.concatenate([[0], np.cumsum(counts)]))
        self._below = np.concatenate([*tables, np.empty(0, np.intp)]).astype(np.int32)

    def _bucket(self, x: npt.NDArray[np.float64], features: slice) -> npt.NDArray[np.intp]:
        # Each step is monotone in x, and that alone makes the table's counts bounds. NaN becomes
        # some bucket: its rank means nothing, and nobody asks for it.
        with np.errstate(invalid="ignore", over="ignore"):
            at = x - self._low[features]
            at *= self._scale[features]
        np.fmin(at, self._last_bucket[features], out=at)
        np.fmax(at, 0, out=at)
        bucket = at.astype(np.intp)
        bucket += self._bucket_offset[features]
        return bucket

    def cells(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """The cell of each value.

        Args:
            x: (F, n), a row per feature.

        Returns:
            (F, n), counted from the feature's offset: the gap r (r reference values are smaller),
            or U + 1 + r where the value equals the reference value of rank r. Of values that are
            not finite it means nothing.

        >>> ranker = Ranker([np.array([1.0, 2.0])])
        >>> ranker.cells(np.array([[0.5, 1.0, 1.5, 2.0, 9.0]])).tolist()
        [[0, 3, 1, 4, 2]]
        """
        x = np.ascontiguousarray(x)
        bucket = self._bucket(x, slice(None))
        rank = self._below[bucket]
        bucket += 1
        unsettled = np.flatnonzero(self._below[bucket] != rank)
        if len(unsettled):
            feature, wanted = unsettled // x.shape[1], x.ravel()[unsettled]
            near = rank.ravel()[unsettled].astype(np.intp)
            found = self._values[near]
            # All of them once, then the few that are not there yet, then a search for the rest.
            near += found < wanted
            found = self._values[near]
            short = np.flatnonzero(found < wanted)
            if len(short):
                at, sought = near[short], wanted[short]
                for _ in range(_FEW):
                    at += self._values[at] < sought
                near[short] = at
                found[short] = self._values[at]
                short = short[found[short] < sought]
                for f in np.unique(feature[short]).tolist():
                    which = short[feature[short] == f]
                    exact = np.searchsorted(self.references[f], wanted[which])
                    near[which] = self._first[f] + exact
                    found[which] = self._values[near[which]]
            near += (found == wanted) * self._to_value[feature]
            rank.ravel()[unsettled] = near
        rank += self._shift
        return rank
