"""Verdicts survive SIGKILL and broker restarts: none lost, none twice, byte for byte the same.

    events   ──●──●──●──●──●──●──●──●──●──●──●──▶ (produced while the stages run)
    ingest   ────✗───────✗──────✗───────✗──────▶   ✗ SIGKILL, restarted by the supervisor
    detect   ──────✗────────✗──────✗──────✗────▶
    broker   ───────────────╳───────────────────▶   ╳ killed, started again on its data

The reference for the comparison is a second, undisturbed run of the same stages over the same
topic, under another prefix and consumer group, and a replay.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # pyright: ignore[reportPrivateImportUsage]

from driftline.stream.broker.node import Broker

START_MS = 1_700_000_000_000
PANE_MS = 10_000

CONFIG = """
kafka: {{bootstrap.servers: "{servers}"}}
group: {prefix}
topics: {{prefix: {prefix}, partitions: 3}}
models:
  fraud:
    reference: ./reference-fraud
    features:
      amount: numeric
      merchant: categorical
      vec: {{kind: vector, windows: [30 events, 90 events], ert: 150 events, sample: 25}}
  churn:
    reference: ./reference-churn
    segment_by: [country]
    against: [reference, {{sliding: 3m, lag: 30s}}, {{period: 4m}}]
input: {{topic: inference}}
pane: 10s
windows: [30s, 2m, 150 events]
features: {{amount: numeric, merchant: categorical}}
allowed_lateness: 5s
idle_after: 10m
min_events: 20
"""


def event(rng: np.random.Generator, i: int, ms: int, shift: float) -> dict[str, Any]:
    merchants = ["books", "food", "toys", "new"] if shift else ["books", "food", "toys"]
    return {
        "id": f"e{i}",
        "ts": ms,
        "model": "fraud" if i % 2 else "churn",
        "features": {
            "amount": None if rng.random() < 0.03 else round(float(rng.normal(shift)), 3),
            "merchant": str(rng.choice(merchants)),
            "vec": None if rng.random() < 0.03 else rng.normal(shift, 1, 4).round(3).tolist(),
        },
        "segment": {"country": "ES" if rng.random() < 0.5 else "FR"},
    }


def stage_pids(supervisor: int) -> dict[str, list[int]]:
    """The stage processes below a supervisor, by stage."""
    found: dict[str, list[int]] = {}
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    for pid in children:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"--stage" in words:
            stage = words[words.index(b"--stage") + 1].decode()
            found.setdefault(stage, []).append(int(pid))
    return found


def committed(servers: str, topic: str) -> list[tuple[bytes, bytes]]:
    """Keys and values of a topic, committed messages only."""
    reader = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "test-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        partitions = list(reader.list_topics(topic, timeout=20).topics[topic].partitions)
        reader.assign([TopicPartition(topic, p, 0) for p in partitions])
        ended: set[int] = set()
        messages: list[tuple[bytes, bytes]] = []
        while len(ended) < len(partitions):
            for m in reader.consume(2000, 1.0):
                if m.error() is None:
                    messages.append((m.key() or b"", m.value() or b""))
                elif m.error().name() == "_PARTITION_EOF":
                    ended.add(m.partition())
        return messages
    finally:
        reader.close()


class Flow(threading.Thread):
    """Watches the drift topic: when did verdicts come?"""

    def __init__(self, servers: str, topic: str) -> None:
        super().__init__(daemon=True)
        self.servers, self.topic = servers, topic
        self.times: list[float] = []
        self.ended = threading.Event()

    def run(self) -> None:
        reader = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": "flow",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "log_level": 0,
                "topic.metadata.refresh.interval.ms": 500,
            }
        )
        reader.assign([TopicPartition(self.topic, p, 0) for p in range(3)])
        while not self.ended.is_set():
            for m in reader.consume(500, 0.2):
                if m.error() is None:
                    self.times.append(time.monotonic())
        reader.close()


SHIFT_AFTER_S, LEAST_S = 8, 24  # of feeding: when the amounts move, and how long at least


class Feed(threading.Thread):
    """Produces events at a steady rate until told to stop, and then what moves all partitions past
    the last pane."""

    def __init__(self, servers: str, rate: int) -> None:
        super().__init__(daemon=True)
        self.rate = rate
        self.ended = threading.Event()
        self.sent = 0
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "linger.ms": 20,
                "log_level": 0,
            }
        )

    def run(self) -> None:
        rng = np.random.default_rng(7)
        i, ms = 0, START_MS
        begun = time.monotonic()
        while not self.ended.is_set() or i < LEAST_S * self.rate:
            while i < (time.monotonic() - begun) * self.rate:
                # Twenty times faster than time, and up to 4 s out of order; some are later than
                # is allowed.
                ms += 20_000 // self.rate
                behind = int(rng.integers(0, 4000)) if i % 500 else 60_000
                shift = 1.0 if i > SHIFT_AFTER_S * self.rate else 0.0
                body = event(rng, i, ms - behind, shift)
                self._producer.produce(
                    "inference", orjson.dumps(body) if i % 700 else b"{broken", partition=i % 3
                )
                i += 1
            self._producer.poll(0.02)
        for partition in range(3):
            for model in (0, 1):
                body = event(rng, i + model, ms + 600_000, 0.0)
                self._producer.produce("inference", orjson.dumps(body), partition=partition)
        assert self._producer.flush(60) == 0
        self.sent = i + 6


def start(path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "driftline.stream.cli", "run", "--config", str(path)]
    return subprocess.Popen([*command, "--detect-workers", "2", "--ingest-workers", "2"])


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def cli(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "driftline.stream.cli", *words], check=True, stdout=subprocess.PIPE
    )


def settled(servers: str, topic: str, like: int | None = None) -> list[tuple[bytes, bytes]]:
    """The verdicts once they have stopped coming: for 8 s, or, as long as they are fewer than
    expected, for a minute, since a machine with other work may pause for long."""
    last, since = -1, time.monotonic()
    while True:
        found = committed(servers, topic)
        if len(found) != last:
            last, since = len(found), time.monotonic()
        enough = found and (like is None or len(found) >= like)
        if time.monotonic() - since > (8 if enough else 60):
            return found
        time.sleep(1)


def chaos(directory: Path, kills: int, broker_restarts: int, rate: int) -> dict[str, Any]:
    rng = random.Random(3)
    with Broker() as broker:
        servers = broker.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        admin.create_topics([NewTopic("inference", 3, 1)])["inference"].result()
        numbers = np.random.default_rng(1)
        rows = [event(numbers, i, START_MS, 0.0) for i in range(4000)]
        (directory / "ref.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
        for prefix in ("killed", "quiet"):
            text = CONFIG.format(servers=servers, prefix=prefix)
            (directory / f"{prefix}.yaml").write_text(text)
        cli(
            "fit",
            "--config",
            str(directory / "killed.yaml"),
            "--input",
            str(directory / "ref.jsonl"),
        )

        feed = Feed(servers, rate)
        supervisor = start(directory / "killed.yaml")
        flow = Flow(servers, "killed.drift")
        pauses: list[float] = []
        try:
            feed.start()
            time.sleep(6)
            flow.start()
            _wait_for_verdict(flow, time.monotonic(), 60)
            restart_at = {kills * (k + 1) // (broker_restarts + 1) for k in range(broker_restarts)}
            for k in range(kills):
                if k in restart_at:
                    broker.kill()
                    time.sleep(1)
                    broker.restart()
                    _wait_for_verdict(flow, time.monotonic(), 90)
                time.sleep(rng.uniform(0.3, 3.0))
                victims = stage_pids(supervisor.pid)
                stage = rng.choice(["ingest", "detect"])
                if not victims.get(stage):
                    continue
                at = time.monotonic()
                os.kill(rng.choice(victims[stage]), signal.SIGKILL)
                pauses.append(_wait_for_verdict(flow, at, 60))
            feed.ended.set()
            feed.join(90)
            killed = settled(servers, "killed.drift")
        finally:
            feed.ended.set()
            flow.ended.set()
            stop(supervisor)
        supervisor = start(directory / "quiet.yaml")
        try:
            quiet = settled(servers, "quiet.drift", len(killed))
            alerts = {
                prefix: [v for _, v in settled(servers, f"{prefix}.alerts")]
                for prefix in ("killed", "quiet")
            }
        finally:
            stop(supervisor)
        cli(
            "replay",
            "--config",
            str(directory / "quiet.yaml"),
            "--out",
            str(directory / "replay.jsonl"),
        )
        replayed = (directory / "replay.jsonl").read_bytes().splitlines()
        letters = committed(servers, "killed.dead-letters")
        counts: dict[str, int] = {}
        for _, value in _progress(servers, "killed.panes"):
            for partition in json.loads(value)["partitions"]:
                for name, count in partition["counts"].items():
                    counts[name] = counts.get(name, 0) + count
    return {
        "killed": killed,
        "quiet": quiet,
        "replayed": replayed,
        "pauses": pauses,
        "alerts": alerts,
        "letters": letters,
        "counts": counts,
        "sent": feed.sent,
    }


def _wait_for_verdict(flow: Flow, after: float, limit_s: float) -> float:
    """Seconds from `after` to the next verdict that was still to be made then."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        # What was committed before the kill may arrive a moment after it.
        later = [t for t in list(flow.times) if t > after + 0.5]
        if later:
            return later[0] - after
        time.sleep(0.05)
    raise AssertionError(f"no verdict within {limit_s} s")


