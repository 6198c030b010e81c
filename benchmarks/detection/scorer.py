"""What the peers' detectors say of every event, as scores, for many runs at once.

A scorer does a library's own arithmetic on arrays (events, runs, features): one detector per feature,
where the library's takes single numbers, and one of all features, where it takes vectors. `library`
feeds the same events to the library itself, one at a time, and `check` in `peer` compares the two.
Numpy only, beside the library asked for.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Base:
    """reads_reference: it knows no reference and is fed the rows first, as a stream. step: its scores
    are multiples of this."""

    reads_reference = False
    step = 0.0

    def fit(self, reference: Array) -> None:
        """reference: (rows, runs, features)."""

    def feed(self, x: Array) -> Array:
        """(events, runs) scores of (events, runs, features); higher is more like drift."""
        return np.zeros(x.shape[:2])

    def fork(self) -> Self:
        return copy.deepcopy(self)
