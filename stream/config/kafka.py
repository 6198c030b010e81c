"""The `kafka` section: librdkafka's own properties, with secrets that are never printed.

Which properties exist and which values they take is asked of librdkafka itself, so that every
property of the installed version works and a typing error is found before anything connects.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from confluent_kafka import Consumer, KafkaException, Producer
from pydantic import BaseModel, ConfigDict, SecretStr

from ...schemas.errors import ABSENT
from .values import Mistake, mistaken

Role: TypeAlias = Literal["consumer", "producer", "admin"]
Value: TypeAlias = str | int | float | bool


# Properties whose value opens something. Matched on the name, so that a new property of a future
# librdkafka is hidden too.
SECRET = re.compile(
    r"password|passphrase|secret|\.pem$|_pem$|sasl\.oauthbearer\.config|private\.key\.(?!file)|jaas"
)

_CHOSEN = "driftline chooses it for each client, since its exactly-once guarantee rests on it"
RESERVED: dict[str, tuple[str, str]] = {
    "group.id": ("driftline names its consumer groups itself", "set the top-level key `group`"),
    "group.instance.id": ("it would be the same in every stage", "remove it"),
    "group.protocol": (_CHOSEN, "remove it"),
    "enable.auto.commit": ("offsets are committed in the transaction of the results", "remove it"),
    "auto.commit.enable": ("offsets are committed in the transaction of the results", "remove it"),
    "auto.commit.interval.ms": (
        "offsets are committed in the transaction of the results",
        "set `ingest: {commit_interval: 250ms}`",
    ),
    "enable.auto.offset.store": (
        "offsets are committed in the transaction of the results",
        "remove it",
    ),
    "auto.offset.reset": ("each stage knows where it must begin", "remove it"),
    "enable.partition.eof": (_CHOSEN, "remove it"),
    "isolation.level": (_CHOSEN, "remove it"),
    "transactional.id": (_CHOSEN, "remove it"),
    "enable.idempotence": (_CHOSEN, "remove it"),
    "acks": (_CHOSEN, "remove it"),
    "request.required.acks": (_CHOSEN, "remove it"),
    "partitioner": (
        "keys go to partitions by the Java-compatible murmur2, so that restarts agree",
        "remove it",
    ),
    "metadata.broker.list": (
        "it is librdkafka's older name of bootstrap.servers",
        "write bootstrap.servers",
    ),
    "logger": ("a file cannot hold a Python object", "remove it"),
    "default.topic.config": ("librdkafka takes topic properties directly", "write them in `kafka`"),
}

# Source: librdkafka, CONFIGURATION.md, column C/P. A client given a property of the other kind
# works but warns at each start.
CONSUMER_ONLY = frozenset(
    {
        "check.crcs",
        "coordinator.query.interval.ms",
        "fetch.error.backoff.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "group.protocol.type",
        "group.remote.assignor",
        "heartbeat.interval.ms",
        "max.partition.fetch.bytes",
        "max.poll.interval.ms",
        "max.poll.records",
        "offset.store.method",
        "offset.store.path",
        "offset.store.sync.interval.ms",
        "partition.assignment.strategy",
        "queued.max.messages.kbytes",
        "queued.min.messages",
        "session.timeout.ms",
        "share.acknowledgement.mode",
        "consume.callback.max.messages",
    }
)
PRODUCER_ONLY = frozenset(
    {
        "batch.num.messages",
        "batch.size",
        "compression.codec",
        "compression.level",
        "compression.type",
        "delivery.report.only.error",
        "delivery.timeout.ms",
        "enable.gapless.guarantee",
        "linger.ms",
        "message.send.max.retries",
        "message.timeout.ms",
        "produce.offset.report",
        "queue.buffering.backpressure.threshold",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.messages",
        "queue.buffering.max.ms",
        "queuing.strategy",
        "request.timeout.ms",
        "retries",
        "sticky.partitioning.linger.ms",
        "transaction.timeout.ms",
    }
)

_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CALLBACK = re.compile(r".*_cb|on_\w+|(key|value)\.(de)?serializer")


class Kafka(BaseModel):
    """Kafka client properties under their librdkafka names, environment variables filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    properties: dict[str, Value | SecretStr]

    def client_properties(self, role: Role | None = None) -> dict[str, Any]:
        """The properties in the clear, for a confluent-kafka client.

        role: leaves out what only the other kind of client takes; an admin client counts as a
        producer, as in librdkafka. None returns everything.
        """
        other = {None: frozenset(), "consumer": PRODUCER_ONLY}.get(role, CONSUMER_ONLY)
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self.properties.items()
            if name not in other
        }


