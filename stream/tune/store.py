"""Kept panes: what one pass over events leaves on disk, so that no later run reads them again.

    <directory>/<key>/<pane>/panes.bin     deltas as ingest writes them, one behind the other
                             index.json    where each begins, what slices it has parts of, counts

The key is a digest of everything that the panes follow from but their length: the events, the
profiles, how events are read, and how late they may be. Parts of a pane may lie in several deltas,
as on the panes topic; they are added up when they are read, in order of time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from ...detectors.panes import OpenPane, Pane
from ...detectors.profile import Profile
from ...schemas.errors import DriftlineError, EventError
from ...schemas.pane import Delta
from ..accounting import Counts
from ..config.document import Config, ModelConfig
from ..deltas import to_panes
from ..profiles import Reference
from ..sources import Batch
from ..summarise import summarisers
from .source import Source

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """One delta: its place in the file, its unit, the first and the last slice it has parts of."""

    at: int
    size: int
    unit: str
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Kept:
    """The panes of one pass.

    pane_ms: their length. counts: what became of the events. largest_ms: the largest event time.
    refused: the first reasons. n_bytes: on disk.
    """

    directory: Path
    pane_ms: int
    counts: Mapping[str, int]
    largest_ms: int | None
    refused: tuple[str, ...]
    chunks: tuple[Chunk, ...]

    @property
    def n_bytes(self) -> int:
        return sum(c.size for c in self.chunks)

    def panes(
        self, unit: str, profile: Profile, from_ms: int | None = None, until_ms: int | None = None
    ) -> Iterator[Pane]:
        """The panes of a unit whose slices begin in [from, until), merged, in order of time."""
        chosen = sorted(
            (c.first_ms, c.at, c)
            for c in self.chunks
            if c.unit == unit
            and (from_ms is None or c.last_ms >= from_ms)
            and (until_ms is None or c.first_ms < until_ms)
        )
        open_: dict[int, OpenPane] = {}
        with (self.directory / "panes.bin").open("rb") as file:
            for i, (_, _, chunk) in enumerate(chosen):
                file.seek(chunk.at)
                for part in to_panes(Delta.decode(file.read(chunk.size)), profile):
                    start = part.start_ms
                    if (from_ms is not None and start < from_ms) or (
                        until_ms is not None and start >= until_ms
                    ):
                        continue
                    if start not in open_:
                        open_[start] = OpenPane(profile, start)
                    open_[start].add(part)
                # No later delta has parts of what begins before the next one's first slice.
                safe = chosen[i + 1][0] if i + 1 < len(chosen) else None
                for start in sorted(s for s in open_ if safe is None or s < safe):
                    yield open_.pop(start).close()


def key_of(source: Source, model: ModelConfig, reference: Reference) -> str:
    """What names the panes of a source, apart from their length."""
    content = {
        "format": FORMAT,
        "source": dict(source.identity),
        "model": model.name,
        "profiles": {key: profile.id for key, (_, profile) in sorted(reference.units.items())},
        "input": model.input.model_dump(mode="json"),
        "allowed_lateness_ms": model.allowed_lateness_ms,
        "segment_by": list(model.segment_by),
    }
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:32]


def find(directory: Path, key: str, pane_ms: int) -> Kept | None:
    """Panes kept before that can be merged to panes of `pane_ms`, the longest ones there are."""
    try:
        lengths = [int(p.name) for p in (directory / key).iterdir() if p.name.isdigit()]
    except OSError:
        return None
    for length in sorted((n for n in lengths if n and pane_ms % n == 0), reverse=True):
        found = _read(directory / key / str(length))
        if found is not None:
            return found
    return None


def _read(directory: Path) -> Kept | None:
    """None where it was interrupted or damaged: it is made anew then."""
    try:
        index = orjson.loads((directory / "index.json").read_bytes())
        chunks = tuple(Chunk(*entry) for entry in index["chunks"])
        kept = Kept(
            directory,
            int(index["pane_ms"]),
            index["counts"],
            index["largest_ms"],
            tuple(index["refused"]),
            chunks,
        )
        whole = index["format"] == FORMAT
        size = (directory / "panes.bin").stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if whole and size == kept.n_bytes else None


def keep(
    directory: Path,
    source: Source,
    config: Config,
    model: ModelConfig,
    reference: Reference,
    pane_ms: int,
    watch: Callable[[Batch], None] = lambda batch: None,
) -> Kept:
    """One pass over the events of a source; its panes, on disk.

    Args:
        directory: where kept panes live. watch: called with each batch that was read.

    Raises:
        DriftlineError: the directory cannot be written to, or the source holds no usable event.
    """
    key = key_of(source, model, reference)
    target = directory / key / str(pane_ms)
    finest = model.model_copy(update={"pane_ms": pane_ms})
    only = config.model_copy(update={"models": {model.name: finest}})
    counts = Counts()
    refused: list[str] = []
    chunks: list[Chunk] = []
    largest: dict[int, int | None] = {}
    summariser = summarisers(only, {model.name: reference})[source.topic]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
        try:
            with (scratch / "panes.bin").open("wb") as file:
                at = 0
                for batch in source.batches():
                    summary = summariser.summarise(batch.messages, largest)
                    largest |= summary.largest_ms
                    for own in summary.counts.values():
                        counts.add(own)
                    refused += [str(e) for _, e in summary.refused][: max(0, 5 - len(refused))]
                    for unit, delta in summary.deltas:
                        raw = delta.encode()
                        starts = delta.start_ms
                        first, last = int(starts.min()), int(starts.max())
                        chunks.append(Chunk(at, len(raw), unit, first, last))
                        file.write(raw)
                        at += len(raw)
                    watch(batch)
            if not chunks:
                hint = f"; the first refusal: {refused[0]}" if refused else ""
                raise DriftlineError(
                    f"{source.label} has no event of model {model.name!r} that could be "
                    f"summarised ({counts}){hint}"
                )
            times = [ms for ms in largest.values() if ms is not None]
            kept = Kept(
                target, pane_ms, counts.as_dict(), max(times), tuple(refused), tuple(chunks)
            )
            (scratch / "index.json").write_bytes(orjson.dumps(_index(kept, source)))
            shutil.rmtree(target, ignore_errors=True)
            os.replace(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise DriftlineError(
            f"{directory}: panes cannot be kept there ({error.strerror}); choose another place "
            "with --keep"
        ) from error
    except EventError as error:  # pragma: no cover - what was just made can be read
        raise DriftlineError(str(error)) from error
    return kept


def _index(kept: Kept, source: Source) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "source": dict(source.identity),
        "pane_ms": kept.pane_ms,
        "counts": dict(kept.counts),
        "largest_ms": kept.largest_ms,
        "refused": list(kept.refused),
        "chunks": [[c.at, c.size, c.unit, c.first_ms, c.last_ms] for c in kept.chunks],
    }
