"""Messages on the panes topic: what ingest tells detect.

Two kinds, told apart by the Kafka header `driftline_kind`:

    delta     parts of panes of one unit, key = the unit's key. Parts of one pane may come in any
              number of messages from any number of workers; their sum is the pane.
    progress  how far ingest has read its source partitions, sent to every panes partition after
              the deltas of the same transaction, so that a reader of one partition knows when
              no further part of a pane can come.

A delta is safetensors: named arrays and string metadata. Progress is JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from .errors import EventError

FORMAT: Final = "1"
KIND_HEADER: Final = "driftline_kind"
DELTA: Final = "delta"
PROGRESS: Final = "progress"

# Kafka brokers take messages of 1,048,588 bytes by default; headers and framing need some of it.
MAX_DELTA_BYTES: Final = 900_000
# Counts are added up in 32 bits.
_MAX_COUNT: Final = 2**31 - 1

Array = npt.NDArray[Any]
T = TypeVar("T", bound=tuple[Any, ...])


@dataclass(frozen=True, slots=True, eq=False)
class DeltaVectors:
    """The R vectors of one feature in the parts of a delta.

    feature: which. part: (R,) unsigned, the part each belongs to, ascending. times_ms: (R,) int64.
    ids: R. rows: (R, d) float32. texts: R, or none at all.
    """

    feature: int
    part: Array
    times_ms: Array
    ids: Sequence[str]
    rows: Array
    texts: Sequence[str] = ()

    def arrays(self) -> dict[str, Array]:
        """Named arrays, of which `of` makes the same again."""
        prefix = f"v{self.feature}."
        ids, id_lengths = _packed_text(self.ids)
        named = {
            "part": _smallest(self.part),
            "times_ms": self.times_ms.astype(np.int64, copy=False),
            "rows": self.rows.astype(np.float32, copy=False),
            "ids": ids,
            "id_lengths": id_lengths,
        }
        if self.texts:
            named["texts"], named["text_lengths"] = _packed_text(self.texts)
        return {prefix + name: array for name, array in named.items()}

    @staticmethod
    def of(feature: int, arrays: Mapping[str, Array]) -> DeltaVectors:
        """Raises KeyError, ValueError or TypeError where arrays are missing or do not fit."""
        part, times_ms, rows = arrays["part"], arrays["times_ms"], arrays["rows"]
        ids = _unpacked_text(arrays["ids"], arrays["id_lengths"])
        texts = _unpacked_text(arrays["texts"], arrays["text_lengths"]) if "texts" in arrays else []
        n = len(rows)
        if (
            rows.ndim != 2
            or rows.dtype != np.float32
            or part.shape != (n,)
            or part.dtype.kind != "u"
            or times_ms.shape != (n,)
            or times_ms.dtype != np.int64
            or len(ids) != n
            or len(texts) not in (0, n)
            or not bool(np.isfinite(rows).all())
            or not bool((part[1:] >= part[:-1]).all())
        ):
            raise ValueError(f"vectors of feature {feature} do not fit together")
        return DeltaVectors(feature, part, times_ms, ids, rows, texts)

    def slice(self, first: int, last: int, parts_before: int = 0) -> DeltaVectors:
        """Rows `first:last`; `parts_before` parts of the delta are left out in front."""
        return DeltaVectors(
            self.feature,
            self.part[first:last] - self.part.dtype.type(parts_before),
            self.times_ms[first:last],
            self.ids[first:last],
            self.rows[first:last],
            self.texts[first:last],
        )

    def sizes(self) -> Array:
        """(R,) bytes that each row takes at most."""
        texts = self.texts or [""] * len(self.ids)
        named = (len(i.encode()) + len(t.encode()) for i, t in zip(self.ids, texts, strict=True))
        own = np.fromiter(named, np.int64, len(self.ids))
        return own + (4 * self.rows.shape[1] + 24)


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """Parts of G panes of one unit with F features, F_numeric of them numeric.

    profile: id of the reference profile the cells are numbered by.
    start_ms, events: (G,) int64. lengths: (G, F) how many entries each feature has in each part.
    cells, counts: (E,) entries in order of part and feature; a cell is numbered within its feature.
    sums: (G, F_numeric, 3) int64. low, high: (G, F_numeric) float64.
    unseen: (part, feature, name, count) of sampled unseen categories.
    versions: (part, version, count) of sampled model versions.
    vectors: one entry per feature that has any.
    """

    model: str
    segment: Mapping[str, str]
    profile: str
    start_ms: Array
    events: Array
    lengths: Array
    cells: Array
    counts: Array
    sums: Array
    low: Array
    high: Array
    unseen: Sequence[tuple[int, int, str, int]] = ()
    versions: Sequence[tuple[int, str, int]] = ()
    vectors: Sequence[DeltaVectors] = ()

    def encode(self) -> bytes:
        arrays = {
            "start_ms": self.start_ms.astype(np.int64, copy=False),
            "events": self.events.astype(np.int64, copy=False),
            "lengths": _smallest(self.lengths),
            "cells": _smallest(self.cells),
            "counts": _smallest(self.counts),
            "sums": self.sums.astype(np.int64, copy=False),
            "low": self.low.astype(np.float64, copy=False),
            "high": self.high.astype(np.float64, copy=False),
        }
        for own in self.vectors:
            arrays |= own.arrays()
        metadata = {
            "format": FORMAT,
            "model": self.model,
            "segment": orjson.dumps(dict(self.segment)).decode(),
            "profile": self.profile,
        }
        if self.unseen:
            metadata["unseen"] = orjson.dumps(self.unseen).decode()
        if self.versions:
            metadata["versions"] = orjson.dumps(self.versions).decode()
        return save_arrays({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata)

    @staticmethod
    def decode(raw: bytes) -> Delta:
        """The inverse of `encode`.

        Raises:
            EventError: not a delta of this format, or one whose arrays do not fit together.
        """
        try:
            size = int.from_bytes(raw[:8], "little")
            metadata = orjson.loads(raw[8 : 8 + size])["__metadata__"]
            if metadata["format"] != FORMAT:
                raise EventError(
                    "bad_pane",
                    f"pane delta of format {metadata['format']!r}: this version reads {FORMAT}; "
                    "run one version of driftline for all stages",
                )
            arrays = load_arrays(raw)
            vectors = _vectors(arrays)
            delta = Delta(
                model=metadata["model"],
                segment=orjson.loads(metadata["segment"]),
                profile=metadata["profile"],
                unseen=[tuple(e) for e in orjson.loads(metadata.get("unseen", "[]"))],
                versions=[tuple(e) for e in orjson.loads(metadata.get("versions", "[]"))],
                vectors=vectors,
                **arrays,
            )
            fits = delta._fits()
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            SafetensorError,
        ) as error:
            raise EventError(
                "bad_pane",
                f"not a pane delta ({type(error).__name__}: {error}); only driftline's ingest may "
                "write to this topic",
            ) from error
        if not fits:
            raise EventError(
                "bad_pane",
                "pane delta whose arrays do not fit together: "
                + ", ".join(f"{k} {v.shape}" for k, v in sorted(arrays.items())),
            )
        return delta

    def _fits(self) -> bool:
        """Whether the arrays are such as `encode` writes, and fit together."""
        parts, entries, features = len(self.start_ms), len(self.cells), self.lengths.shape[-1]
        kinds = {
            "i8": (self.start_ms, self.events, self.sums),
            "f8": (self.low, self.high),
            "u": (self.lengths, self.cells, self.counts),
        }
        return (
            all(a.dtype.str[1:].startswith(kind) for kind, of in kinds.items() for a in of)
            and self.start_ms.shape == self.events.shape == (parts,)
            and self.lengths.shape == (parts, features)
            and self.cells.shape == self.counts.shape == (entries,)
            and self.low.shape == self.high.shape == (parts, self.low.shape[-1])
            and self.sums.shape == (*self.low.shape, 3)
            # One by one first: a sum could wrap around.
            and not bool((self.lengths > entries).any())
            and int(self.lengths.sum()) == entries
            and not bool((self.counts > _MAX_COUNT).any())
            and not bool((self.events < 0).any())
            and all(type(k) is type(v) is str for k, v in self.segment.items())
            and all(
                type(p) is type(f) is type(n) is int
                and type(name) is str
                and 0 <= p < parts
                and 0 <= f < features
                for p, f, name, n in self.unseen
            )
            and all(
                type(p) is type(n) is int and type(name) is str and 0 <= p < parts
                for p, name, n in self.versions
            )
            and all(v.feature < features and bool((v.part < parts).all()) for v in self.vectors)
        )

    def split(self, max_bytes: int = MAX_DELTA_BYTES) -> Iterator[Delta]:
        """The same as messages of at most `max_bytes`: a sum stays a sum however it is cut.

        Only the totals and extremes of a single part, 44 bytes a feature, are not cut further.
        """
        parts = len(self.start_ms)
        if self._largest_size() <= max_bytes:
            yield self
        elif parts > 1:
            yield from self._parts(0, parts // 2).split(max_bytes)
            yield from self._parts(parts // 2, parts).split(max_bytes)
        else:
            yield from self._pieces(max_bytes)

    def _largest_size(self) -> int:
        """Bytes that the encoding has at most."""
        labels = (self.model, self.profile, *self.segment.keys(), *self.segment.values())
        return (
            1024
            + 7 * sum(len(label.encode()) for label in labels)
            + _names_size(self.unseen)
            + _names_size(self.versions)
            + 16 * len(self.start_ms)
            + 4 * self.lengths.size
            + 8 * len(self.cells)
            + 8 * self.sums.size
            + 16 * self.low.size
            + sum(256 + int(v.sizes().sum()) for v in self.vectors)
        )

    def _parts(self, first: int, last: int) -> Delta:
        ends = self.lengths.sum(axis=1).cumsum()
        a = int(ends[first - 1]) if first else 0
        b = int(ends[last - 1])
        return Delta(
            self.model,
            self.segment,
            self.profile,
            self.start_ms[first:last],
            self.events[first:last],
            self.lengths[first:last],
            self.cells[a:b],
            self.counts[a:b],
            self.sums[first:last],
            self.low[first:last],
            self.high[first:last],
            [(p - first, f, n, c) for p, f, n, c in self.unseen if first <= p < last],
            [(p - first, n, c) for p, n, c in self.versions if first <= p < last],
            [
                v.slice(a, b, first)
                for v in self.vectors
                if (a := int(np.searchsorted(v.part, first)))
                < (b := int(np.searchsorted(v.part, last)))
            ],
        )

    def _pieces(self, max_bytes: int) -> Iterator[Delta]:
        """One part in pieces; the first has the totals."""
        n = len(self.cells)
        ends = self.lengths[0].astype(np.int64).cumsum()
        begins = ends - self.lengths[0]
        room = max(8, max_bytes - self._piece(0, 0, begins, ends)._largest_size())
        for at in range(0, max(1, n), room // 8):
            yield self._piece(at, min(at + room // 8, n), begins, ends, totals=at == 0)
        for names in _packed(self.unseen, room):
            yield self._piece(0, 0, begins, ends, unseen=names)
        for names in _packed(self.versions, room):
            yield self._piece(0, 0, begins, ends, versions=names)
        for own in self.vectors:
            ends_at = own.sizes().cumsum() // max(1, room - 256)
            edges = [0, *(np.flatnonzero(np.diff(ends_at)) + 1).tolist(), len(own.ids)]
            for a, b in pairwise(edges):
                yield self._piece(0, 0, begins, ends, vectors=[own.slice(a, b)])

    def _piece(
        self,
        first: int,
        last: int,
        begins: Array,
        ends: Array,
        *,
        totals: bool = False,
        unseen: Sequence[tuple[int, int, str, int]] = (),
        versions: Sequence[tuple[int, str, int]] = (),
        vectors: Sequence[DeltaVectors] = (),
    ) -> Delta:
        lengths = np.clip(ends, first, last) - np.clip(begins, first, last)
        return Delta(
            self.model,
            self.segment,
            self.profile,
            self.start_ms,
            self.events if totals else np.zeros_like(self.events),
            lengths[np.newaxis],
            self.cells[first:last],
            self.counts[first:last],
            self.sums if totals else np.zeros_like(self.sums),
            self.low,
            self.high,
            unseen,
            versions,
            vectors,
        )


def _names_size(names: Sequence[tuple[Any, ...]]) -> int:
    # Names stand in the metadata as JSON within JSON.
    return len(orjson.dumps(orjson.dumps(names).decode())) if names else 0


def _packed(names: Sequence[T], max_bytes: int) -> Iterator[list[T]]:
    """`names` in runs of at most `max_bytes`, or of one."""
    run: list[T] = []
    size = 0
    for name in names:
        own = _names_size([name])
        if run and size + own > max_bytes:
            yield run
            run, size = [], 0
        run.append(name)
        size += own
    if run:
        yield run


def _packed_text(texts: Sequence[str]) -> tuple[Array, Array]:
    """Their UTF-8 end to end, and the length of each."""
    encoded = [text.encode() for text in texts]
    lengths = np.fromiter(map(len, encoded), np.uint32, len(encoded))
    return np.frombuffer(b"".join(encoded), np.uint8), lengths


def _unpacked_text(packed: Array, lengths: Array) -> list[str]:
    raw, ends = packed.tobytes(), lengths.astype(np.int64).cumsum().tolist()
    if packed.dtype != np.uint8 or (ends[-1] if ends else 0) != len(raw):
        raise ValueError("texts that are not as long as they say")
    return [raw[a:b].decode() for a, b in pairwise([0, *ends])]


def _vectors(arrays: dict[str, Array]) -> list[DeltaVectors]:
    """The vectors among a delta's arrays, which are taken out of it."""
    named: dict[int, dict[str, Array]] = {}
    for name in [n for n in arrays if n.startswith("v")]:
        feature, _, what = name[1:].partition(".")
        named.setdefault(int(feature), {})[what] = arrays.pop(name)
    return [DeltaVectors.of(feature, own) for feature, own in sorted(named.items())]


