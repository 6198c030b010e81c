"""Benchmark (e): what trying hundreds of configurations costs, against one replay of the events.

    python -m benchmarks.tuning [--events 1000000] [--rounds 1] [--work FOLDER] [--json FILE]

A file of events with 20 numeric features, 500 a minute, is replayed once with the configuration it
has (windows of 5m, 1h and 2,000 events; verdicts are made and counted, as `driftline replay` does),
then tuned with 200 configurations: once reading the events, and once more over the panes that the
first run kept. Each side is a process of its own with one thread; the cost is its processor time,
its start included. Rounds alternate.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .common import WORKER_ENVIRONMENT

N_FEATURES = 20
N_REFERENCE = 10_000
PER_MINUTE = 500
START_MS = 1_700_006_400_000

CONFIG = """\
kafka: {{bootstrap.servers: localhost:9092}}
model: bench
input: {{topic: inference}}
reference: ./reference
pane: 1m
windows: [5m, 1h, 2000 events]
features: {{{features}}}
alpha: 0.001
allowed_lateness: 1s
retention: 1d
"""
# 2 panes × 5 window sets × 2 detector sets × 10 levels = 200.
OPTIONS = {
    "--panes": ["1m", "5m"],
    "--windows": ["5m,1h,2000 events", "5m", "15m", "1h", "2000 events"],
    "--detectors": ["ks,missing_rate", "ks"],
    "--budgets": [
        *("0.1", "0.03", "0.01", "0.003", "0.001", "0.0001", "0.00001"),
        *("1 per 1h", "1 per 1d", "1 per 100000 events"),
    ],
}


def make(directory: Path, n: int) -> int:
    """Configuration, reference and events; returns the size of the events in bytes."""
    import numpy as np

    rng = np.random.default_rng(4)
    names = [f"f{i:02d}" for i in range(N_FEATURES)]
    features = ", ".join(f"{name}: numeric" for name in names)
    (directory / "driftline.yaml").write_text(CONFIG.format(features=features))

    def write(path: Path, n: int, step_ms: float) -> None:
        with path.open("wb") as file:
            for start in range(0, n, 50_000):
                block = rng.standard_normal((min(50_000, n - start), N_FEATURES))
                for i, row in enumerate(block.tolist(), start):
                    own = ",".join(f'"{k}":{x:.6g}' for k, x in zip(names, row, strict=True))
                    ts = START_MS + int(i * step_ms)
                    file.write(f'{{"id":"e{i}","ts":{ts},"features":{{{own}}}}}\n'.encode())

    write(directory / "reference.jsonl", N_REFERENCE, 60_000 / PER_MINUTE)
    write(directory / "events.jsonl", n, 60_000 / PER_MINUTE)
    return (directory / "events.jsonl").stat().st_size


def command(directory: Path, *arguments: str) -> dict[str, float]:
    """Seconds on the clock and of processor time of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "driftline.stream.cli", *arguments],
        cwd=directory, env={**os.environ, **WORKER_ENVIRONMENT}, check=True,
        stdout=(directory / "out").open("wb"),
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{arguments[0]}: {cpu:.1f} s of processor time", file=sys.stderr, flush=True)
    return {"wall_s": time.perf_counter() - begun, "cpu_s": cpu}


def run(n: int, rounds: int, work: Path | None) -> dict[str, Any]:
    options = [word for name, values in OPTIONS.items() for v in values for word in (name, v)]
    found: dict[str, list[dict[str, float]]] = {"replay": [], "tune": [], "tune again": []}
    with tempfile.TemporaryDirectory(prefix="driftline-tuning-") as place:
        directory = work or Path(place)
        if not (directory / "events.jsonl").exists():
            make(directory, n)
        size = (directory / "events.jsonl").stat().st_size
        command(directory, "fit", "--input", "reference.jsonl")
        for _ in range(rounds):
            found["replay"].append(
                command(directory, "replay", "--input", "events.jsonl", "--json")
            )
            tune = ("tune", "--input", "events.jsonl", "--json", *options)
            found["tune"].append(command(directory, *tune, "--fresh"))
            first = (directory / "out").read_bytes()
            found["tune again"].append(command(directory, *tune))
            again = (directory / "out").read_bytes()
            if first != again:
                raise SystemExit("the second run printed other bytes than the first")
        tried = len(json.loads(first)["candidates"])
        kept = sum(p.stat().st_size for p in directory.glob(".driftline/panes/*/*/panes.bin"))
    return {
        "events": n,
        "bytes": size,
        "kept_bytes": kept,
        "configurations": tried,
        "figures": found,
        "ratio": {
            name: [
                a["cpu_s"] / b["cpu_s"] for a, b in zip(found[name], found["replay"], strict=True)
            ]
            for name in ("tune", "tune again")
        },
    }


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, help="a folder to leave the events in, or with them")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    found = run(given.events, given.rounds, given.work)
    table = Table(
        title=f"{found['configurations']} configurations over {found['events']:,} events of "
        f"{N_FEATURES} features; panes kept: {found['kept_bytes'] / found['bytes']:.2f} of the events"
    )
    for column in ("", "processor s", "wall s", "× replay"):
        table.add_column(column, justify="left" if not column else "right")
    for name, figures in found["figures"].items():
        cpu = statistics.median(f["cpu_s"] for f in figures)
        wall = statistics.median(f["wall_s"] for f in figures)
        ratio = statistics.median(found["ratio"].get(name, [1.0]))
        table.add_row(name, f"{cpu:.1f}", f"{wall:.1f}", f"{ratio:.2f}")
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
