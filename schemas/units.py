"""Units as people write them: durations, sizes in bytes, window specifications, points in time.

Inside driftline every time is an `int` of milliseconds (since the Unix epoch, or long), every size
an `int` of bytes. This module is where text becomes such numbers and numbers become text again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

# Longest first: "ms" must not be read as "m" followed by a stray "s".
UNIT_MS: dict[str, int] = {
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
UNIT_BYTES: dict[str, int] = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}

_DURATION_PART = re.compile(r"(\d+)\s*(ms|w|d|h|m|s)", re.ASCII)
_DURATION = re.compile(r"(?:\d+\s*(?:ms|w|d|h|m|s)\s*)+", re.ASCII)
_BYTES = re.compile(r"(\d{1,18})\s*(kB|MB|GB|KiB|MiB|GiB|B|)", re.ASCII)
_EVENTS = re.compile(r"(\d[\d_,]{0,18})\s*events?", re.ASCII | re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
MIN_TIME_MS = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MS
MAX_TIME_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MS
# A duration longer than the calendar is a typing error, and int64 columns must hold any of them.
MAX_DURATION_MS = MAX_TIME_MS - MIN_TIME_MS


def parse_duration_ms(text: object) -> int:
    """Milliseconds of a duration: `5m`, `250ms`, `1h30m`, `2d 12h`; 0 needs no unit.

    Units are ms, s, m, h, d (24 h) and w (7 d), each at most once and from the largest to the
    smallest, so that `1m30s` is one duration and `30s1m` a typing error.

    Raises ValueError, whose message has the rule and an example, for anything else.

    >>> parse_duration_ms("1h30m")
    5400000
    """
    if isinstance(text, str):
        return _parse_duration_text(text.strip())
    if type(text) is int and text == 0:
        return 0
    if type(text) is int and text > 0:
        raise ValueError(f"a duration needs a unit: {text}ms, {text}s, {text}m, {text}h or {text}d")
    raise ValueError("a duration is a number and a unit, such as 250ms, 10s, 5m, 1h30m or 7d")


def _parse_duration_text(text: str) -> int:
    if text == "0":
        return 0
    if re.fullmatch(r"\d+(:\d+)+", text, re.ASCII):
        parts = text.split(":")
        hint = f"{int(parts[0])}h{int(parts[1])}m" if len(parts) == 2 else "1h30m10s"
        raise ValueError(f"a duration is written with units, not with colons: {hint}")
    if re.fullmatch(r"\d+\.\d+\s*[a-z]+", text, re.ASCII):
        raise ValueError("a duration has whole numbers: 1h30m or 90m, not 1.5h")
    if not _DURATION.fullmatch(text):
        raise ValueError(
            "a duration is a number and a unit (ms, s, m, h, d, w), such as 250ms, 10s, 5m, 1h30m"
        )
    total = 0
    previous = MAX_DURATION_MS
    for number, unit in _DURATION_PART.findall(text):
        size = UNIT_MS[unit]
        if size >= previous:
            raise ValueError("a duration names each unit once, the largest first, such as 1h30m")
        previous = size
        # More digits than any possible duration has; int() refuses thousands of them.
        total += int(number) * size if len(number) <= 20 else MAX_DURATION_MS + 1
    if total > MAX_DURATION_MS:
        raise ValueError("a duration is shorter than 10,000 years")
    return total


def format_duration(ms: int) -> str:
    """A text `parse_duration_ms` reads back as `ms`: 5400000 → `1h30m`, 0 → `0s`, never weeks.

    A negative duration gets a leading `-`, for printing only.
    """
    if ms < 0:
        return "-" + format_duration(-ms)
    parts: list[str] = []
    for unit, size in UNIT_MS.items():
        # People say 7d and 14d far more often than 1w and 2w.
        number, ms = divmod(ms, size) if unit != "w" else (0, ms)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def parse_bytes(text: object) -> int:
    """Bytes of a size: `1048576`, `512KiB`, `1MiB`, `1MB` (decimal). Raises ValueError."""
    if type(text) is int and text >= 0:
        return text
    match = _BYTES.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError("a size is a number of bytes, or a number with kB, MB, KiB or MiB: 1MiB")
    return int(match[1]) * UNIT_BYTES[match[2]]


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The panes of the last `size_ms` milliseconds.

    hop_ms: distance between the ends of two successive windows; None is one pane. A window whose
        hop is its size is tumbling.
    label: what the user wrote, `1h` or `1h hop 1h`; it names the window in verdicts.
    """

    size_ms: int
    hop_ms: int | None
    label: str


@dataclass(frozen=True, slots=True)
class EventWindow:
    """The shortest run of closed panes that holds `events` events."""

    events: int
    label: str


Window = TimeWindow | EventWindow


def parse_window(spec: object) -> Window:
    """A window: `5m`, `2000 events`, or a mapping `{size: 1h, hop: 1h}`.

    Raises ValueError, whose message has the rule and an example, for anything else.

    >>> parse_window("2000 events")
    EventWindow(events=2000, label='2000 events')
    >>> parse_window({"size": "1h", "hop": "1h"})
    TimeWindow(size_ms=3600000, hop_ms=3600000, label='1h hop 1h')
    """
    if isinstance(spec, Mapping):
        return _parse_window_mapping(spec)
    if isinstance(spec, str):
        return _parse_window_text(" ".join(spec.split()))
    if type(spec) is int and spec > 0:
        raise ValueError(f"a window needs a unit: {spec}s, {spec}m, {spec}h or {spec} events")
    raise ValueError("a window is a duration such as 5m, or a number of events: 2000 events")


