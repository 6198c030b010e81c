"""p-values of the two-sample Kolmogorov–Smirnov statistic, vectorised, equal to scipy's.

scipy evaluates the limit law one value at a time in Python; a monitor needs it for every feature
and window at every hop. The two regimes in which nearly all values fall are computed here on whole
arrays. `scipy.stats` itself takes seconds to load, which a stage that has just been restarted would
add to its silence: it is asked for exact p-values of small samples only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import special

# Below this product of sample sizes the p-value is the exact one (its cost is the product).
EXACT_LIMIT = 1_000_000


def kolmogorov_sf(
    n: npt.NDArray[np.float64], d: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """P(D_n ≥ d) for the one-sample statistic of n values; what scipy's `kstwo.sf(d, n)` gives.

    Args:
        n: (k,) whole numbers ≥ 1. d: (k,) distances in [0, 1].

    Which method serves where follows Simard & L'Ecuyer (2011), "Computing the two-sided
    Kolmogorov–Smirnov distribution", J. Stat. Software 39(11): for n > 140, twice the one-sided
    tail (Miller) where n·d² ≥ 2.2, and the expansion of Pelz & Good (1976) between there and
    n·d^1.5 = 1.4; elsewhere Marsaglia, Tsang & Wang's matrix (2003), and for n ≤ 140 beyond n·d² = 4
    the one-sided tail again.

    >>> kolmogorov_sf(np.array([500.0]), np.array([0.05])).round(6)
    array([0.158663])
    """
    p = np.empty(len(d))
    scaled = n * d * d
    tail = (n > 140) & (scaled >= 2.2) & (d < 0.5)
    body = (n > 140) & (scaled < 2.2) & (d > 0) & ((n > 100_000) | (n * d**1.5 > 1.4))
    for i in np.flatnonzero(tail).tolist():
        p[i] = 0.0 if scaled[i] >= 370.0 else min(2.0 * smirnov_sf(int(n[i]), float(d[i])), 1.0)
    if body.any():
        p[body] = _pelz_good_sf(n[body], d[body])
    for i in np.flatnonzero(~(tail | body)).tolist():
        p[i] = _other_sf(int(n[i]), float(d[i]))
    return p


@lru_cache(maxsize=65_536)
def _other_sf(n: int, d: float) -> float:
    """Where neither of the two regimes of arrays holds: small n, and the two ends."""
    scaled = n * d * d
    if n * d <= 0.5:
        return 1.0  # no sample is closer to its law
    if d >= 1 or scaled >= 370:
        return 0.0
    if n * d >= n - 1:
        return 2.0 * (1.0 - d) ** n  # all values beyond one end
    if scaled > (4.0 if n <= 140 else 2.2):
        return min(2.0 * float(special.smirnov(n, d)), 1.0)
    return _durbin_sf(n, d)


def _durbin_sf(n: int, d: float) -> float:
    """1 - n!/n^n times the middle entry of H^n, H of order 2⌈nd⌉ - 1: exact up to rounding.

    Source: Durbin (1973) for the matrix; Marsaglia, Tsang & Wang (2003), "Evaluating Kolmogorov's
    distribution", J. Stat. Software 8(18), for its power.

    >>> round(_durbin_sf(10, 0.274), 10)  # their example: P(D < 0.274) = 0.6284796154565
    0.3715203845
    """
    k = math.ceil(n * d)
    h, order = k - n * d, 2 * k - 1
    row, column = np.indices((order, order))
    step = row - column + 1
    matrix = np.where(step < 0, 0.0, 1.0)
    powers = h ** np.arange(1, order + 1)
    matrix[:, 0] -= powers
    matrix[-1, :] -= powers[::-1]
    matrix[-1, 0] += max(2 * h - 1, 0.0) ** order
    matrix /= np.exp(special.gammaln(np.maximum(step, 0) + 1.0))
    # By squares; what would leave the range of floats is kept apart as a logarithm.
    power, log_scale = np.eye(order), 0.0
    square, log_square = matrix, 0.0
    left = n
    while left:
        if left & 1:
            power, log_scale = power @ square, log_scale + log_square
            largest = float(np.abs(power).max())
            power, log_scale = power / largest, log_scale + math.log(largest)
        left >>= 1
        if left:
            square, log_square = square @ square, 2 * log_square
            largest = float(np.abs(square).max())
            square, log_square = square / largest, log_square + math.log(largest)
    middle = float(power[k - 1, k - 1])
    if middle <= 0:
        return 1.0
    factorials = math.fsum(np.log(np.arange(1, n + 1) / n).tolist())
    return 1.0 - min(math.exp(math.log(middle) + log_scale + factorials), 1.0)


# Terms the sum below is thinned to, where thinning is safe.
_TERMS = 600

# Above this n scipy takes a limit formula, off by up to 1e-2 relative at p < 1e-150; being equal to
# scipy is worth more to a reader than those digits.
_SCIPY_SUMS = 1_000_000


def smirnov_sf(n: int, d: float) -> float:
    """P(D_n+ ≥ d), the one-sided tail, by Smirnov's finite sum (Birnbaum & Tingey 1951).

        d · Σ_j C(n, j) a^(j-1) (1-a)^(n-j),   a = d + j/n,   j = 0 … ⌊n(1 - d)⌋

    scipy's `special.smirnov` sums it in doubled precision, which takes milliseconds for n in the
    thousands. Here each term is written as Loader (2000) writes binomial probabilities, with the
    deviance n·KL(j/n ‖ a) and Stirling's error instead of logarithms of factorials, so that nothing
    large cancels. The terms are a smooth bump over j, negligible at both ends (by
    exp(-n·d·(1-2d)) against the sum), and on such a function the trapezoidal rule converges
    geometrically (Trefethen & Weideman 2014): for large n every s-th term, times s, is the sum.

    >>> bool(abs(smirnov_sf(5000, 0.03) / special.smirnov(5000, 0.03) - 1) < 1e-11)
    True
    """
    if n > _SCIPY_SUMS:
        return float(special.smirnov(n, d))
    step = max(1, n // _TERMS) if n * d * (1 - 2 * d) >= 40 else 1
    u, log_scale = _stirling(n, step)
    last = int(np.searchsorted(u, 1.0 - d, "left"))
    u = u[:last]
    a = d + u
    deviance = u * np.log1p(d / u) + (1 - u) * np.log1p(-d / (1 - u))
    terms = np.exp(log_scale[:last] + n * deviance) / a
    # j = 0 has no Stirling form, and is all there is of the end that thinning may not skip.
    first = math.exp(n * math.log1p(-d)) if step == 1 else 0.0
    return float(d * step * terms.sum()) + first


@lru_cache(maxsize=256)
def _stirling(n: int, step: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """u = j/n for j = step, 2·step, … < n, and the part of log C(n, j)·… that d does not enter."""
    j = np.arange(step, n, step, dtype=np.float64)
    log_scale = (
        _stirling_error(np.array([float(n)]))
        - _stirling_error(j)
        - _stirling_error(n - j)
        - 0.5 * np.log(2 * np.pi * j * (1 - j / n))
    )
    return j / n, log_scale


def _stirling_error(n: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """log n! - log(√(2πn) (n/e)^n)."""
    small = n < 16
    m = np.where(small, n, 1.0)
    direct = special.gammaln(m + 1) - (m + 0.5) * np.log(m) + m - 0.5 * np.log(2 * np.pi)
    inverse = 1 / n**2
    series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / n
    return np.where(small, direct, series)


# What is left out is below a float's resolution (Pelz & Good): 16 z / π, and z² < 2.2 here.
_PELZ_GOOD_TERMS = math.ceil(16 * math.sqrt(2.2) / math.pi)


def _pelz_good_sf(
    n: npt.NDArray[np.float64], d: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """1 - (K0 + K1/√n + K2/n + K3/n^1.5), the four theta-like series of Pelz & Good, eq. 2–5."""
    z = np.sqrt(n) * d
    z2 = z * z
    z4, z6, z8 = z2 * z2, z2 * z2 * z2, z2 * z2 * z2 * z2
    terms = np.arange(1, _PELZ_GOOD_TERMS + 1)[:, None]
    # Half-integers m/2 times π for the main sums, integers times π for the two others.
    h = (np.pi * (2 * terms - 1) / 2) ** 2
    g = (np.pi * terms) ** 2
    at_h = np.exp(-h / (2 * z2))
    at_g = np.exp(-g / (2 * z2))
    k0 = _sum(at_h) / z
    k1 = _sum((h - z2) * at_h) / (6 * z4)
    k2 = _sum((6 * z6 + 2 * z4 + (2 * z4 - 5 * z2) * h + (1 - 2 * z2) * h * h) * at_h) / (
        72 * z6 * z
    ) - _sum(g * at_g) / (36 * z2 * z)
    k3 = _sum(
        (
            -30 * z6
            - 90 * z8
            + (135 * z4 - 96 * z6) * h
            + (212 * z4 - 60 * z2) * h * h
            + (5 - 30 * z2) * h * h * h
        )
        * at_h
    ) / (6480 * z8 * z2) + _sum((3 * z2 - g) * g * at_g) / (216 * z6)
    root = np.sqrt(n)
    cdf = np.sqrt(2 * np.pi) * (k0 + k1 / root + k2 / n + k3 / (n * root))
    return np.clip(1.0 - cdf, 0.0, 1.0)


def _sum(terms: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Each column's sum, term by term: numpy's own order depends on how many columns there are, and
    a p-value must not depend on which others are computed with it."""
    return np.cumsum(terms, axis=0)[-1]


