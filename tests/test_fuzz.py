"""Messages that are none, among good ones: nothing stops, each is accounted for, none leaves a
trace in a verdict.

Which messages are events is decided here a second time, with Python's json and the rules written
out.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # pyright: ignore[reportPrivateImportUsage]
from stream_helpers import (
    T0,
    Log,
    at_random,
    config_of,
    in_turn,
    one_by_one,
    python_json,
    reference_of,
    replayed,
)

from driftline.schemas.deadletter import Reason, parse_dead_letter_headers
from driftline.schemas.pane import Delta, Progress
from driftline.stream.broker.node import Broker
from driftline.stream.ingest import Ingest
from driftline.stream.monitor import Monitor

CONFIG = """
kafka: {bootstrap.servers: "SERVERS"}
group: PREFIX
topics: {prefix: PREFIX, partitions: 2}
model: fraud
input: {topic: INPUT, max_message_bytes: 100kB}
reference: ./reference
pane: 1m
windows: [1m, 5m, 400 events]
features: {x: numeric, c: categorical, b: boolean}
segment_by: [country]
allowed_lateness: 10s
min_events: 2
"""
MAX_BYTES = 100_000
MAX_AHEAD_MS = 3_600_000


def config_text(
    servers: str = "localhost:9092", prefix: str = "p", topic: str = "inference"
) -> str:
    return CONFIG.replace("SERVERS", servers).replace("PREFIX", prefix).replace("INPUT", topic)


def good(rng: random.Random, i: int, ms: int) -> dict[str, Any]:
    return {
        "id": f"e{i}", "ts": ms, "model": "fraud", "version": "7",
        "features": {
            "x": round(rng.gauss(0, 1), 3), "c": rng.choice(["a", "b", "ñ"]),
            "b": rng.random() < 0.3,
        },
        "segment": {"country": rng.choice(["ES", "FR"])}, "note": "añadido",
    }  # fmt: skip


def reference_rows() -> list[dict[str, Any]]:
    rng = random.Random(1)
    return [good(rng, i, T0) for i in range(300)]


# The oracle.


def surrogates(value: Any) -> bool:
    return isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)


def scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def time_of(ts: Any) -> int | None:
    """Epoch milliseconds, None for what is no time."""
    ms: float
    if number(ts):
        ms = ts // 1 if isinstance(ts, int) or math.isfinite(ts) else math.inf
    elif isinstance(ts, str):
        try:
            moment = datetime.fromisoformat(ts)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        ms = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    else:
        return None
    return int(ms) if -62_135_596_800_000 <= ms < 253_402_300_800_000 else None


def is_event(value: bytes | None, kafka_ms: int) -> bool:
    """Whether a message is an event by the rules. Text that nobody reads need not be UTF-8."""
    if value is None or len(value) > MAX_BYTES:
        return False
    literals: list[str] = []

    def literal(text: str) -> float:
        literals.append(text)
        return float(text)

    try:
        event = json.loads(value.decode("utf-8", "surrogateescape"), parse_constant=literal)
    except (ValueError, RecursionError):
        return False
    if not isinstance(event, dict):
        return False
    if literals:
        try:
            value.decode()
        except ValueError:
            return False
    features = event.get("features") if event.get("features") is not None else {}
    segment = event.get("segment") if event.get("segment") is not None else {}
    if not isinstance(features, dict) or not isinstance(segment, dict):
        return False
    x, c, b = features.get("x"), features.get("c"), features.get("b")
    country = segment.get("country")
    model, version, ident = event.get("model"), event.get("version"), event.get("id")
    ms = time_of(event.get("ts"))
    return (
        isinstance(ident, str) and ident != ""
        and (model is None or isinstance(model, str))
        and (version is None or isinstance(version, str) or number(version))
        and (x is None or number(x))
        and scalar(c) and scalar(country)
        and (b is None or isinstance(b, bool | int | str))
        and not any(map(surrogates, (ident, model, version, c, b, country, event.get("ts"))))
        and ms is not None
        and (kafka_ms < 0 or ms <= kafka_ms + MAX_AHEAD_MS)
    )  # fmt: skip


# The fuzz.

ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 7, 1.5, 1e308, math.nan, math.inf, 2**63, 2**70, 10**60, "", "x", "2026",
    "\U0001f600", "true", [], [1], {}, {"x": 1}, "a" * 300, "2026-11-21T08:00:00Z", 10**15,
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00",
)  # fmt: skip
PLACES = (
    ("id",), ("ts",), ("model",), ("version",), ("features",), ("features", "x"),
    ("features", "c"), ("features", "b"), ("segment",), ("segment", "country"), ("note",),
)  # fmt: skip
FIXED: tuple[bytes | None, ...] = (
    None, b"", b" ", b"null", b"[]", b"{}", b"17", b'"a"', b"{", b"}", b"\x00" * 9, b"NaN",
    b"[" * 5000, b'{"a":' * 5000, b"[" * 1000 + b"]" * 1000, b'{"id":' * 900 + b"1" + b"}" * 900,
    b"\xef\xbb\xbf{}", b"{'id':'a'}", b'{"id":"a","ts":1e400,"features":{"x":1e400}}',
    b'{"id":"\\ud800","ts":1}', b'{"id":"a","ts":1,"features":{"c":"\\udc00"}}',
    b'{"features":{"x":' + b"[" * 900 + b"]" * 900 + b"}}", b"\xff\xfe\x00", b"\x1f\x8b\x08\x00",
    b'{"id":"a","ts":1' + b"0" * 5000 + b"}", b'{"id":"a",}', b'{"id":"a" "ts":1}',
)  # fmt: skip


def mutant(rng: random.Random, i: int, ms: int) -> bytes | None:
    event = good(rng, i, ms)
    how = rng.random()
    if how < 0.03:
        return rng.choice(FIXED)
    if how < 0.06:
        return rng.randbytes(rng.randrange(200))
    if how < 0.35:
        for _ in range(rng.randint(1, 2)):
            place = rng.choice(PLACES)
            inside = event
            for key in place[:-1]:
                inside = inside.get(key) if isinstance(inside.get(key), dict) else {}
            inside[place[-1]] = deepcopy(rng.choice(ODD_VALUES))
            if rng.random() < 0.2:
                del inside[place[-1]]
        return python_json(event)
    raw = bytearray(python_json(event))
    if how < 0.55:
        return bytes(raw[: rng.randrange(len(raw))])
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(raw))
        if how < 0.85:
            raw[at] ^= 1 << rng.randrange(8)
        elif how < 0.95:
            raw[at : at + rng.randint(1, 8)] = rng.randbytes(rng.randrange(9))
        else:
            raw[at:at] = raw[: rng.randrange(len(raw))]
    return bytes(raw)


def huge(rng: random.Random, i: int) -> bytes:
    """Around and above the limit."""
    size = rng.choice([MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1, 5 * MAX_BYTES])
    if i % 2:
        return b'{"id":"h","note":"' + b"n" * (size - 20) + b'"}'
    return rng.randbytes(size)


def fuzzed(seed: int, n_good: int, n_fuzz: int) -> list[tuple[bytes | None, int, bool]]:
    """(message, Kafka's time, whether it is a good one), good and bad mixed."""
    rng = random.Random(seed)
    is_good = [True] * n_good + [False] * n_fuzz
    rng.shuffle(is_good)
    found: list[tuple[bytes | None, int, bool]] = []
    for i, fine in enumerate(is_good):
        ms = T0 + i * 10 - rng.randrange(5000)
        kafka_ms = T0 + i * 10
        if fine:
            found.append((python_json(good(rng, i, ms)), kafka_ms, True))
        elif i % 1500 == 7:
            found.append((huge(rng, i // 1500), kafka_ms, False))
        else:
            found.append((mutant(rng, i, ms), kafka_ms, False))
    return found


def log_of(messages: list[tuple[bytes | None, int, bool]], owner: list[int]) -> Log:
    values: list[list[bytes | None]] = [[], [], []]
    stamps: list[list[int]] = [[], [], []]
    for (value, kafka_ms, _), p in zip(messages, owner, strict=True):
        values[p].append(value)
        stamps[p].append(kafka_ms)
    return Log(values, stamps)


def test_100000_fuzzed_messages_among_good_ones(tmp_path: Path) -> None:
    config = config_of(tmp_path, config_text())
    references = {"fraud": reference_of(config, reference_rows())}
    messages = fuzzed(2, 20_000, 100_000)
    owner = np.random.default_rng(3).integers(0, 3, len(messages)).tolist()
    accepted = [is_event(value, kafka_ms) for value, kafka_ms, _ in messages]
    assert all(ok for ok, (_, _, fine) in zip(accepted, messages, strict=True) if fine)
    n_refused = accepted.count(False)
    # Both kinds of fuzz are there.
    assert n_refused > 40_000
    assert sum(accepted) - 20_000 > 20_000

    rng = np.random.default_rng(4)
    both, work = replayed(
        config, references, log_of(messages, owner), one_by_one, at_random(rng, 30_000)
    )
    assert work.counts.balanced
    assert work.counts.received == len(messages)
    assert work.counts.dead_lettered == n_refused
    # Those that happened to be events count, and nothing of the others does.
    chosen = [(m, p) for m, p, ok in zip(messages, owner, accepted, strict=True) if ok]
    log = log_of([m for m, _ in chosen], [p for _, p in chosen])
    alone, plain = replayed(config, references, log, in_turn)
    assert plain.counts.dead_lettered == 0
    for name in ("summarised", "late", "ignored"):
        assert getattr(plain.counts, name) == getattr(work.counts, name) > 0
    assert alone == both
    assert len(alone) > 500


def test_fuzz_that_is_all_refused_leaves_no_trace(tmp_path: Path) -> None:
    config = config_of(tmp_path, config_text())
    references = {"fraud": reference_of(config, reference_rows())}
    messages = [
        m for m in fuzzed(5, 6000, 14_000) if m[2] or not is_event(m[0], m[1])
    ]  # fmt: skip
    owner = [i % 3 for i in range(len(messages))]
    both, work = replayed(config, references, log_of(messages, owner))
    kept = [(m, p) for m, p in zip(messages, owner, strict=True) if m[2]]
    log = log_of([m for m, _ in kept], [p for _, p in kept])
    alone, _ = replayed(config, references, log)
    assert both == alone
    assert len(alone) > 100
    assert (work.counts.summarised, work.counts.late) == (6000, 0)
    assert work.counts.dead_lettered == len(messages) - 6000 > 6000
    assert all(Reason(error.reason) for _, error in work.refused)


def read_all(servers: str, topic: str) -> list[Message]:
    reader = Consumer({
        "bootstrap.servers": servers, "group.id": "fuzz-reader", "enable.auto.commit": False,
        "isolation.level": "read_committed", "enable.partition.eof": True, "log_level": 0,
        "fetch.message.max.bytes": 30_000_000,
    })  # fmt: skip
    try:
        partitions = list(reader.list_topics(topic, timeout=20).topics[topic].partitions)
        reader.assign([TopicPartition(topic, p, 0) for p in partitions])
        ended: set[int | None] = set()
        found: list[Message] = []
        while len(ended) < len(partitions):
            for m in reader.consume(1000, 1.0):
                error = m.error()
                if error is None:
                    found.append(m)
                else:
                    assert error.code() == KafkaError._PARTITION_EOF
                    ended.add(m.partition())
        return found
    finally:
        reader.close()


def test_dead_letters_of_a_real_broker_carry_all_that_was_wrong(
    tmp_path: Path, kafka: Broker, topic_prefix: str
) -> None:
    servers, topic = kafka.bootstrap_servers, f"{topic_prefix}.in"
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    big = {"max.message.bytes": "12000000"}
    admin.create_topics([NewTopic(topic, 2, 1, config=big)])[topic].result()
    config = config_of(tmp_path, config_text(servers, topic_prefix, topic))
    reference = reference_of(config, reference_rows())
    rng = random.Random(6)
    messages = [
        (value, kafka_ms) for value, kafka_ms, _ in fuzzed(7, 1000, 2000)
    ]  # fmt: skip
    messages[10] = (rng.randbytes(5_000_000), T0)
    messages[11] = (None, T0)
    # A time that would have closed every pane.
    messages[12] = (python_json(good(rng, 0, T0 + 86_400_000)), T0)
    producer = Producer({
        "bootstrap.servers": servers, "message.max.bytes": 12_000_000, "log_level": 0,
        "enable.idempotence": True,
    })  # fmt: skip
    for i, (value, kafka_ms) in enumerate(messages):
        producer.produce(topic, value, key=b"k%d" % i, partition=i % 2, timestamp=kafka_ms)
    assert producer.flush(60) == 0

    deadline = time.monotonic() + 150
    ingest = Ingest(config, {"fraud": reference}, lambda: (
        ingest.totals.received >= len(messages) or time.monotonic() > deadline
    ))  # fmt: skip
    ingest.run()
    assert ingest.totals.received == len(messages)
    assert ingest.totals.balanced

    offsets: Counter[int] = Counter()
    expected: dict[tuple[int, int], tuple[bytes, bytes | None]] = {}
    for i, (value, kafka_ms) in enumerate(messages):
        if not is_event(value, kafka_ms):
            expected[i % 2, offsets[i % 2]] = b"k%d" % i, value
        offsets[i % 2] += 1
    letters = read_all(servers, config.topics.dead_letters)
    found: dict[tuple[int, int], tuple[bytes | None, bytes | None]] = {}
    reasons: dict[bytes | None, str] = {}
    for m in letters:
        said = parse_dead_letter_headers(m.headers())
        assert (said.topic, said.stage, said.truncated) == (topic, "ingest", None)
        assert said.message
        found[said.partition, said.offset] = m.key(), m.value()
        reasons[m.key()] = said.reason
    assert len(letters) == len(found)
    assert found == expected
    assert ingest.totals.dead_lettered == len(expected)
    assert (reasons[b"k10"], reasons[b"k11"], reasons[b"k12"]) == (
        "too_large", "tombstone", "time_ahead",
    )  # fmt: skip
    assert len(set(reasons.values())) >= 8
    assert "unknown" not in reasons.values()

    # And the panes are those of the others, for the verdicts too.
    monitor = Monitor(config, {"fraud": reference})
    events = 0
    counts: Counter[str] = Counter()
    panes = [m for m in read_all(servers, config.topics.panes) if m.partition() == 0]
    for m in panes:
        if dict(m.headers() or [])["driftline_kind"] == b"progress":
            for p in Progress.decode(m.value() or b"").partitions:
                counts.update(p.counts or {})
    for m in read_all(servers, config.topics.panes):
        if dict(m.headers() or [])["driftline_kind"] == b"delta":
            delta = Delta.decode(m.value() or b"")
            monitor.delta(0, delta)
            events += int(delta.events.sum()) if not delta.segment else 0
    assert events == ingest.totals.summarised > 900
    assert counts == Counter(ingest.totals.as_dict())


def test_the_oracle_knows_the_rules() -> None:
    event = good(random.Random(8), 1, T0)
    assert is_event(orjson.dumps(event), T0)
    for change in (
        {"id": 7}, {"id": ""}, {"ts": None}, {"ts": "soon"}, {"ts": T0 + 3_600_001}, {"model": 7},
        {"version": True}, {"features": [1]}, {"features": {"x": "1"}}, {"features": {"x": True}},
        {"features": {"b": 0.5}}, {"segment": "ES"}, {"segment": {"country": []}},
    ):  # fmt: skip
        assert not is_event(python_json(event | change), T0), change
    assert is_event(python_json(event | {"features": {"x": math.nan}}), -1)


@pytest.mark.parametrize("value", [v for v in FIXED if v is not None])
def test_every_odd_message_is_refused_by_itself(tmp_path: Path, value: bytes) -> None:
    """Alone in its batch, in which nothing else can send it the slow way."""
    config = config_of(tmp_path, config_text())
    references = {"fraud": reference_of(config, reference_rows())}
    _, work = replayed(config, references, Log([[value]], [[T0]]))
    assert work.counts.dead_lettered == (not is_event(value, T0)) == 1
