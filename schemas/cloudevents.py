"""CloudEvents 1.0 in Kafka headers, binary mode.

The value of the message is the event's data as it is; every attribute is a header `ce_<name>` in
UTF-8, and the data's media type is the header `content-type` (CloudEvents Kafka protocol binding
1.0, section 3.2). The Kafka key is the contract's own, not an attribute's.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from .alert import Alert
from .deadletter import Header
from .verdict import Verdict, digest

VERDICT_TYPE: Final = "io.driftline.verdict.v1"
ALERT_TYPE: Final = "io.driftline.alert.v1"
CONTENT_TYPE: Final = "application/json"
LOOK_HEADER: Final = "driftline_look"
"""On the last verdict of a look: JSON of what all tests of the unit say at that window end."""


def headers(type: str, id: str, source: str, time: str) -> list[Header]:
    """The headers of one event.

    type: reverse-DNS name with the contract's version. id: with `source` unique per distinct event.
    source: a URI reference, see `source_of`. time: RFC 3339, as `units.iso_ms` writes it.
    """
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", type.encode()),
        ("ce_time", time.encode()),
        ("content-type", CONTENT_TYPE.encode()),
    ]


def source_of(model: str) -> str:
    """`driftline/<model>`, percent-encoded where the name is not fit for a URI reference.

    >>> source_of("fraud"), source_of("fraud eu/v2")
    ('driftline/fraud', 'driftline/fraud%20eu%2Fv2')
    """
    return f"driftline/{quote(model, safe='')}"


def verdict_headers(verdict: Verdict) -> list[Header]:
    """The headers a verdict travels with; its time is the end of its window."""
    return headers(VERDICT_TYPE, verdict.id, source_of(verdict.model), verdict.window.end)


def alert_headers(alert: Alert, time: str) -> list[Header]:
    """The headers an alert travels with.

    time: when the alert took this state. `ce_id` is not the alert's id: that one stays the same
    from pending to resolved, while CloudEvents wants one id per event and lets receivers drop
    a repeated one. It is derived from the content, so that only a true repeat has the same.
    """
    event_id = digest("alert event", alert.to_json().decode())
    return headers(ALERT_TYPE, event_id, source_of(alert.model), time)
