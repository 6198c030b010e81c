"""References are changed while stages run and are killed: the verdicts are those of a replay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # pyright: ignore[reportPrivateImportUsage]
from stream_helpers import MINUTE, T0, reference_of
from test_exactly_once import committed, stage_pids, start, stop

from driftline.schemas.units import parse_time_ms
from driftline.stream import profiles
from driftline.stream.broker.node import Broker
from driftline.stream.config.document import load
from driftline.stream.reference.check import references
from driftline.stream.replay import Replay
from driftline.stream.sources import topic_range

CONFIG = """
kafka: {{bootstrap.servers: "{servers}"}}
group: {prefix}
topics: {{prefix: {prefix}, partitions: 2}}
model: fraud
input: {{topic: {prefix}.in}}
reference: ./reference
pane: 10s
windows: [30s, 2m, 100 events]
features: {{x: numeric, c: categorical}}
segment_by: [country]
allowed_lateness: 5s
idle_after: 10m
min_events: 10
"""


class Stream:
    """Events in a topic of three partitions, five a second of event time, some out of order."""

    def __init__(self, servers: str, topic: str) -> None:
        self.topic = topic
        self.ms = T0
        self._n = 0
        self._rng = np.random.default_rng(5)
        self._producer = Producer({"bootstrap.servers": servers, "log_level": 0})

    def go_on(self, minutes: float, pause_s: float = 0.0) -> None:
        until = self.ms + minutes * MINUTE
        while self.ms < until:
            self.ms += 200
            self._n += 1
            behind = int(self._rng.integers(0, 4000)) if self._n % 300 else 30_000
            body = event(self._rng, self._n, self.ms - behind)
            self._producer.produce(self.topic, orjson.dumps(body), partition=self._n % 3)
            if pause_s and self._n % 100 == 0:
                self._producer.poll(pause_s)
        assert self._producer.flush(30) == 0

    def end(self) -> None:
        for partition in range(3):
            self._n += 1
            body = event(self._rng, self._n, self.ms + 5 * MINUTE)
            self._producer.produce(self.topic, orjson.dumps(body), partition=partition)
        assert self._producer.flush(30) == 0


def event(rng: np.random.Generator, i: int, ms: int, shift: float = 0.0) -> dict[str, Any]:
    return {
        "id": f"e{i}",
        "ts": ms,
        "features": {"x": round(float(rng.normal(shift)), 3), "c": str(rng.choice(["a", "b"]))},
        "segment": {"country": "ES" if rng.random() < 0.5 else "FR"},
    }


def promoting(config: str, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "driftline.stream.cli", "reference", "promote", *words]
    return subprocess.Popen([*command, "--config", config, "--json"], stdout=subprocess.PIPE)


def promoted(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(out)


def waited_for(servers: str, topic: str, least: int) -> list[bytes]:
    """The verdicts once there are so many, and no more a moment later."""
    deadline = time.monotonic() + 90
    found: list[bytes] = []
    while time.monotonic() < deadline:
        before, found = len(found), [value for _, value in committed(servers, topic)]
        if len(found) >= least and len(found) == before:
            break
        time.sleep(0.5)
    return found


def test_promoted_while_stages_are_killed_it_is_as_in_a_replay(
    tmp_path: Path, kafka: Broker, topic_prefix: str
) -> None:
    servers, topic = kafka.bootstrap_servers, f"{topic_prefix}.in"
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    admin.create_topics([NewTopic(topic, 3, 1)])[topic].result()
    path = tmp_path / "driftline.yaml"
    path.write_text(CONFIG.format(servers=servers, prefix=topic_prefix))
    config = str(path)
    rng = np.random.default_rng(1)
    for name, shift in (("reference", 0.0), ("new", 0.3)):
        rows = [event(rng, i, T0, shift) for i in range(500)]
        profiles.save(reference_of(load(path), rows), str(tmp_path / name))

    stream = Stream(servers, topic)
    stream.go_on(5)
    supervisor = start(path)
    drift = f"{topic_prefix}.drift"
    try:
        deadline = time.monotonic() + 150
        while not has_verdicts(servers, drift):
            assert time.monotonic() < deadline
            time.sleep(0.3)
        # Events keep coming while the command is on its way, and a worker is killed.
        first = promoting(config, str(tmp_path / "new"))
        stream.go_on(1, pause_s=0.1)
        os.kill(stage_pids(supervisor.pid)["ingest"][0], signal.SIGKILL)
        stream.go_on(2, pause_s=0.1)
        one = promoted(first)
        stream.go_on(4)
        os.kill(stage_pids(supervisor.pid)["detect"][0], signal.SIGKILL)
        # Back to the first, whose windows of 30 s are full when it takes over.
        second = promoting(config, one["before"][:12], "--overlap", "30s")
        stream.go_on(2, pause_s=0.1)
        two = promoted(second)
        assert two["after"] == one["before"]
        os.kill(stage_pids(supervisor.pid)["detect"][1], signal.SIGKILL)
        stream.go_on(max(2.0, (parse_time_ms(two["from"]) - stream.ms) / MINUTE + 3))
        stream.end()
        loaded = load(path)
        work = Replay(loaded, references(loaded))
        # A replay knows that no more events come, so it closes the last panes, and says so.
        expected = [
            v.value
            for v in work.run(topic_range(loaded, topic))
            if "idle_partitions" not in v.fields["detail"]
        ]
        live = waited_for(servers, drift, len(expected))
    finally:
        stop(supervisor)
    assert sorted(live) == sorted(expected)
    whole = [v for v in map(orjson.loads, live) if v["segment"] == {}]
    switches = [parse_time_ms(s["from"]) for s in (one, two)]
    eras: dict[int, set[str]] = {}
    for v in whole:
        end = parse_time_ms(v["window"]["end"])
        eras.setdefault(sum(end > at for at in switches), set()).add(v["reference"]["id"])
    assert eras[0] == eras[2] != eras[1]
    assert all(len(ids) == 1 for ids in eras.values())
    # No look is missing: one every ten seconds, across both switches.
    ends = sorted({parse_time_ms(v["window"]["end"]) for v in whole})
    assert set(np.diff(ends)) == {10_000}
    assert ends[0] < switches[0] < switches[1] < ends[-1]
    assert two["since"] < two["from"]


def has_verdicts(servers: str, topic: str) -> bool:
    try:
        return bool(committed(servers, topic))
    except KeyError:  # the stages have not made the topic yet
        return False
