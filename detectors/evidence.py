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
# Prior standard deviation of the new mean of scores; the shape of the
# gamma law of reference variance / new variance, and the weight, in rows, of the reference share in the
# beta law of the new share, which both say much the same of log sd and of the share's deviations.
_SHIFT_SD: Final = 0.5
_SHAPE: Final = 4.0
_ROWS: Final = 3.0
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
    gain = _SHIFT_SD**2 * size
    of_mean = mean**2 * (size / 2 * gain / (1 + gain)) - np.log1p(gain) / 2
    half = size / tails
    seen = half * square
    of_spread = seen - (_SHAPE + half) * np.log(_SHAPE + seen)
    of_spread += special.gammaln(_SHAPE + half) + _SHAPE * math.log(_SHAPE) - math.lgamma(_SHAPE)
    # Too few say neither for nor against.
    of_mean, of_spread = (
        np.where(n >= FEWEST, np.minimum(f, LARGEST), 0.0) for f in (of_mean, of_spread)
    )
    return ON_MEAN * np.exp(of_mean), ON_SPREAD * np.exp(of_spread)


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """The Bayes factors of a class whose share moved, for the J classes of a reference.

    The share of each is taken for unknown, too: its count in n rows has a beta-binomial law, with the
    weight of the reference rows where nothing moved, and with that of 3 rows where it did.

    own, other: (2, J) parameters of the beta laws of a class and of the rest, where it moved and where
    nothing did. none: (J,) the logarithm of the beta functions' ratio before any row came.
    """

    own: _FLOATS
    other: _FLOATS
    none: _FLOATS

    @staticmethod
    def of(reference: npt.NDArray[Any]) -> Shares:
        """reference: (J,) its rows of each class; half a row is added to each (Jeffreys)."""
        own = np.asarray(reference, np.float64) + 0.5
        rows = own.sum()
        weight = np.array([[_ROWS / rows], [1.0]])
        own, other = weight * own, weight * (rows - own)
        moved, same = special.betaln(own, other)
        return Shares(own, other, moved - same)

    @staticmethod
    def joined(parts: Sequence[Shares]) -> Shares:
        """Those of several features, end to end."""
        own, other, none = zip(*((p.own, p.other, p.none) for p in parts), strict=True)
        return Shares(*(np.concatenate(x, axis=-1) for x in (own, other, none)))

    def factors(self, count: npt.NDArray[Any], n: npt.NDArray[Any]) -> _FLOATS:
        """(A, J) of counts (A, J) of each class in n (A,) rows."""
        rest = n[:, None] - count
        moved, same = (
            special.gammaln(self.own[k] + count)
            + special.gammaln(self.other[k] + rest)
            - special.gammaln(self.own[k] + self.other[k] + n[:, None])
            for k in (0, 1)
        )
        return np.exp(np.minimum(moved - same - self.none, LARGEST))

    def tables(self, largest: int) -> tuple[_FLOATS, _FLOATS, _FLOATS]:
        """u (J, N + 1), v (J, N + 1) and w (N + 1), with N = largest: the logarithm of `factors` of one
        feature is u[j, count] + v[j, n - count] - w[n]; for many counts."""
        upto = np.arange(largest + 1)

        def of(moved: _FLOATS, same: _FLOATS) -> _FLOATS:
            a, b = (special.gammaln(x[..., None] + upto) for x in (moved, same))
            a -= b
            return a - a[..., :1]

        return of(*self.own), of(*self.other), of(*(self.own[:, 0] + self.other[:, 0]))
