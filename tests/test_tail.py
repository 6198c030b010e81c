"""`driftline tail`, on a real broker: what it prints, from where, and what it says of an outage."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from alert_timelines import alerts_of, drawn, verdict
from confluent_kafka import Producer

from driftline.schemas.errors import ConfigError, TopicError
from driftline.stream.broker.node import Broker
from driftline.stream.clients import ensure_topics
from driftline.stream.config.document import Config, load
from driftline.stream.tail import tail

WAIT_S = 180.0
CONFIG = """
kafka: {{bootstrap.servers: "{servers}"}}
topics: {{prefix: {prefix}, partitions: 2}}
model: delay
input: {{topic: inference}}
reference: ./reference
windows: [5m]
"""


class Bench:
    def __init__(self, broker: Broker, prefix: str, directory: Path) -> None:
        self.broker, self.directory = broker, directory
        self.path = directory / "driftline.yaml"
        text = CONFIG.format(servers=broker.bootstrap_servers, prefix=prefix)
        self.path.write_text(text, encoding="utf-8")
        self.config: Config = load(self.path)
        properties = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": prefix}
        self._producer = Producer(properties | {"log_level": 0})
        ensure_topics(self.config)
        self._producer.init_transactions()

    def publish(
        self,
        topic: str,
        values: Sequence[bytes | None],
        *,
        commit: bool = True,
        timestamp_ms: int = 0,
    ) -> None:
        self._producer.begin_transaction()
        for value in values:
            self._producer.produce(topic, value, b"delay", partition=0, timestamp=timestamp_ms)
        if commit:
            self._producer.commit_transaction()
        else:
            self._producer.flush()
            self._producer.abort_transaction()

    def publish_drift(self, values: Sequence[bytes | None], **how: Any) -> None:
        self.publish(self.config.topics.drift, values, **how)

    def read(self, what: Any, since: str | None = None, as_json: bool = False) -> list[str]:
        out = io.StringIO()
        code = tail(self.config, what, json=as_json, since=since, follow=False, out=out)
        assert code == 0
        return out.getvalue().splitlines()

    def follow(self, *options: str) -> subprocess.Popen[bytes]:
        """The command, its output in out.txt and err.txt, once it has said where it stands."""
        command = [sys.executable, "-m", "driftline.stream.cli", "tail", "drift", "--config"]
        with (
            open(self.directory / "out.txt", "wb") as o,
            open(self.directory / "err.txt", "wb") as e,
        ):
            return subprocess.Popen([*command, str(self.path), *options], stdout=o, stderr=e)

    def out(self) -> str:
        return (self.directory / "out.txt").read_text(encoding="utf-8")

    def err(self) -> str:
        return (self.directory / "err.txt").read_text(encoding="utf-8")


@pytest.fixture
def bench(kafka: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    return Bench(kafka, topic_prefix, tmp_path)


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_verdict_is_one_line(bench: Bench) -> None:
    effect = {
        "kind": "share_shift", "value": 0.12, "unit": "share", "reference": 0.1, "window": 0.22,
        "category": "EV",
    }  # fmt: skip
    share = verdict(
        "D", 2, "psi 2000 events", feature="carrier", p_value=None, alpha=None, threshold=0.1,
        segment={"airport": "JFK"}, effect=effect, since="2026-11-21T07:40:00.000Z",
    )  # fmt: skip
    lately = verdict("D", 3, reference={"id": "earlier", "n": 9, "name": "sliding 7d"}, effect=None)
    bench.publish_drift([v.to_json() for v in [*drawn("ks 5m         C ?"), share, lately]])
    lines = [" ".join(line.split()) for line in bench.read("drift")]
    assert lines == [
        "2026-11-21 08:00 delay temperature ks 5m 0.2 p 1e-9 DRIFT "
        "rose by 1.5 reference standard deviations (10 → 11.5)",
        "2026-11-21 08:01 delay temperature ks 5m ? 4 values in the window, the test needs 20",
        "2026-11-21 08:02 delay airport=JFK carrier psi 2000 events 0.2 DRIFT "
        "share of carrier EV went from 10% to 22%, since about 2026-11-21 07:40 UTC",
        "2026-11-21 08:03 delay temperature ks 5m against sliding 7d 0.2 p 1e-9 DRIFT",
    ]


def test_quiet_verdicts_have_no_mark(bench: Bench) -> None:
    bench.publish_drift([v.to_json() for v in drawn("ks 5m         · D")])
    marks = ["DRIFT" in line for line in bench.read("drift")]
    assert marks == [False, True]


def test_an_alert_is_one_line_with_its_summary(bench: Bench) -> None:
    alerts = list(alerts_of(drawn("ks 5m         D C · ·"), 2))
    bench.publish(bench.config.topics.alerts, [a.to_json() for a in alerts])
    lines = [" ".join(line.split()) for line in bench.read("alerts")]
    assert lines == [
        f"2026-11-21 08:00 delay temperature FIRING warning {alerts[0].summary}",
        f"2026-11-21 08:00 delay temperature FIRING critical {alerts[1].summary}",
        f"2026-11-21 08:03 delay temperature RESOLVED critical {alerts[2].summary}",
    ]


def test_json_is_the_message_itself_on_one_line(bench: Bench) -> None:
    values = [v.to_json() for v in drawn("ks 5m         D ·")]
    pretty = json.dumps(json.loads(values[0]), indent=1).encode()
    bench.publish_drift([*values, pretty])
    lines = bench.read("drift", as_json=True)
    assert [line.encode() for line in lines[:2]] == values
    assert json.loads(lines[2]) == json.loads(values[0])
    assert len(lines) == 3


def test_what_is_not_committed_or_no_verdict_is_not_shown(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    good = verdict("D", 0).to_json()
    bench.publish_drift([verdict("D", 1).to_json()], commit=False)
    bench.publish_drift([None, b"junk", good])
    bench.publish_drift([verdict("D", 2).to_json()], commit=False)
    assert bench.read("drift", as_json=True) == [good.decode()]
    assert len(bench.read("drift")) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert f"{bench.config.topics.drift}[0]@" in first
    assert "not JSON" in second


def test_names_from_events_cannot_write_to_the_terminal(bench: Bench) -> None:
    bench.publish_drift([verdict("D", 0, feature="\x1b[2J\x07evil\n").to_json()])
    [line] = bench.read("drift")
    assert "\x1b" not in line
    assert "evil" in line


def test_since_is_when_a_message_was_published(bench: Bench) -> None:
    #    07:00      07:30      08:00 (Kafka's time of the message)
    #      a          ▲          b
    hour = 1_795_244_400_000
    a, b = (verdict("D", column).to_json() for column in (0, 1))
    bench.publish_drift([a], timestamp_ms=hour)
    bench.publish_drift([b], timestamp_ms=hour + 3_600_000)
    both = [a.decode(), b.decode()]
    assert bench.read("drift", since="beginning", as_json=True) == both
    assert bench.read("drift", since=str(hour + 1_800_000), as_json=True) == both[1:]
    assert bench.read("drift", since=str(hour + 7_200_000), as_json=True) == []


def test_a_wrong_since_is_explained(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="--since: 'yesterday' is not a time.*or beginning"):
        bench.read("drift", since="yesterday")


def test_a_topic_that_is_not_there_is_explained(bench: Bench) -> None:
    config = load(bench.path, overrides={"topics": {"prefix": f"{bench.config.topics.prefix}x"}})
    with pytest.raises(TopicError, match=r"x.drift' does not exist; `driftline run` creates it"):
        tail(config, "drift", json=False, since=None, follow=False, out=io.StringIO())


def test_it_follows_from_now_on_until_ctrl_c(bench: Bench) -> None:
    old, new = (verdict("D", column).to_json() for column in (0, 1))
    bench.publish_drift([old])
    process = bench.follow("--json")
    try:
        # Where "now" was is not said, so messages are sent until one is seen.
        def seen() -> bool:
            bench.publish_drift([new])
            return bench.out() != ""

        wait_until(seen)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()
    assert set(bench.out().splitlines()) == {new.decode()}
    assert bench.err() == ""


def test_an_outage_is_one_line(bench: Bench) -> None:
    first, second = (verdict("D", column).to_json() for column in (0, 1))
    bench.publish_drift([first])
    process = bench.follow("--json", "--since", "beginning")
    try:
        wait_until(lambda: len(bench.out().splitlines()) == 1)
        bench.broker.kill()
        try:
            wait_until(lambda: bench.err() != "")
        finally:
            bench.broker.restart()
        bench.publish_drift([second])
        wait_until(lambda: len(bench.out().splitlines()) == 2)
    finally:
        process.kill()
        process.wait()
    assert bench.out().splitlines() == [first.decode(), second.decode()]
    servers = bench.broker.bootstrap_servers
    waiting, again = bench.err().splitlines()
    assert waiting == f"no broker answers at {servers}; waiting"
    assert again == "connected again"
