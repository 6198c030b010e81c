"""`driftline reference promote`: another reference takes over, while everything runs.

    promote     checks ─▶ history: pending ─▶ barrier ─▶ newest event time ─▶ history: settled
    ingest      ────────────────────────────────┤ whoever commits from here on has read `pending`,
                                                  and waits at its time until it reads `settled`

The barrier is Kafka's own: the command joins ingest's consumer group for a moment. To let it in,
every worker must give up its partitions and get them anew, and what a worker commits with what it
had before is refused. At each assignment a worker reads the history. So after the barrier nothing
can be committed by a worker that does not know of the promotion, and the newest event time
committed by then lies before whatever it changes. No clock is asked.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from confluent_kafka import KafkaException, TopicPartition

from ...schemas.errors import ProfileError, TopicError
from ...schemas.units import format_duration, iso_ms
from .. import profiles
from ..clients import consumer, partition_count
from ..config.document import Config, ModelConfig
from ..ingest import committed, largest_ms, raise_unless_passing
from ..profiles import Reference
from .check import check, check_alike
from .history import Entry, History, Pending, place_of, read, write

# How long a worker may be deaf to its group, by librdkafka's `max.poll.interval.ms`; and a margin.
_PATIENCE_S: Final = 330.0

Newest = Callable[[Config, str], int | None]


@dataclass(frozen=True, slots=True)
class Switch:
    """What was settled. before, after: ids. newest_ms: the newest event time summarised by then."""

    model: str
    before: str
    after: str
    entry: Entry
    newest_ms: int | None


def promote(
    config: Config,
    model: ModelConfig,
    source: str,
    *,
    from_ms: int | None = None,
    overlap_ms: int = 0,
    offline: bool = False,
    guess: Newest | None = None,
    barrier: Newest | None = None,
) -> Switch:
    """Let the reference at `source` take over, from a border of panes on.

    Args:
        source: a directory or URL that `driftline fit --out` wrote, or the id (or how it begins)
            of a reference that was in force before.
        from_ms: where, in event time; None is the next border that no event has come behind.
        overlap_ms: how long before it events are compared with both, so that windows of the new
            one are full where it takes over.
        offline: ask nobody; for replays, or while nothing has run yet.
        guess, barrier: give the newest event time summarised of a topic, None for none; the first
            at once, the second as the module says. They ask Kafka unless others are given.

    Raises:
        ProfileError: it does not suit, or cannot take over there. TopicError: ingest does not
            answer.
    """
    url, pane_ms = model.reference, model.pane_ms
    for name, ms in (("--from", from_ms), ("--overlap", overlap_ms)):
        if ms is not None and ms % pane_ms:
            raise ProfileError(
                f"{name} is {format_duration(ms) if name == '--overlap' else iso_ms(ms)}; a "
                f"reference takes over at a border of panes, which are {format_duration(pane_ms)} "
                "long"
            )
    now = profiles.load(url, model.name)
    history = now.history or History((Entry(now.id),))
    new = profiles.load_one(_place(url, source, history), model.name)
    _suits(model, now, new, source)
    if history.pending is not None and history.pending.id != new.id:
        raise ProfileError(
            f"another promotion, of {history.pending.id[:12]}, is under way or was killed; wait for "
            "it, or end it with `driftline reference withdraw`"
        )
    place = next((e.place for e in history.entries if e.id == new.id), new.id)
    if all(e.id != new.id for e in history.entries):
        profiles.save(new, place_of(url, place))
    if offline:
        entry = _entry(history, new.id, place, None, from_ms, overlap_ms, pane_ms)
        write(url, History((*history.entries, entry)))
        return Switch(model.name, history.entries[-1].id, new.id, entry, None)
    topic = model.input.topic
    if from_ms is None:
        since_ms = _next_border((guess or committed_newest)(config, topic), pane_ms)
    else:
        since_ms = from_ms - overlap_ms
    pending = Pending(new.id, since_ms, uuid.uuid4().hex)
    write(url, History(history.entries, pending))
    try:
        newest_ms = (barrier or newest_summarised)(config, topic)
        entry = _entry(history, new.id, place, newest_ms, from_ms, overlap_ms, pane_ms)
    except BaseException:
        _settle(url, pending, History(history.entries))
        raise
    _settle(url, pending, History((*history.entries, entry)))
    return Switch(model.name, history.entries[-1].id, new.id, entry, newest_ms)


def withdraw(model: ModelConfig) -> Pending | None:
    """End a promotion that was begun and not ended; None where there is none. What has been settled
    stays: promote the earlier reference again."""
    history = read(model.reference)
    if history is None or history.pending is None:
        return None
    write(model.reference, History(history.entries))
    return history.pending


def _place(url: str, source: str, history: History) -> str:
    known = {place_of(url, e.place) for e in history.entries if e.id.startswith(source)}
    return known.pop() if len(source) >= 6 and len(known) == 1 else source


def _suits(model: ModelConfig, now: Reference, new: Reference, source: str) -> None:
    if new.id == now.eras[-1].id:
        raise ProfileError(
            f"the reference at {source!r} is the one in force already ({new.id[:12]}); fit another "
            "with `driftline fit --out`"
        )
    check(model, new, source)
    check_alike(now.whole, new.whole, source)
    if gone := sorted(set(now.eras[-1].units) - set(new.units)):
        raise ProfileError(
            f"the reference at {source!r} has no segment {', '.join(gone[:5])}, which is monitored "
            "now and would not be any more; fit on rows that have them"
        )


def _entry(
    history: History,
    ident: str,
    place: str,
    newest_ms: int | None,
    from_ms: int | None,
    overlap_ms: int,
    pane_ms: int,
) -> Entry:
    """Where the reference takes over, given the newest event that has been summarised."""
    earliest = None if newest_ms is None else _next_border(newest_ms, pane_ms)
    last = history.entries[-1].from_ms
    if from_ms is None:
        if earliest is None:
            raise ProfileError(
                "no event has been summarised yet, so there is no border to take over at; say it "
                "with --from"
            )
        from_ms = earliest + overlap_ms
        if last is not None and from_ms <= last:
            from_ms = last + pane_ms
    since_ms = from_ms - overlap_ms
    if last is not None and from_ms <= last:
        raise ProfileError(
            f"{iso_ms(from_ms)} is not after {iso_ms(last)}, where {history.entries[-1].id[:12]} "
            "takes over; name a later time with --from"
        )
    if earliest is not None and since_ms < earliest:
        raise ProfileError(
            f"events up to {iso_ms(newest_ms or 0)} have been summarised against the reference in "
            f"force, and those from {iso_ms(since_ms)} on would be needed against the new one; say "
            f"--from {iso_ms(earliest + overlap_ms)} or later, or nothing for the next border"
        )
    return Entry(ident, place, since_ms, from_ms)


def _next_border(newest_ms: int | None, pane_ms: int) -> int:
    return 0 if newest_ms is None else (newest_ms // pane_ms + 1) * pane_ms


def _settle(url: str, pending: Pending, history: History) -> None:
    held = read(url)
    if held is None or held.pending != pending:
        raise ProfileError(
            f"another command has changed the history at {url!r} meanwhile; look at it with "
            "`driftline reference show`, then promote again"
        )
    write(url, replace(history, pending=None))


def committed_newest(config: Config, topic: str) -> int | None:
    """The newest event time that ingest has committed for a topic, None for none."""
    reader = consumer(config, f"{config.group}-ingest")
    try:
        partitions = [TopicPartition(topic, p) for p in range(partition_count(config, topic))]
        times = [largest_ms(at.metadata) for at in committed(reader, partitions)]
    finally:
        reader.close()
    return max((ms for ms in times if ms is not None), default=None)


def newest_summarised(config: Config, topic: str) -> int | None:
    """The newest event time that ingest has summarised; what it summarises after this call, it does
    knowing of whatever was written before the call.

    Raises:
        TopicError: a worker does not answer its group.
    """
    joined: list[bool] = []
    member = consumer(config, f"{config.group}-ingest")
    try:
        topics = {m.input.topic for m in config.models.values()}
        member.subscribe(sorted(topics), on_assign=lambda c, partitions: joined.append(True))
        deadline = time.monotonic() + _PATIENCE_S
        while not joined:
            if time.monotonic() > deadline:
                raise TopicError(
                    f"the consumer group {config.group}-ingest has not let this command in for "
                    f"{_PATIENCE_S:.0f} s: one of its workers does not answer; stop it, and promote "
                    "again",
                    retry=True,
                )
            message = member.poll(0.2)
            if message is not None and (error := message.error()) is not None:
                raise_unless_passing(error)
        return committed_newest(config, topic)
    except KafkaException as error:
        raise TopicError(
            f"ingest's consumer group cannot be joined: {error.args[0].str()}", retry=True
        ) from error
    finally:
        member.close()
