"""`driftline init`: what it sees in a topic, and that the file it proposes is one that loads."""

from __future__ import annotations

import io
import random
import string
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from driftline.schemas.errors import ConfigError, DriftlineError, TopicError
from driftline.schemas.units import parse_duration_ms
from driftline.stream.broker.node import Broker
from driftline.stream.config.document import load
from driftline.stream.init.fields import map_fields
from driftline.stream.init.format import recognise
from driftline.stream.init.kinds import feature_kind, time_unit
from driftline.stream.init.propose import Findings, examine, look, show, write
from driftline.stream.init.report import compose
from driftline.stream.init.sample import Message, Sample
from driftline.stream.init.time import Lag, Timed, disorder, lag, rate_per_s, suggest

NOW = 1_736_942_400_000  # 2025-01-15T12:00:00Z; Kafka refuses timestamps of the future
SERVERS = {"bootstrap.servers": "localhost:9092"}


def sample_of(
    events: Sequence[Any], *, keys: Callable[[int], bytes | None] = lambda _: None
) -> Sample:
    """A sample of one partition with these events, one a second."""
    messages = tuple(
        Message(0, i, 0, NOW + 1000 * i, keys(i), e if isinstance(e, bytes) else orjson.dumps(e))
        for i, e in enumerate(events)
    )
    return Sample("inference", {0: (0, len(events))}, messages, False)


def loaded(findings: Findings, directory: Path) -> Any:
    path = directory / "driftline.yaml"
    write(findings, path, force=True)
    return load(path)


def shown(findings: Findings) -> str:
    out = io.StringIO()
    show(findings, Console(file=out, width=200))
    return out.getvalue()


def flat_event(r: random.Random, ts: int) -> dict[str, Any]:
    """What a team might log that has never heard of driftline."""
    return {
        "requestId": f"{r.getrandbits(128):032x}",
        "createdAt": ts,
        "modelName": "fraud",
        "amount": None if r.random() < 0.05 else r.gauss(50, 9),
        "merchant": r.choice("abcde"),
        "vip": r.random() < 0.1,
        "flag": r.choice([0, 1]),
        "note": " ".join(r.choices(["quick", "brown", "fox", "jumps", "lazy"], k=9)),
        "customer_id": r.randrange(10**9),
        "country": r.choice(["ES", "FR"]),
        "currency": "EUR",
        "coupon": None,
        "vector": [r.random(), r.random()],
        "y_pred": r.choice(["legit", "fraud"]),
        "probability": r.random(),
    }


def preferred_event(r: random.Random, i: int) -> dict[str, Any]:
    return {
        "id": f"e{i}",
        "ts": NOW + 1000 * i,
        "model": "fraud",
        "version": "7",
        "features": {"amount": r.gauss(0, 1), "merchant": r.choice("ab")},
        "prediction": r.choice(["legit", "fraud"]),
        "score": r.random(),
        "latency_ms": 8.1,
        "error": None,
        "segment": {"country": r.choice(["ES", "FR"])},
    }


# On a real broker


