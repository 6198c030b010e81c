"""What is published of the contracts: schema files, the AsyncAPI document, docs/topics.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from confluent_kafka import Consumer, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # pyright: ignore[reportPrivateImportUsage]
from jsonschema import Draft7Validator

from driftline.schemas import cloudevents, generate
from driftline.schemas.asyncapi import asyncapi_document
from driftline.schemas.contracts import CONTRACTS, json_schema
from driftline.schemas.deadletter import (
    DeadLetter,
    Reason,
    dead_letter_headers,
    parse_dead_letter_headers,
)
from driftline.schemas.errors import EventError
from driftline.schemas.pane import Delta, PartitionProgress, Progress
from driftline.schemas.verdict import Verdict
from driftline.stream.broker.node import Broker

OK = CONTRACTS["verdict"].examples[0]

# --- generated files and the AsyncAPI document ----------------------------------------------


def test_generated_files_are_fresh() -> None:
    assert generate.check() == []


def test_check_notices_changed_missing_and_foreign_files(tmp_path: Path) -> None:
    generate.write(tmp_path)
    assert generate.check(tmp_path) == []
    (tmp_path / "label.schema.json").write_text("{}")
    (tmp_path / "asyncapi.yaml").unlink()
    (tmp_path / "old.schema.json").write_text("{}")
    stale = [line.split(":")[0] for line in generate.check(tmp_path)]
    assert stale == ["label.schema.json", "asyncapi.yaml", "old.schema.json"]


def test_the_command_prints_lists_writes_and_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main(["verdict"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema("verdict")
    assert generate.main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in generate.NAMES)
    assert generate.main(["asyncapi", "--prefix", "mon"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["channels"]["drift"]["address"] == "mon.drift"
    assert generate.main(["--out", str(tmp_path)]) == 0
    assert generate.main(["--check", "--out", str(tmp_path)]) == 0
    (tmp_path / "alert.schema.json").write_text("")
    capsys.readouterr()
    assert generate.main(["--check", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("alert.schema.json: differs")
    with pytest.raises(SystemExit) as caught:
        generate.main(["verdikt"])
    assert caught.value.code == 2
    with pytest.raises(ValueError, match="'verdikt' is not a schema"):
        generate.render("verdikt")


def test_yaml_and_json_say_the_same() -> None:
    assert yaml.safe_load(generate.render("asyncapi")) == asyncapi_document()


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(document: Any, reference: str) -> Any:
    assert reference.startswith("#/"), reference
    place = document
    for step in reference[2:].split("/"):
        place = place[step.replace("~1", "/").replace("~0", "~")]
    return place


def test_every_reference_in_the_asyncapi_document_resolves() -> None:
    document = asyncapi_document()
    found = list(references(document))
    assert len(found) > 40
    for reference in found:
        assert isinstance(resolve(document, reference), dict)


def test_the_asyncapi_document_obeys_the_structure_of_3_0() -> None:
    """Required fields, allowed fields and reference rules of the AsyncAPI 3.0.0 specification."""
    document = asyncapi_document()
    root = {*("asyncapi", "id", "info", "servers", "defaultContentType"), "channels"}
    assert set(document) <= root | {"operations", "components"}
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(document["info"])
    for name, server in document["servers"].items():
        assert re.fullmatch(r"[A-Za-z0-9_\-]+", name)
        assert {"host", "protocol"} <= set(server)
        assert "://" not in server["host"]
    for channel in document["channels"].values():
        assert set(channel) <= {"address", "description", "servers", "messages", "bindings"}
        # a channel refers to servers at the root, and each of its messages to a definition
        assert all(r["$ref"].startswith("#/servers/") for r in channel["servers"])
        assert channel["messages"]
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel_ref = operation["channel"]["$ref"]
        assert re.fullmatch(r"#/channels/\w+", channel_ref)
        # "MUST contain a subset of the messages defined in the channel referenced": not components
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel_ref}/messages/")
    for message in document["components"]["messages"].values():
        known = {*("headers", "payload", "contentType", "name", "title", "description")}
        extensions = {name for name in message if name.startswith("x-")}
        assert set(message) - extensions <= known | {"bindings", "examples"}
        for example in message.get("examples", ()):
            assert {"payload", "headers"} & set(example)
            assert set(example) <= {"name", "summary", "payload", "headers"}
    for name, schema in document["components"]["schemas"].items():
        assert re.fullmatch(r"[a-zA-Z0-9.\-_]+", name)
        Draft7Validator.check_schema(schema)


def keywords(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            yield key
            inner = value.values() if key == "properties" else [value]
            for part in inner:
                yield from keywords(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from keywords(part)


def test_schemas_in_the_document_use_draft_07_only() -> None:
    newer = {*("$defs", "$id", "$schema", "prefixItems", "dependentRequired", "minContains")}
    newer |= {"unevaluatedProperties", "unevaluatedItems", "$anchor", "$dynamicRef", "maxContains"}
    for schema in asyncapi_document()["components"]["schemas"].values():
        assert not newer & set(keywords(schema))


@pytest.mark.parametrize("message", ["inference", "label", "verdict", "alert", "deadLetter"])
def test_examples_in_the_document_fit_its_own_schemas(message: str) -> None:
    document = asyncapi_document()
    definition = document["components"]["messages"][message]
    assert definition["examples"]
    for example in definition["examples"]:
        for part in {"payload", "headers"} & set(example):
            schema = {"$ref": definition[part]["$ref"], "components": document["components"]}
            Draft7Validator(schema).validate(example[part])


def test_names_of_topics_are_configurable() -> None:
    document = asyncapi_document("mon", "events", "truth", topics={"dead_letters": "mon.dlq"})
    addresses = {name: channel["address"] for name, channel in document["channels"].items()}
    assert addresses == {
        "inference": "events",
        "labels": "truth",
        "panes": "mon.panes",
        "drift": "mon.drift",
        "alerts": "mon.alerts",
        "deadLetters": "mon.dlq",
        "state": "mon.state",
    }
    bound = {n: c["bindings"]["kafka"]["topic"] for n, c in document["channels"].items()}
    assert bound == addresses


def test_compacted_topics_are_said_to_be() -> None:
    policies = {
        channel["address"]: channel["bindings"]["kafka"].get("topicConfiguration", {})
        for channel in asyncapi_document()["channels"].values()
    }
    compacted = {name for name, p in policies.items() if p.get("cleanup.policy") == ["compact"]}
    assert compacted == {"driftline.alerts", "driftline.state"}


def test_pane_messages_are_as_the_document_says() -> None:
    document = asyncapi_document()
    delta = Delta(
        model="fraud",
        segment={"country": "ES"},
        profile="p1",
        start_ms=np.array([0]),
        events=np.array([3]),
        lengths=np.array([[2]]),
        cells=np.array([0, 4]),
        counts=np.array([1, 2]),
        sums=np.zeros((1, 1, 3)),
        low=np.zeros((1, 1)),
        high=np.zeros((1, 1)),
        unseen=[(0, 0, "hydrogen", 1)],
        versions=[(0, "7", 3)],
    ).encode()
    header = json.loads(delta[8 : 8 + int.from_bytes(delta[:8], "little")])
    message = document["components"]["messages"]["paneDelta"]
    Draft7Validator(resolve(document, message["x-metadata"]["$ref"])).validate(
        header.pop("__metadata__")
    )
    assert message["contentType"] == "application/vnd.safetensors"
    words = set(re.findall(r"\w+", message["description"].split("Arrays:")[1]))
    assert set(header) <= words

    partitions = [PartitionProgress(0, 7, None), PartitionProgress(1, 9, 5, True, {"late": 1})]
    progress = Progress("inference", 2, partitions)
    schema = document["components"]["schemas"]["progress"]
    Draft7Validator(schema).validate(json.loads(progress.encode()))
    (shown,) = [json.loads(text) for kind, of, text in BLOCKS if (kind, of) == ("json", "progress")]
    Draft7Validator(schema).validate(shown)
    counts = shown["partitions"][0]["counts"]
    assert counts["received"] == sum(counts.values()) / 2  # each message is counted once more
    assert json.loads(Progress.decode(json.dumps(shown).encode()).encode()) == shown


# --- docs/topics.md -------------------------------------------------------------------------

DOCS = (Path(__file__).parent.parent / "docs" / "topics.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+) ([\w-]+)\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", CONTRACTS)
def test_documented_messages_are_the_published_examples(name: str) -> None:
    shown = [json.loads(text) for kind, of, text in BLOCKS if (kind, of) == ("json", name)]
    assert shown
    for message in shown:
        assert message in CONTRACTS[name].examples


def documented_code(name: str) -> str:
    (text,) = [text for kind, of, text in BLOCKS if (kind, of) == ("python", name)]
    return text


def documented_headers(name: str) -> dict[str, str]:
    (text,) = [text for kind, of, text in BLOCKS if (kind, of) == ("text", name)]
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_documented_headers_are_those_sent() -> None:
    sent = {k: v.decode() for k, v in cloudevents.verdict_headers(Verdict.model_validate(OK))}
    assert documented_headers("verdict") == sent
    letter = asyncapi_document()["components"]["messages"]["deadLetter"]["examples"][0]
    assert documented_headers("dead-letter") == letter["headers"]


def test_documented_reasons_are_all_there_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", DOCS, re.MULTILINE)
    assert {(code, text) for code, text in rows} >= {(r.value, r.__doc__) for r in Reason}


def test_documented_topics_are_those_of_the_document() -> None:
    for channel in asyncapi_document()["channels"].values():
        assert f"| `{channel['address']}`" in DOCS


# --- on a real Kafka ------------------------------------------------------------------------


class _Enough(Exception):
    """Ends the documented loop, which has no end."""


def test_messages_survive_kafka_and_the_documented_code_reads_them(
    kafka: Broker, topic_prefix: str
) -> None:
    at: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap_servers}
    topics = [f"{topic_prefix}.{name}" for name in ("drift", "letters", "in")]
    drift, letters, source = topics
    admin = AdminClient(at)
    for created in admin.create_topics([NewTopic(topic, 1) for topic in topics]).values():
        created.result(30)
    verdict = Verdict.model_validate(OK)
    producer = Producer(at)
    error = EventError(Reason.TOMBSTONE, "no value, é")
    quiet = verdict.model_copy(update={"drifted": False})
    producer.produce(drift, quiet.to_json(), quiet.key)
    producer.produce(
        drift, verdict.to_json(), verdict.key, headers=[*cloudevents.verdict_headers(verdict)]
    )
    producer.produce(
        letters, None, None, headers=[*dead_letter_headers(source, 0, 5, error, "ingest")]
    )
    producer.produce(
        letters, b"\xff{", b"k\x00", headers=[*dead_letter_headers(source, 0, 6, error, "ingest")]
    )
    assert producer.flush(30) == 0

    def read(topic: str, n: int) -> list[Message]:
        consumer = Consumer(at | {"group.id": topic, "auto.offset.reset": "earliest"})
        consumer.subscribe([topic])
        messages = consumer.consume(n, 30)
        consumer.close()
        assert len(messages) == n
        return messages

    message = read(drift, 2)[1]
    assert message.headers() == cloudevents.verdict_headers(verdict)
    assert Verdict.from_json(message.value() or b"") == verdict
    empty, broken = read(letters, 2)
    assert (empty.key(), empty.value()) == (None, None)
    assert parse_dead_letter_headers(empty.headers()) == DeadLetter(
        source, 0, 5, Reason.TOMBSTONE, "no value, é", "ingest"
    )
    exec(documented_code("resend"), {"message": broken, "producer": producer})
    assert producer.flush(30) == 0
    (again,) = read(source, 1)
    assert (again.key(), again.value()) == (b"k\x00", b"\xff{")

    printed: list[tuple[object, ...]] = []

    def show(*values: object) -> None:
        printed.append(values)
        raise _Enough

    code = documented_code("subscribe")
    code = code.replace("localhost:9092", kafka.bootstrap_servers).replace("driftline.drift", drift)
    with pytest.raises(_Enough):
        exec(code, {"print": show})
    assert printed == [("fraud|country=ES", "amount", OK["effect"])]
