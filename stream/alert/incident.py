"""Looks to alerts, one per model or segment: twenty features that move at once are one page.

    looks of one unit         D a test drifted, · none did, ' ' no test was made in that window

        5m       ·  ·  D  D  ·  ·  ·            resolve_after = 2
        1h             ·  D  D  ·  ·
                       │     │        │
                       firing│        resolved: both windows that drifted have been quiet twice
                             features_joined, or severity_raised

The last verdict of a look carries what all its verdicts say together (`look.look_of`); the others
are passed over. So an alert names at once every feature that moved, and a look costs one row at most.

As in `lifecycle`, times are event times, the alert's id is made of its first window end, and reading
a look twice is harmless: the row's `floor` is the end of the last one applied, and no look that ends
at or before it changes anything.

What it misses: an incident that begins while another one of the same unit is firing is not told apart
from it; its features join. A window that is never tested again holds a firing alert open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from ...detectors.multivariate import MULTIVARIATE
from ...schemas.alert import Alert, alert_id, alert_key
from ..look import magnitude, part_of, ranked
from . import wording
from .lifecycle import MAX_VERDICTS, ROW_VERSION, Severity, checked, moved

MAX_FEATURES: Final = 30
"""Features an alert remembers; later ones are not told, so that a row stays below about 20 kB."""


class Firing(TypedDict):
    """What is remembered of a firing alert.

    n: messages sent. features: name → the look's entry of its clearest test. windows: size →
    consecutive quiet looks since it drifted, at most `resolve_after`; of windows that drifted.
    """

    starts_at: str
    severity: Severity
    n: int
    features: dict[str, Mapping[str, Any]]
    verdicts: list[str]
    windows: dict[str, int]


class Row(TypedDict):
    """What is remembered of one unit that has ever fired; JSON. Fields as in `lifecycle.Row`."""

    v: int
    floor: str
    firing: Firing | None


def key_of(verdict: Mapping[str, Any]) -> str:
    """The alert key a verdict belongs to: its unit's, `fraud|country=ES`."""
    return alert_key(verdict["model"], verdict["segment"], None)


def step(
    row: Row | None, verdict: Mapping[str, Any], look: Mapping[str, Any] | None, resolve_after: int
) -> tuple[Row | None, Alert | None]:
    """The row after one verdict, and the alert to publish, if there is one.

    row: None for a unit that never fired. verdict: as `Verdict.model_dump()`. look: what it carries,
    None on all but the last of a look. resolve_after: quiet looks in a row, ≥ 1, after which a
    window counts as over. When nothing changed, the very row given is returned. Alerts come when one
    begins, when its severity rises, when a feature joins, and when it ends.

    Raises ValueError for a row in a layout this version does not know.
    """
    checked(row, key_of(verdict))
    end = verdict["window"]["end"]
    if look is None or (row is not None and end <= row["floor"]):
        return row, None
    before = None if row is None else row["firing"]
    drifted = {size for size, found in look["windows"].items() if found}
    if before is None:
        if not drifted:
            return row, None
        before = Firing(
            starts_at=end, severity="warning", n=0, features={}, verdicts=[], windows={}
        )
    firing = _after(before, look, resolve_after)
    reason = None
    if before["n"] == 0:
        reason = "drift"
    elif min(firing["windows"].values()) >= resolve_after:
        firing["n"] += 1
        alert = _alert(firing, verdict, "recovered", resolve_after, ends_at=end)
        return Row(v=ROW_VERSION, floor=end, firing=None), alert
    elif firing["severity"] != before["severity"]:
        reason = "severity_raised"
    elif len(firing["features"]) > len(before["features"]):
        reason = "features_joined"
    new = Row(v=ROW_VERSION, floor=end, firing=firing)
    if reason is None:
        return new, None
    firing["n"] += 1
    return new, _alert(firing, verdict, reason, resolve_after)


def _after(before: Firing, look: Mapping[str, Any], resolve_after: int) -> Firing:
    """What is remembered once the look is known."""
    windows = dict(before["windows"])
    for size, drifted in look["windows"].items():
        if drifted:
            windows[size] = 0
        elif size in windows:
            windows[size] = min(windows[size] + 1, resolve_after)
    features = dict(before["features"])
    for entry in look["features"]:
        known = features.get(entry["feature"])
        if known is not None:
            features[entry["feature"]] = _newer(known, entry)
        elif len(features) < MAX_FEATURES:
            features[entry["feature"]] = entry
    first, rest = before["verdicts"][:1], before["verdicts"][1:]
    news = [entry["id"] for entry in look["features"]]
    if not first:
        first, news = news[:1], news[1:]
    critical = any(magnitude(entry["effect"]) >= 1 for entry in features.values())
    return Firing(
        starts_at=before["starts_at"],
        severity="critical" if critical else "warning",
        n=before["n"],
        features=features,
        verdicts=[*first, *[*rest, *news][-(MAX_VERDICTS - 1) :]],
        windows=windows,
    )


def _newer(known: Mapping[str, Any], entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The larger effect of the two stays, and the newest onset that was still in sight."""
    larger = known if magnitude(known["effect"]) >= magnitude(entry["effect"]) else entry
    onset = known if known["since"] and entry["since_earliest"] is None else entry
    return {**larger, **{name: onset[name] for name in ("since", "since_earliest", "since_latest")}}


def _alert(
    firing: Firing,
    verdict: Mapping[str, Any],
    reason: str,
    resolve_after: int,
    ends_at: str | None = None,
) -> Alert:
    key = key_of(verdict)
    lead, *others = ranked(firing["features"].values())
    summary = wording.drifted(
        {"model": verdict["model"], "segment": verdict["segment"], **lead},
        [entry["feature"] for entry in others if entry["feature"] != MULTIVARIATE],
    )
    if ends_at is not None:
        fitted = not any(map(part_of, (lead, *others)))
        summary = wording.recovered(ends_at, resolve_after, summary, fitted=fitted)
    return Alert(
        id=alert_id(key, firing["starts_at"]),
        key=key,
        state="firing" if ends_at is None else "resolved",
        severity=firing["severity"],
        reason=reason,
        starts_at=firing["starts_at"],
        ends_at=ends_at,
        summary=summary,
        verdicts=firing["verdicts"],
        links={},
        model=verdict["model"],
        version=verdict["version"],
        segment=verdict["segment"],
        feature=None,
        features=[moved(entry) for entry in (lead, *others)],
        n=firing["n"],
    )
