"""Fixtures that more than one test file uses: a real Kafka, and names that do not collide on it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from driftline.stream.broker.node import Broker


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """A running broker, one for all tests of a process.

    A test may also `kafka.kill()` it or `kafka.restart()` it, on the same port and data, if it
    leaves it running.
    """
    with Broker() as broker:
        yield broker


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics, groups and transactional ids that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"
