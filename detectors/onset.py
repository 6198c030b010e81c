"""Since when a feature has drifted: the change point between panes, by maximum likelihood.

    panes    ▁▂▁▁▂▁▁ ▁▂▁▁▂▁▁▅▆▅▆▆▅          one bar per pane, the last one has just closed
                     │         ├─ window ┤  which drifted
                     │      ▲ since: the split that makes the panes most likely, as one sample
                     │                      like the reference and one that is not
                     └ the search begins here, or where the panes before were certainly quiet

Only the panes that some window still holds are looked at. Those are what a restarted monitor reads
again before it says anything, so its estimates are the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from .layout import layout_of
from .numeric import ONE
from .profile import NumericProfile, Profile
from .scores import kept_scores
from .vectors import VectorProfile
from .windows import WindowBank

BINS: Final = 16
"""Quantile bins of the reference that the finite values of a numeric feature are sorted into."""
CATEGORIES: Final = 30
"""The commonest categories of the reference, kept apart; the others are one class."""
QUIET_NATS: Final = 10.0
"""Log likelihood ratio by which panes speak against the window's drift before the search ends at
them: odds of 22,000 to one, so that a few quiet panes by chance do not end it."""
CONFIDENCE_NATS: Final = 3.676
"""-log(1 - sqrt(0.95)). At a change point the log likelihood is a random walk to either side, whose
two maxima are in the limit of small changes independent and exponential (Siegmund 1988); the true
point lies within this of the larger one in 95 of 100 cases. (Half the chi-squared quantile, 1.92,
is for parameters in which the likelihood is smooth, and covers 73.)"""
STEPS: Final = 256
"""Split points of the first, coarse search."""


@dataclass(frozen=True, slots=True)
class Onset:
    """An estimate, in epoch milliseconds.

    since_ms: start of the first pane of the split. [earliest_ms, latest_ms]: a 95 % confidence set's
    extent, widened by a pane to either side since a change may lie within one; earliest_ms is None
    where the change may be older than the oldest pane kept.
    """

    since_ms: int
    earliest_ms: int | None
    latest_ms: int


class History:
    """The panes of a window bank as running totals of few classes per feature.

    bank: whose panes. It follows them only when asked for an estimate, so that while nothing drifts
    it costs nothing. Then each pane costs one pass over its cells, once, and an estimate a few times
    STEPS × BINS logarithms, however many panes there are; memory is 8 bytes per pane and class.
    """

    def __init__(self, bank: WindowBank) -> None:
        self._bank = bank
        self._classes = bank.profile.cached("onset", lambda: _Classes(bank.profile))
        # Number in the bank of the first pane here, and how many there are. Row `_at + i` of the
        # totals: counts before pane i; so one row more than panes. Row `_at + i` of the starts: its.
        self._base = self._n = self._at = 0
        self._totals = np.zeros((STEPS, self._classes.size), np.int64)
        self._starts = np.zeros(STEPS, np.int64)
        self._found: dict[Hashable, Onset | None] = {}

    def _follow(self) -> None:
        """Take in the panes that have come, and forget those that have gone."""
        bank = self._bank
        if (bank.dropped, bank.dropped + len(bank.kept)) == (self._base, self._base + self._n):
            return
        self._found.clear()
        gone = min(bank.dropped - self._base, self._n)
        self._at, self._n, self._base = self._at + gone, self._n - gone, bank.dropped
        new = list(islice(bank.kept, self._n, None))
        self._make_room(len(new))
        for pane in new:
            row = self._at + self._n
            classes = self._classes.of_place[pane.places]
            own = np.bincount(classes, weights=pane.counts, minlength=self._classes.size)
            np.add(self._totals[row], own.astype(np.int64), out=self._totals[row + 1])
            self._starts[row] = pane.start_ms
            self._n += 1

    def _make_room(self, more: int) -> None:
        """Rows for `more` panes; each is moved about once in its time here."""
        end = self._at + self._n + 1
        if end + more <= len(self._totals):
            return
        totals, starts = self._totals[self._at : end], self._starts[self._at : end]
        size = max(len(self._totals), 2 * (self._n + 1 + more))
        self._totals = np.zeros((size, self._classes.size), np.int64)
        self._starts = np.zeros(size, np.int64)
        self._totals[: self._n + 1], self._starts[: self._n + 1] = totals, starts
        self._at = 0

    def onset(self, feature: int, *, absent: bool, window_start_ms: int) -> Onset | None:
        """Since when the feature has been as it is in the window that begins at `window_start_ms`
        and ends with the newest pane; None where the window has none of its values.

        absent: whether it is the share of absent values that drifted (of a numeric feature).

        The panes are one sample before the change and another one after it, each with class shares
        of its own; the reference rows belong to the first. The estimate is the split that makes all
        of it most likely (Hinkley 1970). Before the window the search goes back as far as the panes
        do not speak clearly against shares like the window's, so that an earlier, ended change is
        not taken for the beginning of this one. It knows one change: of several inside the window it
        finds the one that explains most, of a gradual one the time at which it is half done or so.
        Values that follow each other closely make the confidence set too narrow.
        """
        key = (feature, absent, window_start_ms)
        self._follow()
        if key not in self._found:
            if feature == len(self._bank.profile.features):
                self._found[key] = self._together(window_start_ms)
            else:
                self._found[key] = self._estimate(feature, absent, window_start_ms)
        return self._found[key]

    def _together(self, window_start_ms: int) -> Onset | None:
        """Of all numeric features: mean normal scores before and after, in the window alone."""
        profile, known = self._bank.profile, self._bank.profile.multivariate
        panes = [p for p in self._bank.kept if p.start_ms >= window_start_ms]
        if known is None or not panes:
            return None
        sums = np.array([kept_scores(profile, p)[:, 0] for p in panes]) / ONE
        along = np.cumsum(sums @ known.whitening.T, axis=0)
        n = np.cumsum([p.events for p in panes])
        before = np.concatenate([np.zeros_like(along[:1]), along[:-1]])
        n_before = np.concatenate([[0], n[:-1]]) + known.n
        after, n_after = along[-1] - before, n[-1] + known.n - n_before
        apart = after / n_after[:, None] - before / n_before[:, None]
        weight = n_before * n_after / (n_before + n_after)
        gains = weight * np.square(apart).sum(axis=1) / 2
        best = len(gains) - 1 - int(np.argmax(gains[::-1]))
        inside = np.flatnonzero(gains >= gains.max() - CONFIDENCE_NATS)
        low, high = int(inside[0]), int(inside[-1])
        return Onset(
            panes[best].start_ms,
            None if low == 0 else panes[low - 1].start_ms,
            panes[high].start_ms + self._bank.pane_ms,
        )

    def _estimate(self, feature: int, absent: bool, window_start_ms: int) -> Onset | None:
        totals = self._totals[self._at : self._at + self._n + 1]
        starts = self._starts[self._at : self._at + self._n]
        counts, reference = self._classes.view(totals, feature, absent)
        first = int(np.searchsorted(starts, window_start_ms))
        last = self._n
        if first == last or not int((counts[last] - counts[first]).sum()):
            return None
        begin = _reach(counts, reference, first)
        splits = _spread(begin, last - 1)
        gains = _gains(counts, reference, begin, splits)
        if len(splits) < last - begin:
            near = np.flatnonzero(gains >= gains.max() - CONFIDENCE_NATS)
            low = int(splits[max(int(near[0]) - 1, 0)])
            high = int(splits[min(int(near[-1]) + 1, len(splits) - 1)])
            splits = np.arange(low, high + 1)
            gains = _gains(counts, reference, begin, splits)
        # The last of equals: panes that have no values of the feature decide nothing.
        best = int(splits[len(gains) - 1 - int(np.argmax(gains[::-1]))])
        inside = splits[gains >= gains.max() - CONFIDENCE_NATS]
        low, high = int(inside[0]), int(inside[-1])
        return Onset(
            int(starts[best]),
            None if low == 0 else int(starts[low - 1]),
            int(starts[high]) + self._bank.pane_ms,
        )


def _spread(low: int, high: int) -> npt.NDArray[np.int64]:
    """At most about STEPS points from `low` to `high`, both among them, in order."""
    step = -(-(high - low + 1) // STEPS)
    points = np.arange(low, high + 1, step)
    return points if points[-1] == high else np.append(points, high)


def _reach(counts: npt.NDArray[np.int64], reference: npt.NDArray[np.int64], first: int) -> int:
    """The pane at which the search begins, for a window that begins with pane `first`.

    Going back from there, each step adds its log likelihood ratio, window's shares over reference's.
    Where the sum has fallen QUIET_NATS below its highest, the panes in between were quiet.
    """
    if first == 0:
        return 0
    window = (counts[-1] - counts[first]).astype(np.float64)
    before = (reference + 0.5) / (reference + 0.5).sum()
    shares = (window + before * len(before)) / (window.sum() + len(before))
    back = _spread(0, first)[::-1]
    ratio = ((counts[back[:-1]] - counts[back[1:]]) * np.log(shares / before)).sum(axis=1)
    total = np.concatenate([[0.0], np.cumsum(ratio)])
    quiet = np.flatnonzero(np.maximum.accumulate(total) - total > QUIET_NATS)
    return int(back[quiet[0]]) if len(quiet) else 0


def _gains(
    counts: npt.NDArray[np.int64],
    reference: npt.NDArray[np.int64],
    begin: int,
    splits: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """(len(splits),) log likelihood of the panes from `begin` on and the reference, changed at each
    split, up to a constant."""
    at = counts[splits]
    return _likelihood(reference + (at - counts[begin])) + _likelihood(counts[-1] - at)


def _likelihood(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Σ n log n - N log N of each row: multinomial log likelihood at the row's own shares."""
    total = counts.sum(axis=1)
    logs = np.log(np.maximum(counts, 1))
    return (counts * logs).sum(axis=1) - total * np.log(np.maximum(total, 1))


