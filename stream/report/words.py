"""A report in words: when alarms were, what was asked for, what a feature's numbers are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from ...detectors.multivariate import MULTIVARIATE
from ...detectors.profile import NumericProfile
from ...schemas.units import format_duration, iso_ms, parse_time_ms
from ..alert import wording
from ..config.document import ModelConfig
from ..profiles import Reference
from .episodes import Episode
from .figures import found_by
from .record import UnitRecord


def plural(n: int, noun: str) -> str:
    """`1 alarm`, `2 alarms`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def lasted(start: str, end: str) -> str:
    """How long it is from one time to another, in the two largest units: `3d12h`."""
    ms = parse_time_ms(end) - parse_time_ms(start)
    for unit_ms in (3_600_000, 60_000, 1000):
        if ms >= 24 * unit_ms:
            ms = ms // unit_ms * unit_ms
            break
    return format_duration(ms)


def when(episode: Episode, range_end: str) -> str:
    """`from … to …, 3d long`."""
    start = wording.moment(episode.starts_at)
    if episode.ends_at is None:
        return (
            f"from {start}, still firing when the range ended "
            f"({lasted(episode.starts_at, max(range_end, episode.starts_at))} later)"
        )
    return (
        f"from {start} to {wording.moment(episode.ends_at)} "
        f"({lasted(episode.starts_at, episode.ends_at)})"
    )


def tests(episode: Episode) -> str:
    """`Found by KS in windows of 1d (149 looks), 7d (150 looks).`"""
    by_detector: dict[str, list[str]] = {}
    for (detector, window, part), n in sorted(episode.tests.items()):
        said = by_detector.setdefault(found_by(detector, part), [])
        said.append(f"{window} ({plural(n, 'look')})")
    said = "; ".join(f"{d} in windows of {', '.join(w)}" for d, w in by_detector.items())
    return f"Found by {said}."


def onset(episode: Episode) -> str:
    """When the change began, where a detector estimates it; else empty."""
    return "" if episode.since is None else f"It began about {wording.moment(episode.since)}."


def drifted(verdict: Mapping[str, Any]) -> str:
    """The alert's sentence, without the model: the page says which it is about."""
    full = wording.subject(verdict)
    short = full.replace(f" of model {verdict['model']}", "", 1)
    said = short + wording.drifted(verdict).removeprefix(full)
    # A feature's own name stays as it is written.
    return said[0].upper() + said[1:] if verdict["detector"] == "missing_rate" else said


def reasons(insufficient: Mapping[str, int]) -> list[str]:
    """Why tests could not be made; reasons that differ in their numbers only are one."""
    alike: dict[str, tuple[int, str]] = {}
    for reason, count in insufficient.items():
        pattern = re.sub(r"\d+", "#", reason)
        n, example = alike.get(pattern, (0, reason))
        alike[pattern] = n + count, example
    ranked = sorted(alike.values(), reverse=True)[:3]
    return [f"Not testable, {plural(n, 'verdict')}: {example}." for n, example in ranked]


def change(verdict: Mapping[str, Any]) -> str:
    """The change alone: `rose by 1.9 reference standard deviations (39.2 → 71.5)`."""
    said = wording.effect(verdict).removeprefix(": ") + wording.against(verdict)
    return f"missing values {said}" if verdict["detector"] == "missing_rate" else said


def level_facts(
    config: ModelConfig, reference: Reference, events: Mapping[str, int]
) -> list[tuple[str, str]]:
    """What was asked of the tests: a budget with its estimate and its caveats, or a level.

    events: of each unit, in the range.
    """
    budget = reference.budget
    if config.false_alarms is None or budget is None:
        return [("Level", f"alpha {config.alpha:g} per look at the model, Bonferroni")]
    facts = [("False alarms asked", f"{config.false_alarms.label}, whole model")]
    for key, found in sorted(budget.units.items())[:4]:
        seen = events.get(key, 0)
        if found.caveats:
            facts.append(
                (
                    f"False alarms of {key}",
                    f"no promise; levels for 1 per {found.ert_events:,.0f} of its events, of which "
                    f"{seen:,} came",
                )
            )
            facts += [(f"No promise for {key}", caveat) for caveat in found.caveats]
            continue
        facts.append(
            (
                f"False alarms of {key}",
                f"estimated 1 per {found.estimate:,.0f} of its events (95 %: {found.low:,.0f} to "
                f"{found.high:,.0f}); {seen:,} came, so {wording.number(seen / found.estimate)} "
                "would be expected without drift",
            )
        )
    return facts


