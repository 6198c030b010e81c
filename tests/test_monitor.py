"""When panes close, and what is said then. Timelines go from left to right; panes are a minute.

●  events of a pane      ▲  how far a partition has been read      ✓  the pane closes
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from stream_helpers import (
    MINUTE,
    T0,
    Feed,
    config_of,
    delta_of,
    progress_of,
    reference_of,
    seconds_after_t0,
    shown,
)

from driftline.detectors.windows import WindowBank
from driftline.schemas.errors import EventError
from driftline.schemas.pane import Delta, Progress
from driftline.schemas.units import iso_ms
from driftline.stream.config.document import Config
from driftline.stream.monitor import START, Mark, Monitor
from driftline.stream.profiles import Reference
from driftline.stream.verdicts import Verdict

S = 1000


def started(tmp_path: Path, **overrides: Any) -> tuple[Feed, Reference]:
    """A monitor of one model: pane 1m, lateness 10 s, one window of two minutes."""
    config = config_of(tmp_path, **overrides)
    reference = reference_of(config, reference_rows())
    return Feed(Monitor(config, {"fraud": reference})), reference


def reference_rows(country: str = "ES") -> list[dict[str, Any]]:
    return [{"features": {"x": i % 50}, "segment": {"country": country}} for i in range(100)]


def at(*seconds: float) -> list[int]:
    return [T0 + int(s * S) for s in seconds]


def windows_of(verdicts: list[Verdict], detector: str = "ks") -> list[tuple[int, int, int]]:
    """(start s, end s, n) of each verdict of one detector."""
    return [
        (*seconds_after_t0(v), v["window"]["n"])
        for v in shown(verdicts) if v["detector"] == detector
    ]  # fmt: skip


def test_a_pane_closes_once_time_has_passed_its_end_by_the_lateness(tmp_path: Path) -> None:
    """
    pane [0, 60)   ●●●●●●●●●●●●|
    read up to     ......................▲ 69.999  nothing
                                         ▲ 70      ✓
    """
    feed, reference = started(tmp_path)
    feed.delta(delta_of(reference, MINUTE, at(1, 2, 3)))
    assert feed.progress(T0 + 69_999) == []
    made = feed.progress(T0 + 70_000)
    assert windows_of(made) == [(-60, 60, 3)]
    assert [v["detector"] for v in shown(made)] == ["ks", "missing_rate"]
    assert feed.progress(T0 + 70_001) == []
    assert feed.monitor.open_panes == 0


def test_the_slowest_partition_decides(tmp_path: Path) -> None:
    """
    partition 0    ▲ 130 s
    partition 1    ▲ 60 s → 70 s ✓ → 130 s ✓
    """
    feed, reference = started(tmp_path)
    feed.delta(delta_of(reference, MINUTE, at(1, 2, 61, 62, 63)))
    assert feed.progress(T0 + 130 * S, T0 + 60 * S) == []
    assert windows_of(feed.progress(T0 + 130 * S, T0 + 70 * S)) == [(-60, 60, 2)]
    assert windows_of(feed.progress(T0 + 999 * S, T0 + 130 * S)) == [(0, 120, 5)]


@pytest.mark.parametrize("second", [None, "unknown"])
def test_a_partition_without_events_holds_everybody_back(
    tmp_path: Path, second: str | None
) -> None:
    """Nobody can say that its first event will not be old; nor of one nobody has spoken of."""
    feed, reference = started(tmp_path)
    feed.delta(delta_of(reference, MINUTE, at(1, 2, 3)))
    if second == "unknown":
        only_first = Progress("inference", 2, progress_of(T0 + 900 * S).partitions)
        assert list(feed.monitor.progress(5, only_first)) == []
    else:
        assert feed.progress(T0 + 900 * S, None) == []
    assert feed.monitor.watermark_ms("fraud") is None
    # It closes up to where the other is: the window has moved on, and is empty once.
    made = feed.progress(T0 + 900 * S, T0 + 900 * S)
    assert windows_of(made) == [(-60, 60, 3), (0, 120, 3), (60, 180, 0)]
    assert feed.monitor.watermark_ms("fraud") == T0 + 900 * S


def test_an_idle_partition_is_not_waited_for_and_the_verdict_says_so(tmp_path: Path) -> None:
    """
    partition 0    ▲ 70 s           ✓, but 1 had not come so far
    partition 1    idle since 5 s   (idle since 70 s: it had, nothing to say)
    """
    for since, said in ((5, ["inference[1]"]), (69.999, ["inference[1]"]), (70, None)):
        feed, reference = started(tmp_path)
        feed.delta(delta_of(reference, MINUTE, at(1, 2, 3)))
        made = feed.progress(T0 + 70 * S, (T0 + int(since * S), "idle"))
        assert windows_of(made) == [(-60, 60, 3)]
        assert [v["detail"].get("idle_partitions") for v in shown(made)] == [said, said]
    feed, reference = started(tmp_path)
    feed.delta(delta_of(reference, MINUTE, at(1, 2, 3)))
    made = feed.progress(T0 + 70 * S, (None, "idle"))
    assert [v["detail"]["idle_partitions"] for v in shown(made)] == [["inference[1]"]] * 2


def test_when_all_are_idle_what_is_open_closes(tmp_path: Path) -> None:
    """
    both idle at   ▲ 65 s and 3 s    pane [0, 60) ✓ and [60, 120) ✓, no later ones
    """
    feed, reference = started(tmp_path)
    feed.delta(delta_of(reference, MINUTE, at(1, 2, 61, 62, 63)))
    assert feed.progress((T0 + 65 * S, "idle"), T0 + 3 * S) == []
    made = feed.progress((T0 + 65 * S, "idle"), (T0 + 3 * S, "idle"))
    assert windows_of(made) == [(-60, 60, 2), (0, 120, 5)]
    assert shown(made)[0]["detail"]["idle_partitions"] == ["inference[0]", "inference[1]"]
    assert feed.progress((T0 + 65 * S, "idle"), (T0 + 3 * S, "idle")) == []


def test_events_of_a_partition_that_resumes_are_dropped_and_counted(tmp_path: Path) -> None:
    """
    partition 1   idle at 5 s ............ then brings ○ of the closed pane and ● of an open one
    partition 0   ▲ 70 s  ✓ [0, 60)
    """
    feed, reference = started(tmp_path)
    feed.delta(delta_of(reference, MINUTE, at(1, 2, 3)))
    feed.progress(T0 + 70 * S, (T0 + 5 * S, "idle"))
    feed.delta(delta_of(reference, MINUTE, at(6, 7, 8, 64, 65)))
    assert feed.monitor.dropped_events == 3
    made = feed.progress(T0 + 130 * S, T0 + 130 * S)
    assert windows_of(made) == [(0, 120, 5)]
    assert "idle_partitions" not in shown(made)[0]["detail"]


def test_what_resumes_after_the_windows_have_emptied_is_dropped_too(tmp_path: Path) -> None:
    feed, reference = started(tmp_path)
    feed.delta(delta_of(reference, MINUTE, at(1, 2, 3)))
    feed.progress(T0 + 7000 * S, (T0 + 5 * S, "idle"))
    feed.delta(delta_of(reference, MINUTE, at(6900)))
    assert feed.monitor.dropped_events == 1
    # 6980 lies in the pane that is not over at 7000 less 10 s.
    feed.delta(delta_of(reference, MINUTE, at(6961, 6980)))
    assert feed.monitor.dropped_events == 1
    assert windows_of(feed.progress(T0 + 7080 * S, T0 + 7080 * S)) == [(6900, 7020, 2)]


def test_progress_does_not_go_back(tmp_path: Path) -> None:
    """A worker that took over may know less than was published."""
    for t0 in (T0, -90 * S):
        feed, reference = started(tmp_path)
        feed.progress(t0 + 69 * S)
        feed.progress(t0 + 5 * S)
        feed.progress(None)
        assert feed.monitor.watermark_ms("fraud") == t0 + 69 * S
    # The epoch itself is a time like any other.
    feed.progress(0)
    assert feed.monitor.watermark_ms("fraud") == 0


def test_a_year_without_events_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    ●●●|                                                                  ●●●|
    pane 0      the windows empty and say so; 525,600 panes are skipped     a year later
    """
    calls: Counter[str] = Counter()
    push = WindowBank.push

    def counted(self: WindowBank, *args: Any) -> Any:
        calls["push"] += 1
        return push(self, *args)

    monkeypatch.setattr(WindowBank, "push", counted)
    windows = ["2m", {"size": "1h", "hop": "1h"}, "5 events"]
    feed, reference = started(tmp_path, windows=windows)
    feed.delta(delta_of(reference, MINUTE, at(1, 2, 3)))
    year = T0 + 365 * 86_400 * S
    before = feed.progress(year)
    assert calls["push"] <= 2 * 60 + 2
    assert [seconds_after_t0(v) for v in shown(before) if v["window"]["size"] == "2m"][::2] == [
        (-60, 60), (0, 120), (60, 180),
    ]  # fmt: skip
    feed.delta(delta_of(reference, MINUTE, [year + 1, year + 2]))
    calls.clear()
    after = shown(feed.progress(year + 70 * S))
    assert calls["push"] == 1
    assert {(v["window"]["size"], v["window"]["n"]) for v in after} == {("2m", 2), ("5 events", 2)}
    # The monitor of a stream that begins a year in gets there at once as well.
    calls.clear()
    feed.progress(year + 70 * S)
    assert calls["push"] == 0


