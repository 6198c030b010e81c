"""Detect's arithmetic: deltas and progress of one panes partition → verdicts. No I/O, no clock.

What comes out is a function of the partition's log alone. A pane closes when every source partition
has passed its end by `allowed_lateness`; after that no event of it that is not late can come, so
when it closes, and with what, does not depend on batches, workers or interleaving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..detectors.base import plan_of
from ..detectors.looking import Plan, look_at
from ..detectors.online_bank import NAME as ONLINE
from ..detectors.online_bank import OnlineBank
from ..detectors.onset import History
from ..detectors.panes import OpenPane, Pane
from ..detectors.profile import Profile
from ..detectors.windows import Window, WindowBank
from ..schemas.errors import EventError
from ..schemas.pane import Delta, PartitionProgress, Progress
from ..schemas.verdict import parse_unit_key, unit_key
from .config.document import Config, ModelConfig
from .deltas import to_panes
from .look import with_look
from .profiles import Reference
from .verdicts import Levels, Verdict, Wording


@dataclass(frozen=True, slots=True)
class Mark:
    """The monitor's state before the message at `offset`, as far as the log does not give it back.

    progress: topic → (n_partitions, {partition: progress}). closed: unit key → end of its last
    closed pane. seen: unit key → vector feature → events that its online test had taken when the
    mark was asked for, which is later than what the log is read again from.
    """

    offset: int
    progress: Mapping[str, tuple[int, Mapping[int, PartitionProgress]]]
    closed: Mapping[str, int]
    seen: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "offset": self.offset,
            "progress": {
                topic: {
                    "n_partitions": n,
                    "partitions": [
                        [p.partition, p.offset, p.event_time_ms, p.idle]
                        for p in sorted(parts.values(), key=lambda p: p.partition)
                    ],
                }
                for topic, (n, parts) in sorted(self.progress.items())
            },
            "closed": dict(sorted(self.closed.items())),
            "seen": {key: dict(own) for key, own in sorted(self.seen.items())},
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Mark:
        return Mark(
            int(data["offset"]),
            {
                topic: (
                    int(entry["n_partitions"]),
                    {int(p[0]): PartitionProgress(*p) for p in entry["partitions"]},
                )
                for topic, entry in data["progress"].items()
            },
            {str(k): int(v) for k, v in data["closed"].items()},
            {str(k): {str(f): int(n) for f, n in own.items()} for k, own in data["seen"].items()},
        )


START = Mark(0, {}, {})


@dataclass(slots=True)
class _Topic:
    n_partitions: int
    partitions: dict[int, PartitionProgress]


@dataclass(slots=True)
class _Unit:
    """One model or segment: its open panes and its windows."""

    key: str
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
    config: ModelConfig
    # Level of a test that has no level of its own in `levels`.
    alpha: float
    # Unit key → (feature, detector, window) → level, where a budget of false alarms is kept.
    levels: Mapping[str, Mapping[tuple[str, str, str], float]]
    # Per unit profile id.
    plans: Mapping[str, Plan]
    units: Mapping[str, tuple[Mapping[str, str], Profile]]


class Monitor:
    """Turns the log of one panes partition into verdicts.

    Args:
        mark: where the log begins for this monitor; `START` for its very beginning.
    """

    def __init__(
        self, config: Config, references: Mapping[str, Reference], mark: Mark = START
    ) -> None:
        self._models = {
            name: _model(model, references[name]) for name, model in config.models.items()
        }
        self._topics: dict[str, _Topic] = {
            topic: _Topic(n, dict(parts)) for topic, (n, parts) in mark.progress.items()
        }
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
        model = self._models.get(delta.model)
        if model is None:
            raise EventError(
                "bad_pane", f"pane delta of model {delta.model!r}, which is not configured here"
            )
        key = unit_key(delta.model, delta.segment)
        segment, profile = model.units.get(key, (delta.segment, None))
        if profile is None or profile.id != delta.profile:
            self.foreign[delta.profile] = self.foreign.get(delta.profile, 0) + 1
            return
        unit = self._units.get(key) or self._new_unit(key, segment, profile, model)
        for part in to_panes(delta, profile):
            if unit.closed_ms is not None and part.start_ms < unit.closed_ms:
                self.dropped_events += part.events
                continue
            pane = unit.open.get(part.start_ms)
            if pane is None:
                pane = unit.open[part.start_ms] = OpenPane(profile, part.start_ms)
                unit.marks[part.start_ms] = self._current_mark(offset)
            pane.add(part)

    def progress(self, offset: int, progress: Progress) -> Iterator[Verdict]:
        """Take in how far ingest is; yields the verdicts of the panes that this closes.

        The iterator must be exhausted: the panes close as it goes.
        """
        topic = self._topics.setdefault(progress.topic, _Topic(progress.n_partitions, {}))
        topic.n_partitions = max(topic.n_partitions, progress.n_partitions)
        for p in progress.partitions:
            before = topic.partitions.get(p.partition)
            # A worker that took over from a dead one may know less than was published.
            if before is not None and before.event_time_ms is not None:
                known = before.event_time_ms
                if p.event_time_ms is not None:
                    known = max(known, p.event_time_ms)
                p = PartitionProgress(p.partition, p.offset, known, p.idle)
            topic.partitions[p.partition] = PartitionProgress(
                p.partition, p.offset, p.event_time_ms, p.idle
            )
        self._mark_fresh = False
        yield from self._close(progress.topic)

    def mark(self, position: int) -> Mark:
        """The mark from which a new monitor must read to be in this one's state at `position`."""
        needed = [mark for unit in self._units.values() for mark in unit.marks.values()]
        first = Mark(position, self._progress_now(), dict(self._closed))
        if needed:
            first = min(needed, key=lambda mark: mark.offset)
        # Units of which no event came since the restart stand where they stood.
        seen = self._seen | {key: own for key, u in self._units.items() if (own := u.online.seen)}
        return replace(first, seen=seen)

    @property
    def open_panes(self) -> int:
        return sum(len(unit.open) for unit in self._units.values())

    def watermark_ms(self, model: str) -> int | None:
        """How far event time has certainly passed for `model`, before `allowed_lateness`."""
        return self._passed(self._models[model].config.input.topic)

    def windows(self) -> Iterator[tuple[str, Window]]:
        """Every window with its unit's key, as it stands; to be looked at, not kept."""
        for key, unit in self._units.items():
            for window in unit.bank.windows:
                yield key, window

    def _new_unit(
        self, key: str, segment: Mapping[str, str], profile: Profile, model: _Model
    ) -> _Unit:
        config = model.config
        bank = WindowBank(profile, config.windows, config.pane_ms, config.retention_ms)
        online = OnlineBank(profile, config.retention_ms, self._seen.get(key))
        closed_ms = self._closed.get(key)
        levels = Levels(model.alpha, model.levels.get(key))
        wording = Wording(key, config.name, segment, profile, levels, History(bank))
        unit = _Unit(key, profile, model, bank, online, wording, closed_ms)
        self._units[key] = unit
        return unit

    def _progress_now(self) -> dict[str, tuple[int, dict[int, PartitionProgress]]]:
        return {t: (s.n_partitions, dict(s.partitions)) for t, s in self._topics.items()}

    def _current_mark(self, offset: int) -> Mark:
        # One mark serves all panes that begin in a row of deltas.
        if not self._mark_fresh or self._mark.offset > offset:
            self._mark = Mark(offset, self._progress_now(), dict(self._closed))
            self._mark_fresh = True
        return self._mark

    def _passed(self, name: str) -> int | None:
        """The event time that every source partition has reached, None for none.

        An idle partition holds nobody back. When all are idle, no event is waiting anywhere: what
        is open can be closed, so time has passed the last event of all.
        """
        topic = self._topics.get(name)
        if topic is None or len(topic.partitions) < topic.n_partitions:
            return None
        active = [p for p in topic.partitions.values() if not p.idle]
        if not active:
            times = [p.event_time_ms for p in topic.partitions.values()]
            return max((ms for ms in times if ms is not None), default=None)
        if any(p.event_time_ms is None for p in active):
            return None
        return min(p.event_time_ms for p in active if p.event_time_ms is not None)

    def _all_idle(self, name: str) -> bool:
        topic = self._topics[name]
        return len(topic.partitions) >= topic.n_partitions and all(
            p.idle for p in topic.partitions.values()
        )

    def _limit(self, unit: _Unit) -> int | None:
        """The time up to which the panes of a unit may close."""
        config = unit.model.config
        passed = self._passed(config.input.topic)
        limit = None if passed is None else _closable(config, passed)
        if unit.open and self._all_idle(config.input.topic):
            last = max(unit.open) + config.pane_ms
            return last if limit is None else max(limit, last)
        return limit

    def _close(self, topic: str) -> Iterator[Verdict]:
        units = [u for _, u in sorted(self._units.items()) if u.model.config.input.topic == topic]
        limits = {u.key: limit for u in units if (limit := self._limit(u)) is not None}
        while True:
            # In order of time over all units, so that the order of verdicts does not depend on how
            # much of the log was read at once.
            due = [
                (end, u.key, u)
                for u in units
                if u.key in limits and (end := u.next_end(limits[u.key])) is not None
            ]
            if not due:
                break
            end = min(d[0] for d in due)
            for _, _, unit in sorted(due, key=lambda d: d[:2]):
                if unit.next_end(limits[unit.key]) == end:
                    yield from self._close_pane(unit, end)
        for unit in units:
            limit = limits.get(unit.key)
            if limit is not None and unit.bank.settled and unit.closed_ms is not None:
                unit.closed_ms = max(unit.closed_ms, limit)
                self._closed[unit.key] = unit.closed_ms
        self._pass_absent(topic)

    def _pass_absent(self, topic: str) -> None:
        """Time passes also for units of which only the mark knows: before the restart they stood
        here with empty windows, and what comes too late for them must be so again."""
        passed = self._passed(topic)
        if passed is None:
            return
        for key in self._closed.keys() - self._units.keys():
            model = self._models.get(parse_unit_key(key)[0])
            if model is not None and model.config.input.topic == topic:
                self._closed[key] = max(self._closed[key], _closable(model.config, passed))

    def _close_pane(self, unit: _Unit, end_ms: int) -> Iterator[Verdict]:
        start_ms = end_ms - unit.model.config.pane_ms
        opened = unit.open.pop(start_ms, None)
        pane: Pane | None = opened.close() if opened is not None else None
        if pane is not None and pane.events == 0:
            pane = None
        if pane is not None and self.on_pane is not None:
            self.on_pane(unit.key, pane)
        due = unit.bank.push(end_ms, pane)
        unit.closed_ms = end_ms
        self._closed[unit.key] = end_ms
        made: list[Verdict] = []
        idle = [] if self.quiet else self._idle_at(unit, end_ms)
        if due and not self.quiet:
            made += list(self._test(unit, due, idle))
        if pane is not None and unit.profile.vectors:
            for window in unit.online.push(end_ms, pane, self.quiet):
                made.append(unit.wording.of(window, idle).verdict(ONLINE, window.outcome))
        yield from with_look(made)
        starts = (unit.bank.earliest_ms, unit.online.earliest_ms)
        kept = min((start for start in starts if start is not None), default=None)
        for start in [s for s in unit.marks if s not in unit.open and (kept is None or s < kept)]:
            del unit.marks[start]

    def _idle_at(self, unit: _Unit, end_ms: int) -> list[str]:
        """Source partitions that had not passed a pane's end, and were not waited for."""
        config = unit.model.config
        needed = end_ms + config.allowed_lateness_ms
        topic = self._topics[config.input.topic]
        return [
            f"{config.input.topic}[{p.partition}]"
            for p in sorted(topic.partitions.values(), key=lambda p: p.partition)
            if p.idle and (p.event_time_ms is None or p.event_time_ms < needed)
        ]

    def _test(self, unit: _Unit, due: Sequence[Window], idle: list[str]) -> Iterator[Verdict]:
        plan = unit.model.plans[unit.profile.id]
        for look in look_at(unit.profile, plan, due, unit.model.config.min_events):
            words = unit.wording.of(look.window, idle)
            for (detector, _), outcomes in zip(plan, look.outcomes, strict=True):
                for outcome in outcomes:
                    yield words.verdict(detector.name, outcome)


def _closable(config: ModelConfig, passed_ms: int) -> int:
    """The time up to which panes may close once all partitions have passed `passed_ms`."""
    return (passed_ms - config.allowed_lateness_ms) // config.pane_ms * config.pane_ms


def _model(config: ModelConfig, reference: Reference) -> _Model:
    plans: dict[str, Plan] = {}
    n_tests = 0
    for _, profile in reference.units.values():
        plans[profile.id] = plan = plan_of(profile, config.detectors_for)
        n_tests += sum(len(features) for _, features in plan)
    # One look at the model makes this many tests; Bonferroni shares the level out among them.
    alpha = config.alpha / max(1, n_tests * len(config.windows))
    levels: dict[str, Mapping[tuple[str, str, str], float]] = {}
    if config.false_alarms is not None and reference.budget is not None:
        levels = {key: found.levels for key, found in reference.budget.units.items()}
    return _Model(config, alpha, levels, plans, reference.units)
