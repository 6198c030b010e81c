"""Thresholds of online MMD under which streams without drift run `ert` events to their first alarm.

They are found on simulated streams, drawn from the rows of the reference. What makes that hard is
that reference windows differ: an unlucky one is further from the distribution it came from, and
alarms often; the streams still silent after a while are those of the lucky ones. So thresholds go
on falling, and the mean run time is that of the mixture, not of an average reference window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .kernels import Float32, Float64, sums_after, sums_before
from .survival import expected

# Streams still silent where thresholds change, at least: with fewer the ERT is off by over 10 %.
MIN_SILENT = 100
# Streams times ERT, at most; the work grows with it and with the largest window.
_MAX_LOOKS = 2e8
# Alarms expected in the first block of looks, at least: of fewer, what is highest is left to chance.
_FIRST_ALARMS = 3.0
# In units of the ERT: thresholds change for so long (14 % of the streams are silent then), in
# blocks no longer than this, and the last ones are tried out on that many looks more, in so many parts.
_CHANGING = 2.0
_LONGEST_BLOCK = 0.5
_TRIED = 3.0
_PARTS = 60


def check(ert: float, n_bootstraps: int) -> None:
    """Refuse what cannot be simulated.

    Raises:
        ValueError: an ERT that is no number above 1 or too long to simulate, too few streams.
    """
    if not (math.isfinite(ert) and ert > 1.0):
        raise ValueError(f"ert is {ert}; it must be a number of events above 1")
    if n_bootstraps < MIN_SILENT:
        raise ValueError(
            f"n_bootstraps is {n_bootstraps}; thresholds rest on at least {MIN_SILENT}"
        )
    if ert * n_bootstraps > _MAX_LOOKS:
        raise ValueError(
            f"{n_bootstraps} simulated streams of {ert:g} looks to their first alarm are more than "
            f"the {_MAX_LOOKS:g} looks that are simulated at most: lower n_bootstraps or ert"
        )


def simulate_thresholds(
    kernel: Float32,
    m: int,
    sizes: tuple[int, ...],
    ert: float,
    n_bootstraps: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], Float64]:
    """Event numbers (blocks,) from which thresholds (blocks, sizes) hold, the last for ever.

    In each block of looks, the streams without an alarm so far lose the share
    1 - (1 - 1/ert)^looks. The last thresholds are those for which the remaining streams run, on
    average, `ert` looks more. Every size has an equal share in the alarms.

    Args:
        kernel: (n, n) kernel values of the reference's rows, 0 on the diagonal; it is changed.
        m: rows of the reference window.
    """
    streams = Streams(kernel, m, sizes, n_bootstraps, rng)
    silent = np.arange(n_bootstraps)
    starts: list[int] = []
    found: list[Float64] = []
    stop = 0
    for start, stop in _blocks(ert, n_bootstraps):
        values = streams.highest(silent, stop - start)
        # Rounded against the whole run, so that rounding does not add up over blocks.
        survive = n_bootstraps * (1.0 - 1.0 / ert) ** stop
        alarms = max(len(silent) - round(survive), 0)
        thresholds = _at(values, _share(values, alarms))
        silent = silent[(values <= thresholds).all(axis=1)]
        starts.append(start)
        found.append(thresholds)
    starts.append(stop)
    found.append(_last(streams, silent, ert))
    return np.array(starts), np.array(found)


def _blocks(ert: float, n_bootstraps: int) -> Iterator[tuple[int, int]]:
    """(start, stop) event numbers between which thresholds stay: they fall fast at first, so each
    block has twice as many looks as the one before."""
    most = math.floor(math.log(MIN_SILENT / n_bootstraps) / math.log1p(-1.0 / ert))
    end = max(math.ceil(min(_CHANGING * ert, most)), 1)
    longest = max(1, round(_LONGEST_BLOCK * ert))
    start, length = 0, math.ceil(_FIRST_ALARMS * ert / n_bootstraps)
    while start < end:
        # What would be left over joins the block, unless it is as long.
        stop = start + length if start + 2 * length <= end else end
        yield start, stop
        start, length = stop, min(2 * length, longest)


def _share(values: npt.NDArray[np.floating], alarms: int) -> int:
    """The largest c for which no more than `alarms` rows are among any column's c highest."""
    rank = np.empty(values.shape, np.int64)
    order = np.argsort(-values, axis=0, kind="stable")
    np.put_along_axis(rank, order, np.arange(len(values))[:, None], 0)
    best = np.sort(rank.min(axis=1))
    return int(best[min(alarms, len(best) - 1)])


def _at(values: npt.NDArray[np.floating], c: int) -> Float64:
    """Per column, a threshold that its c highest values are above."""
    ranked = -np.sort(-values, axis=0)
    below = ranked[min(c, len(ranked) - 1)]
    return np.asarray(0.5 * (ranked[c - 1] + below) if c > 0 else below, np.float64)


def _last(streams: Streams, silent: npt.NDArray[np.int64], ert: float) -> Float64:
    """Thresholds under which the silent streams run `ert` looks more, averaged over all of them."""
    looks = max(1, round(_TRIED * ert / _PARTS))
    parts = np.stack([streams.highest(silent, looks) for _ in range(_PARTS)], axis=1)
    highest = parts.max(axis=1)
    ends = looks * np.arange(1.0, _PARTS + 1)

    def run_time(c: int) -> float:
        over = np.any(parts > _at(highest, c), axis=2)
        # An alarm lies anywhere in its part.
        times = np.where(over.any(axis=1), ends[over.argmax(axis=1)] - 0.5 * (looks - 1), np.inf)
        return float(expected(times[:, None], ends[-1], np.ones((1, len(times))))[0, 0])

    low, high = 1, len(silent) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if run_time(middle) >= ert else (low, middle)
    before, after = run_time(low), run_time(high)
    part = float(np.clip((before - ert) / max(before - after, 1e-9), 0.0, 1.0))
    return (1.0 - part) * _at(highest, low) + part * _at(highest, high)


