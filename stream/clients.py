"""Kafka clients as every stage wants them, and the topics they write to."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage]
    NewTopic,  # pyright: ignore[reportPrivateImportUsage]
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)

from ..schemas.errors import DriftlineError, TopicError
from ..schemas.units import format_duration
from .config.document import Config

log = logging.getLogger(__name__)

# After a SIGKILL the broker waits this long for the dead member, and keeps its open transaction
# this long unless its successor comes first. Both bound how long verdicts can pause.
SESSION_TIMEOUT_MS: Final = 6_000
TRANSACTION_TIMEOUT_MS: Final = 8_000

# How long one step of a transaction is tried again before the transaction is given up.
_PATIENCE_S: Final = 4.0

# librdkafka's calls may outlast their time-out when a broker comes back in the midst of one.
_HANGS_AFTER_S: Final = 15.0

_KAFKA_LOG: Final = logging.getLogger("driftline.kafka")


class _OncePerOutage(logging.Filter):
    """librdkafka repeats "connection refused" twenty times a second while a broker is away."""

    def __init__(self, every_s: float = 30.0) -> None:
        super().__init__()
        self.every_s = every_s
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        kind = text.split("[", 1)[0].strip()[:60]
        now = time.monotonic()
        with self._lock:
            if now - self._said.get(kind, -self.every_s) < self.every_s:
                return False
            self._said[kind] = now
        return True


_KAFKA_LOG.addFilter(_OncePerOutage())


def instance_name(config: Config, stage: str) -> tuple[str, IO[Any]]:
    """A name for this process among those of its stage on this host, and the lock that holds it.

    The first free number is taken, and the system frees it when the process dies, however it dies:
    so a successor has the same name, and Kafka knows it for the same member and the same producer.
    Keep the lock open as long as the process runs.
    """
    servers = str(config.client_properties().get("bootstrap.servers", ""))
    scope = f"{os.getuid()}|{servers}|{config.group}|{stage}|{config.topics.prefix}"
    digest = hashlib.sha256(scope.encode()).hexdigest()[:16]
    for number in range(10_000):
        path = os.path.join(tempfile.gettempdir(), f"driftline-{digest}-{number}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.fdopen(os.open(path, flags, 0o600), "r+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return f"{config.group}-{stage}-{socket.gethostname()}-{number}", handle
        except BlockingIOError:
            handle.close()
    raise DriftlineError(f"10,000 processes of stage {stage} run on this host already")


def consumer(
    config: Config, group: str | None = None, own: Mapping[str, Any] | None = None
) -> Consumer:
    """A consumer that reads committed messages; without a group, for `assign` only."""
    properties = {
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 100,
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "heartbeat.interval.ms": 1_500,
        "queued.max.messages.kbytes": 131_072,
        "fetch.message.max.bytes": 8_388_608,
        **config.client_properties("consumer"),
        "group.id": group or f"{config.group}-unused",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        **(own or {}),
    }
    return Consumer(properties, logger=_KAFKA_LOG)


def producer(config: Config, own: Mapping[str, Any] | None = None) -> Producer:
    """A producer whose partitioner is the Java client's."""
    properties = {
        "linger.ms": 5,
        "compression.type": "lz4",
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 524_288,
        **config.client_properties("producer"),
        "partitioner": "murmur2_random",
        **(own or {}),
    }
    return Producer(properties, logger=_KAFKA_LOG)


def admin(config: Config) -> AdminClient:
    return AdminClient(config.client_properties("producer"), logger=_KAFKA_LOG)


class Aborted(Exception):
    """A transaction came to nothing; the messages it stood for must be read again."""


class Transactions:
    """Batches of messages published together with the offsets they were made from.

    Args:
        name: the transactional id; a successor with the same name ends what this one left open.
    """

    def __init__(self, config: Config, name: str) -> None:
        self._config, self._name = config, name
        self._open()

    def _open(self) -> None:
        self.producer = producer(
            self._config,
            {
                "transactional.id": self._name,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "message.max.bytes": 20_000_000,
            },
        )
        _again(self.producer.init_transactions)

    def run(
        self,
        source: Consumer | None,
        offsets: Sequence[TopicPartition],
        messages: Iterable[Mapping[str, Any]],
    ) -> None:
        """Publish `messages` (arguments of `Producer.produce`) and commit `offsets`, or neither.

        Raises:
            Aborted: neither, or it cannot be known; start over from the committed offsets.
        """
        guard = threading.Timer(_HANGS_AFTER_S, _end_process)
        guard.daemon = True
        guard.start()
        try:
            self.producer.begin_transaction()
            for message in messages:
                self._produce(message)
            if source is not None and offsets:
                metadata = source.consumer_group_metadata()
                _again(
                    lambda left: self.producer.send_offsets_to_transaction(
                        list(offsets), metadata, left
                    ),
                    patience_s=_PATIENCE_S,
                )
            _again(self.producer.commit_transaction, patience_s=_PATIENCE_S)
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if cause.fatal():
                raise
            log.warning("transaction given up, its messages will be read again: %s", cause.str())
            self._give_up()
            raise Aborted(cause.str()) from error
        finally:
            guard.cancel()

    def _give_up(self) -> None:
        """End the transaction, whatever became of it."""
        try:
            _again(self.producer.abort_transaction, patience_s=_PATIENCE_S)
        except KafkaException:
            # After a broker's restart librdkafka may answer "try again" for ever. A new producer
            # of the same name makes the coordinator finish the old one's transaction either way.
            self.producer.purge()
            self._open()

    def _produce(self, message: Mapping[str, Any]) -> None:
        while True:
            try:
                self.producer.produce(**message)
                return
            except BufferError:
                self.producer.poll(0.1)


