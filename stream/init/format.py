"""What the messages of a topic are: JSON, or what else they look like, and how sure that is.

Each recogniser looks at one message and answers with what it takes it for. The answer that most
messages share wins; its share is part of the finding.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .sample import Message


@dataclass(frozen=True, slots=True)
class Format:
    """What the messages look like.

    name: `json`, or what stands in the way. supported: whether `input.format` can be `json`.
    sure: `certain` (a marker nobody else writes), `likely`, `guess`. share: of the sampled
    messages that look so. why: what was seen. remedy: what to do where it is not supported.
    """

    name: str
    supported: bool
    sure: str
    share: float
    why: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class _Look:
    name: str
    sure: str
    why: str
    supported: bool = False
    remedy: str = ""


_CONVERT = (
    "let a stream processor or the producer write one JSON object per prediction to another topic"
)
_JOIN = (
    "request and response are two messages here; join them into one JSON object per prediction, in"
    " another topic"
)


def recognise(messages: Iterable[Message]) -> tuple[Format, list[dict[str, Any]], list[Message]]:
    """The format, and of the messages that are JSON objects: their content, and they themselves.

    Messages without a value (tombstones) are looked past.
    """
    looks: Counter[_Look] = Counter()
    objects: list[dict[str, Any]] = []
    sources: list[Message] = []
    for message in messages:
        if message.value is None:
            continue
        look, content = _look(message, message.value)
        looks[look] += 1
        if content is not None:
            objects.append(content)
            sources.append(message)
    if not looks:
        tombstones = "every message is without a value"
        return Format("empty", False, "certain", 1.0, tombstones, "name another topic"), [], []
    by_name: Counter[str] = Counter()
    for look, count in looks.items():
        by_name[look.name] += count
    name, count = by_name.most_common(1)[0]
    look = next(look for look, _ in looks.most_common() if look.name == name)
    share = count / looks.total()
    found = Format(look.name, look.supported, look.sure, share, look.why, look.remedy)
    return found, objects, sources


def _look(message: Message, value: bytes) -> tuple[_Look, dict[str, Any] | None]:
    headers = {name.lower(): text.decode("utf-8", "replace") for name, text in message.headers}
    if (framed := _registry(value)) is not None:
        return framed, None
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError:
        return _binary(value), None
    if not isinstance(content, dict):
        what = "an array" if isinstance(content, list) else "a single value"
        why = f"a message is {what}, not an object"
        return _Look("JSON, but not objects", "certain", why, remedy=_CONVERT), None
    return _json(content, headers), content


def _json(content: Mapping[str, Any], headers: Mapping[str, str]) -> _Look:
    kind = headers.get("ce_type") or headers.get("type") or str(content.get("type", ""))
    if kind.startswith("org.kubeflow.serving.inference."):
        return _Look("KServe logger", "certain", f"type {kind}", remedy=_JOIN)
    if kind.startswith("io.seldon.serving."):
        return _Look("Seldon", "certain", f"header type {kind}", remedy=_JOIN)
    if "captureData" in content and "eventMetadata" in content:
        why = "keys captureData and eventMetadata"
        return _Look("SageMaker data capture", "certain", why, remedy=_CONVERT)
    tensors = content.get("inputs") or content.get("outputs")
    first = tensors[0] if isinstance(tensors, list) and tensors else None
    if isinstance(first, dict) and {"name", "shape", "datatype"} <= set(first):
        why = "inputs or outputs with name, shape and datatype"
        return _Look("Open Inference (V2)", "certain", why, remedy=_CONVERT)
    for key in ("dataframe_split", "dataframe_records", "instances"):
        if key in content:
            return _Look("MLflow scoring request", "likely", f"key {key}", remedy=_CONVERT)
    attributes = content.get("attributes")
    names = set(attributes) if isinstance(attributes, dict) else set(content)
    if names & {"input.value", "output.value", "gen_ai.request.model", "gen_ai.response.id"}:
        why = "attributes of an OpenTelemetry span"
        return _Look("OpenInference / OTel GenAI spans", "likely", why, remedy=_CONVERT)
    if "ce_specversion" in headers:
        why = (
            "JSON objects with CloudEvents headers; the body is read, the headers (ce_id, ce_time)"
            " are not"
        )
        return _Look("json", "certain", why, supported=True)
    if "cloudevents" in headers.get("content-type", "") or "specversion" in content:
        why = "JSON objects in a CloudEvents envelope (structured mode)"
        return _Look("json", "certain", why, supported=True)
    return _Look("json", "certain", "JSON objects", supported=True)


def _registry(value: bytes) -> _Look | None:
    """Confluent's wire format: a zero byte, the schema's id in four, then the message."""
    if len(value) < 6 or value[0] != 0:
        return None
    schema = int.from_bytes(value[1:5], "big")
    why = f"each begins with the Schema Registry's zero byte and schema id {schema}"
    rest = value[5:]
    if rest[:1] == b"{" and _is_json(rest):
        return _Look("JSON with a Schema Registry", "certain", f"{why}, then JSON", remedy=_CONVERT)
    # Protobuf puts the message's index in the schema before it; most often the single byte 0.
    if rest[:1] == b"\0" and _is_protobuf(rest[1:]):
        why += ", then a byte 0 and Protobuf fields"
        return _Look("Protobuf with a Schema Registry", "likely", why, remedy=_CONVERT)
    return _Look("Avro with a Schema Registry", "likely", why, remedy=_CONVERT)


def _binary(value: bytes) -> _Look:
    magic = {
        b"Obj\x01": "Avro container file",
        b"\x1f\x8b": "gzip",
        b"\x28\xb5\x2f\xfd": "zstd",
        b"PAR1": "Parquet",
        b"\x80\x04\x95": "Python pickle",
        b"\x80\x05\x95": "Python pickle",
        b"ARROW1": "Arrow",
        b"<?xml": "XML",
    }
    for start, name in magic.items():
        if value.startswith(start):
            return _Look(name, "certain", "its first bytes say so", remedy=_CONVERT)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if text and not re.search(r"[\x00-\x08\x0e-\x1f]", text):
        if text.lstrip()[:1] in "{[":
            why = "text that begins as JSON and does not parse (cut off, NaN, single quotes?)"
            return _Look("broken JSON", "likely", why, remedy="send strict JSON")
        if text.count(",") >= 2 or text.count("\t") >= 2:
            return _Look("CSV", "guess", "text with separators", remedy=_CONVERT)
        return _Look("text", "likely", "text that is not JSON", remedy=_CONVERT)
    if _is_protobuf(value):
        return _Look("Protobuf", "guess", "its bytes parse as Protobuf fields", remedy=_CONVERT)
    if value and (0x80 <= value[0] <= 0x8F or value[0] in (0xDE, 0xDF)):
        return _Look("MessagePack", "guess", "its first byte is that of a map", remedy=_CONVERT)
    return _Look("binary", "guess", "neither text nor a known kind", remedy=_CONVERT)


def _is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _is_protobuf(data: bytes) -> bool:
    """Whether `data` is a sequence of Protobuf fields from its first to its last byte."""
    at = fields = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag is None or tag >> 3 == 0 or tag >> 3 > 536_870_911:
            return False
        match tag & 7:
            case 0:
                number, at = _varint(data, at)
                if number is None:
                    return False
            case 1:
                at += 8
            case 2:
                length, at = _varint(data, at)
                if length is None:
                    return False
                at += length
            case 5:
                at += 4
            case _:
                return False
        fields += 1
    # One short field is too little to tell from chance.
    return at == len(data) and (fields >= 2 or len(data) >= 8)


def _varint(data: bytes, at: int) -> tuple[int | None, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            return None, at
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    return None, at
