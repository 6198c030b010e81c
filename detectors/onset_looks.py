"""The looks of `shiryaev_roberts` at null draws of numeric features, quickly: it needs sums of panes,
and what has been since an onset of some age is the same for windows of all sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .evidence import ages, averages, of_distance, of_moments, tails
from .looks import CHUNK, Replicate, Setting
from .moment_looks import can_be_fitted, through
from .multivariate import Multivariate
from .numeric import ONE
from .resample import Rows
from .scores import Scores

_FLOATS = npt.NDArray[np.float64]
_INTS = npt.NDArray[np.int64]


class OnsetLooks:
    """features: the numeric ones that `shiryaev_roberts` tests, and what follows the last feature for
    all of them together."""

    def __init__(self, setting: Setting, features: Sequence[int]) -> None:
        self.setting, self.features = setting, features
        last = len(setting.profile.features)
        self.together, self.alone = last in features, frozenset(features) - {last}
        # A coarser grain leaves too few rows to tell how features go together as well as live.
        self.covariance = None
        if self.together and setting.grain > 1:
            self.covariance = Multivariate.of([_all_scores(setting.rows)])

    def run(self, replicate: Replicate) -> None:
        setting, profile = self.setting, self.setting.profile
        of_ages = ages(min(replicate.n_panes, max(w.panes for w in setting.looks)))
        made: list[_Sums | None] = []
        for i in range(profile.n_numeric) if self.together else sorted(self.alone):
            made.append(sums := _sums(replicate, i, setting.pane_events))
            if sums is not None and i in self.alone:
                self._look(replicate, i, of_ages, sums)
        if self.together:
            joint = _Joint.of(replicate, made, setting.pane_events, self.covariance)
            self._look(replicate, len(profile.features), of_ages, joint)

    def _look(self, replicate: Replicate, test: int, of_ages: _INTS, sums: _Sums | _Joint) -> None:
        setting, n_panes, n = self.setting, replicate.n_panes, sums.n
        step = max(1, CHUNK // 8 // len(of_ages) // sums.width)
        fewest = max(2, setting.min_events)
        for a in range(0, n_panes, step):
            ends = np.arange(a + 1, min(a + step, n_panes) + 1)
            log_average = sums.log_averages(ends, of_ages, setting.grain)
            for w, looks in enumerate(setting.looks):
                due = looks.due(a, int(ends[-1]), early=True)
                inside = np.minimum(looks.panes, due)
                kept = n[due] - n[due - inside] >= fewest
                due, inside = due[kept], inside[kept]
                if len(due):
                    oldest = of_ages.searchsorted(inside, "right") - 1
                    log_p = np.minimum(0.0, -log_average[due - a - 1, oldest])
                    replicate.note(due, setting.index["shiryaev_roberts", test, w], log_p)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Of one feature, up to each pane: (panes + 1,), all 0 before the first.

    n: finite values; score, square: sums of their normal scores and of the squares of these, in
    multiples of 2**-20. n_reference: finite reference values; tails: kurtosis - 1 of their scores.
    """

    n: _INTS
    score: _INTS
    square: _INTS
    n_reference: int
    tails: float

    @property
    def width(self) -> int:
        """Sums of each kind."""
        return 1

    def log_averages(self, ends: _INTS, of_ages: _INTS, grain: int) -> _FLOATS:
        """(ends, A) log of the averages of factors over onsets of up to each age; of no meaning where
        that lies before the first pane.

        Factors know how many values there are. So where one stands for `grain`, there are as many
        times more, and their moments lie closer to the reference's by the root of it.
        """
        begins = np.maximum(ends[:, None] - of_ages, 0)
        n = self.n[ends][:, None] - self.n[begins]
        n = np.where(ends[:, None] < of_ages, n[-1], n)
        mean, square = (
            (t[ends][:, None] - t[begins]) / ONE / np.maximum(n, 1)
            for t in (self.score, self.square)
        )
        if (n == n[-1]).all():
            # Much of a factor depends on n alone.
            n = n[-1:]
        root = math.sqrt(grain)
        mean, square = mean / root, 1 + (square - 1) / root
        of_mean, of_spread = of_moments(
            n * grain, mean, square, self.n_reference * grain, self.tails
        )
        return np.log(averages(of_mean + of_spread, of_ages))


