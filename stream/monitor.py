"""Detect's arithmetic: deltas and progress of one panes partition → verdicts. No I/O, no clock.

What comes out is a function of the partition's log alone. A pane closes when every source partition
has passed its end by `allowed_lateness`; after that no event of it that is not late can come, so
when it closes, and with what, does not depend on batches, workers or interleaving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from ..detectors.base import Detector, Outcome, plan_of
from ..detectors.missing_rate import MissingRate
from ..detectors.online_bank import NAME as ONLINE
from ..detectors.online_bank import OnlineBank, OnlineWindow
from ..detectors.onset import History, Onset
from ..detectors.panes import OpenPane, Pane
from ..detectors.profile import Profile
from ..detectors.windows import Window, WindowBank
from ..schemas.errors import EventError, ProfileError
from ..schemas.pane import Delta, Progress
from ..schemas.units import MAX_TIME_MS, MIN_TIME_MS, iso_ms
from ..schemas.verdict import unit_key, verdict_id
from .config.document import Config, ModelConfig
from .deltas import to_panes
from .earlier import NoOnset, compare
from .look import with_look
from .mark import START, Mark, parse_series_key, series_key
from .profiles import Reference
from .reference.history import Era
from .watermark import Watermarks


@dataclass(frozen=True, slots=True)
class Verdict:
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


@dataclass(slots=True)
class _Unit:
    """One model or segment under one reference: its open panes and its windows.

    key: of the unit. series: of the unit under this reference.
    """

    key: str
    series: str
    segment: Mapping[str, str]
    profile: Profile
    model: _Model
    bank: WindowBank
    online: OnlineBank
    history: History | NoOnset
    closed_ms: int | None = None
    open: dict[int, OpenPane] = field(default_factory=dict)
    # Start of a pane that is open or in a window → the mark before its first part.
    marks: dict[int, Mark] = field(default_factory=dict)

    def next_end(self, limit_ms: int) -> int | None:
        """End of the next pane to close at or before `limit_ms`, None for none."""
        pane_ms = self.model.config.pane_ms
        if self.closed_ms is None or self.bank.settled:
            # Nothing to move on: go straight to the first pane with events.
            start = min(self.open, default=None)
            if start is None:
                return None
            return start + pane_ms if start + pane_ms <= limit_ms else None
        end = self.closed_ms + pane_ms
        return end if end <= limit_ms else None


@dataclass(frozen=True, slots=True)
class _Model:
    """A model under one of its references. number: which, counted from 0."""

    config: ModelConfig
    number: int
    era: Era
    # Level of a test that has no level of its own in `levels`.
    alpha: float
    # Unit key → (feature, detector, window) → level, where a budget of false alarms is kept.
    levels: Mapping[str, Mapping[tuple[str, str, str], float]]
    # (detector, indices of the features it tests), per unit profile id.
    plans: Mapping[str, Sequence[tuple[Detector, Sequence[int]]]]
    units: Mapping[str, tuple[Mapping[str, str], Profile]]

    def profile_id(self, key: str) -> str | None:
        """Of the unit `key`, None where this reference does not have it."""
        return self.units[key][1].id if key in self.units else None


class Monitor:
    """Turns the log of one panes partition into verdicts.

    Args:
        mark: where the log begins for this monitor; `START` for its very beginning.
        ask: gives a model's reference as it stands now, where the log speaks of one that took over
            since. A replay knows all of them beforehand.
    """

    def __init__(
        self,
        config: Config,
        references: Mapping[str, Reference],
        mark: Mark = START,
        ask: Callable[[str], Reference] | None = None,
    ) -> None:
        self._models = {
            name: _models(model, references[name]) for name, model in config.models.items()
        }
        self._ask = ask
        self._watermarks = Watermarks(mark.progress)
        self._closed = dict(mark.closed)
        self._seen = dict(mark.seen)
        self._units: dict[str, _Unit] = {}
        self._mark = mark
        self._mark_fresh = True
        # Parts of panes that had closed already (their partition had been taken for idle), and
        # parts made against another profile.
        self.dropped_events = 0
        # While it reads again what it had read before a restart: panes close, nothing is tested.
        self.quiet = False
        # Who wants to see each pane with events as it closes, with its unit's key.
        self.on_pane: Callable[[str, Pane], None] | None = None
        self.foreign: dict[str, int] = {}

    def delta(self, offset: int, delta: Delta) -> None:
        """Take in the message at `offset`.

        Raises:
            EventError: it is not what ingest writes for a configured model.
        """
        models = self._models.get(delta.model)
        if models is None:
            raise EventError(
                "bad_pane", f"pane delta of model {delta.model!r}, which is not configured here"
            )
        key = unit_key(delta.model, delta.segment)
        known = _owners(models, key, delta)
        if not known and self._ask is not None and delta.profile not in self.foreign:
            known = _owners(self._learn(delta.model), key, delta)
        if not known:
            self.foreign[delta.profile] = self.foreign.get(delta.profile, 0) + 1
            return
        parts = to_panes(delta, known[0].units[key][1])
        for model in known:
            self._take(offset, key, model, [p for p in parts if model.era.holds(p.start_ms)])

    def _take(self, offset: int, key: str, model: _Model, parts: Sequence[Pane]) -> None:
        if not parts:
            return
        unit = self._units.get(series_key(key, model.number)) or self._new_unit(key, model)
        for part in parts:
            if unit.closed_ms is not None and part.start_ms < unit.closed_ms:
                self.dropped_events += part.events
                continue
            pane = unit.open.get(part.start_ms)
            if pane is None:
                pane = unit.open[part.start_ms] = OpenPane(unit.profile, part.start_ms)
                unit.marks[part.start_ms] = self._current_mark(offset)
            pane.add(part)

    def progress(self, offset: int, progress: Progress) -> Iterator[Verdict]:
        """Take in how far ingest is; yields the verdicts of the panes that this closes.

        The iterator must be exhausted: the panes close as it goes.

        Raises:
            ProfileError: ingest knows of a reference that cannot be found here.
        """
        for name, n in progress.references.items():
            if name in self._models and len(self._models[name]) < n:
                found = self._learn(name)
                if len(found) < n:
                    raise ProfileError(
                        f"ingest knows {n} references of model {name!r}, and "
                        f"{len(found)} are found at {found[0].config.reference!r}; all stages must "
                        "read one place",
                        retry=True,
                    )
        self._watermarks.take(progress)
        self._mark_fresh = False
        yield from self._close(progress.topic)

    def _learn(self, name: str) -> list[_Model]:
        """Take in which references a model has now."""
        if self._ask is not None:
            config = self._models[name][0].config
            self._models[name] = found = _models(config, self._ask(name))
            for unit in self._units.values():
                if unit.model.config.name == name:
                    unit.model = found[unit.model.number]
        return self._models[name]

    def mark(self, position: int) -> Mark:
        """The mark from which a new monitor must read to be in this one's state at `position`."""
        needed = [mark for unit in self._units.values() for mark in unit.marks.values()]
        first = Mark(position, self._watermarks.now(), dict(self._closed))
        if needed:
            first = min(needed, key=lambda mark: mark.offset)
        # Units of which no event came since the restart stand where they stood.
        seen = self._seen | {s: own for s, u in self._units.items() if (own := u.online.seen)}
        return replace(first, seen=seen)

    @property
    def open_panes(self) -> int:
        return sum(len(unit.open) for unit in self._units.values())

    def watermark_ms(self, model: str) -> int | None:
        """How far event time has certainly passed for `model`, before `allowed_lateness`."""
        return self._watermarks.passed(self._models[model][0].config.input.topic)

    def windows(self) -> Iterator[tuple[str, Window]]:
        """Every window with its unit's key, as it stands; to be looked at, not kept."""
        for unit in self._units.values():
            for window in unit.bank.windows:
                yield unit.key, window

    def _new_unit(self, key: str, model: _Model) -> _Unit:
        series = series_key(key, model.number)
        segment, profile = model.units[key]
        config = model.config
        against = None if config.against is None else config.against.parts
        bank = WindowBank(profile, config.windows, config.pane_ms, config.retention_ms, against)
        online = OnlineBank(profile, config.retention_ms, self._seen.get(series))
        closed_ms = self._closed.get(series)
        unit = _Unit(key, series, segment, profile, model, bank, online, History(bank), closed_ms)
        self._units[series] = unit
        return unit

    def _current_mark(self, offset: int) -> Mark:
        # One mark serves all panes that begin in a row of deltas.
        if not self._mark_fresh or self._mark.offset > offset:
            self._mark = Mark(offset, self._watermarks.now(), dict(self._closed))
            self._mark_fresh = True
        return self._mark

    def _limit(self, unit: _Unit) -> int | None:
        """The time up to which the panes of a unit may close."""
        config = unit.model.config
        passed = self._watermarks.passed(config.input.topic)
        limit = None if passed is None else _closable(config, passed)
        if unit.open and self._watermarks.all_idle(config.input.topic):
            last = max(unit.open) + config.pane_ms
            limit = last if limit is None else max(limit, last)
        until = unit.model.era.until_ms
        return limit if limit is None or until is None else min(limit, until)

    def _close(self, topic: str) -> Iterator[Verdict]:
        units = [u for _, u in sorted(self._units.items()) if u.model.config.input.topic == topic]
        limits = {u.series: limit for u in units if (limit := self._limit(u)) is not None}
        while True:
            # In order of time over all units, so that the order of verdicts does not depend on how
            # much of the log was read at once.
            due = [
                (end, u.series, u)
                for u in units
                if u.series in limits and (end := u.next_end(limits[u.series])) is not None
            ]
            if not due:
                break
            end = min(d[0] for d in due)
            for _, _, unit in sorted(due, key=lambda d: d[:2]):
                if unit.next_end(limits[unit.series]) == end:
                    yield from self._close_pane(unit, end)
        for unit in units:
            limit = limits.get(unit.series)
            if limit is None:
                continue
            over = limit == unit.model.era.until_ms
            if over or (unit.bank.settled and unit.closed_ms is not None):
                closed = limit if unit.closed_ms is None else max(unit.closed_ms, limit)
                self._closed[unit.series] = unit.closed_ms = closed
            if over:
                # Another reference has taken over, and nothing needs its panes any more.
                del self._units[unit.series]
        self._pass_absent(topic)

    def _pass_absent(self, topic: str) -> None:
        """Time passes also for units of which only the mark knows: before the restart they stood
        here with empty windows, and what comes too late for them must be so again."""
        passed = self._watermarks.passed(topic)
        if passed is None:
            return
        for series in self._closed.keys() - self._units.keys():
            models = self._models.get(parse_series_key(series)[0])
            if models is not None and models[0].config.input.topic == topic:
                limit = _closable(models[0].config, passed)
                self._closed[series] = max(self._closed[series], limit)

    def _close_pane(self, unit: _Unit, end_ms: int) -> Iterator[Verdict]:
        start_ms = end_ms - unit.model.config.pane_ms
        opened = unit.open.pop(start_ms, None)
        pane: Pane | None = opened.close() if opened is not None else None
        if pane is not None and pane.events == 0:
            pane = None
        quiet = self.quiet or not unit.model.era.tests(end_ms)
        if pane is not None and self.on_pane is not None and unit.model.era.tests(end_ms):
            self.on_pane(unit.key, pane)
        due = unit.bank.push(end_ms, pane)
        unit.closed_ms = end_ms
        self._closed[unit.series] = end_ms
        made: list[Verdict] = []
        idle = [] if quiet else self._idle_at(unit, end_ms)
        if due and not quiet:
            made += list(self._test(unit, due, idle))
        if pane is not None and unit.profile.vectors:
            for window in unit.online.push(end_ms, pane, quiet):
                made.append(_Words.of(unit, window, idle).verdict(ONLINE, window.outcome))
        yield from with_look(made)
        starts = (unit.bank.earliest_ms, unit.online.earliest_ms)
        kept = min((start for start in starts if start is not None), default=None)
        for start in [s for s in unit.marks if s not in unit.open and (kept is None or s < kept)]:
            del unit.marks[start]

    def _idle_at(self, unit: _Unit, end_ms: int) -> list[str]:
        """Source partitions that had not passed a pane's end, and were not waited for."""
        config = unit.model.config
        needed = end_ms + config.allowed_lateness_ms
        return self._watermarks.not_waited_for(config.input.topic, needed)

    def _test(self, unit: _Unit, due: Sequence[Window], idle: list[str]) -> Iterator[Verdict]:
        config = unit.model.config
        if config.against is not None:
            yield from self._test_earlier(unit, due, idle)
            return
        testable: list[Window] = []
        reasons: dict[int, str] = {}
        for window in due:
            reason = _too_few(window, config.min_events)
            if reason is None:
                testable.append(window)
            else:
                reasons[id(window)] = reason
        results: dict[tuple[int, str, int], Outcome] = {}
        plan = unit.model.plans[unit.profile.id]
        for detector, features in plan:
            if testable:
                for window, row in zip(
                    testable, detector.test(unit.profile, testable, features), strict=True
                ):
                    for outcome in row:
                        outcome = _usable(outcome, config.min_events)
                        results[id(window), detector.name, outcome.feature] = outcome
        for window in due:
            words = _Words.of(unit, window, idle)
            for detector, features in plan:
                for index in features:
                    outcome = results.get((id(window), detector.name, index))
                    if outcome is None:
                        outcome = Outcome(index, None, None, reason=reasons[id(window)])
                    yield words.verdict(detector.name, outcome)

    def _test_earlier(
        self, unit: _Unit, due: Sequence[Window], idle: list[str]
    ) -> Iterator[Verdict]:
        plan, least = unit.model.plans[unit.profile.id], unit.model.config.min_events
        for window in due:
            made = compare(unit.profile, window, plan, least, _too_few(window, least))
            seen = replace(unit, profile=made.profile, history=NoOnset())
            words = _Words.of(seen, window, idle)
            for detector, features in plan:
                for index in features:
                    outcome = _usable(made.outcome(detector.name, index), least)
                    yield words.verdict(detector.name, outcome)


