"""The alert stage: verdicts in, alerts out, on Faust.

    driftline.drift ──▶ agent ──▶ driftline.alerts          (CloudEvents headers, compacted by key)
                          │▲
                          ▼│ one row per alert key
                      table, kept in <group>-alert-rows-changelog

What happens is decided by `incident.step`, or with `group_by: feature` by `lifecycle.step`; this
file is the order of what one verdict changes:

    1. the alert, if there is one, is acknowledged by the broker
    2. the row, if it changed, is acknowledged by the changelog
    3. the row is put into the table
    4. the verdict's offset may be committed

A SIGKILL between two of them means that the verdict is read again. Before 2, the same step is made
from the same row and the same alert is sent again, byte for byte; after 2, the row says that the
verdict was applied. So an alert may come twice, with one id, and is never lost. Faust on its own
would commit the offset without waiting for 2: assigning to a table only queues the row, and the
flush before a commit gives up after 0.1 s, so a row could be lost that its offset says is there.
Hence `send_changelog`, awaited.

Faust's own processing is at-least-once; its exactly-once mode was tried and publishes twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
import time
from typing import Any, cast

import faust
import orjson
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage]
    NewTopic,  # pyright: ignore[reportPrivateImportUsage]
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)
from faust.types import EventT
from mode import get_logger
from mode.supervisors import CrashingSupervisor

from ...schemas.cloudevents import LOOK_HEADER, alert_headers
from ...schemas.errors import EventError, TopicError
from ...schemas.verdict import Verdict
from ..clients import admin, ensure_topics, partition_count
from ..config.document import Config
from ..logs import OneLine, log_to_stderr
from . import incident, lifecycle
from .faust_consumer import CommittedConsumer, CommittedTransport
from .faust_settings import faust_settings

BROKER_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 8.0
LIBRARIES = ("faust", "mode", "aiokafka", "asyncio")
REPEAT_AFTER_S = 30.0
# Rows are rewritten while an alert fires; small segments let compaction forget the old ones, so
# that a worker reads little before it starts. 1 MiB is the least Kafka allows.
CHANGELOG_CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 * 1024**2),
    "segment.ms": str(3_600_000),
    "min.cleanable.dirty.ratio": "0.1",
}

log = logging.getLogger("driftline.alert")


class _App(faust.App):
    logger = get_logger("faust.app")

    def _create_directories(self) -> None:
        """None are needed, since tables live in memory; Faust makes them where it was started."""


def build_app(config: Config) -> faust.App:
    """The Faust application, with its topics checked and its changelog topic there.

    Workers of one `group` share the partitions of the drift topic, and so the keys.

    Raises TopicError: no broker answers, a topic is missing and cannot be created, or the changelog
    does not fit. ConfigError: a client property has no counterpart in Faust.
    """
    settings = faust_settings(config.client_properties())
    name = f"{config.group}-alert"
    ensure_topics(config)
    partitions = _prepare_changelog(config, f"{name}-rows-changelog")
    app = _App(
        name,
        **settings,
        store="memory://",
        web_enabled=False,
        topic_partitions=partitions,
        topic_replication_factor=config.topics.replication_factor,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        # Partitions are given up only when the verdict in hand is done: else its row could come
        # into the changelog behind those of the worker that takes over.
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
    )
    app.transport = CommittedTransport(app.conf.broker_consumer, app)
    raw: dict[str, Any] = {
        "key_type": bytes,
        "value_type": bytes,
        "key_serializer": "raw",
        "value_serializer": "raw",
        "allow_empty": True,
    }
    drift = app.topic(config.topics.drift, **raw)
    alerts = app.topic(config.topics.alerts, **raw)
    rows = app.Table("rows", partitions=partitions)
    resolve_after = config.alerts.resolve_after
    whole_model = config.alerts.group_by == "model"

    async def handle(event: EventT) -> None:
        verdict = _decode(event)
        if verdict is None:
            return
        key = incident.key_of(verdict) if whole_model else lifecycle.key_of(verdict)
        row = rows.get(key)
        if whole_model:
            new_row, alert = incident.step(row, verdict, _look(event), resolve_after)
        else:
            new_row, alert = lifecycle.step(row, verdict, resolve_after)
        if new_row is row:
            return
        consumer = cast(CommittedConsumer, app.consumer)
        if alert is not None:
            await consumer.confirm_membership()
            headers = dict(alert_headers(alert, verdict["window"]["end"]))
            await (await alerts.send(key=key.encode(), value=alert.to_json(), headers=headers))
            log.info("%s %s %s: %s", alert.state, alert.severity, alert.id, alert.summary)
        await consumer.confirm_membership()
        await rows.send_changelog(event.message.partition, key, new_row)
        rows.data[key] = new_row

    # Restarting only the agent, as Faust does, would go on behind the verdict that failed.
    @app.agent(drift, name="alert", supervisor_strategy=CrashingSupervisor)
    async def alert_agent(stream: Any) -> None:
        # Acknowledged by hand: otherwise a verdict whose handling fails counts as handled.
        stream = stream.noack()
        async for event in stream.events():
            await handle(event)
            await stream.ack(event)

    return app


def _decode(event: EventT) -> dict[str, Any] | None:
    """The verdict of a message; None for one that is none, which is logged and left."""
    message = event.message
    value: bytes | None = message.value
    try:
        if value is None:
            raise EventError("tombstone", "the message has no value")
        return Verdict.from_json(value).model_dump()
    except EventError as error:
        log.warning(
            "skipped %s[%d]@%d, not a verdict: %s",
            message.topic, message.partition, message.offset, error,
        )  # fmt: skip
        return None


def _look(event: EventT) -> dict[str, Any] | None:
    """What the verdict carries, if it is the last of a look."""
    carried = dict(event.message.headers or {}).get(LOOK_HEADER)
    return None if carried is None else orjson.loads(carried)


def _prepare_changelog(config: Config, changelog: str) -> int:
    """Partitions of the drift topic, once the changelog is there and fits to it."""
    partitions = partition_count(config, config.topics.drift)
    client = admin(config)
    new = NewTopic(changelog, partitions, config.topics.replication_factor, config=CHANGELOG_CONFIG)
    try:
        client.create_topics([new])[changelog].result(BROKER_TIMEOUT_S)
        return partitions
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise TopicError(
                f"cannot create topic {changelog!r} ({error.args[0].str()}), which keeps the state "
                f"of the alerts; create it yourself with {partitions} partitions and "
                f"{CHANGELOG_CONFIG}",
                retry=error.args[0].retriable(),
            ) from None
    found = partition_count(config, changelog)
    resource = ConfigResource(ResourceType.TOPIC, changelog)
    settings = client.describe_configs([resource])[resource].result(BROKER_TIMEOUT_S)
    policy = str(settings["cleanup.policy"].value)
    if found == partitions and policy == "compact":
        return partitions
    raise TopicError(
        f"topic {changelog!r} has {found} partitions and cleanup.policy={policy}; it needs "
        f"{partitions} like {config.topics.drift!r}, since the state of an alert lies in the "
        "partition of its verdicts, and compact, or state is lost. Stop the alert stage, delete "
        f"this topic and the consumer group {config.group}-alert, and start again: all verdicts "
        "are read again, and alerts that were published before come again under the same ids"
    )


def main(config: Config, log_level: str = "INFO") -> int:
    """Runs the stage until SIGTERM or SIGINT (exit code 0) or until it fails (1).

    After a failure nothing is lost: what started it again goes on behind the last verdict handled.
    log_level: of driftline's own lines on stderr; the libraries' begin at WARNING, or at DEBUG.
    Raises what `build_app` raises.
    """
    log_to_stderr(log_level)
    _tame_libraries(log_level)
    return asyncio.run(_run(config))


async def _run(config: Config) -> int:
    app = build_app(config)
    stop = asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    start = asyncio.create_task(app.start())
    ended = {asyncio.create_task(stop.wait()), asyncio.create_task(app.wait_until_stopped())}
    try:
        await asyncio.wait({start, *ended}, return_when=asyncio.FIRST_COMPLETED)
        if start.done() and start.exception() is None and not any(t.done() for t in ended):
            log.info("reading %s, writing %s", config.topics.drift, config.topics.alerts)
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    finally:
        reason = app.crash_reason or (start.exception() if start.done() else None)
        await _stop(app, start)
    if stop.is_set():
        log.info("stopped")
        return 0
    log.error("the alert stage failed and ends: %s: %s", type(reason).__name__, reason)
    return 1


async def _stop(app: faust.App, start: asyncio.Task[None]) -> None:
    """Stops what started, within `STOP_TIMEOUT_S`: without a broker Faust would wait for one."""
    if not start.done():
        start.cancel()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await app.stop()
    except TimeoutError:
        log.warning("not stopped within %.0f s; what is open is read again", STOP_TIMEOUT_S)
    except Exception as error:
        log.warning("while stopping: %s: %s", type(error).__name__, error)
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await start
    # What is left over after a stop without a broker is of no interest.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


class _Sparing(logging.Filter):
    """Lets Faust repeat a message, and each part of aiokafka say anything, every `REPEAT_AFTER_S`
    only: aiokafka has a dozen ways to say that a broker is away."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message = "" if record.name.startswith("aiokafka") else str(record.msg)
        what, now = (record.name, message), time.monotonic()
        if now - self._said.get(what, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return False
        if len(self._said) > 1000:
            self._said.clear()
        self._said[what] = now
        return True


def _tame_libraries(level: str) -> None:
    """What Faust and aiokafka say: warnings, in our style, and everything when debugging."""
    debugging = logging.getLevelName(level.upper()) <= logging.DEBUG
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(debugging))
    handler.addFilter(_Sparing())
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers[:] = [handler]
        library.propagate = False
        library.setLevel(logging.DEBUG if debugging else logging.WARNING)
    # It misses a sensor at every rebalance.
    logging.getLogger("faust.app").setLevel(logging.DEBUG if debugging else logging.ERROR)
