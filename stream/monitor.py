"""Detect's arithmetic: deltas and progress of one panes partition → verdicts. No I/O, no clock.

What comes out is a function of the partition's log alone. A pane closes when every source partition
has passed its end by `allowed_lateness`; after that no event of it that is not late can come, so
when it closes, and with what, does not depend on batches, workers or interleaving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..detectors.base import plan_of
from ..detectors.levels import Calibration
from ..detectors.looking import Plan, WindowLook, look_at
from ..detectors.online_bank import NAME as ONLINE
from ..detectors.online_bank import OnlineBank
from ..detectors.onset import History
from ..detectors.panes import OpenPane, Pane
from ..detectors.profile import Profile
from ..detectors.windows import Window, WindowBank
from ..schemas.errors import EventError, ProfileError
from ..schemas.pane import Delta, Progress
from ..schemas.verdict import unit_key
from .config.against import DETECTORS, FITTED
from .config.document import Config, ModelConfig
from .deltas import to_panes
from .earlier import compare
from .look import with_look
from .mark import START, Mark, parse_series_key, series_key
from .profiles import Reference
from .reference.history import Era
from .verdicts import Levels, Verdict, Wording
from .watermark import Watermarks


@dataclass(slots=True)
class _Unit:
    """One model or segment under one reference: its open panes and its windows.

    key: of the unit. series: of the unit under this reference.
    """

    key: str
    series: str
    profile: Profile
    model: _Model
    bank: WindowBank
    online: OnlineBank
    wording: Wording
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
    # Level of a test that has no level of its own in `calibrated`.
    alpha: float
    # Unit key → the levels of its tests, where a budget of false alarms is kept.
    calibrated: Mapping[str, Calibration]
    # Unit profile id → level of its tests against earlier parts of the stream.
    earlier: Mapping[str, float]
    # Per unit profile id.
    plans: Mapping[str, Plan]
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
        against = config.against
        parts = None if against is None else against.of
        bank = WindowBank(profile, config.windows, config.pane_ms, config.retention_ms, parts)
        online = OnlineBank(profile, config.retention_ms, self._seen.get(series))
        calibrated = model.calibrated.get(key)
        levels = Levels(model.alpha)
        if calibrated is not None:
            levels = Levels(model.alpha, calibrated.levels, calibrated.rate)
        history = History(bank) if against is None or against.fitted else None
        named = None if against is None else FITTED
        wording = Wording(key, config.name, segment, profile, levels, history, named)
        closed_ms = self._closed.get(series)
        unit = _Unit(key, series, profile, model, bank, online, wording, closed_ms)
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
                made.append(unit.wording.of(window, idle).verdict(ONLINE, window.outcome))
        yield from with_look(made, unit.wording.levels.rate)
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
        plan = unit.model.plans[unit.profile.id]
        for wording, tests, look in self._looks(unit, plan, due):
            words = wording.of(look.window, idle)
            for (detector, _), outcomes in zip(tests, look.outcomes, strict=True):
                for outcome in outcomes:
                    yield words.verdict(detector.name, outcome)

    def _looks(
        self, unit: _Unit, plan: Plan, due: Sequence[Window]
    ) -> Iterator[tuple[Wording, Plan, WindowLook]]:
        """The looks at the windows that are due: against the fitted reference, then against each of
        the others that `against` names."""
        config, against = unit.model.config, unit.model.config.against
        if against is None or against.fitted:
            for look in look_at(unit.profile, plan, due, config.min_events):
                yield unit.wording, plan, look
        if against is None:
            return
        plan = _earlier(plan)
        for i, part in enumerate(against.parts):
            for window in due:
                if window.before[i]:
                    profile, look = compare(
                        unit.profile, plan, window, window.before[i], config.min_events
                    )
                    level = unit.model.earlier[unit.profile.id]
                    yield unit.wording.under(profile, part.name, level), plan, look


def _earlier(plan: Plan) -> Plan:
    """What of a plan can be tested against an earlier part of the stream."""
    return [(detector, features) for detector, features in plan if detector.name in DETECTORS]


def _size(plan: Plan) -> int:
    """How many tests a plan comes to."""
    return sum(len(features) for _, features in plan)


def _closable(config: ModelConfig, passed_ms: int) -> int:
    """The time up to which panes may close once all partitions have passed `passed_ms`."""
    return (passed_ms - config.allowed_lateness_ms) // config.pane_ms * config.pane_ms


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
    plans: dict[str, Plan] = {}
    n_tests = 0
    for _, profile in reference.units.values():
        plans[profile.id] = plan = plan_of(profile, config.detectors_for)
        n_tests += _n_tests(config, plan)
    # One look at the model makes this many tests; Bonferroni shares the level out among them.
    alpha = config.alpha / max(1, n_tests)
    calibrated: Mapping[str, Calibration] = {}
    earlier = dict.fromkeys(plans, alpha)
    if config.false_alarms is not None and reference.budget is not None:
        calibrated = reference.budget.units
        panes, against = reference.budget.earlier_panes, config.against
        if panes is not None and against is not None:
            # As in the rule above, but of all looks in that time.
            per_pane = against.looks_per_pane(config.windows, config.pane_ms)
            for ident, plan in plans.items():
                earlier[ident] = min(1.0, 1 / max(1.0, panes * per_pane * _size(_earlier(plan))))
    return _Model(config, number, reference.era, alpha, calibrated, earlier, plans, reference.units)


def _n_tests(config: ModelConfig, plan: Plan) -> int:
    """How many tests a look at all windows of a unit makes, against all that they are compared with."""
    against, windows = config.against, config.windows
    n_tests = 0
    if against is None or against.fitted:
        n_tests += len(windows) * _size(plan)
    if against is not None:
        n_looks = sum(bool(part.of(window)) for part in against.parts for window in windows)
        n_tests += n_looks * _size(_earlier(plan))
    return n_tests
