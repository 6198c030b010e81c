"""Coarse bins over the cells of a profile: few enough to draw, and counted exactly.

A bin is a run of neighbouring cells, so what a pane counts per cell is what it counts per bin;
edges of numeric bins are therefore reference values.

    numeric, many values     below │ [v0, e1) [e1, e2) … [em, last] │ above  ▏ missing, not finite
    numeric, few values      a bin for each, below, above              ▏ between known, missing, …
    categorical              the commonest, then all others as one     ▏ new, missing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ...detectors.profile import (
    CATEGORICAL_EXTRA,
    MISSING,
    NUMERIC_EXTRA,
    CategoricalProfile,
    FeatureProfile,
    NumericProfile,
    Profile,
)
from ...detectors.vectors import VectorProfile

BINS: Final = 36
"""Bins of a numeric feature between its smallest and largest reference value, about."""
FEW_VALUES: Final = 40
"""So many distinct values, or fewer, are drawn one by one where each came often enough."""
KEPT_CATEGORIES: Final = 60
"""Categories counted one by one, the commonest of the reference; the others are counted as one."""
TAIL: Final = 0.005
"""Share of the reference beyond the evenly spaced edges, at either end."""
CROWDED: Final = 0.4
"""Where one bin of evenly spaced edges holds more of the reference, quantiles are the edges."""

BELOW, ABOVE = "below", "above"

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """The bins of one feature.

    labels: (B,) what each holds. n_main: the first so many lie on the axis; the rest stand apart
    (missing, not finite, new …). n_finite: the first so many hold values, whatever they are.
    edges: (n_main + 1,) borders of the main bins of a numeric feature, -inf and +inf at its ends;
    values: (n_main - 2,) of a numeric feature with few; None where there are none.
    reference: (B,) counts. of_cell: (n_cells of the feature,) the bin of each cell.
    """

    labels: tuple[str, ...]
    n_main: int
    n_finite: int
    edges: npt.NDArray[np.float64] | None
    values: npt.NDArray[np.float64] | None
    reference: Counts
    of_cell: npt.NDArray[np.int32]

    @property
    def n(self) -> int:
        return len(self.labels)


class ProfileBins:
    """The bins of all features of a profile in one flat vector of `n` counts."""

    def __init__(self, profile: Profile) -> None:
        self.features: tuple[Bins, ...] = tuple(bins_of(f) for f in profile.features)
        self.offsets = np.cumsum([0, *(b.n for b in self.features)])
        self.n = int(self.offsets[-1])
        self._of_cell = np.concatenate(
            [b.of_cell + o for b, o in zip(self.features, self.offsets[:-1], strict=True)]
        )

    def count(self, cells: npt.NDArray[np.int32], counts: npt.NDArray[np.int32]) -> Counts:
        """(n,) counts per bin, from a pane's entries."""
        binned = np.bincount(self._of_cell[cells], weights=counts, minlength=self.n)
        return binned.astype(np.int64)

    def of(self, counts: Counts, feature: int) -> Counts:
        """The part of a flat vector that belongs to a feature."""
        return counts[self.offsets[feature] : self.offsets[feature + 1]]


def bins_of(f: FeatureProfile) -> Bins:
    if isinstance(f, NumericProfile):
        return _numeric(f)
    if isinstance(f, VectorProfile):
        # Where vectors lie cannot be drawn on an axis; how many there are can.
        reference = np.array([f.n, f.missing], np.int64)
        return Bins(
            ("with a vector", "missing"), 1, 1, None, None, reference, np.arange(2, dtype="i4")
        )
    return _categorical(f)


