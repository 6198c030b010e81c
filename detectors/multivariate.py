"""All numeric features of a reference together: how their normal scores go with each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MULTIVARIATE: Final = "(multivariate)"
"""What verdicts call the numeric features where they are tested together."""
MOST_FEATURES: Final = 500
ROWS_PER_FEATURE: Final = 5
"""Of fewer, how features go together is too uncertain for a test to rest on."""
# Mean products are kept in multiples of 2**-20, so that they are the same however they were added up.
_ONE: Final = 1 << 20
# A direction in which scores vary by less than this (a feature's own scores have variance 1): one
# feature is as good as told by the others, and what is left are ties and rounding.
_FLATTEST: Final = 1e-3

_FLOATS = npt.NDArray[np.float64]


def why_not(n_numeric: int, n_rows: int) -> str | None:
    """Why so many numeric features cannot be tested together with so many reference rows, with what
    would help; None where they can."""
    if n_numeric < 2:
        found = "no numeric feature" if n_numeric == 0 else "one numeric feature"
        return (
            f"the reference rows have {found}, and it takes two to be tested together; name more "
            "in `features`"
        )
    if n_numeric > MOST_FEATURES:
        return (
            f"{n_numeric:,} numeric features cannot be tested together: {MOST_FEATURES} can at most; "
            "name fewer"
        )
    if n_rows < ROWS_PER_FEATURE * n_numeric:
        return (
            f"{n_rows:,} reference rows are too few to test {n_numeric:,} numeric features together, "
            f"which takes {ROWS_PER_FEATURE} for each; fit on more rows"
        )
    return None


@dataclass(frozen=True, eq=False)
class Multivariate:
    """The covariance of the D numeric features' normal scores over n reference rows.

    products: (D, D) int32, mean products in multiples of 2**-20, the score of a value that is missing
    being 0, which is the mean of all.
    """

    products: npt.NDArray[np.int32]
    n: int

    @staticmethod
    def of(parts: Iterable[_FLOATS]) -> Multivariate:
        """parts: (…, D) scores of all rows, some at a time; 0 for a value that is missing."""
        products, n = np.zeros(()), 0
        for scores in parts:
            products, n = products + scores.T @ scores, n + len(scores)
        return Multivariate(np.rint(products / n * _ONE).astype(np.int32), n)

    @cached_property
    def whitening(self) -> _FLOATS:
        """(K, D) W, for which scores times Wᵀ have variance 1 and no correlation in the reference, for
        K ≤ D directions: those in which the scores hardly vary are left out."""
        variance, direction = np.linalg.eigh(self.products / _ONE)
        kept = variance > _FLATTEST
        return direction[:, kept].T / np.sqrt(variance[kept])[:, None]

    def squared_distance(self, mean: npt.NDArray[Any]) -> _FLOATS:
        """(…) squared Mahalanobis distance from the reference's mean of mean scores (…, D)."""
        return np.square(mean @ self.whitening.T).sum(axis=-1)
