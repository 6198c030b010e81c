"""How the outcome of a test becomes a verdict: its id, its level, its onset, its JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from ..detectors.base import Outcome
from ..detectors.missing_rate import MissingRate
from ..detectors.online_bank import NAME as ONLINE
from ..detectors.online_bank import OnlineWindow
from ..detectors.onset import History, Onset
from ..detectors.profile import Profile
from ..detectors.windows import Window
from ..schemas.units import MAX_TIME_MS, MIN_TIME_MS, iso_ms
from ..schemas.verdict import verdict_ids


class Verdict(NamedTuple):
    """A verdict ready to be published: its unit's key, its id, its time and its JSON.

    fields: what the JSON says. look: on the last verdict of a look, what all of it say together.
    """

    key: str
    id: str
    model: str
    time: str
    value: bytes
    drifted: bool
    fields: Mapping[str, Any]
    look: bytes | None = None


@dataclass(frozen=True, slots=True)
class Levels:
    """The level of each test of a unit.

    alpha: where `of` has none. of: (feature, detector, window) → level, None without a budget.
    rate: alarms per look by chance that the levels of a budget allow, None without one.
    """

    alpha: float
    of: Mapping[tuple[str, str, str], float] | None = None
    rate: float | None = None


class _Series(NamedTuple):
    """What all verdicts of one feature, detector and window size have in common."""

    feature: str
    level: float
    id_at: Callable[[int], str]


@dataclass(frozen=True, slots=True, eq=False)
class Wording:
    """Words the verdicts of one unit against one reference.

    history: tells onsets, None where nothing can. named: what the reference is called, None where
    the model is compared with no other.
    """

    key: str
    model: str
    segment: Mapping[str, str]
    profile: Profile
    levels: Levels
    history: History | None
    named: str | None = None
    _series: dict[tuple[int, str, str], _Series] = field(default_factory=dict)

    def of(self, window: Window | OnlineWindow, idle: list[str]) -> WindowWording:
        """idle: the source partitions that had not passed the window's end."""
        return WindowWording(self, window, idle)

    def under(self, profile: Profile, named: str, level: float) -> Wording:
        """The same for tests against another profile, which do not know since when."""
        return Wording(self.key, self.model, self.segment, profile, Levels(level), None, named)

    def series(self, feature: int, detector: str, size: str) -> _Series:
        key = (feature, detector, size)
        known = self._series.get(key)
        if known is None:
            name = self.profile.name_of(feature)
            level = self.levels.alpha
            if self.levels.of is not None and detector != ONLINE:
                level = self.levels.of[name, detector, size]
            ids = verdict_ids(self.model, self.segment, name, detector, size, self.profile.id)
            known = self._series[key] = _Series(name, level, ids)
        return known


class WindowWording:
    """Words the verdicts of one window, writing what they have in common once."""

    def __init__(self, unit: Wording, window: Window | OnlineWindow, idle: list[str]) -> None:
        self._unit, self._window, self._idle = unit, window, idle
        self._versions = window.versions()
        self._version = next(iter(self._versions)) if len(self._versions) == 1 else None
        self._end = shown(window.end_ms)
        self._described = {
            "size": window.label,
            "start": shown(window.start_ms),
            "end": self._end,
            "n": window.events,
        }
        self._reference: dict[str, Any] = {"id": unit.profile.id, "n": unit.profile.n_rows}
        if unit.named is not None:
            self._reference["name"] = unit.named
        self._segment = dict(unit.segment)

    def verdict(self, detector: str, outcome: Outcome) -> Verdict:
        unit, window = self._unit, self._window
        series = unit.series(outcome.feature, detector, window.label)
        ident = series.id_at(window.end_ms)
        drifted = outcome.significant(series.level)
        since = self._onset(detector, outcome) if drifted else None
        fields: dict[str, Any] = {
            "id": ident,
            "model": unit.model,
            "version": self._version,
            "segment": self._segment,
            "feature": series.feature,
            "detector": detector,
            "window": self._described,
            "reference": self._reference,
            "statistic": outcome.statistic,
            "p_value": outcome.p_value,
        }
        if detector != ONLINE:
            fields["alpha"] = series.level
        elif outcome.threshold is not None:
            fields["threshold"] = outcome.threshold
        fields["drifted"] = drifted
        fields["status"] = "ok" if outcome.reason is None else "insufficient"
        fields["effect"] = _effect(outcome)
        fields["since"] = None if since is None else shown(since.since_ms)
        fields["detail"] = self._detail(outcome, since)
        value = orjson.dumps(fields)
        return Verdict(unit.key, ident, unit.model, self._end, value, drifted, fields)

    def _detail(self, outcome: Outcome, since: Onset | None) -> dict[str, Any]:
        detail = dict(outcome.detail)
        if since is not None:
            earliest = since.earliest_ms
            detail["since_earliest"] = None if earliest is None else shown(earliest)
            detail["since_latest"] = shown(since.latest_ms)
        if outcome.reason is not None:
            detail["reason"] = outcome.reason
        if self._idle:
            detail["idle_partitions"] = self._idle
        if len(self._versions) > 1:
            detail["versions"] = self._versions
        return detail

    def _onset(self, detector: str, outcome: Outcome) -> Onset | None:
        history = self._unit.history
        if detector == ONLINE or history is None:
            return None
        return history.onset(
            outcome.feature,
            absent=detector == MissingRate.name,
            window_start_ms=self._window.start_ms,
        )


def _effect(outcome: Outcome) -> dict[str, Any] | None:
    effect = outcome.effect
    if effect is None:
        return None
    found: dict[str, Any] = {
        "kind": effect.kind,
        "value": effect.value,
        "unit": effect.unit,
        "reference": effect.reference,
        "window": effect.window,
    }
    if effect.category is not None:
        found["category"] = effect.category
    return found


def shown(ms: int) -> str:
    """A window's edge; what reaches beyond the calendar ends with it."""
    return iso_ms(min(max(ms, MIN_TIME_MS), MAX_TIME_MS))
