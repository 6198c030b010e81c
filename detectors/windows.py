"""Windows of several sizes over one run of panes.

Each window keeps one count per cell of the profile, to which a pane is added when it closes and
from which it is taken when it leaves: the cost of a hop follows from what enters and leaves, not
from what is inside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schemas.units import EventWindow, TimeWindow
from .layout import BLOCK, Layout, layout_of
from .numeric import mean_of
from .panes import Pane, merge_names
from .profile import Profile

WindowSpec = TimeWindow | EventWindow


class Window:
    """The events of `[start_ms, end_ms)`, as counts per cell.

    before: for each of the earlier references that the bank was given the windows that it is made of,
    moved on together with this one; none where this one cannot be compared with it.
    store: its counts in the order of `layout`; block_sums: their sums by `BLOCK` places.
    sums: (F_numeric, 3) int64. events: how many.
    The arrays are the window's own and change with the next pane: a detector reads, never keeps.
    """

    __slots__ = (
        "_bank",
        "_emitted",
        "_first",
        "_lag_ms",
        "_last",
        "before",
        "block_sums",
        "end_ms",
        "events",
        "label",
        "spec",
        "start_ms",
        "store",
        "sums",
    )

    def __init__(
        self,
        bank: WindowBank,
        spec: WindowSpec,
        lag_ms: int = 0,
        before: tuple[tuple[Window, ...], ...] = (),
    ) -> None:
        self._bank = bank
        self._lag_ms = lag_ms
        self.before = before
        self.spec = spec
        self.label = spec.label
        self.store = np.zeros(bank.layout.size, np.int32)
        self.block_sums = np.zeros(bank.layout.size // BLOCK, np.int32)
        self.sums = np.zeros((bank.profile.n_numeric, 3), np.int64)
        self.events = 0
        self.start_ms = 0
        self.end_ms = 0
        # Panes by their number in the bank: [_first, _last) are inside.
        self._first = 0
        self._last = 0
        self._emitted = 0

    @property
    def layout(self) -> Layout:
        return self._bank.layout

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """(n_cells,) the counts in the order of the profile's cells, a copy."""
        return self.store[self._bank.layout.position]

    def feature(self, index: int) -> npt.NDArray[np.int32]:
        """(n_cells of the feature,) its counts, a copy."""
        offsets = self._bank.profile.offsets
        return self.store[self._bank.layout.position[offsets[index] : offsets[index + 1]]]

    def mean(self, index: int, n: int) -> float | None:
        """Mean of `n` finite values of a numeric feature, None where there are none in reach."""
        return mean_of(self._bank.profile.numeric[index], self.sums[index].tolist(), n)

    def absent(self) -> list[list[int]]:
        """Per numeric feature, how many values are missing, NaN, +inf and -inf."""
        return self.store[self._bank.layout.absent].tolist()

    def panes(self) -> Iterator[Kept]:
        """The panes inside, in order of time (those without events are not kept)."""
        skip = self._first - self._bank.dropped
        return islice(self._bank.kept, skip, skip + self._last - self._first)

    def extremes(self, index: int) -> tuple[float, float]:
        """The smallest and the largest finite value of a numeric feature, NaN where none is."""
        panes = list(self.panes())
        low = np.array([pane.low[index] for pane in panes] + [np.nan])
        high = np.array([pane.high[index] for pane in panes] + [np.nan])
        return float(np.fmin.reduce(low)), float(np.fmax.reduce(high))

    def unseen(self, index: int) -> dict[str, int]:
        """A sample of the categories that the reference never saw, with their counts."""
        return merge_names(pane.unseen.get(index, {}) for pane in self.panes())

    def versions(self) -> dict[str, int]:
        return merge_names(pane.versions for pane in self.panes())

    @property
    def missing_events(self) -> int:
        """How many events short of its size a window in events is, 0 for one that is full."""
        return max(0, self.spec.events - self.events) if isinstance(self.spec, EventWindow) else 0

    def _advance(self, end_ms: int, retention_ms: int) -> None:
        bank = self._bank
        for earlier in self.before:
            for window in earlier:
                window._advance(end_ms, retention_ms)
        end_ms -= self._lag_ms
        while self._last < bank.dropped + len(bank.kept):
            pane = bank.kept[self._last - bank.dropped]
            if pane.start_ms >= end_ms:
                break
            self._apply(pane, +1)
            self._last += 1
        oldest = end_ms - (self.spec.size_ms if isinstance(self.spec, TimeWindow) else retention_ms)
        while self._first < self._last:
            pane = bank.kept[self._first - bank.dropped]
            surplus = isinstance(self.spec, EventWindow) and (
                self.events - pane.events >= self.spec.events
            )
            if pane.start_ms >= oldest and not surplus:
                break
            self._apply(pane, -1)
            self._first += 1
        self.end_ms = end_ms
        if isinstance(self.spec, TimeWindow):
            self.start_ms = end_ms - self.spec.size_ms
        elif self._first < self._last:
            self.start_ms = bank.kept[self._first - bank.dropped].start_ms
        else:
            self.start_ms = end_ms

    def _apply(self, pane: Kept, sign: int) -> None:
        # Faster than `store[places] += counts`, which copies there and back.
        change = np.add if sign > 0 else np.subtract
        change.at(self.store, pane.places, pane.counts)
        change.at(self.block_sums, pane.places // BLOCK, pane.counts)
        change(self.sums, pane.sums, out=self.sums)
        self.events += sign * pane.events

    def _due(self, end_ms: int, has_events: bool) -> bool:
        if isinstance(self.spec, EventWindow):
            return has_events
        hop = self.spec.hop_ms or self._bank.pane_ms
        return end_ms % hop == 0


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A closed pane in a bank: its entries by their places in a window's store. made: what detectors
    make of the pane, under a name, and made once."""

    start_ms: int
    events: int
    places: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    sums: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    unseen: Mapping[int, Mapping[str, int]]
    versions: Mapping[str, int]
    made: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier part of the stream: `size_ms` long, ending `lag_ms` before a window ends."""

    size_ms: int
    lag_ms: int


class WindowBank:
    """All windows of one unit, moved on pane by pane.

    Args:
        profile: the reference the panes were made against.
        specs: the windows.
        pane_ms: length of a pane.
        retention_ms: the farthest a window in events looks back.
        against: gives for windows of a size the earlier references that they are compared with,
            each the parts that it is made of; None where there are none.
    """

    def __init__(
        self,
        profile: Profile,
        specs: Sequence[WindowSpec],
        pane_ms: int,
        retention_ms: int,
        against: Callable[[WindowSpec], Sequence[Sequence[Earlier]]] | None = None,
    ) -> None:
        self.profile = profile
        self.pane_ms = pane_ms
        self.retention_ms = retention_ms
        self.layout = layout_of(profile)
        self.kept: deque[Kept] = deque()
        self.dropped = 0
        self.windows = tuple(
            Window(self, spec, 0, tuple(map(self._parts, against(spec) if against else ())))
            for spec in specs
        )

    def _parts(self, parts: Sequence[Earlier]) -> tuple[Window, ...]:
        return tuple(
            Window(self, TimeWindow(part.size_ms, None, "reference"), part.lag_ms) for part in parts
        )

    @property
    def settled(self) -> bool:
        """A pane without events would change nothing and make no window due."""
        end = self.dropped + len(self.kept)
        return all(
            isinstance(w.spec, EventWindow)
            or (w.events == 0 and w._emitted == 0 and w._last == end)
            for w in self.windows
        )

    @property
    def earliest_ms(self) -> int | None:
        """Start of the earliest pane a window still needs, None for none."""
        return self.kept[0].start_ms if self.kept else None

    def push(self, end_ms: int, pane: Pane | None) -> list[Window]:
        """Close the slice that ends at `end_ms`; returns the windows to be tested now.

        A window in time is due at each hop, one in events whenever a pane with events closes. A
        window that became empty is due once, so that its verdict can say so, and then no more
        until there are events again.
        """
        if pane is not None:
            places = self.layout.position[pane.cells]
            self.kept.append(
                Kept(
                    pane.start_ms,
                    pane.events,
                    places,
                    pane.counts,
                    pane.sums,
                    pane.low,
                    pane.high,
                    pane.unseen,
                    pane.versions,
                )
            )
        due: list[Window] = []
        for window in self.windows:
            if window._due(end_ms, pane is not None):
                window._advance(end_ms, self.retention_ms)
                if window.events or window._emitted:
                    due.append(window)
                window._emitted = window.events
        oldest = min(w._first for window in self.windows for w in (window, *chain(*window.before)))
        while self.dropped < oldest:
            self.kept.popleft()
            self.dropped += 1
        return due
