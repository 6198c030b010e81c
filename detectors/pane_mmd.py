"""Online MMD over closed panes: `OnlineMMD`'s looks, as a function of the panes alone.

`OnlineMMD` takes batches of any size, and how they are cut shows in the last bits of its
statistics. A monitor that was killed must publish the very same bytes, so here every kernel value
comes out of a product of two whole panes: which value it is to the last bit follows from those two,
not from what was in memory with them. Sums over a window begin afresh with every pane.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt

from .kernels import (
    Float32,
    Float64,
    as_rows,
    gram,
    row_means,
    scaled,
    sides,
    sums_after,
    sums_before,
)
from .mmd_fit import Fitted
from .online_mmd import Looks

# Up to this ‖z‖² float32 keeps kernel values to 1e-6; panes with rows further out take float64.
_FLOAT32_NORM: Final = 16.0


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """The rows of one pane, ready to be multiplied.

    wide: both sides in float64; narrow: in float32, None where a row is too far out for it.
    similarity: (n,) mean kernel value with the reference window.
    """

    wide: tuple[Float64, Float64]
    narrow: tuple[Float32, Float32] | None
    similarity: Float64

    def __len__(self) -> int:
        return len(self.similarity)


class PaneMMD:
    """The online test of one vector feature, moved on pane by pane.

    Its state is the panes that hold the newest events of the largest window, and how many events
    there were: a new one that is given the same panes, and that number, goes on to the same bits.
    The rows of the reference that fill the windows when a run begins count as a pane before all.

    >>> rng = np.random.default_rng(0)
    >>> from driftline.detectors import OnlineMMD
    >>> fitted = OnlineMMD.fit(rng.normal(size=(300, 4)), (50,), ert=500, seed=4).fitted
    >>> test = PaneMMD(fitted)
    >>> test.push(rng.normal(size=(100, 4))).drifted.any()
    np.False_
    >>> test.push(rng.normal(2.0, size=(10, 4))).drifted.any()
    np.True_
    """

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted
        self.largest = max(fitted.window_sizes)
        # Events gone by since the run began; thresholds change with it at first.
        self.seen = 0
        self._blocks: deque[_Block] = deque()
        reference = scaled(fitted.reference_window, fitted.centre, fitted.bandwidth)
        self._reference = sides(reference)[1]
        self._reference32 = self._reference.astype(np.float32)
        self._prefill = self._block(fitted.prefill)
        self._begin([])

    @property
    def similarity(self) -> Float64:
        """(n,) mean kernel value with the reference window of the newest pane's events and those of
        the largest window before them, oldest first."""
        known = len(self._similarity)
        return self._similarity[known - min(self.seen, known) :]

    @property
    def events(self) -> int:
        """Events of the panes that are held."""
        return sum(map(len, self._blocks))

    def forget(self, n_panes: int) -> None:
        """Leave the oldest panes, which the stream no longer keeps; a window short of events by
        that begins its run again."""
        for _ in range(n_panes):
            self._blocks.popleft()
        if self.events < min(self.seen, self.largest):
            self._begin(list(self._blocks))

    def push(self, rows: npt.ArrayLike) -> Looks:
        """The looks at each of a pane's rows (n, d), in order.

        Raises:
            ValueError: another number of features, NaN or infinity.
        """
        fitted = self.fitted
        block = self._block(as_rows(rows, "pane", fitted.reference_window.shape[1]))
        numbers = np.arange(self.seen, self.seen + len(block))
        threshold = fitted.thresholds[np.searchsorted(fitted.starts, numbers, "right") - 1]
        statistic = self._statistics(*self._take(block), len(block))
        return Looks(statistic, threshold, statistic > threshold)

    def spare(self) -> int:
        """How many of the oldest panes hold nothing of the largest window."""
        count, left = 0, self.events
        for block in self._blocks:
            if left - len(block) < self.largest:
                break
            left -= len(block)
            count += 1
        return count

    def _begin(self, blocks: list[_Block]) -> None:
        """A new run, which these are the first panes of."""
        self.seen = 0
        self._blocks.clear()
        self._kernel = _product(self._prefill, self._prefill).astype(np.float32)
        np.fill_diagonal(self._kernel, 0.0)
        self._similarity = self._prefill.similarity
        for block in blocks:
            self._take(block)

    def _take(self, block: _Block) -> tuple[Float32, Float64]:
        """Move on by a pane; the kernel values and similarities of the largest window before it and
        of its rows."""
        n, w_max = len(block), self.largest
        kernel = np.zeros((w_max + n, w_max + n), np.float32)
        kernel[:w_max, :w_max] = self._kernel
        self._blocks.append(block)
        self._fill(kernel)
        self._similarity = np.concatenate([self._similarity[-w_max:], block.similarity])
        self._kernel = kernel[n:, n:].copy()
        self.seen += n
        return kernel, self._similarity

    def _block(self, values: Float64) -> _Block:
        rows = scaled(values, self.fitted.centre, self.fitted.bandwidth)
        wide = sides(rows)
        narrow = None
        if np.einsum("ij,ij->i", rows, rows).max(initial=0.0) <= _FLOAT32_NORM:
            narrow = (wide[0].astype(np.float32), wide[1].astype(np.float32))
            similarity = row_means(gram(narrow[0], self._reference32)).astype(np.float64)
        else:
            similarity = row_means(gram(wide[0], self._reference)).astype(np.float64)
        return _Block(wide, narrow, similarity)

    def _fill(self, kernel: Float32) -> None:
        """Kernel values of the newest pane with all that the largest window still holds."""
        side, new = len(kernel), self._blocks[-1]
        n = len(new)
        end = side
        for old in chain(reversed(self._blocks), [self._prefill]):
            begin = end - len(old)
            product = _product(new, old)
            visible = max(begin, 0)
            part = product[:, visible - begin :]
            kernel[side - n :, visible:end] = part
            kernel[visible:end, side - n :] = part.T
            end = begin
            if end <= 0:
                break
        diagonal = np.arange(side - n, side)
        kernel[diagonal, diagonal] = 0.0

    def _statistics(self, kernel: Float32, similarity: Float64, n: int) -> Float64:
        """(n, sizes) unbiased MMD² of the windows that end with each of the newest n rows."""
        fitted, start = self.fitted, self.largest
        found = np.empty((n, len(fitted.window_sizes)))
        for k, w in enumerate(fitted.window_sizes):
            before = slice(start - w, start)
            pairs = 0.5 * kernel[before, before].sum(dtype=np.float64)
            means = similarity[before].sum()
            entering = sums_before(kernel, start, start + n, w - 1)
            leaving = sums_after(kernel, start - w, start + n - w, w - 1)
            pairs = pairs + np.cumsum(np.subtract(entering, leaving, dtype=np.float64))
            means = means + np.cumsum(similarity[start:] - similarity[start - w : start + n - w])
            found[:, k] = fitted.reference_term + pairs * (2.0 / (w * (w - 1))) - means * (2.0 / w)
        return found


def _product(new: _Block, old: _Block) -> npt.NDArray[np.floating]:
    if new.narrow is not None and old.narrow is not None:
        return gram(new.narrow[0], old.narrow[1])
    return gram(new.wide[0], old.wide[1])