def test_an_empty_window_is_said_once(tmp_path: Path) -> None:
    """
    ●●●|   |   |   |   |   |●●●|           windows of 2 m: 3, 3, 0 —  —  —  2, …
    """
    feed, reference = started(tmp_path)
    feed.delta(delta_of(reference, MINUTE, at(1, 2, 3)))
    made = feed.progress(T0 + 370 * S)
    assert windows_of(made) == [(-60, 60, 3), (0, 120, 3), (60, 180, 0)]
    last = shown(made)[-1]
    assert (last["status"], last["statistic"], last["p_value"], last["drifted"]) == (
        "insufficient", None, None, False,
    )  # fmt: skip
    assert last["detail"] == {"reason": "the window is empty"}
    feed.delta(delta_of(reference, MINUTE, at(365, 366)))
    assert windows_of(feed.progress(T0 + 430 * S)) == [(300, 420, 2)]


def test_a_tumbling_window_speaks_at_its_hop(tmp_path: Path) -> None:
    """
    ●●|●●|●●|●●|●●|      2 m hop 2 m:  [0, 120) ✓  [120, 240) ✓  — the fifth pane waits
    """
    feed, reference = started(tmp_path, windows=[{"size": "2m", "hop": "2m"}])
    feed.delta(delta_of(reference, MINUTE, [T0 + k * MINUTE + j for k in range(5) for j in (1, 2)]))
    assert windows_of(feed.progress(T0 + 5 * MINUTE + 10 * S)) == [(0, 120, 4), (120, 240, 4)]
    made = feed.progress(T0 + 6 * MINUTE + 10 * S)
    assert windows_of(made) == [(240, 360, 2)]
    assert shown(made)[0]["window"]["size"] == "2m hop 2m"


