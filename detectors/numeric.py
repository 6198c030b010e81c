"""Summaries of the numeric features of a batch, all features in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from .entries import Entries
from .profile import NUMERIC_EXTRA, NumericProfile, Profile
from .ranks import Ranker

# A value's distance from the reference mean, in reference standard deviations, is summed as an
# integer multiple of 2**-20. Values farther than 256 sd away are counted apart: that bounds one
# square to 2**36, so an int64 holds at least 2**27 of them.
FIXED_POINT_BITS: Final = 20
ONE: Final = 1 << FIXED_POINT_BITS
FARTHEST_SD: Final = 256.0

# Columns of a pane's `sums`.
SUM, SUM_OF_SQUARES, BEYOND = 0, 1, 2

# Values worked on at a time: their intermediate arrays stay in a core's own cache.
_BLOCK: Final = 16_384


def mean_of(f: NumericProfile, sums: Sequence[int], n: int) -> float | None:
    """Mean of `n` finite values with these sums (a row of `sums`), None where none is in reach."""
    near = n - sums[BEYOND]
    if near <= 0:
        return None
    mean = f.from_sums(sums[SUM] / ONE / near)
    return round(mean, digits_of(f))


def means_of(
    profile: Profile, sums: npt.NDArray[np.int64], n: npt.NDArray[np.int64]
) -> list[float | None]:
    """`mean_of` each numeric feature; sums: (F, 3), n: (F,)."""
    table = _table(profile)
    near = n - sums[:, BEYOND]
    distance = sums[:, SUM] / ONE / np.maximum(near, 1)
    with np.errstate(over="ignore"):
        means = (table.zero + table.unit * distance).tolist()
    return [
        round(mean, digits) if k > 0 else None
        for mean, digits, k in zip(means, table.digits, near.tolist(), strict=True)
    ]


def digits_of(f: NumericProfile) -> int:
    """Decimals of a mean in the feature's unit that the fixed point's resolution can tell apart:
    more of them would say that a mean of zeros is 5e-9."""
    return 5 - math.floor(math.log10(f.sd))


class Table:
    """What the numeric features of a profile have in common; arrays are columns, (F, 1), but for
    zero and unit of the sums: (F,)."""

    def __init__(self, profile: Profile) -> None:
        numeric = profile.numeric
        offset = profile.offsets[: profile.n_numeric]
        self.ranker = Ranker([f.values for f in numeric], offset)
        self.mean = np.array([f.mean for f in numeric])[:, None]
        self.zero = np.array([f.from_sums(0.0) for f in numeric])
        self.unit = np.array([f.sd if f.unit is None else f.unit for f in numeric])
        self.digits = [digits_of(f) for f in numeric]
        with np.errstate(over="ignore"):
            self.inverse_sd = 1.0 / np.array([f.sd for f in numeric])[:, None]
        self.special = offset[:, None] + np.array([f.n_finite_cells for f in numeric])[:, None]


def _table(profile: Profile) -> Table:
    return profile.cached("numeric", lambda: Table(profile))


@dataclass(frozen=True, slots=True)
class NumericSummary:
    """entries: counts. sums: (n_panes, F, 3) int64. low, high: (n_panes, F) float64."""

    entries: Sequence[Entries]
    sums: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def summarize_numeric(
    profile: Profile,
    x: npt.NDArray[np.float64],
    nan: npt.NDArray[np.bool_] | None,
    bounds: npt.NDArray[np.intp],
) -> NumericSummary:
    """Args:
    x: (F, n) values in order of pane; their order inside each pane is changed.
    nan: which NaN among them are values rather than missing, None for none.
    bounds: (n_panes + 1,) where the panes begin, and n.
    """
    table = _table(profile)
    n_features, n = x.shape
    first = bounds[:-1]
    n_panes = len(first)
    finite = np.isfinite(x)
    all_finite = bool(finite.all())
    parts: list[Entries] = []
    features = np.arange(n_features)
    if not all_finite:
        is_nan = np.isnan(x)
        sent = np.zeros_like(is_nan) if nan is None else nan
        kinds = (is_nan & ~sent, sent, x == np.inf, x == -np.inf)
        assert len(kinds) == NUMERIC_EXTRA
        for which, mask in enumerate(kinds):
            if mask.any():
                tally = np.add.reduceat(mask, first, axis=1, dtype=np.int64)
                hit = tally > 0
                at = np.broadcast_to(table.special + which, tally.shape)[hit]
                parts.append(
                    Entries(
                        features,
                        hit.astype(np.int64),
                        at.astype(np.int32),
                        tally[hit].astype(np.int32),
                    )
                )
    # In order, equal cells become runs to be counted, and the ranking's memory accesses are local.
    edges = bounds.tolist()
    for a, b in pairwise(edges):
        x[:, a:b].sort(axis=1)
    if not all_finite:
        finite = np.isfinite(x)
    cell = np.empty((n_features, n), np.int32)
    distance = np.empty((n_features, n), np.int64)
    far = np.zeros((n_features, n_panes), np.int64)
    beyond = False
    step = max(1, _BLOCK // n_features)
    for a in range(0, n, step):
        block = x[:, a : a + step]
        cell[:, a : a + step] = table.ranker.cells(block)
        beyond |= _fixed_point(table, block, distance[:, a : a + step])
    if beyond:
        with np.errstate(over="ignore", invalid="ignore"):
            away = finite & ~(np.abs((x - table.mean) * table.inverse_sd) <= FARTHEST_SD)
        far = np.add.reduceat(away, first, axis=1, dtype=np.int64)

    if not all_finite:
        cell[~finite] = -1
    change = np.empty((n_features, n), np.bool_)
    np.not_equal(cell[:, 1:], cell[:, :-1], out=change[:, 1:])
    change[:, first] = True
    begins = np.flatnonzero(change)
    ends = np.concatenate([begins[1:], [n_features * n]])
    cells, counts = cell.ravel()[begins], (ends - begins).astype(np.int32)
    if not all_finite:
        change &= finite
        kept = cells >= 0
        cells, counts = cells[kept], counts[kept]
    lengths = np.add.reduceat(change, first, axis=1, dtype=np.int64)
    parts.insert(0, Entries(features, lengths, cells, counts))

    sums = np.empty((n_panes, n_features, 3), np.int64)
    sums[:, :, BEYOND] = far.T
    sums[:, :, SUM] = np.add.reduceat(distance, first, axis=1).T
    distance *= distance
    distance >>= FIXED_POINT_BITS
    sums[:, :, SUM_OF_SQUARES] = np.add.reduceat(distance, first, axis=1).T
    if all_finite:
        low, high = x[:, first].T, x[:, bounds[1:] - 1].T
    else:
        x[~finite] = np.nan
        low = np.fmin.reduceat(x, first, axis=1).T
        high = np.fmax.reduceat(x, first, axis=1).T
    # -0.0 and 0.0 are one value: which of them came first must not show.
    return NumericSummary(parts, sums, low + 0.0, high + 0.0)


def _fixed_point(table: Table, x: npt.NDArray[np.float64], out: npt.NDArray[np.int64]) -> bool:
    """Distances from the reference means in fixed point, 0 for what is too far away or not finite;
    whether there was any such."""
    with np.errstate(over="ignore", invalid="ignore"):
        z = (x - table.mean) * table.inverse_sd
        usable = np.abs(z) <= FARTHEST_SD  # false for NaN
    beyond = not bool(usable.all())
    if beyond:
        z[~usable] = 0.0
    z *= ONE
    np.rint(z, out=z)
    out[:] = z
    return beyond
