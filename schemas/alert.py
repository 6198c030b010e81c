"""The alert: one lasting problem a person should know of, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, model_validator

from .deadletter import Reason
from .fields import EMITTED, Id, Name, Segment, Timestamp, read_contract
from .verdict import EXAMPLES as VERDICT_EXAMPLES
from .verdict import digest, escape_name, parse_unit_key, unescape_name, unit_key


def alert_key(model: str, segment: Mapping[str, str], feature: str) -> str:
    """The key of an alert: the unit's key and the feature, `fraud|country=ES|amount`.

    The feature is escaped as in `unit_key`. It contains no raw `=` and every segment pair has one,
    so an alert's key is never mistaken for a unit's with one pair more.

    >>> alert_key("fraud", {"country": "ES"}, "amount")
    'fraud|country=ES|amount'
    """
    return f"{unit_key(model, segment)}|{escape_name(feature)}"


def parse_alert_key(key: str) -> tuple[str, dict[str, str], str]:
    """`(model, segment, feature)` of a key that `alert_key` made; ValueError for any other text.

    >>> parse_alert_key("fraud|country=ES|amount")
    ('fraud', {'country': 'ES'}, 'amount')
    """
    head, bar, tail = key.rpartition("|")
    feature = unescape_name(tail)
    if not bar or escape_name(feature) != tail:
        raise ValueError(
            f"{key!r} is not the key of an alert: a unit's key, `|`, a feature, "
            "like fraud|country=ES|amount"
        )
    return *parse_unit_key(head), feature


def alert_id(key: str, starts_at: str) -> str:
    """The id of an alert: the same key firing since the same time is the same alert.

    starts_at: as `Alert.starts_at`, `2026-11-21T08:00:00.000Z`.
    It is `digest("alert", key, starts_at)`.
    """
    return digest("alert", key, starts_at)


class Alert(BaseModel):
    """The state of one alert. Every change is published under the alert's key, so the newest message
    of each key is what holds now.

    `pending`: seen, not yet for long enough. `firing`: somebody should look. `resolved`: over, with
    `ends_at` set.
    """

    model_config = EMITTED | ConfigDict(
        json_schema_extra={
            "if": {"properties": {"state": {"const": "resolved"}}},
            "then": {"properties": {"ends_at": {"type": "string"}}},
            "else": {"properties": {"ends_at": {"type": "null"}}},
        }
    )

    id: Id
    """Identifies the alert from its start to its end. Derived from `key` and `starts_at`."""
    key: Name
    """What the alert is about and the Kafka key of the message: `<model>|<segment pairs>|<feature>`,
    with `%`, `|` and `=` inside names written `%25`, `%7C` and `%3D`."""
    state: Literal["pending", "firing", "resolved"]
    """Where the alert stands."""
    severity: Literal["warning", "critical"]
    """How urgent it is."""
    reason: Name
    """Short code of why this message was sent, for filters and routing: `drift`, `severity_raised`,
    `recovered`; others may follow."""
    starts_at: Timestamp
    """When the problem was first seen, in event time: the end of the first window that drifted."""
    ends_at: Timestamp | None
    """When it was over, in event time; null until then."""
    summary: Name
    """One sentence a person can act on."""
    verdicts: list[Id]
    """Ids of the verdicts behind the alert: the first and the newest of the others."""
    links: dict[str, Name]
    """Name to URL: dashboard, runbook, report."""
    model: Name
    """Name of the model."""
    version: str | None
    """Version of the model, as in the newest verdict behind the alert."""
    segment: Segment
    """Segment column to value; `{}` is the model as a whole."""
    feature: Name
    """Name of the feature."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        key = alert_key(self.model, self.segment, self.feature)
        if self.key != key:
            raise ValueError(
                f"key {self.key!r} is not that of model, segment and feature: make it with "
                f"alert_key, which gives {key!r}"
            )
        if (self.state == "resolved") != (self.ends_at is not None):
            raise ValueError(
                f"state {self.state} with ends_at {self.ends_at!r}: "
                "a resolved alert has an end, any other has none"
            )
        if self.ends_at is not None and self.ends_at < self.starts_at:
            raise ValueError(f"ends_at {self.ends_at} lies before starts_at {self.starts_at}")
        return self

    def to_json(self) -> bytes:
        """The message value: strict JSON, keys in the order of the contract."""
        return orjson.dumps(self.model_dump())

    @classmethod
    def from_json(cls, value: bytes) -> Alert:
        """The alert in a message value; EventError (`not_json`, `bad_alert`) when it is none."""
        return read_contract(cls, value, Reason.BAD_ALERT)


def _example(**changes: Any) -> dict[str, Any]:
    key = alert_key("fraud", {"country": "ES"}, "amount")
    starts_at = "2026-11-21T08:00:00.000Z"
    return {
        "id": alert_id(key, starts_at),
        "key": key,
        "state": "firing",
        "severity": "critical",
        "reason": "drift",
        "starts_at": starts_at,
        "ends_at": None,
        "summary": "",
        "verdicts": [VERDICT_EXAMPLES[0]["id"]],
        "links": {"dashboard": "http://localhost:8090/fraud/amount"},
        "model": "fraud",
        "version": "7",
        "segment": {"country": "ES"},
        "feature": "amount",
    } | changes


_SUMMARY = (
    "amount of model fraud (country = ES) rose by 1.93 reference standard deviations (39.2 → 71.5) "
    "in the 1h to 2026-11-21 08:00 UTC, since about 2026-11-21 07:12 UTC; "
    "KS p = 2e-258 at level 4.2e-4."
)

EXAMPLES: tuple[dict[str, Any], ...] = (
    _example(summary=_SUMMARY),
    _example(
        state="resolved",
        reason="recovered",
        ends_at="2026-11-21T10:00:00.000Z",
        summary="Back to the reference since 2026-11-21 10:00 UTC, after one quiet look: "
        + _SUMMARY,
    ),
)
"""Published with the JSON Schema and in the AsyncAPI document: one firing, the same resolved."""
