"""The permutation test of the maximum mean discrepancy (MMD) between a reference and a window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .kernels import as_rows, gram, median_bandwidth, scaled, sides

# The pooled Gram matrix of so many rows takes 800 MB.
MAX_ROWS = 10_000
# Permutations in one matrix product.
_PERMUTATIONS = 256


@dataclass(frozen=True, slots=True)
class MMDOutcome:
    """What `mmd_permutation_test` found.

    statistic: the unbiased MMD²; it may be negative.
    threshold: drift is called above it, which is where p_value ≤ alpha.
    effect: √max(MMD², 0), the distance between the two mean embeddings: 0 … √2.
    bandwidth: the σ that was used.
    """

    statistic: float
    p_value: float
    alpha: float
    threshold: float
    drifted: bool
    effect: float
    bandwidth: float
    n_reference: int
    n_test: int


def mmd_permutation_test(
    reference: npt.ArrayLike,
    window: npt.ArrayLike,
    n_permutations: int = 999,
    seed: int = 0,
    bandwidth: float | None = None,
    alpha: float = 0.05,
) -> MMDOutcome:
    """Do these vectors come from the distribution of those?

    The statistic is the unbiased MMD² with a Gaussian kernel. Its law under no change is that over
    relabellings of the pooled rows, which is exact at any sample size:
    p = (1 + #{permuted ≥ observed}) / (1 + n_permutations). Choose it for a closed window of
    vectors; `OnlineMMD` looks at every event. Costs (n_reference + n_test)² kernel values and one
    matrix product with them for 256 permutations. Misses changes much finer or coarser than σ.

    Args:
        reference: (n_reference, d). window: (n_test, d); at least 2 rows each.
        bandwidth: σ of exp(-‖x - y‖² / 2σ²). None takes the median heuristic of the pooled rows:
            it is the same for every relabelling, so that the level stays exact.

    Raises:
        ValueError: a wrong shape, a value that is not finite, all rows equal, more than 10,000
            rows, or too few permutations for `alpha`.

    Source: Gretton, Borgwardt, Rasch, Schölkopf & Smola (2012), equation 3;
    Phipson & Smyth (2010) for the p-value.

    >>> rng = np.random.default_rng(0)
    >>> old, new = rng.normal(size=(100, 4)), rng.normal(0.7, size=(50, 4))
    >>> found = mmd_permutation_test(old, new)
    >>> found.p_value, found.drifted
    (0.001, True)
    """
    old = as_rows(reference, "reference")
    new = as_rows(window, "window", old.shape[1])
    n, m = len(old), len(new)
    if min(n, m) < 2:
        raise ValueError(
            f"a reference of {n} and a window of {m} rows; the test needs at least 2 in each"
        )
    if n + m > MAX_ROWS:
        raise ValueError(
            f"reference and window have {n + m} rows; at most {MAX_ROWS} fit in memory: give a "
            "sample"
        )
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    # So many permuted values may reach the observed one while p ≤ alpha still holds.
    allowed = math.floor(alpha * (1 + n_permutations) * (1 + 1e-12)) - 1
    if allowed < 0:
        raise ValueError(
            f"{n_permutations} permutations give no p-value below {1 / (1 + n_permutations):.3g}; "
            f"alpha={alpha} needs at least {math.ceil(1 / alpha) - 1}"
        )
    rng = np.random.default_rng(seed)
    pooled = np.vstack([old, new])
    sigma = median_bandwidth(pooled, rng) if bandwidth is None else float(bandwidth)
    if not (math.isfinite(sigma) and sigma > 0.0):
        raise ValueError(f"bandwidth is {sigma}; it must be a positive number")
    kernel = gram(*sides(scaled(pooled, pooled.mean(axis=0), sigma)))
    np.fill_diagonal(kernel, 0.0)

    labels = np.zeros(n + m)
    labels[n:] = 1.0
    observed = float(_statistics(kernel, labels[:, None], m)[0])
    permuted = np.empty(n_permutations)
    for start in range(0, n_permutations, _PERMUTATIONS):
        stop = min(start + _PERMUTATIONS, n_permutations)
        columns = np.broadcast_to(labels[:, None], (n + m, stop - start))
        permuted[start:stop] = _statistics(kernel, rng.permuted(columns, axis=0), m)
    # A relabelling that swaps equal rows is a tie, whatever the order of summation made of it.
    at_least = int(np.count_nonzero(permuted >= observed - 1e-12))
    return MMDOutcome(
        statistic=observed,
        p_value=(1 + at_least) / (1 + n_permutations),
        alpha=alpha,
        threshold=float(np.sort(permuted)[n_permutations - 1 - allowed]),
        drifted=at_least <= allowed,
        effect=math.sqrt(max(observed, 0.0)),
        bandwidth=sigma,
        n_reference=n,
        n_test=m,
    )


def _statistics(
    kernel: npt.NDArray[np.float64], labels: npt.NDArray[np.float64], m: int
) -> npt.NDArray[np.float64]:
    """MMD² for each column of `labels` (rows, columns), which is 1 at m rows of the window."""
    n = len(kernel) - m
    row_sums = kernel.sum(axis=1)
    in_window = row_sums @ labels
    yy = np.einsum("ij,ij->j", labels, kernel @ labels)
    xy = in_window - yy
    xx = row_sums.sum() - 2.0 * in_window + yy
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2.0 * xy / (n * m)