def source(reference: Reference) -> str:
    """Where the reference rows came from: `file january.jsonl.gz`."""
    return ", ".join(
        f"{name} {value}" for name, value in reference.source.items() if value not in (None, "")
    )


def since(reference: Reference) -> str:
    """Since when it is in force, where that is not for ever."""
    from_ms = reference.era.from_ms
    if from_ms is None:
        return ""
    return f"; in force since {iso_ms(from_ms)}, and distributions are shown from then on"


def numbers(record: UnitRecord, index: int) -> list[tuple[str, str]]:
    """A feature's figures over the range: (what, value) pairs."""
    f, bins = record.profile.features[index], record.bins.features[index]
    counts = record.counts(record.total, index)
    n_before, n = max(1, int(bins.reference.sum())), max(1, int(counts.sum()))

    def share(label: str) -> tuple[float, float]:
        i = bins.labels.index(label)
        return int(bins.reference[i]) / n_before, int(counts[i]) / n

    found: list[tuple[str, str]] = []
    if isinstance(f, NumericProfile):
        mean = record.mean(record.total, index)
        if mean is not None:
            moved = f", {(mean - f.mean) / f.sd:+.2f} sd" if f.sd > 0 else ""
            found.append(
                ("mean", f"{wording.number(f.mean)} → {wording.number(mean)}{moved}"),
            )
        low, high = float(record.total.low[index]), float(record.total.high[index])
        if not isnan(low):
            found.append(("values from", f"{wording.number(low)} to {wording.number(high)}"))
        outside = int(counts[0]) + int(counts[bins.n_main - 1])
        if outside:
            found.append(("outside the reference’s range", _percent(outside / n)))
    elif (new := share("new")[1]) > 0:
        names = record.unseen.get(index, {})
        shown = ", ".join(f"{name} ({k:,})" for name, k in names.items())
        found.append(("new categories", f"{_percent(new)}: {shown}" if shown else _percent(new)))
    before, after = share("missing")
    gone = _percent(after)
    found.append(("missing", gone if gone == _percent(before) else f"{_percent(before)} → {gone}"))
    return found


def _percent(share: float) -> str:
    return wording.percent(float(f"{share:.3g}"))


def happened(episodes: Sequence[Episode], n: int, n_looks: int, range_end: str) -> str:
    """The whole in two or three sentences. n: of alarms, n_looks: verdicts that were tests."""
    if not n:
        return f"No alarm: none of the {n_looks:,} tests that could be made found drift."
    features = len({(e.unit, e.feature) for e in episodes if e.feature != MULTIVARIATE})
    of = [plural(features, "feature")] if features else []
    if any(e.feature == MULTIVARIATE for e in episodes):
        of.append("the numeric features together")
    critical = sum(e.severity == "critical" for e in episodes)
    firing = sum(e.ends_at is None for e in episodes)
    first = wording.moment(min(e.starts_at for e in episodes))
    said = [f"{plural(n, 'alarm')} on {' and '.join(of)}, the first at {first}."]
    parts = []
    if critical:
        parts.append(f"{critical:,} critical")
    if firing:
        # "5 critical and 3 still firing …", each of them counted on its own.
        end = wording.moment(range_end)
        parts.append(f"{firing:,} still firing when the range ended, at {end}")
    if parts:
        said.append(f"{' and '.join(parts)}.")
    return " ".join(said)