def _smallest(values: Array) -> Array:
    """Whole numbers in the narrowest unsigned type that holds them."""
    largest = int(values.max()) if values.size else 0
    for dtype in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values.astype(np.uint64)


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """How far one source partition has been read.

    offset: the next one to be read. event_time_ms: the largest event time so far, None before the
    first event. idle: no event for `idle_after` and none waiting; it holds no pane open.
    counts: what became of the messages read in this transaction.
    """

    partition: int
    offset: int
    event_time_ms: int | None
    idle: bool = False
    counts: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of some partitions of one input topic, which has `n_partitions` in all.

    references: model → how many references ingest knows of it, of those that have several.
    """

    topic: str
    n_partitions: int
    partitions: Sequence[PartitionProgress]
    references: Mapping[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        said = {"references": dict(self.references)} if self.references else {}
        return orjson.dumps(
            {
                "format": FORMAT,
                "topic": self.topic,
                "n_partitions": self.n_partitions,
                "partitions": [
                    {
                        "partition": p.partition,
                        "offset": p.offset,
                        "event_time_ms": p.event_time_ms,
                        "idle": p.idle,
                        "counts": dict(p.counts or {}),
                    }
                    for p in self.partitions
                ],
                **said,
            }
        )

    @staticmethod
    def decode(raw: bytes) -> Progress:
        """Raises EventError for anything `encode` did not write."""
        try:
            data = orjson.loads(raw)
            if data["format"] != FORMAT:
                raise KeyError(f"format {data['format']!r}, this version reads {FORMAT}")
            return Progress(
                str(data["topic"]),
                int(data["n_partitions"]),
                [
                    PartitionProgress(
                        int(p["partition"]),
                        int(p["offset"]),
                        None if p["event_time_ms"] is None else int(p["event_time_ms"]),
                        bool(p["idle"]),
                        {str(k): int(v) for k, v in p["counts"].items()},
                    )
                    for p in data["partitions"]
                ],
                {str(k): int(v) for k, v in data.get("references", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise EventError(
                "bad_pane",
                f"not a progress message ({type(error).__name__}: {error}); only driftline's "
                "ingest may write to this topic",
            ) from error
