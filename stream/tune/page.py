"""The report of a tuning: one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...schemas.errors import DriftlineError
from ...schemas.units import iso_ms
from ..pages.figures import ALARM, COLOURS, NEUTRAL, SYMBOLS, figure_html, plain, significant
from ..pages.page import Section, choices, html, page, table
from .evidence import Ints
from .inject import INJECTIONS
from .results import Score
from .terminal import about, detectors_of
from .work import Tuned, levels_of_score

# Candidates whose alarms are drawn, and rows of the table of all.
DRAWN: Final = 5
LISTED: Final = 500
FEATURES: Final = 40


def write_page(tuned: Tuned, path: Path) -> None:
    """Raises DriftlineError: plotly or jinja2 is not installed, or the file cannot be written."""
    text = page_of(tuned)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DriftlineError(f"{path}: cannot be written ({error.strerror})") from error


def page_of(tuned: Tuned) -> str:
    span, task = tuned.evidence.span, tuned.task
    facts = [
        ("Events", f"{tuned.kept.counts['summarised']:,} from {tuned.task.source.label}"),
        ("Time", f"{iso_ms(span.start_ms)[:16]} to {iso_ms(span.end_ms)[:16]} UTC"),
        ("Quiet", f"{about(span.quiet_ms)}, {span.quiet_events:,} events"),
        ("Incidents", ", ".join(i.name for i in tuned.evidence.incidents)),
        ("Configurations", f"{len(tuned.scores):,}"),
        ("Bearable", f"{task.bearable.label} false alarms"),
        ("Reference", task.reference.whole.id[:12]),
    ]
    sections = [
        Section("The choice", _choice(tuned), _comparison(tuned)),
        Section(
            "False alarms against delay",
            "Each point is a configuration. Left is calmer, down is sooner. The line joins those that "
            "none beats in both.",
            _trade_off(tuned),
        ),
        Section(
            "Alarms over time",
            "When the model would have been in alarm under the best few, and which features drifted. "
            "Bands are known incidents; dotted lines are where drift was put in (in copies of the "
            "stream: it does not show here).",
            _timelines(tuned),
        ),
        Section(
            "Time between false alarms",
            "Quiet time divided by the false alarms in it, with an exact 95 % interval for alarms that "
            "come independently (Garwood 1936). Where there were none, only the lower end is known.",
            _run_times(tuned),
        ),
        Section(
            "Every configuration",
            "Best first: those within what is bearable by missed incidents and lag, then the others by "
            "false alarms.",
            _all(tuned),
        ),
        Section("How to read this", "", _notes(tuned)),
    ]
    return page(
        f"Tuning of {task.model.name}",
        f"best: {tuned.chosen.candidate.label}",
        facts,
        sections,
        "The configuration was chosen on these events; look at it on others before you rely on its "
        "figures.",
    )


def _choice(tuned: Tuned) -> str:
    best, span = tuned.chosen, tuned.evidence.span
    text = f"{best.candidate.label}."
    if best.candidate.current:
        text += " It is what is configured now."
    mean, low, _ = best.run_time_ms(span)
    if mean is None:
        text += f" No false alarm in {about(span.quiet_ms)}: one in {about(low)} or more (95 %)."
    else:
        text += f" One false alarm in {about(mean)} of quiet time."
    if not best.bearable:
        text += " That is more than is bearable; no configuration had fewer."
    return text


def _columns(tuned: Tuned) -> list[tuple[str, Score]]:
    found = [("best", tuned.chosen)]
    if tuned.current is not tuned.chosen:
        found.append(("now", tuned.current))
    return [*found, ("always an alarm", tuned.always), ("never", tuned.never)]


def _comparison(tuned: Tuned) -> str:
    """What each change would have come to, under the best, the present and the two extremes."""
    columns = _columns(tuned)
    rows = [["false alarms on the quiet part", *(f"{s.false_alarms:,}" for _, s in columns)]]
    for i, incident in enumerate(tuned.evidence.incidents):
        rows.append([incident.name, *(about(s.incidents[i].delay_ms) for _, s in columns)])
    texts = {i.name: i.text for i in INJECTIONS}
    for k, injected in enumerate(tuned.chosen.injected):
        cells = []
        for _, s in columns:
            own = s.injected[k]
            seen = f" ({own.found} of {own.cases})" if own.found < own.cases else ""
            cells.append(about(own.delay_ms) + seen)
        rows.append([texts[injected.name], *cells])
    rows.append(["quiet time in alarm", *(_percent(s.in_alarm) for _, s in columns)])
    rows.append(["lag", *(_two(s.lag) for _, s in columns)])
    return table(
        ["", *(name for name, _ in columns)],
        rows,
        caption="Time until the first alarm. Drift put in: one feature at a time, mean over those "
        "seen; in brackets how many were, where not all.",
        numeric=range(1, len(columns) + 1),
        marked=[len(rows) - 1],
    )


def _two(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.0%}"


def _trade_off(tuned: Tuned) -> str:
    span = tuned.evidence.span
    days = max(span.quiet_ms, 1) / 86_400_000
    # A logarithmic axis has no zero: none is drawn where half an alarm would be.
    none = 0.5 / days
    levels = list(dict.fromkeys(s.candidate.windows_label for s in tuned.scores))
    data: list[dict[str, Any]] = []
    for n, windows in enumerate(levels):
        own = [s for s in tuned.scores if s.candidate.windows_label == windows]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(windows),
                "x": significant([max(s.per_day(span), none) for s in own]),
                "y": significant([None if math.isnan(s.lag) else s.lag for s in own]),
                "text": [plain(f"{s.rank}: {s.candidate.label}") for s in own],
                "hovertemplate": "%{text}<br>%{x:.3g} a day, lag %{y:.2f}<extra></extra>",
                "marker": {
                    "color": COLOURS[n % len(COLOURS)],
                    "symbol": SYMBOLS[n % len(SYMBOLS)],
                    "size": 7,
                    "opacity": 0.75,
                },
            }
        )
    front = sorted((s for s in tuned.scores if s.pareto), key=lambda s: (s.false_alarms, s.lag))
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "none beats these in both",
            "x": significant([max(s.per_day(span), none) for s in front]),
            "y": significant([s.lag for s in front]),
            "line": {"color": NEUTRAL, "dash": "dot", "shape": "hv"},
            "hoverinfo": "skip",
        }
    )
    marks = [
        ("best", tuned.chosen),
        ("now", tuned.current),
        ("always", tuned.always),
        ("never", tuned.never),
    ]
    data.append(
        {
            "type": "scatter",
            "mode": "markers+text",
            "showlegend": False,
            "x": significant([max(s.per_day(span), none) for _, s in marks]),
            "y": significant([None if math.isnan(s.lag) else s.lag for _, s in marks]),
            "text": [name for name, _ in marks],
            "textposition": "top center",
            "hoverinfo": "skip",
            "marker": {"symbol": "circle-open", "size": 14, "color": ALARM, "line": {"width": 2}},
        }
    )
    highest = max(
        [none, *(s.per_day(span) for s in (*tuned.scores, tuned.always) if span.quiet_ms)]
    )
    powers = range(math.ceil(math.log10(none)), math.floor(math.log10(highest)) + 1)
    layout = {
        "xaxis": {
            "type": "log",
            "title": {"text": "false alarms per day of quiet time"},
            "tickvals": [none, *(10.0**k for k in powers)],
            "ticktext": ["none", *(f"{10.0**k:g}" for k in powers)],
        },
        "yaxis": {"title": {"text": "lag"}, "rangemode": "tozero"},
        "legend": {"orientation": "h", "y": -0.25},
    }
    return figure_html(
        {"data": data, "layout": layout},
        label=f"Scatter of {len(tuned.scores)} configurations: false alarms per day against lag",
        height_px=460,
        caption="Lag: mean share of the time there was until a change was seen, 1 for what was missed.",
    )


def _timelines(tuned: Tuned) -> str:
    chosen = list(tuned.scores[:DRAWN])
    if tuned.current not in chosen:
        chosen.append(tuned.current)
    options = {}
    for s in chosen:
        name = f"{s.rank}" + (" (now)" if s.candidate.current else "")
        lead = html("<p>{{ text }}</p>", text=s.candidate.label)
        options[name] = lead + _timeline(tuned, s)
    return choices("timeline", options)


def _timeline(tuned: Tuned, s: Score) -> str:
    rows = [("the model", list(s.episodes)), *_feature_rows(tuned, s)]
    data = []
    for n, (name, parts) in enumerate(rows):
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plain(name),
                "y": [plain(name)] * len(parts) or [plain(name)],
                "base": [iso_ms(a) for a, _ in parts] or [iso_ms(tuned.evidence.span.start_ms)],
                "x": [b - a for a, b in parts] or [0],
                "marker": {"color": ALARM if n == 0 else COLOURS[0]},
                "hovertemplate": "%{base|%Y-%m-%d %H:%M} to %{x|%Y-%m-%d %H:%M}<extra></extra>",
                "showlegend": False,
            }
        )
    span = tuned.evidence.span
    shapes = [
        {
            "type": "rect", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below",
            "x0": iso_ms(i.start_ms), "x1": iso_ms(i.end_ms), "line": {"width": 0},
            "fillcolor": "rgba(127,134,143,0.25)",
        }
        for i in tuned.evidence.incidents
    ]  # fmt: skip
    shapes += [
        {
            "type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1,
            "x0": iso_ms(ms), "x1": iso_ms(ms), "line": {"width": 1, "dash": "dot", "color": NEUTRAL},
        }
        for ms in sorted({t.onset_ms for t in tuned.evidence.trials})
    ]  # fmt: skip
    layout = {
        "barmode": "overlay",
        "xaxis": {"type": "date", "range": [iso_ms(span.start_ms), iso_ms(span.end_ms)]},
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
        "shapes": shapes,
    }
    n = len(s.episodes)
    said = f"{n} alarm{'' if n == 1 else 's'} of the model"
    drifted = ", ".join(name for name, _ in rows[1:])
    return figure_html(
        {"data": data, "layout": layout},
        label=f"{s.candidate.label}: {said}; features that drifted: {drifted or 'none'}",
        height_px=90 + 22 * len(rows),
        caption=f"{said}; on the quiet part {s.false_alarms} are counted as false, and again for each "
        "longest window that one stands.",
    )


def _feature_rows(tuned: Tuned, s: Score) -> list[tuple[str, list[tuple[int, int]]]]:
    """Per feature, when some test of it drifted: those that drifted longest first."""
    evidence, candidate = tuned.evidence, s.candidate
    levels = levels_of_score(s, tuned)
    found: dict[str, list[tuple[Ints, Ints]]] = {}
    for unit, profile in evidence.units.items():
        for window in candidate.windows:
            looks = evidence.looks.get((unit, candidate.pane_ms, window.label))
            if looks is None or not len(looks.end_ms):
                continue
            after = np.append(looks.end_ms[1:], looks.end_ms[-1] + candidate.pane_ms)
            for detector, features in evidence.plans[unit].items():
                kept = [
                    k
                    for k, i in enumerate(features)
                    if detector in candidate.detectors_for(profile.kind_of(i))
                ]
                if not kept:
                    continue
                own = [features[k] for k in kept]
                drifted = looks.p[detector][:, kept] <= levels(unit, own, detector, window.label)
                for k, i in enumerate(own):
                    at = drifted[:, k]
                    if at.any():
                        segment = unit.partition("|")[2]
                        name = profile.name_of(i) + (f" ({segment})" if segment else "")
                        found.setdefault(name, []).append((looks.end_ms[at], after[at]))
    rows = [(name, _union(parts)) for name, parts in found.items()]
    rows.sort(key=lambda row: (-sum(b - a for a, b in row[1]), row[0]))
    return rows[:FEATURES]


def _union(parts: Sequence[tuple[Ints, Ints]]) -> list[tuple[int, int]]:
    merged: list[list[int]] = []
    pairs = [p for a, b in parts for p in zip(a.tolist(), b.tolist(), strict=True)]
    for a, b in sorted(pairs):
        if merged and a <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], b)
        else:
            merged.append([a, b])
    return [(a, b) for a, b in merged]


def _run_times(tuned: Tuned) -> str:
    span = tuned.evidence.span
    rows = []
    for s in (*tuned.scores[:10], *([] if tuned.current in tuned.scores[:10] else [tuned.current])):
        mean, low, high = s.run_time_ms(span)
        asked = "" if s.candidate.level.budget is None else s.candidate.level.budget.label
        calibrated = ""
        if (budget := tuned.calibrated.get(s.candidate)) is not None:
            c = min(budget.units.values(), key=lambda c: c.estimate)
            calibrated = f"1 per {c.estimate:,.0f} events ({c.low:,.0f} to {c.high:,.0f})"
            calibrated += "; no promise" * bool(budget.caveats)
        label = f"{s.rank}: {s.candidate.label}" + (" (now)" if s.candidate.current else "")
        interval = f"{about(low)} to {'∞' if high is None else about(high)}"
        rows.append([label, f"{s.false_alarms:,}", about(mean), interval, asked, calibrated])
    return table(
        ["", "false alarms", "one in", "95 %", "asked", "calibrated estimate"],
        rows,
        numeric=(1, 2, 3),
        marked=[0],
    )


def _all(tuned: Tuned) -> str:
    span = tuned.evidence.span
    rows = []
    for s in tuned.scores[:LISTED]:
        found, cases = s.found_injected
        c = s.candidate
        seen = len(s.incidents) - s.missed_incidents
        level = ("≈ " if s.how == "empirical" else "") + c.level.label
        mark = ("★ " if s.pareto else "") + ("now" if c.current else "")
        rows.append(
            [
                *(f"{s.rank}", mark, c.pane, c.windows_label, detectors_of(c, tuned), level),
                *(f"{s.false_alarms:,}", f"{s.per_day(span):.3g}", _percent(s.in_alarm)),
                *([f"{seen} of {len(s.incidents)}"] if s.incidents else []),
                *(f"{found} of {cases}", _two(s.lag)),
            ]
        )
    header = ["", "", "pane", "windows", "detectors", "level", "false alarms", "per day"]
    header += ["in alarm"]
    header += ["incidents"] if tuned.evidence.incidents else []
    header += ["put in, seen", "lag"]
    more = len(tuned.scores) - len(rows)
    return table(
        header,
        rows,
        caption=f"{more:,} more are in --json." if more else "",
        numeric=[0, *range(6, len(header))],
        marked=[0],
    )


def _notes(tuned: Tuned) -> str:
    horizon = max((t.horizon_ms for t in tuned.evidence.trials), default=0)
    lines = [
        "A false alarm is a time in which the whole model was in alarm, as the alert stage tells it, "
        "on the quiet part: outside incidents and the time in which some window still holds their "
        "events. One that stands longer than the longest window counts again for each such length.",
        "Drift was put into the panes of the quiet part: values are known to within a gap between "
        "neighbouring reference values, so each was drawn within its gap, changed and summarised "
        f"again. Each feature is judged by its own tests; there were {about(horizon)} to see it.",
        "A change is seen when the alert of a feature begins. A feature that was in alarm before it "
        "cannot tell of it: that is a miss.",
        "★ marks configurations that none beats in both false alarms and lag. ≈ marks levels that were "
        "read off the quiet part itself: on it they keep the budget by construction.",
        *tuned.notes,
    ]
    return html("<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>", lines=lines)
