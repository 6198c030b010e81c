"""What the demo knows of the monitor it runs: only what driftline publishes on its topics.

Verdicts and alerts are read as any subscriber would read them, and how far ingest is from the
progress messages among the panes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from confluent_kafka import Message, TopicPartition

from ...schemas.alert import Alert
from ...schemas.pane import KIND_HEADER, PROGRESS, Progress
from ..accounting import Counts
from ..clients import consumer, partition_count
from ..config.document import Config
from ..ingest import raise_unless_passing

KEPT_ALERTS: Final = 50
MISSING_RATE: Final = "missing_rate"


@dataclass
class Picture:
    """What has been published so far.

    newest: (feature, window) → the newest verdict on the values that are there; missing: the same
    of the test whether they are there. windows: window → the newest verdict on it, for its end and
    fill. firing: alert key → alert. alerts: the last ones, newest last. n_alerts: how many began.
    passed_ms: source partition → its largest event time. idle: source partitions at rest.
    """

    verdicts: int = 0
    drifted: int = 0
    newest: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    missing: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    windows: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    firing: dict[str, Alert] = field(default_factory=dict)
    alerts: deque[Alert] = field(default_factory=lambda: deque(maxlen=KEPT_ALERTS))
    n_alerts: int = 0
    counts: Counts = field(default_factory=Counts)
    passed_ms: dict[int, int] = field(default_factory=dict)
    idle: set[int] = field(default_factory=set)

    def verdict(self, verdict: Mapping[str, Any]) -> None:
        self.verdicts += 1
        self.drifted += verdict["drifted"]
        size = verdict["window"]["size"]
        series = self.missing if verdict["detector"] == MISSING_RATE else self.newest
        series[verdict["feature"], size] = verdict
        self.windows[size] = verdict

    def alert(self, alert: Alert) -> None:
        if alert.state == "resolved":
            self.firing.pop(alert.key, None)
        else:
            before = self.firing.get(alert.key)
            self.n_alerts += before is None or before.id != alert.id
            self.firing[alert.key] = alert
        self.alerts.append(alert)

    def progress(self, progress: Progress) -> None:
        for p in progress.partitions:
            if p.counts:
                self.counts.add(p.counts)
            if p.event_time_ms is not None:
                self.passed_ms[p.partition] = p.event_time_ms
            (self.idle.add if p.idle else self.idle.discard)(p.partition)


class Watch:
    """Reads drift and alerts whole, and one panes partition, without a consumer group."""

    def __init__(self, config: Config) -> None:
        topics = config.topics
        self.picture = Picture()
        self._topics = topics
        self._consumer = consumer(config)
        own = [
            TopicPartition(topic, number, 0)
            for topic in (topics.drift, topics.alerts)
            for number in range(partition_count(config, topic))
        ]
        # Progress goes to every panes partition, so one has it all.
        self._consumer.assign([*own, TopicPartition(topics.panes, 0, 0)])

    def poll(self, timeout_s: float) -> Sequence[Alert]:
        """Take in what is there, waiting at most `timeout_s`; the alerts among it."""
        alerts: list[Alert] = []
        for message in self._consumer.consume(2000, timeout_s):
            error = message.error()
            if error is not None:
                raise_unless_passing(error)
                continue
            alert = self._take(message)
            if alert is not None:
                alerts.append(alert)
        return alerts

    def _take(self, message: Message) -> Alert | None:
        topic, value = message.topic(), message.value()
        if value is None:
            return None
        if topic == self._topics.drift:
            self.picture.verdict(orjson.loads(value))
        elif topic == self._topics.alerts:
            alert = Alert.from_json(value)
            self.picture.alert(alert)
            return alert
        elif (KIND_HEADER, PROGRESS.encode()) in (message.headers() or []):
            self.picture.progress(Progress.decode(value))
        return None

    def close(self) -> None:
        self._consumer.close()
