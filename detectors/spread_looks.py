"""The looks of `variance_shift` at null draws, quickly: a window's median moves from look to look, so
sums of panes do not serve; but all windows of one size are rows of one array of the stream's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from .cells import middles_of
from .looks import Looks, Replicate, Setting, log
from .moment_looks import drawn
from .variance_shift import p_values

_FLOATS = npt.NDArray[np.float64]

# Values held at a time, all windows of a chunk together: they stay in a core's own cache.
_CHUNK: Final = 60_000


class SpreadLooks:
    """features: those that `variance_shift` tests."""

    def __init__(self, setting: Setting, features: Sequence[int]) -> None:
        self.setting, self.features = setting, list(features)

    def values(self) -> float:
        """Values looked at for a pane, in all windows of all features."""
        events = sum(w.panes / w.hop for w in self.setting.looks) * self.setting.pane_events
        return len(self.features) * events

    def run(self, replicate: Replicate) -> None:
        fewest = max(2, self.setting.min_events)
        for i in self.features:
            found = drawn(replicate, i, self.setting.pane_events)
            if found is None:
                continue
            reference, mean, sd, x = found
            values = np.unique(reference + 0.0)
            place = middles_of(values, mean, sd)
            finite = np.isfinite(x)
            through = np.concatenate([[0], np.cumsum(finite.sum(axis=1))])
            placed = place[_cells(values, x[finite])]
            reference = place[_cells(values, reference)][None, :]
            of_reference = _distances(reference)
            for w, looks in enumerate(self.setting.looks):
                due = looks.due(0, replicate.n_panes)
                due = due[through[due] - through[_begins(looks, due)] >= fewest]
                if not len(due):
                    continue
                begins, n = through[_begins(looks, due)], through[due]
                n = n - begins
                own_mean, squares = np.empty(len(due)), np.empty(len(due))
                for size in np.unique(n).tolist():
                    rows = np.lib.stride_tricks.sliding_window_view(placed, size)
                    same = np.flatnonzero(n == size)
                    step = max(1, _CHUNK // size)
                    for a in range(0, len(same), step):
                        at = same[a : a + step]
                        own_mean[at], squares[at] = _distances(rows[begins[at]])
                _, p = p_values(reference.size, *of_reference, n, own_mean, squares)
                replicate.note(due, self.setting.index["variance_shift", i, w], log(p))


def _begins(looks: Looks, due: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.maximum(due - looks.panes, 0)


def _cells(values: _FLOATS, x: _FLOATS) -> npt.NDArray[np.intp]:
    """The cell of each x: gap and value in turn."""
    return values.searchsorted(x, "left") + values.searchsorted(x, "right")


def _distances(rows: _FLOATS) -> tuple[_FLOATS, _FLOATS]:
    """(K,) mean and sum of squared deviations of the distances of the values in each of K rows from
    the row's median."""
    n = rows.shape[1]
    lower, upper = (n - 1) // 2, n // 2
    parted = np.partition(rows, sorted({lower, upper}), axis=1)
    parted -= ((parted[:, lower] + parted[:, upper]) / 2)[:, None]
    distance = np.abs(parted, out=parted)
    mean = distance.mean(axis=1)
    distance -= mean[:, None]
    return mean, np.einsum("ij,ij->i", distance, distance)
