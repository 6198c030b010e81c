"""Verdicts to alerts, one per feature (`group_by: feature`): the life of one, as a pure function.

    verdicts of one key, in the order of the topic          D drifted, · quiet, ? insufficient

        ks, 1h   ·  ·  D  D  ·  ·                           resolve_after = 2
        ks, 7d   ·  ·  ·  D  D  ·  ·
                       │              │
                       firing         resolved (every series that fired has been quiet twice)

An alert's key is (model, segment, feature); the *series* of a key are its (detector, window size),
and where the model is compared with several references, each of these with each of them.
One drifted verdict fires, since a detector decides at a level chosen for the whole monitor: asking
for a second opinion here would change how often that level gives a false alarm.

`starts_at` is the end of the window of the first drifted verdict, in event time: what the wall
clock said when the verdict was read differs between a live run, a restart and a replay, and the
alert's id is made of `starts_at`, so it would differ too. `ends_at`, likewise, is the end of the
window of the quiet verdict that resolved.

**Reading a verdict twice is harmless.** After a crash the topic is read again from an earlier
position, and a reader of uncommitted data sees an aborted transaction's verdicts and, with the same
bytes, their repetition. Two rules of the row make `step` indifferent to that:
  - while firing, a verdict changes a series only if its window ends after the last one applied;
  - once resolved, the series are forgotten and one `floor` stays, the latest end applied: a drifted
    verdict whose window ends before it belongs to what was told already.
So episodes do not overlap, ids are unique, and a row is small however long the stream. Quiet
verdicts leave no trace unless they bring an alert nearer its end, so most of them cost no write.

What it misses: a series that is never heard of again (its window was taken out of the
configuration, its model retired) holds a firing alert open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypedDict

from ...schemas.alert import Alert, Moved, alert_id, alert_key
from ..look import entry_of, magnitude, named, part_of
from . import wording

ROW_VERSION: Final = 2
MAX_VERDICTS: Final = 20
"""Verdict ids an alert names: the first and the newest of the others."""
MAX_SERIES: Final = 64
"""Series one alert waits for. A key has detectors × windows × references of them; further ones do not
join a firing alert and fire their own when it is over, so that a row stays below about 10 kB."""

Severity = Literal["warning", "critical"]


class Series(TypedDict):
    """Where one series stands within a firing alert.

    last: end of the window of the last verdict applied. quiet: consecutive quiet verdicts since it
    drifted, at most `resolve_after`.
    """

    last: str
    quiet: int


class Firing(TypedDict):
    """What is remembered of a firing alert. `series` is keyed by `series_of`.

    n: messages sent. cause: the entry of the verdict that the summary is about.
    """

    starts_at: str
    severity: Severity
    n: int
    cause: Mapping[str, Any]
    summary: str
    verdicts: list[str]
    series: dict[str, Series]


class Row(TypedDict):
    """What is remembered of one alert key that has ever fired; JSON.

    v: version of this layout. floor: no verdict whose window ends before it fires ("" at first).
    firing: null between alerts.
    """

    v: int
    floor: str
    firing: Firing | None


def key_of(verdict: Mapping[str, Any]) -> str:
    """The alert key a verdict belongs to: `fraud|country=ES|amount`."""
    return alert_key(verdict["model"], verdict["segment"], verdict["feature"])


def series_of(verdict: Mapping[str, Any]) -> str:
    """The series a verdict belongs to: `ks|1h`, or `ks|1h|last week` where references have names."""
    parts = (verdict["detector"], verdict["window"]["size"], named(verdict))
    return "|".join(part for part in parts if part is not None)


def severity_of(verdict: Mapping[str, Any]) -> Severity:
    """`critical` when the effect reaches `look.CRITICAL_SD` reference standard deviations or
    `look.CRITICAL_SHARE` of share, in either direction; else, and without a known one, `warning`.

    A p-value is no measure of it: with enough events the smallest change has a tiny one.
    """
    return "critical" if magnitude(verdict["effect"]) >= 1 else "warning"


def moved(entry: Mapping[str, Any]) -> Moved:
    """A look's entry (`look.entry_of`) as an alert shows it."""
    return Moved(
        feature=entry["feature"],
        detector=entry["detector"],
        window=entry["window"]["size"],
        p_value=entry["p_value"],
        effect=entry["effect"],
        since=entry["since"],
        since_earliest=entry["since_earliest"],
        since_latest=entry["since_latest"],
        reference=named(entry),
        verdict=entry["id"],
    )


def checked(row: Mapping[str, Any] | None, key: str) -> None:
    """Raises ValueError for a row in a layout this version does not know."""
    if row is not None and row["v"] != ROW_VERSION:
        raise ValueError(
            f"an alert row of version {row['v']} for {key!r}: this driftline reads "
            f"version {ROW_VERSION}; run the alert stage of the version that wrote it"
        )