def test_a_window_in_events_is_the_shortest_run_of_panes(tmp_path: Path) -> None:
    """
    panes of   3 | 2 | – | 4 | 9 | 1     6 events:  –, –, (nothing), [60, 240) = 6, [240, 300) = 9,
                                                    and 9 again in [240, 360) = 10: 1 is too few
    """
    feed, reference = started(tmp_path, windows=["6 events"])
    for k, n in enumerate((3, 2, 0, 4, 9, 1)):
        if n:
            feed.delta(delta_of(reference, MINUTE, [T0 + k * MINUTE + j for j in range(n)]))
    made = feed.progress(T0 + 6 * MINUTE + 10 * S)
    assert windows_of(made) == [
        (0, 60, 3), (0, 120, 5), (60, 240, 6), (240, 300, 9), (240, 360, 10),
    ]  # fmt: skip
    assert [v["status"] for v in shown(made)][::2] == ["insufficient"] * 2 + ["ok"] * 3
    assert shown(made)[0]["detail"]["reason"] == (
        "the stream has brought 3 of the window's 6 events"
    )


def test_since_when_is_asked_before_a_window_in_events_is_full(tmp_path: Path) -> None:
    """
    panes of   30 | 30 | 40    100 events:  ks –, –, ✓   shiryaev_roberts, which asks since when ✓ ✓ ✓
    """
    feed, reference = started(
        tmp_path,
        windows=["100 events"],
        min_events=30,
        detectors={"numeric": ["ks", "shiryaev_roberts"]},
    )
    for k, n in enumerate((30, 30, 40)):
        feed.delta(delta_of(reference, MINUTE, [T0 + k * MINUTE + j for j in range(n)]))
    made = shown(feed.progress(T0 + 4 * MINUTE + 10 * S))
    status = {
        name: [v["status"] for v in made if v["detector"] == name]
        for name in ("ks", "shiryaev_roberts")
    }
    assert status == {
        "ks": ["insufficient", "insufficient", "ok"],
        "shiryaev_roberts": ["ok", "ok", "ok"],
    }


