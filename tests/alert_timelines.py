"""Verdicts drawn as timelines, for the tests of the alert stage.

    ks 5m      · D D ·        one row per series, one column per window end, a minute apart
    ks 1h      · · C ?

`D` drifted, `C` drifted with an effect that is critical, `·` quiet, `?` insufficient, ` ` none. The
verdicts of a column come in the order of the rows, as detect publishes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from driftline.schemas.alert import Alert
from driftline.schemas.units import iso_ms, parse_time_ms
from driftline.schemas.verdict import Verdict, verdict_id
from driftline.stream.alert import incident, lifecycle
from driftline.stream.look import look_of

START_MS = parse_time_ms("2026-11-21T08:00:00.000Z")
EFFECTS = {"D": 0.3, "C": 1.5, "·": 0.0}


def instant(column: int) -> str:
    """Window end of a column."""
    return iso_ms(START_MS + 60_000 * column)


def verdict(
    mark: str,
    column: int,
    series: str = "ks 5m",
    feature: str = "temperature",
    model: str = "delay",
    **changes: Any,
) -> Verdict:
    """One verdict, as the real contract takes it."""
    detector, _, size = series.partition(" ")
    end_ms = START_MS + 60_000 * column
    fields: dict[str, Any] = {
        "id": verdict_id(model, {}, feature, detector, size, end_ms, "reference"),
        "model": model,
        "version": "7",
        "segment": {},
        "feature": feature,
        "detector": detector,
        "window": {"size": size, "start": iso_ms(end_ms - 60_000), "end": iso_ms(end_ms), "n": 200},
        "reference": {"id": "reference", "n": 5000},
        "statistic": 0.2,
        "p_value": 1e-9 if mark in "DC" else 0.4,
        "alpha": 0.001,
        "drifted": mark in "DC",
        "status": "ok",
        "effect": None,
        "since": None,
        "detail": {},
    }
    if mark == "?":
        fields |= {"status": "insufficient", "statistic": None, "p_value": None}
        fields |= {"detail": {"reason": "4 values in the window, the test needs 20"}}
    else:
        value = EFFECTS[mark]
        fields["effect"] = {
            "kind": "mean_shift",
            "value": value,
            "unit": "reference standard deviations",
            "reference": 10.0,
            "window": 10.0 + value,
        }
    return Verdict.model_validate(fields | changes)


def drawn(timeline: str, **fixed: Any) -> list[Verdict]:
    """The verdicts of a timeline, in the order of the topic."""
    rows: list[tuple[str, str]] = []
    for line in timeline.strip("\n").splitlines():
        if line.strip():
            series, marks = line[:14].strip(), line[14:]
            rows.append((series, marks[::2]))
    columns = max(len(marks) for _, marks in rows)
    return [
        verdict(marks[column], column, series, **fixed)
        for column in range(columns)
        for series, marks in rows
        if column < len(marks) and marks[column] != " "
    ]


def alerts_of(
    verdicts: Iterable[Verdict], resolve_after: int, rows: dict[str, Any] | None = None
) -> Iterator[Alert]:
    """The alerts of an undisturbed run; `rows` is the table, changed in place."""
    table: dict[str, Any] = {} if rows is None else rows
    for one in verdicts:
        fields = one.model_dump()
        key = lifecycle.key_of(fields)
        table[key], alert = lifecycle.step(table.get(key), fields, resolve_after)
        if alert is not None:
            yield alert


def looks(verdicts: Sequence[Verdict]) -> list[tuple[Verdict, dict[str, Any] | None]]:
    """Each verdict with what it carries: the look on the last of its unit and window end."""
    of: dict[tuple[str, str], list[Verdict]] = {}
    for one in verdicts:
        of.setdefault((one.key, one.window.end), []).append(one)
    return [
        (one, look_of([v.model_dump() for v in group]) if one is group[-1] else None)
        for one in verdicts
        for group in [of[one.key, one.window.end]]
    ]


def incidents_of(
    looked: Iterable[tuple[Verdict, dict[str, Any] | None]],
    resolve_after: int,
    rows: dict[str, Any] | None = None,
) -> Iterator[Alert]:
    """As `alerts_of`, one alert per model or segment."""
    table: dict[str, Any] = {} if rows is None else rows
    for one, look in looked:
        fields = one.model_dump()
        key = incident.key_of(fields)
        table[key], alert = incident.step(table.get(key), fields, look, resolve_after)
        if alert is not None:
            yield alert


def by_key(alerts: Iterable[Alert]) -> dict[str, list[bytes]]:
    """The messages of each alert key, in order."""
    found: dict[str, list[bytes]] = {}
    for alert in alerts:
        found.setdefault(alert.key, []).append(alert.to_json())
    return found


def without_repeats(messages: Mapping[str, list[bytes]]) -> dict[str, list[bytes]]:
    """What a subscriber has who ignores a message equal to the one before under the same key."""
    return {
        key: [m for i, m in enumerate(values) if i == 0 or m != values[i - 1]]
        for key, values in messages.items()
    }