def _closable(config: ModelConfig, passed_ms: int) -> int:
    """The time up to which panes may close once all partitions have passed `passed_ms`."""
    return (passed_ms - config.allowed_lateness_ms) // config.pane_ms * config.pane_ms


def _shown(ms: int) -> str:
    """A window's edge; what reaches beyond the calendar ends with it."""
    return iso_ms(min(max(ms, MIN_TIME_MS), MAX_TIME_MS))


def _usable(outcome: Outcome, min_events: int) -> Outcome:
    """An outcome made from too few values is none: most of the window may be missing."""
    n = outcome.detail.get("n_test")
    if outcome.reason is not None or n is None or n >= min_events:
        return outcome
    reason = f"only {n} values of the feature could be tested; min_events is {min_events}"
    return Outcome(outcome.feature, None, None, outcome.effect, reason, None, outcome.detail)


def _too_few(window: Window, min_events: int) -> str | None:
    if window.events == 0:
        return "the window is empty"
    if window.missing_events:
        return f"the stream has brought {window.events} of the window's {window.label}"
    if window.events < min_events:
        return f"the window has {window.events} events; min_events is {min_events}"
    return None


def _owners(models: Sequence[_Model], key: str, delta: Delta) -> list[_Model]:
    """The references that a delta's panes were made against, none where one of its panes is nobody's:
    a profile may have come back since."""
    known = [m for m in models if m.profile_id(key) == delta.profile]
    whole = all(any(m.era.holds(start) for m in known) for start in delta.start_ms.tolist())
    return known if whole else []


