"""The ingest stage: inference topics → pane deltas, progress and dead letters.

Each batch of messages is published in one transaction with the offsets it was read up to. The only
state, each partition's largest event time, rides in the metadata of those offsets: whoever takes
the partition over, after a crash or a rebalance, judges lateness as if nothing had happened.
"""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from ..schemas.deadletter import cut_value, dead_letter_headers
from ..schemas.errors import EventError
from ..schemas.pane import DELTA, KIND_HEADER, PROGRESS, PartitionProgress, Progress
from .accounting import Counts
from .clients import (
    Aborted,
    Transactions,
    consumer,
    ensure_topics,
    instance_name,
    partition_count,
)
from .config.document import Config
from .profiles import Reference
from .reference import history
from .reference.check import references, said
from .summarise import Messages, Summariser, Summary, summarisers

log = logging.getLogger(__name__)

# A value longer than this is cut in its dead letter, whose topic takes messages of 20 MB.
MAX_DEAD_LETTER_BYTES: Final = 16_000_000
_REPORT_EVERY_S: Final = 10.0
# Between two looks at whether a promotion has ended.
_WAIT_S: Final = 0.2
# Messages of a batch whose texts are embedded.
_TEXT_BATCH: Final = 1_000


@dataclass(slots=True)
class Source:
    """A source partition this worker owns.

    position: the next offset. largest_ms: its largest event time. idle: said to be idle.
    told: whether its progress was published since it was taken over.
    last_message: clock reading when it last brought something.
    """

    topic: str
    partition: int
    position: int
    largest_ms: int | None
    last_message: float
    idle: bool = False
    told: bool = False


