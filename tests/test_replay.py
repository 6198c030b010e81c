"""What comes out of a replay: scipy's numbers on the raw events, and the same bytes however the log
is divided, interleaved and read."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from scipy import stats
from stream_helpers import (
    T0,
    Log,
    Order,
    always,
    at_random,
    config_of,
    in_turn,
    one_by_one,
    python_json,
    reference_of,
    replayed,
    shuffled,
)

from driftline.schemas.units import parse_time_ms
from driftline.stream.profiles import Reference

COUNTRIES = ("ES", "FR", "IS")
LATENESS_MS = 10_000
PANE_MS = 600_000

CONFIG = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
pane: 10m
windows: [10m, {size: 1h, hop: 30m}, 9000 events]
features: {x: numeric, k: numeric, c: categorical, b: boolean}
segment_by: [country]
allowed_lateness: 10s
min_events: 2
"""


@dataclass(frozen=True)
class Row:
    """An event as its producer knows it."""

    ms: int
    country: str | None
    values: dict[str, Any]
    version: str | None = None

    def message(self, number: int) -> bytes:
        event: dict[str, Any] = {"id": f"e{number}", "ts": self.ms, "features": self.values}
        if number % 3 == 0:
            event["ts"] = np.datetime64(self.ms, "ms").item().isoformat(timespec="milliseconds")
            event["ts"] += "Z"
        if self.country is not None:
            event["segment"] = {"country": self.country}
        if self.version is not None:
            event["version"] = self.version
        return python_json(event)


def rows_of(rng: np.random.Generator, times: Sequence[int], shift: float = 0.0) -> list[Row]:
    """Ties, missing and absent values, NaN and infinities, and in the stream new categories."""
    n = len(times)
    x = np.where(rng.random(n) < 0.3, np.round(rng.normal(shift, 1, n), 1), rng.normal(shift, 1, n))
    k = rng.poisson(4 + shift, n)
    c = rng.choice(["books", "food", "toys", "ñandú"], n, p=[0.5, 0.3, 0.15, 0.05])
    country = rng.choice(COUNTRIES, n, p=[0.8, 0.15, 0.05])
    odd = rng.random((n, 4))
    rows = []
    for i in range(n):
        values: dict[str, Any] = {
            "x": float(x[i]), "k": int(k[i]), "c": str(c[i]), "b": bool(odd[i, 3] < 0.4)
        }  # fmt: skip
        if odd[i, 0] < 0.03:
            values["x"] = (None, math.nan, math.inf, -math.inf)[i % 4]
        if odd[i, 1] < 0.02:
            del values["k"]
        if odd[i, 2] < 0.03:
            values["c"] = None if i % 3 == 0 or not shift else f"new{i % 40}"
        if odd[i, 3] > 0.97:
            values["b"] = (None, 0, 1, "true")[i % 4]
        rows.append(Row(times[i], None if i % 97 == 0 else str(country[i]), values))
    return rows


def fitted(tmp_path: Path, n: int = 600) -> tuple[Any, dict[str, Reference], list[Row]]:
    config = config_of(tmp_path, CONFIG)
    rows = rows_of(np.random.default_rng(11), [T0] * n)
    events = [orjson_like(row) for row in rows]
    return config, {"fraud": reference_of(config, events)}, rows


def orjson_like(row: Row) -> dict[str, Any]:
    segment = {} if row.country is None else {"country": row.country}
    return {"features": row.values, "segment": segment}


def on_time(rows: Sequence[Row], owner: Sequence[int]) -> list[bool]:
    """The definition: late is what lies further than allowed behind the largest before it."""
    largest: dict[int, int] = {}
    kept = []
    for row, p in zip(rows, owner, strict=True):
        kept.append(row.ms >= largest.get(p, row.ms) - LATENESS_MS)
        largest[p] = max(largest.get(p, row.ms), row.ms)
    return kept


def finite(values: list[Any]) -> list[float]:
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def category(value: Any, known: set[str]) -> str:
    """One class for all that the reference never saw, one for what is missing."""
    if value is None:
        return "missing"
    name = {True: "true", False: "false"}.get(value, value)
    return f"={name}" if name in known else "unseen"


