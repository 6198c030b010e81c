"""Replay: the same code as the live stages over a bounded range, in one process.

Deltas go straight from summarising to the monitor, nothing is published, no consumer group is
touched. The verdicts are byte for byte those of a live run over the same offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..schemas.errors import EventError
from ..schemas.pane import PartitionProgress, Progress
from .accounting import Counts
from .config.document import Config
from .monitor import Monitor
from .profiles import Reference
from .sources import Batch
from .summarise import Summariser, summarisers
from .verdicts import Verdict


@dataclass
class Replay:
    """One pass over bounded sources.

    counts: what became of the events so far. refused: the first refusals with the place of each,
    `inference[0]@17`, for people.
    """

    config: Config
    references: Mapping[str, Reference]
    counts: Counts = field(default_factory=Counts)
    refused: list[tuple[str, EventError]] = field(default_factory=list)
    done: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        self._summarisers: dict[str, Summariser] = summarisers(self.config, self.references)
        self.monitor = Monitor(self.config, self.references)

    def run(self, batches: Iterable[Batch]) -> Iterator[Verdict]:
        """Yields verdicts in order of time, as the batches of one topic close panes."""
        largest: dict[int, int | None] = {}
        position: dict[int, int] = {}
        step = 0
        for batch in batches:
            summary = self._summarisers[batch.topic].summarise(batch.messages, largest)
            largest |= summary.largest_ms
            for partition, offset in zip(
                batch.messages.partitions.tolist(), batch.offsets, strict=True
            ):
                position[partition] = offset + 1
            for counts in summary.counts.values():
                self.counts.add(counts)
            partitions = batch.messages.partitions
            for i, error in summary.refused[: max(0, 20 - len(self.refused))]:
                place = f"{batch.topic}[{partitions[i]}]@{batch.offsets[i]}"
                self.refused.append((place, error))
            self.done, self.total = batch.done, batch.total
            for _, delta in summary.deltas:
                step += 1
                self.monitor.delta(step, delta)
            step += 1
            yield from self.monitor.progress(
                step,
                Progress(
                    batch.topic,
                    batch.n_partitions,
                    [
                        PartitionProgress(p, position.get(p, 0), largest.get(p), p in batch.ended)
                        for p in range(batch.n_partitions)
                    ],
                ),
            )
