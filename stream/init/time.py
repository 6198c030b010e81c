"""How a topic's event times run against its log: lag, disorder, rate, and what they suggest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...schemas.units import format_duration, parse_duration_ms

# Round numbers that people would write themselves.
LADDER_MS = tuple(
    n * unit
    for unit, numbers in (
        (1_000, (10, 30)),
        (60_000, (1, 2, 5, 10, 15, 30)),
        (3_600_000, (1, 2, 6, 12)),
        (86_400_000, (1, 2, 7)),
    )
    for n in numbers
)
# A first window should hold enough events for a test to see a shift of about a fifth of a standard
# deviation in one feature among several: n ≈ 500 against a large reference.
EVENTS_WANTED = 500
MOST_LATENESS_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Timed:
    """One event's place in the log and its times. kafka_ms: None without a Kafka timestamp."""

    partition: int
    run: int
    offset: int
    event_ms: int
    kafka_ms: int | None


@dataclass(frozen=True, slots=True)
class Lag:
    """Kafka timestamp minus event time, in ms; negative: the event says it comes from later."""

    median_ms: int
    p99_ms: int
    max_ms: int
    min_ms: int


@dataclass(frozen=True, slots=True)
class Disorder:
    """How far events lie behind the largest event time before them in their partition, in ms.

    share: of the events that lie behind it at all.
    """

    share: float
    p99_ms: int
    max_ms: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Values for driftline.yaml, as they are written there, and the reason for the windows."""

    pane: str
    windows: tuple[str, ...]
    allowed_lateness: str
    max_ahead: str
    retention: str
    false_alarms: str
    why_windows: str
    why_lateness: str


def lag(times: Iterable[Timed]) -> Lag | None:
    behind = sorted(t.kafka_ms - t.event_ms for t in times if t.kafka_ms is not None)
    if not behind:
        return None
    return Lag(_quantile(behind, 0.5), _quantile(behind, 0.99), behind[-1], behind[0])


def disorder(times: Iterable[Timed]) -> dict[int, Disorder]:
    """Partition → its disorder, within the runs that were read without a gap."""
    runs: dict[tuple[int, int], list[Timed]] = defaultdict(list)
    for timed in times:
        runs[timed.partition, timed.run].append(timed)
    late: dict[int, list[int]] = defaultdict(list)
    for (partition, _), run in runs.items():
        largest = None
        for timed in sorted(run, key=lambda t: t.offset):
            late[partition].append(max(0, (largest or timed.event_ms) - timed.event_ms))
            largest = timed.event_ms if largest is None else max(largest, timed.event_ms)
    return {
        partition: Disorder(
            sum(ms > 0 for ms in behind) / len(behind),
            _quantile(sorted(behind), 0.99),
            max(behind),
        )
        for partition, behind in sorted(late.items())
    }


def rate_per_s(times: Sequence[Timed]) -> float | None:
    """Events per second of event time, summed over the partitions' latest runs.

    Measured by how far the largest event time advances after the first tenth of a run: single late
    events do not stretch that span.
    """
    latest: dict[int, list[Timed]] = defaultdict(list)
    last_run = {timed.partition: timed.run for timed in sorted(times, key=lambda t: t.run)}
    for timed in times:
        if timed.run == last_run[timed.partition]:
            latest[timed.partition].append(timed)
    total = 0.0
    for run in latest.values():
        events = [timed.event_ms for timed in sorted(run, key=lambda t: t.offset)]
        first = max(1, len(events) // 10)
        span_ms = max(events) - max(events[:first])
        if span_ms > 0:
            total += (len(events) - first) * 1000 / span_ms
    return total or None


def suggest(rate: float | None, behind: Mapping[int, Disorder], ahead: Lag | None) -> Suggestion:
    """Pane, windows and bounds for a topic with this rate, disorder and lag."""
    late_ms = max((d.p99_ms for d in behind.values()), default=0)
    worst_ms = max((d.max_ms for d in behind.values()), default=0)
    # Verdicts wait for so long, so a topic full of old events does not set it: they count as late.
    lateness_ms = min(_up(2 * late_ms), MOST_LATENESS_MS)
    why_lateness = (
        f"99 % of the events lie at most {format_duration(late_ms)} behind their partition,"
        f" all at most {format_duration(worst_ms)}"
    )
    # One wild clock is what the bound is there for; half of the events ahead is a time zone.
    ahead_ms = max(0, -ahead.median_ms) if ahead else 0
    pane, windows, why = _windows(rate)
    longest_ms = max(parse_duration_ms(text) for text in windows if not text.endswith("events"))
    retention_ms = next(
        days * 86_400_000 for days in (7, 14) if longest_ms + lateness_ms <= days * 86_400_000
    )
    return Suggestion(
        pane,
        windows,
        format_duration(lateness_ms),
        format_duration(max(3_600_000, _up(2 * ahead_ms))),
        format_duration(retention_ms),
        # Many windows long, or it would be told late; `about`, since what the reference will support
        # is not known.
        "about 1 per 30d" if longest_ms >= 86_400_000 else "about 1 per 7d",
        why,
        why_lateness,
    )


def _windows(rate: float | None) -> tuple[str, tuple[str, ...], str]:
    if rate is None:
        why = "the event rate is not known, so these are the usual ones"
        return "1m", ("5m", "1h", "2000 events"), why
    # pane, small window, large window: the small one is a few panes, the large one about ten.
    steps = (
        ("10s", 60_000, "15m"),
        ("1m", 300_000, "1h"),
        ("1m", 900_000, "6h"),
        ("5m", 3_600_000, "6h"),
        ("15m", 21_600_000, "1d"),
        ("1h", 86_400_000, "7d"),
    )
    pane, small_ms, large = next(
        (step for step in steps if rate * step[1] / 1000 >= EVENTS_WANTED), steps[-1]
    )
    held = round(rate * small_ms / 1000)
    small = format_duration(small_ms)
    why = f"at {rate:.3g} events/s a window of {small} holds about {held:,} events"
    return pane, (small, large, "2000 events"), why


def _quantile(ordered: Sequence[int], q: float) -> int:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _up(ms: int) -> int:
    return next((step for step in LADDER_MS if step >= ms), -(-ms // 86_400_000) * 86_400_000)