def fill(
    kafka: Broker, topic: str, partitions: int, messages: Sequence[tuple[bytes | None, bytes, int]]
) -> dict[str, str]:
    """Create `topic` and send (key, value, timestamp); the properties to read it with."""
    config = {"bootstrap.servers": kafka.bootstrap_servers}
    admin = AdminClient(config)
    new = NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})
    for future in admin.create_topics([new]).values():
        future.result(30)
    producer = Producer({**config, "enable.idempotence": True})  # the order is tested
    refused: list[object] = []
    for key, value, timestamp in messages:
        producer.produce(
            topic,
            value,
            key,
            timestamp=timestamp,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(30) == 0
    assert refused == []
    return config


def test_a_topic_that_never_heard_of_driftline(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    r = random.Random(1)
    messages = []
    for i in range(6000):
        event = flat_event(r, NOW + 50 * i - r.choice([0, 0, 0, 4000]))
        messages.append((event["requestId"].encode(), orjson.dumps(event), NOW + 50 * i + 120))
    config = fill(kafka, topic_prefix, 3, messages)
    findings = look(config, topic_prefix, sample=1200)

    assert findings.partitions == 3
    assert findings.total == 6000
    assert findings.sampled == 1200
    assert (findings.format.name, findings.format.sure, findings.format.share) == (
        "json",
        "certain",
        1.0,
    )
    assert findings.mapped is not None
    assert findings.mapped.paths == {
        "id": ("requestId",),
        "ts": ("createdAt",),
        "model": ("modelName",),
        "features": (),
        "prediction": ("y_pred",),
        "score": ("probability",),
    }
    [model] = findings.models
    assert (model.name, model.events) == ("fraud", 1200)
    kinds = {feature.name: feature.kind for feature in model.features}
    assert kinds == {
        "amount": "numeric",
        "merchant": "categorical",
        "vip": "boolean",
        "flag": "boolean",
        "note": None,
        "customer_id": None,
        "country": "categorical",
        "currency": "categorical",
        "coupon": None,
        "vector": "vector",
    }
    amount = next(feature for feature in model.features if feature.name == "amount")
    assert 0.02 < amount.missing < 0.08
    assert findings.keys.share == 1
    assert findings.keys.same_as == ("requestId",)
    assert findings.keys.split == 0
    assert findings.lag == Lag(120, 4120, 4120, 120)
    assert {partition for partition, _ in findings.disorder} == {0, 1, 2}
    assert all(3000 <= d.max_ms <= 4000 and 0.1 < d.share < 0.4 for _, d in findings.disorder)
    assert findings.rate_per_s == pytest.approx(20, rel=0.2)
    assert findings.suggestion is not None
    assert findings.suggestion.allowed_lateness == "10s"

    made = loaded(findings, tmp_path)
    assert made.client_properties() == config
    model = made.models["fraud"]
    assert model.kinds | {k: v.kind for k, v in model.vectors.items()} == {
        k: v for k, v in kinds.items() if v
    }
    assert made.models["fraud"].input.topic == topic_prefix
    assert made.models["fraud"].input.fields == findings.mapped.paths
    text = (tmp_path / "driftline.yaml").read_text()
    for name, kind in kinds.items():
        assert f"  # {name}: left out, " in text if kind is None else f"  {name}: {kind}" in text
    page = shown(findings)
    for part in ("$.requestId", "about 20", "free text", "customer_id", "99 % 4s120ms"):
        assert part in page


def test_both_ends_of_every_partition_are_read(kafka: Broker, topic_prefix: str) -> None:
    """Drift between the oldest and the newest events is visible in the sample."""
    old = [(b"k", orjson.dumps({"era": "old", "n": i}), NOW + i) for i in range(500)]
    new = [(b"k", orjson.dumps({"era": "new", "n": i}), NOW + 500 + i) for i in range(500)]
    config = fill(kafka, topic_prefix, 4, old + new)
    findings = look(config, topic_prefix, sample=400)
    # One key, so one partition has everything: 50 of its beginning, 50 of its end.
    assert findings.sampled == 100
    [era] = [f for f in findings.models[0].features if f.name == "era"]
    assert (era.kind, era.distinct) == ("categorical", 2)
    assert (findings.keys.distinct, findings.keys.split) == (1, 0)


def test_looking_joins_no_group_and_commits_nothing(kafka: Broker, topic_prefix: str) -> None:
    r = random.Random(2)
    messages = [(None, orjson.dumps(preferred_event(r, i)), NOW + i) for i in range(50)]
    config = fill(kafka, topic_prefix, 1, messages)
    admin = AdminClient(config)
    before = {group.group_id for group in admin.list_consumer_groups().result(30).valid}
    look(config, topic_prefix)
    after = {group.group_id for group in admin.list_consumer_groups().result(30).valid}
    assert after == before


def test_an_aborted_transaction_is_not_looked_at(kafka: Broker, topic_prefix: str) -> None:
    config = fill(kafka, topic_prefix, 1, [])
    producer = Producer({**config, "transactional.id": topic_prefix})
    producer.init_transactions(30)
    for era, finish in (
        ("kept", producer.commit_transaction),
        ("lost", producer.abort_transaction),
    ):
        producer.begin_transaction()
        for i in range(20):
            producer.produce(topic_prefix, orjson.dumps({"era": era, "n": i}))
        producer.flush(30)
        finish(30)
    findings = look(config, topic_prefix)
    assert findings.sampled == 20
    [era] = [f for f in findings.models[0].features if f.name == "era"]
    assert era.distinct == 1


def test_a_topic_that_is_not_there_is_named_with_those_that_are(
    kafka: Broker, topic_prefix: str
) -> None:
    config = fill(kafka, f"{topic_prefix}-inference", 1, [])
    with pytest.raises(TopicError, match=f"did you mean {topic_prefix}-inference") as caught:
        look(config, f"{topic_prefix}-inferences")
    assert not caught.value.retry
    with pytest.raises(TopicError, match="holds no messages") as caught:
        look(config, f"{topic_prefix}-inference")
    assert caught.value.retry


def test_a_broker_that_does_not_answer_is_named(
    free_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    from driftline.stream.init.sample import read_sample

    with pytest.raises(DriftlineError, match=f"127.0.0.1:{free_port}") as caught:
        read_sample({"bootstrap.servers": f"127.0.0.1:{free_port}"}, "inference", 10, timeout_s=1)
    assert caught.value.retry
    assert "refused" in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_property_librdkafka_refuses_is_named() -> None:
    with pytest.raises(ConfigError, match=r"sasl\.pasword") as caught:
        look({**SERVERS, "sasl.pasword": "hunter2"}, "inference")
    assert "hunter2" not in str(caught.value)


# The proposed file


def test_preferred_events_need_no_fields(tmp_path: Path) -> None:
    r = random.Random(3)
    findings = examine(sample_of([preferred_event(r, i) for i in range(300)]), SERVERS)
    assert findings.mapped is not None
    assert findings.mapped.preferred
    assert findings.mapped.notes == ()
    assert findings.segments == (("country", 2), ("version", 1))
    model = loaded(findings, tmp_path).models["fraud"]
    assert model.input.fields is None
    assert model.features == {"amount": "numeric", "merchant": "categorical"}
    assert "# segment_by: [country]" in (tmp_path / "driftline.yaml").read_text()


def test_each_model_of_a_topic_gets_its_own_features(tmp_path: Path) -> None:
    r = random.Random(4)
    events = []
    for i in range(400):
        event = preferred_event(r, i)
        if i % 4 == 0:
            event["model"] = "churn risk"
            event["features"] = {"age": r.gauss(40, 9), "amount": "low" if i % 8 else "high"}
        events.append(event)
    made = loaded(examine(sample_of(events), SERVERS), tmp_path)
    assert made.models["fraud"].features == {"amount": "numeric", "merchant": "categorical"}
    assert made.models["churn risk"].features == {"age": "numeric", "amount": "categorical"}
    assert made.models["fraud"].input == made.models["churn risk"].input


def test_nested_events_are_mapped_where_they_are(tmp_path: Path) -> None:
    r = random.Random(5)
    events = [
        {
            "request": {
                "uuid": f"{r.getrandbits(128):032x}",
                "time": f"2025-01-15T12:{i // 60 % 60:02d}:{i % 60:02d}Z",
                "inputs": {"user.age": r.randrange(90), "geo": {"lat": r.random()}, "score": i % 7},
            },
            "response": {"prediction": {"label": r.choice("ab"), "probability": r.random()}},
        }
        for i in range(300)
    ]
    findings = examine(sample_of(events), SERVERS)
    model = loaded(findings, tmp_path).models["inference"]
    assert model.input.fields == {
        "id": ("request", "uuid"),
        "ts": ("request", "time"),
        "features": ("request", "inputs"),
        "features.geo.lat": ("request", "inputs", "geo", "lat"),
        "features.score_in": ("request", "inputs", "score"),
        "prediction": ("response", "prediction", "label"),
        "score": ("response", "prediction", "probability"),
    }
    assert model.features == {"user.age": "numeric", "geo.lat": "numeric", "score_in": "numeric"}


def test_a_model_with_name_and_version_is_two_fields() -> None:
    events = [{"model": {"name": "fraud", "version": "3"}, "ts": NOW + i} for i in range(60)]
    paths = map_fields(events).paths
    assert (paths["model"], paths["version"]) == (("model", "name"), ("model", "version"))


def test_a_feature_in_the_place_of_a_field_is_left_out_with_the_reason(tmp_path: Path) -> None:
    """`version` stands at the root, varies like a feature, and driftline reads its own there."""
    events = [
        {"id": f"e{i}", "ts": NOW + i, "version": i / 7, "model": i % 5, "x": i % 3}
        for i in range(90)
    ]
    findings = examine(sample_of(events), SERVERS)
    assert findings.mapped is not None
    notes = " ".join(findings.mapped.notes)
    assert "features.version is left out" in notes
    assert "features.model is left out" in notes
    assert loaded(findings, tmp_path).models["inference"].features == {"x": "numeric"}


def test_a_time_in_seconds_is_pointed_out_and_not_mapped(tmp_path: Path) -> None:
    r = random.Random(6)
    events = [{"uuid": f"u{i}", "time": NOW // 1000 + i, "x": r.random()} for i in range(100)]
    findings = examine(sample_of(events), SERVERS)
    assert findings.mapped is not None
    assert findings.mapped.time_unit == "seconds"
    assert findings.lag == Lag(0, 0, 0, 0)
    model = loaded(findings, tmp_path).models["inference"]
    assert model.input.fields == {"id": ("uuid",), "features": ()}
    text = (tmp_path / "driftline.yaml").read_text()
    assert "# ts: $.time" in text
    assert "# CHECK: the event time $.time is in seconds" in text


def test_ids_that_are_numbers_are_pointed_out() -> None:
    events = [{"id": i, "ts": NOW + i, "x": i / 7} for i in range(100)]
    mapped = map_fields(events)
    assert mapped.paths["id"] == ("id",)
    assert any("$.id holds numbers" in note for note in mapped.notes)


def test_what_cannot_be_found_is_asked_for() -> None:
    notes = " ".join(map_fields([{"x": i / 7} for i in range(100)]).notes)
    assert "map one that differs in every event" in notes
    assert "no field holds the event time" in notes


def test_id_and_time_are_recognised_by_their_values() -> None:
    r = random.Random(7)
    events = [
        {"a": f"{r.getrandbits(128):032x}", "b": "2025-01-15T12:00:00Z", "c": i} for i in range(99)
    ]
    mapped = map_fields(events)
    assert (mapped.paths["id"], mapped.paths["ts"]) == (("a",), ("b",))
    assert sum("by its values alone" in note for note in mapped.notes) == 2


def test_messages_that_are_not_json_are_counted(tmp_path: Path) -> None:
    r = random.Random(8)
    events: list[Any] = [preferred_event(r, i) for i in range(90)]
    events[10:10] = [b"{broken", b"\xff\xfe\x00", b"[1, 2]"]
    findings = examine(sample_of(events), SERVERS)
    assert findings.format.name == "json"
    assert findings.not_json == 3
    loaded(findings, tmp_path)
    assert "# CHECK: 3 of 93 sampled messages are not" in (tmp_path / "driftline.yaml").read_text()


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    findings = examine(sample_of([preferred_event(random.Random(9), 0)]), SERVERS)
    path = tmp_path / "driftline.yaml"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="the file exists; name another, or use --force"):
        write(findings, path)
    assert path.read_text() == "mine"
    write(findings, path, force=True)
    assert path.read_text().startswith("# Proposed by")
    assert [entry.name for entry in tmp_path.iterdir()] == ["driftline.yaml"]
    with pytest.raises(ConfigError, match="cannot be written: No such file or directory"):
        write(findings, tmp_path / "missing" / "driftline.yaml")


def test_a_format_that_cannot_be_read_leads_to_no_file(tmp_path: Path) -> None:
    avro = [b"\0" + struct.pack(">I", 7) + bytes([2, 4, 6, 200, 9, 33]) for _ in range(20)]
    findings = examine(sample_of(avro), SERVERS)
    with pytest.raises(TopicError, match=r"Avro with a Schema Registry .*schema id 7"):
        write(findings, tmp_path / "driftline.yaml")
    assert list(tmp_path.iterdir()) == []
    assert "not readable" in shown(findings)


def test_no_secret_and_no_value_of_an_event_reaches_file_or_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**SERVERS, "sasl.password": "hunter2", "client.id": "a ${B} c", "group.id": "mine"}
    events = [
        {"id": f"secret-id-{i}", "ts": NOW + i, "name": f"Person {i}", "city": f"City{i % 3}"}
        for i in range(100)
    ]
    findings = examine(sample_of(events, keys=lambda i: f"secret-id-{i}".encode()), config)
    text = compose(findings) + repr(findings) + shown(findings)
    for private in ("hunter2", "secret-id", "Person", "City"):
        assert private not in text
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter2")
    made = loaded(findings, tmp_path)
    assert made.client_properties() == {
        **SERVERS,
        "sasl.password": "hunter2",
        "client.id": "a ${B} c",
    }


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=8) | st.sampled_from(["id", "ts", "features", "score", "version"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
NAMES = st.text(max_size=10) | st.sampled_from(
    [
        "id",
        "ts",
        "model",
        "version",
        "features",
        "segment",
        "prediction",
        "score",
        "time",
        "no",
        "~",
    ]
)


@settings(deadline=None)  # a file is written and read for each example
@given(st.lists(st.dictionaries(NAMES, JSON, max_size=6), min_size=1, max_size=6))
def test_whatever_the_events_are_the_proposed_file_loads(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]
) -> None:
    findings = examine(sample_of(events * 3), SERVERS)
    if findings.format.supported:
        made = loaded(findings, tmp_path_factory.getbasetemp())
        assert all(model.windows for model in made.models.values())
    shown(findings)


# Formats


def protobuf() -> bytes:
    return b"\x0a\x05hello\x10\x96\x01\x1d\x00\x00\x80\x3f"


@pytest.mark.parametrize(
    ("value", "headers", "name", "sure"),
    [
        (b'{"a": 1}', {}, "json", "certain"),
        (b'{"a": 1}', {"ce_specversion": "1.0", "ce_type": "x"}, "json", "certain"),
        (b'{"specversion": "1.0", "data": {}}', {}, "json", "certain"),
        (
            b"{}",
            {"ce_type": "org.kubeflow.serving.inference.request"},
            "KServe logger",
            "certain",
        ),
        (b"{}", {"type": "io.seldon.serving.inference.request"}, "Seldon", "certain"),
        (
            b'{"captureData": {}, "eventMetadata": {}}',
            {},
            "SageMaker data capture",
            "certain",
        ),
        (
            b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}',
            {},
            "Open Inference (V2)",
            "certain",
        ),
        (b'{"dataframe_split": {}}', {}, "MLflow scoring request", "likely"),
        (
            b'{"attributes": {"input.value": "x"}}',
            {},
            "OpenInference / OTel GenAI spans",
            "likely",
        ),
        (b"[1, 2]", {}, "JSON, but not objects", "certain"),
        (b"\0\0\0\0\x07\x02\x04\x06\xc8\x09", {}, "Avro with a Schema Registry", "likely"),
        (b'\0\0\0\0\x07{"a": 1}', {}, "JSON with a Schema Registry", "certain"),
        (b"\0\0\0\0\x07\0" + protobuf(), {}, "Protobuf with a Schema Registry", "likely"),
        (protobuf(), {}, "Protobuf", "guess"),
        (b"Obj\x01\x04\x14avro.codec", {}, "Avro container file", "certain"),
        (b"\x1f\x8b\x08\x00", {}, "gzip", "certain"),
        (b"\x80\x04\x95\x0b", {}, "Python pickle", "certain"),
        (b"\x81\xa1a\xc3", {}, "MessagePack", "guess"),
        (b"{'a': 1}", {}, "broken JSON", "likely"),
        (b'{"a": NaN}', {}, "broken JSON", "likely"),
        (b"1.5,books,true", {}, "CSV", "guess"),
        (b"hello", {}, "text", "likely"),
        (b"\xff\xfe\xfd", {}, "binary", "guess"),
    ],
)
def test_a_message_is_recognised(
    value: bytes, headers: dict[str, str], name: str, sure: str
) -> None:
    pairs = tuple((key, text.encode()) for key, text in headers.items())
    found, objects, _ = recognise([Message(0, 0, 0, NOW, None, value, pairs)])
    assert (found.name, found.sure, found.share) == (name, sure, 1.0)
    assert found.supported == (name == "json")
    assert found.why
    assert bool(found.remedy) != found.supported
    assert bool(objects) == (value[:1] == b"{" and name != "broken JSON")


def test_what_most_messages_look_like_wins() -> None:
    values = [b"{}"] * 7 + [b"hello"] * 3
    found, objects, sources = recognise(
        [Message(0, i, 0, NOW, None, value) for i, value in enumerate(values)]
    )
    assert (found.name, found.share) == ("json", 0.7)
    assert len(objects) == len(sources) == 7


def test_a_topic_of_tombstones_is_empty() -> None:
    found, _, _ = recognise([Message(0, 0, 0, NOW, b"k", None)])
    assert (found.name, found.supported) == ("empty", False)


# Kinds


def letters(n: int) -> str:
    return "".join(random.Random(n).choices(string.ascii_lowercase, k=12))


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("amount", [1.5, 2, 3.25], "numeric"),
        ("count", list(range(7)) * 20, "numeric"),
        ("vip", [True, False], "boolean"),
        ("flag", [0, 1, 1], "boolean"),
        ("merchant", ["a", "b", "a"], "categorical"),
        ("store_id", [1, 2, 3] * 40, "categorical"),
        ("amount", [letters(i % 7) for i in range(100)], "categorical"),
        ("cents", random.Random(1).sample(range(10**6), 100), "numeric"),
        ("constant", [3, 3], "numeric"),
        ("off", [False, False], "boolean"),
        ("region", ["eu"] * 200, "categorical"),
        # left out
        ("store_id", list(range(101)) * 40, None),  # too many to be categories
        ("customer_id", random.Random(1).sample(range(10**6), 100), None),
        ("serial", list(range(100)), None),  # rises by itself
        ("token", [f"{i:032x}" for i in range(100)], None),
        ("name", [letters(i) for i in range(100)], None),
        ("note", [f"a text of many words {i}" for i in range(30)], None),
        ("price", [f"{i / 3:.4f}" for i in range(30)], None),  # numbers as text
        ("signed_up_at", ["2025-01-14T10:00:00Z", "2025-01-15T10:00:00Z"], None),
        ("updated_at", [NOW, NOW + 1], None),
        ("vec", [[0.1, 0.2]], "vector"),
        ("vec", [[0.1, 0.2], [0.3]], None),
        ("list", [["a", "b"]], None),
        ("mixed", [1, "a"], None),
        ("mixed", [True, 0.5], None),
        ("object", [{"a": 1}, 2], None),
        ("empty", [], None),
    ],
)
def test_kinds(name: str, values: list[Any], kind: str | None) -> None:
    found, reason = feature_kind(name, values)
    assert found == kind
    assert kind is not None or reason