class _Classes:
    """Which of few classes each place of a window's store belongs to.

    of_place: (layout.size,) class; size: classes in all. reference: (size,) counts of the reference.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        of_cell = np.zeros(profile.n_cells, np.int64)
        reference: list[npt.NDArray[np.int64]] = []
        self._first = [0]
        for i, f in enumerate(profile.features):
            if isinstance(f, NumericProfile):
                own, counts = _numeric(f)
            elif isinstance(f, VectorProfile):
                # Its cells say only whether there was a vector; the change is not in them.
                own, counts = np.arange(f.n_cells), np.array([f.n, f.missing], np.int64)
            else:
                own, counts = _categorical(f.counts, f.missing)
            of_cell[profile.offsets[i] : profile.offsets[i + 1]] = own + self._first[-1]
            reference.append(counts)
            self._first.append(self._first[-1] + len(counts))
        self.size = self._first[-1]
        self.reference = np.concatenate([*reference, np.empty(0, np.int64)])
        layout = layout_of(profile)
        self.of_place = np.zeros(layout.size, np.int64)
        self.of_place[layout.position] = of_cell

    def view(
        self, totals: npt.NDArray[np.int64], feature: int, absent: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The columns that matter and the reference's counts of the same classes."""
        a, b = self._first[feature], self._first[feature + 1]
        own, reference = totals[:, a:b], self.reference[a:b]
        if feature >= self._profile.n_numeric:
            return own, reference
        if not absent:
            return own[:, :-1], reference[:-1]
        there = own[:, :-1].sum(axis=1)
        return (
            np.stack([there, own[:, -1]], axis=1),
            np.array([reference[:-1].sum(), reference[-1]]),
        )


