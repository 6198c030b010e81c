"""Alerts that a live run would have sent over the replayed range, with the verdicts behind them.

The life of an alert is that of the alert stage: the same `lifecycle.step` is asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..alert.lifecycle import Row, key_of, step
from ..look import magnitude, part_of

MOST: Final = 500
"""Episodes kept: the strongest. The number of all of them is known all the same."""

Parsed = Mapping[str, Any]


def strength(verdict: Parsed) -> float:
    """The effect as a multiple of what makes an alert critical, signed; 0 where it is not known."""
    size = magnitude(verdict["effect"])
    return math.copysign(size, verdict["effect"]["value"]) if size else 0.0


@dataclass(slots=True)
class Episode:
    """One alert: from its first drifted verdict until it is resolved.

    first, strongest: verdicts, the latter that of the largest effect (of the smallest p-value among
    equals). ends_at: None where it is still firing at the end of the range. last: end of the last
    drifted window. since: the earliest onset that a verdict estimated. tests: (detector, window
    size, part of the stream or "") of the drifted verdicts, with how many there were.
    """

    unit: str
    feature: str
    first: Parsed
    strongest: Parsed
    starts_at: str
    last: str
    severity: str = "warning"
    ends_at: str | None = None
    since: str | None = None
    tests: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def add(self, verdict: Parsed) -> None:
        if _rank(verdict) > _rank(self.strongest):
            self.strongest = verdict
        test = (verdict["detector"], verdict["window"]["size"], part_of(verdict))
        self.tests[test] = self.tests.get(test, 0) + 1
        self.last = max(self.last, verdict["window"]["end"])
        since = verdict.get("since")
        if since is not None and (self.since is None or since < self.since):
            self.since = since


def _rank(verdict: Parsed) -> tuple[float, float]:
    p = verdict["p_value"]
    return abs(strength(verdict)), -(1.0 if p is None else p)


class Episodes:
    """Verdicts in, episodes out. number: (unit, feature) → how many there were."""

    def __init__(self, resolve_after: int) -> None:
        self._resolve_after = resolve_after
        self._rows: dict[str, Row | None] = {}
        self._open: dict[str, Episode] = {}
        self._closed: list[Episode] = []
        self.number: dict[tuple[str, str], int] = {}

    def add(self, unit: str, verdict: Parsed) -> None:
        key = key_of(verdict)
        row, alert = step(self._rows.get(key), verdict, self._resolve_after)
        if row is not None:
            self._rows[key] = row
        if alert is not None and alert.reason == "drift":
            self._open[key] = Episode(
                unit, verdict["feature"], verdict, verdict, alert.starts_at, alert.starts_at
            )
            of = (unit, verdict["feature"])
            self.number[of] = self.number.get(of, 0) + 1
        episode = self._open.get(key)
        if episode is None:
            return
        if verdict["drifted"]:
            episode.add(verdict)
        if alert is not None:
            episode.severity = alert.severity
            if alert.ends_at is not None:
                episode.ends_at = alert.ends_at
                self._closed.append(self._open.pop(key))
                if len(self._closed) >= 2 * MOST:
                    self._closed = strongest(self._closed)

    def found(self) -> list[Episode]:
        """At most `MOST` episodes, in order of their beginning."""
        kept = strongest([*self._closed, *self._open.values()])
        return sorted(kept, key=lambda e: (e.starts_at, e.unit, e.feature))


def strongest(episodes: list[Episode], most: int = MOST) -> list[Episode]:
    """The `most` strongest, strongest first."""

    def order(e: Episode) -> tuple[bool, float, float, str, str, str]:
        effect, p = _rank(e.strongest)
        return e.severity != "critical", -effect, -p, e.starts_at, e.unit, e.feature

    return sorted(episodes, key=order)[:most]