def test_a_window_in_events_looks_back_no_further_than_retention(tmp_path: Path) -> None:
    feed, reference = started(tmp_path, windows=["6 events"], retention="5m")
    feed.delta(delta_of(reference, MINUTE, at(1, 2, 3)))
    feed.delta(delta_of(reference, MINUTE, at(301, 302, 303)))
    feed.delta(delta_of(reference, MINUTE, at(661, 662)))
    made = feed.progress(T0 + 800 * S)
    assert windows_of(made) == [(0, 60, 3), (300, 360, 3), (660, 720, 2)]


@pytest.mark.parametrize(("n", "status"), [(29, "insufficient"), (30, "ok")])
def test_too_few_events_are_no_test(tmp_path: Path, n: int, status: str) -> None:
    feed, reference = started(tmp_path, min_events=30)
    feed.delta(delta_of(reference, MINUTE, [T0 + i for i in range(n)]))
    made = shown(feed.progress(T0 + 70 * S))
    assert [v["status"] for v in made] == [status] * 2
    if status == "insufficient":
        assert made[0]["detail"]["reason"] == "the window has 29 events; min_events is 30"


def test_too_few_values_are_no_test_of_the_feature(tmp_path: Path) -> None:
    feed, reference = started(tmp_path, min_events=30)
    x = [1.0] * 29 + [None] * 11
    feed.delta(delta_of(reference, MINUTE, [T0 + i for i in range(40)], {"x": x}))
    ks, missing = shown(feed.progress(T0 + 70 * S))
    assert (ks["status"], ks["statistic"], ks["p_value"]) == ("insufficient", None, None)
    assert ks["detail"]["reason"].startswith("only 29 values of the feature could be tested")
    assert (missing["status"], missing["drifted"]) == ("ok", True)


def test_parts_of_a_pane_add_up_in_any_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    times = T0 + rng.integers(0, 180, 90) * S
    x = rng.integers(0, 70, 90)
    expected: list[bytes] = []
    for order in (np.arange(90), rng.permutation(90), rng.permutation(90)):
        feed, reference = started(tmp_path)
        for rows in np.array_split(order, 7):
            feed.delta(
                delta_of(reference, MINUTE, times[rows].tolist(), {"x": x[rows].tolist()},
                         versions=[f"v{i % 2}" for i in rows])
            )  # fmt: skip
        made = [v.value for v in feed.progress(T0 + 300 * S)]
        expected = expected or made
        assert made == expected
    first = orjson.loads(expected[0])
    assert first["version"] is None
    assert set(first["detail"]["versions"]) == {"v0", "v1"}
    assert sum(first["detail"]["versions"].values()) == first["window"]["n"]


def test_one_version_is_named(tmp_path: Path) -> None:
    feed, reference = started(tmp_path)
    feed.delta(delta_of(reference, MINUTE, at(1, 2), versions="7"))
    [verdict, _] = shown(feed.progress(T0 + 70 * S))
    assert verdict["version"] == "7"
    assert "versions" not in verdict["detail"]


