"""What is read: a file or a range of a topic, with a name that changes when its content does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, TopicCollection

from ...schemas.errors import DriftlineError, TopicError
from ..clients import admin
from ..config.document import Config
from ..sources import Batch, file_batches, read_bounds, topic_bounds


@dataclass(frozen=True)
class Source:
    """Bounded events.

    identity: JSON-able; equal for equal events. label: for people.
    """

    config: Config
    topic: str
    identity: Mapping[str, Any]
    label: str
    path: Path | None = None
    bounds: Mapping[int, tuple[int, int]] | None = None

    def batches(self) -> Iterator[Batch]:
        if self.path is not None:
            return file_batches(self.path, self.topic)
        assert self.bounds is not None
        return read_bounds(self.config, self.topic, self.bounds)


def file_source(config: Config, topic: str, path: Path) -> Source:
    """A file, known by its bytes and its time of modification, which stands in for Kafka's time.

    Raises:
        DriftlineError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        modified_ms = int(path.stat().st_mtime * 1000)
    except FileNotFoundError:
        raise DriftlineError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DriftlineError(f"{path}: cannot be read ({error.strerror})") from error
    suffixes = [s.lower() for s in path.suffixes]
    identity = {"file": digest, "modified_ms": modified_ms, "kind": suffixes[-2:]}
    return Source(config, topic, identity, path.name, path=path)


def topic_source(
    config: Config, topic: str, *, since_ms: int | None = None, until_ms: int | None = None
) -> Source:
    """A range of a topic, known by the id that Kafka gave the topic and by its offsets.

    Raises:
        TopicError: the topic does not exist, or the range is empty of messages.
    """
    bounds = topic_bounds(config, topic, since_ms=since_ms, until_ms=until_ms)
    client = admin(config)  # kept: without it the answer never comes
    try:
        described = client.describe_topics(TopicCollection([topic]))[topic].result(15)
    except KafkaException as error:
        raise TopicError(
            f"topic {topic!r}: Kafka does not say its id ({error.args[0].str()}); the client must "
            "be allowed to describe it",
            retry=True,
        ) from error
    identity = {
        "topic": topic,
        "topic_id": str(described.topic_id),
        "offsets": [[p, *bounds[p]] for p in sorted(bounds)],
    }
    return Source(config, topic, identity, f"topic {topic}", bounds=bounds)