def _exact_sf(n_reference: int, n_test: int, numerator: int) -> tuple[float, bool]:
    """P(D ≥ numerator / (n_reference·n_test)) over all orderings of the two samples.

    Returns:
        the p-value, and whether it is the exact one: scipy falls back to the limit law where the
        exact computation overflows.

    The probability depends on the samples through their sizes and D alone, so scipy is given two
    small-integer samples that have them: it does the counting.
    """
    from scipy import stats

    # i of the reference and j of the test values at 0, the others at 1.
    i, j = _split(n_reference, n_test, numerator)
    reference = np.repeat([0, 1], [i, n_reference - i])
    test = np.repeat([0, 1], [j, n_test - j])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            result = stats.ks_2samp(reference, test, method="exact")
            return float(result.pvalue), True
        except RuntimeWarning:
            warnings.simplefilter("ignore", RuntimeWarning)
            return float(stats.ks_2samp(reference, test, method="asymp").pvalue), False


def _split(n_reference: int, n_test: int, numerator: int) -> tuple[int, int]:
    """(i, j) with |i·n_test - j·n_reference| = numerator, 0 ≤ i ≤ n_reference, 0 ≤ j ≤ n_test."""
    for j in range(n_test + 1):
        for signed in (numerator, -numerator):
            i, rest = divmod(signed + j * n_reference, n_test)
            if rest == 0 and 0 <= i <= n_reference:
                return i, j
    raise ValueError(
        f"no two samples of {n_reference} and {n_test} values are {numerator} / "
        f"{n_reference * n_test} apart"
    )


