"""Every message is accounted for: received = summarised + late + dead-lettered + ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """What became of the messages of a source partition.

    received: read from the topic. summarised: in a pane. late: behind the watermark by more than
    `allowed_lateness`. dead_lettered: could not be used. ignored: of a model not configured here,
    on a topic that carries several.
    """

    received: int = 0
    summarised: int = 0
    late: int = 0
    dead_lettered: int = 0
    ignored: int = 0

    def add(self, other: Counts | Mapping[str, int]) -> None:
        values = other if isinstance(other, Mapping) else other.as_dict()
        for name, value in values.items():
            setattr(self, name, getattr(self, name) + value)

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def balanced(self) -> bool:
        rest = self.summarised + self.late + self.dead_lettered + self.ignored
        return self.received == rest

    def __str__(self) -> str:
        parts = [f"{self.received:,} events in", f"{self.summarised:,} summarised"]
        for name in ("late", "dead_lettered", "ignored"):
            if getattr(self, name):
                parts.append(f"{getattr(self, name):,} {name.replace('_', '-')}")
        return ", ".join(parts)
