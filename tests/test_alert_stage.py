"""The alert stage on a real broker: killed, stopped, joined, and nothing lost.

What the stage should publish is what `lifecycle.step` makes of the same verdicts without Kafka; a
subscriber who ignores a message equal to the one before under the same key must have exactly that.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from alert_timelines import (
    alerts_of,
    by_key,
    drawn,
    incidents_of,
    looks,
    verdict,
    without_repeats,
)
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from driftline.schemas.alert import Alert
from driftline.schemas.cloudevents import LOOK_HEADER, verdict_headers
from driftline.schemas.errors import ConfigError, TopicError
from driftline.schemas.verdict import Verdict
from driftline.stream.alert.faust_settings import faust_settings
from driftline.stream.alert.stage import build_app, main
from driftline.stream.broker.node import Broker
from driftline.stream.clients import ensure_topics
from driftline.stream.config.document import Config, load

RESOLVE_AFTER = 2
WAIT_S = 180.0
CONFIG = """
kafka: {{bootstrap.servers: "{servers}", session.timeout.ms: 2000, heartbeat.interval.ms: 500}}
group: {prefix}
topics: {{prefix: {prefix}, partitions: 3}}
model: delay
input: {{topic: inference}}
reference: ./reference
windows: [5m]
alerts: {{resolve_after: {resolve_after}, group_by: {group_by}}}
"""


class Bench:
    """One drift and one alerts topic of their own, workers, and a subscriber."""

    def __init__(
        self, broker: Broker, prefix: str, directory: Path, group_by: str = "feature"
    ) -> None:
        self.prefix, self.directory = prefix, directory
        self.servers = broker.bootstrap_servers
        self.path = directory / "driftline.yaml"
        text = CONFIG.format(
            servers=self.servers, prefix=prefix, resolve_after=RESOLVE_AFTER, group_by=group_by
        )
        self.path.write_text(text, encoding="utf-8")
        self.config: Config = load(self.path)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.messages: list[Any] = []
        self.committed: list[Verdict] = []
        ensure_topics(self.config)
        self._producer = Producer({"bootstrap.servers": self.servers, "transactional.id": prefix})
        self._producer.init_transactions()
        self._reader = Consumer({
            "bootstrap.servers": self.servers, "group.id": "unused", "enable.auto.commit": False,
        })  # fmt: skip
        alerts = self.config.topics.alerts
        self._reader.assign([TopicPartition(alerts, p, 0) for p in range(3)])

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self._reader.close()

    def publish(self, verdicts: Sequence[Verdict], commit: bool = True) -> None:
        """The verdicts in one transaction, as detect publishes them; or aborted."""
        self._producer.begin_transaction()
        for one, look in looks(verdicts):
            headers = verdict_headers(one)
            if look is not None:
                headers.append((LOOK_HEADER, orjson.dumps(look)))
            self.send(one.key.encode(), one.to_json(), headers)
        if commit:
            self._producer.commit_transaction()
            self.committed += verdicts
        else:
            self._producer.flush()
            self._producer.abort_transaction()

    def publish_raw(self, *values: bytes | None) -> None:
        self._producer.begin_transaction()
        for value in values:
            self.send(b"delay", value, None)
        self._producer.commit_transaction()

    def send(self, key: bytes, value: bytes | None, headers: Any) -> None:
        topic = self.config.topics.drift
        # Keys of other units would do; partitions are spread by hand to use all three.
        partition = sum(key) % 3
        self._producer.produce(topic, value, key, partition=partition, headers=headers)

    def start(self, patch: str = "") -> subprocess.Popen[bytes]:
        """A worker, through the command line or, with faults built in, through `main`."""
        command = ["-m", "driftline.stream.cli", "run", "--stage", "alert", "--config"]
        if patch:
            run = "import sys; from driftline.stream.alert import stage\n"
            run += "from driftline.stream.config import document\n"
            command = ["-c", f"{run}{patch}\nsys.exit(stage.main(document.load(sys.argv[1])))"]
        log = open(self.directory / "worker.log", "ab")  # noqa: SIM115
        worker = subprocess.Popen(
            [sys.executable, *command, str(self.path)], stderr=log, cwd=self.directory
        )
        log.close()
        self.workers.append(worker)
        return worker

    @property
    def log(self) -> str:
        return (self.directory / "worker.log").read_text(encoding="utf-8")

    def wait_until(self, done: Callable[[], bool], within_s: float = WAIT_S) -> None:
        """Read alerts until `done`, which fails the test when it does not come true."""
        end = time.monotonic() + within_s
        while not done():
            self.messages += [m for m in self._reader.consume(500, 0.1) if m.error() is None]
            assert time.monotonic() < end, f"{len(self.messages)} alerts; {self.log[-3000:]}"

    def read(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for message in self.messages:
            found.setdefault(message.key().decode(), []).append(message.value())
        return found

    def complete(self) -> bool:
        return without_repeats(self.read()) == self.expected()

    def expected(self) -> dict[str, list[bytes]]:
        if self.config.alerts.group_by == "model":
            return by_key(incidents_of(looks(self.committed), RESOLVE_AFTER))
        return by_key(alerts_of(self.committed, RESOLVE_AFTER))


@pytest.fixture
def bench(kafka: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(kafka, topic_prefix, tmp_path)
    try:
        yield bench
    finally:
        bench.close()


def look(column: int, rng: random.Random) -> list[Verdict]:
    """What detect publishes at one window end: 4 models × 5 features × 2 windows."""
    return [
        verdict(rng.choice("···DDC?"), column, series, feature=f"f{feature}", model=f"m{model}")
        for model in range(4)
        for feature in range(5)
        for series in ("ks 5m", "ks 1h")
    ]


def test_verdicts_become_alerts_with_their_key_and_headers(bench: Bench) -> None:
    #                            0 1 2 3 4
    bench.publish(drawn("ks 5m         · D C · ·"))
    bench.start()
    bench.wait_until(bench.complete)
    fired, worse, over = (Alert.from_json(m.value()) for m in bench.messages)
    assert [a.state for a in (fired, worse, over)] == ["firing", "firing", "resolved"]
    for message, alert in zip(bench.messages, (fired, worse, over), strict=True):
        headers = dict(message.headers())
        assert message.key() == alert.key.encode() == b"delay|temperature"
        assert headers["ce_type"] == b"io.driftline.alert.v1"
        assert headers["ce_source"] == b"driftline/delay"
        assert headers["ce_specversion"] == b"1.0"
        assert headers["content-type"] == b"application/json"
        assert message.partition() == bench.messages[0].partition()
    times = [dict(m.headers())["ce_time"].decode() for m in bench.messages]
    assert times == [fired.starts_at, "2026-11-21T08:02:00.000Z", over.ends_at]
    assert len({dict(m.headers())["ce_id"] for m in bench.messages}) == 3


def test_killed_again_and_again_it_loses_no_alert(bench: Bench) -> None:
    #   verdicts  ──●──●─○──●──●──●─○──●──●──●──▶     ○ an aborted transaction
    #   worker    ────✗──────✗───✗─────✗───✗────▶     ✗ SIGKILL
    rng = random.Random(8)
    column = 0

    def publish() -> None:
        nonlocal column
        verdicts = look(column, rng)
        if rng.random() < 0.3:
            bench.publish(verdicts[: rng.randrange(len(verdicts))] or verdicts, commit=False)
        bench.publish(verdicts)
        column += 1

    for _ in range(6):
        worker = bench.start()
        read = len(bench.messages)
        publish()
        bench.wait_until(lambda read=read: len(bench.messages) > read)
        # Between nothing and two commits of offsets (one per 2.8 s) later.
        end = time.monotonic() + rng.choice([0.0, 0.05, 0.3, 4.0, 6.0])
        while time.monotonic() < end:
            publish()
            bench.wait_until(lambda: True)
            time.sleep(0.1)
        worker.kill()
        worker.wait()
    bench.start()
    publish()
    bench.wait_until(bench.complete)
    assert sum(len(alerts) for alerts in bench.expected().values()) > 100


def test_one_alert_per_model_lists_its_features_and_survives_kills(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    #   looks     ──●──●──●──●──●──●──●──●──▶     4 models × 5 features × 2 windows each
    #   worker    ────✗─────✗──✗──────✗─────▶     ✗ SIGKILL
    bench = Bench(kafka, topic_prefix, tmp_path, "model")
    rng = random.Random(11)
    try:
        for column in range(8):
            worker = bench.start()
            read = len(bench.messages)
            # Quiet in the second half, so that alerts end.
            verdicts = look(column, rng)
            if column >= 5:
                verdicts = [verdict("·", column, f"{v.detector} {v.window.size}", v.feature, v.model)
                            for v in verdicts]  # fmt: skip
            bench.publish(verdicts[: rng.randrange(1, 40)], commit=False)
            bench.publish(verdicts)
            if column < 5:
                bench.wait_until(lambda read=read: len(bench.messages) > read or read > 0)
                worker.kill()
                worker.wait()
        bench.wait_until(bench.complete)
    finally:
        bench.close()
    alerts = [Alert.from_json(m.value()) for m in bench.messages]
    assert {a.key for a in alerts} == {"m0", "m1", "m2", "m3"}
    assert {a.reason for a in alerts} >= {"drift", "features_joined", "recovered"}
    assert max(len(a.features) for a in alerts) == 5


def test_killed_after_an_alert_and_before_its_row_it_repeats_that_alert(bench: Bench) -> None:
    #   alert ✓   row ✗
    bench.publish([verdict("D", 0)])
    worker = bench.start(
        "import os, faust\nfaust.Table.send_changelog = lambda *a, **k: os.kill(os.getpid(), 9)"
    )
    bench.wait_until(lambda: len(bench.messages) == 1)
    assert worker.wait() == -signal.SIGKILL
    bench.start()
    bench.publish([verdict("·", 1), verdict("·", 2)])
    bench.wait_until(bench.complete)
    first, again, over = (m.value() for m in bench.messages)
    assert first == again
    assert Alert.from_json(over).id == Alert.from_json(first).id
    assert dict(bench.messages[0].headers()) == dict(bench.messages[1].headers())


def test_killed_after_the_row_and_before_the_offset_it_repeats_nothing(bench: Bench) -> None:
    #   alert ✓   row ✓   table ✗   offset ✗
    bench.publish([verdict("D", 0)])
    worker = bench.start(
        "import os\nfrom faust.stores.memory import Store\n"
        "Store.__setitem__ = lambda *a: os.kill(os.getpid(), 9)"
    )
    assert worker.wait() == -signal.SIGKILL
    bench.start()
    bench.publish([verdict("D", 1), verdict("·", 2), verdict("·", 3)])
    bench.wait_until(bench.complete)
    assert [Alert.from_json(m.value()).state for m in bench.messages] == ["firing", "resolved"]


def test_verdicts_that_wait_while_the_table_is_restored_are_not_lost(bench: Bench) -> None:
    #   table      restored ┤
    #   position           set ├── a slow moment ──┤ queues emptied
    #   verdicts   ●●●●●●●● wait there all the time
    first = bench.start()
    bench.publish([verdict("D", 0, model=f"m{i}") for i in range(6)])
    bench.wait_until(bench.complete)
    first.kill()
    bench.publish([verdict("D", 1, feature=f"f{i}", model=f"m{i % 6}") for i in range(60)])
    bench.start(
        "import asyncio\nfrom faust.topics import Topic\n"
        "from faust.transport.consumer import Consumer\n"
        "seek, send = Consumer.perform_seek, Topic.send\n"
        "async def slow_seek(self):\n"
        "    await seek(self)\n"
        "    await asyncio.sleep(1.5)\n"
        "async def slow_send(*a, **k):\n"
        "    await asyncio.sleep(0.1)\n"
        "    return await send(*a, **k)\n"
        "Consumer.perform_seek, Topic.send = slow_seek, slow_send"
    )
    bench.wait_until(bench.complete)


def committed(bench: Bench) -> dict[int, int]:
    """The offsets the stage has committed, of partitions that have one."""
    group = f"{bench.prefix}-alert"
    reader = Consumer({"bootstrap.servers": bench.servers, "group.id": group})
    partitions = [TopicPartition(bench.config.topics.drift, p) for p in range(3)]
    found = reader.committed(partitions, timeout=10)
    reader.close()
    return {p.partition: p.offset for p in found if p.offset >= 0}


def test_no_offset_is_committed_behind_a_verdict_that_is_not_handled(bench: Bench) -> None:
    #   offsets      0 1 2 3 4 5 6 7 …     even: verdicts, odd: the markers of their transactions
    #   handled      ● · ● · ⧖             the third never ends
    for column in range(8):
        bench.publish([verdict("D", column, feature=f"f{column}")])
    bench.start(
        "import asyncio\nfrom faust.topics import Topic\n"
        "send, calls = Topic.send, []\n"
        "async def stuck(*a, **k):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3: await asyncio.sleep(3600)\n"
        "    return await send(*a, **k)\n"
        "Topic.send = stuck"
    )
    bench.wait_until(lambda: bool(committed(bench)))
    assert committed(bench) == {sum(b"delay") % 3: 3}
    assert len(bench.messages) == 2


def test_offsets_keep_up_with_many_small_transactions(bench: Bench) -> None:
    # Counting as Faust does, one transaction is committed every 2.8 s: this would take minutes.
    for column in range(60):
        bench.publish([verdict("·", column)])
    bench.start()
    bench.wait_until(lambda: committed(bench) == {sum(b"delay") % 3: 119})


def test_an_alert_the_broker_did_not_take_stops_the_stage_and_comes_later(bench: Bench) -> None:
    #   alert ✗ (refused)   →   exit code 1, offset not committed
    bench.publish([verdict("D", 0), verdict("D", 1, feature="other")])
    worker = bench.start(
        "import faust.topics\nasync def refuse(*a, **k): raise RuntimeError('refused')\n"
        "faust.topics.Topic.send = refuse"
    )
    assert worker.wait(WAIT_S) == 1
    assert "the alert stage failed and ends: RuntimeError: refused" in bench.log
    assert "Traceback" not in bench.log
    bench.start()
    bench.wait_until(bench.complete)
    assert len(bench.messages) == 2


def test_workers_that_come_and_go_hand_over_their_alerts(bench: Bench) -> None:
    #   a ───────────────────┤ SIGTERM
    #   b       ├──────────────────✗ SIGKILL
    #   c              ├───────────────────────────▶
    rng = random.Random(3)
    column = 0

    def publish(looks: int) -> None:
        nonlocal column
        for _ in range(looks):
            bench.publish(look(column, rng))
            column += 1
        bench.wait_until(bench.complete)

    a = bench.start()
    publish(3)
    b = bench.start()
    publish(20)
    bench.start()
    publish(20)
    a.terminate()
    publish(20)
    assert a.wait(WAIT_S) == 0
    b.kill()
    publish(20)


def test_a_worker_that_stood_still_does_not_publish_what_is_over(bench: Bench) -> None:
    #   a   ●●●●●⏸ SIGSTOP, its queue full            ⏵ SIGCONT, exit code 1
    #   b           ├── takes over, finishes ─────────────▶
    rng = random.Random(6)
    a = bench.start(
        "import time\nstep = stage.lifecycle.step\n"
        "def slow(*a):\n"
        "    time.sleep(0.02)\n"
        "    return step(*a)\n"
        "stage.lifecycle.step = slow"
    )
    bench.publish(look(0, rng))
    bench.wait_until(bench.complete)
    for column in range(1, 8):
        bench.publish(look(column, rng))
    read = len(bench.messages)
    bench.wait_until(lambda: len(bench.messages) > read)
    a.send_signal(signal.SIGSTOP)
    bench.start()
    bench.wait_until(bench.complete)
    a.send_signal(signal.SIGCONT)
    assert a.wait(WAIT_S) == 1
    for column in range(8, 12):
        bench.publish(look(column, rng))
    bench.wait_until(bench.complete)
    assert "has given this worker's partitions away" in bench.log


def test_more_workers_than_partitions_begin_with_the_table_when_they_get_one(
    bench: Bench,
) -> None:
    #   three of the four have a partition; the fourth waits for the death of another
    rng = random.Random(4)
    workers = [bench.start() for _ in range(4)]
    for column in range(10):
        bench.publish(look(column, rng))
    bench.wait_until(bench.complete)
    for worker in workers[:3]:
        worker.kill()
    for column in range(10, 20):
        bench.publish(look(column, rng))
    bench.wait_until(bench.complete)


def test_it_survives_a_broker_that_is_killed_and_comes_back(bench: Bench, kafka: Broker) -> None:
    rng = random.Random(5)
    worker = bench.start()
    bench.publish(look(0, rng))
    bench.wait_until(bench.complete)
    kafka.restart()
    for column in range(1, 6):
        bench.publish(look(column, rng))
    bench.wait_until(bench.complete)
    assert worker.poll() is None
    assert "Traceback" not in bench.log


def test_an_aborted_verdict_fires_nothing_and_an_open_one_waits(bench: Bench) -> None:
    bench.start()
    bench.publish([verdict("C", 0, feature="aborted")], commit=False)
    bench.publish([verdict("D", 0)])
    bench.wait_until(bench.complete)
    bench._producer.begin_transaction()
    one = verdict("D", 1, feature="open")
    bench.send(one.key.encode(), one.to_json(), verdict_headers(one))
    bench._producer.flush()
    # What is behind the open transaction, in another partition, comes; what is in it, does not.
    other = Producer({"bootstrap.servers": bench.servers})
    behind = verdict("D", 1, feature="behind", model="delax")
    other.produce(bench.config.topics.drift, behind.to_json(), behind.key, partition=0)
    other.flush()
    assert sum(one.key.encode()) % 3 != 0
    bench.committed.append(behind)
    bench.wait_until(bench.complete)
    bench._producer.commit_transaction()
    bench.committed.append(one)
    bench.wait_until(bench.complete)
    assert b"aborted" not in b"".join(m.value() for m in bench.messages)


def test_messages_that_are_no_verdicts_are_logged_and_passed(bench: Bench) -> None:
    wrong = orjson.loads(verdict("D", 0).to_json()) | {"drifted": "yes"}
    bench.publish_raw(b"junk", None, b"\xff\xfe", b"[]", orjson.dumps(wrong))
    bench.publish([verdict("D", 0)])
    bench.start()
    bench.wait_until(bench.complete)
    topic = re.escape(bench.config.topics.drift)
    found = re.findall(rf"skipped {topic}\[\d\]@(\d+), not a verdict: (.*)", bench.log)
    assert [int(offset) for offset, _ in found] == [0, 1, 2, 3, 4]
    texts = [text for _, text in found]
    assert "not JSON" in texts[0]
    assert texts[1] == "the message has no value"
    assert "$.drifted" in texts[4]
    assert "Traceback" not in bench.log


def listening(pid: int) -> list[str]:
    """Addresses (hexadecimal, host:port) the process listens on."""
    inodes: set[str] = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(link)
        if target.startswith("socket:"):
            inodes.add(target[8:-1])
    found: list[str] = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                found.append(words[1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_listens_on_nothing_leaves_no_files_and_ends_on_sigterm(bench: Bench) -> None:
    bench.publish([verdict("D", 0)])
    worker = bench.start()
    bench.wait_until(bench.complete)
    assert listening(worker.pid) == []
    worker.terminate()
    assert worker.wait(WAIT_S) == 0
    assert sorted(p.name for p in bench.directory.iterdir()) == ["driftline.yaml", "worker.log"]
    lines = bench.log.splitlines()
    assert lines[-1].endswith("INFO driftline.alert: stopped")
    style = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO|WARNING) driftline\.[a-z.]+: .*"
    assert [line for line in lines if not re.fullmatch(style, line)] == []


def test_the_state_is_in_a_compacted_topic_with_the_partitions_of_the_verdicts(
    bench: Bench,
) -> None:
    build_app(bench.config)
    client = AdminClient({"bootstrap.servers": bench.servers})
    name = f"{bench.prefix}-alert-rows-changelog"
    assert len(client.list_topics(timeout=10).topics[name].partitions) == 3
    resource = ConfigResource(ResourceType.TOPIC, name)
    settings = client.describe_configs([resource])[resource].result()
    assert settings["cleanup.policy"].value == "compact"


@pytest.mark.parametrize(
    ("partitions", "policy", "complaint"),
    [(2, "compact", "has 2 partitions"), (3, "delete", "cleanup.policy=delete")],
)
def test_a_changelog_that_would_lose_state_is_refused_with_the_remedy(
    bench: Bench, partitions: int, policy: str, complaint: str
) -> None:
    name = f"{bench.prefix}-alert-rows-changelog"
    client = AdminClient({"bootstrap.servers": bench.servers})
    new = NewTopic(name, partitions, 1, config={"cleanup.policy": policy})
    client.create_topics([new])[name].result()
    with pytest.raises(TopicError) as caught:
        main(bench.config)
    assert name in str(caught.value)
    assert complaint in str(caught.value)
    assert f"delete this topic and the consumer group {bench.prefix}-alert" in str(caught.value)
    assert not caught.value.retry


# Client properties.


def translated(**properties: Any) -> dict[str, Any]:
    return faust_settings({k.replace("_", "."): v for k, v in properties.items()})


@pytest.mark.parametrize(
    ("servers", "urls"),
    [
        ("localhost:9092", ["kafka://localhost:9092"]),
        ("a, b:9093", ["kafka://a:9092", "kafka://b:9093"]),
        ("SSL://broker:9093", ["kafka://broker:9093"]),
        ("[::1]:9092,[fe80::2]", ["kafka://[::1]:9092", "kafka://[fe80::2]:9092"]),
    ],
)
def test_servers_become_urls(servers: str, urls: list[str]) -> None:
    assert faust_settings({"bootstrap.servers": servers})["broker"] == urls


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["sasl_plaintext", "SASL_SSL"])
def test_sasl_is_translated(protocol: str, mechanism: str) -> None:
    found = translated(
        bootstrap_servers="a:1", security_protocol=protocol, sasl_mechanism=mechanism,
        sasl_username="me", sasl_password="secret",
    )["broker_credentials"]  # fmt: skip
    assert found.protocol.value == protocol.upper()
    assert found.mechanism.value == mechanism
    assert (found.username, found.password) == ("me", "secret")
    assert (found.ssl_context is not None) == (protocol == "SASL_SSL")


def test_tls_is_translated() -> None:
    import ssl

    import certifi

    secure = {"bootstrap.servers": "a:1", "security.protocol": "ssl"}
    found = faust_settings(secure | {"ssl.ca.location": certifi.where()})["broker_credentials"]
    assert found.protocol.value == "SSL"
    assert found.context.check_hostname
    assert found.context.verify_mode == ssl.CERT_REQUIRED
    assert len(found.context.get_ca_certs()) > 50
    unnamed = secure | {"ssl.endpoint.identification.algorithm": "none"}
    found = faust_settings(unnamed)["broker_credentials"]
    assert not found.context.check_hostname
    assert found.context.verify_mode == ssl.CERT_REQUIRED
    blind = secure | {"enable.ssl.certificate.verification": False}
    assert faust_settings(blind)["broker_credentials"].context.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({"security.protocol": "tls"}, r"kafka.security.protocol: .*must be one of plaintext"),
        ({"security.protocol": "sasl_ssl"}, r"kafka.sasl.mechanism: \"GSSAPI\": .*SCRAM-SHA-512"),
        (
            {"security.protocol": "sasl_plaintext", "sasl.mechanisms": "PLAIN"},
            r"kafka.sasl.username: the key is required by PLAIN",
        ),
        (
            {"security.protocol": "ssl", "ssl.ca.location": "/nowhere.pem"},
            r"kafka.ssl.ca.location: \"/nowhere.pem\": cannot be read",
        ),
        (
            {"security.protocol": "ssl", "ssl.certificate.location": "/nowhere.pem"},
            r"kafka.ssl.certificate.location: \"/nowhere.pem\": cannot be read",
        ),
        (
            {"security.protocol": "ssl", "ssl.keystore.location": "/k.p12"},
            r"kafka.ssl.keystore.location: .*has nothing like it; remove it",
        ),
        (
            {"security.protocol": "ssl", "ssl.crl.location": "/crl.pem"},
            r"kafka.ssl.crl.location: .*has nothing like it; remove it",
        ),
    ],
)
def test_what_cannot_be_translated_is_refused(properties: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        faust_settings({"bootstrap.servers": "a:1"} | properties)


def test_tuning_is_translated_where_there_is_a_setting_and_left_out_elsewhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "driftline.alert")
    found = faust_settings({
        "bootstrap.servers": "a:1", "client.id": "me", "session.timeout.ms": 45000,
        "heartbeat.interval.ms": "3000", "compression.type": "zstd", "message.max.bytes": 5,
        "socket.keepalive.enable": True,
    })  # fmt: skip
    assert found["broker_client_id"] == "me"
    assert found["broker_session_timeout"] == 45.0
    assert found["broker_heartbeat_interval"] == 3.0
    assert found["broker_request_timeout"] > found["broker_session_timeout"]
    assert found["producer_compression_type"] == "zstd"
    assert found["producer_max_request_size"] == 5
    assert found["broker_credentials"] is None
    assert "no setting for socket.keepalive.enable" in caplog.text
