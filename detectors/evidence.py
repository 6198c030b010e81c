"""Bayes factors of "something moved since then" over "nothing moved", for `shiryaev_roberts`.

Each has mean 1 where nothing moved, whatever the number of values. The priors are conjugate, so all
are closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import special

_FLOATS = npt.NDArray[np.float64]
_INTS = npt.NDArray[np.int64]

# Fewer values since an onset say nothing of a mean that is taken for normal.
FEWEST: Final = 30
# How much of the prior is on a mean that moved, and on a spread that did.
ON_MEAN: Final = 0.8
ON_SPREAD: Final = 1 - ON_MEAN
# Prior standard deviation of the new mean of scores; the shape of the gamma law of reference
# variance / new variance, and the weight, in rows, of the reference share in the beta law of the new
# one, which both say much the same of log sd and of the share's deviations.
_SHIFT_SD: Final = 0.5
_SHAPE: Final = 4.0
_ROWS: Final = 3.0
# But no wider than √15, or four, standard errors: beside many values a prior as wide as that asks for
# much stronger evidence, of changes that are no more likely to be so large.
_WIDEST: Final = 15.0
# L of `of_distance`; of one direction it leads to nearly the same 15.
_NATS: Final = 5.2
# Kurtosis - 1 is taken for no less: of two values it is 0, and the mean says it all.
_FEWEST_TAILS: Final = 0.5
# e^600 is said of any larger factor, so that sums stay finite.
LARGEST: Final = 600.0
# The last few panes are all considered for an onset, then each so many times earlier than the one
# before, about eight for each tenfold: all of them told no more in simulations.
_RATIO: Final = 1.35


def ages(n_panes: int) -> _INTS:
    """How many panes back an onset may lie, of a window of so many; the same ones for any window.

    >>> ages(20).tolist()
    [1, 2, 3, 4, 5, 6, 8, 10, 13, 17]
    """
    found, age = [], 1
    while age <= n_panes:
        found.append(age)
        age = max(age + 1, int(age * _RATIO))
    return np.array(found, np.int64)


def averages(factors: _FLOATS, of_ages: _INTS) -> _FLOATS:
    """(…, A) of factors (…, A) with onsets of these ages: their averages over all onsets up to each, a
    pane between two ages having the factor of the earlier onset."""
    stands_for = np.diff(of_ages, prepend=0)
    return np.cumsum(factors * stands_for, axis=-1) / np.cumsum(stands_for)


def tails(fourth_moment: float) -> float:
    """Kurtosis - 1, the variance of the squares, of scores with mean 0 and variance 1."""
    return max(_FEWEST_TAILS, fourth_moment - 1.0)


def of_moments(
    n: npt.NDArray[Any],
    mean: _FLOATS,
    square: _FLOATS,
    m: npt.NDArray[Any] | int,
    tails: _FLOATS | float,
) -> tuple[_FLOATS, _FLOATS]:
    """Bayes factors of a moved mean and of a moved spread, each times its part of the prior.

    The mean of n scores is taken for normal, that of their squares for gamma with the reference's
    kurtosis. That the reference is a sample too is in both: n values beside m count as
    1 / (1/n + 1/m).

    Args:
        n: values since the onset. mean, square: of their scores, which have mean 0 and variance 1 in
            the reference, and of their squares. m: reference values. tails: see `tails`.
    """
    size = 1.0 / (1.0 / np.maximum(n, 1) + 1.0 / m)
    gain = np.minimum(_SHIFT_SD**2 * size, _WIDEST)
    of_mean = mean**2 * (size / 2 * gain / (1 + gain)) - np.log1p(gain) / 2
    half = size / tails
    seen = half * square
    shape = np.maximum(_SHAPE, half / _WIDEST)
    of_spread = seen - (shape + half) * np.log(shape + seen)
    of_spread += special.gammaln(shape + half) - special.gammaln(shape) + shape * np.log(shape)
    # Too few say neither for nor against.
    of_mean, of_spread = (
        np.where(n >= FEWEST, np.minimum(f, LARGEST), 0.0) for f in (of_mean, of_spread)
    )
    return ON_MEAN * np.exp(of_mean), ON_SPREAD * np.exp(of_spread)


def of_distance(
    n: npt.NDArray[Any], distance: npt.NDArray[Any], m: int, directions: int
) -> _FLOATS:
    """Bayes factors of means that moved in several directions, each by an amount of its own.

    With n' = 1/(1/n + 1/m), Hotelling's T² = n'·distance² is n'·(shift)² added up over K directions in
    units of a covariance that m rows tell; its law where nothing moved, and where shifts are normal
    with variance r/n' in each direction, are F distributions with K and m - K degrees of freedom, the
    second times 1 + r, and the factor is the ratio of their densities. r is n'/4, but no larger than
    suits evidence that is just strong enough: where T² exceeds K, its mean, by 2√(K·L) + 2·L, which it
    does with probability e⁻ᴸ (Laurent & Massart 2000), T²/K - 1 is the likeliest r.

    Args:
        n: values since the onset. distance: squared Mahalanobis distance of their mean scores from
            the reference's. m: reference rows. directions: K.
    """
    size = 1.0 / (1.0 / np.maximum(n, 1) + 1.0 / m)
    widest = 2 * (math.sqrt(directions * _NATS) + _NATS) / directions
    gain = np.minimum(_SHIFT_SD**2 * size, widest)
    squared, freedom = size * distance, m - 1
    factor = np.log1p(squared / freedom) - np.log1p(squared / (1 + gain) / freedom)
    factor = (freedom + 1) / 2 * factor - directions / 2 * np.log1p(gain)
    return np.exp(np.where(n >= FEWEST, np.minimum(factor, LARGEST), 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """The Bayes factors of a class whose share moved, for the J classes of a reference.

    The share of each is taken for unknown, too: its count in n rows has a beta-binomial law, with the
    weight of the m reference rows where nothing moved, and with that of 3 rows where it did, or of
    1 / (1/n + 1/m) / 15, if more.

    share: (J,) of the reference. rows: (J,) m; half a row is added to each class (Jeffreys).
    """

    share: _FLOATS
    rows: _FLOATS

    @staticmethod
    def of(reference: npt.NDArray[Any]) -> Shares:
        """reference: (J,) its rows of each class."""
        own = np.asarray(reference, np.float64) + 0.5
        return Shares(own / own.sum(), np.full(len(own), own.sum()))

    @staticmethod
    def joined(parts: Sequence[Shares]) -> Shares:
        """Those of several features, end to end."""
        return Shares(
            *(np.concatenate(x) for x in zip(*((p.share, p.rows) for p in parts), strict=True))
        )

    def factors(self, count: npt.NDArray[Any], n: npt.NDArray[Any]) -> _FLOATS:
        """(A, J) of counts (A, J) of each class in n (A,) rows."""
        n = n[:, None]
        moved, same = (
            special.betaln(rows * self.share + count, rows * (1 - self.share) + n - count)
            - special.betaln(rows * self.share, rows * (1 - self.share))
            for rows in (self._rows_moved(n), self.rows)
        )
        return np.exp(np.minimum(moved - same, LARGEST))

    def _rows_moved(self, n: npt.NDArray[Any]) -> _FLOATS:
        return np.maximum(_ROWS, 1 / (1 / np.maximum(n, 1) + 1 / self.rows) / _WIDEST)
