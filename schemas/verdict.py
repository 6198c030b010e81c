"""The verdict: what one test of one window said. And the keys and ids messages go by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
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
    Detail,
    Id,
    Name,
    Number,
    Probability,
    Segment,
    Sparse,
    Timestamp,
    absent_not_null,
    read_contract,
)
from .units import parse_time_ms

_ESCAPES = {"%": "%25", "|": "%7C", "=": "%3D"}
_SPECIAL = re.compile(r"[%|=]")
_ESCAPED = re.compile(r"%(25|7C|3D)")


def escape_name(name: str) -> str:
    """`name` with `%`, `|` and `=` percent-encoded: the characters that structure a key."""
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], name)


def unescape_name(text: str) -> str:
    """The name `escape_name` made `text` of."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def unit_key(model: str, segment: Mapping[str, str]) -> str:
    """The Kafka key of a unit, one (model, segment): `fraud`, or `fraud|country=ES`.

    Pairs are sorted by column. No two units share a key: `%`, `|` and `=` inside names are
    percent-encoded (`parse_unit_key` takes it apart again).

    >>> unit_key("fraud", {"tier": "a|b", "country": "ES"})
    'fraud|country=ES|tier=a%7Cb'
    """
    pairs = (f"{escape_name(k)}={escape_name(v)}" for k, v in sorted(segment.items()))
    return "|".join((escape_name(model), *pairs))


def parse_unit_key(key: str) -> tuple[str, dict[str, str]]:
    """`(model, segment)` of a key that `unit_key` made; ValueError for any other text.

    >>> parse_unit_key("fraud|country=ES")
    ('fraud', {'country': 'ES'})
    """
    head, *pairs = key.split("|")
    model = unescape_name(head)
    split = (pair.partition("=") for pair in pairs)
    segment = {unescape_name(column): unescape_name(value) for column, _, value in split}
    if unit_key(model, segment) != key:
        raise ValueError(
            f"{key!r} is not the key of a unit: a model name, then column=value pairs in order, "
            "joined by `|`, with % | = inside names written %25 %7C %3D, like fraud|country=ES"
        )
    return model, segment


def digest(*parts: object) -> str:
    """32 hex characters that depend on the parts only: BLAKE2b-128 over their JSON array in UTF-8.

    JSON quotes and escapes, so no two lists of parts are the same text.
    """
    return blake2b(orjson.dumps(parts), digest_size=16).hexdigest()


def verdict_id(
    model: str,
    segment: Mapping[str, str],
    feature: str,
    detector: str,
    window_size: str,
    window_end_ms: int,
    reference_id: str,
) -> str:
    """The id of a verdict: the same question asked again, in any run, has the same id.

    window_size: as configured, `5m`; window_end_ms: epoch milliseconds.
    It is `digest("verdict", model, [[column, value], …] sorted, feature, detector, window_size,
    window_end_ms, reference_id)`.
    """
    at = verdict_ids(model, segment, feature, detector, window_size, reference_id)
    return at(window_end_ms)


def verdict_ids(
    model: str,
    segment: Mapping[str, str],
    feature: str,
    detector: str,
    window_size: str,
    reference_id: str,
) -> Callable[[int], str]:
    """`verdict_id` for any window end, with what stays the same hashed once.

    >>> at = verdict_ids("fraud", {}, "amount", "ks", "5m", "b5f0")
    >>> at(300_000) == digest("verdict", "fraud", [], "amount", "ks", "5m", 300_000, "b5f0")
    True
    """
    pairs = sorted(segment.items())
    # The text `digest` hashes, up to the window's end and from there on.
    before = orjson.dumps(["verdict", model, pairs, feature, detector, window_size])[:-1]
    begun = blake2b(before, digest_size=16)
    after = orjson.dumps([reference_id])[1:]

    def at(window_end_ms: int) -> str:
        hashed = begun.copy()
        hashed.update(b",%d,%b" % (window_end_ms, after))
        return hashed.hexdigest()

    return at