def _numeric(f: NumericProfile) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Class of each cell, and the reference's counts: BINS of finite values by the share of the
    reference below (half of what is equal included), then all that is absent."""
    below_gap = np.concatenate([[0], f.through_value])
    mass = np.concatenate([f.through_gap - below_gap, f.through_value - f.through_gap[:-1]])
    below = np.concatenate([below_gap, f.through_gap[:-1]])
    middle = (below + mass / 2) / max(f.n, 1)
    finite = np.minimum((middle * BINS).astype(np.int64), BINS - 1)
    own = np.full(f.n_cells, BINS, np.int64)
    own[: f.n_finite_cells] = finite
    counts = np.zeros(BINS + 1, np.int64)
    np.add.at(counts, finite, mass)
    counts[BINS] = f.absent
    return own, counts


def _categorical(
    counts: npt.NDArray[np.int64], missing: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The commonest categories, all others of the reference, those it never had, missing."""
    n = len(counts)
    kept = min(n, CATEGORIES)
    common: Iterable[int] = np.argsort(-counts, kind="stable")[:kept].tolist()
    own = np.full(n + 2, kept, np.int64)
    for place, category in enumerate(common):
        own[category] = place
    own[n], own[n + 1] = kept + 1, kept + 2
    found = np.zeros(kept + 3, np.int64)
    np.add.at(found, own, np.concatenate([counts, [0, missing]]))
    return own, found
