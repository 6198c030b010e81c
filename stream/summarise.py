"""Ingest's arithmetic: a batch of messages of one topic → deltas, refusals and progress. No I/O.

What becomes of a message is a function of its partition's log alone. So is lateness: an event is
late when it lies more than `allowed_lateness` behind the largest event time before it in its own
partition, however partitions interleave and wherever a batch ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..detectors.panes import Columns, summarize
from ..detectors.profile import Kind, Profile, category_name, column_kind
from ..detectors.vectors import VectorProfile, picked
from ..schemas.deadletter import Reason
from ..schemas.errors import ConfigError, EventError
from ..schemas.pane import Delta
from ..schemas.units import format_duration, iso_ms
from ..schemas.verdict import unit_key
from .accounting import Counts
from .config.document import Config, Input, ModelConfig
from .decode import Decoder, Wanted, event_times
from .deltas import to_delta
from .embed import Embedding, Raw
from .profiles import Reference
from .reference.history import Era


@dataclass(slots=True)
class Messages:
    """A batch of messages of one topic, in the order read; all sequences have one entry each.

    kafka_ms: Kafka's timestamp, -1 for none.
    """

    values: Sequence[bytes | None]
    partitions: npt.NDArray[np.int64]
    kafka_ms: npt.NDArray[np.int64]


@dataclass(slots=True)
class Summary:
    """What a batch came to.

    deltas: (unit key, delta). refused: (position in the batch, why). largest_ms: partition → its
    largest event time so far. counts: partition → what became of its messages in this batch.
    """

    deltas: list[tuple[str, Delta]]
    refused: list[tuple[int, EventError]]
    largest_ms: dict[int, int | None]
    counts: dict[int, Counts] = field(default_factory=dict)


# Segment values → (unit key, segment, profile); the whole model is under the empty tuple.
_Units = Mapping[tuple[str, ...], tuple[str, Mapping[str, str], Profile]]


@dataclass(frozen=True)
class _Model:
    """eras: one per reference of the model, in order of time; an event may lie in two."""

    config: ModelConfig
    embedding: Embedding | None
    eras: Sequence[tuple[Era, _Units]]

    @property
    def profiles(self) -> Iterator[Profile]:
        """Of the whole model, one per era."""
        return (units[()][2] for _, units in self.eras)


class Summariser:
    """Summarises the messages of one topic for all models that read it.

    pulse: called again and again while texts are embedded, which may take long.

    Raises:
        ConfigError: two models want one feature as different kinds.
    """

    def __init__(
        self, topic: str, models: Sequence[ModelConfig], references: Mapping[str, Reference]
    ) -> None:
        self.topic = topic
        self.pulse: Callable[[], None] = lambda: None
        self.models = {m.name: _model(m, references[m.name]) for m in models}
        kinds: dict[str, Kind] = {}
        segments: dict[str, None] = {}
        for model in self.models.values():
            for name, kind in (read for profile in model.profiles for read in _read(profile)):
                if kinds.setdefault(name, kind) != kind:
                    raise ConfigError(
                        f"topic {topic!r}: feature {name!r} is {kind} for model "
                        f"{model.config.name!r} and {kinds[name]} for another model that reads "
                        "the same events; a feature has one kind per topic"
                    )
            segments |= dict.fromkeys(model.config.segment_by)
        self.input: Input = models[0].input
        self.decoder = Decoder(self.input, Wanted(kinds, tuple(segments)))
        self._only = next(iter(self.models)) if len(self.models) == 1 else None

    @property
    def embeds_texts(self) -> bool:
        return any(m.embedding is not None and m.embedding.texts for m in self.models.values())

    def summarise(self, messages: Messages, largest_ms: Mapping[int, int | None]) -> Summary:
        """Args:
        messages: the batch. largest_ms: partition → largest event time before the batch.
        """
        n = len(messages.values)
        events, refused = self.decoder.decode(messages.values)
        usable = np.ones(n, np.bool_)
        self._refuse(usable, refused)
        if refused:
            events = [e for e in events if e is not None]
        rows = np.flatnonzero(usable)
        ids = self.decoder.column(events, "id")
        if not all(ids):
            for i in [i for i, value in enumerate(ids) if not value]:
                where = "an empty" if ids[i] == "" else "no"
                error = EventError(
                    Reason.MISSING_ID, f"the event has {where} id; each event needs one of its own"
                )
                self._refuse(usable, [(int(rows[i]), error)], refused)
        times = np.zeros(n, np.int64)
        times[rows], bad_times = event_times(self.decoder.column(events, "ts"))
        if self.input.missing_time == "kafka":
            bad_times = self._from_kafka(bad_times, rows, times, messages.kafka_ms)
        self._refuse(usable, [(int(rows[i]), e) for i, e in bad_times if usable[rows[i]]], refused)
        self._refuse_ahead(usable, times, messages.kafka_ms, refused)
        owner, unknown = self._owners(events, rows, usable)
        self._refuse(usable, unknown, refused)
        raws = self._embed(events, ids, rows, owner, usable, refused)

        # Events, rows and owners of usable messages from here on.
        kept = usable[rows]
        if not kept.all():
            events = [e for e, keep in zip(events, kept.tolist(), strict=True) if keep]
            ids = [e for e, keep in zip(ids, kept.tolist(), strict=True) if keep]
            rows, owner = rows[kept], owner[kept]
            raws = {
                m: {name: raw.take(np.flatnonzero(kept)) for name, raw in of.items()}
                for m, of in raws.items()
            }
        times = times[rows]
        partitions = messages.partitions[rows]
        behind, new_largest = self._behind(times, partitions, largest_ms, messages.partitions)
        counts = {int(p): Counts() for p in np.unique(messages.partitions).tolist()}
        for p, c in counts.items():
            c.received = int((messages.partitions == p).sum())
            c.dead_lettered = int((messages.partitions[~usable] == p).sum())
            c.ignored = int((partitions[owner < 0] == p).sum())
        deltas: list[tuple[str, Delta]] = []
        for m, model in enumerate(self.models.values()):
            mine = owner == m
            on_time = mine & (behind <= model.config.allowed_lateness_ms)
            if not mine.any():
                continue
            for p, c in counts.items():
                c.late += int((partitions[mine & ~on_time] == p).sum())
                c.summarised += int((partitions[on_time] == p).sum())
            if on_time.any():
                batch = _Batch(events, ids, times, raws.get(m, {}))
                if not on_time.all():
                    batch = batch.take(np.flatnonzero(on_time))
                deltas += self._deltas(model, batch)
        refused.sort(key=lambda pair: pair[0])
        return Summary(deltas, refused, new_largest, counts)

    @staticmethod
    def _refuse(
        usable: npt.NDArray[np.bool_],
        errors: Sequence[tuple[int, EventError]],
        into: list[tuple[int, EventError]] | None = None,
    ) -> None:
        for i, error in errors:
            usable[i] = False
            if into is not None:
                into.append((i, error))

    @staticmethod
    def _from_kafka(
        bad: Sequence[tuple[int, EventError]],
        rows: npt.NDArray[np.intp],
        times: npt.NDArray[np.int64],
        kafka_ms: npt.NDArray[np.int64],
    ) -> list[tuple[int, EventError]]:
        """Give events that name no time their Kafka timestamp; returns what is still refused."""
        rest: list[tuple[int, EventError]] = []
        for i, error in bad:
            at = int(kafka_ms[rows[i]])
            if error.reason == Reason.MISSING_TIME and at >= 0:
                times[rows[i]] = at
            else:
                rest.append((i, error))
        return rest

    def _refuse_ahead(
        self,
        usable: npt.NDArray[np.bool_],
        times: npt.NDArray[np.int64],
        kafka_ms: npt.NDArray[np.int64],
        refused: list[tuple[int, EventError]],
    ) -> None:
        limit = self.input.max_ahead_ms
        # Not kafka_ms + limit: a producer may have set any int64 as its timestamp.
        ahead = usable & (kafka_ms >= 0) & (times - limit > kafka_ms)
        for i in np.flatnonzero(ahead).tolist():
            error = EventError(
                Reason.TIME_AHEAD,
                f"the event time {iso_ms(int(times[i]))} lies more than input.max_ahead = "
                f"{format_duration(limit)} ahead of the message's Kafka timestamp "
                f"{iso_ms(int(kafka_ms[i]))}; it would close panes before their time",
            )
            self._refuse(usable, [(i, error)], refused)

    def _owners(
        self, events: Sequence[Any], rows: npt.NDArray[np.intp], usable: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], list[tuple[int, EventError]]]:
        """Index of the model of each event, -1 for one that is not configured."""
        names = self.decoder.column(events, "model")
        index: dict[str | None, int] = {name: i for i, name in enumerate(self.models)}
        if self._only is not None:
            # A topic of one model need not name it in every event.
            index[None] = 0
            if not set(names) - index.keys():
                return np.zeros(len(events), np.int64), []
        owner = np.fromiter((index.get(name, -1) for name in names), np.int64, len(names))
        unknown: list[tuple[int, EventError]] = []
        if self._only is None:
            for i in [i for i, name in enumerate(names) if name is None and usable[rows[i]]]:
                error = EventError(
                    Reason.MISSING_MODEL,
                    f"the event names no model, and topic {self.topic!r} carries several "
                    f"({', '.join(self.models)})",
                )
                unknown.append((int(rows[i]), error))
        return owner, unknown

    @staticmethod
    def _behind(
        times: npt.NDArray[np.int64],
        partitions: npt.NDArray[np.int64],
        largest_ms: Mapping[int, int | None],
        all_partitions: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.int64], dict[int, int | None]]:
        """How far each event is behind the largest event time before it in its partition, and the
        largest event times after the batch."""
        behind = np.zeros(len(times), np.int64)
        after: dict[int, int | None] = {}
        for p in np.unique(all_partitions).tolist():
            before = largest_ms.get(p)
            at = np.flatnonzero(partitions == p)
            if len(at) == 0:
                after[p] = before
                continue
            own = times[at]
            running = np.maximum.accumulate(own if before is None else np.append(before, own))
            previous = running[:-1] if before is not None else np.append(own[0], running[:-1])
            behind[at] = np.maximum(previous - own, 0)
            after[p] = int(running[-1])
        return behind, after

    def _embed(
        self,
        events: Sequence[Any],
        ids: Sequence[str],
        rows: npt.NDArray[np.intp],
        owner: npt.NDArray[np.int64],
        usable: npt.NDArray[np.bool_],
        refused: list[tuple[int, EventError]],
    ) -> dict[int, dict[str, Raw]]:
        """Vectors of all usable events, per model and feature; refuses events that have none."""
        found: dict[int, dict[str, Raw]] = {}
        for m, model in enumerate(self.models.values()):
            if model.embedding is None:
                continue
            at = np.flatnonzero((owner == m) & usable[rows])
            mine = [events[i] for i in at.tolist()]
            raws, errors = model.embedding.raw(
                picked(ids, at),
                lambda name, mine=mine: self.decoder.column(mine, f"features.{name}"),
                lambda names, mine=mine: self.decoder.matrix(mine, names)[0],
                self.pulse,
            )
            self._refuse(usable, [(int(rows[at[i]]), e) for i, e in errors], refused)
            found[m] = {name: raw.spread(at, len(events)) for name, raw in raws.items()}
        return found

    def _deltas(self, model: _Model, batch: _Batch) -> list[tuple[str, Delta]]:
        deltas: list[tuple[str, Delta]] = []
        for era, units in model.eras:
            own = batch if era.always else batch.take(era.events(batch.times_ms))
            if own.events:
                deltas += self._of_era(model, units, own)
        return deltas

    def _of_era(self, model: _Model, units: _Units, batch: _Batch) -> list[tuple[str, Delta]]:
        pane_ms = model.config.pane_ms
        starts = batch.times_ms // pane_ms * pane_ms
        whole = units[()]
        columns = self._columns(whole[2], batch)
        deltas = [_delta(model.config.name, whole, columns, starts)]
        if model.config.segment_by:
            by_segment: dict[tuple[str, ...], list[int]] = {}
            keys = [
                self.decoder.column(
                    batch.events, "version" if name == "version" else f"segment.{name}"
                )
                for name in model.config.segment_by
            ]
            for i, values in enumerate(zip(*keys, strict=True)):
                segment = tuple(category_name(v) or "" for v in values)
                by_segment.setdefault(segment, []).append(i)
            for segment, at in sorted(by_segment.items()):
                unit = units.get(segment)
                # A segment without a reference of its own has nothing to be compared with; its
                # events count for the whole model.
                if unit is not None:
                    columns = self._columns(unit[2], batch.take(np.array(at, np.intp)))
                    deltas.append(_delta(model.config.name, unit, columns, starts[at]))
        return deltas

    def _columns(self, profile: Profile, batch: _Batch) -> Columns:
        events = batch.events
        numeric, nan = self.decoder.matrix(events, [f.name for f in profile.numeric])
        categorical = tuple(
            self.decoder.column(events, f"features.{f.name}") for f in profile.categorical
        )
        versions = [category_name(v) for v in self.decoder.column(events, "version")]
        distinct = set(versions)
        one = next(iter(distinct)) if len(distinct) == 1 else versions
        vectors = tuple(batch.raws[f.name].column(f) for f in profile.vectors)
        return Columns(
            len(events), numeric, categorical, nan, one, vectors, batch.ids, batch.times_ms
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """Events of one model that go into panes. raws: their vectors by feature."""

    events: Sequence[Any]
    ids: Sequence[str]
    times_ms: npt.NDArray[np.int64]
    raws: Mapping[str, Raw]

    def take(self, at: npt.NDArray[np.intp]) -> _Batch:
        chosen = at.tolist()
        # Ids order vectors, and are needed for nothing else.
        ids = picked(self.ids, at) if self.raws else self.ids
        return _Batch(
            [self.events[i] for i in chosen],
            ids,
            self.times_ms[at],
            {name: raw.take(at) for name, raw in self.raws.items()},
        )


def _read(profile: Profile) -> Iterator[tuple[str, Kind]]:
    """(name, kind) of what is read from each event."""
    for f in profile.features:
        if isinstance(f, VectorProfile) and f.kind == "group":
            for member in f.spec.members:
                yield member, "numeric"
        else:
            yield f.name, column_kind(f)


def _model(config: ModelConfig, reference: Reference) -> _Model:
    embedding = Embedding(reference.whole) if reference.whole.vectors else None
    return _Model(config, embedding, [(r.era, _units(config, r)) for r in reference.eras])


def _units(config: ModelConfig, reference: Reference) -> _Units:
    units: dict[tuple[str, ...], tuple[str, Mapping[str, str], Profile]] = {}
    for key, (segment, profile) in reference.units.items():
        values = tuple(segment.get(name, "") for name in config.segment_by) if segment else ()
        units[values] = (key, segment, profile)
    if () not in units:
        units[()] = (unit_key(config.name, {}), {}, reference.whole)
    return units


def _delta(
    model: str,
    unit: tuple[str, Mapping[str, str], Profile],
    columns: Columns,
    starts: npt.NDArray[np.int64],
) -> tuple[str, Delta]:
    key, segment, profile = unit
    return key, to_delta(model, segment, profile, summarize(profile, columns, starts))


def summarisers(config: Config, references: Mapping[str, Reference]) -> dict[str, Summariser]:
    """One summariser per input topic."""
    topics: dict[str, list[ModelConfig]] = {}
    for model in config.models.values():
        topics.setdefault(model.input.topic, []).append(model)
    return {topic: Summariser(topic, models, references) for topic, models in topics.items()}
