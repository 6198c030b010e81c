"""`input.missing_time: kafka`: an event without a time happened when Kafka says it was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from driftline.schemas.deadletter import Reason
from driftline.stream.config.document import load
from driftline.stream.fit import collect, fit_rows
from driftline.stream.summarise import Messages, Summary, summarisers

CONFIG = """
kafka: {{bootstrap.servers: localhost:9092}}
model: fraud
input: {{topic: inference{more}}}
reference: ./reference
windows: [5m]
features: {{amount: numeric}}
"""

SENT_MS = 1_700_000_030_000


def summarise(directory: Path, more: str, *events: dict[str, Any]) -> Summary:
    path = directory / "driftline.yaml"
    path.write_text(CONFIG.format(more=more))
    config = load(path)
    rows = [orjson.dumps({"features": {"amount": float(i)}}) for i in range(50)]
    reference = fit_rows(collect(config.models["fraud"], rows), {}).reference
    summariser = summarisers(config, {"fraud": reference})["inference"]
    n = len(events)
    values = [orjson.dumps({"features": {"amount": 1.0}} | event) for event in events]
    messages = Messages(values, np.zeros(n, np.int64), np.full(n, SENT_MS, np.int64))
    return summariser.summarise(messages, {})


def test_without_it_a_missing_time_is_a_dead_letter(tmp_path: Path) -> None:
    summary = summarise(tmp_path, "", {"id": "a"}, {"id": "b", "ts": SENT_MS})
    assert [(i, e.reason) for i, e in summary.refused] == [(0, Reason.MISSING_TIME)]
    assert summary.counts[0].summarised == 1


def test_with_it_the_kafka_timestamp_stands_in(tmp_path: Path) -> None:
    summary = summarise(
        tmp_path, ", missing_time: kafka", {"id": "a"}, {"id": "b", "ts": SENT_MS - 1000}
    )
    assert summary.refused == []
    assert summary.largest_ms == {0: SENT_MS}
    [(_, delta)] = summary.deltas
    assert delta.start_ms.tolist() == [SENT_MS // 60_000 * 60_000]
    assert delta.events.tolist() == [2]


def test_a_wrong_time_is_still_wrong(tmp_path: Path) -> None:
    summary = summarise(tmp_path, ", missing_time: kafka", {"id": "a", "ts": "yesterday"})
    assert [e.reason for _, e in summary.refused] == [Reason.BAD_TIME]