def test_the_level_is_shared_out_among_tests_and_windows(tmp_path: Path) -> None:
    """2 detectors × 3 windows, and the whole model and a segment: 12 tests."""
    windows = ["1m", "2m", "5 events"]
    config = config_of(tmp_path, alpha=0.06, windows=windows, segment_by=["country"])
    reference = reference_of(config, reference_rows())
    feed = Feed(Monitor(config, {"fraud": reference}))
    feed.delta(delta_of(reference, MINUTE, at(1, 2)))
    made = shown(feed.progress(T0 + 70 * S))
    assert {v["alpha"] for v in made} == {0.06 / 12}


@pytest.mark.parametrize("ms", [-62_135_596_800_000, 253_402_300_799_999])
def test_the_ends_of_the_calendar(tmp_path: Path, ms: int) -> None:
    """The zero time of Go and C#, which producers do send, and the last millisecond there is:
    a window around them reaches beyond what can be written."""
    feed, reference = started(tmp_path)
    feed.delta(delta_of(reference, MINUTE, [ms, ms]))
    made = shown(feed.progress((ms, "idle")))
    assert [v["window"]["n"] for v in made] == [2, 2]
    for v in made:
        assert v["window"]["start"] < v["window"]["end"]
    edges = made[0]["window"]
    if ms < 0:
        assert edges["start"] == "0001-01-01T00:00:00.000Z"
    else:
        assert edges["end"] == "9999-12-31T23:59:59.999Z"


def test_messages_of_unknown_models_foreign_profiles_and_damaged_deltas(tmp_path: Path) -> None:
    feed, reference = started(tmp_path)
    good = delta_of(reference, MINUTE, at(1, 2, 3))

    def changed(**fields: Any) -> Delta:
        return Delta(**{name: getattr(good, name) for name in Delta.__slots__} | fields)

    with pytest.raises(EventError, match="model 'churn', which is not configured") as caught:
        feed.delta(changed(model="churn"))
    assert caught.value.reason == "bad_pane"
    feed.delta(changed(profile="f" * 32))
    feed.delta(changed(profile="f" * 32))
    # A segment without a reference of its own.
    feed.delta(changed(segment={"country": "XX"}))
    assert feed.monitor.foreign == {"f" * 32: 2, reference.whole.id: 1}
    with pytest.raises(EventError, match="a cell beyond"):
        feed.delta(changed(cells=good.cells + 10_000))
    with pytest.raises(EventError, match="profile .* has 1 and 1"):
        feed.delta(changed(lengths=np.hstack([good.lengths, [[0]]])))
    assert feed.monitor.open_panes == 0
    feed.delta(good)
    assert windows_of(feed.progress(T0 + 70 * S)) == [(-60, 60, 3)]


# A monitor begun at a mark.

TWO_MODELS = """
kafka: {bootstrap.servers: localhost:9092}
input: {topic: inference}
features: {x: numeric}
min_events: 2
allowed_lateness: 10s
models:
  fraud:
    reference: ./a
    alpha: 0.3
    pane: 1m
    windows: WINDOWS
    retention: 20m
    segment_by: [country]
  churn:
    reference: ./b
    pane: 2m
    windows: [4m]
    detectors: {numeric: [ks]}
"""


WINDOWS = "[2m, {size: 4m, hop: 4m}]", "[2m, 7 events]", "[4 events]", "[1m]"


def two_models(tmp_path: Path, windows: str) -> tuple[Config, dict[str, Reference]]:
    config = config_of(tmp_path, TWO_MODELS.replace("WINDOWS", windows))
    rows = reference_rows("ES") + reference_rows("FR")
    return config, {name: reference_of(config, rows, name) for name in config.models}


Message = Delta | Progress