def _models(config: ModelConfig, reference: Reference) -> list[_Model]:
    """A model under each of its references, in order of time."""
    return [_model(config, i, one) for i, one in enumerate(reference.eras)]


def _model(config: ModelConfig, number: int, reference: Reference) -> _Model:
    plans: dict[str, list[tuple[Detector, list[int]]]] = {}
    n_tests = 0
    for _, profile in reference.units.values():
        plans[profile.id] = plan = plan_of(profile, config.detectors_for)
        n_tests += sum(len(features) for _, features in plan)
    # One look at the model makes this many tests; Bonferroni shares the level out among them.
    alpha = config.alpha / max(1, n_tests * len(config.windows))
    levels: dict[str, Mapping[tuple[str, str, str], float]] = {}
    if config.false_alarms is not None and reference.budget is not None:
        levels = {key: found.levels for key, found in reference.budget.units.items()}
    return _Model(config, number, reference.era, alpha, levels, plans, reference.units)


@dataclass(frozen=True, slots=True)
class _Words:
    """What all verdicts of one window have in common, written once."""

    unit: _Unit
    window: Window | OnlineWindow
    end: str
    versions: Mapping[str, int]
    idle: list[str]
    described: Mapping[str, Any]
    window_json: orjson.Fragment
    reference_json: orjson.Fragment
    segment_json: orjson.Fragment

    @staticmethod
    def of(unit: _Unit, window: Window | OnlineWindow, idle: list[str]) -> _Words:
        end = _shown(window.end_ms)
        described = {
            "size": window.label,
            "start": _shown(window.start_ms),
            "end": end,
            "n": window.events,
        }
        reference = {"id": unit.profile.id, "n": unit.profile.n_rows}
        return _Words(
            unit,
            window,
            end,
            window.versions(),
            idle,
            described,
            orjson.Fragment(orjson.dumps(described)),
            orjson.Fragment(orjson.dumps(reference)),
            orjson.Fragment(orjson.dumps(dict(unit.segment))),
        )

    def verdict(self, detector: str, outcome: Outcome) -> Verdict:
        unit, window, versions = self.unit, self.window, self.versions
        feature = unit.profile.features[outcome.feature].name
        model = unit.model.config.name
        alpha = unit.model.alpha
        decides = {} if outcome.threshold is None else {"threshold": outcome.threshold}
        if detector != ONLINE:
            if (levels := unit.model.levels.get(unit.key)) is not None:
                alpha = levels[feature, detector, window.label]
            decides = {"alpha": alpha}
        ident = verdict_id(
            model, unit.segment, feature, detector, window.label, window.end_ms, unit.profile.id
        )
        drifted = outcome.significant(alpha)
        effect = outcome.effect
        detail = dict(outcome.detail)
        since = self._onset(detector, outcome) if drifted else None
        if since is not None:
            earliest = since.earliest_ms
            detail["since_earliest"] = None if earliest is None else _shown(earliest)
            detail["since_latest"] = _shown(since.latest_ms)
        if outcome.reason is not None:
            detail["reason"] = outcome.reason
        if self.idle:
            detail["idle_partitions"] = self.idle
        if len(versions) > 1:
            detail["versions"] = dict(versions)
        shown: dict[str, Any] | None = None
        if effect is not None:
            shown = {
                "kind": effect.kind,
                "value": effect.value,
                "unit": effect.unit,
                "reference": effect.reference,
                "window": effect.window,
            }
            if effect.category is not None:
                shown["category"] = effect.category
        fields = {
            "id": ident,
            "model": model,
            "version": next(iter(versions)) if len(versions) == 1 else None,
            "segment": self.segment_json,
            "feature": feature,
            "detector": detector,
            "window": self.described,
            "reference": self.reference_json,
            "statistic": outcome.statistic,
            "p_value": outcome.p_value,
            **decides,
            "drifted": drifted,
            "status": "ok" if outcome.reason is None else "insufficient",
            "effect": shown,
            "since": None if since is None else _shown(since.since_ms),
            "detail": detail,
        }
        value = orjson.dumps(fields | {"window": self.window_json})
        return Verdict(unit.key, ident, model, self.end, value, drifted, fields)

    def _onset(self, detector: str, outcome: Outcome) -> Onset | None:
        if detector == ONLINE:
            return None
        return self.unit.history.onset(
            outcome.feature,
            absent=detector == MissingRate.name,
            window_start_ms=self.window.start_ms,
        )