def _end_process() -> None:
    """What SIGKILL would do: whoever starts this process again finds all that was committed."""
    log.error(
        "a transaction has not come back for %.0f s; this process ends, to be started again",
        _HANGS_AFTER_S,
    )
    os._exit(1)


def _again(call: Callable[[float], Any], patience_s: float | None = None) -> None:
    """Call until it succeeds, fails for good, or has asked to be called again for `patience_s`."""
    begun = time.monotonic()
    while True:
        try:
            call(2.0)
            return
        except KafkaException as error:
            late = patience_s is not None and time.monotonic() - begun >= patience_s
            if late or not error.args[0].retriable():
                raise


def ensure_topics(config: Config, *, needs_ms: int | None = None) -> None:
    """Create the topics driftline writes to where they are missing, and check those that are there.

    Args:
        needs_ms: how long panes must be kept for the windows of all models.

    Raises:
        TopicError: a topic cannot be created, or loses what a guarantee rests on.
    """
    client = admin(config)
    topics = config.topics
    if needs_ms is None:
        needs_ms = max(model.retention_ms for model in config.models.values())
    # Panes are kept by Kafka's clock and needed by the events': twice, and a day, leaves room.
    panes_retention = 2 * needs_ms + 86_400_000
    compacted = {"cleanup.policy": "compact", "segment.ms": "3600000", "segment.bytes": "16777216"}
    wanted: dict[str, dict[str, str]] = {
        topics.panes: {"retention.ms": str(panes_retention), "segment.ms": "3600000"},
        topics.drift: {},
        topics.alerts: compacted,
        topics.dead_letters: {"max.message.bytes": "20000000"},
        topics.state: compacted | {"min.cleanable.dirty.ratio": "0.1"},
    }
    there = _metadata(client).topics
    missing = [name for name in wanted if name not in there]
    new = [
        NewTopic(
            name,
            num_partitions=topics.partitions,
            replication_factor=topics.replication_factor,
            config=wanted[name],
        )
        for name in missing
    ]
    for name, future in (client.create_topics(new, operation_timeout=30) if new else {}).items():
        try:
            future.result()
            log.info("created topic %s with %d partitions", name, topics.partitions)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicError(
                    f"cannot create topic {name!r} ({error.args[0].str()}); create it yourself "
                    f"with {topics.partitions} partitions and {wanted[name] or 'default settings'}"
                ) from error
    _check(client, config, needs_ms)


def _check(client: AdminClient, config: Config, needs_ms: int) -> None:
    topics = config.topics
    deadline = time.monotonic() + 15
    while True:
        there = _metadata(client).topics
        names = (topics.panes, topics.state, topics.drift)
        counts = {n: len(there[n].partitions) for n in names if n in there}
        if len(counts) == len(names) and all(counts.values()):
            break
        if time.monotonic() > deadline:
            raise TopicError(f"topics {names} were created but cannot be seen; found {counts}")
        time.sleep(0.1)
    if counts[topics.state] < counts[topics.panes]:
        raise TopicError(
            f"topic {topics.state!r} has {counts[topics.state]} partitions and {topics.panes!r} "
            f"{counts[topics.panes]}: the state of each panes partition lives in the partition of "
            f"the same number; add partitions to {topics.state!r}"
        )
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in (topics.panes, topics.state)]
    found = {r.name: f.result() for r, f in client.describe_configs(resources).items()}
    keeps = int(found[topics.panes]["retention.ms"].value)
    if 0 <= keeps < needs_ms:
        raise TopicError(
            f"topic {topics.panes!r} keeps messages for {format_duration(keeps)} (retention.ms), and "
            f"the configured windows need panes for {format_duration(needs_ms)}; the panes topic "
            f"is detect's memory: set retention.ms={2 * needs_ms + 86_400_000} on it"
        )
    if "compact" not in found[topics.state]["cleanup.policy"].value:
        raise TopicError(
            f"topic {topics.state!r} has cleanup.policy="
            f"{found[topics.state]['cleanup.policy'].value}; it must be compact, or state is lost"
        )


def _metadata(client: AdminClient) -> Any:
    try:
        return client.list_topics(timeout=15)
    except KafkaException as error:
        raise TopicError(
            f"no broker answers ({error.args[0].str()}); check kafka.bootstrap.servers and that "
            "the broker runs",
            retry=True,
        ) from error


def partition_count(config: Config, topic: str) -> int:
    """How many partitions a topic has.

    Raises:
        TopicError: it does not exist.
    """
    metadata = _metadata(admin(config)).topics.get(topic)
    if metadata is None or not metadata.partitions:
        raise TopicError(
            f"topic {topic!r} does not exist; check `input.topic`, or create it before driftline "
            "reads it"
        )
    return len(metadata.partitions)