def _progress(servers: str, topic: str) -> list[tuple[bytes, bytes]]:
    reader = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "p",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    reader.assign([TopicPartition(topic, 0, 0)])
    found: list[tuple[bytes, bytes]] = []
    try:
        while True:
            for m in reader.consume(1000, 1.0):
                if m.error() is not None:
                    return found
                if ("driftline_kind", b"progress") in (m.headers() or []):
                    found.append((b"", m.value() or b""))
    finally:
        reader.close()


def check(result: dict[str, Any]) -> None:
    killed, quiet = result["killed"], result["quiet"]
    assert len(killed) > 500
    ids = [orjson.loads(value)["id"] for _, value in killed]
    assert len(ids) == len(set(ids)), "a verdict was published twice"
    lost, changed = set(quiet) - set(killed), set(killed) - set(quiet)
    assert not lost | changed, (len(lost), len(changed), min(lost | changed))
    assert sorted(killed) == sorted(quiet)
    # A replay knows that no more events come, so it also closes the panes that the live run, which
    # waits, still holds open; it says so in those verdicts.
    live = [v for v in result["replayed"] if "idle_partitions" not in orjson.loads(v)["detail"]]
    assert sorted(value for _, value in quiet) == sorted(live)
    assert any(orjson.loads(value)["drifted"] for _, value in killed)
    made = [v for _, value in killed if (v := orjson.loads(value))["status"] == "ok"]
    named = {v["reference"].get("name") for v in made}
    assert named == {None, "reference", "sliding 3m lag 30s", "period 4m"}
    counts = result["counts"]
    assert counts["received"] == result["sent"]
    rest = counts["summarised"] + counts["late"] + counts["dead_lettered"] + counts["ignored"]
    assert counts["received"] == rest
    assert counts["late"] > 0
    assert len(result["letters"]) == counts["dead_lettered"] > 0
    alerts = {
        prefix: {
            (v["id"], v["state"], v["starts_at"], v["ends_at"]) for v in map(orjson.loads, found)
        }
        for prefix, found in result["alerts"].items()
    }
    assert alerts["quiet"]
    assert alerts["killed"] == alerts["quiet"]


def test_a_few_kills_change_nothing(tmp_path: Path) -> None:
    check(chaos(tmp_path, kills=3, broker_restarts=0, rate=300))


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_twenty_kills_and_two_broker_restarts_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = chaos(tmp_path, kills=24, broker_restarts=2, rate=300)
    with capsys.disabled():
        pauses = sorted(result["pauses"])
        print(
            f"\n{len(pauses)} kills: verdicts again after {pauses[0]:.1f} to {pauses[-1]:.1f} s "
            f"(median {pauses[len(pauses) // 2]:.1f}); {len(result['killed'])} verdicts"
        )
    check(result)
    assert len(result["pauses"]) >= 20
    assert max(result["pauses"]) < 10
