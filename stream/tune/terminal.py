"""What a tuning found, for the terminal and for machines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

from ...schemas.units import format_duration, iso_ms
from .candidates import Candidate
from .inject import INJECTIONS
from .results import Score
from .work import Tuned

# Rows of the table in the terminal; --json and --report have all.
SHOWN: Final = 15
# Share of the quiet time in alarm from which on the reference is to blame.
CONSTANT: Final = 0.5


def about(ms: float | None) -> str:
    """A duration in its two largest units, for people.

    >>> about(93_784_000.0), about(None), about(450.0)
    ('1d2h', '–', '450ms')
    """
    if ms is None or math.isnan(ms):
        return "–"
    whole = round(ms)
    for unit, below in ((86_400_000, 3_600_000), (3_600_000, 60_000), (60_000, 1_000), (1_000, 1)):
        if whole >= unit:
            if whole >= 10 * unit and unit == 86_400_000:
                below = unit
            return format_duration(round(whole / below) * below)
    return format_duration(whole)


def as_dict(tuned: Tuned) -> dict[str, Any]:
    """Everything, JSON-able; the same input and seed give the same."""
    span, task = tuned.evidence.span, tuned.task
    return {
        "model": task.model.name,
        "source": task.source.label,
        "reference": task.reference.whole.id,
        "events": dict(tuned.kept.counts),
        "range": {"start": iso_ms(span.start_ms), "end": iso_ms(span.end_ms)},
        "quiet": {
            "ms": span.quiet_ms,
            "events": span.quiet_events,
            "parts": [[iso_ms(a), iso_ms(b)] for a, b in span.quiet],
        },
        "incidents": [
            {
                "name": i.name,
                "start": iso_ms(i.start_ms),
                "end": iso_ms(i.end_ms),
                "features": list(i.features),
                "windows_hold_it_until": iso_ms(b),
            }
            for i, (_, b) in zip(tuned.evidence.incidents, span.zones, strict=True)
        ],
        "injected": {
            "kinds": {i.name: i.text for i in INJECTIONS},
            "onsets": [iso_ms(ms) for ms in sorted({t.onset_ms for t in tuned.evidence.trials})],
            "horizon_ms": max((t.horizon_ms for t in tuned.evidence.trials), default=0),
            "seed": task.seed,
        },
        "bearable": task.bearable.label,
        "notes": list(tuned.notes),
        "chosen": settings(tuned.chosen.candidate),
        "candidates": [_score(s, tuned) for s in tuned.scores],
        "always": _score(tuned.always, tuned),
        "never": _score(tuned.never, tuned),
    }


def settings(candidate: Candidate) -> dict[str, Any]:
    """A candidate as keys of driftline.yaml."""
    level: dict[str, Any] = (
        {"alpha": candidate.level.alpha}
        if candidate.level.budget is None
        else {"false_alarms": candidate.level.budget.label}
    )
    windows: list[Any] = []
    for window in candidate.windows:
        size, hop, step = window.label.partition(" hop ")
        windows.append({"size": size, "hop": step} if hop else window.label)
    return {
        "pane": candidate.pane,
        "windows": windows,
        "detectors": {
            "numeric": list(candidate.numeric),
            "categorical": list(candidate.categorical),
            **({"multivariate": list(candidate.multivariate)} if candidate.multivariate else {}),
        },
        **level,
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _score(s: Score, tuned: Tuned) -> dict[str, Any]:
    span = tuned.evidence.span
    mean, low, high = s.run_time_ms(span)
    budget = tuned.calibrated.get(s.candidate)
    return {
        "rank": s.rank,
        "pareto": s.pareto,
        "current": s.candidate.current,
        "bearable": s.bearable,
        **settings(s.candidate),
        "level": {"of_one_test": _number(s.level), "found_by": s.how, "tests": s.tests},
        "false_alarms_quiet": s.false_alarms,
        "false_alarms_per_day": _number(s.per_day(span)),
        "in_alarm": _number(s.in_alarm),
        "run_time_ms": {"mean": _number(mean), "low": _number(low), "high": _number(high)},
        "lag": _number(s.lag),
        "incidents": [
            {"name": i.name, "delay_ms": f.delay_ms, "share": f.share}
            for i, f in zip(tuned.evidence.incidents, s.incidents, strict=True)
        ],
        "injected": [
            {
                "name": i.name,
                "found": i.found,
                "cases": i.cases,
                "mean_delay_ms": _number(i.delay_ms),
                "share": i.share,
            }
            for i in s.injected
        ],
        "episodes": [[iso_ms(a), iso_ms(b)] for a, b in s.episodes],
        "calibration": None
        if budget is None
        else {
            unit: {
                "asked": c.ert_events,
                "estimate": c.estimate,
                "low": c.low,
                "high": c.high,
                "caveats": list(c.caveats),
            }
            for unit, c in sorted(budget.units.items())
        },
    }


def show(tuned: Tuned, console: Console, out: Path | None, report: Path | None) -> None:
    """The ranking, and what it rests on."""
    span, kept = tuned.evidence.span, tuned.kept
    counts = kept.counts

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    how = "read once" if tuned.read else "not read again"
    say(
        f"{tuned.task.source.label}: {counts['summarised']:,} events from "
        f"{iso_ms(span.start_ms)[:16]} to {iso_ms(span.end_ms)[:16]}, {how}; panes of "
        f"{format_duration(kept.pane_ms)} kept in {kept.directory} ({kept.n_bytes / 1e6:,.1f} MB)"
    )
    lost = {n: c for n, c in counts.items() if n not in ("received", "summarised") and c}
    if lost:
        say("  besides: " + ", ".join(f"{c:,} {n.replace('_', '-')}" for n, c in lost.items()))
    for reason in kept.refused[:2]:
        say(f"  refused: {reason}")
    incidents = tuned.evidence.incidents
    outside = f" outside {_n(len(incidents), 'incident')} and what they leave" if incidents else ""
    say(f"quiet: {about(span.quiet_ms)}, {span.quiet_events:,} events{outside}")
    onsets = sorted({t.onset_ms for t in tuned.evidence.trials})
    if onsets:
        horizon = tuned.evidence.trials[0].horizon_ms
        kinds = {t.injection.name for t in tuned.evidence.trials}
        say(
            f"drift put in at {', '.join(iso_ms(ms)[:16] for ms in onsets)}, one feature at a time, "
            f"with {about(horizon)} to see it: "
            + "; ".join(i.text for i in INJECTIONS if i.name in kinds)
        )
    for note in tuned.notes:
        say(f"note: {note}")
    say(
        f"{len(tuned.scores):,} configurations; bearable is {tuned.task.bearable.label}, "
        f"{_allowed(span.allowed(tuned.task.bearable))} on the quiet part"
    )
    console.print()
    console.print(_table(tuned))
    if len(tuned.scores) > SHOWN:
        console.print(
            f"… and {len(tuned.scores) - SHOWN:,} more; --json and --report have all",
            highlight=False,
        )
    console.print(
        "★ none has both fewer false alarms and less lag · lag: mean share of the time there was "
        "until it was seen, 1 for what was missed",
        style="dim",
        highlight=False,
    )
    _conclude(tuned, console, out, report)


def _n(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _allowed(allowed: float) -> str:
    return "none" if allowed < 1 else _n(int(allowed), "false alarm")


def _table(tuned: Tuned) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns: tuple[tuple[str, Literal["left", "right"]], ...] = (
        ("", "right"),
        ("", "left"),
        ("pane", "left"),
        ("windows", "left"),
        ("detectors", "left"),
        ("level", "left"),
        ("false alarms", "right"),
        ("per day", "right"),
        ("in alarm", "right"),
        *((("incidents", "right"), ("after", "right")) if tuned.evidence.incidents else ()),
        ("put in, seen", "right"),
        ("after", "right"),
        ("lag", "right"),
    )
    for name, justify in columns:
        table.add_column(name, justify=justify)
    shown = list(tuned.scores[:SHOWN])
    if tuned.current not in shown:
        shown.append(tuned.current)
    for s in shown:
        c = s.candidate
        mark = ("★" if s.pareto else " ") + (" now" if c.current else "")
        level = ("≈ " if s.how == "empirical" else "") + c.level.label
        cells = [f"{s.rank}", mark, c.pane, c.windows_label, detectors_of(c, tuned), level]
        style = "bold green" if s.rank == 1 else None if s.bearable else "dim"
        table.add_row(*cells, *_figures(s, tuned), style=style)
    table.add_section()
    for name, s in (("always", tuned.always), ("never", tuned.never)):
        table.add_row("", "", "", f"({name} an alarm)", "", "", *_figures(s, tuned), style="dim")
    return table


def detectors_of(candidate: Candidate, tuned: Tuned) -> str:
    """A candidate's detectors that have something to test."""
    kinds = dict.fromkeys(f.kind for f in tuned.task.reference.whole.features)
    return candidate.detectors_of(kinds)


