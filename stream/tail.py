"""`driftline tail`: verdicts or alerts in the terminal, as they come.

A reader of its own, without a consumer group: it changes nothing and any number may run. Committed
messages only, so that nothing is shown that does not hold.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, Literal, TextIO

import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from rich.console import Console
from rich.text import Text

from ..schemas.alert import Alert
from ..schemas.errors import ConfigError, EventError, TopicError
from ..schemas.units import parse_time_ms
from ..schemas.verdict import Verdict
from .alert import wording
from .clients import consumer
from .config.document import Config
from .look import part_of

What = Literal["drift", "alerts"]

POLL_S: Final = 0.2
TIMEOUT_S: Final = 15.0


def tail(
    config: Config, what: What, *, json: bool, since: str | None, follow: bool, out: TextIO
) -> int:
    """Print verdicts (`drift`) or `alerts` to `out`, one line each, until Ctrl-C; the exit code.

    json: the messages' own JSON, for machines. since: `beginning`, or when a message was published,
    as `units.parse_time_ms` reads it (`-1h`); None is from now on, and with `follow` off, which
    ends at the last message there is, from the beginning. Colours when `out` is a terminal.

    Raises ConfigError: `since` is not a time. TopicError: there is no such topic, or no broker.
    """
    topic = getattr(config.topics, what)
    since_ms = _since_ms(since)
    outage = _Outage(str(config.client_properties()["bootstrap.servers"]))
    # Its own log repeats an outage twenty times a second.
    reader = consumer(
        config,
        own={"error_cb": outage.on_error, "log_level": 0, "enable.partition.eof": not follow},
    )
    console = Console(file=out, highlight=False, soft_wrap=True)
    show = _show_json if json else _show_verdict if what == "drift" else _show_alert
    try:
        first = "beginning" if since is None and not follow else since
        partitions = _positions(reader, topic, first, since_ms)
        reader.assign(partitions)
        ended: set[int | None] = set()
        while follow or len(ended) < len(partitions):
            message = reader.poll(POLL_S)
            if message is None:
                continue
            error = message.error()
            if error is None:
                outage.over()
                # Kafka finds the first message of that time or later; earlier ones may follow it.
                if since_ms is None or message.timestamp()[1] >= since_ms:
                    _print(message, show, console, out)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    except KeyboardInterrupt:
        pass
    finally:
        reader.close()
    return 0


class _Outage:
    """Says once that no broker answers, and once that one does again."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._away = False

    def on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._away:
            self._away = True
            print(f"no broker answers at {self._servers}; waiting", file=sys.stderr, flush=True)

    def over(self) -> None:
        if self._away:
            self._away = False
            print("connected again", file=sys.stderr, flush=True)


def _since_ms(since: str | None) -> int | None:
    if since is None or since == "beginning":
        return None
    try:
        return parse_time_ms(since)
    except ValueError as error:
        raise ConfigError(f"--since: {error}; or beginning") from None


def _positions(
    reader: Consumer, topic: str, since: str | None, since_ms: int | None
) -> list[TopicPartition]:
    try:
        found = reader.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
        if found.error is not None or not found.partitions:
            raise TopicError(
                f"topic {topic!r} does not exist; `driftline run` creates it, or correct `topics` "
                "in driftline.yaml"
            )
        numbers = sorted(found.partitions)
        if since_ms is not None:
            times = [TopicPartition(topic, number, since_ms) for number in numbers]
            # A time behind the last message is answered with the end.
            return reader.offsets_for_times(times, timeout=TIMEOUT_S)
    except KafkaException as error:
        raise TopicError(
            f"no broker answers ({error.args[0].str()}); check kafka.bootstrap.servers and that "
            "the broker runs",
            retry=True,
        ) from None
    at = OFFSET_BEGINNING if since == "beginning" else OFFSET_END
    return [TopicPartition(topic, number, at) for number in numbers]


Show = Callable[[bytes], "Text | bytes"]


def _print(message: Message, show: Show, console: Console, out: TextIO) -> None:
    value = message.value()
    place = f"{message.topic()}[{message.partition()}]@{message.offset()}"
    try:
        if value is None:
            return  # a tombstone: compaction may forget the key
        line = show(value)
    except (EventError, orjson.JSONDecodeError) as error:
        print(_printable(f"{place}: skipped: {error}"), file=sys.stderr, flush=True)
        return
    if isinstance(line, Text):
        console.print(line)
    else:
        out.write(line.decode() + "\n")
        out.flush()


def _show_json(value: bytes) -> bytes:
    parsed = orjson.loads(value)
    return orjson.dumps(parsed) if b"\n" in value else value


def _show_verdict(value: bytes) -> Text:
    verdict = Verdict.from_json(value).model_dump()
    drifted, ok = verdict["drifted"], verdict["status"] == "ok"
    test = f"{verdict['detector']} {verdict['window']['size']}"
    if part := part_of(verdict):
        test += f" against {part}"
    line = _line(verdict["window"]["end"], verdict)
    line.append(f"  {_printable(test):<16}")
    line.append(f"  {wording.number(verdict['statistic']) if ok else '':>7}")
    p_value = verdict["p_value"]
    line.append(f"  {'p ' + wording.small(p_value) if ok and p_value is not None else '':<10}")
    if not ok:
        line.append(f"  ?      {_printable(str(verdict['detail']['reason']))}")
        line.stylize("dim")
        return line
    line.append("  DRIFT" if drifted else "  ·    ", "bold red" if drifted else "green")
    if verdict["effect"] is not None:
        line.append("  " + _printable(wording.effect(verdict).removeprefix(": ")))
    line.append(wording.since(verdict))
    if not drifted:
        line.stylize("dim")
    return line


def _show_alert(value: bytes) -> Text:
    alert = Alert.from_json(value).model_dump()
    firing, critical = alert["state"] == "firing", alert["severity"] == "critical"
    colour = "green" if not firing else "bold red" if critical else "bold yellow"
    lead, more = alert["features"][0]["feature"], len(alert["features"]) - 1
    shown = alert | {"feature": f"{lead} +{more}" if more else lead}
    line = _line(alert["ends_at"] or alert["starts_at"], shown)
    line.append(f"  {alert['state'].upper():<8} {alert['severity']:<8}", colour)
    line.append("  " + _printable(alert["summary"]))
    return line


def _line(time: str, event: dict[str, Any]) -> Text:
    segment = " ".join(f"{column}={value}" for column, value in event["segment"].items())
    unit = f"{event['model']} {segment}".strip()
    moment = wording.moment(time).removesuffix(" UTC")
    line = Text(f"{moment:<16}  ")
    line.append(f"{_printable(unit):<20}", "cyan")
    return line.append(f"  {_printable(event['feature']):<20}", "bold")


def _printable(text: str) -> str:
    """Names come from other people's events: no escape sequence of theirs reaches a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
