"""Maximum mean discrepancy (MMD), looked at with every event, with a known time to a false alarm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from .kernels import (
    Float64,
    as_rows,
    gram,
    row_means,
    scaled,
    sides,
    small_gram,
    sums_after,
    sums_before,
)
from .mmd_fit import Fitted, fit

# Up to this ‖z‖² float32 keeps kernel values to 1e-6; rows further out are done in float64.
_FLOAT32_NORM = 16.0
# Running sums are taken afresh after so many events, before their rounding adds up to 1e-7.
_RESUM_EVENTS = 4096
_FORMAT = "driftline.online_mmd.v2"


class Looks(NamedTuple):
    """Per event (row) and window size (column).

    statistic: unbiased MMD² of the window that ends with this event.
    threshold: what it is compared with. drifted: statistic > threshold.
    """

    statistic: Float64
    threshold: Float64
    drifted: npt.NDArray[np.bool_]


class OnlineMMD:
    """Do the newest vectors still come from the distribution of the reference? Asked at every event.

    The statistic is the unbiased MMD² (Gaussian kernel, median bandwidth) between a fixed part of
    the reference and the last w events, for each window size w. When a run begins, the windows are
    full of other rows of the reference, which events replace one by one; so a change is seen from
    the first event on. Choose it for embeddings and other vectors where delay counts;
    `mmd_permutation_test` is for closed windows and gives a p-value.

    `ert`, the expected run time, belongs to the whole detector: without drift, the first alarm of
    *any* size comes on average with event number `ert`; the average is over references and streams.
    Every size has an equal share in the alarms. With one size, that is the plain case of the paper.
    After an alarm the detector goes on looking, and alarms cluster; `reset` begins a new run.

    Cost per event: one kernel value per row of the reference window and up to two per event of the
    largest window, whatever the number of sizes. Memory: about 4·(w + 256)² bytes, for ever.
    Misses what a kernel of one bandwidth cannot see, and needs about w events to see slight drift.

    Source: Gretton et al. (2012), equation 3; Cobb, Van Looveren & Klaise (2022), "Sequential
    multivariate change detection with calibrated and memoryless false detection rates".

    >>> rng = np.random.default_rng(0)
    >>> detector = OnlineMMD.fit(rng.normal(size=(300, 4)), window_sizes=(50,), ert=500, seed=4)
    >>> detector.update(rng.normal(size=(100, 4))).drifted.any()
    np.False_
    >>> looks = detector.update(rng.normal(2.0, size=(10, 4)))
    >>> int(looks.drifted[:, 0].argmax())
    5
    """

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted
        self._largest = max(fitted.window_sizes)
        # Events between two moves of the buffer: more compute kernel values outside the band,
        # fewer copy more.
        self._room = min(max(self._largest, 64), 256)
        reference = scaled(fitted.reference_window, fitted.centre, fitted.bandwidth)
        self._reference = sides(reference)[1]
        self._reference32 = self._reference.astype(np.float32)
        # Filled anew by every step: memory the system hands out afresh costs more than the sums.
        self._scratch = np.empty(self._room * (self._largest + self._room), np.float32)
        self._scratch_reference = np.empty(self._room * len(reference), np.float32)
        self.reset()

    @classmethod
    def fit(
        cls,
        reference: npt.ArrayLike,
        window_sizes: Sequence[int] = (50, 200, 800),
        *,
        ert: float,
        seed: int = 0,
        n_bootstraps: int = 1_000,
    ) -> Self:
        """Take bandwidth and reference window from `reference` (n, d), and simulate thresholds.

        With w = max(window_sizes), the reference window is n - 2·w rows drawn by `seed`, and at
        least w of them; w of the others fill the windows when a run begins. The simulation follows
        `n_bootstraps` streams for about two ERTs each; its own error of the ERT falls with the root
        of their number.

        Raises:
            ValueError: a window under 2 events or over half of the reference, a size given
                twice, an ERT too long to simulate, a reference that is empty, constant, not finite,
                or over 12,000 rows.
        """
        return cls(fit(reference, window_sizes, ert=ert, seed=seed, n_bootstraps=n_bootstraps))

    def reset(self) -> None:
        """Begin a new run: windows full of the same rows, the same thresholds from their first."""
        w, d = self._largest, self.fitted.reference_window.shape[1]
        side = w + self._room
        self._seen = 0
        self._since_resum = 0
        # Position of the next event; those before it, down to position - w, are kept.
        self._position = w
        self._rows = np.zeros((side, d))
        self._norms = np.zeros(side)
        self._left32, self._right32 = np.zeros((2, side, d + 2), np.float32)
        # Kernel values of the kept events among one another, 0 on the diagonal; and the mean kernel
        # value of each with the reference window.
        self._kernel = np.zeros((side, side), np.float32)
        self._to_reference = np.zeros(side)
        # Per window size: Σ_{i<j} k(y_i, y_j) and Σ of the means, over the current window.
        self._pairs = np.zeros(len(self.fitted.window_sizes))
        self._means = np.zeros(len(self.fitted.window_sizes))
        self._place(scaled(self.fitted.prefill, self.fitted.centre, self.fitted.bandwidth), 0, w)
        for start in range(0, w, self._room):
            self._fill_kernel(0, start, min(start + self._room, w))
        self._resum()

    @property
    def bandwidth(self) -> float:
        """σ of k(x, y) = exp(-‖x - y‖² / 2σ²)."""
        return self.fitted.bandwidth

    @property
    def reference_window(self) -> Float64:
        """The rows (m, d) of the reference that windows are compared with."""
        return self.fitted.reference_window

    @property
    def seen(self) -> int:
        """Events since the start or the last `reset`."""
        return self._seen

    @property
    def window(self) -> Float64:
        """The newest events (largest window size, d), oldest first; rows of the reference where
        there were not yet so many."""
        rows = self._rows[self._position - self._largest : self._position]
        return rows * self.fitted.bandwidth + self.fitted.centre

    def update(self, batch: npt.ArrayLike) -> Looks:
        """Take events (n, d), oldest first, and test at each of them.

        How a stream is cut into batches changes statistics by rounding (under 1e-6) only.

        Raises:
            ValueError: another number of features, NaN or infinity; then nothing was taken.
        """
        events = as_rows(batch, "batch", self.fitted.reference_window.shape[1])
        count = len(events)
        statistic = np.empty((count, len(self.fitted.window_sizes)))
        first = self._seen
        done = 0
        while done < count:
            if self._position == len(self._kernel):
                self._move()
            step = min(count - done, len(self._kernel) - self._position)
            statistic[done : done + step] = self._take(events[done : done + step])
            done += step
        block = np.searchsorted(self.fitted.starts, np.arange(first, first + count), "right") - 1
        threshold = self.fitted.thresholds[block]
        return Looks(statistic, threshold, statistic > threshold)

    def _take(self, events: Float64) -> Float64:
        """Statistics (n, sizes) at events that fit into the buffer."""
        fitted = self.fitted
        start, stop = self._position, self._position + len(events)
        kept = start - self._largest + 1
        rows = scaled(events, fitted.centre, fitted.bandwidth)
        self._place(rows, start, stop)
        self._fill_kernel(kept, start, stop)

        statistic = np.empty((len(events), len(fitted.window_sizes)))
        for k, w in enumerate(fitted.window_sizes):
            entering = sums_before(self._kernel, start, stop, w - 1)
            leaving = sums_after(self._kernel, start - w, stop - w, w - 1)
            pairs = self._pairs[k] + np.cumsum(np.subtract(entering, leaving, dtype=np.float64))
            to_reference = self._to_reference
            change = to_reference[start:stop] - to_reference[start - w : stop - w]
            means = self._means[k] + np.cumsum(change)
            statistic[:, k] = (
                fitted.reference_term + pairs * (2.0 / (w * (w - 1))) - means * (2.0 / w)
            )
            self._pairs[k], self._means[k] = pairs[-1], means[-1]
        self._position = stop
        self._seen += len(events)
        self._since_resum += len(events)
        if self._since_resum >= _RESUM_EVENTS:
            self._resum()
        return statistic

    def _place(self, rows: Float64, start: int, stop: int) -> None:
        self._rows[start:stop] = rows
        self._norms[start:stop] = np.einsum("ij,ij->i", rows, rows)
        # Rows too far for float32 are not read from there.
        with np.errstate(over="ignore"):
            self._left32[start:stop], self._right32[start:stop] = sides(rows)

    def _fill_kernel(self, kept: int, start: int, stop: int) -> None:
        """Kernel values of the new events with the kept ones, themselves and the reference."""
        if self._norms[kept:stop].max() <= _FLOAT32_NORM:
            new = self._left32[start:stop]
            square = small_gram(new, self._right32[kept:stop], self._scratch)
            to_reference = small_gram(new, self._reference32, self._scratch_reference)
        else:
            left, right = sides(self._rows[kept:stop])
            square = gram(left[start - kept :], right).astype(np.float32)
            to_reference = gram(left[start - kept :], self._reference)
        self._kernel[start:stop, kept:stop] = square
        self._kernel[kept:start, start:stop] = square[:, : start - kept].T
        diagonal = np.arange(start, stop)
        self._kernel[diagonal, diagonal] = 0.0
        self._to_reference[start:stop] = row_means(to_reference)

    def _move(self) -> None:
        """Move the newest events to the front of the buffer."""
        w, end = self._largest, self._position
        self._kernel[:w, :w] = self._kernel[end - w : end, end - w : end]
        kept = (self._rows, self._norms, self._left32, self._right32, self._to_reference)
        for array in kept:
            array[:w] = array[end - w : end]
        self._position = w

    def _resum(self) -> None:
        for k, w in enumerate(self.fitted.window_sizes):
            newest = slice(self._position - w, self._position)
            self._pairs[k] = 0.5 * self._kernel[newest, newest].sum(dtype=np.float64)
            self._means[k] = self._to_reference[newest].sum()
        self._since_resum = 0

    def to_bytes(self) -> bytes:
        """Parameters and state as one safetensors file; see `from_bytes`."""
        fitted = self.fitted
        newest = slice(self._position - self._largest, self._position)
        arrays = {
            "centre": fitted.centre,
            "reference_window": fitted.reference_window,
            "prefill": fitted.prefill,
            "starts": fitted.starts,
            "thresholds": fitted.thresholds,
            "rows": self._rows[newest],
            "kernel": self._kernel[newest, newest],
            "to_reference": self._to_reference[newest],
            "pairs": self._pairs,
            "means": self._means,
        }
        values = {
            "window_sizes": fitted.window_sizes,
            "ert": fitted.ert,
            "seed": fitted.seed,
            "n_bootstraps": fitted.n_bootstraps,
            "bandwidth": fitted.bandwidth,
            "reference_term": fitted.reference_term,
            "seen": self._seen,
            "since_resum": self._since_resum,
            "position": self._position,
        }
        # One entry: safetensors writes several in any order, and equal states give equal bytes.
        return save_arrays(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            {_FORMAT: json.dumps(values)},
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The detector that `to_bytes` was called on; it goes on to the same bits.

        Raises:
            ValueError: these bytes are not from `to_bytes`.
        """
        try:
            arrays = load_arrays(data)
            length = int.from_bytes(data[:8], "little")
            metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
            values = json.loads(metadata[_FORMAT])
            detector = cls(
                Fitted(
                    window_sizes=tuple(values["window_sizes"]),
                    ert=values["ert"],
                    seed=values["seed"],
                    n_bootstraps=values["n_bootstraps"],
                    bandwidth=values["bandwidth"],
                    centre=arrays["centre"],
                    reference_window=arrays["reference_window"],
                    prefill=arrays["prefill"],
                    reference_term=values["reference_term"],
                    starts=arrays["starts"],
                    thresholds=arrays["thresholds"],
                )
            )
            detector._seen = values["seen"]
            detector._since_resum = values["since_resum"]
            detector._position = values["position"]
            newest = slice(detector._position - detector._largest, detector._position)
            detector._place(arrays["rows"], newest.start, newest.stop)
            detector._kernel[newest, newest] = arrays["kernel"]
            detector._to_reference[newest] = arrays["to_reference"]
            detector._pairs[:] = arrays["pairs"]
            detector._means[:] = arrays["means"]
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(
                f"{len(data)} bytes are not a saved OnlineMMD ({error}); give what to_bytes() "
                "returned, or fit again"
            ) from error
        return detector
