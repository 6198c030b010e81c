"""How a window stores its counts, so that a scan over all numeric features can skip most of them.

The cells of a numeric feature lie in order of value: the gap before its first reference value, that
value, the gap after it, and so on. A run of `BLOCK` places is a block; a feature begins a block, and
what its last one has too many stays zero. What is left (values that are not finite, categories)
follows. A window keeps the sum of each block beside its counts.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .profile import Profile

BLOCK: Final = 32


class Layout:
    """Where the cells of a profile lie in a window's store.

    position: (n_cells,) int32, place of each cell; size: of the store, in whole blocks.
    first_block: (F_numeric,) the first block of each feature; n_blocks: (F_numeric,) how many;
    total_blocks: of all numeric features. feature: (total_blocks,) whose each block is.
    absent: (F_numeric, 4) places of the counts of missing, NaN, +inf and -inf. first_rest: the first
    place that holds no finite number.
    """

    def __init__(self, profile: Profile) -> None:
        sizes = np.array([2 * len(f.values) + 1 for f in profile.numeric], np.int64)
        self.n_blocks = -(-sizes // BLOCK)
        self.first_block = np.cumsum(self.n_blocks) - self.n_blocks
        self.total_blocks = int(self.n_blocks.sum())
        self.feature = np.repeat(np.arange(len(sizes)), self.n_blocks)
        position = np.empty(profile.n_cells, np.int32)
        self.first_rest = free = BLOCK * self.total_blocks
        for i, f in enumerate(profile.numeric):
            a, b = int(profile.offsets[i]), int(profile.offsets[i + 1])
            n = len(f.values)
            begin = BLOCK * int(self.first_block[i])
            position[a : a + n + 1] = begin + 2 * np.arange(n + 1)
            position[a + n + 1 : a + f.n_finite_cells] = begin + 1 + 2 * np.arange(n)
            rest = b - a - f.n_finite_cells
            position[a + f.n_finite_cells : b] = np.arange(free, free + rest)
            free += rest
        categorical = int(profile.offsets[profile.n_numeric])
        rest = profile.n_cells - categorical
        position[categorical:] = np.arange(free, free + rest)
        self.position = position
        self.size = -(-(free + rest) // BLOCK) * BLOCK
        ends = profile.offsets[1 : profile.n_numeric + 1, None]
        self.absent = position[ends + np.arange(-4, 0)[None, :]]

    def feature_of(self, places: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The numeric feature of each place before `first_rest`."""
        return self.feature[places // BLOCK]

    def blocks(self, store: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """(total_blocks, BLOCK) the counts of the numeric features in order of value, a view."""
        return store.reshape(-1, BLOCK)[: self.total_blocks]


def layout_of(profile: Profile) -> Layout:
    """The layout of a profile, made once."""
    return profile.cached("layout", lambda: Layout(profile))
