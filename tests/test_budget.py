"""A budget of false alarms on its way: driftline.yaml → fit → reference → the level in a verdict.

That the levels keep the budget is shown in test_calibration.py; here the simulation is a short one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from stream_helpers import Log, replayed
from typer.testing import CliRunner

from driftline.detectors import sizes
from driftline.schemas.errors import ProfileError
from driftline.schemas.units import FalseAlarms, parse_false_alarms
from driftline.stream import profiles
from driftline.stream.calibrate import keep_budget
from driftline.stream.cli import app
from driftline.stream.config.document import Config, load
from driftline.stream.fit import Rows, collect, fit_rows
from driftline.stream.reference.check import references

CONFIG = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [5m, 300 events]
features: {amount: numeric, merchant: categorical}
false_alarms: 1 per 5000 events
"""
PER_MINUTE = 60
START_MS = 1_700_000_000_000


@pytest.fixture(autouse=True)
def short_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_WORK", 3e8)
    monkeypatch.setattr(sizes, "FEWEST_REPLICATES", 40)


def events(n: int, seed: int = 0, **more: Any) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [
        orjson.dumps(
            {
                "id": f"{seed}-{i}",
                "ts": START_MS + i * 60_000 // PER_MINUTE,
                "features": {
                    "amount": round(float(rng.normal()), 3),
                    "merchant": str(rng.choice(["books", "food", "toys"], p=[0.6, 0.3, 0.1])),
                },
                "segment": {"country": "ES" if i % 4 else "FR"},
                **more,
            }
        )
        for i in range(n)
    ]


def config_of(directory: Path, text: str = CONFIG) -> Config:
    path = directory / "driftline.yaml"
    path.write_text(text)
    return load(path)


def kept(config: Config, values: list[bytes], **options: Any) -> profiles.Reference:
    model = config.models["fraud"]
    rows: Rows = collect(model, values)
    return keep_budget(fit_rows(rows, {}).reference, rows, **options)


@pytest.mark.parametrize(
    ("text", "events", "ms"),
    [
        ("1 per 30d", None, 30 * 86_400_000),
        ("2 per 1w", None, 3.5 * 86_400_000),
        ("1 per 100_000 events", 100_000, None),
        ("4  per  10,000 events", 2_500, None),
    ],
)
def test_a_budget_is_per_time_or_per_events(text: str, events: float | None, ms: float | None):
    assert parse_false_alarms(text) == FalseAlarms(events, ms, " ".join(text.split()))


@pytest.mark.parametrize(
    "text", ["30d", "0 per 30d", "1 per 0 events", "1 per 0s", "1 in 30d", "-1 per 1d", 1, None]
)
def test_anything_else_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="1 per 30d, 1 per 100000 events"):
        parse_false_alarms(text)


def test_the_level_of_each_test_is_in_its_verdicts(tmp_path: Path) -> None:
    config_of(tmp_path)
    (tmp_path / "ref.jsonl").write_bytes(b"\n".join(events(2_000)))
    (tmp_path / "new.jsonl").write_bytes(b"\n".join(events(1_500, seed=1)))
    common = ["--config", str(tmp_path / "driftline.yaml"), "--input"]
    fitted = CliRunner().invoke(app, ["fit", *common, str(tmp_path / "ref.jsonl")])
    assert fitted.exit_code == 0, fitted.output
    assert "1 per 5000 events, at 3,600 events an hour" in fitted.output
    out = tmp_path / "verdicts.jsonl"
    words = ["replay", *common, str(tmp_path / "new.jsonl"), "--out", str(out)]
    assert CliRunner().invoke(app, words).exit_code == 0
    budget = profiles.load(str(tmp_path / "reference"), "fraud").budget
    assert budget is not None
    levels = budget.units["fraud"].levels
    seen: set[tuple[str, str, str]] = set()
    for line in out.read_bytes().splitlines():
        verdict = orjson.loads(line)
        key = (verdict["feature"], verdict["detector"], verdict["window"]["size"])
        assert verdict["alpha"] == levels[key]
        if verdict["status"] == "ok" and verdict["drifted"]:
            assert verdict["p_value"] <= levels[key]
        seen.add(key)
    assert seen == set(levels)
    assert len(set(levels.values())) > 1


