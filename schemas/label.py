"""The label event: the truth about a prediction, known later."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from .fields import RECEIVED, Name
from .inference import EventTime, event_time_ms


class LabelEvent(BaseModel):
    """The true outcome of one prediction, joined to it by `id`.

    Fields that are not listed are ignored.
    """

    model_config = RECEIVED

    id: Name
    """The id of the inference event this is the truth about."""
    label: bool | int | float | str
    """The true class (text, boolean or number) or value (number)."""
    ts: EventTime
    """When the label became known: ISO-8601 with an offset or `Z` (without one, UTC is understood),
    or epoch milliseconds as a number."""

    @property
    def ts_ms(self) -> int:
        """Time of the label in epoch milliseconds."""
        return event_time_ms(self.ts)


EXAMPLES: tuple[dict[str, Any], ...] = (
    {"id": "6f1c2e90", "label": "fraud", "ts": "2026-11-23T17:20:41.000Z"},
)
"""Published with the JSON Schema and in the AsyncAPI document."""
