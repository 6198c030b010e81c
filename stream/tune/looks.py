"""Every p-value that any candidate needs, found once.

A candidate is a choice among pane lengths, windows, detectors and levels. A p-value depends on the
first three, each by itself: the windows of one pane length share a bank, and what one window shows
one detector is the same for all candidates that have both. So p-values are kept per (pane length,
window, detector), and a candidate merely compares some of them with its level.

What is looked at, and when, is what a replay looks at: `tests/test_tune.py` compares them exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ...detectors.base import Outcome
from ...detectors.looking import Plan, look_at
from ...detectors.panes import OpenPane, Pane
from ...detectors.profile import Profile
from ...detectors.windows import Window, WindowBank, WindowSpec
from ...schemas.units import TimeWindow

_STEP = math.log(1.05)

# Called with each look that was made and what it came to: (window, detector, outcomes).
Witness = Callable[[Window, str, Sequence[Outcome]], None]


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """The looks at one window of one unit, in order of time; L of them.

    start_ms, end_ms, events: (L,) of the window. tested: (L,) bool, False where the window was too
    empty for any test. p: detector → (L, F) the p-value that decides, for each feature that the
    detector tests; NaN where the test could not be made.
    """

    start_ms: npt.NDArray[np.int64]
    end_ms: npt.NDArray[np.int64]
    events: npt.NDArray[np.int64]
    tested: npt.NDArray[np.bool_]
    p: Mapping[str, npt.NDArray[np.float64]]


@dataclass(slots=True)
class _Rows:
    start_ms: list[int] = field(default_factory=list)
    end_ms: list[int] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    tested: list[bool] = field(default_factory=list)
    p: dict[str, list[npt.NDArray[np.float64]]] = field(default_factory=dict)


class Looker:
    """Looks at the windows of one unit over panes of one length, as the monitor does.

    Args:
        plan: (detector, indices of the features it tests). after_ms: windows that end at or before
            it are moved on, not tested, and what follows is looked at more and more seldom
            (`spaced`); None makes every look. witness: sees every outcome.
    """

    def __init__(
        self,
        profile: Profile,
        plan: Plan,
        pane_ms: int,
        windows: Sequence[WindowSpec],
        *,
        retention_ms: int,
        min_events: int,
        after_ms: int | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.profile, self.plan, self.pane_ms = profile, plan, pane_ms
        self.min_events, self.after_ms = min_events, after_ms
        self.bank = WindowBank(profile, windows, pane_ms, retention_ms)
        self._rows = {w.label: _Rows() for w in self.bank.windows}
        self._open: OpenPane | None = None
        self._closed_ms: int | None = None
        self._witness = witness

    def add(self, part: Pane) -> None:
        """Take in a finer pane, or one of this length; they come in order of time."""
        start = part.start_ms // self.pane_ms * self.pane_ms
        if self._open is not None and self._open.start_ms != start:
            self._close()
        if self._open is None:
            self._open = OpenPane(self.profile, start)
        self._open.add(part)

    def finish(self, largest_ms: int, lateness_ms: int) -> None:
        """The stream has ended: close what a replay closes at the end of its range."""
        if self._open is not None:
            self._close()
        limit = (largest_ms - lateness_ms) // self.pane_ms * self.pane_ms
        self._pass(limit)

    def until(self, end_ms: int) -> None:
        """Close what ends by a time, and only that."""
        if self._open is not None and self._open.start_ms + self.pane_ms <= end_ms:
            self._close()
        if self._open is None:
            self._pass(end_ms)

    def looks(self) -> dict[str, Looks]:
        """Window label → its looks so far."""
        return {
            label: Looks(
                np.array(rows.start_ms, np.int64),
                np.array(rows.end_ms, np.int64),
                np.array(rows.events, np.int64),
                np.array(rows.tested, np.bool_),
                {
                    d.name: np.array(rows.p.get(d.name, []), np.float64).reshape(-1, len(f))
                    for d, f in self.plan
                },
            )
            for label, rows in self._rows.items()
        }

    def _close(self) -> None:
        assert self._open is not None
        pane, self._open = self._open.close(), None
        self._pass(pane.start_ms)
        end = pane.start_ms + self.pane_ms
        self._test(self.bank.push(end, pane), end)
        self._closed_ms = end

    def _pass(self, until_ms: int) -> None:
        """Close slices without events up to a time, as long as they change anything."""
        while self._closed_ms is not None and not self.bank.settled:
            end = self._closed_ms + self.pane_ms
            if end > until_ms:
                break
            self._test(self.bank.push(end, None), end)
            self._closed_ms = end

    def _test(self, due: Sequence[Window], end_ms: int) -> None:
        if self.after_ms is not None:
            if end_ms <= self.after_ms:
                return
            n = end_ms // self.pane_ms - self.after_ms // self.pane_ms
            due = [w for w in due if spaced(n) or _hops(w, self.pane_ms)]
        for window, reason, found in look_at(self.profile, self.plan, due, self.min_events):
            rows = self._rows[window.label]
            rows.start_ms.append(window.start_ms)
            rows.end_ms.append(window.end_ms)
            rows.events.append(window.events)
            rows.tested.append(reason is None)
            for (detector, _), outcomes in zip(self.plan, found, strict=True):
                deciding = np.array([o.deciding_p for o in outcomes], np.float64)  # None is NaN
                rows.p.setdefault(detector.name, []).append(deciding)
                if reason is None and self._witness is not None:
                    self._witness(window, detector.name, outcomes)


def _hops(window: Window, pane_ms: int) -> bool:
    """Not due at every pane: each look at it counts."""
    spec = window.spec
    return isinstance(spec, TimeWindow) and (spec.hop_ms or pane_ms) > pane_ms


def spaced(n: int) -> bool:
    """Whether the n-th pane after an onset is looked at: each of the first 20, then such as lie 5 %
    apart, so that a delay is known as well and a long stretch costs little.

    >>> [n for n in range(1, 40) if not spaced(n)], sum(map(spaced, range(1, 10_001)))
    ([25, 30, 33, 35, 38], 147)
    """
    return n <= 20 or int(math.log(n) / _STEP) != int(math.log(n - 1) / _STEP)


def look(panes: Iterable[Pane], lookers: Iterable[Looker]) -> None:
    """Feed panes, in order of time, to lookers of several pane lengths."""
    among = list(lookers)
    for pane in panes:
        for looker in among:
            looker.add(pane)