def test_a_reference_keeps_its_budget(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    reference = kept(config, events(2_000))
    profiles.save(reference, "memory://kept")
    assert profiles.load("memory://kept", "fraud").budget == reference.budget


def test_every_unit_gets_an_equal_part(tmp_path: Path) -> None:
    """Whole, ES with 3/4 of the events and FR with 1/4: each alarms once in 3 · 6,000 events."""
    text = CONFIG.replace("5000 events", "6000 events") + "segment_by: [country]\n"
    reference = kept(config_of(tmp_path, text), events(4_000))
    assert reference.budget is not None
    asked = {key: found.ert_events for key, found in reference.budget.units.items()}
    assert asked == {
        "fraud": 18_000,
        "fraud|country=ES": 0.75 * 18_000,
        "fraud|country=FR": 0.25 * 18_000,
    }
    panes = {key: found.pane_events for key, found in reference.budget.units.items()}
    assert panes == {"fraud": 60, "fraud|country=ES": 45, "fraud|country=FR": 15}


def test_a_budget_in_time_counts_the_events_of_that_time(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG.replace("5000 events", "2h"))
    for options, hourly in (({}, 3_600.0), ({"events_per_hour": 1_800.0}, 1_800.0)):
        budget = kept(config, events(2_000), **options).budget
        assert budget is not None
        assert budget.events_per_hour == pytest.approx(hourly)
        assert budget.units["fraud"].ert_events == pytest.approx(2 * hourly)


SEVERAL = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [5m]
features: {amount: numeric}
against: [reference, {sliding: 20m, lag: 1m}, {period: 10m}]
false_alarms: about 1 per 3000 events
"""


def test_half_of_a_budget_is_for_tests_against_earlier_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "_WORK", 3e7)
    config = config_of(tmp_path, SEVERAL)
    reference = kept(config, events(1_500))
    budget = reference.budget
    assert budget is not None
    assert budget.units["fraud"].ert_events == 6_000
    assert budget.earlier_panes == pytest.approx(6_000 / PER_MINUTE)
    [(unit, said)] = budget.caveats
    assert unit == "fraud"
    assert "half of the budget goes to the tests against earlier parts of the stream" in said
    assert "These rows" not in said
    url = config.models["fraud"].reference
    profiles.save(reference, url)
    loaded = references(config)["fraud"]
    assert loaded.budget == budget
    made, _ = replayed(config, {"fraud": loaded}, Log([[*events(1_500, seed=1)]]))
    levels: dict[str, set[float]] = {}
    for v in map(orjson.loads, made):
        key = (v["feature"], v["detector"], v["window"]["size"])
        if v["reference"]["name"] == "reference":
            assert v["alpha"] == budget.units["fraud"].levels[key]
        else:
            levels.setdefault(v["reference"]["name"], set()).add(v["alpha"])
    # ks and missing_rate look at 5m against each of two parts, once a pane.
    level = pytest.approx(1 / (budget.earlier_panes * 2 * 2))
    assert {name: [*of] for name, of in levels.items()} == {
        "sliding 20m lag 1m": [level], "period 10m": [level],
    }  # fmt: skip
    without = config_of(tmp_path, SEVERAL.replace("against", "# against"))
    with pytest.raises(
        ProfileError, match=r"for half of `false_alarms`, the other was for tests ag"
    ):
        references(without)
    profiles.save(replace(reference, budget=replace(budget, earlier_panes=None)), url)
    assert references(without)["fraud"].budget is not None
    with pytest.raises(ProfileError, match=r"the whole of `false_alarms`, and tests against ear"):
        references(config_of(tmp_path, SEVERAL))


def test_rows_that_follow_each_other_are_named_where_p_values_must_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "_WORK", 3e7)
    values = [orjson.loads(v) for v in events(1_500)]
    x = 0.0
    rng = np.random.default_rng(4)
    for value in values:
        x = 0.8 * x + float(rng.normal())
        value["features"]["amount"] = round(x, 3)
    budget = kept(config_of(tmp_path, SEVERAL), [orjson.dumps(v) for v in values]).budget
    assert budget is not None
    *_, (_, said) = budget.caveats
    assert "These rows follow each other over some" in said


def test_rows_without_times_do_not_tell_the_rate(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with pytest.raises(
        ProfileError, match="do not all say when they happened; say it with --events-p"
    ):
        kept(config, events(2_000, ts=None))
    with pytest.raises(ProfileError, match="nearly all lie within 0s"):
        kept(config, events(2_000, ts=START_MS))
    assert kept(config, events(2_000, ts=None), events_per_hour=3_600).budget is not None


def test_a_wild_timestamp_does_not_make_the_rate(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG.replace("5000 events", "2h"))
    year_ms = 365 * 86_400_000
    wild = events(1, seed=9, ts=START_MS - year_ms) + events(1, seed=8, ts=START_MS + year_ms)
    budget = kept(config, wild + events(2_000)).budget
    assert budget is not None
    assert budget.events_per_hour == pytest.approx(3_600, rel=1e-3)


def test_event_times_are_kept_for_a_budget_only(tmp_path: Path) -> None:
    values = events(20)
    assert len(collect(config_of(tmp_path).models["fraud"], values).times_ms) == 20
    without = config_of(tmp_path, CONFIG.replace("false_alarms: 1 per 5000 events", ""))
    assert collect(without.models["fraud"], values).times_ms == []


def test_a_budget_beyond_the_reference_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG.replace("5000 events", "9000000 events"))
    rule = r"fraud: `false_alarms: 1 per 9000000 events` cannot be kept: 1 false .* too rare to sim"
    with pytest.raises(ProfileError, match=rule):
        kept(config, events(2_000))


def test_a_reference_for_another_budget_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    url = config.models["fraud"].reference
    profiles.save(kept(config, events(2_000)), url)
    assert references(config)["fraud"].budget is not None
    for text, rule in (
        (CONFIG.replace("5000 events", "1d"), "calibrated for `false_alarms: 1 per 5000 events`"),
        (CONFIG.replace("pane: 1m", "pane: 30s"), "calibrated for panes of 1m, and `pane` is 30s"),
        (CONFIG.replace("[5m, ", "[10m, "), "calibrated for other windows or detectors"),
        (CONFIG + "detectors: {numeric: [ks]}\n", r"other windows or detectors .*\(missing_rate"),
    ):
        with pytest.raises(ProfileError, match=rule):
            references(config_of(tmp_path, text))
    with_alpha = config_of(tmp_path, CONFIG.replace("false_alarms: 1 per 5000 events", ""))
    assert references(with_alpha)["fraud"].budget is not None  # there, and not used
    profiles.save(fit_rows(collect(config.models["fraud"], events(2_000)), {}).reference, url)
    with pytest.raises(ProfileError, match="was fitted without `false_alarms`"):
        references(config)