@dataclass(frozen=True, slots=True, eq=False)
class _Joint:
    """Of all numeric features, up to each pane: n (panes + 1,) events, and (panes + 1, K) sums of their
    normal scores along the K directions that are told apart. n_reference: rows."""

    n: _INTS
    along: _FLOATS
    n_reference: int

    @staticmethod
    def of(
        replicate: Replicate,
        made: Sequence[_Sums | None],
        pane_events: int,
        known: Multivariate | None,
    ) -> _Joint:
        """made: of each feature, None where it is constant in this draw and says nothing of the others.
        known: how they go together, None for what the drawn reference tells."""
        n_reference, n_panes = len(replicate.draw.reference), replicate.n_panes
        score = np.zeros((n_panes + 1, len(made)), np.int64)
        reference = np.zeros((n_reference, len(made)))
        for i, sums in enumerate(made):
            if sums is not None:
                score[:, i] = sums.score
                if known is None:
                    reference[:, i] = _reference_scores(replicate, i)
        known = known or Multivariate.of([reference])
        n = pane_events * np.arange(n_panes + 1)
        return _Joint(n, score / ONE @ known.whitening.T, n_reference)

    @property
    def width(self) -> int:
        return self.along.shape[1]

    def log_averages(self, ends: _INTS, of_ages: _INTS, grain: int) -> _FLOATS:
        """As `_Sums.log_averages`."""
        begins = np.maximum(ends[:, None] - of_ages, 0)
        n = self.n[ends][:, None] - self.n[begins]
        moved = (self.along[ends][:, None] - self.along[begins]) / n[:, :, None]
        # See there: where one event stands for `grain`, means lie closer by the root of it.
        distance = np.square(moved).sum(axis=2) / grain
        factors = of_distance(n * grain, distance, self.n_reference * grain, self.width)
        return np.log(averages(factors, of_ages))


def _sums(replicate: Replicate, feature: int, pane_events: int) -> _Sums | None:
    draw = replicate.draw
    uniform = draw.uniform(feature)[: len(draw.reference)]
    if not can_be_fitted(draw.rows.numeric[feature].moved_values(draw.reference, uniform)):
        return None
    places = draw.places(feature)
    reference, finite = places.reference, places.finite
    # Twice a rank, for ties by half.
    place = places.below + places.through
    ranks = np.arange(2 * len(reference) + 1) / 2
    equal = reference.searchsorted(reference) + reference.searchsorted(reference, "right")
    scores = Scores.at(ranks, np.bincount(equal, minlength=len(ranks)))
    score, square = (
        np.where(finite, scores.cells[:, k][place], 0).reshape(-1, pane_events).sum(axis=1)
        for k in (0, 1)
    )
    return _Sums(
        through(finite.reshape(-1, pane_events).sum(axis=1)),
        through(score),
        through(square),
        len(reference),
        tails(scores.fourth),
    )


def _reference_scores(replicate: Replicate, feature: int) -> _FLOATS:
    """(n_reference,) normal scores of the drawn reference's own rows, 0 without a finite value."""
    draw = replicate.draw
    uniform = draw.uniform(feature)[: len(draw.reference)]
    return _own_scores(draw.rows.numeric[feature].moved_ranks(draw.reference, uniform))


def _all_scores(rows: Rows) -> _FLOATS:
    """(N, D) normal scores of the reference rows themselves."""
    return np.stack([_own_scores(f.rank) for f in rows.numeric], axis=1)


def _own_scores(ranks: _FLOATS) -> _FLOATS:
    """Of values with these ranks among themselves, NaN for none."""
    found, finite = np.zeros(len(ranks)), ~np.isnan(ranks)
    distinct, place, count = np.unique(ranks[finite], return_inverse=True, return_counts=True)
    if len(distinct) > 1:
        scores = Scores.at(np.cumsum(count) - count / 2, count)
        found[finite] = scores.cells[place, 0] / ONE
    return found
