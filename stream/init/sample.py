"""A sample of a topic, read without a consumer group: nothing on the bus changes by looking."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from ...schemas.errors import ABSENT, ConfigError, DriftlineError, Problem, TopicError
from ..config.kafka import PRODUCER_ONLY, RESERVED, check_kafka_properties
from ..config.values import nearest

# A broker that answered the metadata request and then sends nothing for so long is not asked on.
SILENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message; `run` numbers the stretches that were read without a gap."""

    partition: int
    offset: int
    run: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """Messages from the beginning and the end of every partition, each run in offset order.

    offsets: partition → (first offset kept, offset after the last). log_append_time: whether the
    broker, not the producer, set the timestamps.
    """

    topic: str
    offsets: Mapping[int, tuple[int, int]]
    messages: tuple[Message, ...]
    log_append_time: bool

    @property
    def total(self) -> int:
        """Messages the topic keeps, counted by offsets (transaction markers included)."""
        return sum(end - start for start, end in self.offsets.values())


def read_sample(
    consumer_config: Mapping[str, Any], topic: str, sample: int, timeout_s: float = 15.0
) -> Sample:
    """At most about `sample` messages of `topic`, half from its beginning and half from its end.

    consumer_config: properties of a confluent-kafka consumer; those driftline sets itself are
        ignored. timeout_s: how long to wait for the first answer.

    Raises TopicError where the topic is not there or empty, DriftlineError where no broker
    answers, ConfigError where librdkafka refuses a property.
    """
    trouble: list[str] = []
    silent = logging.getLogger("driftline.librdkafka.init")
    silent.disabled = True
    usable = {
        k: v for k, v in consumer_config.items() if k not in RESERVED and k not in PRODUCER_ONLY
    }
    if complaints := check_kafka_properties(usable):
        raise ConfigError(
            [
                Problem(n, None, ABSENT, m, "see librdkafka's CONFIGURATION.md")
                for n, m in complaints
            ]
        )
    consumer = Consumer(
        {
            **usable,
            # The client wants a group's name, and with assign() alone it never joins one.
            "group.id": "driftline-init",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "error_cb": lambda error: trouble.append(error.str()),
        },
        logger=silent,
    )
    try:
        partitions = _partitions(consumer, topic, timeout_s, trouble)
        offsets = {
            p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=timeout_s)
            for p in partitions
        }
        return _read(consumer, topic, offsets, sample)
    except KafkaException as error:
        # Runs error_cb for what went wrong while a call was waiting.
        consumer.poll(0)
        raise _unreachable(usable, error.args[0], trouble) from None
    finally:
        consumer.close()


def _partitions(consumer: Consumer, topic: str, timeout_s: float, trouble: list[str]) -> list[int]:
    metadata = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
    code = None if metadata.error is None else metadata.error.code()
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION):
        others = [t for t in consumer.list_topics(timeout=timeout_s).topics if t[:2] != "__"]
        near = nearest(topic, others)
        listed = ", ".join(sorted(others)[:10]) or "none"
        hint = f"did you mean {near}?" if near else f"the topics are {listed}"
        raise TopicError(f"topic {topic!r} is not there; {hint}")
    if metadata.error is not None:
        raise TopicError(f"topic {topic!r} cannot be read: {metadata.error.str()}")
    return sorted(metadata.partitions)


def _read(
    consumer: Consumer, topic: str, offsets: dict[int, tuple[int, int]], sample: int
) -> Sample:
    half = max(1, sample // (2 * len(offsets)))
    # run number → partition → (from, to); a short partition is read whole, as one run.
    runs: list[dict[int, tuple[int, int]]] = [{}, {}]
    for partition, (start, end) in offsets.items():
        if end - start <= 2 * half:
            runs[0][partition] = (start, end)
        else:
            runs[0][partition] = (start, start + half)
            runs[1][partition] = (end - half, end)
    messages: list[Message] = []
    append_time = False
    for run, ranges in enumerate(runs):
        left = {p: end for p, (start, end) in ranges.items() if end > start}
        if not left:
            continue
        consumer.assign([TopicPartition(topic, p, ranges[p][0]) for p in left])
        heard = time.monotonic()
        while left and time.monotonic() - heard < SILENCE_S:
            for message in consumer.consume(1000, timeout=0.2):
                heard = time.monotonic()
                partition = message.partition()
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if partition is None or partition not in left:
                    continue
                offset = message.offset()
                if error is not None or offset is None or offset >= left[partition]:
                    # Behind the last message may lie transaction markers, which are not sent.
                    del left[partition]
                    continue
                kind, timestamp = message.timestamp()
                append_time |= kind == TIMESTAMP_LOG_APPEND_TIME
                messages.append(
                    Message(
                        partition,
                        offset,
                        run,
                        None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
                        _bytes(message.key()),
                        _bytes(message.value()),
                        tuple((n, _bytes(v) or b"") for n, v in message.headers() or ()),
                    )
                )
                if offset + 1 >= left[partition]:
                    del left[partition]
    if not messages:
        raise TopicError(
            f"topic {topic!r} holds no messages to look at; run init again when some have arrived",
            retry=True,
        )
    return Sample(topic, offsets, tuple(messages), append_time)


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def _unreachable(
    config: Mapping[str, Any], error: KafkaError, trouble: list[str]
) -> DriftlineError:
    # librdkafka's last words are "all brokers down"; why, it said before.
    said = [text for text in trouble if "brokers are down" not in text] or [error.str()]
    return DriftlineError(
        f"no answer from Kafka at {config.get('bootstrap.servers', '(no bootstrap.servers)')}: "
        f"{said[0]}; check bootstrap.servers and the security settings",
        retry=error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT),
    )
