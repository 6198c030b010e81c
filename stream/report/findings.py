"""What a replay found, in a few lines of the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config.against import FITTED
from ..look import part_of
from ..replay import Replay
from ..verdicts import Verdict

_WIDEST: Final = 1000


@dataclass
class Findings:
    """Counts over verdicts, by feature, detector, window and what that is compared with."""

    n: int = 0
    n_drifted: int = 0
    insufficient: Counter[str] = field(default_factory=Counter)
    # (unit, feature, detector, window, earlier part of the stream or "") → verdicts made, drifted,
    # first and last drifted end, and the smallest p-value with its effect.
    series: dict[tuple[str, str, str, str, str], dict[str, Any]] = field(default_factory=dict)

    def add(self, verdict: Verdict) -> dict[str, Any]:
        """Count a verdict; returns it parsed."""
        v: dict[str, Any] = orjson.loads(verdict.value)
        self.n += 1
        if v["status"] != "ok":
            self.insufficient[v["detail"].get("reason", "")] += 1
            return v
        key = (verdict.key, v["feature"], v["detector"], v["window"]["size"], part_of(v))
        entry = self.series.setdefault(
            key, {"tests": 0, "drifted": 0, "first": None, "last": None, "p": None, "effect": None}
        )
        entry["tests"] += 1
        if entry["p"] is None or (v["p_value"] is not None and v["p_value"] < entry["p"]):
            entry["p"], entry["effect"] = v["p_value"], v["effect"]
        if v["drifted"]:
            self.n_drifted += 1
            entry["drifted"] += 1
            entry["first"] = entry["first"] or v["window"]["end"]
            entry["last"] = v["window"]["end"]
        return v

    def as_dict(self, work: Replay) -> dict[str, Any]:
        return {
            "events": work.counts.as_dict(),
            "dropped_after_idle": work.monitor.dropped_events,
            "verdicts": self.n,
            "drifted": self.n_drifted,
            "insufficient": sum(self.insufficient.values()),
            "series": [
                {"unit": u, "feature": f, "detector": d, "window": w}
                | ({"reference": part} if part else {})
                | entry
                for (u, f, d, w, part), entry in self.series.items()
            ],
        }

    def show(self, console: Console, work: Replay, out: Path | None) -> None:
        console.print(str(work.counts), highlight=False)
        if work.counts.late:
            console.print(
                "  late: behind the largest event time of their partition by more than "
                "allowed_lateness",
                highlight=False,
            )
        for place, error in work.refused[:3]:
            console.print(f"  refused {place}: {error}", highlight=False, markup=False)
        where = f", written to {out}" if out is not None else ""
        console.print(
            f"{self.n:,} verdicts{where}; {self.n_drifted:,} of drift, "
            f"{sum(self.insufficient.values()):,} not testable",
            highlight=False,
            markup=False,
        )
        for reason, count in self.insufficient.most_common(3):
            console.print(
                f"  not testable, {count:,} times: {reason}", highlight=False, markup=False
            )
        if not self.series:
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        # A name that is cut off could be another's: on a narrow terminal it goes on below.
        several = any(part for *_, part in self.series)
        for name in ("unit", "feature", "detector", "window", *["compared with"] * several):
            table.add_column(name, overflow="fold")
        for name in ("drifted", "tests", "smallest p"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("first drift", no_wrap=True)
        ranked = sorted(self.series.items(), key=lambda kv: (-kv[1]["drifted"], kv[0]))
        for (unit, feature, detector, window, part), entry in ranked[:40]:
            p = "" if entry["p"] is None else f"{entry['p']:.2g}"
            table.add_row(
                *map(Text, (unit, feature, detector, window, *[part or FITTED] * several)),
                f"{entry['drifted']:,}",
                f"{entry['tests']:,}",
                p,
                (entry["first"] or "")[:16].replace("T", " "),
                style="red" if entry["drifted"] else None,
            )
        # A file or a pipe has no width.
        if not console.is_terminal:
            console.width = _WIDEST
        console.print(table)
        if len(ranked) > 40:
            console.print(f"… and {len(ranked) - 40} more; --json has all", highlight=False)
