"""The messages and schemas of the AsyncAPI document: payloads, headers, keys, examples.

AsyncAPI's schema object is draft 07 with additions, so nothing newer than draft 07 is used here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from .alert import Alert
from .cloudevents import (
    ALERT_TYPE,
    CONTENT_TYPE,
    LOOK_HEADER,
    VERDICT_TYPE,
    alert_headers,
    verdict_headers,
)
from .contracts import CONTRACTS, json_schema
from .deadletter import Header, Reason, dead_letter_headers
from .errors import EventError
from .pane import DELTA, FORMAT, KIND_HEADER, PROGRESS
from .verdict import Verdict

PANE_CONTENT_TYPE: Final = "application/vnd.safetensors"
BINDING_VERSION: Final = "0.5.0"

_JSON_ONLY: Final = ("$schema", "$id", "$defs", "examples")
_NESTED: Final = ("additionalProperties", "items", "not", "if", "then", "else")

Json = dict[str, Any]


def messages(input_topic: str) -> Json:
    """`components/messages`; input_topic: the one the example of a dead letter came from."""
    unit = "Key of the unit: the model, then segment pairs: `fraud`, `fraud|country=ES`."
    return {
        "inference": _json_message("inference", _key("Any key; driftline does not use it.", True)),
        "label": _json_message("label", _key("Any key; the id is a good one.", True)),
        "paneDelta": {
            "name": "paneDelta",
            "title": "Pane delta",
            "contentType": PANE_CONTENT_TYPE,
            "description": (
                "One safetensors file: named arrays, and strings as metadata in its header. It "
                "holds parts of G panes of one unit with F features. The sum of all parts of a "
                "pane, in any order, is the pane. Arrays: start_ms and events (G), lengths (G, F), "
                "cells and counts (in order of part and feature), sums (G, numeric features, 3), "
                "low and high (G, numeric features)."
            ),
            "headers": {"$ref": "#/components/schemas/paneDeltaHeaders"},
            "payload": {"type": "string", "format": "binary"},
            "bindings": _key(unit),
            "x-metadata": {"$ref": "#/components/schemas/paneDeltaMetadata"},
        },
        "progress": {
            "name": "progress",
            "title": "Progress",
            "contentType": CONTENT_TYPE,
            "description": (
                "How far partitions of one input topic have been read; sent to every partition of "
                "the panes topic, after the deltas of the same transaction."
            ),
            "headers": {"$ref": "#/components/schemas/progressHeaders"},
            "payload": {"$ref": "#/components/schemas/progress"},
            "bindings": _key("None; the partition is chosen by the sender.", True),
        },
        "verdict": _json_message(
            "verdict",
            _key(unit),
            headers="verdictHeaders",
            sent=[verdict_headers(Verdict(**value)) for value in CONTRACTS["verdict"].examples],
        ),
        "alert": _json_message(
            "alert",
            _key(
                "The alert's key: the unit's, `fraud|country=ES`; with `group_by: feature` also `|` "
                "and the feature, `fraud|country=ES|amount`."
            ),
            headers="alertHeaders",
            sent=[
                alert_headers(Alert(**value), value["ends_at"] or value["starts_at"])
                for value in CONTRACTS["alert"].examples
            ],
        ),
        "deadLetter": {
            "name": "deadLetter",
            "title": "Dead letter",
            "contentType": "application/octet-stream",
            "description": "The value is the original message's, byte for byte, and may be null.",
            "headers": {"$ref": "#/components/schemas/deadLetterHeaders"},
            "payload": {"type": ["string", "null"], "format": "binary"},
            "bindings": _key("The original message's key.", True),
            "examples": [{"name": "deadLetter1", "headers": _dead_letter_example(input_topic)}],
        },
        "state": {
            "name": "state",
            "title": "Detector state",
            "contentType": "application/octet-stream",
            "description": "Internal; a null value removes a key.",
            "payload": {"type": ["string", "null"], "format": "binary"},
            "bindings": _key("Internal."),
        },
    }


def _json_message(
    name: str, bindings: Json, headers: str | None = None, sent: list[list[Header]] | None = None
) -> Json:
    contract = CONTRACTS[name]
    examples: list[Json] = [
        {"name": f"{name}{number}", "payload": payload}
        for number, payload in enumerate(contract.examples, start=1)
    ]
    for example, pairs in zip(examples, sent or (), strict=False):
        example["headers"] = {key: value.decode() for key, value in pairs}
    message: Json = {"name": name, "title": contract.title, "contentType": CONTENT_TYPE}
    if headers is not None:
        message["headers"] = {"$ref": f"#/components/schemas/{headers}"}
    return message | {
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": bindings,
        "examples": examples,
    }


def _key(description: str, nullable: bool = False) -> Json:
    types = ["string", "null"] if nullable else "string"
    key = {"type": types, "description": description}
    return {"kafka": {"key": key, "bindingVersion": BINDING_VERSION}}


def schemas() -> Json:
    """`components/schemas`: the contracts, their parts, and the headers."""
    found: Json = {}
    for name in CONTRACTS:
        schema = json_schema(name)
        for inner, definition in schema.get("$defs", {}).items():
            found[inner] = _draft_07(definition)
        found[name] = _draft_07({k: v for k, v in schema.items() if k not in _JSON_ONLY})
    found["verdictHeaders"] = _cloud_event_headers(
        VERDICT_TYPE, "The verdict's id.", "End of the verdict's window."
    )
    found["verdictHeaders"]["properties"][LOOK_HEADER] = {
        "type": "string",
        "contentMediaType": CONTENT_TYPE,
        "description": "Only on the last verdict of a unit at a window end: an object with `windows` "
        "(size to whether a test drifted), `features` (the responsible ones, largest effect first, "
        "each with its clearest test) and `n_features`.",
    }
    found["alertHeaders"] = _cloud_event_headers(
        ALERT_TYPE,
        "Identifies this message's content, so that a repeat is recognised. Not the alert's id.",
        "Event time at which the alert took this state.",
    )
    found["deadLetterHeaders"] = _dead_letter_headers()
    found["paneDeltaHeaders"] = _kind_header(DELTA)
    found["paneDeltaMetadata"] = _pane_delta_metadata()
    found["progressHeaders"] = _kind_header(PROGRESS)
    found["progress"] = _progress()
    return found


def _draft_07(schema: Mapping[str, Any]) -> Json:
    """`schema` with references into components; beside `$ref` draft 07 would ignore the rest."""
    found: Json = {}
    for keyword, value in schema.items():
        if keyword == "properties":
            found[keyword] = {name: _draft_07(inner) for name, inner in value.items()}
        elif keyword in ("anyOf", "oneOf", "allOf"):
            found[keyword] = [_draft_07(inner) for inner in value]
        elif keyword in _NESTED and isinstance(value, dict):
            found[keyword] = _draft_07(value)
        else:
            found[keyword] = copy.deepcopy(value)
    target = found.pop("$ref", None)
    if target is None:
        return found
    reference = {"$ref": target.replace("#/$defs/", "#/components/schemas/")}
    return found | {"allOf": [reference]} if found else reference


def _cloud_event_headers(event_type: str, ce_id: str, ce_time: str) -> Json:
    return {
        "description": "CloudEvents 1.0, binary mode. Header values are UTF-8 text.",
        "type": "object",
        "required": [
            *("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type")
        ],
        "properties": {
            "ce_specversion": {"type": "string", "const": "1.0"},
            "ce_id": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": ce_id},
            "ce_source": {
                "type": "string",
                "format": "uri-reference",
                "description": "`driftline/<model>`, percent-encoded where needed.",
            },
            "ce_type": {"type": "string", "const": event_type},
            "ce_time": {"type": "string", "format": "date-time", "description": ce_time},
            "content-type": {"type": "string", "const": CONTENT_TYPE},
        },
    }


def _kind_header(kind: str) -> Json:
    return {
        "type": "object",
        "required": [KIND_HEADER],
        "properties": {KIND_HEADER: {"type": "string", "const": kind}},
    }


def _pane_delta_metadata() -> Json:
    text = {"type": "string"}
    return {
        "description": "Metadata of a pane delta's safetensors header, where all values are text.",
        "type": "object",
        "required": ["format", "model", "segment", "profile"],
        "properties": {
            "format": {"type": "string", "const": FORMAT},
            "model": text | {"description": "Name of the model."},
            "segment": text | {"description": "JSON object: segment column to value."},
            "profile": text | {"description": "Id of the reference profile the cells belong to."},
            "unseen": text
            | {"description": "JSON array of [part, feature, category, count]: some unseen ones."},
            "versions": text | {"description": "JSON array of [part, model version, count]."},
        },
        "additionalProperties": False,
    }


def _progress() -> Json:
    count = {"type": "integer", "minimum": 0}
    partition = {
        "type": "object",
        "required": ["partition", "offset", "event_time_ms", "idle", "counts"],
        "properties": {
            "partition": count | {"description": "Partition of the input topic."},
            "offset": count | {"description": "The next offset to be read."},
            "event_time_ms": {
                "type": ["integer", "null"],
                "description": "Largest event time so far, epoch milliseconds; null before any.",
            },
            "idle": {
                "type": "boolean",
                "description": "Whether it has stopped holding panes open.",
            },
            "counts": {
                "type": "object",
                "additionalProperties": count,
                "description": "What became of the messages read since the last progress.",
            },
        },
        "additionalProperties": False,
    }
    return {
        "description": "How far ingest has read partitions of one input topic.",
        "type": "object",
        "required": ["format", "topic", "n_partitions", "partitions"],
        "properties": {
            "format": {"type": "string", "const": FORMAT},
            "topic": {"type": "string", "description": "Name of the input topic."},
            "n_partitions": count | {"description": "How many partitions it has in all."},
            "partitions": {"type": "array", "items": partition},
            "references": {
                "type": "object",
                "additionalProperties": count,
                "description": "Model to how many references of it, one after the other, ingest "
                "knows; there where it knows several.",
            },
        },
        "additionalProperties": False,
    }


def _dead_letter_headers() -> Json:
    number = {"type": "string", "pattern": "^[0-9]+$"}
    reasons = "\n".join(f"- `{reason.value}`: {reason.__doc__}" for reason in Reason)
    return {
        "description": "Header values are UTF-8 text, numbers in decimal digits.",
        "type": "object",
        "required": [
            *("driftline_topic", "driftline_partition", "driftline_offset"),
            *("driftline_reason", "driftline_message", "driftline_stage"),
        ],
        "properties": {
            "driftline_topic": {"type": "string", "description": "Where the message was read."},
            "driftline_partition": number | {"description": "Partition it was read from."},
            "driftline_offset": number | {"description": "Offset it was read at."},
            "driftline_reason": {
                "type": "string",
                "enum": [reason.value for reason in Reason],
                "description": reasons,
            },
            "driftline_message": {
                "type": "string",
                "description": "A sentence for people: the value, the rule, the place, the remedy.",
            },
            "driftline_stage": {
                "type": "string",
                "enum": ["ingest", "join", "detect"],
                "description": "The stage that refused the message.",
            },
            "driftline_truncated": number
            | {
                "description": "Only when the value had to be cut: its original size in bytes.",
            },
        },
    }


def _dead_letter_example(input_topic: str) -> Json:
    error = EventError(
        Reason.BAD_TIME,
        f'"yesterday" at $.ts in {input_topic}[0]@1234567: not an event time; '
        "write ISO-8601 such as 2026-11-21T08:00:00.123Z, or epoch milliseconds as a number",
    )
    pairs = dead_letter_headers(input_topic, 0, 1234567, error, "ingest")
    return {name: value.decode() for name, value in pairs}
