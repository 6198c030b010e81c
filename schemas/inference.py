"""The inference event: what driftline reads from the input topic."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from .fields import RECEIVED, Name, Segment
from .units import parse_time_ms

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

FeatureValue = bool | int | float | str | None | list[int | float]
"""One feature's value: a number, a text or category, a boolean, a vector, or null (missing)."""


def event_time_ms(ts: str | float) -> int:
    """Epoch milliseconds of an event's `ts`; fractions of a millisecond are cut off.

    Raises ValueError when `ts` is neither epoch milliseconds nor an ISO-8601 timestamp.

    >>> event_time_ms("2026-11-21T08:00:00.123Z"), event_time_ms(1795248000123.9)
    (1795248000123, 1795248000123)
    """
    if isinstance(ts, str):
        # parse_time_ms also reads "now" and "-1h", which mean nothing in an event
        if not _DATE.match(ts):
            raise ValueError(
                f"{ts!r} is not an event time; write ISO-8601 such as 2026-11-21T08:00:00.123Z, "
                "or epoch milliseconds as a number"
            )
        return parse_time_ms(ts)
    try:
        whole_ms = ts // 1
        return parse_time_ms(int(whole_ms))
    except (ValueError, OverflowError):
        raise ValueError(
            f"{ts!r} is not a time in epoch milliseconds; it must lie in the years 1 to 9999"
        ) from None


def _check_time(ts: str | float) -> str | float:
    event_time_ms(ts)
    return ts


EventTime = Annotated[
    str | int | float,
    AfterValidator(_check_time),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]}),
]


class InferenceEvent(BaseModel):
    """One prediction a model made: what went in, what came out, when.

    Only `id` and `ts` must be there. Fields that are not listed are ignored, so that an event may
    carry whatever else its other readers need.
    """

    model_config = RECEIVED

    id: Name
    """Identifies the prediction; its label event carries the same id. Unique per model: sampling
    and the order inside a window depend on it."""
    ts: EventTime
    """Event time, when the prediction was made: ISO-8601 with an offset or `Z` (without one, UTC is
    understood), or epoch milliseconds as a number. Digits finer than a millisecond are cut off."""
    model: Name | None = None
    """Name of the model as configured. May be left out where one model is configured."""
    version: str | None = None
    """Version of the model, carried into verdicts and alerts."""
    features: dict[str, FeatureValue] = Field(default_factory=dict)
    """Feature name to value: number, text, boolean, null, or array of numbers (a vector). A feature
    that is absent counts as missing, as null does; one that is not configured is ignored."""
    prediction: bool | int | float | str | None = None
    """What the model answered: a class (text, boolean or number) or a value (number)."""
    score: int | float | None = None
    """The model's confidence or probability, one number. Scores of several classes are a vector:
    put them into `features` under a name of their own."""
    latency_ms: int | float | None = None
    """How long the request took, in milliseconds."""
    error: bool | str | None = None
    """Null or false when the request was served; otherwise true, an error code or a message."""
    segment: Segment = Field(default_factory=dict)
    """Segment column to value, as text: `{"country": "ES"}`. Configured segments are monitored
    each on its own, besides the model as a whole."""

    @property
    def ts_ms(self) -> int:
        """Event time in epoch milliseconds."""
        return event_time_ms(self.ts)


EXAMPLES: tuple[dict[str, Any], ...] = (
    {
        "id": "6f1c2e90",
        "ts": "2026-11-21T08:00:00.123Z",
        "model": "fraud",
        "version": "7",
        "features": {
            "amount": 12.5,
            "merchant": "books",
            "vip": False,
            "note": "second order this week",
            "vec": [0.12, -0.4, 0.07],
        },
        "prediction": "legit",
        "score": 0.93,
        "latency_ms": 8.1,
        "error": None,
        "segment": {"country": "ES"},
    },
    {"id": "6f1c2e91", "ts": 1795248000123, "features": {"amount": None}},
)
"""Published with the JSON Schema and in the AsyncAPI document: one full event, one minimal one."""
