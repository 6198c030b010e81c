"""The looks of `chi_squared` at null draws, quickly: all tables of a replicate at once, and by the
live code, rare classes pooled, only where the table's p-value is small enough."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..schemas.units import EventWindow
from .chi_squared import ChiSquared, homogeneity_p
from .looks import CHUNK, FOREVER_MS, Replicate, Setting, log
from .profile import CategoricalProfile, Profile
from .windows import WindowBank


class CategoricalLooks:
    """features: those that `chi_squared` tests."""

    def __init__(self, setting: Setting, features: Sequence[int]) -> None:
        self.setting, self.features = setting, list(features)
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
        first = setting.profile.n_numeric
        replica = self._replica(reference)
        for w, looks in enumerate(setting.looks):
            due = looks.due(0, n_panes)
            if not len(due):
                continue
            inside = through[due] - through[np.maximum(due - looks.panes, 0)]
            for i in self.features:
                j = i - first
                own = slice(int(self.class_starts[j]), int(self.class_ends[j]))
                observed, known = fold(inside[:, own], reference[own])
                log_p = log(homogeneity_p(known, observed))
                test = setting.index["chi_squared", i, w]
                n = observed.sum(axis=1)
                log_p[n < setting.min_events] = 0.0
                if replicate.bounds:
                    replicate.found.add(due, test, log_p)
                    continue
                at = np.flatnonzero(log_p <= replicate.screen[test])
                exact = [replica.log_p(j, inside[k, own]) for k in at.tolist()]
                replicate.keep(due[at], np.full(len(at), test), np.array(exact, np.float64))

    def _replica(self, reference: npt.NDArray[np.int64]) -> _Replica:
        setting = self.setting
        counts = [
            reference[a:b]
            for a, b in zip(self.class_starts.tolist(), self.class_ends.tolist(), strict=True)
        ]
        return _Replica(setting, counts)


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