def random_log(rng: np.random.Generator, references: dict[str, Reference]) -> list[Message]:
    """Deltas and progress of three partitions that go idle and resume, with gaps in time."""
    n = 3
    now = [T0 + int(rng.integers(0, 60)) * S for _ in range(n)]
    known: list[int | None] = [None] * n
    idle = [False] * n
    units = [(m, key) for m, r in references.items() for key in r.units]
    log: list[Message] = []
    for _ in range(int(rng.integers(15, 24))):
        p = int(rng.integers(0, n))
        event = rng.random()
        if event < 0.2:
            # It does not move for a while; so the others go on without it.
            idle[p] = True
        elif event > 0.8:
            # Quiet in all of them that are not idle, until every window is empty.
            moved = [q for q in range(n) if not idle[q]]
            for q in moved:
                known[q] = now[q] = max(now[r] for r in moved) + 300 * S
        else:
            gap = 0 if rng.random() < 0.3 else int(rng.integers(0, 100 if event < 0.75 else 900))
            now[p] += gap * S
            if idle[p] and rng.random() < 0.5:
                # Resumes where the others are, not behind them.
                now[p] = max(now)
            idle[p] = False
            chosen = rng.permutation(len(units))[: int(rng.integers(1, 4))].tolist()
            for model, key in [units[i] for i in chosen]:
                k = int(rng.integers(1, 6))
                times = (now[p] - rng.integers(0, 11, k) * S).tolist()
                x = (rng.integers(0, 50, k) + (k > 3) * 20.0).tolist()
                pane_ms = MINUTE if model == "fraud" else 2 * MINUTE
                delta = delta_of(references[model], pane_ms, times, {"x": x}, key=key)
                log.append(delta)
            known[p] = now[p]
        entries = [(ms, "idle" if i else "") for ms, i in zip(known, idle, strict=True)]
        log.append(progress_of(*entries))
    # Ahead at last, so that everything closes.
    log.append(progress_of(*[max(now) + 900 * S] * n))
    return log


def take(monitor: Monitor, offset: int, message: Message) -> Iterator[bytes]:
    if isinstance(message, Delta):
        monitor.delta(offset, message)
    else:
        for verdict in monitor.progress(offset, message):
            yield verdict.value


def test_a_monitor_begun_at_any_mark_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """
    log        ···········|─────────────────────|══════════════════▶
                     mark.offset   (in silence)  position
    """
    seen: Counter[str] = Counter()
    for seed in range(14):
        config, references = two_models(tmp_path, WINDOWS[seed % len(WINDOWS)])
        log = random_log(np.random.default_rng(seed), references)
        whole = Monitor(config, references)
        marks: list[bytes] = []
        made: list[list[bytes]] = []
        for offset, message in enumerate(log):
            marks.append(json.dumps(whole.mark(offset).to_json()).encode())
            made.append(list(take(whole, offset, message)))
        seen["dropped"] += whole.dropped_events
        seen["idle"] += sum(b"idle_partitions" in v for of in made for v in of)
        seen["empty"] += sum(b"window is empty" in v for of in made for v in of)
        seen["onsets"] += sum(b'"since":"' in v for of in made for v in of)
        for position in range(len(log)):
            mark = Mark.from_json(json.loads(marks[position]))
            assert mark.offset <= position
            seen["read again"] += position - mark.offset
            seen["begun at once"] += mark.offset == position > 5
            monitor = Monitor(config, references, mark)
            for offset in range(mark.offset, len(log)):
                monitor.quiet = offset < position
                found = list(take(monitor, offset, log[offset]))
                expected = [] if monitor.quiet else made[offset]
                assert found == expected, (seed, position, offset)
    # All that makes it hard did happen.
    assert min(seen[k] for k in ("dropped", "idle", "empty", "onsets", "begun at once")) > 10, seen