def step(
    row: Row | None, verdict: Mapping[str, Any], resolve_after: int
) -> tuple[Row | None, Alert | None]:
    """The row after one verdict, and the alert to publish, if there is one.

    row: None for a key that never fired. verdict: as `Verdict.model_dump()`. resolve_after: quiet
    verdicts in a row, ≥ 1, after which a series counts as over. The row given is left as it is;
    when nothing changed, the very same object is returned. Alerts come when one begins, when its
    severity rises (it never falls within an alert) and when it ends, all with one id.

    Raises ValueError for a row in a layout this version does not know.
    """
    checked(row, key_of(verdict))
    if verdict["status"] != "ok":
        return row, None
    end = verdict["window"]["end"]
    floor = "" if row is None else row["floor"]
    if end < floor:
        return row, None
    firing = None if row is None else row["firing"]
    if firing is None:
        return _fire(floor, verdict) if verdict["drifted"] else (row, None)
    name = series_of(verdict)
    series = firing["series"].get(name)
    if series is not None and end <= series["last"]:
        return row, None
    if verdict["drifted"]:
        if series is None and len(firing["series"]) >= MAX_SERIES:
            return row, None
        return _join(floor, firing, name, verdict)
    if series is None:
        return row, None
    quiet = min(series["quiet"] + 1, resolve_after)
    others = (s["quiet"] for other, s in firing["series"].items() if other != name)
    if min((quiet, *others)) >= resolve_after:
        return _resolve(firing, verdict, resolve_after)
    if quiet == series["quiet"]:
        return row, None
    now = Series(last=end, quiet=quiet)
    return _firing_row(floor, {**firing, "series": {**firing["series"], name: now}}), None


def _fire(floor: str, verdict: Mapping[str, Any]) -> tuple[Row, Alert]:
    end = verdict["window"]["end"]
    name = series_of(verdict)
    firing = Firing(
        starts_at=end,
        severity=severity_of(verdict),
        n=1,
        cause=entry_of(verdict),
        summary=wording.drifted(verdict),
        verdicts=[verdict["id"]],
        series={name: Series(last=end, quiet=0)},
    )
    return _firing_row(floor, firing), _alert(firing, verdict, "drift")


def _join(
    floor: str, firing: Firing, name: str, verdict: Mapping[str, Any]
) -> tuple[Row, Alert | None]:
    first, *rest = firing["verdicts"]
    newest = Series(last=verdict["window"]["end"], quiet=0)
    joined: Firing = {
        **firing,
        "verdicts": [first, *[*rest, verdict["id"]][-(MAX_VERDICTS - 1) :]],
        "series": {**firing["series"], name: newest},
    }
    if severity_of(verdict) == firing["severity"] or firing["severity"] == "critical":
        return _firing_row(floor, joined), None
    raised: Firing = {
        **joined,
        "severity": severity_of(verdict),
        "n": firing["n"] + 1,
        "cause": entry_of(verdict),
        "summary": wording.drifted(verdict),
    }
    return _firing_row(floor, raised), _alert(raised, verdict, "severity_raised")


def _resolve(firing: Firing, verdict: Mapping[str, Any], resolve_after: int) -> tuple[Row, Alert]:
    # The verdict's own window ends last, unless one series lags behind another.
    ends = (series["last"] for series in firing["series"].values())
    latest = max(verdict["window"]["end"], firing["starts_at"], *ends)
    fitted = not any(map(part_of, (firing["cause"], verdict)))
    summary = wording.recovered(latest, resolve_after, firing["summary"], fitted=fitted)
    last: Firing = {**firing, "n": firing["n"] + 1, "summary": summary}
    alert = _alert(last, verdict, "recovered", ends_at=latest)
    return Row(v=ROW_VERSION, floor=latest, firing=None), alert


def _firing_row(floor: str, firing: Firing) -> Row:
    return Row(v=ROW_VERSION, floor=floor, firing=firing)


def _alert(
    firing: Firing, verdict: Mapping[str, Any], reason: str, ends_at: str | None = None
) -> Alert:
    key = key_of(verdict)
    return Alert(
        id=alert_id(key, firing["starts_at"]),
        key=key,
        state="firing" if ends_at is None else "resolved",
        severity=firing["severity"],
        reason=reason,
        starts_at=firing["starts_at"],
        ends_at=ends_at,
        summary=firing["summary"],
        verdicts=firing["verdicts"],
        links={},
        model=verdict["model"],
        version=verdict["version"],
        segment=verdict["segment"],
        feature=verdict["feature"],
        features=[moved(firing["cause"])],
        n=firing["n"],
    )
