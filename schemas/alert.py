"""The alert: one lasting problem a person should know of, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from .deadletter import Reason
from .fields import (
    EMITTED,
    Id,
    Name,
    Probability,
    Segment,
    Sparse,
    Timestamp,
    absent_not_null,
    read_contract,
)
from .verdict import EXAMPLES as VERDICT_EXAMPLES
from .verdict import Effect, digest, escape_name, parse_unit_key, unescape_name, unit_key


def alert_key(model: str, segment: Mapping[str, str], feature: str | None) -> str:
    """The key of an alert: the unit's key, and the feature where the alert is about one only.

    The feature is escaped as in `unit_key`. It contains no raw `=` and every segment pair has one,
    so the key of a feature's alert is never mistaken for a unit's with one pair more.

    >>> alert_key("fraud", {"country": "ES"}, "amount"), alert_key("fraud", {"country": "ES"}, None)
    ('fraud|country=ES|amount', 'fraud|country=ES')
    """
    unit = unit_key(model, segment)
    return unit if feature is None else f"{unit}|{escape_name(feature)}"


def parse_alert_key(key: str) -> tuple[str, dict[str, str], str | None]:
    """`(model, segment, feature)` of a key that `alert_key` made; ValueError for any other text.

    >>> parse_alert_key("fraud|country=ES|amount"), parse_alert_key("fraud")
    (('fraud', {'country': 'ES'}, 'amount'), ('fraud', {}, None))
    """
    head, bar, tail = key.rpartition("|")
    if not bar or "=" in tail:
        return *parse_unit_key(key), None
    feature = unescape_name(tail)
    if escape_name(feature) != tail:
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


class Moved(Sparse):
    """A feature that moved, by its clearest test."""

    model_config = EMITTED

    feature: Name
    """Name of the feature."""
    detector: Name
    """The detector that saw it most clearly."""
    window: Name
    """Size of the window in which it did, as configured."""
    p_value: Probability
    """The p-value of that test; null where the test has none."""
    effect: Effect | None
    """Size of the change in the feature's own terms; null where no such size is defined."""
    since: Timestamp | None
    """Estimated onset of the change; null where none is estimated."""
    since_earliest: Timestamp | None
    """Earliest onset that the events speak for; null where it may be older than what is kept."""
    since_latest: Timestamp | None
    """Latest onset that the events speak for."""
    reference: Name | None = Field(default=None, json_schema_extra=absent_not_null)
    """What it is compared with, as in the verdict's `reference.name`; absent where the model is
    compared with the fitted reference only."""
    verdict: Id
    """Id of the verdict."""


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
    """What the alert is about and the Kafka key of the message: `<model>|<segment pairs>`, and
    `|<feature>` where it is about one feature only; with `%`, `|` and `=` inside names written
    `%25`, `%7C` and `%3D`."""
    state: Literal["pending", "firing", "resolved"]
    """Where the alert stands."""
    severity: Literal["warning", "critical"]
    """How urgent it is."""
    reason: Name
    """Short code of why this message was sent, for filters and routing: `drift`, `severity_raised`,
    `features_joined`, `recovered`; others may follow."""
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
    feature: Name | None
    """Name of the feature; null where the alert is about the model or segment as a whole."""
    features: list[Moved] = Field(min_length=1)
    """The features that moved since the alert began, the largest effect first; at most 30."""
    n: int = Field(ge=1)
    """Number of this message among those of the alert: 1 when it begins. Higher is newer."""

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


def _moved(feature: str, detector: str, **changes: Any) -> dict[str, Any]:
    shown = VERDICT_EXAMPLES[0]
    return {
        "feature": feature,
        "detector": detector,
        "window": "1h",
        "p_value": shown["p_value"],
        "effect": shown["effect"],
        "since": shown["since"],
        "since_earliest": shown["detail"]["since_earliest"],
        "since_latest": shown["detail"]["since_latest"],
        "verdict": shown["id"],
    } | changes


def _example(**changes: Any) -> dict[str, Any]:
    segment = {"country": "ES"}
    found = {
        "id": "",
        "key": "",
        "state": "firing",
        "severity": "critical",
        "reason": "drift",
        "starts_at": "2026-11-21T08:00:00.000Z",
        "ends_at": None,
        "summary": "",
        "verdicts": [VERDICT_EXAMPLES[0]["id"]],
        "links": {"dashboard": "http://localhost:8090/fraud"},
        "model": "fraud",
        "version": "7",
        "segment": segment,
        "feature": None,
        "features": [_moved("amount", "ks")],
        "n": 1,
    } | changes
    found["key"] = alert_key("fraud", segment, found["feature"])
    found["id"] = alert_id(found["key"], found["starts_at"])
    return found


_CHANGE = (
    "amount of model fraud (country = ES) rose by 1.93 reference standard deviations (39.2 → 71.5) "
    "in the 1h to 2026-11-21 08:00 UTC, since about 2026-11-21 07:12 UTC"
)
_TEST = "KS p = 2e-258 at level 4.2e-4."
_MERCHANT = _moved(
    "merchant",
    "chi_squared",
    p_value=3.2e-11,
    effect={
        "kind": "share_shift",
        "value": 0.07,
        "unit": "share",
        "reference": 0.11,
        "window": 0.18,
        "category": "books",
    },
    verdict=digest("an example"),
)

EXAMPLES: tuple[dict[str, Any], ...] = (
    _example(summary=f"{_CHANGE}; {_TEST}"),
    _example(
        reason="features_joined",
        summary=f"{_CHANGE}; 1 other feature moved with it: merchant; {_TEST}",
        verdicts=[VERDICT_EXAMPLES[0]["id"], _MERCHANT["verdict"]],
        features=[_moved("amount", "ks"), _MERCHANT],
        n=2,
    ),
    _example(
        state="resolved",
        reason="recovered",
        ends_at="2026-11-21T10:00:00.000Z",
        summary="Back to the reference since 2026-11-21 10:00 UTC, after one quiet look: "
        f"{_CHANGE}; 1 other feature moved with it: merchant; {_TEST}",
        verdicts=[VERDICT_EXAMPLES[0]["id"], _MERCHANT["verdict"]],
        features=[_moved("amount", "ks"), _MERCHANT],
        n=3,
    ),
    _example(feature="amount", summary=f"{_CHANGE}; {_TEST}"),
)
"""Published with the JSON Schema and in the AsyncAPI document: an alert of a model that begins, that
another feature joins, and that ends; and one of a single feature."""
