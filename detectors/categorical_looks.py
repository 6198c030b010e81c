"""The looks of `chi_squared` and `shiryaev_roberts` at null draws, quickly: all tables of a replicate at
once. Those of `chi_squared` are made by the live code, rare classes pooled, where the table's p-value
is small enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ..schemas.units import EventWindow
from .chi_squared import FEWEST_EXPECTED, ChiSquared, homogeneity_p
from .evidence import Shares, ages, averages
from .looks import CHUNK, FOREVER_MS, Replicate, Setting, log
from .profile import CategoricalProfile, Profile
from .windows import WindowBank

# Of each test and replicate, bounds are replaced by the p-values that decide until so large a share of
# the looks is known to be the smallest, or so many were replaced; so many at a time.
_SMALLEST: Final = 0.02
_MOST_DECIDED: Final = 200
_AT_ONCE: Final = 20


class CategoricalLooks:
    """tables, onsets: the features that `chi_squared` and `shiryaev_roberts` test."""

    def __init__(self, setting: Setting, tables: Sequence[int], onsets: Sequence[int]) -> None:
        self.setting, self.tables, self.onsets = setting, tables, onsets
        self.features = sorted({*tables, *onsets})
        codes = [g.code for g in setting.rows.categorical]
        sizes_c = [len(g.categories) + 1 for g in setting.rows.categorical]
        self.class_ends = np.cumsum(sizes_c, dtype=np.int64)
        self.class_starts = self.class_ends - np.array(sizes_c, np.int64)
        shifted = [c + s for c, s in zip(codes, self.class_starts.tolist(), strict=True)]
        self.classes = np.array(shifted, np.int32).reshape(-1, setting.rows.n).T

    def run(self, replicate: Replicate) -> None:
        setting, n_panes, draw = self.setting, replicate.n_panes, replicate.draw
        pe = setting.pane_events
        size = int(self.class_ends[-1])
        reference = np.bincount(self.classes[draw.reference].ravel(), minlength=size)
        through = np.zeros((n_panes + 1, size), np.int32)
        step = max(1, CHUNK // max(size, pe * self.classes.shape[1]))
        for a in range(0, n_panes, step):
            b = min(a + step, n_panes)
            code = self.classes[draw.stream[a * pe : b * pe]].reshape(b - a, -1)
            code = code + (np.arange(b - a) * size)[:, None]
            through[a + 1 : b + 1] = np.bincount(code.ravel(), minlength=(b - a) * size).reshape(
                b - a, size
            )
        np.cumsum(through, axis=0, out=through)
        if self.tables:
            self._tables(replicate, through, reference)
        for i in self.onsets:
            own = self._own(i)
            self._onsets(replicate, i, *fold(through[:, own], reference[own]))

    @property
    def onset_classes(self) -> int:
        owns = [self._own(i) for i in self.onsets]
        return sum(own.stop - own.start for own in owns)

    def _own(self, feature: int) -> slice:
        j = feature - self.setting.profile.n_numeric
        return slice(int(self.class_starts[j]), int(self.class_ends[j]))

    def _tables(
        self, replicate: Replicate, through: npt.NDArray[np.int32], reference: npt.NDArray[np.int64]
    ) -> None:
        setting, n_panes = self.setting, replicate.n_panes
        replica = self._replica(reference)
        for w, looks in enumerate(setting.looks):
            due = looks.due(0, n_panes)
            if not len(due):
                continue
            inside = through[due] - through[np.maximum(due - looks.panes, 0)]
            for i in self.tables:
                own = self._own(i)
                observed, known = fold(inside[:, own], reference[own])
                log_p = log(homogeneity_p(known, observed))
                test = setting.index["chi_squared", i, w]
                n = observed.sum(axis=1)
                log_p[n < setting.min_events] = 0.0
                j = i - setting.profile.n_numeric
                if replicate.bounds:
                    _decide(replica, j, inside[:, own], log_p, _has_rare(known, observed))
                    replicate.found.add(due, test, log_p)
                    continue
                at = np.flatnonzero(log_p <= replicate.screen[test])
                # Small windows of few categories are the same tables over and over.
                rows, which = np.unique(inside[at, own], axis=0, return_inverse=True)
                exact = np.array([replica.log_p(j, row) for row in rows], np.float64)
                replicate.keep(due[at], np.full(len(at), test), exact[which.ravel()])

    def _onsets(
        self,
        replicate: Replicate,
        feature: int,
        through: npt.NDArray[np.float64],
        reference: npt.NDArray[np.float64],
    ) -> None:
        """through: (panes + 1, J) counts up to each pane. What has been since an onset of some age is
        the same for windows of all sizes."""
        setting, n_panes = self.setting, replicate.n_panes
        of_ages = ages(min(n_panes, max(w.panes for w in setting.looks)))
        shares = Shares.of(reference * setting.grain)
        count = through.astype(np.int64)
        factors = np.zeros((n_panes, len(of_ages)))
        for k, age in enumerate(of_ages.tolist()):
            since = count[age:] - count[:-age]
            n = age * setting.pane_events
            factors[age - 1 :, k] = _factors(shares, since, n, setting.grain).mean(axis=1)
        log_average = np.log(np.maximum(averages(factors, of_ages), 1e-300))
        for w, looks in enumerate(setting.looks):
            due = looks.due(0, n_panes, early=True)
            inside = np.minimum(looks.panes, due)
            due = due[inside * setting.pane_events >= setting.min_events]
            if len(due):
                oldest = of_ages.searchsorted(np.minimum(looks.panes, due), "right") - 1
                log_p = np.minimum(0.0, -log_average[due - 1, oldest])
                replicate.note(due, setting.index["shiryaev_roberts", feature, w], log_p)

    def _replica(self, reference: npt.NDArray[np.int64]) -> _Replica:
        setting = self.setting
        counts = [
            reference[a:b]
            for a, b in zip(self.class_starts.tolist(), self.class_ends.tolist(), strict=True)
        ]
        return _Replica(setting, counts)


def _factors(
    shares: Shares, count: npt.NDArray[np.int64], n: int, grain: int
) -> npt.NDArray[np.float64]:
    """`Shares.factors` of many counts (K, J), all of n rows.

    Few of them differ, so factors are computed of all between the smallest and the largest.

    Factors know how many rows there are. So where one stands for `grain`, there are as many times more,
    and their shares lie closer to the reference's by the root of it.
    """
    smallest = count.min(axis=0)
    span = int((count.max(axis=0) - smallest).max()) + 1
    expected = n * shares.share
    moved = grain * expected + math.sqrt(grain) * (smallest + np.arange(span)[:, None] - expected)
    factors = shares.factors(np.clip(moved, 0, grain * n), np.full(span, grain * n))
    return factors[count - smallest, np.arange(len(smallest))]


def _has_rare(
    reference: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """(looks,) whether a table has a class too rare for the limit law."""
    n, total = observed.sum(axis=1, keepdims=True), observed + reference
    smaller = np.minimum(n, reference.sum()) / np.maximum(n + reference.sum(), 1)
    return ((total > 0) & (total * smaller < FEWEST_EXPECTED)).any(axis=1)


def _decide(
    replica: _Replica,
    feature: int,
    observed: npt.NDArray[np.int32],
    log_p: npt.NDArray[np.float64],
    has_rare: npt.NDArray[np.bool_],
) -> None:
    """Put the p-values that decide in place of the smallest of `log_p`, those of the tables.

    A value of a rare class makes the one very small and the other hardly, and in small windows it is
    common: then the smallest bounds say nothing of the smallest p-values.
    """
    order = np.argsort(log_p, kind="stable")
    bounds, wanted = log_p[order], math.ceil(_SMALLEST * len(order))
    for a in range(0, min(len(order), _MOST_DECIDED), _AT_ONCE):
        for k in order[a : a + _AT_ONCE].tolist():
            if has_rare[k] and log_p[k] < 0:
                log_p[k] = replica.log_p(feature, observed[k])
        b = min(a + _AT_ONCE, len(order) - 1)
        if (log_p[order[:b]] <= bounds[b]).sum() >= wanted:
            return


class _Replica:
    """The chi-squared detector on counts of one replicate: the live decision, rare classes too."""

    def __init__(self, setting: Setting, counts: Sequence[npt.NDArray[np.int64]]) -> None:
        self.seen = [np.flatnonzero(c[:-1] > 0) for c in counts]
        features = [
            CategoricalProfile(
                f.name,
                f.kind,
                tuple(g.categories[i] for i in seen.tolist()),
                c[seen],
                int(c[-1]),
            )
            for f, g, seen, c in zip(
                setting.profile.categorical,
                setting.rows.categorical,
                self.seen,
                counts,
                strict=True,
            )
        ]
        self.profile = Profile(features, setting.n_reference)
        bank = WindowBank(self.profile, [EventWindow(1, "")], 1, FOREVER_MS)
        self.window = bank.windows[0]

    def log_p(self, feature: int, observed: npt.NDArray[np.int32]) -> float:
        seen = self.seen[feature]
        a, b = self.profile.offsets[feature : feature + 2].tolist()
        places = self.window.layout.position[a:b]
        unseen = int(observed[:-1].sum() - observed[seen].sum())
        self.window.store[places] = np.concatenate([observed[seen], [unseen, observed[-1]]])
        [[outcome]] = ChiSquared().test(self.profile, [self.window], [feature])
        assert outcome.deciding_p is not None
        return float(log(outcome.deciding_p))


def fold(
    observed: npt.NDArray[np.int32], reference: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Counts (looks, classes) with what the reference lacks as one class, missing as the last."""
    seen = reference[:-1] > 0
    unseen = observed[:, :-1][:, ~seen].sum(axis=1, keepdims=True)
    both = np.concatenate([observed[:, :-1][:, seen], unseen, observed[:, -1:]], axis=1)
    known = np.concatenate([reference[:-1][seen], [0], reference[-1:]])
    return both.astype(np.float64), known.astype(np.float64)