def test_a_field_of_one_value_is_proposed_and_said() -> None:
    assert feature_kind("factor", [0.5] * 9) == (
        "numeric", "the same value in every event of the sample: watched for any other",
    )  # fmt: skip
    _, remark = feature_kind("store_id", [7] * 9)
    assert remark.startswith("a number that names something; the same value in every event")
    # What moves on by itself is left out, however short the sample.
    assert feature_kind("updated_at", [NOW] * 9)[0] is None


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (["2025-01-15T12:00:00Z"], "iso"),
        ([NOW], "ms"),
        ([NOW + 0.5], "ms"),
        ([NOW // 1000], "seconds"),
        ([NOW * 1000], "µs"),
        ([NOW * 1_000_000], "ns"),
        ([5], ""),
        (["yesterday"], ""),
        ([True], ""),
        ([], ""),
        (["2025-01-15"] * 8 + ["?"] * 2, ""),
    ],
)
def test_units_of_time(values: list[Any], unit: str) -> None:
    assert time_unit(values) == unit


# Time


def timed(events: Sequence[int], run: int = 0, partition: int = 0) -> list[Timed]:
    return [Timed(partition, run, i, ms, ms + 5) for i, ms in enumerate(events)]


def test_disorder_is_the_distance_behind_the_largest_time_before() -> None:
    """
    offset   0    1    2    3    4    5
    time     0   50   30   60   10   70
    behind   0    0   20    0   50    0
    """
    found = disorder(timed([0, 50, 30, 60, 10, 70]))
    assert found[0].max_ms == 50
    assert found[0].share == pytest.approx(2 / 6)


