"""A column that has one value in the reference, from the reference to the sentence of an alert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from stream_helpers import (
    MINUTE,
    T0,
    Log,
    at_random,
    config_of,
    in_turn,
    python_json,
    reference_of,
    replayed,
    shuffled,
)
from typer.testing import CliRunner

from driftline.detectors import sizes
from driftline.schemas.errors import ProfileError
from driftline.schemas.units import iso_ms
from driftline.stream import profiles
from driftline.stream.alert import wording
from driftline.stream.cli import app
from driftline.stream.reference.check import references
from driftline.stream.reference.switch import promote

CONFIG = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [2m, 5m]
features: {x: numeric, factor: numeric, zero: numeric, vip: boolean, region: categorical}
alpha: 0.001
"""
PER_MINUTE = 60
SAME: Mapping[str, Any] = {"factor": 0.003467, "zero": 0, "vip": True, "region": "eu"}
COMES_ALIVE_MS = T0 + 6 * MINUTE


def rows_of(seed: int, n: int, alive: Mapping[str, Sequence[Any]] | None = None) -> list[Any]:
    """One event a second. alive: name → other values, which every eighth event has from
    `COMES_ALIVE_MS` on."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        ms = T0 + i * MINUTE // PER_MINUTE
        features = {"x": round(float(rng.normal()), 3), **SAME}
        if ms >= COMES_ALIVE_MS and i % 8 == 0:
            features |= {k: v[i % len(v)] for k, v in (alive or {}).items()}
        rows.append({"id": f"{seed}-{i}", "ts": ms, "features": features,
                     "segment": {"country": "ES" if i % 3 else "FR"}})  # fmt: skip
    return rows


def as_log(rows: Sequence[Any], n_partitions: int = 2) -> Log:
    return Log.dealt(
        [python_json(row) for row in rows],
        [i % n_partitions for i in range(len(rows))],
        n_partitions,
    )


ALIVE: Mapping[str, Sequence[Any]] = {
    "factor": [0.1, 0.2, 0.35], "zero": [1, -0.5], "vip": [False], "region": ["us", "asia"],
}  # fmt: skip


@pytest.mark.parametrize("features", [None, "auto"])
def test_a_constant_that_comes_alive_is_drift_at_the_first_look(
    tmp_path: Path, features: str | None
) -> None:
    config = config_of(tmp_path, CONFIG, **({"features": features} if features else {}))
    known = {"fraud": reference_of(config, rows_of(1, 2000))}
    log = as_log(rows_of(2, 12 * PER_MINUTE, ALIVE))
    values, _ = replayed(config, known, log)
    verdicts = [orjson.loads(v) for v in values]
    assert {v["feature"] for v in verdicts} == {"x", *SAME}
    for name in SAME:
        own = [v for v in verdicts if v["feature"] == name]
        # One test in each window; before the change each p-value is 1.
        assert {v["detector"] for v in own} == {"chi_squared"}
        before = [v for v in own if v["window"]["end"] <= iso_ms(COMES_ALIVE_MS)]
        assert {v["p_value"] for v in before} == {1.0}
        first = [v for v in own if v["window"]["end"] == iso_ms(COMES_ALIVE_MS + MINUTE)]
        assert [v["drifted"] for v in first] == [True, True]
        assert {v["since"] for v in first} == {iso_ms(COMES_ALIVE_MS)}
        assert all(v["drifted"] for v in own if v["window"]["end"] > iso_ms(COMES_ALIVE_MS))
    small = next(v for v in verdicts if v["drifted"] and v["feature"] == "factor")
    assert small["window"]["size"] == "2m"
    assert wording.drifted(small).startswith(
        "factor of model fraud was 0.003467 in all reference rows; 6.67% differ in the 2m to "
        "2023-11-15 00:07 UTC, since about 2023-11-15 00:06 UTC; chi-squared p = "
    )
    assert set(small["detail"]["unseen_sample"]) <= {"0.1", "0.2", "0.35"}
    assert not any(v["drifted"] for v in verdicts if v["feature"] == "x")
    # However the log is read, and in whatever batches.
    rng = np.random.default_rng(3)
    assert replayed(config, known, log, shuffled(rng), at_random(rng, 50))[0] == values


def test_what_is_no_number_is_a_dead_letter_also_where_the_number_never_varied(
    tmp_path: Path,
) -> None:
    config = config_of(tmp_path, CONFIG)
    known = {"fraud": reference_of(config, rows_of(1, 400))}
    rows = rows_of(2, 200)
    rows[7]["features"]["factor"] = "0.003467"
    rows[9]["features"]["zero"] = False
    rows[11]["features"]["zero"] = None
    _, work = replayed(config, known, as_log(rows))
    assert (work.counts.summarised, work.counts.dead_lettered) == (198, 2)


def test_large_whole_numbers_are_the_same_in_events_and_in_the_reference(tmp_path: Path) -> None:
    """Beyond 2**53 a number written as a whole one and its float have different texts."""
    config = config_of(tmp_path, CONFIG, features={"x": "numeric", "big": "numeric"})
    rows = rows_of(1, 400)
    for row in rows:
        row["features"]["big"] = 2**60
    known = {"fraud": reference_of(config, rows)}
    values, _ = replayed(config, known, as_log(rows))
    own = [v for v in map(orjson.loads, values) if v["feature"] == "big"]
    assert {v["p_value"] for v in own} == {1.0}


def test_a_segment_may_have_one_value_where_the_model_has_many(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG, segment_by=["country"])

    def rows(seed: int, n: int) -> list[Any]:
        made = rows_of(seed, n)
        for i, row in enumerate(made):
            row["features"]["zero"] = i % 7 if row["segment"]["country"] == "ES" else 4
        return made

    known = {"fraud": reference_of(config, rows(1, 1200))}
    stream = rows(2, 12 * PER_MINUTE)
    for row in stream:
        if row["segment"]["country"] == "FR" and row["ts"] >= COMES_ALIVE_MS:
            row["features"]["zero"] = 5
    verdicts = [orjson.loads(v) for v in replayed(config, known, as_log(stream))[0]]
    tests = {
        (v["segment"].get("country"), v["detector"]) for v in verdicts if v["feature"] == "zero"
    }
    assert tests == {(None, "ks"), (None, "missing_rate"), ("ES", "ks"), ("ES", "missing_rate"),
                     ("FR", "chi_squared")}  # fmt: skip
    found = [v for v in verdicts if v["feature"] == "zero" and v["segment"] == {"country": "FR"}
             and v["drifted"]]  # fmt: skip
    assert found[0]["window"]["end"] == iso_ms(COMES_ALIVE_MS + MINUTE)
    assert "was 4 in all reference rows" in wording.drifted(found[0])


def test_a_reference_in_which_it_varies_takes_over(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG)
    first = reference_of(config, rows_of(1, 600))
    alive = rows_of(4, 600)
    rng = np.random.default_rng(5)
    for row in alive:
        row["features"]["factor"] = round(float(rng.normal()), 2)
        row["features"]["zero"] = int(rng.integers(0, 3))
    profiles.save(first, str(tmp_path / "reference"))
    profiles.save(reference_of(config, alive), str(tmp_path / "new"))
    model, new = config.models["fraud"], str(tmp_path / "new")
    promote(config, model, new, from_ms=COMES_ALIVE_MS, overlap_ms=2 * MINUTE, offline=True)
    stream = rows_of(2, 12 * PER_MINUTE)
    for row in stream:
        if row["ts"] >= COMES_ALIVE_MS - 2 * MINUTE:
            row["features"]["factor"] = round(float(rng.normal()), 2)
            row["features"]["zero"] = int(rng.integers(0, 3))
    values, _ = replayed(config, references(config), as_log(stream), in_turn)
    own = [v for v in map(orjson.loads, values) if v["feature"] in ("factor", "zero")]
    late = [v for v in own if v["window"]["end"] > iso_ms(COMES_ALIVE_MS)]
    early = [v for v in own if v["window"]["end"] <= iso_ms(COMES_ALIVE_MS)]
    assert {v["detector"] for v in early} == {"chi_squared"}
    assert {v["detector"] for v in late} == {"ks", "missing_rate"}
    assert any(v["drifted"] for v in early)
    assert not any(v["drifted"] for v in late)
    # Kinds that an event cannot have both of are still refused, with what to do.
    other = config_of(tmp_path, CONFIG, features={**dict(model.kinds), "zero": "categorical"})
    profiles.save(reference_of(other, rows_of(1, 600)), str(tmp_path / "other"))
    with pytest.raises(ProfileError, match=r"other kinds of zero \(categorical, not numeric\).*with "
                       "their kinds in `features`"):  # fmt: skip
        promote(config, model, str(tmp_path / "other"), from_ms=T0 + 60 * MINUTE, offline=True)


@pytest.mark.parametrize("features", ["auto", "{zero: numeric, vip: boolean}"])
def test_fit_says_what_it_watches_and_a_budget_is_kept(
    tmp_path: Path, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing varies at all."""
    monkeypatch.setattr(sizes, "_WORK", 3e8)
    monkeypatch.setattr(sizes, "FEWEST_REPLICATES", 40)
    text = CONFIG.replace("alpha: 0.001", "false_alarms: 1 per 5000 events")
    named = text.index("features:")
    text = text[:named] + f"features: {features}\n" + text[text.index("false_alarms") :]
    config = config_of(tmp_path, text)
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"\n".join(python_json(row) for row in rows_of(1, 2000)))
    words = ("fit", "--config", str(tmp_path / "driftline.yaml"), "--input", str(source))
    runner = CliRunner(env={"COLUMNS": "300"})
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    said = "zero of fraud is 0 in all 2,000 reference rows: watched for any other value"
    assert said in done.output
    assert "vip of fraud is true in all" in done.output
    known = references(config)
    verdicts = [
        orjson.loads(v)
        for v in replayed(config, known, as_log(rows_of(2, 12 * PER_MINUTE, ALIVE)))[0]
    ]
    levels = {v["alpha"] for v in verdicts if v["feature"] == "zero"}
    assert all(1e-4 < level < 0.1 for level in levels)
    drifted = [v for v in verdicts if v["drifted"] and v["feature"] == "zero"]
    assert drifted[0]["window"]["end"] == iso_ms(COMES_ALIVE_MS + MINUTE)
    page = tmp_path / "page.html"
    stream = tmp_path / "stream.jsonl"
    stream.write_bytes(b"\n".join(map(python_json, rows_of(2, 12 * PER_MINUTE, ALIVE))))
    shown = runner.invoke(app, ("report", *words[1:3], "--input", str(stream), "--out", str(page)))
    assert shown.exit_code == 0, shown.output
    assert "was 0 in all reference rows" in page.read_text()
