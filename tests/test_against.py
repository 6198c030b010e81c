"""Windows compared with an earlier part of the stream: the numbers are scipy's on the raw values.

panes     ▁▂▁▂▁▂▁▂▁▂▁▂▁▂▁▂▁▂▁▂▁▂▁▂▁▂
sliding       [═══════════)lag[window)
seasonal  [══)      [══)      [window)     the same hour in the periods before
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from scipy import stats
from stream_helpers import (
    MINUTE,
    T0,
    Log,
    always,
    config_of,
    in_turn,
    one_by_one,
    python_json,
    reference_of,
    replayed,
    shuffled,
)

from driftline.detectors import Columns, WindowBank, fit, summarize
from driftline.detectors.base import detectors
from driftline.detectors.earlier import profile_of
from driftline.detectors.windows import Earlier
from driftline.schemas.errors import ConfigError
from driftline.schemas.units import parse_time_ms, parse_window
from driftline.schemas.verdict import Verdict
from driftline.stream.config.against import DETECTORS, Part
from driftline.stream.monitor import Mark, Monitor

CONFIG = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [3m, {size: 6m, hop: 2m}]
features: {x: numeric, k: numeric, c: categorical}
allowed_lateness: 10s
min_events: 5
"""
SLIDING: dict[str, Any] = {"sliding": "10m", "lag": "2m"}
SEASONAL: dict[str, Any] = {"period": "8m", "periods": 3}
SEVERAL: list[Any] = ["reference", SLIDING | {"name": "lately"}, SEASONAL]
ALL: Any = pytest.mark.parametrize(
    "against", [SLIDING, SEASONAL, SEVERAL], ids=["sliding", "seasonal", "several"]
)


def rows_of(seed: int, n: int, minutes: int = 40) -> list[dict[str, Any]]:
    """x has grown beyond its fitted range, k has few values, c new categories."""
    rng = np.random.default_rng(seed)
    times = T0 + np.sort(rng.integers(0, minutes * MINUTE, n))
    rows = []
    for i, ms in enumerate(times.tolist()):
        late = (ms - T0) / (minutes * MINUTE)
        rows.append({
            "id": f"e{i}",
            "ts": ms,
            "features": {
                "x": None if rng.random() < 0.05 else float(rng.normal(late)),
                "k": int(rng.poisson(4 + 2 * late)),
                "c": None if rng.random() < 0.05 else str(rng.choice(["a", "b", "new", "newer"])),
            },
        })  # fmt: skip
    return rows


def reference_rows(n: int = 400) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"features": {"x": float(rng.normal()), "k": int(rng.poisson(4)), "c": "ab"[i % 2]}}
        for i in range(n)
    ]


def dealt(rows: list[dict[str, Any]], n: int = 2) -> Log:
    values = [python_json(row) for row in rows]
    return Log.dealt(values, [i % n for i in range(len(rows))], n)