def test_disorder_knows_neither_other_partitions_nor_gaps_between_runs() -> None:
    times = timed([100, 110]) + timed([0, 10], partition=1) + timed([20, 30], run=1)
    assert {p: d.max_ms for p, d in disorder(times).items()} == {0: 0, 1: 0}


def test_lag_is_kafka_time_minus_event_time() -> None:
    times = [Timed(0, 0, i, 1000, 1000 + ms) for i, ms in enumerate([-7, 5, 5, 5, 90])]
    assert lag(times) == Lag(5, 90, 90, -7)
    assert lag([Timed(0, 0, 0, 1000, None)]) is None


def test_rate_is_summed_over_partitions_and_ignores_stragglers() -> None:
    steady = [100 * i for i in range(200)]
    assert rate_per_s(timed(steady)) == pytest.approx(10, rel=0.05)
    late = [ms - 15_000 if i % 5 == 0 else ms for i, ms in enumerate(steady)]
    assert rate_per_s(timed(late)) == pytest.approx(10, rel=0.05)
    assert rate_per_s(timed(steady) + timed(steady, partition=1)) == pytest.approx(20, rel=0.05)
    assert rate_per_s(timed([5, 5, 5])) is None
    assert rate_per_s([]) is None


@pytest.mark.parametrize(
    ("rate", "pane", "small"),
    [
        (1e5, "10s", "1m"),
        (5, "1m", "5m"),
        (0.6, "1m", "15m"),
        (0.001, "1h", "1d"),
        (None, "1m", "5m"),
    ],
)
def test_the_small_window_holds_enough_events_for_a_test(
    rate: float | None, pane: str, small: str
) -> None:
    found = suggest(rate, {}, None)
    assert (found.pane, found.windows[0]) == (pane, small)
    assert found.windows[-1] == "2000 events"


