"""Normal scores: where a value lies in the reference, as a normal value would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from .cells import Cells, cells_of
from .layout import layout_of
from .numeric import FIXED_POINT_BITS, ONE
from .profile import Profile
from .windows import Kept

_INTS = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The normal score of each cell of a feature: Φ⁻¹((r + ½) / (m + 1)) for a value above r of m
    reference values, those equal to it counted by half, standardised over the reference.

    Whatever the law of the values, that of their scores is near the normal, so a mean of few of them is
    near its limit, and no wild value decides alone; for normal values they lose nothing (Chernoff &
    Savage 1958).

    cells: (2U + 1, 2) int64, score and its square in multiples of 2**-20, gap and value in turn.
    fourth: mean fourth power over the reference.
    """

    cells: _INTS
    fourth: float

    @staticmethod
    def of(through: npt.NDArray[Any]) -> Scores:
        """through: (2U + 1,) how many reference values lie in each cell or before it."""
        count = np.diff(through, prepend=0)
        return Scores.at(through - count / 2, count)

    @staticmethod
    def at(rank: npt.NDArray[Any], count: npt.NDArray[Any]) -> Scores:
        """Of C cells at ranks (C,) r, ties by half, with `count` (C,) of the reference values."""
        m = int(count.sum())
        score = special.ndtri((rank + 0.5) / (m + 1))
        score -= (count * score).sum() / m
        score /= np.sqrt((count * score**2).sum() / m)
        whole = np.rint(score * ONE).astype(np.int64)
        squares = (whole * whole) >> FIXED_POINT_BITS
        return Scores(np.stack([whole, squares], axis=1), float((count * score**4).sum() / m))


def pane_scores(profile: Profile, places: npt.NDArray[Any], counts: npt.NDArray[Any]) -> _INTS:
    """(F, 2) Σ score and Σ score² of each numeric feature's finite values, in multiples of 2**-20.

    places: of a window's store; counts: how many values are in each.
    """
    layout = layout_of(profile)
    table = profile.cached("scores", lambda: _table(profile))
    finite = places < layout.first_rest
    places, counts = places[finite], counts[finite]
    feature = layout.feature_of(places)
    # Sums of whole numbers below 2**53, so exact in any order.
    sums = [np.bincount(feature, table[places, k] * counts, profile.n_numeric) for k in range(2)]
    return np.stack(sums, axis=1).astype(np.int64)


def kept_scores(profile: Profile, pane: Kept) -> _INTS:
    """`pane_scores` of a pane that a bank keeps: made once, for all windows and looks that have it."""
    found = pane.made.get("scores")
    if found is None:
        found = pane.made["scores"] = pane_scores(profile, pane.places, pane.counts)
    return found


def scores_of(profile: Profile, index: int) -> Scores:
    """Those of a numeric feature, made once."""

    def make() -> Scores:
        cells = cells_of(profile)
        own = slice(int(cells.first[index]), int(cells.last[index]) + 1)
        return Scores.of(cells.below[own] + cells.reference[own])

    return profile.cached(("scores", index), make)


def _table(profile: Profile) -> _INTS:
    cells: Cells = cells_of(profile)
    table = np.zeros((layout_of(profile).first_rest, 2), np.int64)
    for i in range(profile.n_numeric):
        own = slice(int(cells.first[i]), int(cells.last[i]) + 1)
        table[cells.places[own]] = scores_of(profile, i).cells
    return table
