"""Bounded sources of events: a range of a topic, or a file. For `fit`, `replay` and `init`."""

from __future__ import annotations

import csv
import gzip
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from confluent_kafka import KafkaError, TopicPartition

from ..schemas.errors import DriftlineError, TopicError
from ..schemas.units import iso_ms
from .clients import consumer, partition_count
from .config.document import Config
from .ingest import raise_unless_passing
from .summarise import Messages

BATCH = 20_000
# What an event carries beside its features.
_HEAD = ("id", "ts", "model", "version", "prediction", "score", "latency_ms", "error", "segment")
# Of these, what is text in an event though a table may have numbers there.
_TEXTS = ("id", "model")


@dataclass(frozen=True, slots=True)
class Batch:
    """Some events of a source.

    offsets: one per message. ended: partitions that have no more. done, total: how far the source
    has been read, in messages.
    """

    topic: str
    n_partitions: int
    messages: Messages
    offsets: Sequence[int]
    ended: frozenset[int]
    done: int
    total: int


def topic_bounds(
    config: Config, topic: str, *, since_ms: int | None = None, until_ms: int | None = None
) -> dict[int, tuple[int, int]]:
    """Partition → [start, end) of the offsets whose Kafka timestamps lie in [since, until), up to
    what the topic holds now.

    Raises:
        TopicError: the topic does not exist, or the range is empty of messages.
    """
    reader = consumer(config)
    try:
        bounds: dict[int, tuple[int, int]] = {}
        for p in range(partition_count(config, topic)):
            low, high = reader.get_watermark_offsets(TopicPartition(topic, p), timeout=15)
            start = _offset_at(reader, topic, p, since_ms, low, high)
            end = _offset_at(reader, topic, p, until_ms, high, high)
            bounds[p] = (start, end)
    finally:
        reader.close()
    if sum(max(0, end - start) for start, end in bounds.values()) == 0:
        said = "".join(
            f" {word} {iso_ms(ms)}"
            for word, ms in (("since", since_ms), ("until", until_ms))
            if ms is not None
        )
        if said:
            said += " (Kafka's timestamps, not the events' own)"
        raise TopicError(f"topic {topic!r} holds no messages{said}; nothing to read")
    return bounds


def topic_range(
    config: Config, topic: str, *, since_ms: int | None = None, until_ms: int | None = None
) -> Iterator[Batch]:
    """The messages of a topic whose Kafka timestamps lie in [since, until), committed ones only,
    up to what the topic holds now. No consumer group.

    Raises:
        TopicError: the topic does not exist, or the range is empty of messages.
    """
    yield from read_bounds(
        config, topic, topic_bounds(config, topic, since_ms=since_ms, until_ms=until_ms)
    )


def read_bounds(
    config: Config, topic: str, bounds: Mapping[int, tuple[int, int]]
) -> Iterator[Batch]:
    """The messages of a topic between offsets, as `topic_bounds` found them."""
    n = len(bounds)
    total = sum(max(0, end - start) for start, end in bounds.values())
    reader = consumer(config, own={"enable.partition.eof": True})
    try:
        ended = {p for p, (start, end) in bounds.items() if start >= end}
        reader.assign([TopicPartition(topic, p, s) for p, (s, _) in bounds.items()])
        reader.pause([TopicPartition(topic, p) for p in ended])
        position = {p: start for p, (start, _) in bounds.items()}
        while len(ended) < n:
            kept = []
            for m in reader.consume(BATCH, 0.5):
                p = m.partition() or 0
                error = m.error()
                if error is not None:
                    # Transaction markers and gaps may leave nothing to deliver before the end.
                    if error.code() == KafkaError._PARTITION_EOF:
                        position[p] = max(position[p], m.offset() or 0)
                    else:
                        raise_unless_passing(error)
                elif (m.offset() or 0) < bounds[p][1]:
                    kept.append(m)
                    position[p] = (m.offset() or 0) + 1
                else:
                    position[p] = bounds[p][1]
            new = {p for p in range(n) if p not in ended and position[p] >= bounds[p][1]}
            if new:
                ended |= new
                reader.pause([TopicPartition(topic, p) for p in new])
            done = sum(min(position[p], bounds[p][1]) - bounds[p][0] for p in range(n))
            stamps = [m.timestamp() for m in kept]
            messages = Messages(
                [m.value() for m in kept],
                np.array([m.partition() for m in kept], np.int64),
                np.array([ms if kind else -1 for kind, ms in stamps], np.int64),
            )
            yield Batch(
                topic, n, messages, [m.offset() or 0 for m in kept], frozenset(ended), done, total
            )
    finally:
        reader.close()


