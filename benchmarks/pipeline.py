"""Benchmark (a): ingest + detect against the bare loop, over the same topic in the same run.

    python -m benchmarks.pipeline [--events 1000000] [--rounds 3] [--json FILE]

The bare loop is what any consumer pays before it does anything: `consumer.consume(n)` and
`orjson.loads` of each message. driftline runs one ingest process and one detect process over the
same messages: 20 numeric features, a reference of 10,000 rows, windows of 500, 2,000 and 10,000
events, a look every 500. Clocks run from the first message in hand to the last commit; starting
processes and joining consumer groups is not counted on either side. Rounds alternate.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

N_FEATURES = 20
N_REFERENCE = 10_000
BATCH = 50_000
PANE_EVENTS = 500
START_MS = 1_700_000_000_000

CONFIG = """
kafka: {{bootstrap.servers: "{servers}"}}
group: {prefix}
topics: {{prefix: {prefix}, partitions: 1}}
model: bench
input: {{topic: inference}}
reference: ./reference
pane: {pane}ms
windows: {windows}
features: {{{features}}}
detectors: {{numeric: [ks]}}
allowed_lateness: 1s
idle_after: 10m
"""


def configure(directory: Path, servers: str, prefix: str, windows: str) -> Path:
    features = ", ".join(f"f{i}: numeric" for i in range(N_FEATURES))
    path = directory / f"{prefix}.yaml"
    path.write_text(
        CONFIG.format(
            servers=servers, prefix=prefix, pane=PANE_EVENTS, windows=windows, features=features
        )
    )
    return path


def produce(servers: str, n: int) -> int:
    """Fill the topic: an event a millisecond. Returns the mean size of a message in bytes."""
    import numpy as np
    from confluent_kafka import Producer

    rng = np.random.default_rng(2)
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    pool = [
        b",".join(b'"f%d":%.6g' % (i, x) for i, x in enumerate(row))
        for row in rng.standard_normal((50_000, N_FEATURES))
    ]
    size = 0
    for i in range(n):
        value = b'{"id":"e%d","ts":%d,"features":{%s}}' % (i, START_MS + i, pool[i % len(pool)])
        size += len(value)
        while True:
            try:
                producer.produce("inference", value, partition=0)
                break
            except BufferError:
                producer.poll(0.1)
        if i % 1000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0
    return size // n


def bare(servers: str, n: int) -> dict[str, float]:
    import gc

    import orjson
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "bare",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 131_072,
            "fetch.message.max.bytes": 8_388_608,
        }
    )
    consumer.assign([TopicPartition("inference", 0, 0)])
    gc.freeze()
    seen, begun, cpu = 0, 0.0, 0.0
    while seen < n:
        messages = consumer.consume(BATCH, 0.25)
        if not begun and messages:
            begun, cpu = time.perf_counter(), time.process_time()
        for m in messages:
            orjson.loads(m.value())
        seen += len(messages)
    return {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}


def ingest(path: Path, n: int) -> dict[str, float]:
    """One ingest worker in this process until all `n` events are committed."""
    from driftline.stream.config.document import load
    from driftline.stream.ingest import Ingest
    from driftline.stream.reference.check import references

    config = load(path)
    clock: dict[str, float] = {}

    def stop() -> bool:
        return worker.totals.received >= n

    worker = Ingest(config, references(config), stop)
    publish = worker._publish

    def timed(messages: Any) -> None:
        if messages and "begun" not in clock:
            clock.update(begun=time.perf_counter(), cpu=time.process_time())
        publish(messages)
        clock.update(ended=time.perf_counter(), cpu_ended=time.process_time())

    worker._publish = timed  # type: ignore[method-assign]
    worker.run()
    return {
        "seconds": clock["ended"] - clock["begun"],
        "cpu": clock["cpu_ended"] - clock["cpu"],
        "ended_at": time.time(),
    }


def detect(path: Path, until_ms: int) -> dict[str, float]:
    """One detect worker in this process until it has closed every pane up to `until_ms`."""
    from driftline.stream.config.document import load
    from driftline.stream.detect import Detect
    from driftline.stream.reference.check import references

    config = load(path)
    clock: dict[str, float] = {}

    def stop() -> bool:
        part = worker.partitions.get(0)
        closed = part.monitor._closed.get("bench", 0) if part else 0
        return closed >= until_ms

    worker = Detect(config, references(config), stop)
    handle = worker._handle

    def timed(*args: Any) -> None:
        if not clock:
            clock.update(begun=time.perf_counter(), cpu=time.process_time())
        handle(*args)

    worker._handle = timed  # type: ignore[method-assign]
    worker.run()
    return {
        "seconds": time.perf_counter() - clock["begun"],
        "cpu": time.process_time() - clock["cpu"],
        "verdicts": worker.verdicts,
        "ended_at": time.time(),
    }


def _worker(*words: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pipeline", *words], stdout=subprocess.PIPE, env=env
    )


def _result(process: subprocess.Popen[bytes]) -> dict[str, float]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a worker failed with {process.returncode}")
    return json.loads(out.splitlines()[-1])


def run(n: int, rounds: int, windows: str) -> dict[str, Any]:
    import numpy as np
    import orjson
    from confluent_kafka.admin import (
        AdminClient,
        NewTopic,  # pyright: ignore[reportPrivateImportUsage]
    )

    from driftline.stream.broker.node import Broker

    with tempfile.TemporaryDirectory() as name, Broker() as broker:
        directory, servers = Path(name), broker.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": servers})
        admin.create_topics([NewTopic("inference", 1, 1)])["inference"].result()
        size = produce(servers, n)
        rng = np.random.default_rng(1)
        rows = rng.standard_normal((N_REFERENCE, N_FEATURES))
        with open(directory / "reference.jsonl", "wb") as file:
            for row in rows:
                event = {"features": {f"f{i}": float(x) for i, x in enumerate(row)}}
                file.write(orjson.dumps(event) + b"\n")
        first = configure(directory, servers, "round0", windows)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "driftline.stream.cli",
                "fit",
                "--config",
                str(first),
                "--input",
                str(directory / "reference.jsonl"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        # The last panes that the stream's end lets close.
        until = (START_MS + n - 1 - 1000) // PANE_EVENTS * PANE_EVENTS
        found: list[dict[str, Any]] = []
        for k in range(rounds):
            plain = _result(_worker("bare", servers, str(n)))
            path = configure(directory, servers, f"round{k}", windows)
            # ingest alone, then with detect beside it
            alone = configure(directory, servers, f"alone{k}", windows)
            by_itself = _result(_worker("ingest", str(alone), str(n)))
            begun = time.time()
            second = _worker("detect", str(path), str(until))
            one = _result(_worker("ingest", str(path), str(n)))
            two = _result(second)
            begun = one["ended_at"] - one["seconds"]
            both = max(one["ended_at"], two["ended_at"]) - begun
            found.append(
                {
                    "bare": n / plain["seconds"],
                    "bare_cpu": n / plain["cpu"],
                    "ingest": n / by_itself["seconds"],
                    "ingest_cpu": n / by_itself["cpu"],
                    "both": n / both,
                    "detect_cpu": n / two["cpu"],
                    "verdicts": two["verdicts"],
                    "ingest_of_bare": plain["seconds"] / by_itself["seconds"],
                    "both_of_bare": plain["seconds"] / both,
                }
            )
    return {"events": n, "bytes_per_event": size, "windows": windows, "rounds": found}


def show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    rounds = result["rounds"]

    def line(pick: Callable[[dict[str, Any]], float], form: str) -> list[str]:
        values = [pick(r) for r in rounds]
        return [form.format(v) for v in (min(values), statistics.median(values), max(values))]

    table = Table(
        title=f"{result['events']:,} events of {result['bytes_per_event']} bytes, {N_FEATURES} "
        f"numeric features, reference {N_REFERENCE:,}, windows {result['windows']}, a look every "
        f"{PANE_EVENTS} events"
    )
    for column in ("", "min", "median", "max"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("bare loop, events/s", *line(lambda r: r["bare"], "{:,.0f}"))
    table.add_row("ingest, events/s", *line(lambda r: r["ingest"], "{:,.0f}"))
    table.add_row("ingest + detect, events/s", *line(lambda r: r["both"], "{:,.0f}"))
    table.add_row("ingest / bare", *line(lambda r: r["ingest_of_bare"], "{:.2f}"))
    table.add_row("(ingest + detect) / bare", *line(lambda r: r["both_of_bare"], "{:.2f}"))
    table.add_row("events per CPU second, bare", *line(lambda r: r["bare_cpu"], "{:,.0f}"))
    table.add_row("… ingest", *line(lambda r: r["ingest_cpu"], "{:,.0f}"))
    table.add_row("… detect", *line(lambda r: r["detect_cpu"], "{:,.0f}"))
    table.add_row("verdicts", *line(lambda r: r["verdicts"], "{:,.0f}"))
    Console().print(table)


def main() -> None:
    workers: dict[str, Callable[..., dict[str, float]]] = {
        "bare": lambda servers, n: bare(servers, int(n)),
        "ingest": lambda path, n: ingest(Path(path), int(n)),
        "detect": lambda path, until: detect(Path(path), int(until)),
    }
    if len(sys.argv) > 1 and sys.argv[1] in workers:
        print(json.dumps(workers[sys.argv[1]](*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", default="[500 events, 2000 events, 10000 events]")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    result = run(given.events, given.rounds, given.windows)
    show(result)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
