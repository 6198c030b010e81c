"""The looks of `ks` and `missing_rate` at null draws, quickly.

A bound on each p-value is computed for all looks of a replicate at once, from counts per pane and
bin; only a look that may be small enough is made exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .chi_squared import FEWEST_EXPECTED, homogeneity_p
from .hypergeometric import fisher
from .kolmogorov import two_sample_p_values
from .looks import CHUNK, Replicate, Setting, log
from .resample import Places

# Bins are so fine that the bound exceeds √n·D by at most about this: finer where many looks lie
# near the screen, and each of them would have to be made.
SLACK: Final = 0.12
COARSE_SLACK: Final = 0.3
# The bound leaves out the limit law's correction for finite samples; this much covers it.
_MARGIN: Final = 0.06


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Looks at one window: at the panes `due`, of the events between rows `begins` and `ends` of
    `through`, (panes, features, bins + 1) events up to a pane in each bin or before it; tally:
    (features, bins + 1) the reference's, in each bin."""

    window: int
    due: npt.NDArray[np.int64]
    through: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]
    tally: npt.NDArray[np.int64]


class NumericLooks:
    """ks, rate: the features that `ks` and `missing_rate` test. slack: see `SLACK`."""

    def __init__(
        self, setting: Setting, ks: Sequence[int], rate: Sequence[int], slack: float
    ) -> None:
        self.setting, self.ks, self.rate, self.slack = setting, list(ks), list(rate), slack
        events = [w.panes * setting.pane_events for w in setting.looks]
        n = setting.n_reference
        wanted = [math.sqrt(n * m / (n + m)) / self.slack if self.ks else 1 for m in events]
        sizes = [min(1024, max(32, 1 << math.ceil(math.log2(b)))) if b > 1 else 1 for b in wanted]
        self.bins = bins = max(sizes)
        self.stride = [bins // b for b in sizes]
        width = bins + 1
        table = np.empty((setting.rows.n, len(setting.rows.numeric)), np.int32)
        # Bins that hold one atom and nothing else: inside them both functions jump together.
        self.solid = np.zeros((len(setting.rows.numeric), bins), np.bool_)
        for i, f in enumerate(setting.rows.numeric):
            finite = ~np.isnan(f.rank)
            rank = f.rank[finite].astype(np.int64)
            counts = np.bincount(rank)
            middle = np.cumsum(counts) - counts / 2
            bin_of = np.minimum((bins * middle / counts.sum()).astype(np.int64), bins - 1)
            distinct = np.bincount(bin_of, minlength=bins)
            atoms = np.bincount(bin_of[counts > 1], minlength=bins)
            self.solid[i] = (distinct == atoms) & (distinct <= 1)
            column = np.full(setting.rows.n, bins)
            column[finite] = bin_of[rank]
            table[:, i] = column + i * width
        self.table = table

    def run(self, replicate: Replicate) -> None:
        setting, n_panes, draw = self.setting, replicate.n_panes, replicate.draw
        n_features, width = len(setting.rows.numeric), self.bins + 1
        tally = np.bincount(
            self.table[draw.reference].ravel(), minlength=n_features * width
        ).reshape(n_features, width)
        back = max(w.panes for w in setting.looks)
        step = max(1, CHUNK // (n_features * width))
        # Row k - base: events through pane k that are in each bin or before it.
        through = np.zeros((1, n_features, width), np.int32)
        base = 0
        places: dict[int, _Present] = {}
        for a in range(0, n_panes, step):
            b = min(a + step, n_panes)
            rows = draw.stream[a * setting.pane_events : b * setting.pane_events]
            code = self.table[rows].reshape(b - a, -1)
            code += (np.arange(b - a, dtype=np.int32) * (n_features * width))[:, None]
            counts = np.bincount(code.ravel(), minlength=(b - a) * n_features * width)
            new = counts.reshape(b - a, n_features, width).cumsum(axis=2, dtype=np.int32)
            np.cumsum(new, axis=0, out=new)
            new += through[-1]
            through = np.concatenate([through[max(0, a - base - back) :], new])
            base = b + 1 - len(through)
            for w, looks in enumerate(setting.looks):
                due = looks.due(a, b)
                if not len(due):
                    continue
                begins = np.maximum(due - looks.panes, 0) - base
                batch = _Batch(w, due, through, due - base, begins, tally)
                if self.ks:
                    self._ks(replicate, batch, places)
                if self.rate:
                    self._rate(replicate, batch)

    def _ks(self, replicate: Replicate, batch: _Batch, places: dict[int, _Present]) -> None:
        setting, w, stride = self.setting, batch.window, self.stride[batch.window]
        due, ends, begins, tally = batch.due, batch.ends, batch.begins, batch.tally
        n = tally[:, :-1].sum(axis=1)
        n_bins = self.bins // stride
        mass = tally[:, :-1].reshape(-1, n_bins, stride).sum(axis=2) / np.maximum(n, 1)[:, None]
        share = mass.cumsum(axis=1).astype(np.float32)
        solid = self.solid.reshape(-1, n_bins, stride).all(axis=2) if stride == 1 else False
        slack = np.where(solid, 0.0, mass).max(axis=1)
        thin = batch.through[:, :, stride - 1 : self.bins : stride]
        if len(due) > 1 and setting.looks[w].hop == 1 and begins[0] + len(begins) - 1 == begins[-1]:
            inside = thin[ends[0] : ends[-1] + 1] - thin[begins[0] : begins[-1] + 1]
        else:
            inside = thin[ends] - thin[begins]
        m = inside[:, :, -1].astype(np.float64)
        inverse = (1.0 / np.maximum(m, 1)).astype(np.float32)
        away = inside * inverse[:, :, None]
        away -= share
        furthest = np.maximum(away.max(axis=2), -away.min(axis=2))
        root = np.sqrt(m * n / np.maximum(m + n, 1))
        usable = (m >= setting.min_events) & (n > 0)
        if replicate.bounds:
            z = np.where(usable, furthest * root, 0.0)
            for i in self.ks:
                replicate.found.add(due, setting.index["ks", i, w], math.log(2) - 2 * z[:, i] ** 2)
            return
        at = [setting.index["ks", i, w] for i in self.ks]
        limit = np.full(len(n), np.inf)
        limit[self.ks] = np.sqrt(np.maximum(math.log(2) - replicate.screen[at], 0) / 2) - _MARGIN
        look, feature = np.nonzero(((furthest + slack) * root >= limit) & usable)
        if not len(look):
            return
        numerator = np.empty(len(look), np.int64)
        pe, base = setting.pane_events, due[0] - ends[0]
        starts, stops = (begins[look] + base) * pe, due[look] * pe
        sizes = np.empty((2, len(look)), np.int64)
        for i in np.unique(feature).tolist():
            own = np.flatnonzero(feature == i)
            if i not in places:
                places[i] = _Present.of(replicate.draw.places(i))
            numerator[own], sizes[0, own], sizes[1, own] = places[i].distances(
                starts[own], stops[own]
            )
        p, _ = two_sample_p_values(sizes[0], sizes[1], numerator)
        tests = np.array([setting.index["ks", i, w] for i in feature.tolist()], np.int64)
        replicate.keep(due[look], tests, log(p))

    def _rate(self, replicate: Replicate, batch: _Batch) -> None:
        setting, w, due = self.setting, batch.window, batch.due
        n_reference = setting.n_reference
        both = batch.through[batch.ends][:, :, -2:].astype(np.int64)
        both -= batch.through[batch.begins][:, :, -2:]
        for i in self.rate:
            n, absent = both[:, i, 1], both[:, i, 1] - both[:, i, 0]
            before = int(batch.tally[i, -1])
            total, out = n_reference + n, absent + before
            p = homogeneity_p(
                np.array([n_reference - before, before], np.float64),
                np.stack([n - absent, absent], axis=1).astype(np.float64),
            )
            rarer = np.minimum(out, total - out) * np.minimum(n, n_reference) / total
            for k in np.flatnonzero((rarer < FEWEST_EXPECTED) & (out > 0)).tolist():
                p[k] = fisher(n_reference, before, int(n[k]), int(absent[k]))
            test = setting.index["missing_rate", i, w]
            log_p = np.where(n >= setting.min_events, log(p), 0.0)
            if replicate.bounds:
                replicate.found.add(due, test, log_p)
            else:
                replicate.keep(due, np.full(len(due), test), log_p)


@dataclass(frozen=True, slots=True, eq=False)
class _Present:
    """Places of a stream's finite values among `n` of the reference. before: (events + 1,) how many
    there are before each event."""

    n: int
    below: npt.NDArray[np.int64]
    through: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]

    @staticmethod
    def of(places: Places) -> _Present:
        before = np.append(0, np.cumsum(places.finite))
        below = places.below[places.finite]
        tied = places.through is not places.below
        through = places.through[places.finite] if tied else below
        return _Present(len(places.reference), below, through, before)

    def distances(
        self, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], int, npt.NDArray[np.int64]]:
        """|D|·n·m of the events `starts:stops` against the reference, n, and m of each."""
        first, m = self.before[starts], self.before[stops] - self.before[starts]
        found = np.empty(len(starts), np.int64)
        for size in np.unique(m).tolist():
            own = np.flatnonzero(m == size)
            step = max(1, CHUNK // 4 // size)
            for a in range(0, len(own), step):
                some = own[a : a + step]
                at = first[some][:, None] + np.arange(size)
                below = self.below[at]
                through = below if self.through is self.below else self.through[at]
                found[some] = distances(self.n, below, through)
        return found, self.n, m


def distances(
    n: int, below: npt.NDArray[np.int64], through: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """|D|·n·m of windows of m values against a reference of n.

    Args:
        below, through: (windows, m) how many of the reference lie below each value, and how many at
            most at it; the same array where no value of a window is one of the reference.

    Between two values of a window its distribution function stands still, so the distance is largest
    at one of them, where the reference is ahead just before it and the window just after. Sorted, the
    counts are those of the sorted values; equal values all tell less than the first or the last.

    >>> import numpy as np
    >>> below = np.array([[3, 2]])  # 3.5 and 3.0 among 1.0, 2.0, 3.0, 4.0
    >>> distances(4, below, np.array([[3, 3]])).tolist()
    [4]
    """
    m = below.shape[1]
    steps = n * np.arange(m + 1)
    narrow = np.int32 if n * m < 2**31 else np.int64
    steps = steps.astype(narrow)
    low = np.sort(below.astype(narrow), axis=1)
    high = low if through is below else np.sort(through.astype(narrow), axis=1)
    reference_ahead = (m * low - steps[:-1]).max(axis=1)
    window_ahead = (steps[1:] - m * high).max(axis=1)
    return np.maximum(reference_ahead, window_ahead)
