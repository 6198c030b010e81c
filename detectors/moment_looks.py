"""The looks of `mean_shift` and `cusum` at null draws, quickly: both need a pane's sums and nothing
else, so all looks of a replicate are made at once, with the arithmetic of the live code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from .fitting import MIN_REFERENCE, mean_and_sd
from .looks import Looks, Replicate, Setting, log
from .numeric import FARTHEST_SD, FIXED_POINT_BITS, ONE

_FLOATS = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Of one feature, up to each pane: (panes + 1,), all 0 before the first.

    n: finite values; total, squares: of their distances from the reference mean, in reference
    standard deviations; beyond: values too far away for these; above, below: panes with such values
    on either side. by_pane: total with those that are too far. n_reference: finite reference values.
    """

    n: npt.NDArray[np.int64]
    total: npt.NDArray[np.int64]
    squares: npt.NDArray[np.int64]
    beyond: npt.NDArray[np.int64]
    above: npt.NDArray[np.int64]
    below: npt.NDArray[np.int64]
    by_pane: _FLOATS
    n_reference: int


class MomentLooks:
    """means, paths: the features that `mean_shift` and `cusum` test."""

    def __init__(self, setting: Setting, means: Sequence[int], paths: Sequence[int]) -> None:
        self.setting, self.means, self.paths = setting, list(means), list(paths)
        self.features = sorted({*means, *paths})

    def run(self, replicate: Replicate) -> None:
        for i in self.features:
            sums = _sums(replicate, i, self.setting.pane_events)
            if sums is None:
                continue
            for w, looks in enumerate(self.setting.looks):
                due = looks.due(0, replicate.n_panes)
                due = due[sums.n[due] - sums.n[np.maximum(due - looks.panes, 0)] >= self._fewest]
                if not len(due):
                    continue
                if i in self.means:
                    test = self.setting.index["mean_shift", i, w]
                    replicate.note(due, test, log(_mean_shift(sums, looks, due)))
                if i in self.paths:
                    test = self.setting.index["cusum", i, w]
                    replicate.note(due, test, log(_cusum(sums, looks, due)))

    @property
    def _fewest(self) -> int:
        return max(2, self.setting.min_events)


def drawn(
    replicate: Replicate, feature: int, pane_events: int
) -> tuple[_FLOATS, float, float, _FLOATS] | None:
    """The finite reference values, sorted, their mean and standard deviation, and the stream's values
    (panes, events of a pane); None where the replicate's reference could not be fitted, as in `fit`.
    """
    draw = replicate.draw
    f, uniform, n = draw.rows.numeric[feature], draw.uniform(feature), len(draw.reference)
    fitted = can_be_fitted(f.moved_values(draw.reference, uniform[:n]))
    if fitted is None:
        return None
    reference, mean, sd = fitted
    return reference, mean, sd, f.moved_values(draw.stream, uniform[n:]).reshape(-1, pane_events)


def can_be_fitted(values: _FLOATS) -> tuple[_FLOATS, float, float] | None:
    """The finite ones of a reference's values, sorted, their mean and standard deviation; None where it
    could not be fitted, as in `fit`."""
    finite = values[np.isfinite(values)]
    if len(finite) < MIN_REFERENCE or finite.min() == finite.max():
        return None
    # Summed in the order of the live code, whose profile is sorted.
    finite = np.sort(finite)
    mean, sd = mean_and_sd(finite)
    if not (np.isfinite(mean) and np.isfinite(sd) and sd > 0):
        return None
    return finite, mean, sd


def _sums(replicate: Replicate, feature: int, pane_events: int) -> _Sums | None:
    found = drawn(replicate, feature, pane_events)
    if found is None:
        return None
    reference, mean, sd, x = found
    finite = np.isfinite(x)
    with np.errstate(over="ignore", invalid="ignore"):
        z = (x - mean) * (1.0 / sd)
        far = finite & ~(np.abs(z) <= FARTHEST_SD)
        distance = np.rint(np.where(finite & ~far, z, 0.0) * ONE).astype(np.int64)
    above, below = (far & (z > 0)).any(axis=1), (far & (z < 0)).any(axis=1)
    total, beyond = distance.sum(axis=1), far.sum(axis=1)
    by_pane = total / ONE + FARTHEST_SD * beyond * (above.astype(int) - below)
    return _Sums(
        through(finite.sum(axis=1)),
        through(total),
        through(((distance * distance) >> FIXED_POINT_BITS).sum(axis=1)),
        through(beyond),
        through(above),
        through(below),
        np.concatenate([[0.0], np.cumsum(by_pane)]),
        len(reference),
    )


def through(by_pane: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """(panes + 1,) sums up to each pane, 0 before the first."""
    return np.concatenate([[0], np.cumsum(by_pane, dtype=np.int64)])


def _mean_shift(sums: _Sums, looks: Looks, due: npt.NDArray[np.int64]) -> _FLOATS:
    begins = np.maximum(due - looks.panes, 0)

    def inside(up_to: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return up_to[due] - up_to[begins]

    n, beyond = inside(sums.n), inside(sums.beyond)
    side = (inside(sums.above) > 0).astype(int) - (inside(sums.below) > 0)
    total = inside(sums.total) / ONE + FARTHEST_SD * beyond * side
    squares = inside(sums.squares) / ONE + FARTHEST_SD**2 * beyond
    mean = total / n
    of_window = np.maximum(0.0, (squares - n * mean * mean) / (n - 1)) / n
    of_reference = 1.0 / sums.n_reference
    error = of_window + of_reference
    degrees = error**2 / (of_window**2 / (n - 1) + of_reference**2 / (sums.n_reference - 1))
    return np.minimum(1.0, 2 * special.stdtr(degrees, -np.abs(mean / np.sqrt(error))))


def _cusum(sums: _Sums, looks: Looks, due: npt.NDArray[np.int64]) -> _FLOATS:
    begins = np.maximum(due - looks.panes, 0)
    n = sums.n[due] - sums.n[begins]
    path, back = sums.by_pane, looks.panes - 1
    views = [
        np.lib.stride_tricks.sliding_window_view(
            np.concatenate([np.full(back, edge), path[1:]]), looks.panes
        )[due - 1]
        for edge in (-np.inf, np.inf)
    ]
    start = path[begins]
    furthest = np.maximum(views[0].max(axis=1) - start, start - views[1].min(axis=1))
    return sup_wiener(furthest / np.sqrt(n) / np.sqrt(1 + n / sums.n_reference))


def sup_wiener(u: _FLOATS) -> _FLOATS:
    """`cusum.sup_wiener_sf` of an array.

    >>> sup_wiener(np.array([2.2414, 0.5])).round(4).tolist()
    [0.05, 0.9908]
    """
    by_reflection = 4 * sum((-1) ** k * special.ndtr(-(2 * k + 1) * u) for k in range(6))
    small = np.maximum(u, 1e-3)
    series = sum(
        (-1) ** k / (2 * k + 1) * np.exp(-(((2 * k + 1) * np.pi / small) ** 2) / 8)
        for k in range(4)
    )
    return np.where(u >= 1.0, by_reflection, np.clip(1 - 4 / np.pi * series, 0.0, 1.0))
