"""The alert stage: verdicts in, alerts out, on Faust.

    driftline.drift ──▶ agent ──▶ driftline.alerts          (CloudEvents headers, compacted by key)
                          │▲
                          ▼│ one row per alert key
                      table, kept in <group>-alert-rows-changelog

What happens is decided by `alerting.step`; this file is the order of the four writes of one verdict:

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
import shutil
import signal
import sys
import tempfile
import threading
import time
from typing import Any

import faust
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from faust.types import EventT, StreamT
from mode.supervisors import CrashingSupervisor

from ..schemas.cloudevents import alert_headers
from ..schemas.errors import DriftlineError, EventError, TopicError
from ..schemas.verdict import Verdict
from . import alerting
from .config import Config
from .faust_consumer import CommittedTransport
from .faust_settings import faust_settings

BROKER_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 8.0
LIBRARIES = ("faust", "mode", "aiokafka", "asyncio")
REPEAT_AFTER_S = 30.0
# Rows are rewritten while an alert fires; small segments let compaction forget the old ones, so that
# a worker reads little before it starts. 1 MiB is the least Kafka allows.
CHANGELOG_CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 * 1024**2),
    "segment.ms": str(3_600_000),
    "min.cleanable.dirty.ratio": "0.1",
}

log = logging.getLogger("driftline.alert")


def build_app(config: Config) -> faust.App:
    """The Faust application, with its topics checked and its changelog topic there.

    Workers of one `group` share the partitions of the drift topic, and so the keys.

    Raises TopicError: the drift or the alerts topic is missing, or the changelog does not fit.
    ConfigError: a client property has no counterpart in Faust. DriftlineError: no broker answers.
    """
    settings = faust_settings(config.client_properties())
    name = f"{config.group}-alert"
    partitions = _prepare_topics(config, f"{name}-rows-changelog")
    app = faust.App(
        name,
        **settings,
        datadir=tempfile.mkdtemp(prefix="driftline-alert-"),
        store="memory://",
        web_enabled=False,
        topic_partitions=partitions,
        topic_replication_factor=config.topics.replication_factor,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=__import__("os").environ.get("INST"),
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

    async def handle(event: EventT) -> None:
        verdict = _decode(event)
        if verdict is None:
            return
        key = alerting.key_of(verdict)
        row = rows.get(key)
        new_row, alert = alerting.step(row, verdict, resolve_after)
        if alert is not None:
            headers = dict(alert_headers(alert, verdict["window"]["end"]))
            await (await alerts.send(key=key.encode(), value=alert.to_json(), headers=headers))
            log.info("%s %s %s: %s", alert.state, alert.severity, alert.id, alert.summary)
        if new_row is not row:
            await rows.send_changelog(event.message.partition, key, new_row)
            rows.data[key] = new_row

    # Restarting only the agent, as Faust does, would go on behind the verdict that failed.
    @app.agent(drift, name="alert", supervisor_strategy=CrashingSupervisor)
    async def alert_agent(stream: StreamT) -> None:
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


def _prepare_topics(config: Config, changelog: str) -> int:
    """Partitions of the drift topic, once it, the alerts topic and the changelog are found fit."""
    silent = logging.Logger("librdkafka")
    silent.addHandler(logging.NullHandler())
    servers = config.client_properties()["bootstrap.servers"]
    try:
        admin = AdminClient(config.client_properties("admin"), logger=silent)
        # All of them: asking for one that is missing may create it.
        topics = admin.list_topics(timeout=BROKER_TIMEOUT_S).topics
    except KafkaException as error:
        reason = error.args[0].str()
        raise DriftlineError(
            f"{servers}: no broker answered within {BROKER_TIMEOUT_S:.0f} s ({reason}); "
            "start it, or correct kafka.bootstrap.servers in driftline.yaml",
            retry=True,
        ) from None
    for topic in (config.topics.drift, config.topics.alerts):
        if topic not in topics:
            raise TopicError(
                f"the topic {topic} does not exist on {servers}; create it with `driftline run`, "
                "or correct `topics` in driftline.yaml"
            )
    partitions = len(topics[config.topics.drift].partitions)
    if changelog not in topics:
        _create(admin, changelog, partitions, config.topics.replication_factor)
        return partitions
    found = len(topics[changelog].partitions)
    if found != partitions:
        raise TopicError(
            f"{changelog} has {found} partitions and {config.topics.drift} has {partitions}; rows "
            "lie in the partition of their verdicts, so both must be equal. "
            + _rebuild(config, changelog)
        )
    policy = _cleanup_policy(admin, changelog)
    if policy != "compact":
        raise TopicError(
            f"{changelog} has cleanup.policy={policy}; it must be compact, since it holds the state "
            "of every firing alert. " + _rebuild(config, changelog)
        )
    return partitions


def _rebuild(config: Config, changelog: str) -> str:
    return (
        f"Stop the alert stage, delete the topic {changelog} and the consumer group "
        f"{config.group}-alert, and start again: all verdicts are read again, and alerts that were "
        "published before come again under the same ids"
    )


def _create(admin: AdminClient, topic: str, partitions: int, replication_factor: int) -> None:
    new = NewTopic(topic, partitions, replication_factor, config=CHANGELOG_CONFIG)
    try:
        admin.create_topics([new])[topic].result(BROKER_TIMEOUT_S)
    except KafkaException as error:
        # Another worker, starting at the same time, was first.
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise TopicError(
                f"cannot create {topic} ({error.args[0].str()}); it holds the state of the alerts: "
                f"create it with {partitions} partitions and cleanup.policy=compact"
            ) from None


def _cleanup_policy(admin: AdminClient, topic: str) -> str:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    found = admin.describe_configs([resource])[resource].result(BROKER_TIMEOUT_S)
    return str(found["cleanup.policy"].value)


def main(config: Config, log_level: str = "INFO") -> int:
    """Runs the stage until SIGTERM or SIGINT (exit code 0) or until it fails (1).

    After a failure nothing is lost: what started it again goes on behind the last verdict handled.
    log_level: of driftline's own lines on stderr; the libraries' begin at WARNING, or at DEBUG.
    Raises what `build_app` raises.
    """
    log_to_stderr(log_level)
    return asyncio.run(_run(config))


async def _run(config: Config) -> int:
    app = build_app(config)
    stop = asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    start = asyncio.create_task(app.start())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((start, stopped), return_when=asyncio.FIRST_COMPLETED)
        if start.done() and start.exception() is None and not stop.is_set():
            log.info("reading %s, writing %s", config.topics.drift, config.topics.alerts)
            crashed = asyncio.create_task(app.wait_until_stopped())
            await asyncio.wait((crashed, stopped), return_when=asyncio.FIRST_COMPLETED)
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
    shutil.rmtree(app.conf.datadir, ignore_errors=True)


class _OneLine(logging.Formatter):
    """`2026-11-21T08:00:00Z WARNING driftline.alert: …`, a traceback only when debugging."""

    converter = time.gmtime

    def __init__(self, tracebacks: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        if not self._tracebacks:
            record.exc_info = record.exc_text = record.stack_info = None
        return " ".join(super().format(record).split("\n"))


class _Sparing(logging.Filter):
    """Lets a library repeat a message every `REPEAT_AFTER_S` only: a broker away is one line."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("driftline"):
            return True
        what, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._said.get(what, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return False
        if len(self._said) > 1000:
            self._said.clear()
        self._said[what] = now
        return True


def log_to_stderr(level: str) -> None:
    """One line a message for driftline and for the libraries below it, whatever they set up."""
    debugging = logging.getLevelName(level.upper()) <= logging.DEBUG
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(debugging))
    handler.addFilter(_Sparing())
    for name in ("driftline", *LIBRARIES):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        quiet = not debugging and name != "driftline"
        logger.setLevel(logging.WARNING if quiet else level.upper())