def read_properties(section: object) -> Kafka:
    """The `kafka` section as properties. Raises what `mistaken` makes, with every mistake."""
    if not isinstance(section, Mapping):
        # Its text may be `sasl.password=…`, so it is not repeated.
        rule = "`kafka` is a mapping of librdkafka property names to values"
        raise mistaken(
            Mistake((), ABSENT, rule, "write `kafka: {bootstrap.servers: localhost:9092}`")
        )
    mistakes: list[Mistake] = []
    properties: dict[str, Value | SecretStr] = {}
    for name, raw in section.items():
        value = _read_value(name, raw, mistakes)
        if value is not None:
            properties[name] = SecretStr(str(value)) if SECRET.search(name) else value
    if "bootstrap.servers" not in section and "metadata.broker.list" not in section:
        rule = "the key is required: the brokers to start from"
        mistakes.append(
            Mistake(("bootstrap.servers",), ABSENT, rule, "write bootstrap.servers: localhost:9092")
        )
    if mistakes:
        raise mistaken(*mistakes)
    return Kafka(properties=properties)


def _read_value(name: str, raw: object, mistakes: list[Mistake]) -> Value | None:
    def wrong(rule: str, remedy: str, value: object = ABSENT) -> None:
        mistakes.append(Mistake((name,), value, rule, remedy))

    if name in RESERVED:
        reason, remedy = RESERVED[name]
        return wrong(f"the property is not for driftline.yaml: {reason}", remedy)
    if _CALLBACK.fullmatch(name):
        return wrong("a file cannot hold a Python function", "remove it")
    if raw is None:
        return wrong("the property has no value", "write one, or remove the line")
    if isinstance(raw, Mapping):
        inner = next(iter(raw), "…")
        rule = "a property is a text, a number or a boolean; its name keeps its dots"
        return wrong(rule, f"write {name}.{inner}: … on one line")
    if isinstance(raw, list):
        rule = "a property is a text, a number or a boolean, not a list"
        return wrong(rule, "write one text with commas: a,b")
    if not isinstance(raw, str):
        return raw if isinstance(raw, int | float) else wrong("not a text", "put it in quotes")
    value = _fill_in(raw, wrong)
    if name == "bootstrap.servers" and value is not None:
        for server in value.split(","):
            if not re.fullmatch(r"(\w+://)?(\[[^\]\s]+\]|[^\s:\[\]/]+)(:\d{1,5})?", server.strip()):
                rule = "bootstrap.servers is host:port, or several with commas between"
                return wrong(rule, "write for example localhost:9092", raw)
    return value


def _fill_in(raw: str, wrong: Any) -> str | None:
    failed = False

    def substitute(match: re.Match[str]) -> str:
        nonlocal failed
        escaped, name = match[1], match[2]
        if escaped:
            return match[0][1:]
        if not _NAME.fullmatch(name) or not match[0].endswith("}"):
            failed = True
            # What looks like a variable may be part of a password: say the rule, not the text.
            wrong("`${` begins the name of an environment variable", "write ${NAME}, or $${ for ${")
        elif name not in os.environ:
            failed = True
            wrong(f"the environment variable {name} is not set", f"export {name}=… before starting")
        return os.environ.get(name, "")

    value = _VARIABLE.sub(substitute, raw)
    return None if failed else value


def check_kafka_properties(properties: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What librdkafka finds wrong, as (property name, or "" where it is not one; its message).

    A consumer and a producer are made with the properties, without brokers, so nothing connects.
    A value of a secret property never appears in a message. Files the properties name (a CA
    certificate, a key) are opened, as they will be at every start.
    """
    found: list[tuple[str, str]] = []
    left = {k: v for k, v in properties.items() if k not in RESERVED and k != "bootstrap.servers"}
    while True:
        message = _first_complaint(left)
        if message is None:
            return found
        name = _blamed(left, message)
        found.append((name, _censored(message, left)))
        if not name:
            return found
        del left[name]


def _blamed(properties: Mapping[str, Any], message: str) -> str:
    for name in properties:
        if f'"{name}"' in message or message.startswith(f"{name} failed"):
            return name
    # The message may have another name of the property (linger.ms is queue.buffering.max.ms).
    for name, value in properties.items():
        if _first_complaint({name: value}) == message:
            return name
    return ""


def _first_complaint(properties: Mapping[str, Any]) -> str | None:
    silent = logging.getLogger("driftline.librdkafka.check")
    silent.disabled = True
    try:
        for client, other in ((Consumer, PRODUCER_ONLY), (Producer, CONSUMER_ONLY)):
            mine = {k: v for k, v in properties.items() if k not in other}
            if client is Consumer:
                mine["group.id"] = "driftline"
                Consumer(mine, logger=silent).close()
            else:
                Producer(mine, logger=silent)
    except KafkaException as error:
        return str(error.args[0].str()).removeprefix("Failed to create consumer: ").strip(" .\n")
    except (TypeError, ValueError, AttributeError) as error:
        return str(error)
    return None


def _censored(message: str, properties: Mapping[str, Any]) -> str:
    for name, value in properties.items():
        text = str(value)
        if SECRET.search(name) and text and text in message:
            message = message.replace(text, "**********")
    return message
