"""The windowed benchmark's figures: as a table, as markdown and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from .common import Spread, machine, significant

TITLES = {
    "ks": "Two-sample KS: 20 numeric features, reference 10,000, a look every 100 events",
    "chi_squared": "Chi-squared: 10 features of 50 categories, reference 10,000, "
    "a look every 100 events",
}
WINDOWS = ((500,), (2_000,), (10_000,), (500, 2_000, 10_000))
LEGEND = (
    "Events per second of the whole job (median), and × = its time as a multiple of driftline's "
    "(live) in the same rounds: median (min to max). Difference: largest distance from scipy's "
    "statistic / p-value. * answers another question: see its note."
)


@dataclass(frozen=True, slots=True)
class Result:
    """One variant of one peer on one job: its time per event, and as a multiple of driftline's.

    windows: () for one that has no windows; its ratio is to driftline with the first of WINDOWS.
    events: how many one round timed. cpu_share: processor time / time passed, both sides.
    statistic_difference, p_value_difference: largest distances from scipy's, None without one.
    """

    peer: str
    variant: str
    note: str
    same_job: bool
    job: str
    windows: tuple[int, ...]
    error: str | None = None
    events: int = 0
    us_per_event: Spread | None = None
    ratio: Spread | None = None
    cpu_share: float = 1.0
    statistic_difference: float | None = None
    p_value_difference: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "peer": self.peer,
            "variant": self.variant,
            "note": self.note,
            "same_job": self.same_job,
            "job": self.job,
            "windows": list(self.windows),
            "error": self.error,
            "events_per_round": self.events,
            "us_per_event": self.us_per_event and self.us_per_event.as_dict(),
            "times_driftline": self.ratio and self.ratio.as_dict(),
            "cpu_share": self.cpu_share,
            "largest_statistic_difference": self.statistic_difference,
            "largest_p_value_difference": self.p_value_difference,
        }


def rows(job: str, results: Sequence[Result]) -> list[list[str]]:
    """A header and one row per variant; a cell is `events/s ×ratio (min to max)`."""
    header = ["peer", "used as"]
    header += [f"window {w[0]:,}" if len(w) == 1 else "all three" for w in WINDOWS]
    header.append("difference")
    by_variant: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.job == job:
            by_variant.setdefault((result.peer, result.variant), []).append(result)
    shown = [header]
    for (peer, variant), cases in by_variant.items():
        by_windows = {case.windows: case for case in cases}
        cells = [_cell(by_windows.get(windows)) for windows in WINDOWS]
        if () in by_windows:
            cells[0] = _cell(by_windows[()])
        difference = [
            "-" if not known else f"{max(known):.0e}"
            for known in (
                [c.statistic_difference for c in cases if c.statistic_difference is not None],
                [c.p_value_difference for c in cases if c.p_value_difference is not None],
            )
        ]
        star = "" if cases[0].same_job else " *"
        shown.append([peer, variant + star, *cells, " / ".join(difference)])
    return shown


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    if result.us_per_event is None:
        return "failed"
    rate = significant(1e6 / result.us_per_event.median)
    if result.ratio is None:
        return rate
    low, middle, high = (
        significant(v) for v in (result.ratio.low, result.ratio.median, result.ratio.high)
    )
    return f"{rate}\n×{middle} ({low} to {high})"


def notes(job: str, results: Sequence[Result]) -> list[str]:
    """What a reader must know of the variants, once each, and what failed."""
    said = {f"{r.peer}, {r.variant}: {r.note}": None for r in results if r.job == job and r.note}
    failed = [
        f"{r.peer}, {r.variant}, windows {r.windows} failed: {r.error}"
        for r in results
        if r.job == job and r.error
    ]
    return [*said, *failed]


def _checked(apart: float) -> str:
    return (
        "driftline against scipy, 20 looks at all three windows, quiet and drifting: largest "
        f"relative difference of a statistic or p-value {apart:.1e}"
    )


def markdown(results: Sequence[Result], checked: Mapping[str, float]) -> str:
    """The tables of the README."""
    parts: list[str] = []
    for job, apart in checked.items():
        header, *body = rows(job, results)
        lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += [
            "| " + " | ".join(cell.replace("\n", "<br>").replace("*", "\\*") for cell in row) + " |"
            for row in body
        ]
        parts += [f"### {TITLES[job]}", "\n".join(lines)]
        parts.append("\n".join(f"- {note}" for note in [*notes(job, results), _checked(apart)]))
    return "\n\n".join(parts) + "\n"


def report(
    results: Sequence[Result], missing: Mapping[str, str],
    packages: Mapping[str, Mapping[str, str]], checked: Mapping[str, float],
) -> None:  # fmt: skip
    """Print everything to stdout."""
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    where = machine()
    console.print(", ".join(str(where[k]) for k in ("processor", "system", "python")))
    for job, apart in checked.items():
        header, *body = rows(job, results)
        table = Table(title=TITLES[job], title_justify="left", caption=LEGEND,
                      caption_justify="left", show_lines=True)  # fmt: skip
        for name in header:
            is_text = name in header[:2]
            table.add_column(name, justify="left" if is_text else "right", overflow="fold")
        for row in body:
            table.add_row(*row)
        console.print(table)
        for note in [*notes(job, results), _checked(apart)]:
            console.print(f"  {note}")
        console.print()
    least = min((r.cpu_share for r in results), default=1.0)
    console.print(
        "Times are processor times, one thread. The least share of the passing time that was "
        f"processor time, in any comparison: {least:.0%}."
    )
    for name, versions in packages.items():
        console.print(f"  {name}: " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    for name, why in missing.items():
        console.print(f"  {name} did not run: {why}")