class Streams:
    """Streams without drift, each with a reference window of its own, followed in step.

    As those of a detector, their windows are full before the first look. All rows are drawn from
    the reference's with replacement, so that a stream can be of any length. Two draws of the same
    row are not equal, as no two events of a continuous distribution are: their kernel value is that
    of an average pair with this row.
    """

    def __init__(
        self,
        kernel: Float32,
        m: int,
        sizes: tuple[int, ...],
        count: int,
        rng: np.random.Generator,
    ) -> None:
        n = len(kernel)
        typical = kernel.sum(axis=1, dtype=np.float64) / (n - 1)
        diagonal = 2.0 * typical - typical.mean()
        np.fill_diagonal(kernel, diagonal)
        self._kernel, self._sizes, self._rng = kernel, sizes, rng
        self._largest = largest = max(sizes)
        # Mean kernel value of each row with each stream's reference window, and that window's term.
        self._means = np.empty((count, n), np.float32)
        self._reference_term = np.empty(count)
        for first in range(0, count, 256):
            drawn = rng.integers(n, size=(min(256, count - first), m))
            counts = np.stack([np.bincount(rows, minlength=n) for rows in drawn])
            sums = counts.astype(np.float32) @ kernel
            own = np.einsum("ij,ij->i", counts, sums, dtype=np.float64) - counts @ diagonal
            self._means[first : first + len(drawn)] = sums / m
            self._reference_term[first : first + len(drawn)] = own / (m * (m - 1))
        # Per stream: its newest rows, and Σ of the kernel values of each with those after it; per
        # size too: Σ_{i<j} k(y_i, y_j) and Σ of the means over the current window.
        self._kept = rng.integers(n, size=(count, largest))
        self._later = np.empty((count, largest), np.float32)
        self._pairs, self._to_reference = np.empty((2, count, len(sizes)))
        for stream, rows in enumerate(self._kept):
            later = np.triu(kernel[rows[:, None], rows], 1)
            self._later[stream] = later.sum(axis=1)
            for k, w in enumerate(sizes):
                self._pairs[stream, k] = later[-w:, -w:].sum(dtype=np.float64)
                self._to_reference[stream, k] = self._means[stream, rows[-w:]].sum(dtype=float)
        # Statistics are made so many events ahead, and handed out as asked for.
        self._step = min(max(largest, 128), 256)
        self._ahead = np.empty((count, self._step, len(sizes)), np.float32)
        self._used = self._step
        self._rows = np.empty((self._step, n), np.float32)
        self._square = np.zeros((largest + self._step,) * 2, np.float32)
        self._after = np.triu(np.ones((self._step, self._step), np.float32), 1)

    def highest(self, which: npt.NDArray[np.int64], looks: int) -> Float32:
        """(streams, sizes) highest statistic in the next `looks` of the streams `which`. The others
        are never asked for again."""
        found = np.full((len(which), len(self._sizes)), -np.inf, np.float32)
        while looks > 0:
            if self._used == self._step:
                for stream in which:
                    self._ahead[stream] = self._next(stream)
                self._used = 0
            take = min(looks, self._step - self._used)
            ahead = self._ahead[which, self._used : self._used + take]
            np.maximum(found, ahead.max(axis=1), out=found)
            self._used += take
            looks -= take
        return found

    def _next(self, stream: int) -> Float64:
        """(events, sizes) statistics of the next events of one stream."""
        largest, step, square = self._largest, self._step, self._square
        new = self._rng.integers(len(self._kernel), size=step)
        rows = np.concatenate([self._kept[stream], new])
        # mode="clip" is what lets `take` write to `out` directly. The kept rows' values among one
        # another stay 0 there: `later` has their sums.
        self._kernel.take(new, axis=0, out=self._rows, mode="clip")
        self._rows.take(rows, axis=1, out=square[largest:], mode="clip")
        square[:largest, largest:] = square[largest:, :largest].T
        np.fill_diagonal(square, 0.0)
        later = np.concatenate([self._later[stream], np.zeros(step, np.float32)])
        means = self._means[stream].take(rows).astype(np.float64)
        statistic = np.empty((step, len(self._sizes)))
        stop = len(rows)
        for k, w in enumerate(self._sizes):
            entering = sums_before(square, largest, stop, w - 1)
            leaving = sums_after(square, largest - w, stop - w, w - 1)
            leaving += later[largest - w : stop - w]
            pairs = np.cumsum(np.subtract(entering, leaving, dtype=np.float64))
            pairs += self._pairs[stream, k]
            to_reference = np.cumsum(means[largest:] - means[largest - w : stop - w])
            to_reference += self._to_reference[stream, k]
            statistic[:, k] = pairs * (2.0 / (w * (w - 1))) - to_reference * (2.0 / w)
            self._pairs[stream, k], self._to_reference[stream, k] = pairs[-1], to_reference[-1]
        later[:largest] += square[:largest, largest:].sum(axis=1)
        later[largest:] = np.einsum("ij,ij->i", square[largest:, largest:], self._after)
        self._later[stream], self._kept[stream] = later[step:], rows[step:]
        return statistic + self._reference_term[stream]