class _Memo:
    """p-values met before. Between windows of equal size D moves on a coarse grid, so a quiet
    stream meets the same few values again and again. Bounded: emptied when full."""

    limit = 200_000

    def __init__(self) -> None:
        self.known: dict[tuple[int, int, int], tuple[float, bool]] = {}


_memo = _Memo()


def two_sample_p_values(
    n_reference: npt.NDArray[np.int64],
    n_test: npt.NDArray[np.int64],
    numerator: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """p-values of D = numerator / (n_reference·n_test), and which of them are exact.

    Equal to `scipy.stats.ks_2samp(…, method=m).pvalue`, m being "exact" while the product of the
    sizes is at most 1,000,000, else "asymp". All arguments (k,) integers.
    """
    keys = zip(n_reference.tolist(), n_test.tolist(), numerator.tolist(), strict=True)
    found = p_values_of(list(keys))
    return np.array([p for p, _ in found], np.float64), np.array([e for _, e in found], np.bool_)


def p_values_of(keys: Sequence[tuple[int, int, int]]) -> list[tuple[float, bool]]:
    """The same for (n_reference, n_test, numerator): each one's p-value, and whether it is exact."""
    known = _memo.known
    found = [known.get(key) for key in keys]
    if None not in found:
        return cast("list[tuple[float, bool]]", found)
    new = [key for key in dict.fromkeys(keys) if key not in known]
    if len(known) + len(new) > _Memo.limit:
        known.clear()
        new = list(dict.fromkeys(keys))
    limit_law = [key for key in new if key[0] * key[1] > EXACT_LIMIT]
    if limit_law:
        r, t, d = np.array(limit_law, np.float64).T
        # The order of these operations is scipy's, so that the rounding is too.
        effective = np.round(np.maximum(r, t) * np.minimum(r, t) / (r + t))
        for key, p in zip(limit_law, kolmogorov_sf(effective, d / (r * t)), strict=True):
            known[key] = (float(p), False)
    for key in new:
        if key[0] * key[1] <= EXACT_LIMIT:
            known[key] = _exact_sf(*key)
    return [known[key] for key in keys]
