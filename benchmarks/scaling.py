"""Benchmark (c): what a look costs against window size, number of features and reference size.

    python -m benchmarks.scaling [--rounds 5] [--json FILE]

One thing is varied, the others stay at 20 numeric features, a reference of 10,000 rows, a window of
2,000 events, a look every 100 events. Both sides of a ratio, the varied and the unvaried job, take
turns in one process with one thread; a cost is processor time from the events' columns to the KS
statistics and p-values. A round is 100 looks; the table gives the middle ratio and the extremes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from driftline.detectors import Columns, WindowBank, detectors, fit, summarize
from driftline.schemas.units import parse_window

HOP = 100
LOOKS = 100
RETENTION_MS = 3_600_000


@dataclass(frozen=True)
class Shape:
    window: int = 2_000
    features: int = 20
    reference: int = 10_000


VARIED: dict[str, list[Shape]] = {
    "window": [Shape(window=n) for n in (500, 2_000, 10_000, 50_000)],
    "features": [Shape(features=n) for n in (5, 20, 80)],
    "reference": [Shape(reference=n) for n in (1_000, 10_000, 100_000)],
}


def job(shape: Shape) -> Callable[[], float]:
    """A stream in its stride; each call makes `LOOKS` more looks and returns seconds per look."""
    rng = np.random.default_rng(5)
    names = [f"f{i:02d}" for i in range(shape.features)]
    reference = rng.standard_normal((shape.features, shape.reference))
    profile, _ = fit(dict(zip(names, reference, strict=True)), dict.fromkeys(names, "numeric"))
    bank = WindowBank(profile, [parse_window(f"{shape.window} events")], HOP, RETENTION_MS)
    ks, everything = detectors()["ks"], range(shape.features)
    at = 0

    def push(n: int, test: bool) -> float:
        nonlocal at
        stream = rng.standard_normal((shape.features, n * HOP))
        begun = time.process_time()
        for k in range(n):
            columns = Columns(HOP, np.ascontiguousarray(stream[:, k * HOP : (k + 1) * HOP]))
            starts = np.full(HOP, at, np.int64)
            at += HOP
            for pane in summarize(profile, columns, starts):
                due = bank.push(at, pane)
                if test:
                    ks.test(profile, due, everything)
        return (time.process_time() - begun) / n

    push(shape.window // HOP + 1, test=False)
    push(20, test=True)
    return lambda: push(LOOKS, test=True)


def run(rounds: int) -> dict[str, Any]:
    plain = job(Shape())
    found: dict[str, Any] = {}
    for name, shapes in VARIED.items():
        for shape in shapes:
            other = plain if shape == Shape() else job(shape)
            pairs = [(other(), plain()) for _ in range(rounds)]
            ratios = sorted(a / b for a, b in pairs)
            found[f"{name} {getattr(shape, name):,}"] = {
                "shape": vars(replace(shape)),
                "us_per_look": 1e6 * statistics.median(a for a, _ in pairs),
                "ratio": [ratios[0], statistics.median(ratios), ratios[-1]],
            }
    return found


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    found = run(given.rounds)
    table = Table(title="cost of a look, as a multiple of the one at the standard shape")
    for column in ("varied", "min", "median", "max"):
        table.add_column(column, justify="left" if column == "varied" else "right")
    for name, figures in found.items():
        table.add_row(name, *(f"{ratio:.2f}" for ratio in figures["ratio"]))
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
