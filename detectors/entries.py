"""Sparse counts on the way into panes: from order of feature to order of pane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Entries:
    """Counts of cells, in runs: feature by feature, and in each pane by pane.

    features: (K,) the features, ascending. lengths: (K, n_panes) entries in each run.
    cells, counts: (E,) the entries, cells numbered over the whole profile.
    """

    features: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]


def by_pane(
    parts: Sequence[Entries], n_panes: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """All entries in order of (pane, feature, part): cells, counts, and where each pane ends."""
    features = np.concatenate([p.features for p in parts])
    if n_panes == 1 and bool((features[1:] >= features[:-1]).all()):
        # As it is with a pane at a time and no values that are not finite: all in order.
        cells = np.concatenate([p.cells for p in parts])
        counts = np.concatenate([p.counts for p in parts])
        return cells, counts, np.array([len(cells)])
    order = np.argsort(features, kind="stable")
    lengths = np.concatenate([p.lengths for p in parts])
    # Where each run goes: a running sum in the order wanted, looked up in the order given.
    after = np.cumsum(lengths[order].T.ravel()).reshape(n_panes, len(order))
    goes = np.empty_like(lengths)
    goes[order] = after.T
    goes -= lengths
    ends = after[:, -1]
    cells = np.empty(int(ends[-1]), np.int32)
    counts = np.empty(int(ends[-1]), np.int32)
    row = 0
    for part in parts:
        own = part.lengths.ravel()
        shift = goes[row : row + len(part.features)].ravel() - (np.cumsum(own) - own)
        to = np.arange(len(part.cells)) + np.repeat(shift, own)
        cells[to], counts[to] = part.cells, part.counts
        row += len(part.features)
    return cells, counts, ends
