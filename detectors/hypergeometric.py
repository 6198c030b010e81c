"""Fisher's exact test of two shares, equal to scipy's, without `scipy.stats`, which takes seconds to
load: a stage that has just been restarted would be silent for so much longer."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

# Two tables are equally likely although rounding tells them apart by so much, in logarithms.
_EQUAL: Final = 1e-10


@lru_cache(maxsize=65_536)
def fisher(n_reference: int, before: int, n: int, now: int) -> float:
    """Two-sided p: `before` of n_reference rows against `now` of n.

    The probability of all tables with these margins that are no likelier than this one.

    >>> round(fisher(10, 8, 6, 1), 10)  # scipy.stats.fisher_exact([[8, 2], [1, 5]])
    0.034965035
    """
    log_weight, at = _log_weights(n_reference, before, n, now)
    return _share(log_weight, log_weight <= log_weight[at] + _EQUAL)


@lru_cache(maxsize=65_536)
def more_often(n_reference: int, before: int, n: int, now: int) -> float:
    """p of the one-sided test that `now` of n are a larger share than `before` of n_reference.

    >>> round(more_often(6, 1, 10, 8), 10)
    0.0244755245
    """
    log_weight, at = _log_weights(n_reference, before, n, now)
    return _share(log_weight, np.arange(len(log_weight)) >= at)


def _log_weights(
    n_reference: int, before: int, n: int, now: int
) -> tuple[npt.NDArray[np.float64], int]:
    """log likelihoods of the tables with these margins, up to a constant, by how many of the `n` are
    in the class, ascending; and which of them is this one.

    From table to table the ratio is a fraction of whole numbers, so nothing large cancels.
    """
    total = before + now
    first, last = max(0, total - n_reference), min(n, total)
    k = np.arange(first, last, dtype=np.float64)
    ratio = (total - k) * (n - k) / ((k + 1) * (n_reference - total + k + 1))
    return np.concatenate([[0.0], np.cumsum(np.log(ratio))]), now - first


def _share(log_weight: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_]) -> float:
    weight = np.exp(log_weight - log_weight.max())
    return min(1.0, float(weight[chosen].sum() / weight.sum()))