def test_an_onset_is_the_same_after_a_restart_anywhere(tmp_path: Path) -> None:
    """
    x          ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▅▅▅▅▅▅▅▅▁▁▁▁▁▁▁▁▁▁▅▅▅▅▅    windows of 3 m, of 20 m each 4 m, of 60 events
    restarted     ↑  ↑  ↑  ↑  ↑  ↑  ↑  ↑  ↑  ↑  ↑       the panes before the mark are gone
    """
    windows = ["3m", {"size": "20m", "hop": "4m"}, "60 events"]
    config = config_of(tmp_path, windows=windows, retention="30m", alpha=0.05)
    references = {"fraud": reference_of(config, reference_rows())}
    rng = np.random.default_rng(3)
    log: list[Message] = []
    for k in range(70):
        drifts = 30 <= k < 45 or k >= 60
        x = rng.integers(0, 50, 12) + 25.0 * drifts
        if k % 11 != 5:
            times = (T0 + k * MINUTE + np.arange(12) * S).tolist()
            log.append(delta_of(references["fraud"], MINUTE, times, {"x": x.tolist()}))
        log.append(progress_of(T0 + (k + 1) * MINUTE))
    whole = Monitor(config, references)
    made: list[list[tuple[bytes, bytes | None]]] = []
    marks: list[Mark] = []
    for offset, message in enumerate(log):
        marks.append(whole.mark(offset))
        if isinstance(message, Delta):
            whole.delta(offset, message)
            made.append([])
        else:
            made.append([(v.value, v.look) for v in whole.progress(offset, message)])
    told = [orjson.loads(value) for of in made for value, _ in of]
    dated = [v for v in told if v["since"] is not None]
    assert {v["window"]["size"] for v in dated} == {"3m", "20m hop 4m", "60 events"}
    assert all(v["drifted"] for v in dated)
    assert all(v["since"] is not None for v in told if v["drifted"])
    for v in dated:
        assert v["detail"]["since_earliest"] is None or (
            v["detail"]["since_earliest"] <= v["since"] < v["detail"]["since_latest"]
        )
        assert v["since"] < v["window"]["end"]
    for position in range(0, len(log), 3):
        mark = Mark.from_json(json.loads(json.dumps(marks[position].to_json())))
        monitor = Monitor(config, references, mark)
        for offset in range(mark.offset, len(log)):
            monitor.quiet = offset < position
            message = log[offset]
            if isinstance(message, Delta):
                monitor.delta(offset, message)
                continue
            found = [(v.value, v.look) for v in monitor.progress(offset, message)]
            assert found == ([] if monitor.quiet else made[offset]), (position, offset)


def test_the_last_verdict_of_a_look_carries_it(tmp_path: Path) -> None:
    feed, reference = started(tmp_path, windows=["1m", "2m"])
    feed.delta(delta_of(reference, MINUTE, [T0 + i for i in range(40)], {"x": [90.0] * 40}))
    made = feed.progress(T0 + 70 * S)
    assert [v.look is not None for v in made] == [False, False, False, True]
    look = orjson.loads(made[-1].look or b"")
    assert look["windows"] == {"1m": True, "2m": True}
    [entry] = look["features"]
    assert (entry["feature"], entry["detector"], entry["since"]) == ("x", "ks", iso_ms(T0))
    assert entry["since_earliest"] is None
    assert entry["since_latest"] == iso_ms(T0 + MINUTE)


def test_the_mark_forgets_what_no_window_needs(tmp_path: Path) -> None:
    """How much is read again does not grow with the log."""
    feed, reference = started(tmp_path)
    for k in range(50):
        feed.delta(delta_of(reference, MINUTE, [T0 + k * MINUTE, T0 + k * MINUTE + 1]))
        feed.progress(T0 + k * MINUTE + 1)
        behind = feed.offset - feed.monitor.mark(feed.offset).offset
        # Two messages a minute; two minutes in the window, one open, one waiting for lateness.
        assert behind <= 2 * 4
    feed.progress(T0 + 3600 * S)
    assert feed.monitor.mark(feed.offset).offset == feed.offset
    assert len(dict(feed.monitor.windows())["fraud"]._bank.kept) == 0


def test_a_mark_as_json_comes_back(tmp_path: Path) -> None:
    config, references = two_models(tmp_path, "[1m]")
    monitor = Monitor(config, references)
    marks = [START]
    for offset, message in enumerate(random_log(np.random.default_rng(99), references)):
        list(take(monitor, offset, message))
        marks.append(monitor.mark(offset + 1))
    for mark in marks:
        assert Mark.from_json(orjson.loads(orjson.dumps(mark.to_json()))) == mark
    assert len({json.dumps(m.to_json()) for m in marks}) > 5