def earlier(against: Part, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """The definition in the documentation."""
    if against.sliding_ms:
        until = start_ms - against.lag_ms
        return [(until - against.sliding_ms, until)]
    shifts = [k * against.period_ms for k in range(1, against.periods + 1)]
    return [(start_ms - s, end_ms - s) for s in shifts]


@ALL
def test_verdicts_are_scipy_on_the_raw_values_of_both_parts(tmp_path: Path, against: Any) -> None:
    config = config_of(tmp_path, CONFIG, against=against)
    found = config.models["fraud"].against
    assert found is not None
    parts = {part.name: part for part in found.parts}
    reference = reference_of(config, reference_rows())
    rows = rows_of(1, 1600)
    made, _ = replayed(config, {"fraud": reference}, dealt(rows))
    known = set("ab")
    cells = {f.name: f.values for f in reference.whole.numeric}
    seen: Counter[str] = Counter()
    named: Counter[str] = Counter()
    # x and k have two tests each, c one; in each of two windows.
    level = 0.01 / (2 * 5 * (len(parts) + found.fitted))
    for value in made:
        v = orjson.loads(value)
        assert Verdict.from_json(value).id == v["id"]
        start, end = (parse_time_ms(v["window"][edge]) for edge in ("start", "end"))
        name = v["reference"]["name"]
        named[name] += 1
        assert v["alpha"] == pytest.approx(level)
        with_ms = [(r["ts"], r["features"][v["feature"]]) for r in rows]
        now = [x for ms, x in with_ms if start <= ms < end]
        if name == "reference":
            before = [r["features"][v["feature"]] for r in reference_rows()]
            assert v["reference"]["id"] == reference.whole.id
        else:
            spans = earlier(parts[name], start, end)
            before = [x for ms, x in with_ms if any(a <= ms < b for a, b in spans)]
            assert v["detail"]["compared_with"]["parts"] == len(spans)
            assert parse_time_ms(v["detail"]["compared_with"]["start"]) == min(a for a, _ in spans)
            assert v["since"] is None
        assert v["window"]["n"] == len(now)
        assert v["reference"]["n"] == len(before)
        if v["status"] != "ok":
            assert len(before) < 5 or len(now) < 5
            seen["insufficient"] += 1
        elif v["detector"] == "ks":
            a, b = ([x for x in part if x is not None] for part in (before, now))
            exact = stats.ks_2samp(a, b)
            # All values of k are reference values, so its cells are exact.
            if v["feature"] == "k" or name == "reference":
                assert v["statistic"] == pytest.approx(exact.statistic, abs=1e-12)
                assert v["p_value"] == pytest.approx(exact.pvalue, rel=1e-9, abs=1e-300)
            else:
                error = v["detail"]["statistic_error"]
                assert -1e-12 <= exact.statistic - v["statistic"] <= error + 1e-12
                place = np.searchsorted(cells["x"], a)
                assert error == pytest.approx(np.bincount(place).max() / len(a))
            effect = v["effect"]
            assert effect["reference"] == pytest.approx(np.mean(a), abs=2e-5)
            assert effect["window"] == pytest.approx(np.mean(b), abs=2e-5)
            sd = np.std(a, ddof=1)
            assert effect["value"] == pytest.approx((np.mean(b) - np.mean(a)) / sd, abs=1e-3)
        elif v["detector"] == "chi_squared":
            table = [
                Counter("missing" if x is None else x if x in known else "other" for x in part)
                for part in (before, now)
            ]
            classes = sorted(set(table[0]) | set(table[1]))
            expected = stats.chi2_contingency([[t[c] for c in classes] for t in table], False)
            assert v["statistic"] == pytest.approx(expected.statistic, rel=1e-9, abs=1e-12)
            assert v["p_value"] == pytest.approx(expected.pvalue, rel=1e-9)
        seen[v["detector"]] += v["status"] == "ok"
    ids = [orjson.loads(value)["id"] for value in made]
    assert len(set(ids)) == len(ids)
    # Each look is made against each of them.
    assert set(named) == {*parts, *(["reference"] if found.fitted else [])}
    assert len(set(named.values())) == 1
    assert min(seen[n] for n in ("ks", "chi_squared", "missing_rate", "insufficient")) > 20, seen


def test_every_allowed_detector_says_what_it_says_of_a_fitted_reference() -> None:
    """With values that are all reference values, an earlier part is the reference fitted on it."""
    rng = np.random.default_rng(3)

    def columns(n: int, shift: float) -> dict[str, Any]:
        return {
            "x": np.clip(rng.poisson(5 + shift, n), 0, 11).astype(float),
            "c": rng.choice(["a", "b", "c", "d"], n, p=[0.4, 0.3, 0.2, 0.1]).tolist(),
            "b": rng.choice(["true", "false"], n, p=[0.6 - shift / 10, 0.4 + shift / 10]).tolist(),
        }

    kinds: Any = {"x": "numeric", "c": "categorical", "b": "boolean"}
    grid = {"x": np.arange(12.0).repeat(5), "c": list("abcd") * 15, "b": ["true", "false"] * 30}
    base, _ = fit(grid, kinds)
    before, now = columns(300, 0.0), columns(200, 0.6)
    window = parse_window("1m")
    against = [[Earlier(MINUTE, MINUTE)]]
    bank = WindowBank(base, [window], MINUTE, 100 * MINUTE, lambda spec: against)
    due = []
    for k, part in enumerate((before, now)):
        values = Columns.of(base, part)
        [pane] = summarize(base, values, np.full(values.n, k * MINUTE, np.int64))
        due = bank.push((k + 1) * MINUTE, pane)
    derived = profile_of(base, due[0].before[0], "earlier")
    fitted, _ = fit(before, kinds)
    assert derived.n_rows == fitted.n_rows == 300
    own = WindowBank(fitted, [window], MINUTE, 100 * MINUTE)
    values = Columns.of(fitted, now)
    [pane] = summarize(fitted, values, np.zeros(values.n, np.int64))
    theirs = own.push(MINUTE, pane)
    for name in DETECTORS:
        detector = detectors()[name]
        for i, f in enumerate(base.features):
            if f.kind in detector.kinds:
                assert fitted.names[i] == f.name
                [[mine]] = detector.test(derived, due, [i])
                [[wanted]] = detector.test(fitted, theirs, [i])
                assert mine.statistic == pytest.approx(wanted.statistic, rel=1e-9), (name, f.name)
                assert mine.p_value == pytest.approx(wanted.p_value, rel=1e-9), (name, f.name)
                assert mine.effect is not None
                assert wanted.effect is not None
                assert mine.effect.value == pytest.approx(wanted.effect.value, rel=1e-4)


def test_a_part_of_the_stream_in_which_nothing_varies_is_a_reference_too(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG, against=SLIDING)
    reference = reference_of(config, reference_rows())
    rows = rows_of(4, 1200)
    for row in rows:
        row["features"] |= {"x": 1.0, "k": 3, "c": None}
        if row["ts"] > T0 + 30 * MINUTE:
            row["features"] |= {"x": None}
    made, _ = replayed(config, {"fraud": reference}, dealt(rows))
    told = [orjson.loads(v) for v in made]
    assert {v["statistic"] for v in told if v["detector"] == "ks" and v["status"] == "ok"} == {0.0}
    gone = [v for v in told if (v["feature"], v["detector"]) == ("x", "missing_rate")]
    assert any(v["drifted"] for v in gone)
    assert all(math.isfinite(v["effect"]["value"]) for v in told if v["effect"] is not None)


def test_each_of_several_says_what_it_says_alone(tmp_path: Path) -> None:
    """But for the level, which is shared, and since when, for which more panes are kept."""
    log, rows = dealt(rows_of(6, 900)), reference_rows()

    def told(against: Any) -> list[dict[str, Any]]:
        config = config_of(tmp_path, CONFIG, against=against)
        made, _ = replayed(config, {"fraud": reference_of(config, rows)}, log)
        return [orjson.loads(v) for v in made]

    def kept(v: dict[str, Any]) -> dict[str, Any]:
        detail = {k: x for k, x in v["detail"].items() if not k.startswith("since")}
        reference = {k: x for k, x in v["reference"].items() if k != "name"}
        own = {k: x for k, x in v.items() if k not in ("alpha", "drifted", "since")}
        return own | {"detail": detail, "reference": reference}

    together = told(SEVERAL)
    fitted = told(None)
    assert all("name" not in v["reference"] for v in fitted)
    assert told(["reference"]) == told("reference") == fitted
    for name, alone in (
        ("reference", fitted),
        ("lately", told(SLIDING)),
        ("period 8m × 3", told(SEASONAL)),
    ):
        mine = [kept(v) for v in together if v["reference"]["name"] == name]
        assert mine == [kept(v) for v in alone]
        assert len(mine) == 300
    # At one window end the fitted reference speaks first.
    ends = [v["window"]["end"] for v in together]
    assert ends == sorted(ends)


def test_what_an_earlier_part_cannot_be_compared_by_is_tested_against_the_fitted_reference(
    tmp_path: Path,
) -> None:
    changes: dict[str, Any] = {
        "against": ["reference", {"period": "4m"}, SLIDING],
        "windows": ["3m", "6m", "200 events"],
        "detectors": {"numeric": ["ks", "mean_shift"], "categorical": ["new_category", "fisher"]},
        "features": {"b": "boolean"},  # beside x, k and c
        "groups": {"both": {"features": ["x", "k"], "windows": [20], "sample": 60}},
    }
    config = config_of(tmp_path, CONFIG, **changes)

    def boolean(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for i, row in enumerate(rows):
            x = row["features"]["x"]
            row["features"] |= {"b": i % 3 == 0, "x": 0.0 if x is None else x}
        return rows

    reference = reference_of(config, boolean(reference_rows(800)))
    made, _ = replayed(config, {"fraud": reference}, dealt(boolean(rows_of(7, 1200))))
    found = {
        (v["reference"]["name"], v["window"]["size"], v["detector"])
        for v in map(orjson.loads, made)
    }
    four = ("ks", "mean_shift", "fisher", "new_category")
    every = {(w, d) for w in ("3m", "6m", "200 events") for d in four}
    assert found == {
        *(("reference", *test) for test in every),
        ("reference", "20 events", "online_mmd"),
        # A window of 6m is longer than a period of 4m.
        *(("period 4m", "3m", d) for d in ("ks", "fisher")),
        *(("sliding 10m lag 2m", w, d) for w in ("3m", "6m") for d in ("ks", "fisher")),
    }
    level = next(v["alpha"] for v in map(orjson.loads, made) if v["detector"] == "ks")
    # x, k and b by two detectors each and c by one, in three windows; then all but c by one each, in
    # one window and in two.
    assert level == pytest.approx(0.01 / (3 * 7 + 3 + 2 * 3))


@ALL
def test_any_order_of_reading_and_any_restart_say_the_same(tmp_path: Path, against: Any) -> None:
    config = config_of(tmp_path, CONFIG, against=against)
    reference = reference_of(config, reference_rows())
    # A pause longer than all windows, behind which earlier parts still hold events.
    rows = [r for r in rows_of(5, 900) if not 15 <= (r["ts"] - T0) / MINUTE < 24]
    log = dealt(rows, 3)
    expected, _ = replayed(config, {"fraud": reference}, log, in_turn, always(40))
    for order in (one_by_one, shuffled(np.random.default_rng(1))):
        made, _ = replayed(config, {"fraud": reference}, log, order, always(333))
        assert sorted(made) == sorted(expected)
    from test_references import random_log, take

    messages = random_log(np.random.default_rng(2), reference, rows)
    whole = Monitor(config, {"fraud": reference})
    marks, told = [], []
    for offset, message in enumerate(messages):
        marks.append(Mark.from_json(orjson.loads(orjson.dumps(whole.mark(offset).to_json()))))
        told.append(list(take(whole, offset, message)))
    assert sum(map(len, told)) > 100
    for position in range(0, len(messages), 8):
        again = Monitor(config, {"fraud": reference}, marks[position])
        for offset in range(marks[position].offset, len(messages)):
            again.quiet = offset < position
            found = list(take(again, offset, messages[offset]))
            assert found == ([] if again.quiet else told[offset])
    assert marks[-1].offset > len(messages) - 80


@pytest.mark.parametrize(("change", "rule"), [
    ({"against": "7d"}, "against is a mapping"),
    ({"against": {}}, "either `sliding`, a length, or `period`"),
    ({"against": {"sliding": "7d", "period": "1w"}}, "either `sliding`, a length, or `period`"),
    ({"against": {"slide": "7d"}}, "no such key; write sliding"),
    ({"against": {"sliding": "90s"}}, "sliding is a multiple of 1m; write 2m"),
    ({"against": {"sliding": "0s"}}, "sliding is longer than nothing"),
    ({"against": {"sliding": "1h", "periods": 2}}, "`periods` does not go with `sliding`"),
    ({"against": {"period": "1d", "lag": "1h"}}, "`lag` does not go with `period`"),
    ({"against": {"period": "1d", "periods": 0}}, "periods is a whole number from 1 to 100"),
    ({"against": {"period": "5m", "periods": 2}}, "longer than the period, 5m"),
    ({"against": {"sliding": "7d"}}, "this window with what it is compared with needs them"),
    ({"against": SLIDING, "windows": ["200 events"]}, "windows have a length in time"),
    ({"against": SLIDING, "detectors": {"numeric": ["mean_shift"]}}, "read counts alone: ks"),
    ({"against": ["reference", SLIDING], "detectors": {"numeric": ["mean_shift"]}},
     "name one of them, too"),
    ({"against": []}, "at least one thing to compare with"),
    ({"against": ["reverence", SLIDING]}, "in which the word `reference` is the fitted one"),
    ({"against": [SLIDING, "reference", SLIDING]}, "`sliding 10m lag 2m` is there already"),
    ({"against": ["reference", "reference"]}, "`reference` is there already"),
    ({"against": [SLIDING, SLIDING | {"name": "again"}]}, "the same part of the stream as `slidi"),
    ({"against": {"sliding": "9m", "name": "reference"}}, "the name of the fitted reference"),
    ({"against": {"sliding": "9m", "name": ""}}, "1 to 50 printable characters"),
    ({"against": ["reference", {"period": "2m"}]}, "no window can be compared with it"),
    ({"against": ["reference", SEASONAL], "windows": ["200 events"]}, "no window can be compared"),
    ({"against": ["reference", {"sliding": "90s"}]}, "sliding is a multiple of 1m; write 2m"),
    ({"against": ["reference", {"sliding": "7d"}]}, "what it is compared with needs them"),
    ({"against": SLIDING, "false_alarms": "1 per 30d"}, "write alpha: 0.01 in its place"),
    ({"against": SLIDING, "false_alarms": "about 1 per 30d"}, "write alpha: 0.01 in its place"),
    ({"against": SEVERAL, "false_alarms": "1 per 30d"}, "in its place, or about 1 per 30d, which"),
    ({"against": SLIDING, "groups": {"g": ["x", "k"]}}, "compared with the fitted reference only"),
])  # fmt: skip
def test_what_does_not_go_with_it_is_named(
    tmp_path: Path, change: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, CONFIG, **change)
    assert rule in str(caught.value)


def test_tune_does_not_take_it(tmp_path: Path) -> None:
    from driftline.stream.tune.command import Options, task_of

    config = config_of(tmp_path, CONFIG, against=SLIDING)
    with pytest.raises(ConfigError, match="tune tries the fitted reference only"):
        task_of(config, config.models["fraud"], Options())
