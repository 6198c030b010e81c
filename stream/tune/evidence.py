"""What candidates are scored by: every look, what of the time is quiet, and changed stretches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...detectors.profile import Profile
from ...schemas.units import EventWindow, FalseAlarms
from .candidates import Candidate
from .incidents import Incident
from .inject import Injection
from .looks import Looks

Ints = npt.NDArray[np.int64]
# (unit key, pane length, window label) → the looks at it.
AllLooks = Mapping[tuple[str, int, str], Looks]


@dataclass(frozen=True, slots=True)
class Span:
    """What was read, and what of it is quiet.

    quiet: [start, end) of the parts outside incidents and what incidents leave in windows.
    quiet_events: events in them. zones: for each incident the time until no window holds any of
    its events.
    """

    start_ms: int
    end_ms: int
    quiet: tuple[tuple[int, int], ...]
    quiet_events: int
    zones: tuple[tuple[int, int], ...] = ()

    @property
    def quiet_ms(self) -> int:
        return sum(b - a for a, b in self.quiet)

    def allowed(self, budget: FalseAlarms) -> float:
        """False alarms that a budget allows on the quiet part."""
        if budget.events is not None:
            return self.quiet_events / budget.events
        assert budget.ms is not None
        return self.quiet_ms / budget.ms


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """An injection at one onset: looks at the changed stream (of the whole model) after it."""

    injection: Injection
    onset_ms: int
    horizon_ms: int
    cases: Sequence[tuple[int, ...]]
    looks: Mapping[tuple[int, str], Looks]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """All that candidates are scored by.

    units: unit key → its profile; the first is the whole model. plans: unit key → detector → the
    features it was run on. spans_ms: (pane length, window label) → what a window spans, in time.
    """

    units: Mapping[str, Profile]
    plans: Mapping[str, Mapping[str, Sequence[int]]]
    looks: AllLooks
    span: Span
    incidents: Sequence[Incident]
    trials: Sequence[Trial]
    spans_ms: Mapping[tuple[int, str], int]
    resolve_after: int


def quiet_parts(
    start_ms: int, end_ms: int, zones: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """[start, end) without the zones.

    >>> quiet_parts(0, 100, [(10, 20), (15, 30), (90, 120)])
    ((0, 10), (30, 90))
    """
    parts = []
    at = start_ms
    for a, b in sorted(zones):
        if a > at:
            parts.append((at, min(a, end_ms)))
        at = max(at, b)
    if at < end_ms:
        parts.append((at, end_ms))
    return tuple((a, b) for a, b in parts if b > a)


def zones_of(incidents: Sequence[Incident], looks: AllLooks) -> tuple[tuple[int, int], ...]:
    """For each incident, its time and that in which some window still holds events of it."""
    found = []
    for incident in incidents:
        end = incident.end_ms
        for own in looks.values():
            holds = (own.start_ms < incident.end_ms) & (own.end_ms > incident.start_ms)
            end = max(end, int(own.end_ms[holds].max(initial=end)))
        found.append((incident.start_ms, end))
    return tuple(found)


def window_spans(looks: AllLooks, candidates: Sequence[Candidate]) -> dict[tuple[int, str], int]:
    """(pane length, window label) → how much time a window spans; for one in events the median."""
    spans: dict[tuple[int, str], int] = {}
    for candidate in candidates:
        for window in candidate.windows:
            key = (candidate.pane_ms, window.label)
            if key in spans:
                continue
            if not isinstance(window, EventWindow):
                spans[key] = window.size_ms
                continue
            lengths = [
                (own.end_ms - own.start_ms)[own.tested]
                for (_, pane, label), own in looks.items()
                if (pane, label) == key
            ]
            every = np.concatenate(lengths) if lengths else np.empty(0)
            spans[key] = int(np.median(every)) if len(every) else candidate.pane_ms
    return spans


def inside(at: Ints, parts: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Which looks belong to a quiet part: those that end within it."""
    found = np.zeros(len(at), np.bool_)
    for a, b in parts:
        found |= (at > a) & (at <= b)
    return found
