"""How far event time has passed, of every input topic, from what ingest says of its partitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..schemas.pane import PartitionProgress, Progress


@dataclass(slots=True)
class _Topic:
    n_partitions: int
    partitions: dict[int, PartitionProgress]


class Watermarks:
    """Args:
    progress: topic → (n_partitions, {partition: progress}), where it goes on from.
    """

    def __init__(self, progress: Mapping[str, tuple[int, Mapping[int, PartitionProgress]]]) -> None:
        self._topics = {name: _Topic(n, dict(parts)) for name, (n, parts) in progress.items()}

    def take(self, progress: Progress) -> None:
        topic = self._topics.setdefault(progress.topic, _Topic(progress.n_partitions, {}))
        topic.n_partitions = max(topic.n_partitions, progress.n_partitions)
        for p in progress.partitions:
            before = topic.partitions.get(p.partition)
            known = p.event_time_ms
            # A worker that took over from a dead one may know less than was published.
            if before is not None and before.event_time_ms is not None:
                known = before.event_time_ms if known is None else max(known, before.event_time_ms)
            topic.partitions[p.partition] = PartitionProgress(p.partition, p.offset, known, p.idle)

    def now(self) -> dict[str, tuple[int, dict[int, PartitionProgress]]]:
        """What another one can go on from."""
        return {name: (t.n_partitions, dict(t.partitions)) for name, t in self._topics.items()}

    def passed(self, name: str) -> int | None:
        """The event time that every partition of a topic has reached, None for none.

        An idle partition holds nobody back. When all are idle, no event is waiting anywhere: what
        is open can be closed, so time has passed the last event of all.
        """
        topic = self._topics.get(name)
        if topic is None or len(topic.partitions) < topic.n_partitions:
            return None
        active = [p for p in topic.partitions.values() if not p.idle]
        if not active:
            times = [p.event_time_ms for p in topic.partitions.values()]
            return max((ms for ms in times if ms is not None), default=None)
        if any(p.event_time_ms is None for p in active):
            return None
        return min(p.event_time_ms for p in active if p.event_time_ms is not None)

    def all_idle(self, name: str) -> bool:
        topic = self._topics[name]
        return len(topic.partitions) >= topic.n_partitions and all(
            p.idle for p in topic.partitions.values()
        )

    def not_waited_for(self, name: str, needed_ms: int) -> list[str]:
        """Partitions, as `topic[3]`, that are idle and had not reached `needed_ms`."""
        return [
            f"{name}[{p.partition}]"
            for p in sorted(self._topics[name].partitions.values(), key=lambda p: p.partition)
            if p.idle and (p.event_time_ms is None or p.event_time_ms < needed_ms)
        ]
