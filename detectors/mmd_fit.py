"""What online MMD is fitted to: bandwidth, reference window, thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .kernels import Float64, as_rows, gram, median_bandwidth, scaled, sides
from .mmd_thresholds import check, simulate_thresholds

# The Gram matrix of so many reference rows takes 576 MB while thresholds are simulated.
MAX_REFERENCE = 12_000


@dataclass(frozen=True, slots=True)
class Fitted:
    """What `OnlineMMD.fit` found; it never changes.

    reference_window: (m, d), the part of the reference that windows are compared with.
    prefill: (largest window, d), another part of it, which fills the windows when a run begins.
    centre: (d,), mean of the reference. bandwidth: σ.
    reference_term: Σ_{i≠j} k(x_i, x_j) / m(m-1) over the reference window.
    thresholds: (blocks, sizes). starts: (blocks,) the event number from which each row holds, the
    last for ever.
    """

    window_sizes: tuple[int, ...]
    ert: float
    seed: int
    n_bootstraps: int
    bandwidth: float
    centre: Float64
    reference_window: Float64
    prefill: Float64
    reference_term: float
    starts: npt.NDArray[np.int64]
    thresholds: Float64


def fit(
    reference: npt.ArrayLike,
    window_sizes: Sequence[int],
    *,
    ert: float,
    seed: int,
    n_bootstraps: int,
) -> Fitted:
    """See `OnlineMMD.fit`."""
    rows = as_rows(reference, "reference")
    if len(rows) == 0:
        raise ValueError("the reference is empty; give rows to compare with")
    sizes = _checked_sizes(window_sizes, len(rows))
    check(ert, n_bootstraps)
    rng = np.random.default_rng(seed)
    centre = rows.mean(axis=0)
    bandwidth = median_bandwidth(rows, rng)
    largest = max(sizes)
    order = rng.permutation(len(rows))
    filling, chosen = order[:largest], np.sort(order[min(2 * largest, len(rows) - largest) :])
    left, right = sides(scaled(rows, centre, bandwidth))
    kernel = gram(left.astype(np.float32), right.astype(np.float32))
    np.fill_diagonal(kernel, 0.0)
    m = len(chosen)
    inside = gram(left[chosen], right[chosen])
    np.fill_diagonal(inside, 0.0)
    starts, thresholds = simulate_thresholds(kernel, m, sizes, ert, n_bootstraps, rng)
    return Fitted(
        window_sizes=sizes,
        ert=float(ert),
        seed=seed,
        n_bootstraps=n_bootstraps,
        bandwidth=bandwidth,
        centre=centre,
        reference_window=rows[chosen],
        prefill=rows[filling],
        reference_term=float(inside.sum()) / (m * (m - 1)),
        starts=starts,
        thresholds=thresholds,
    )


def _checked_sizes(window_sizes: Sequence[int], n: int) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in window_sizes)
    if not sizes or min(sizes) < 2 or len(set(sizes)) < len(sizes):
        raise ValueError(
            f"window_sizes is {list(window_sizes)}; give different sizes of at least 2 events"
        )
    if n > MAX_REFERENCE:
        raise ValueError(
            f"the reference has {n} rows; at most {MAX_REFERENCE} are used: give a sample of it"
        )
    # The reference window is no smaller than the windows compared with it, and what fills those
    # is not in it.
    if n < 2 * max(sizes):
        raise ValueError(
            f"a window of {max(sizes)} events is too large for a reference of {n} rows, which "
            f"must be at least twice as many; the largest possible window is {n // 2}"
        )
    return sizes
