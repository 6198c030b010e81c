"""Dead letters: what happens to a message that cannot be used, and how to find out why.

A dead letter carries the original message untouched (value = its bytes, key = its key) and says
in Kafka headers where it came from and what was wrong. So it can be read by people, counted by
reason, and sent again to its topic once the cause is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from .errors import EventError

Header = tuple[str, bytes]
ReceivedHeaders = Mapping[str, bytes | str | None] | Iterable[tuple[str, bytes | str | None]]
"""Headers as Kafka clients hand them out."""

MAX_MESSAGE_BYTES = 2_000
"""Longest `driftline_message`: a sentence quoting a hostile value must not outgrow its letter."""


class Reason(StrEnum):
    """Why a message could not be used: the value of the header `driftline_reason`."""

    def __new__(cls, code: str, doc: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.__doc__ = doc
        return member

    TOMBSTONE = "tombstone", "The message has no value (null): there is no event in it."
    TOO_LARGE = "too_large", "The value is longer than driftline reads or can pass on."
    NOT_JSON = "not_json", "The value is not one JSON text in UTF-8."
    NOT_AN_OBJECT = "not_an_object", "The value is JSON, but not an object."
    MISSING_ID = "missing_id", "The event has no id, or an empty one."
    BAD_ID = "bad_id", "The event's id is not a string."
    MISSING_TIME = "missing_time", "The event does not say when it happened."
    BAD_TIME = "bad_time", "The event's time is neither an ISO-8601 timestamp nor epoch ms."
    TIME_AHEAD = "time_ahead", "The event's time lies further ahead of Kafka's than is allowed."
    MISSING_MODEL = "missing_model", "Several models are configured and the event names none."
    MISSING_LABEL = "missing_label", "The label event has no label."
    WRONG_TYPE = "wrong_type", "A field has another type than the contract or the configuration."
    BAD_VECTOR = "bad_vector", "A vector has another length than the reference's, or a hole in it."
    BAD_SEGMENT = "bad_segment", "The segment is not an object of strings, or lacks a column."
    BAD_PANE = "bad_pane", "A message on the panes topic is none that this driftline can read."
    BAD_VERDICT = "bad_verdict", "A message on the drift topic does not follow its contract."
    BAD_ALERT = "bad_alert", "A message on the alerts topic does not follow its contract."
    UNKNOWN = "unknown", "None of the above; the message says what is known."

    @classmethod
    def of(cls, code: str) -> Reason:
        """The reason with this code, `Reason.UNKNOWN` when there is none."""
        try:
            return cls(code)
        except ValueError:
            return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What the headers of a dead letter say.

    topic, partition, offset: where the message was read.
    reason: short code, for filters and counters.
    message: one sentence for people: the value, the rule, the place, the remedy.
    stage: the stage that refused it: ingest, join or detect.
    truncated: size of the original value in bytes when it was too long to be kept whole, else None.
    """

    topic: str
    partition: int
    offset: int
    reason: Reason
    message: str
    stage: str
    truncated: int | None = None


def dead_letter_headers(
    topic: str,
    partition: int,
    offset: int,
    error: EventError,
    stage: str,
    truncated: int | None = None,
) -> list[Header]:
    """Kafka headers of a dead letter; never fails on what the message contains.

    truncated: size in bytes of the original value, given when only its beginning is kept
    (see `cut_value`). A reason that is no `Reason` becomes `unknown` and leads the sentence.
    """
    reason = Reason.of(error.reason)
    text = error.message
    if reason != error.reason:
        text = f"{error.reason}: {text}"
    headers = [
        ("driftline_topic", topic.encode()),
        ("driftline_partition", b"%d" % partition),
        ("driftline_offset", b"%d" % offset),
        ("driftline_reason", reason.encode()),
        ("driftline_message", _fit(text)),
        ("driftline_stage", stage.encode()),
    ]
    if truncated is not None:
        headers.append(("driftline_truncated", b"%d" % truncated))
    return headers


def parse_dead_letter_headers(headers: ReceivedHeaders | None) -> DeadLetter:
    """What `dead_letter_headers` wrote, from headers as confluent-kafka or aiokafka hand them out.

    Other headers are ignored; of one that is repeated the last counts, as in Kafka's clients.
    Raises ValueError when the message is not a dead letter or a header is damaged.
    """
    found: dict[str, str] = {}
    for name, value in dict(headers or ()).items():
        if name.startswith("driftline_") and value is not None:
            text = value if isinstance(value, str) else value.decode("utf-8", "replace")
            found[name.removeprefix("driftline_")] = text
    needed = ("topic", "partition", "offset", "reason", "message", "stage")
    missing = [f"driftline_{name}" for name in needed if name not in found]
    if missing:
        raise ValueError(
            f"not a dead letter: no header {', '.join(missing)}; "
            "read messages of the dead-letters topic only"
        )
    return DeadLetter(
        topic=found["topic"],
        partition=_count(found, "partition"),
        offset=_count(found, "offset"),
        reason=Reason.of(found["reason"]),
        message=found["message"],
        stage=found["stage"],
        truncated=_count(found, "truncated") if "truncated" in found else None,
    )


def cut_value(value: bytes | None, limit_bytes: int) -> tuple[bytes | None, int | None]:
    """`(value to keep, truncated)`: the first `limit_bytes` of a value that is longer than that.

    >>> cut_value(b"abcdef", 4), cut_value(b"abc", 4)
    ((b'abcd', 6), (b'abc', None))
    """
    if value is None or len(value) <= limit_bytes:
        return value, None
    return value[:limit_bytes], len(value)


def _fit(text: str) -> bytes:
    # backslashreplace: half a surrogate pair in a quoted value must not cost us the letter
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) <= MAX_MESSAGE_BYTES:
        return raw
    return raw[: MAX_MESSAGE_BYTES - 3].decode("utf-8", "ignore").encode() + "…".encode()


def _count(found: dict[str, str], name: str) -> int:
    text = found[name]
    if not (text.isascii() and text.isdigit()):
        raise ValueError(
            f"driftline_{name} is {text!r}: a dead letter has a whole number there; "
            "the headers were changed by something between driftline and this reader"
        )
    return int(text)