class Window(BaseModel):
    """The events a verdict is about: those with `start` ≤ event time < `end`."""

    model_config = EMITTED

    size: Name
    """Size as configured: `5m`, `2000 events`."""
    start: Timestamp
    """Beginning of the window; it belongs to the window."""
    end: Timestamp
    """End of the window; it does not belong to the window."""
    n: int = Field(ge=0)
    """Number of events in the window. How many of them a test could use is in `detail`."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        # both are in one fixed-width spelling, in which text order is time order
        if self.start >= self.end:
            raise ValueError(f"window [{self.start}, {self.end}) must end after it starts")
        return self

    @property
    def start_ms(self) -> int:
        """Beginning in epoch milliseconds."""
        return parse_time_ms(self.start)

    @property
    def end_ms(self) -> int:
        """End in epoch milliseconds."""
        return parse_time_ms(self.end)


class ReferenceRef(Sparse):
    """What the window was compared with."""

    model_config = EMITTED

    id: Name
    """Id of the reference profile, derived from its content."""
    n: int = Field(ge=0)
    """Number of events in the reference."""
    name: Name | None = Field(default=None, json_schema_extra=absent_not_null)
    """Which of the references that the model is compared with: `reference` is the fitted one, others
    are earlier parts of the stream, `sliding 7d lag 1d`, `period 1w × 4` or as driftline.yaml names
    them. Present where driftline.yaml has `against`; without it, there is the fitted one only."""


class Effect(Sparse):
    """How large the change is, in the feature's own terms.

    `mean_shift`: `value` is (window mean − reference mean) / reference standard deviation;
    `reference` and `window` are the two means. `share_shift`: `value` is the change of the share of
    `category`; `reference` and `window` are its two shares. `spread_shift`: `value` is (window
    standard deviation − reference's) / reference's; `reference` and `window` are the two.
    `distance`: `value` is how far the values must move, on average, to be distributed as in the
    reference, in reference standard deviations; `window` is the same in the feature's unit,
    `reference` is 0 (of `(multivariate)`, the root mean square shift of the means).
    `similarity_shift`, of texts and vectors: the change of the mean kernel value (1 alike, 0
    unlike) with the reference.
    """

    model_config = EMITTED | ConfigDict(
        json_schema_extra={
            "if": {"properties": {"kind": {"const": "share_shift"}}},
            "then": {"required": ["category"]},
            "else": {"not": {"required": ["category"]}},
        }
    )

    kind: Literal["mean_shift", "share_shift", "spread_shift", "distance", "similarity_shift"]
    """What kind of change is measured."""
    value: Number
    """The change, negative when the feature went down; null where it is not defined, as for a
    reference that never varies."""
    unit: Name
    """Unit of `value`: `reference standard deviations`, `share`."""
    reference: Number
    """The mean, share or spread in the reference."""
    window: Number
    """The mean, share or spread in the window, or its distance."""
    category: str | None = Field(default=None, json_schema_extra=absent_not_null)
    """The category whose share changed most; present for `share_shift` only."""

    @model_validator(mode="after")
    def _category_of_a_share(self) -> Self:
        if (self.kind == "share_shift") != (self.category is not None):
            raise ValueError(
                f"kind {self.kind} with category {self.category!r}: "
                "a share_shift names its category, no other kind has one"
            )
        return self


_VERDICT_RULES: dict[str, Any] = {
    "allOf": [
        {"not": {"required": ["alpha", "threshold"]}},
        {
            "if": {"properties": {"status": {"const": "ok"}}},
            "then": {
                "oneOf": [
                    {"required": ["alpha"], "properties": {"p_value": {"type": "number"}}},
                    {"required": ["threshold"], "properties": {"statistic": {"type": "number"}}},
                ]
            },
            "else": {
                "properties": {
                    "drifted": {"const": False},
                    "detail": {
                        "required": ["reason"],
                        "properties": {"reason": {"type": "string", "minLength": 1}},
                    },
                }
            },
        },
    ]
}


class Verdict(Sparse):
    """What one detector says about one feature in one window, compared with one reference.

    A verdict is published for every test, drifted or not. `alpha` is there when the test decides on
    its p-value, `threshold` when it decides on its statistic: exactly one of the two when `status`
    is `ok`, at most one otherwise. With `alpha`, drift means `p_value` ≤ `alpha`; a detector that
    asks for more than that says so in `detail`. Read the outcome from `drifted`.
    """

    model_config = EMITTED | ConfigDict(json_schema_extra=_VERDICT_RULES)

    id: Id
    """Identifies the verdict. Derived from model, segment, feature, detector, window and reference,
    so a replay of the same events yields the same id."""
    model: Name
    """Name of the model."""
    version: str | None
    """Version of the model as the window's events state it; null where they state none or
    several."""
    segment: Segment
    """Segment column to value; `{}` is the model as a whole."""
    feature: Name
    """Name of the feature, or of the prediction, score or service signal that was tested;
    `(multivariate)` where all numeric ones were, as one vector."""
    detector: Name
    """Name of the detector: `ks`, `chi_squared`, …"""
    window: Window
    """The window that was tested."""
    reference: ReferenceRef
    """The reference it was compared with."""
    statistic: Number
    """The test statistic; null where there is none."""
    p_value: Probability
    """The p-value, before any correction for the number of tests; null where the test has none."""
    alpha: float | None = Field(
        default=None, gt=0, le=1, allow_inf_nan=False, json_schema_extra=absent_not_null
    )
    """The level this one test decides at, corrections for the number of tests included."""
    threshold: float | None = Field(
        default=None, allow_inf_nan=False, json_schema_extra=absent_not_null
    )
    """The threshold this one test decides at."""
    drifted: bool
    """Whether the test found a change. Never true when `status` is `insufficient`."""
    status: Literal["ok", "insufficient"]
    """`ok`: the test was made. `insufficient`: it could not be, for the reason in `detail.reason`:
    too few events, a window that is not full, all values missing."""
    effect: Effect | None
    """Size of the change in the feature's own terms; null where no such size is defined."""
    since: Timestamp | None
    """Estimated onset of the change: the start of the first pane that differs. Null where the test
    found none, and where none can be estimated."""
    detail: Detail
    """What the detector adds; keys depend on it. Common ones: `method` (the variant of the test),
    `n_reference` and `n_test` (values used), `missing`, `non_finite`, `unseen` (counts in the
    window), `unseen_sample` (some categories not in the reference), `first` (of an online test, the
    event at which the threshold was exceeded), `farthest` (events least like the reference),
    `reason` (why a test could not be made), `since_earliest` and `since_latest` (a 95 % confidence
    set around `since`; the earliest is null where the change may be older than the oldest pane
    kept)."""

    @model_validator(mode="after")
    def _decides_on_one_thing(self) -> Self:
        if self.alpha is not None and self.threshold is not None:
            raise ValueError(
                f"alpha {self.alpha} and threshold {self.threshold}: a test decides on its p-value "
                "or on its statistic, so give one of the two"
            )
        if self.status == "insufficient":
            reason = self.detail.get("reason")
            if self.drifted or not isinstance(reason, str) or not reason:
                raise ValueError(
                    f"status insufficient with drifted {self.drifted} and detail.reason "
                    f"{reason!r}: a test that was not made found nothing, and says why in "
                    "detail.reason"
                )
        elif self.alpha is None and self.threshold is None:
            raise ValueError("status ok needs alpha or threshold: what the test decided at")
        elif (self.p_value if self.threshold is None else self.statistic) is None:
            name = "p_value" if self.threshold is None else "statistic"
            raise ValueError(
                f"status ok needs {name}, on which the test decides; where it could not be "
                "computed the status is insufficient"
            )
        return self

    @property
    def key(self) -> str:
        """The Kafka key the verdict travels under: its unit's."""
        return unit_key(self.model, self.segment)

    def to_json(self) -> bytes:
        """The message value: strict JSON, keys in the order of the contract."""
        return orjson.dumps(self.model_dump())

    @classmethod
    def from_json(cls, value: bytes) -> Verdict:
        """The verdict in a message value; EventError (`not_json`, `bad_verdict`) when it is none."""
        return read_contract(cls, value, Reason.BAD_VERDICT)


def _example(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "id": "",
        "model": "fraud",
        "version": "7",
        "segment": {"country": "ES"},
        "feature": "amount",
        "detector": "ks",
        "window": {
            "size": "1h",
            "start": "2026-11-21T07:00:00.000Z",
            "end": "2026-11-21T08:00:00.000Z",
            "n": 2104,
        },
        "reference": {"id": "b5f0c2a1d3e4968770615243f1e2d3c4", "n": 50000},
    }
    found = base | changes
    found["id"] = verdict_id(
        found["model"],
        found["segment"],
        found["feature"],
        found["detector"],
        found["window"]["size"],
        parse_time_ms(found["window"]["end"]),
        found["reference"]["id"],
    )
    return found


EXAMPLES: tuple[dict[str, Any], ...] = (
    _example(
        statistic=0.381,
        p_value=2.1e-258,
        alpha=0.00042,
        drifted=True,
        status="ok",
        effect={
            "kind": "mean_shift",
            "value": 1.93,
            "unit": "reference standard deviations",
            "reference": 39.2,
            "window": 71.5,
        },
        since="2026-11-21T07:12:00.000Z",
        detail={
            "method": "asymp",
            "n_reference": 50000,
            "n_test": 2101,
            "missing": 3,
            "since_earliest": "2026-11-21T07:11:00.000Z",
            "since_latest": "2026-11-21T07:14:00.000Z",
        },
    ),
    _example(
        segment={},
        feature="vehicle",
        detector="psi",
        statistic=0.31,
        p_value=None,
        threshold=0.22,
        drifted=True,
        status="ok",
        effect={
            "kind": "share_shift",
            "value": 0.12,
            "unit": "share",
            "reference": 0.1,
            "window": 0.22,
            "category": "EV",
        },
        since=None,
        detail={"unseen": 41, "unseen_sample": ["hydrogen"]},
    ),
    _example(
        version=None,
        window={
            "size": "5m",
            "start": "2026-11-21T07:55:00.000Z",
            "end": "2026-11-21T08:00:00.000Z",
            "n": 4,
        },
        statistic=None,
        p_value=None,
        alpha=0.00042,
        drifted=False,
        status="insufficient",
        effect=None,
        since=None,
        detail={"reason": "4 values in the window, the test needs 20", "n_test": 4},
    ),
)
"""Published with the JSON Schema and in the AsyncAPI document: a test on its p-value, one on its
statistic, one that could not be made."""
