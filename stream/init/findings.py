"""What `driftline init` found out about a topic, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .fields import FeatureFinding, Keys, Mapped
from .format import Format
from .time import Disorder, Lag, Suggestion


@dataclass(frozen=True, slots=True)
class ModelFinding:
    """One value of the `model` field (None: the events do not say), and its features."""

    name: str | None
    events: int
    features: tuple[FeatureFinding, ...]


@dataclass(frozen=True, slots=True)
class KeyFinding:
    """Message keys. share: of the messages with one. same_as: the path whose value the key is.

    split: keys seen on more than one partition (a partitioner that does not go by the key, or a
    topic that was given more partitions later).
    """

    share: float
    distinct: int
    same_as: Keys | None
    split: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What `look` found. kafka: client properties, secrets replaced by ${VARIABLES}.

    sampled, total: messages looked at, and in the topic. not_json: sampled messages that are no
    JSON object. times and later fields are None or empty where the format is not supported or the
    event time not found. segments: key of the segment → number of values seen.
    """

    topic: str
    kafka: Mapping[str, str | int | float | bool]
    partitions: int
    total: int
    sampled: int
    tombstones: int
    format: Format
    not_json: int
    keys: KeyFinding
    log_append_time: bool
    mapped: Mapped | None = None
    models: tuple[ModelFinding, ...] = ()
    segments: tuple[tuple[str, int], ...] = ()
    lag: Lag | None = None
    disorder: tuple[tuple[int, Disorder], ...] = ()
    rate_per_s: float | None = None
    suggestion: Suggestion | None = None