def _figures(s: Score, tuned: Tuned) -> list[str]:
    found, cases = s.found_injected
    per_day = s.per_day(tuned.evidence.span)
    cells = [f"{s.false_alarms:,}", "–" if math.isnan(per_day) else f"{per_day:.3g}"]
    cells.append("–" if math.isnan(s.in_alarm) else f"{s.in_alarm:.0%}")
    if s.incidents:
        seen = [f.delay_ms for f in s.incidents if f.delay_ms is not None]
        cells += [
            f"{len(seen)} of {len(s.incidents)}",
            about(sum(seen) / len(seen) if seen else None),
        ]
    known = [(i.delay_ms, i.found) for i in s.injected if i.delay_ms is not None]
    total = sum(n for _, n in known)
    mean = sum(delay * n for delay, n in known) / total if total else None
    cells += [
        f"{found / cases:.0%}" if cases else "–",
        about(mean),
        "–" if math.isnan(s.lag) else f"{s.lag:.2f}",
    ]
    return cells


def _conclude(tuned: Tuned, console: Console, out: Path | None, report: Path | None) -> None:
    best, now, span = tuned.chosen, tuned.current, tuned.evidence.span

    def say(text: str, style: str | None = None) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True, style=style)

    console.print()
    if best.candidate.current:
        say("best: what is configured now", "bold")
    else:
        say(f"best: {best.candidate.label}", "bold")
    if not best.bearable:
        say(
            f"  no configuration had so few false alarms as is bearable "
            f"({tuned.task.bearable.label}); this one had the fewest, {best.false_alarms:,}. If most "
            "of the time looks like drift, the reference is not like the stream: fit it on a time "
            "that is, name incidents with --incidents, or try levels such as --budgets 1e-9"
        )
    if best.in_alarm > CONSTANT:
        say(
            f"  it would be in alarm for {best.in_alarm:.0%} of the quiet time: the reference is not "
            "like the stream, and what is in alarm cannot tell of more; fit the reference on a time "
            "that is like it"
        )
    mean, low, high = best.run_time_ms(span)
    if not span.quiet_ms:
        say("  without a quiet part nothing is known of its false alarms")
    elif mean is None:
        say(
            f"  no false alarm in {about(span.quiet_ms)}: with 95 % confidence one in {about(low)} "
            "or more"
        )
    else:
        say(f"  one false alarm in {about(mean)} (95 %: {about(low)} to {about(high)})")
    if not best.candidate.current and span.quiet_ms:
        say(
            f"  now: {_n(now.false_alarms, 'false alarm')} ({now.in_alarm:.0%} of the quiet time), lag "
            f"{now.lag:.2f}; best: {best.false_alarms:,} ({best.in_alarm:.0%}), lag {best.lag:.2f}"
        )
    if (budget := tuned.calibrated.get(best.candidate)) is not None:
        for unit, c in sorted(budget.units.items()):
            say(
                f"  {unit}: calibrated for one false alarm per {c.ert_events:,.0f} of its events, "
                f"{c.estimate:,.0f} estimated (95 %: {c.low:,.0f} to {c.high:,.0f})"
            )
        for unit, caveat in budget.caveats:
            say(f"  no promise for {unit}: {caveat}")
    say(
        "  it was chosen on these events: look at it on others before you rely on its figures, with "
        "`driftline replay`"
    )
    if out is not None:
        say(f"wrote {out}")
        if best.candidate.level.budget is not None:
            say(f"next: driftline fit --config {out}, which finds the levels for the budget")
    if report is not None:
        say(f"wrote {report}")