def _numeric(f: NumericProfile) -> Bins:
    n_values = len(f.values)
    in_gap = f.through_gap - np.concatenate([[0], f.through_value])
    on_value = f.through_value - f.through_gap[:-1]
    few = n_values <= FEW_VALUES and f.n >= 5 * n_values
    # A main bin begins at a value and ends before the next such value.
    first = np.arange(n_values) if few else _first_values(f, on_value)
    n_main = len(first) + 2
    of_value = np.searchsorted(first, np.arange(n_values), side="right")
    # A gap lies in the bin of the value before it, the first gap below all of them.
    of_gap = np.concatenate([[0], of_value])
    of_gap[-1] = n_main - 1
    extra = ["missing", "not finite"]
    absent = np.array([n_main, n_main + 1, n_main + 1, n_main + 1])
    if few:
        extra.insert(0, "between known values")
        of_gap[1:-1] = n_main
        absent += 1
    assert MISSING == 0
    assert len(absent) == NUMERIC_EXTRA
    of_cell = np.concatenate([of_gap, of_value, absent]).astype(np.int32)
    per_cell = np.concatenate([in_gap, on_value, [f.missing, f.nan, f.pos_inf, f.neg_inf]])
    n_bins = n_main + len(extra)
    reference = np.bincount(of_cell, weights=per_cell, minlength=n_bins).astype(np.int64)
    starts = f.values[first]
    edges = None
    if few:
        middle = [_short(v) for v in starts]
    else:
        ends = [*starts[1:], f.values[-1]]
        middle = [f"{_short(a)} to {_short(b)}" for a, b in zip(starts, ends, strict=True)]
        edges = np.concatenate([[-np.inf], starts, [f.values[-1], np.inf]])
    low, high = _short(f.values[0]), _short(f.values[-1])
    labels = (f"{BELOW} {low}", *middle, f"{ABOVE} {high}", *extra)
    return Bins(
        labels,
        n_main,
        n_main + few,
        edges,
        f.values if few else None,
        reference,
        of_cell,
    )


def _first_values(f: NumericProfile, on_value: Counts) -> npt.NDArray[np.intp]:
    """Indices of the values at which bins begin."""
    at = np.searchsorted(f.through_value, np.array([TAIL, 1 - TAIL]) * f.n)
    low, high = f.values[np.minimum(at, len(f.values) - 1)]
    even = np.searchsorted(f.values, np.linspace(low, high, BINS + 1))
    first = np.unique(np.concatenate([[0], even[even < len(f.values)]]))
    through = np.concatenate([[0], f.through_value])
    held = through[[*first[1:], len(f.values)]] - through[first]
    # A single value that is so common fills its bin wherever the edges are.
    atoms = np.array([on_value[a:b].max() for a, b in _spans(first, len(f.values))])
    if (held - atoms).max() > CROWDED * f.n:
        quantiles = np.linspace(0, 1, BINS + 1)[:-1] * f.n
        first = np.unique(np.searchsorted(f.through_value, quantiles, side="right"))
        first = np.unique(np.concatenate([[0], first[first < len(f.values)]]))
    return first


def _spans(first: npt.NDArray[np.intp], n: int) -> list[tuple[int, int]]:
    starts = first.tolist()
    return list(zip(starts, [*starts[1:], n], strict=True))


def _categorical(f: CategoricalProfile) -> Bins:
    n = len(f.categories)
    ranked = sorted(range(n), key=lambda i: (-int(f.counts[i]), f.categories[i]))
    kept = ranked[:KEPT_CATEGORIES]
    names = [f.categories[i] for i in kept]
    if f.kind == "boolean":
        names = sorted(names)
        kept = sorted(kept, key=lambda i: f.categories[i])
    of_cell = np.zeros(n + CATEGORICAL_EXTRA, np.int32)
    if n > len(kept):
        of_cell[:n] = len(kept)
        names.append(f"{n - len(kept)} rarer ones")
    of_cell[kept] = np.arange(len(kept))
    n_main = len(names)
    of_cell[n:] = [n_main, n_main + 1]
    per_cell = [*f.counts.tolist(), 0, f.missing]
    reference = np.bincount(of_cell, weights=per_cell, minlength=n_main + 2).astype(np.int64)
    labels = (*names, "new", "missing")
    return Bins(labels, n_main, n_main + 1, None, None, reference, of_cell)


def quantiles(
    bins: Bins, counts: Counts, shares: Sequence[float], low: float, high: float
) -> list[float | None]:
    """Quantiles of a numeric feature with edges, interpolated inside bins; None without values.

    low, high: the smallest and the largest value, which bound what lies beyond the reference.
    """
    assert bins.edges is not None
    main = counts[: bins.n_main].astype(float)
    total = main.sum()
    if total == 0:
        return [None] * len(shares)
    edges = np.clip(bins.edges, low, high)
    through = np.concatenate([[0.0], np.cumsum(main)]) / total
    # Inside each bin that holds something, from its one edge to the other.
    held = np.flatnonzero(main)
    at = np.stack([through[held], through[held + 1]], axis=1).ravel()
    value = np.stack([edges[held], edges[held + 1]], axis=1).ravel()
    return [float(q) for q in np.interp(shares, at, value)]


def _short(value: float) -> str:
    return f"{value:.4g}"
