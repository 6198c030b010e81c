"""What detect writes down of its state: all that reading the log again does not give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..schemas.pane import PartitionProgress
from ..schemas.verdict import parse_unit_key


def series_key(unit: str, number: int) -> str:
    """A unit under its model's reference number `number`, counted from 0: the unit's key, with the
    number behind it from the second on. Pairs of a segment have a `=`, so it cannot be one.

    >>> series_key("fraud|country=ES", 0), series_key("fraud|country=ES", 2)
    ('fraud|country=ES', 'fraud|country=ES|2')
    """
    return f"{unit}|{number}" if number else unit


def parse_series_key(key: str) -> tuple[str, int]:
    """(model, number) of a series.

    >>> parse_series_key("fraud|country=ES|2"), parse_series_key("7")
    (('fraud', 2), ('7', 0))
    """
    unit, bar, last = key.rpartition("|")
    if bar and "=" not in last:
        return parse_unit_key(unit)[0], int(last)
    return parse_unit_key(key)[0], 0


@dataclass(frozen=True, slots=True)
class Mark:
    """The monitor's state before the message at `offset`, as far as the log does not give it back.

    progress: topic → (n_partitions, {partition: progress}). closed: series → end of its last
    closed pane. seen: series → vector feature → events that its online test had taken when the
    mark was asked for, which is later than what the log is read again from. A series is a unit
    under one of its model's references, see `series_key`.
    """

    offset: int
    progress: Mapping[str, tuple[int, Mapping[int, PartitionProgress]]]
    closed: Mapping[str, int]
    seen: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "offset": self.offset,
            "progress": {
                topic: {
                    "n_partitions": n,
                    "partitions": [
                        [p.partition, p.offset, p.event_time_ms, p.idle]
                        for p in sorted(parts.values(), key=lambda p: p.partition)
                    ],
                }
                for topic, (n, parts) in sorted(self.progress.items())
            },
            "closed": dict(sorted(self.closed.items())),
            "seen": {key: dict(own) for key, own in sorted(self.seen.items())},
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Mark:
        return Mark(
            int(data["offset"]),
            {
                topic: (
                    int(entry["n_partitions"]),
                    {int(p[0]): PartitionProgress(*p) for p in entry["partitions"]},
                )
                for topic, entry in data["progress"].items()
            },
            {str(k): int(v) for k, v in data["closed"].items()},
            {str(k): {str(f): int(n) for f, n in own.items()} for k, own in data["seen"].items()},
        )


START = Mark(0, {}, {})
