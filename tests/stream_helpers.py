"""Logs of messages, references for them, and ways to read them: shared by the tests of the stream's
arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from driftline.detectors import Columns, summarize
from driftline.schemas.pane import Delta, PartitionProgress, Progress
from driftline.stream.config.document import Config, load
from driftline.stream.deltas import to_delta
from driftline.stream.fit import collect, fit_rows
from driftline.stream.monitor import Monitor
from driftline.stream.profiles import Reference
from driftline.stream.replay import Replay
from driftline.stream.sources import Batch
from driftline.stream.summarise import Messages
from driftline.stream.verdicts import Verdict

TOPIC = "inference"
# A whole day, so that panes and windows of any size are aligned to it.
T0 = 1_700_006_400_000
MINUTE = 60_000

BASE = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [2m]
features: {x: numeric}
allowed_lateness: 10s
min_events: 2
"""


def config_of(directory: Path, text: str = BASE, **overrides: Any) -> Config:
    path = directory / "driftline.yaml"
    path.write_text(text)
    return load(path, overrides=overrides)


def reference_of(config: Config, rows: Iterable[Mapping[str, Any]], model: str = "") -> Reference:
    """The reference of one model (the only one, or the one named) from events."""
    chosen = config.models[model] if model else next(iter(config.models.values()))
    return fit_rows(collect(chosen, [python_json(row) for row in rows]), {}).reference


def python_json(value: object) -> bytes:
    """As Python's json writes it: NaN and Infinity are literals."""
    return json.dumps(value, ensure_ascii=False).encode()


@dataclass
class Log:
    """Partitions of a topic: per partition its messages, in order."""

    partitions: list[list[bytes | None]]
    kafka_ms: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kafka_ms = self.kafka_ms or [[-1] * len(p) for p in self.partitions]

    @property
    def n(self) -> int:
        return sum(map(len, self.partitions))

    @staticmethod
    def dealt(values: Sequence[bytes | None], owner: Sequence[int], n_partitions: int) -> Log:
        log: list[list[bytes | None]] = [[] for _ in range(n_partitions)]
        for value, p in zip(values, owner, strict=True):
            log[p].append(value)
        return Log(log)


Order = Callable[[Log], list[int]]


def in_turn(log: Log) -> list[int]:
    """One message of each partition after the other, as long as there are any."""
    longest = max(map(len, log.partitions))
    return [p for i in range(longest) for p, of in enumerate(log.partitions) if i < len(of)]


def one_by_one(log: Log) -> list[int]:
    """Each partition to its end before the next."""
    return [p for p, of in enumerate(log.partitions) for _ in of]


def shuffled(rng: np.random.Generator) -> Order:
    return lambda log: rng.permutation(one_by_one(log)).tolist()


def batches(log: Log, order: Sequence[int], sizes: Iterator[int]) -> Iterator[Batch]:
    """The log read in an order (a partition per message), `sizes` messages at a time."""
    at = [0] * len(log.partitions)
    done = 0
    while True:
        taken = order[done : done + next(sizes)]
        values, offsets, stamps = [], [], []
        for p in taken:
            values.append(log.partitions[p][at[p]])
            stamps.append(log.kafka_ms[p][at[p]])
            offsets.append(at[p])
            at[p] += 1
        done += len(taken)
        ended = frozenset(p for p, of in enumerate(log.partitions) if at[p] == len(of))
        messages = Messages(values, np.array(taken, np.int64), np.array(stamps, np.int64))
        yield Batch(TOPIC, len(at), messages, offsets, ended, done, len(order))
        if done == len(order):
            return


def always(size: int) -> Iterator[int]:
    while True:
        yield size


def at_random(rng: np.random.Generator, largest: int) -> Iterator[int]:
    """Sizes from 0 to `largest`, small ones more often."""
    while True:
        yield int(largest ** rng.random()) - int(rng.random() < 0.1)


def replayed(
    config: Config,
    references: Mapping[str, Reference],
    log: Log,
    order: Order = in_turn,
    sizes: Iterator[int] | None = None,
) -> tuple[list[bytes], Replay]:
    """The verdicts of a replay as bytes, and the replay."""
    work = Replay(config, references)
    made = work.run(batches(log, order(log), sizes or always(5000)))
    return [verdict.value for verdict in made], work


def delta_of(
    reference: Reference,
    pane_ms: int,
    times: Sequence[int],
    values: Mapping[str, Sequence[Any]] | None = None,
    *,
    key: str = "",
    versions: Sequence[str | None] | str | None = None,
) -> Delta:
    """The delta that ingest makes of events at `times`; `x` counts up unless `values` are given."""
    segment, profile = reference.units[key or reference.model]
    given = values or {"x": [float(i % 50) for i in range(len(times))]}
    plain = Columns.of(profile, given)
    columns = Columns(plain.n, plain.numeric, plain.categorical, plain.nan, versions)
    starts = np.array(times, np.int64) // pane_ms * pane_ms
    return to_delta(reference.model, segment, profile, summarize(profile, columns, starts))


def progress_of(*partitions: int | tuple[int | None, str] | None, topic: str = TOPIC) -> Progress:
    """Where all partitions of a topic are: a time, or (time, "idle"); None before any event."""
    entries = []
    for number, entry in enumerate(partitions):
        ms, idle = entry if isinstance(entry, tuple) else (entry, "")
        entries.append(PartitionProgress(number, 0, ms, bool(idle)))
    return Progress(topic, len(partitions), entries)


@dataclass
class Feed:
    """Gives a monitor one message after the other, through the wire format."""

    monitor: Monitor
    offset: int = 0

    def delta(self, delta: Delta) -> None:
        self.monitor.delta(self.offset, Delta.decode(delta.encode()))
        self.offset += 1

    def progress(self, *partitions: int | tuple[int | None, str] | None) -> list[Verdict]:
        progress = Progress.decode(progress_of(*partitions).encode())
        made = list(self.monitor.progress(self.offset, progress))
        self.offset += 1
        return made


def shown(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    return [orjson.loads(v.value) for v in verdicts]


def seconds_after_t0(verdict: Mapping[str, Any]) -> tuple[int, int]:
    """A window's start and end, in seconds since `T0`."""
    from driftline.schemas.units import parse_time_ms

    window = verdict["window"]
    return tuple((parse_time_ms(window[edge]) - T0) // 1000 for edge in ("start", "end"))  # type: ignore[return-value]