def _parse_window_text(label: str) -> Window:
    if match := _EVENTS.fullmatch(label):
        events = int(match[1].replace("_", "").replace(",", ""))
        if events < 1:
            raise ValueError("a window holds at least 1 event, such as 2000 events")
        return EventWindow(events, label)
    try:
        size_ms = parse_duration_ms(label)
    except ValueError as error:
        raise ValueError(f"{error}; or a window counts events: 2000 events") from None
    if size_ms < 1:
        raise ValueError("a window is longer than nothing, such as 5m")
    return TimeWindow(size_ms, None, label)


def _parse_window_mapping(spec: Mapping[Any, object]) -> Window:
    unknown = [str(key) for key in spec if key not in ("size", "hop")]
    if unknown or "size" not in spec:
        wrong = f"not {', '.join(unknown)}" if unknown else "size is missing"
        raise ValueError(f"a window as a mapping has the keys size and hop ({wrong})")
    size = spec["size"]
    window = parse_window(size if isinstance(size, str) else None)
    if "hop" not in spec:
        return window
    hop = spec["hop"]
    hop_ms = parse_duration_ms(hop)
    if not isinstance(window, TimeWindow) or hop_ms < 1:
        raise ValueError(
            "a hop is a duration longer than nothing, for a window whose size is one; without a"
            " hop a window moves by one pane"
        )
    hop_label = " ".join(str(hop).split())
    return TimeWindow(window.size_ms, hop_ms, f"{window.label} hop {hop_label}")


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """How often a false alarm is bearable: once in so many events, or in so much time.

    events, ms: the mean distance between two false alarms; exactly one of them is given.
    label: what the user wrote. about: levels for it are wanted even where the reference cannot
    support it, as an attempt and no promise.
    """

    events: float | None
    ms: float | None
    label: str
    about: bool = False


def parse_false_alarms(text: object) -> FalseAlarms:
    """A budget of false alarms: `1 per 30d`, `2 per 1w`, `1 per 100000 events`, each also as
    `about 1 per …`.

    Raises ValueError, whose message has the rule and an example, for anything else.

    >>> parse_false_alarms("2 per 1w")
    FalseAlarms(events=None, ms=302400000.0, label='2 per 1w', about=False)
    >>> parse_false_alarms("about 1 per 5000 events").about
    True
    """
    rule = (
        "false_alarms is a number per time or per events: 1 per 30d, 1 per 100000 events; or "
        "about 1 per 30d, which is an attempt and no promise"
    )
    label = " ".join(text.split()) if isinstance(text, str) else ""
    match = re.fullmatch(r"(about )?(\d{1,9}) per (.+)", label, re.ASCII)
    if match is None or int(match[2]) < 1:
        raise ValueError(rule)
    about, count, per = match[1] is not None, int(match[2]), match[3]
    if found := _EVENTS.fullmatch(per):
        events = int(found[1].replace("_", "").replace(",", ""))
        if events < 1:
            raise ValueError(rule)
        return FalseAlarms(events / count, None, label, about)
    try:
        ms = parse_duration_ms(per)
    except ValueError as error:
        raise ValueError(f"{rule} ({error})") from None
    if ms < 1:
        raise ValueError(rule)
    return FalseAlarms(None, ms / count, label, about)


def iso_ms(ms: int) -> str:
    """`ms` since the epoch as `2026-11-21T08:00:00.123Z`.

    Raises ValueError outside the years 1 to 9999, which ISO-8601 cannot write in four digits.
    """
    if not MIN_TIME_MS <= ms <= MAX_TIME_MS:
        raise ValueError(f"{ms} ms since 1970 lies outside the years 1 to 9999")
    # Integer arithmetic: datetime.fromtimestamp goes through a float and loses milliseconds.
    moment = _EPOCH + timedelta(milliseconds=ms)
    return (
        f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}"
        f"T{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d}"
        f".{moment.microsecond // 1000:03d}Z"
    )


def parse_time_ms(value: str | int, *, now_ms: int | None = None) -> int:
    """Milliseconds since the epoch of a point in time, as given to `--since` and `--until`.

    Read are ISO-8601 (`2026-11-21`, `2026-11-21T08:00`, with `Z`, an offset, or none, which is
    UTC), epoch milliseconds (an int, or a text of at least 9 digits), `now`, and a duration
    before now: `-1h`. `now_ms` is the present for the last two; None asks the clock.

    Raises ValueError, whose message lists these forms.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return _checked_time(value, value)
    text = value.strip() if isinstance(value, str) else ""
    if text == "now" or (text.startswith("-") and _DURATION.fullmatch(text[1:].strip())):
        present = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        back = 0 if text == "now" else parse_duration_ms(text[1:])
        return _checked_time(present - back, value)
    if re.fullmatch(r"-?\d{9,}", text, re.ASCII):
        return _checked_time(int(text), value)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return _checked_time((moment - _EPOCH) // _MS, value)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{value!r} is not a time: write 2026-11-21T08:00:00Z (an offset such as +02:00 is"
            " possible, none means UTC), epoch milliseconds, now, or -1h for one hour ago"
        ) from None


def _checked_time(ms: int, value: object) -> int:
    if not MIN_TIME_MS <= ms <= MAX_TIME_MS:
        raise ValueError(f"{value!r} lies outside the years 1 to 9999")
    return ms
