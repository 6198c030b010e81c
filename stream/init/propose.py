"""`driftline init`: look at a topic, say what is there, propose a driftline.yaml.

    findings = look({"bootstrap.servers": "localhost:9092"}, "inference")
    show(findings, Console())
    write(findings, Path("driftline.yaml"))

Nothing on the bus changes: no consumer group is joined and no offset is committed. Neither the
findings nor the file hold values of the events, which may be personal; they hold names, kinds and
numbers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...schemas.inference import event_time_ms
from ..config.kafka import RESERVED, SECRET
from .fields import FeatureFinding, Keys, Mapped, features_of, leaves, map_fields
from .findings import Findings, KeyFinding, ModelFinding
from .format import Format, recognise
from .report import show, write
from .sample import Message, Sample, read_sample
from .time import (
    Disorder,
    Lag,
    Suggestion,
    Timed,
    disorder,
    lag,
    rate_per_s,
    suggest,
)

__all__ = [
    "Disorder",
    "FeatureFinding",
    "Findings",
    "Format",
    "KeyFinding",
    "Lag",
    "Mapped",
    "ModelFinding",
    "Suggestion",
    "examine",
    "look",
    "show",
    "write",
]

# More models than this on one topic would make a file nobody reads.
MAX_MODELS = 20


def look(consumer_config: Mapping[str, Any], topic: str, sample: int = 2000) -> Findings:
    """Read about `sample` messages of `topic` and say what they are.

    consumer_config: client properties, as in the `kafka` section or for a confluent-kafka consumer.

    Raises TopicError where the topic is not there or holds nothing, DriftlineError where no broker
    answers, ConfigError where librdkafka refuses a property.
    """
    return examine(read_sample(consumer_config, topic, sample), consumer_config)


def examine(sample: Sample, consumer_config: Mapping[str, Any]) -> Findings:
    """The findings of a sample; pure."""
    messages = sample.messages
    found, objects, sources = recognise(messages)
    tombstones = sum(message.value is None for message in messages)
    base = Findings(
        topic=sample.topic,
        kafka=_publishable(consumer_config),
        partitions=len(sample.offsets),
        total=sample.total,
        sampled=len(messages),
        tombstones=tombstones,
        format=found,
        not_json=len(messages) - tombstones - len(objects),
        keys=_keys(messages, objects, sources),
        log_append_time=sample.log_append_time,
    )
    if not found.supported:
        return base
    mapped = map_fields(objects)
    times = _times(mapped, objects, sources)
    behind = disorder(times)
    seen_lag, rate = lag(times), rate_per_s(times)
    return replace(
        base,
        mapped=mapped,
        models=_models(mapped, objects),
        segments=_segments(mapped, objects),
        lag=seen_lag,
        disorder=tuple(behind.items()),
        rate_per_s=rate,
        suggestion=suggest(rate, behind, seen_lag),
    )


def _publishable(config: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    shown: dict[str, str | int | float | bool] = {}
    for name, value in config.items():
        if name in RESERVED or not isinstance(value, str | int | float):
            continue
        if SECRET.search(name):
            shown[name] = "${KAFKA_" + name.upper().replace(".", "_") + "}"
        else:
            shown[name] = value.replace("${", "$${") if isinstance(value, str) else value
    return shown


def _keys(
    messages: Sequence[Message], objects: Sequence[Mapping[str, Any]], sources: Sequence[Message]
) -> KeyFinding:
    homes: dict[bytes, set[int]] = defaultdict(set)
    for message in messages:
        if message.key is not None:
            homes[message.key].add(message.partition)
    keyed = sum(message.key is not None for message in messages)
    same: Counter[Keys] = Counter()
    if homes:
        found, _ = leaves(objects)
        for path, leaf in found.items():
            for event, value in zip(leaf.events, leaf.values, strict=True):
                same[path] += str(value).encode("utf-8", "replace") == sources[event].key
    best = max(same, key=lambda path: (same[path], -len(path)), default=None)
    # Nearly all: a constant field would equal a constant key, and one event proves nothing.
    same_as = best if best is not None and same[best] >= 0.95 * max(2, len(objects)) else None
    split = sum(len(partitions) > 1 for partitions in homes.values())
    return KeyFinding(keyed / len(messages), len(homes), same_as, split)


def _value_at(content: Any, keys: Keys) -> Any:
    for key in keys:
        if not isinstance(content, Mapping):
            return None
        content = content.get(key)
    return content


def _times(
    mapped: Mapped, objects: Sequence[Mapping[str, Any]], sources: Sequence[Message]
) -> list[Timed]:
    per_ms = {"seconds": 0.001, "ms": 1, "µs": 1_000, "ns": 1_000_000}.get(mapped.time_unit, 1)
    times: list[Timed] = []
    for content, source in zip(objects, sources, strict=True):
        value = _value_at(content, mapped.paths["ts"]) if "ts" in mapped.paths else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            # Also in a unit that driftline does not read: lag and rate are worth knowing.
            value = value / per_ms if per_ms != 1 else value
        try:
            event_ms = event_time_ms(value) if isinstance(value, str | int | float) else None
        except ValueError:
            event_ms = None
        if event_ms is not None:
            at = (source.partition, source.run, source.offset)
            times.append(Timed(*at, event_ms, source.timestamp_ms))
    return times


def _models(mapped: Mapped, objects: Sequence[Mapping[str, Any]]) -> tuple[ModelFinding, ...]:
    if "model" not in mapped.paths:
        return (ModelFinding(None, len(objects), mapped.features),)
    by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for content in objects:
        name = _value_at(content, mapped.paths["model"])
        if isinstance(name, str):
            by_name[name].append(content)
    largest = sorted(by_name, key=lambda name: (-len(by_name[name]), name))[:MAX_MODELS]
    return tuple(
        ModelFinding(name, len(by_name[name]), features_of(by_name[name], mapped.names))
        for name in largest
    )


def _segments(mapped: Mapped, objects: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    values: dict[str, set[str]] = defaultdict(set)
    for content in objects:
        segment = _value_at(content, mapped.paths["segment"]) if "segment" in mapped.paths else {}
        version = _value_at(content, mapped.paths["version"]) if "version" in mapped.paths else None
        if isinstance(segment, Mapping):
            for key, value in segment.items():
                values[str(key)].add(str(value))
        if version is not None:
            values["version"].add(str(version))
    return tuple(sorted((key, len(seen)) for key, seen in values.items()))