@pytest.mark.parametrize("rate", [1e6, 10.0, 1.0, 0.2, 0.05, 0.01, 1e-5, None])
@pytest.mark.parametrize("late_ms", [0, 3_000, 100_000, 90_000_000, 800_000_000])
def test_every_suggestion_is_a_file_that_loads(
    rate: float | None, late_ms: int, tmp_path: Path
) -> None:
    times = timed([i // 3 * 3 if i % 3 else i - late_ms for i in range(300)])
    found = suggest(rate, disorder(times), Lag(0, 0, 0, -late_ms))
    path = tmp_path / "driftline.yaml"
    path.write_text(
        "kafka: {bootstrap.servers: localhost:9092}\nmodel: m\nreference: r\n"
        f"input: {{topic: t, max_ahead: {found.max_ahead}}}\n"
        f"pane: {found.pane}\nwindows: [{', '.join(found.windows)}]\n"
        f"allowed_lateness: {found.allowed_lateness}\nretention: {found.retention}\n"
        f"false_alarms: {found.false_alarms}\n"
    )
    model = load(path).models["m"]
    assert model.false_alarms is not None
    assert model.false_alarms.about
    # What is asked for must be more than twice the smallest window.
    smallest = parse_duration_ms(found.windows[0])
    assert (model.false_alarms.ms or 0) >= 7 * smallest
    assert model.allowed_lateness_ms >= min(late_ms, 86_400_000)
    assert model.input.max_ahead_ms == 3_600_000


def test_a_topic_whose_times_are_ahead_as_a_whole_widens_max_ahead() -> None:
    assert suggest(None, {}, Lag(-7_200_000, 0, 0, -7_300_000)).max_ahead == "6h"
