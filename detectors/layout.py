"""How a window stores its counts, so that a scan over all numeric features can skip most of them.

Numerically neighbouring cells are grouped in blocks of 16. The gaps of all features form one array
(16, n_blocks), a block per column, the values another of the same shape; what is left (values that
are not finite, categories) follows. So the sums of all blocks are 16 vector additions.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .profile import Profile

BLOCK: Final = 16


class Layout:
    """Where the cells of a profile lie in a window's store.

    position: (n_cells,) int32, place of each cell; size: of the store.
    first_block: (F_numeric,) the first block of each feature; n_blocks: (F_numeric,) how many.
    absent: (F_numeric, 4) places of the counts of missing, NaN, +inf and -inf.
    """

    def __init__(self, profile: Profile) -> None:
        sizes = np.array([len(f.values) + 1 for f in profile.numeric], np.int64)
        self.n_blocks = -(-sizes // BLOCK)
        self.first_block = np.cumsum(self.n_blocks) - self.n_blocks
        self.total_blocks = int(self.n_blocks.sum())
        half = BLOCK * self.total_blocks
        position = np.empty(profile.n_cells, np.int32)
        free = 2 * half
        for i, f in enumerate(profile.numeric):
            a, b = int(profile.offsets[i]), int(profile.offsets[i + 1])
            n = len(f.values)
            gap = self.place(np.arange(n + 1), i)
            position[a : a + n + 1] = gap
            position[a + n + 1 : a + f.n_finite_cells] = half + gap[:n]
            rest = b - a - f.n_finite_cells
            position[a + f.n_finite_cells : b] = np.arange(free, free + rest)
            free += rest
        categorical = int(profile.offsets[profile.n_numeric])
        rest = profile.n_cells - categorical
        position[categorical:] = np.arange(free, free + rest)
        self.position = position
        self.size = free + rest
        ends = profile.offsets[1 : profile.n_numeric + 1, None]
        self.absent = position[ends + np.arange(-4, 0)[None, :]]

    def place(self, index: npt.NDArray[np.int64], feature: int) -> npt.NDArray[np.int64]:
        """Place of gap (or, within the second array, value) `index` of a feature."""
        block = self.first_block[feature] + index // BLOCK
        return index % BLOCK * self.total_blocks + block

    def gaps(self, store: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """(BLOCK, n_blocks), a view."""
        return store[: BLOCK * self.total_blocks].reshape(BLOCK, -1)

    def values(self, store: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """(BLOCK, n_blocks), a view."""
        half = BLOCK * self.total_blocks
        return store[half : 2 * half].reshape(BLOCK, -1)


def layout_of(profile: Profile) -> Layout:
    """The layout of a profile, made once."""
    return profile.cached("layout", lambda: Layout(profile))
