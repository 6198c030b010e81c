"""The detect stage: pane deltas and progress → verdicts.

One `Monitor` per panes partition. Verdicts, offsets and the mark from which the open windows can be
read again are published in one transaction; after a crash a new monitor starts at the mark, reads
in silence up to the committed offset, and goes on from there.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from ..schemas.cloudevents import LOOK_HEADER, VERDICT_TYPE, headers, source_of
from ..schemas.errors import EventError
from ..schemas.pane import KIND_HEADER, PROGRESS, Delta, Progress
from .clients import Aborted, Transactions, consumer, ensure_topics, instance_name
from .config.document import Config
from .ingest import committed, dead_letter, raise_unless_passing
from .monitor import START, Mark, Monitor
from .profiles import Reference
from .reference.check import references, said
from .verdicts import Verdict

log = logging.getLogger(__name__)

STATE_FORMAT = 1


@dataclass(slots=True)
class _Partition:
    """A panes partition this worker owns. resume: the offset up to which it has published."""

    number: int
    monitor: Monitor
    resume: int
    position: int


@dataclass
class Detect:
    """One detect worker. stop: asked between batches whether to end."""

    config: Config
    references: Mapping[str, Reference]
    stop: Callable[[], bool]
    verdicts: int = 0
    partitions: dict[int, _Partition] = field(default_factory=dict)
    _said: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Work until `stop` says so.

        Raises:
            TopicError: a topic is missing or wrong.
        """
        ensure_topics(self.config)
        name, lock = instance_name(self.config, "detect")
        with lock:
            self._transactions = Transactions(self.config, name)
            self._consumer = consumer(
                self.config, f"{self.config.group}-detect", {"group.instance.id": name}
            )
            try:
                self._consumer.subscribe(
                    [self.config.topics.panes],
                    on_assign=self._assigned,
                    on_revoke=self._revoked,
                    on_lost=self._revoked,
                )
                log.info("detect %s reads %s", name, self.config.topics.panes)
                gc.freeze()
                while not self.stop():
                    self._step()
            finally:
                self._consumer.close()
        log.info("detect stopped: %d verdicts", self.verdicts)

    def _step(self) -> None:
        messages = self._consumer.consume(500, 0.1)
        batches: dict[int, list[Message]] = {}
        for m in messages:
            if (error := m.error()) is not None:
                raise_unless_passing(error)
            elif m.partition() in self.partitions:
                batches.setdefault(m.partition() or 0, []).append(m)
        try:
            for number, batch in batches.items():
                self._handle(self.partitions[number], batch)
        except Aborted:
            self._restart()

    def _handle(self, partition: _Partition, batch: list[Message]) -> None:
        verdicts: list[Verdict] = []
        refused: list[tuple[Message, EventError]] = []
        for m in batch:
            offset = m.offset() or 0
            if offset < partition.position:
                continue  # a rebalance in the midst of `consume` brought it twice
            silent = offset < partition.resume
            partition.monitor.quiet = silent
            try:
                made = list(take_in(partition.monitor, m, offset))
            except EventError as error:
                made = []
                if not silent:
                    refused.append((m, error))
            verdicts += made
            partition.position = offset + 1
        if partition.position <= partition.resume:
            return
        topic = self.config.topics.panes
        offsets = [TopicPartition(topic, partition.number, partition.position)]
        self._transactions.run(
            self._consumer, offsets, self._messages(partition, verdicts, refused)
        )
        partition.resume = partition.position
        self.verdicts += len(verdicts)
        self._say_what_was_left_out(partition)

    def _say_what_was_left_out(self, partition: _Partition) -> None:
        """Parts of panes that could not be used: counted, and said when it begins and every ten
        times as many."""
        for profile, n in partition.monitor.foreign.items():
            if n > 10 * self._said.get(profile, 0):
                log.warning(
                    "%d pane deltas were made against profile %s, which is not the "
                    "reference configured here; restart ingest and detect with one "
                    "reference",
                    n,
                    profile,
                )
                self._said[profile] = n
        dropped = partition.monitor.dropped_events
        where = f"dropped {partition.number}"
        if dropped > 10 * self._said.get(where, 0):
            log.warning(
                "%d events came for panes that had closed while their partition was taken "
                "for idle; raise idle_after if producers pause for longer",
                dropped,
            )
            self._said[where] = dropped

    def _messages(
        self,
        partition: _Partition,
        verdicts: list[Verdict],
        refused: list[tuple[Message, EventError]],
    ) -> Iterator[dict[str, Any]]:
        topics = self.config.topics
        for v in verdicts:
            yield verdict_message(topics.drift, v)
        for m, error in refused:
            log.warning("%s[%d]@%d: %s", m.topic(), m.partition(), m.offset(), error)
            yield dead_letter(topics.dead_letters, m, error, "detect")
        state = {
            "format": STATE_FORMAT,
            "position": partition.position,
            "mark": partition.monitor.mark(partition.position).to_json(),
        }
        yield {
            "topic": topics.state,
            "partition": partition.number,
            "key": self._state_key(partition.number),
            "value": orjson.dumps(state),
        }

    def _state_key(self, number: int) -> bytes:
        return f"{self.config.group}/detect/{self.config.topics.panes}/{number}".encode()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        begin: list[TopicPartition] = []
        for at in committed(consumer, partitions):
            number = at.partition
            state = self._last_state(number) if at.offset >= 0 else None
            mark, resume = START, 0
            if at.offset >= 0:
                resume = at.offset
                if state is not None and state["position"] == at.offset:
                    mark = Mark.from_json(state["mark"])
                else:
                    log.warning(
                        "%s[%d]: the state does not belong to the committed offset %d (%s); reading "
                        "the partition again from its beginning",
                        at.topic,
                        number,
                        at.offset,
                        "none found" if state is None else f"it is of {state['position']}",
                    )
            monitor = Monitor(self.config, self.references, mark, self._ask)
            self.partitions[number] = _Partition(number, monitor, resume, mark.offset)
            begin.append(TopicPartition(at.topic, number, mark.offset))
            log.info(
                "detect takes over %s[%d] at %d, reading again from %d",
                at.topic,
                number,
                resume,
                mark.offset,
            )
        consumer.assign(begin)

    def _ask(self, model: str) -> Reference:
        """A model's reference as it stands now: the log speaks of one that was promoted since."""
        self.references = references(self.config)
        log.info("detect knows %s", said(self.references))
        return self.references[model]

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            self.partitions.pop(p.partition, None)

    def _restart(self) -> None:
        """Begin again as after a crash: the monitors have taken in what was not published."""
        owned = [TopicPartition(self.config.topics.panes, n) for n in self.partitions]
        self.partitions.clear()
        self._assigned(self._consumer, owned)

    def _last_state(self, number: int) -> dict[str, Any] | None:
        """The newest state of a panes partition, None when there is none."""
        reader = consumer(self.config, own={"enable.partition.eof": True})
        topic = self.config.topics.state
        found: dict[str, Any] | None = None
        try:
            reader.assign([TopicPartition(topic, number, 0)])
            while True:
                for m in reader.consume(1000, 1.0):
                    error = m.error()
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            return found
                        raise_unless_passing(error)
                    elif m.key() == self._state_key(number) and m.value():
                        state = orjson.loads(m.value() or b"")
                        found = state if state["format"] == STATE_FORMAT else None
        finally:
            reader.close()


def take_in(monitor: Monitor, message: Message, offset: int) -> Iterator[Verdict]:
    """Give the monitor one message of the panes topic; yields the verdicts it leads to.

    Raises:
        EventError: nothing that ingest writes.
    """
    value = message.value()
    kinds = [v for k, v in message.headers() or [] if k == KIND_HEADER]
    if value is None or not kinds:
        raise EventError(
            "bad_pane",
            f"a message without {'a value' if value is None else f'the header {KIND_HEADER}'}; "
            "only driftline's ingest may write to this topic",
        )
    if kinds[-1] == PROGRESS.encode():
        yield from monitor.progress(offset, Progress.decode(value))
    else:
        monitor.delta(offset, Delta.decode(value))


def verdict_message(topic: str, verdict: Verdict) -> dict[str, Any]:
    """A verdict as arguments for a producer."""
    sent = headers(VERDICT_TYPE, verdict.id, source_of(verdict.model), verdict.time)
    if verdict.look is not None:
        sent.append((LOOK_HEADER, verdict.look))
    return {
        "topic": topic,
        "key": verdict.key.encode(),
        "value": verdict.value,
        "headers": sent,
    }