def boolean(value: Any) -> Any:
    return {0: False, 1: True, "true": True}.get(value, value) if value is not None else None


def scipy_ks(reference: list[float], window: list[float]) -> tuple[float, float, str]:
    method = "exact" if len(reference) * len(window) <= 1_000_000 else "asymp"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = stats.ks_2samp(reference, window, method=method)
    return float(result.statistic), float(result.pvalue), method


def scipy_chi_squared(reference: list[Any], window: list[Any]) -> tuple[float, float]:
    known = {str({True: "true", False: "false"}.get(v, v)) for v in reference if v is not None}
    before = Counter(category(v, known) for v in reference)
    now = Counter(category(v, known) for v in window)
    classes = sorted(before.keys() | now.keys())
    result = stats.chi2_contingency(
        [[before[c] for c in classes], [now[c] for c in classes]], correction=False
    )
    return float(result.statistic), float(result.pvalue)  # type: ignore[attr-defined]


def test_every_verdict_of_200000_events_has_scipys_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    config, references, reference_rows = fitted(tmp_path)
    n = 200_000
    # One event each 75 ms, up to 9 s out of order; one in 400 is up to ten minutes late.
    times = T0 + np.arange(n) * 75 - rng.integers(0, 9000, n)
    times[rng.random(n) < 0.0025] -= rng.integers(0, PANE_MS)
    first, second = (
        rows_of(rng, times[: n // 2].tolist()),
        rows_of(rng, times[n // 2 :].tolist(), 0.15),
    )
    rows = first + second
    owner = rng.integers(0, 3, n).tolist()
    log = Log.dealt([row.message(i) for i, row in enumerate(rows)], owner, 3)
    verdicts, work = replayed(config, references, log, shuffled(rng), at_random(rng, 30_000))

    kept = on_time(rows, owner)
    assert work.counts.as_dict() == {
        "received": n, "summarised": sum(kept), "late": n - sum(kept), "dead_lettered": 0,
        "ignored": 0,
    }  # fmt: skip
    assert work.counts.balanced
    assert 100 < n - sum(kept) < 2000
    raw = sorted((row for row, keep in zip(rows, kept, strict=True) if keep), key=lambda r: r.ms)
    by_unit: dict[str, list[Row]] = {"": raw}
    reference_by_unit = {"": reference_rows}
    for country in COUNTRIES:
        by_unit[country] = [row for row in raw if row.country == country]
        reference_by_unit[country] = [r for r in reference_rows if r.country == country]
    starts = {unit: np.array([r.ms for r in of]) for unit, of in by_unit.items()}
    seen: Counter[tuple[str, str]] = Counter()
    for text in verdicts:
        v = orjson.loads(text)
        unit = v["segment"].get("country", "")
        edges = [parse_time_ms(v["window"][edge]) for edge in ("start", "end")]
        a, b = np.searchsorted(starts[unit], edges).tolist()
        window = by_unit[unit][a:b]
        assert v["window"]["n"] == len(window)
        if v["status"] != "ok" or v["detector"] == "missing_rate":
            continue
        name = v["feature"]
        now = [r.values.get(name) for r in window]
        before = [r.values.get(name) for r in reference_by_unit[unit]]
        if v["detector"] == "ks":
            statistic, p_value, method = scipy_ks(finite(before), finite(now))
            missing = sum(x is None for x in now)
            detail = v["detail"]
            assert detail["method"] == method
            assert (detail["n_reference"], detail["n_test"]) == tuple(
                len(finite(values)) for values in (before, now)
            )
            assert detail.get("missing", 0) == missing
            assert detail.get("non_finite", 0) == len(now) - missing - detail["n_test"]
            seen["ks", method] += 1
        else:
            if name == "b":
                before, now = [boolean(x) for x in before], [boolean(x) for x in now]
            statistic, p_value = scipy_chi_squared(before, now)
            seen["chi_squared", name] += 1
        assert v["statistic"] == pytest.approx(statistic, rel=1e-9, abs=0), v
        # Below 1e-290 both are made of denormals.
        assert v["p_value"] == pytest.approx(p_value, rel=1e-9, abs=1e-290), v
    assert min(seen.values()) >= 100, seen
    assert set(seen) == {
        ("ks", "exact"), ("ks", "asymp"), ("chi_squared", "b"), ("chi_squared", "c"),
    }  # fmt: skip
    assert any(orjson.loads(v)["drifted"] for v in verdicts)


def window_in_events(tmp_path: Path) -> str:
    return CONFIG.replace("9000 events", "50 events")


SPAN_MS = 4 * 3_600_000


def stream(n: int, seed: int) -> list[Row]:
    """Events in order of time."""
    rng = np.random.default_rng(seed)
    times = np.sort(T0 + rng.integers(0, SPAN_MS, n))
    # A silence of an hour, so that windows become empty.
    times[times > T0 + SPAN_MS // 2] += 2 * 3_600_000
    rows = rows_of(rng, times.tolist(), 0.3)
    return [Row(r.ms, r.country, r.values, f"v{i * 2 // n}") for i, r in enumerate(rows)]


def end_of_time(partitions: int) -> list[bytes]:
    """What moves every partition past the last pane, without being an event of the model: so no
    pane waits for the end of the log, and no verdict has to say so."""
    ms = T0 + 24 * 3_600_000
    return [python_json({"id": f"end{p}", "ts": ms, "model": "another"}) for p in range(partitions)]


def divided(rows: Sequence[Row], arrival: Sequence[int], owner: Sequence[int], n: int) -> Log:
    messages: list[bytes | None] = [rows[i].message(i) for i in arrival]
    return Log.dealt([*messages, *end_of_time(n)], [*owner, *range(n)], n)


def test_division_interleaving_batches_and_arrival_change_no_byte(tmp_path: Path) -> None:
    config, references, _ = fitted(tmp_path)
    rows = stream(4000, 21)
    n = len(rows)
    log = divided(rows, range(n), [0] * n, 1)
    expected, work = replayed(config, references, log, in_turn, always(n + 1))
    assert len(expected) > 1000
    assert work.counts.late == 0
    assert sum(b'"drifted":true' in v for v in expected) > 20
    assert sum(b"the window is empty" in v for v in expected) > 20
    assert not any(b"idle_partitions" in v for v in expected)
    for seed in range(18):
        rng = np.random.default_rng(100 + seed)
        n_partitions = (1, 3, 7)[seed % 3]
        # Never further out of order than is allowed.
        jitter = rng.integers(0, LATENESS_MS + 1, n) * (seed % 4 > 0)
        arrival = np.argsort(np.array([r.ms for r in rows]) + jitter, kind="stable").tolist()
        log = divided(rows, arrival, rng.integers(0, n_partitions, n).tolist(), n_partitions)
        order: Order = (in_turn, one_by_one, shuffled(rng))[seed // 3 % 3]
        sizes = (at_random(rng, 3000), always(97), always(10_000))[seed // 2 % 3]
        found, work = replayed(config, references, log, order, sizes)
        assert work.counts.late == 0
        assert work.counts.ignored == n_partitions
        assert work.counts.summarised == n
        assert found == expected, seed


def test_the_same_partitions_with_late_events_give_the_same_bytes_however_read(
    tmp_path: Path,
) -> None:
    """Which events are late is a property of each partition's log, not of who reads it when."""
    config, references, _ = fitted(tmp_path)
    rows = stream(5000, 22)
    n = len(rows)
    rng = np.random.default_rng(23)
    arrival = np.argsort([r.ms + rng.integers(0, 90_000) for r in rows], kind="stable").tolist()
    owner = rng.integers(0, 3, n).tolist()
    log = divided(rows, arrival, owner, 3)
    kept = on_time([rows[i] for i in arrival], owner)
    expected, work = replayed(config, references, log)
    assert work.counts.late == n - sum(kept) > 500
    for seed in range(8):
        rng = np.random.default_rng(seed)
        order = (in_turn, one_by_one, shuffled(rng))[seed % 3]
        found, work = replayed(config, references, log, order, at_random(rng, 2000))
        assert found == expected
        assert work.counts.as_dict() == {
            "received": n + 3, "summarised": sum(kept), "late": n - sum(kept), "dead_lettered": 0,
            "ignored": 3,
        }  # fmt: skip
    # The end of the log, too, is its own: it does not matter what was read together with it.
    rows = [row if i < 4500 else Row(row.ms, "ES", row.values) for i, row in enumerate(rows)]
    values: list[bytes | None] = [rows[i].message(i) for i in arrival]
    bare = Log.dealt(values, owner, 3)
    found = {
        b"".join(replayed(config, references, bare, order, always(size))[0])
        for order in (in_turn, one_by_one) for size in (1 << 20, 1000, 333, 50)
    }  # fmt: skip
    assert len(found) == 1
    assert b"idle_partitions" in found.pop()
    # And another division of the same events has other late ones.
    other = divided(rows, arrival, rng.integers(0, 3, n).tolist(), 3)
    assert replayed(config, references, other)[1].counts.late != n - sum(kept)


def test_lateness_to_the_millisecond(tmp_path: Path) -> None:
    """
    partition 0   ●60 ──── ○50.000 ──── ✗49.999 ──── ●70 ── ✗59.999      ○ just in time, ✗ late
    partition 1   ●20 ──── ●10                          (what 0 has seen is nothing to 1)
    """
    config, references, rows = fitted(tmp_path)
    sample = rows[1]

    def at(seconds: float) -> bytes:
        return Row(T0 + int(seconds * 1000), sample.country, sample.values).message(1)

    log = Log([[at(60), at(50), at(49.999), at(70), at(59.999)], [at(20), at(10)]])
    for sizes in (always(1), always(2), always(100)):
        _, work = replayed(config, references, log, in_turn, sizes)
        assert (work.counts.summarised, work.counts.late) == (5, 2)


def test_the_end_of_a_partition_is_known_and_said(tmp_path: Path) -> None:
    """
    partition 0   ●●●●●●●●●●●●●●●●●▏ ends after 40 minutes
    partition 1   ●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●●▏ after 80
    """
    config, references, _ = fitted(tmp_path)
    rng = np.random.default_rng(31)
    rows = rows_of(rng, (T0 + np.arange(4800) * 1000).tolist())
    owner = [int(i >= 2400 or i % 2) for i in range(4800)]
    log = Log.dealt([row.message(i) for i, row in enumerate(rows)], owner, 2)
    verdicts, work = replayed(config, references, log, in_turn, always(100))
    assert work.monitor.open_panes == 0
    said: dict[int, set[tuple[str, ...]]] = {}
    for v in map(orjson.loads, verdicts):
        end = (parse_time_ms(v["window"]["end"]) - T0) // 60_000
        said.setdefault(end, set()).add(tuple(v["detail"].get("idle_partitions", ())))
    assert said == {
        10: {()}, 20: {()}, 30: {()},
        # Partition 0 ended at 39:58, so nobody can know that 40:00 is past, nor 40:10.
        40: {("inference[0]",)}, 50: {("inference[0]",)}, 60: {("inference[0]",)},
        70: {("inference[0]",)}, 80: {("inference[0]", "inference[1]")},
    }  # fmt: skip


def test_refusals_are_kept_for_people_and_counted(tmp_path: Path) -> None:
    config, references, rows = fitted(tmp_path)
    values: list[bytes | None] = [row.message(i) for i, row in enumerate(rows[:100])]
    values += [b"{broken%d" % i for i in range(50)] + [None]
    _, work = replayed(config, references, Log([values]), in_turn, always(9))
    assert work.counts.dead_lettered == 51
    assert work.counts.summarised == 100
    assert work.counts.balanced
    assert len(work.refused) == 20
    assert {e.reason for _, e in work.refused} == {"not_json"}
    assert [place for place, _ in work.refused] == [f"inference[0]@{100 + i}" for i in range(20)]
    assert (work.done, work.total) == (151, 151)
