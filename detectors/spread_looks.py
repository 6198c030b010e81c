"""The looks of `variance_shift` at null draws, quickly.

A window's median moves from look to look, so sums of panes do not give the distances from it. Counts
and sums per pane and bin tell between which values it lies, and so bound each look's p-value; only a
look that may be small enough is made exactly, many windows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .cells import middles_of
from .looks import Replicate, Setting, log
from .moment_looks import drawn
from .variance_shift import p_values

_FLOATS = npt.NDArray[np.float64]
_INTS = npt.NDArray[np.int64]

_BINS: Final = 64
# Panes, and values of windows, that are held at a time.
_PANES: Final = 16_000
_VALUES: Final = 60_000
# What rounding may add to a sum, for each value and as a share of the largest sum.
_ROUNDING: Final = 1e-9
_SHARE: Final = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class _Values:
    """One feature of a replicate, its values put where counts can put them.

    placed: (N,) the stream's finite values; bin_of: (N,) the bin of each; through: (panes + 1,) how many
    there are up to each pane. low, high: (bins,) the smallest and the largest of each bin.
    n_reference, mean, squares: of the reference, mean and sum of squared deviations of the
    distances from its median.
    """

    placed: _FLOATS
    bin_of: npt.NDArray[np.intp]
    through: _INTS
    low: _FLOATS
    high: _FLOATS
    n_reference: int
    mean: _FLOATS
    squares: _FLOATS

    def log_p(self, due: _INTS, begins: _INTS) -> _FLOATS:
        """(K,) of the windows of the panes after `begins` up to `due`."""
        start, n = self.through[begins], self.through[due] - self.through[begins]
        mean, squares = np.empty(len(due)), np.empty(len(due))
        for size in np.unique(n).tolist():
            rows = np.lib.stride_tricks.sliding_window_view(self.placed, size)
            same = np.flatnonzero(n == size)
            step = max(1, _VALUES // size)
            for a in range(0, len(same), step):
                at = same[a : a + step]
                mean[at], squares[at] = _distances(rows[start[at]])
        return log(p_values(self.n_reference, self.mean, self.squares, n, mean, squares)[1])


class SpreadLooks:
    """features: those that `variance_shift` tests."""

    def __init__(self, setting: Setting, features: Sequence[int]) -> None:
        self.setting, self.features = setting, list(features)

    def run(self, replicate: Replicate) -> None:
        setting, n_panes = self.setting, replicate.n_panes
        fewest = max(2, setting.min_events)
        back = max(w.panes for w in setting.looks)
        step = max(_PANES, back)
        for i in self.features:
            own = _values(replicate, i, setting.pane_events)
            if own is None:
                continue
            for a in range(0, n_panes, step):
                b = min(a + step, n_panes)
                sums = _Sums.of(own, max(0, a - back), b)
                for w, looks in enumerate(setting.looks):
                    test = setting.index["variance_shift", i, w]
                    due = looks.due(a, b)
                    begins = np.maximum(due - looks.panes, 0)
                    kept = own.through[due] - own.through[begins] >= fewest
                    due, begins = due[kept], begins[kept]
                    if not replicate.bounds and len(due):
                        kept = sums.least_log_p(due, begins) <= replicate.screen[test]
                        due, begins = due[kept], begins[kept]
                    if len(due):
                        replicate.note(due, test, own.log_p(due, begins))


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Counts (panes + 1, bins), sums of values (panes + 1, bins) and of their squares (panes + 1,) from
    pane `base` on, all 0 at first."""

    own: _Values
    base: int
    counts: _INTS
    totals: _FLOATS
    squares: _FLOATS

    @staticmethod
    def of(own: _Values, base: int, end: int) -> _Sums:
        n_panes, n_bins = end - base, len(own.low)
        a, b = own.through[base], own.through[end]
        pane = np.repeat(np.arange(n_panes), np.diff(own.through[base : end + 1]))
        code, x = pane * n_bins + own.bin_of[a:b], own.placed[a:b]

        def up_to(by_pane: npt.NDArray[Any]) -> npt.NDArray[Any]:
            by_pane = by_pane.reshape(n_panes, -1)
            return np.concatenate([np.zeros_like(by_pane[:1]), by_pane.cumsum(axis=0)])

        size = n_panes * n_bins
        return _Sums(
            own,
            base,
            up_to(np.bincount(code, minlength=size)),
            up_to(np.bincount(code, x, size)),
            up_to(np.bincount(pane, x * x, n_panes))[:, 0],
        )

    def least_log_p(self, due: _INTS, begins: _INTS) -> _FLOATS:
        """(K,) no larger than `_Values.log_p`."""
        own, due, begins = self.own, due - self.base, begins - self.base
        counts, totals = (t[due] - t[begins] for t in (self.counts, self.totals))
        through, summed = counts.cumsum(axis=1), totals.cumsum(axis=1)
        n, total, at = through[:, -1], summed[:, -1], np.arange(len(due))
        # The median lies in these bins, or between them, so from `low` to `high`.
        first = (through <= ((n - 1) // 2)[:, None]).sum(axis=1)
        last = (through <= (n // 2)[:, None]).sum(axis=1)
        low, high = own.low[first], own.high[last]
        before, behind = through[at, first] - counts[at, first], n - through[at, last]
        outside = total - summed[at, last] - (summed[at, first] - totals[at, first])
        ends = outside + np.stack([low, high]) * (before - behind)
        largest = (n - before - behind) * (high - low)
        slack = _ROUNDING * n
        least, most = ends.min(axis=0) - slack, ends.max(axis=0) + largest + slack
        nearest = np.clip(total / n, low, high)
        squares = self.squares[due] - self.squares[begins] - nearest * (2 * total - n * nearest)
        squares -= most**2 / n + slack + _SHARE * self.squares[-1]
        mean = np.where(np.abs(most / n - own.mean) > np.abs(least / n - own.mean), most, least) / n
        squares = np.maximum(squares, 0.0)
        return log(p_values(own.n_reference, own.mean, own.squares, n, mean, squares)[1])


def _values(replicate: Replicate, feature: int, pane_events: int) -> _Values | None:
    found = drawn(replicate, feature, pane_events)
    if found is None:
        return None
    reference, mean, sd, x = found
    values = np.unique(reference + 0.0)
    place = middles_of(values, mean, sd)

    def cells(x: _FLOATS) -> npt.NDArray[np.intp]:
        # Gap and value in turn.
        rank = values.searchsorted(x)
        return 2 * rank + (values[np.minimum(rank, len(values) - 1)] == x)

    finite = np.isfinite(x)
    cell = cells(x[finite])
    in_order = place[cells(reference)]
    edges = in_order[np.arange(1, _BINS) * len(in_order) // _BINS]
    bin_of = edges.searchsorted(place, "right")
    met = np.flatnonzero(np.bincount(cell, minlength=len(place)))
    low, high = np.zeros(_BINS), np.zeros(_BINS)
    low[bin_of[met[::-1]]], high[bin_of[met]] = place[met[::-1]], place[met]
    return _Values(
        place[cell],
        bin_of[cell],
        np.concatenate([[0], np.cumsum(finite.sum(axis=1))]),
        low,
        high,
        len(reference),
        *_distances(in_order[None, :]),
    )


def _distances(rows: _FLOATS) -> tuple[_FLOATS, _FLOATS]:
    """(K,) mean and sum of squared deviations of the distances of the values in each of K rows from
    the row's median; the rows are overwritten."""
    n = rows.shape[1]
    lower, upper = (n - 1) // 2, n // 2
    rows.partition(sorted({lower, upper}), axis=1)
    rows -= ((rows[:, lower] + rows[:, upper]) / 2)[:, None]
    distance = np.abs(rows, out=rows)
    mean = distance.mean(axis=1)
    distance -= mean[:, None]
    return mean, np.einsum("ij,ij->i", distance, distance)