@dataclass
class Ingest:
    """One ingest worker.

    stop: asked between batches whether to end. clock: seconds, for idleness only.
    """

    config: Config
    references: Mapping[str, Reference]
    stop: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    totals: Counts = field(default_factory=Counts)
    sources: dict[tuple[str, int], Source] = field(default_factory=dict)
    _assignments: int = 0

    def run(self) -> None:
        """Work until `stop` says so.

        Raises:
            TopicError: an input topic does not exist, or an own one is wrong.
        """
        ensure_topics(self.config)
        self._prepare()
        self._batch_events = self.config.ingest.batch_events
        if any(s.embeds_texts for s in self._summarisers.values()):
            # What a worker loses when it is killed, and how long it is deaf to a rebalance.
            self._batch_events = min(self._batch_events, _TEXT_BATCH)
        self._n_partitions = {t: partition_count(self.config, t) for t in self._summarisers}
        self._n_panes = partition_count(self.config, self.config.topics.panes)
        self._idle_after_s = {
            topic: max(m.config.idle_after_ms for m in s.models.values()) / 1000
            for topic, s in self._summarisers.items()
        }
        name, lock = instance_name(self.config, "ingest")
        with lock:
            self._transactions = Transactions(self.config, name)
            self._consumer = consumer(
                self.config, f"{self.config.group}-ingest", {"group.instance.id": name}
            )
            try:
                self._consumer.subscribe(
                    list(self._summarisers),
                    on_assign=self._assigned,
                    on_revoke=self._revoked,
                    on_lost=self._revoked,
                )
                log.info("ingest %s reads %s", name, ", ".join(self._summarisers))
                # Cyclic garbage is not what decoding makes; looking for it costs a tenth.
                gc.freeze()
                self._work()
            finally:
                self._consumer.close()
        log.info("ingest stopped: %s", self.totals)

    def _work(self) -> None:
        reported = self.clock()
        while not self.stop():
            messages = self._consumer.consume(
                self._batch_events, self.config.ingest.commit_interval_ms / 1000
            )
            errors = [error for m in messages if (error := m.error()) is not None]
            for error in errors:
                raise_unless_passing(error)
            if errors:
                messages = [m for m in messages if m.error() is None]
            try:
                self._publish(self._once(messages))
            except Aborted:
                self._rewind()
            now = self.clock()
            if now - reported >= _REPORT_EVERY_S and self.totals.received:
                reported = now
                log.info("ingest: %s", self.totals)

    def _prepare(self) -> None:
        self._summarisers = summarisers(self.config, self.references)
        for summariser in self._summarisers.values():
            summariser.pulse = self._pulse
        self._n_references = {
            name: len(r.eras) for name, r in self.references.items() if len(r.eras) > 1
        }

    def _learn(self) -> None:
        """Take in what was promoted since; asked at every assignment, see `reference.switch`."""
        now = {name: history.read(m.reference) for name, m in self.config.models.items()}
        if any(now[name] != r.history for name, r in self.references.items()):
            self.references = references(self.config)
            self._prepare()
            log.info("ingest knows %s", said(self.references))

    def _summary(self, topic: str, batch: Messages) -> Summary:
        """The batch summarised, once every promotion that may concern it has ended.

        Raises:
            Aborted: partitions were assigned meanwhile, or the stage is to stop.
        """
        assignments = self._assignments
        while True:
            largest = {s.partition: s.largest_ms for s in self.sources.values() if s.topic == topic}
            summary = self._summarisers[topic].summarise(batch, largest)
            if self._assignments != assignments:
                raise Aborted("partitions were assigned anew while a batch was summarised")
            newest = max((ms for ms in summary.largest_ms.values() if ms is not None), default=None)
            if not (waiting := self._pending(topic, newest)):
                return summary
            log.warning(
                "the reference of %s is being changed, and events have come for which that matters: "
                "waiting for `driftline reference promote` to end (if it was killed, run it again, "
                "or `driftline reference withdraw`)",
                ", ".join(waiting),
            )
            while self._pending(topic, newest):
                if self.stop() or not self._consumer.assignment():
                    raise Aborted(
                        "stopped, or partitions lost, while a reference was being changed"
                    )
                time.sleep(_WAIT_S)
                self._pulse()
                self._learn()

    def _pending(self, topic: str, newest_ms: int | None) -> list[str]:
        """Models of a topic of which it is not settled what `newest_ms` is compared with."""
        return [
            m.config.name
            for m in self._summarisers[topic].models.values()
            if (known := self.references[m.config.name].history) is not None
            and known.pending is not None
            and newest_ms is not None
            and newest_ms >= known.pending.since_ms
        ]

    def _pulse(self) -> None:
        """Stay in the consumer group while a batch's texts are embedded, which takes longer than a
        consumer may be silent. Nothing is fetched meanwhile.

        Raises:
            Aborted: partitions were taken away, so the batch cannot be published.
        """
        owned = self._consumer.assignment()
        if not owned:
            return
        before = set(self.sources)
        self._consumer.pause(owned)
        try:
            # A paused consumer has no messages; what is served are rebalances and heartbeats.
            self._consumer.poll(0)
        finally:
            still = self._consumer.assignment()
            self._consumer.resume(still)
        if before - set(self.sources):
            raise Aborted("partitions were taken away while their texts were embedded")

    def _once(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Without what a rebalance in the midst of `consume` brought twice or took away."""
        positions = {key: source.position for key, source in self.sources.items()}
        once: list[Message] = []
        for m in messages:
            key = (m.topic() or "", m.partition() or 0)
            offset = m.offset() or 0
            if offset >= positions.get(key, 1 << 62):
                positions[key] = offset + 1
                once.append(m)
        return once

    def _publish(self, messages: Sequence[Message]) -> None:
        now = self.clock()
        summaries: list[tuple[Summariser, list[Message], Summary]] = []
        changed: dict[tuple[str, int], Source] = {}
        for topic, of_topic in self._by_topic(messages):
            summariser = self._summarisers[topic]
            partitions = np.array([m.partition() for m in of_topic], np.int64)
            batch = Messages(
                [m.value() for m in of_topic],
                partitions,
                np.array([_kafka_ms(m) for m in of_topic], np.int64),
            )
            summaries.append((summariser, of_topic, self._summary(topic, batch)))
        for summariser, of_topic, _ in summaries:
            for m in of_topic:
                key = (summariser.topic, m.partition() or 0)
                if key not in self.sources:
                    raise Aborted(
                        f"{key[0]}[{key[1]}] was taken away while its texts were embedded"
                    )
                changed[key] = self.sources[key]
        after: dict[tuple[str, int], Source] = {}
        for key, source in changed.items():
            after[key] = Source(
                source.topic, source.partition, source.position, source.largest_ms, now, False, True
            )
        for summariser, of_topic, summary in summaries:
            for m in of_topic:
                after[summariser.topic, m.partition() or 0].position = (m.offset() or 0) + 1
            for partition, largest_ms in summary.largest_ms.items():
                after[summariser.topic, partition].largest_ms = largest_ms
        for key, source in self.sources.items():
            if key not in after and (turned := self._turned_idle(source, now)) is not None:
                after[key] = turned
        if not after:
            return
        offsets = [
            TopicPartition(s.topic, s.partition, s.position, json.dumps({"ms": s.largest_ms}))
            for key, s in after.items()
            if key in changed
        ]
        self._transactions.run(self._consumer, offsets, self._messages(summaries, after))
        self.sources.update(after)
        for _, _, summary in summaries:
            for counts in summary.counts.values():
                self.totals.add(counts)

    @staticmethod
    def _by_topic(messages: Sequence[Message]) -> Iterator[tuple[str, list[Message]]]:
        topics: dict[str, list[Message]] = {}
        for m in messages:
            topics.setdefault(m.topic() or "", []).append(m)
        yield from topics.items()

    def _turned_idle(self, source: Source, now: float) -> Source | None:
        """The source as it is to be published, None when nothing is new about it."""
        quiet = now - source.last_message >= self._idle_after_s[source.topic]
        idle = quiet and (source.idle or self._at_end(source))
        if source.told and idle == source.idle:
            return None
        return Source(
            source.topic,
            source.partition,
            source.position,
            source.largest_ms,
            source.last_message,
            idle,
            True,
        )

    def _at_end(self, source: Source) -> bool:
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(source.topic, source.partition), timeout=2, cached=False
            )
            [at] = self._consumer.position([TopicPartition(source.topic, source.partition)])
        except KafkaException:
            return False
        # Behind the last message there may be transaction markers, which are never delivered.
        position = at.offset if at.offset >= 0 else source.position
        return high <= max(position, source.position, low)

    def _messages(
        self,
        summaries: Sequence[tuple[Summariser, list[Message], Summary]],
        after: Mapping[tuple[str, int], Source],
    ) -> Iterator[dict[str, Any]]:
        topics = self.config.topics
        counts: dict[tuple[str, int], Counts] = {}
        for summariser, of_topic, summary in summaries:
            for key, delta in summary.deltas:
                for part in delta.split():
                    yield {
                        "topic": topics.panes,
                        "key": key.encode(),
                        "value": part.encode(),
                        "headers": [(KIND_HEADER, DELTA.encode())],
                    }
            for i, error in summary.refused:
                yield dead_letter(topics.dead_letters, of_topic[i], error)
            for partition, c in summary.counts.items():
                counts[summariser.topic, partition] = c
        for topic in {t for t, _ in after}:
            progress = Progress(
                topic,
                self._n_partitions[topic],
                [
                    PartitionProgress(
                        s.partition,
                        s.position,
                        s.largest_ms,
                        s.idle,
                        counts[topic, s.partition].as_dict()
                        if (topic, s.partition) in counts
                        else None,
                    )
                    for (t, _), s in sorted(after.items())
                    if t == topic
                ],
                {
                    name: self._n_references[name]
                    for name in self._summarisers[topic].models
                    if name in self._n_references
                },
            ).encode()
            for partition in range(self._n_panes):
                yield {
                    "topic": topics.panes,
                    "partition": partition,
                    "value": progress,
                    "headers": [(KIND_HEADER, PROGRESS.encode())],
                }

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        now = self.clock()
        self._assignments += 1
        self._learn()
        begin: list[TopicPartition] = []
        for at in committed(consumer, partitions):
            position = at.offset if at.offset >= 0 else 0
            offset = at.offset if at.offset >= 0 else OFFSET_BEGINNING
            begin.append(TopicPartition(at.topic, at.partition, offset))
            self.sources[at.topic, at.partition] = Source(
                at.topic, at.partition, position, largest_ms(at.metadata), now
            )
        consumer.assign(begin)
        names = ", ".join(f"{p.topic}[{p.partition}]" for p in partitions)
        log.info("ingest takes over %s", names or "nothing")

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # librdkafka keeps a partition that is paused when it goes paused until it comes back.
        consumer.resume(partitions)
        for p in partitions:
            self.sources.pop((p.topic, p.partition), None)

    def _rewind(self) -> None:
        """Back to what was committed, for a batch whose transaction came to nothing."""
        mine = [TopicPartition(t, p) for t, p in self.sources]
        now = self.clock()
        for at in committed(self._consumer, mine):
            offset = at.offset if at.offset >= 0 else OFFSET_BEGINNING
            self._consumer.seek(TopicPartition(at.topic, at.partition, offset))
            self.sources[at.topic, at.partition] = Source(
                at.topic, at.partition, max(at.offset, 0), largest_ms(at.metadata), now
            )


def dead_letter(
    topic: str, message: Message, error: EventError, stage: str = "ingest"
) -> dict[str, Any]:
    """The dead letter of a message, as arguments for a producer."""
    value, truncated = cut_value(message.value(), MAX_DEAD_LETTER_BYTES)
    return {
        "topic": topic,
        "key": message.key(),
        "value": value,
        "headers": dead_letter_headers(
            message.topic() or "",
            message.partition() or 0,
            message.offset() or 0,
            error,
            stage,
            truncated,
        ),
    }


def committed(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    """Committed offsets with their metadata; waits while a broker is away or a transaction that
    commits some is being ended."""
    plain = [TopicPartition(p.topic, p.partition) for p in partitions]
    while plain:
        try:
            found = consumer.committed(plain, timeout=10)
            if all(p.error is None for p in found):
                return found
        except KafkaException as error:
            raise_unless_passing(error.args[0])
        time.sleep(0.1)
    return []


def largest_ms(metadata: str | None) -> int | None:
    """The largest event time of a partition, from the metadata of its committed offset."""
    if not metadata:
        return None
    try:
        value = json.loads(metadata)["ms"]
    except (ValueError, KeyError, TypeError):
        log.warning("offset metadata %r is not driftline's; lateness starts afresh", metadata)
        return None
    return None if value is None else int(value)


def _kafka_ms(message: Message) -> int:
    kind, ms = message.timestamp()
    return ms if kind else -1


_PASSING: Final = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._PARTITION_EOF,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._WAIT_COORD,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
    }
)


def raise_unless_passing(error: KafkaError) -> None:
    """Errors that librdkafka gets over by itself are logged by it; the others end the stage."""
    if error.fatal() or not (error.retriable() or error.code() in _PASSING):
        raise KafkaException(error)