def _offset_at(
    reader: Any, topic: str, partition: int, ms: int | None, default: int, high: int
) -> int:
    if ms is None:
        return default
    [found] = reader.offsets_for_times([TopicPartition(topic, partition, max(0, ms))], timeout=15)
    return high if found.offset < 0 else found.offset


def file_rows(path: Path) -> Iterator[bytes]:
    """The events of a file as JSON texts, one per line or row.

    JSON lines come as they are. Rows of CSV and Parquet become events: columns named like the
    fields of an event are those fields, the others are features; a column `features` (nested)
    stands for all of them. `.gz` is unpacked.

    Raises:
        DriftlineError: the file cannot be read, or its kind is not known.
    """
    kinds: dict[str, Callable[[Path], Iterator[bytes]]] = {
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".json": _json_lines,
        ".csv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    read = kinds.get(suffixes[-1] if suffixes else "")
    if read is None:
        raise DriftlineError(
            f"{path}: a file of events is one of {', '.join(kinds)} (also with .gz); rename it"
        )
    try:
        yield from read(path)
    except FileNotFoundError:
        raise DriftlineError(f"{path}: there is no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DriftlineError(f"{path}: cannot be read ({error})") from error


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")


def _json_lines(path: Path) -> Iterator[bytes]:
    with _open(path) as file:
        for line in file:
            text = line.strip()
            if text:
                yield text


def _csv_rows(path: Path) -> Iterator[bytes]:
    with _open(path) as raw:
        text = (line.decode("utf-8-sig" if i == 0 else "utf-8") for i, line in enumerate(raw))
        try:
            rows = list(csv.DictReader(text))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DriftlineError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    columns = list(rows[0]) if rows else []
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise DriftlineError(
                f"{path}: row {number} has another number of values than the {len(columns)} columns"
            )
    # CSV has no types: a column is numeric, or boolean, when all that is in it is.
    convert = {
        name: _text if name in _TEXTS else _converter([row[name] for row in rows])
        for name in columns
    }
    for number, row in enumerate(rows, 1):
        yield _event({name: convert[name](row[name]) for name in columns}, number)


def _text(value: str) -> str | None:
    return value or None


def _converter(values: Sequence[str]) -> Callable[[str], Any]:
    present = [v for v in values if v != ""]
    if present and all(v.lower() in ("true", "false") for v in present):
        return lambda v: None if v == "" else v.lower() == "true"
    try:
        for v in present:
            float(v)
    except ValueError:
        return _text
    return lambda v: None if v == "" else _number(v)


def _number(text: str) -> int | float | None:
    try:
        whole = int(text)
        # What JSON writers can write as a whole number.
        if -(2**63) <= whole < 2**64:
            return whole
    except ValueError:
        pass
    value = float(text)
    # pandas writes a missing number as nan when told to, and JSON has no word for it.
    return value if math.isfinite(value) else None


def _parquet_rows(path: Path) -> Iterator[bytes]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise DriftlineError(
            f"{path}: reading Parquet needs pyarrow; pip install 'driftline[parquet]'"
        ) from None
    try:
        file = parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=BATCH):
            for row in batch.to_pylist():
                number += 1
                yield _event(row, number)
    except pyarrow.ArrowException as error:
        raise DriftlineError(f"{path}: not a Parquet file ({error})") from error


def _event(row: Mapping[str, Any], number: int) -> bytes:
    event = dict(row)
    if "features" not in event:
        event = {name: event.pop(name) for name in _HEAD if name in event} | {"features": event}
    event.setdefault("id", f"row-{number}")
    for name in _TEXTS:
        if isinstance(event.get(name), int | float):
            event[name] = str(event[name])
    return orjson.dumps(event, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC)


def file_batches(path: Path, topic: str) -> Iterator[Batch]:
    """A file as a topic of one partition.

    Nothing in a file has a Kafka timestamp; the file's own stands in for it, so that one wild
    event time cannot make all others late.
    """
    written_ms = int(os.stat(path).st_mtime * 1000) if path.exists() else -1
    size = max(1, os.stat(path).st_size if path.exists() else 1)
    values: list[bytes] = []
    done = 0
    pending: Batch | None = None
    read_bytes = 0

    def batch(last: bool) -> Batch:
        n = len(values)
        messages = Messages(list(values), np.zeros(n, np.int64), np.full(n, written_ms, np.int64))
        ended = frozenset({0} if last else ())
        # How many rows there are shows only at the end: guess from the bytes so far.
        total = done if last else max(done, int(done * size / max(1, min(read_bytes, size))))
        return Batch(topic, 1, messages, range(done - n, done), ended, done, total)

    for value in file_rows(path):
        values.append(value)
        done += 1
        read_bytes += len(value) + 1
        if len(values) >= BATCH:
            if pending is not None:
                yield pending
            pending = batch(last=False)
            values.clear()
    if pending is not None:
        yield pending
    yield batch(last=True)
