"""Records → tables and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from . import cases
from .records import Figure, Run, Runs, delay, run_time

OURS: Final = "driftline"
# Of fewer runs without an alarm before the change, nothing is said.
FEWEST: Final = 10
# The same records, with levels moved until its run time on them is the one asked for, as peers' are.
MOVED: Final = "driftline, tuned as the peers"


@dataclass(frozen=True, slots=True)
class Row:
    """One detector: run time by model, delay by case."""

    name: str
    run_times: Mapping[str, Figure]
    delays: Mapping[str, Figure]


def slug(peer: str) -> str:
    return peer.replace(" ", "_").replace("/", "-").replace(",", "")


def load(cache: Path, peer: str, model: str) -> Runs | None:
    """All runs kept of a detector on a model; of a run that was made twice, the later file's."""
    found: dict[int, Run] = {}
    step = 0.0
    files = sorted(cache.glob(f"{slug(peer)}.{model}.*.json"), key=lambda p: p.stat().st_mtime)
    for path in files:
        kept: dict[str, Any] = json.loads(path.read_text())
        step = kept["step"]
        found |= {r["number"]: Run(**r) for r in kept["runs"]}
    if not found:
        return None
    runs = [found[number] for number in sorted(found)]
    return Runs(runs, cases.HORIZON, cases.AFTER, step)


def row(name: str, cache: Path, models: Sequence[str], *, tuned: bool = True) -> Row | None:
    """tuned: the threshold is the one of the expected run time; otherwise it is 0."""
    run_times: dict[str, Figure] = {}
    delays: dict[str, Figure] = {}
    for model in models:
        runs = load(cache, OURS if name == MOVED else name, model)
        if runs is None:
            continue
        thresholds = runs.thresholds(cases.ERT, 50) if tuned else np.zeros(1)
        run_times[model] = run_time(runs, float(thresholds[0]))
        for case in cases.cases_of(model):
            if any(case.name in r.after for r in runs.runs):
                delays[case.name] = delay(runs, case.name, thresholds)
    return Row(name, run_times, delays) if delays else None


def _said(f: Figure | None) -> str:
    if f is None:
        return ""
    if f.n < FEWEST:
        return f"{f.n} runs left"
    missed = f" ({f.missed} of {f.n} missed)" if f.missed else ""
    return f"{f.mean:.0f} ± {f.error:.0f}{missed}"


def table(rows: Sequence[Row], names: Sequence[str]) -> str:
    lines = [
        "| detector | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    best = {
        name: min(
            (f.mean for r in rows if (f := r.delays.get(name)) and f.n >= FEWEST), default=0.0
        )
        for name in names
    }
    for r in rows:
        cells = []
        for name in names:
            f = r.delays.get(name)
            said = _said(f)
            cells.append(f"**{said}**" if f and f.mean == best[name] else said)
        lines.append(f"| {r.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def run_time_table(rows: Sequence[Row], models: Sequence[str]) -> str:
    lines = ["| detector | " + " | ".join(models) + " |", "| --- |" + " --- |" * len(models)]
    for r in rows:
        cells = [
            f"{f.mean:,.0f} ± {f.error:,.0f}, {f.n} runs" if (f := r.run_times.get(m)) else ""
            for m in models
        ]
        lines.append(f"| {r.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def ahead(rows: Sequence[Row], name: str = OURS) -> list[str]:
    """The lines on which a peer is ahead of driftline, in the variant `name`, by more than the standard
    error of the difference."""
    ours = next((r for r in rows if r.name == name), None)
    out = []
    for case in [] if ours is None else ours.delays:
        own = ours.delays[case]
        for r in rows:
            f = r.delays.get(case)
            if r.name.startswith(OURS) or f is None or f.n < FEWEST:
                continue
            error = (own.error**2 + f.error**2) ** 0.5
            if own.mean - f.mean > error:
                out.append(
                    f"{case}: {r.name} {_said(f)}, {name} {_said(own)}: "
                    f"{(own.mean - f.mean) / error:.1f} standard errors"
                )
    return out


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    def figures(of: Mapping[str, Figure]) -> dict[str, Any]:
        return {k: [f.mean, f.error, f.n, f.missed] for k, f in of.items()}

    return {r.name: {"run_times": figures(r.run_times), "delays": figures(r.delays)} for r in rows}


_COLOURS: Final = {
    "driftline": "#c2410c",
    "river": "#2563eb",
    "frouros": "#15803d",
    "alibi-detect": "#7e22ce",
}


def svg(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Delays on a logarithmic axis, a strip for each case; a bar is a standard error either way."""
    left, width, strip, top = 210, 560, 46, 46
    low, high = 10.0, float(cases.AFTER)

    def x(value: float) -> float:
        from math import log

        return left + width * log(max(value, low) / low) / log(high / low)

    height = top + strip * len(names) + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 30} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    place = left
    for library, colour in _COLOURS.items():
        out.append(f'<circle cx="{place}" cy="20" r="5" fill="{colour}"/>')
        out.append(f'<text x="{place + 10}" y="24">{library}</text>')
        place += 120
    bottom = top + strip * len(names)
    for tick in (10, 30, 100, 300, 1000, 3000):
        out.append(
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{bottom}" stroke="#ddd"/>'
            f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:,}</text>'
        )
    out.append(
        f'<text x="{left + width / 2}" y="{bottom + 34}" text-anchor="middle">'
        "mean delay in events, each detector tuned to one false alarm per "
        f"{cases.ERT:,} events</text>"
    )
    for k, name in enumerate(names):
        y = top + strip * k + strip / 2
        out.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{name}</text>')
        peers = [
            r
            for r in rows
            if name in r.delays
            and r.delays[name].n >= FEWEST
            and (r.name == OURS or not r.name.startswith(OURS))
        ]
        for j, r in enumerate(sorted(peers, key=lambda r: r.name == OURS)):
            f, ours = r.delays[name], r.name == OURS
            at = y if ours else y - strip * 0.32 + strip * 0.64 * j / max(1, len(peers) - 1)
            colour = _COLOURS[r.name.split()[0].rstrip(",")]
            a, b = x(max(low, f.mean - f.error)), x(min(high, f.mean + f.error))
            out.append(
                f'<g fill="{colour}" stroke="{colour}"><title>{r.name}: {_said(f)}</title>'
                f'<line x1="{a:.1f}" x2="{b:.1f}" y1="{at:.1f}" y2="{at:.1f}" stroke-width="2"/>'
                f'<circle cx="{x(f.mean):.1f}" cy="{at:.1f}" r="{6 if ours else 3.5}" '
                f'stroke-width="2"/></g>'
            )
    return "\n".join([*out, "</svg>"]) + "\n"
