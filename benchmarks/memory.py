"""Benchmark (d): resident memory over millions of events.

    python -m benchmarks.memory [--events 5000000] [--json FILE]

One process runs what ingest and detect run, from the bytes of messages to the bytes of verdicts, over
a stream that invites growth: categories that never come back, a segment value that the reference
never had in every tenth event, a partition that falls silent half-way, late and broken messages.
Resident memory is read twenty times; `growth` is the slope of a straight line through the second
half of the readings, in bytes per event.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from driftline.stream.config.document import load
from driftline.stream.fit import collect, fit_rows
from driftline.stream.replay import Replay
from driftline.stream.sources import Batch
from driftline.stream.summarise import Messages

START_MS = 1_700_000_000_000
BATCH = 10_000
PARTITIONS = 3
N_NUMERIC = 6

CONFIG = """
kafka: {bootstrap.servers: localhost:9092}
model: bench
input: {topic: inference}
reference: ./reference
pane: 1s
windows: [10s, 1m, 2000 events]
segment_by: [country]
features: {f0: numeric, f1: numeric, f2: numeric, f3: numeric, f4: numeric, f5: numeric, c: categorical}
allowed_lateness: 2s
idle_after: 10s
"""


def event(row: Any, i: int, ms: int, category: str, country: str) -> bytes:
    numbers = b",".join(b'"f%d":%.6g' % (j, x) for j, x in enumerate(row))
    return b'{"id":"e%d","ts":%d,"features":{%s,"c":"%s"},"segment":{"country":"%s"}}' % (
        i,
        ms,
        numbers,
        category.encode(),
        country.encode(),
    )


def batches(n: int) -> Iterator[Batch]:
    """`n` events, one a millisecond; the last partition is silent from the middle on."""
    rng = np.random.default_rng(3)
    offsets = [0] * PARTITIONS
    pool = rng.standard_normal((50_000, N_NUMERIC))
    for first in range(0, n, BATCH):
        numbers = range(first, min(n, first + BATCH))
        spread = PARTITIONS if first < n // 2 else PARTITIONS - 1
        values: list[bytes | None] = []
        for i in numbers:
            late = 60_000 if i % 1000 == 999 else int(i % 7)
            category = f"new{i}" if i % 5 == 0 else f"c{i % 20}"
            country = f"x{i}" if i % 10 == 0 else ("ES" if i % 2 else "FR")
            body = event(pool[i % len(pool)], i, START_MS + i - late, category, country)
            values.append(b"{broken" if i % 500 == 499 else body)
        partitions = np.array([i % spread for i in numbers], np.int64)
        at = []
        for p in partitions.tolist():
            at.append(offsets[p])
            offsets[p] += 1
        stamps = np.full(len(values), -1, np.int64)
        # As a live run would say of a partition that stopped: it holds nobody back any more.
        ended = frozenset[int]() if spread == PARTITIONS else frozenset({PARTITIONS - 1})
        yield Batch(
            "inference", PARTITIONS, Messages(values, partitions, stamps), at, ended, first, n
        )


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def run(n: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "driftline.yaml"
        path.write_text(CONFIG)
        config = load(path)
        rng = np.random.default_rng(1)
        rows = [
            event(row, i, START_MS, f"c{i % 20}", "ES" if i % 2 else "FR")
            for i, row in enumerate(rng.standard_normal((5_000, N_NUMERIC)))
        ]
        fitted = fit_rows(collect(config.models["bench"], rows), {"kind": "benchmark"})
        work = Replay(config, {"bench": fitted.reference})
        every = max(1, n // 20 // BATCH) * BATCH
        readings: list[tuple[int, int]] = []

        def read() -> Iterator[Batch]:
            for batch in batches(n):
                if batch.done and batch.done % every == 0:
                    gc.collect()
                    readings.append((batch.done, resident_bytes()))
                yield batch

        begun = time.process_time()
        verdicts = sum(1 for _ in work.run(read()))
        gc.collect()
        readings.append((n, resident_bytes()))
        late_half = np.array(readings[len(readings) // 2 :], np.float64)
        return {
            "events": n,
            "verdicts": verdicts,
            "cpu_s": time.process_time() - begun,
            "counts": work.counts.as_dict(),
            "resident": readings,
            "growth": float(np.polyfit(late_half[:, 0], late_half[:, 1], 1)[0]),
        }


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    result = run(given.events)
    table = Table(title=f"{result['events']:,} events, {result['verdicts']:,} verdicts")
    table.add_column("events", justify="right")
    table.add_column("resident, MiB", justify="right")
    for events, size in result["resident"]:
        table.add_row(f"{events:,}", f"{size / 2**20:.1f}")
    Console().print(table)
    print(f"growth over the second half: {result['growth']:.4f} bytes per event")
    if given.json:
        given.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
