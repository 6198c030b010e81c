"""`about 1 per N`: levels where the reference cannot promise a budget, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from driftline.detectors import calibration, detectors, fit, sizes, support
from driftline.detectors.calibration import calibrate
from driftline.detectors.levels import Calibration
from driftline.detectors.memory import Autocorrelation, Memory
from driftline.detectors.resample import Rows
from driftline.detectors.support import ABOUT_BLOCKS, FEWEST_BLOCKS
from driftline.schemas.errors import ProfileError
from driftline.schemas.units import FalseAlarms, parse_false_alarms, parse_window
from driftline.stream import profiles
from driftline.stream.cli import _show_fit, app  # pyright: ignore[reportPrivateUsage]
from driftline.stream.config.document import load
from driftline.stream.reference.check import references
from driftline.stream.report import words
from driftline.stream.tune.candidates import grid, parse_level

START_MS = 1_700_000_000_000
CONFIG = """
kafka: {bootstrap.servers: localhost:9092}
model: grid
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [200 events]
features: {load: numeric}
detectors: {numeric: [mean_shift]}
false_alarms: about 1 per 1000 events
"""


@pytest.fixture(autouse=True)
def short_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_WORK", 3e8)
    monkeypatch.setattr(sizes, "FEWEST_REPLICATES", 40)


def walk(n: int, keep: float = 0.99, seed: int = 5) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A series with a memory of some (1 + keep) / (1 - keep) rows."""
    rng = np.random.default_rng(seed)
    x = np.zeros(n)
    for i in range(1, n):
        x[i] = keep * x[i - 1] + rng.normal()
    return x


def levels_of(x: Any, ert_events: float, *, about: bool, window: str = "300 events") -> Calibration:
    columns = {"x": x}
    profile, _ = fit(columns)
    return calibrate(
        profile,
        columns,
        [(detectors()["mean_shift"], [0])],
        [parse_window(window)],
        pane_events=100,
        ert_events=ert_events,
        most_replicates=40,
        about=about,
    )


def test_about_is_part_of_a_budget() -> None:
    for text, events, ms in (
        ("about 1 per 30d", None, 30 * 86_400_000),
        ("about  2 per 10,000 events", 5_000, None),
    ):
        label = " ".join(text.split())
        assert parse_false_alarms(text) == FalseAlarms(events, ms, label, about=True)
    assert not parse_false_alarms("1 per 30d").about
    level = parse_level("about 1 per 30d")
    assert level.budget is not None
    assert level.budget.about


@pytest.mark.parametrize(
    "text",
    [
        "about",
        "about 30d",
        "about 0 per 1d",
        "about about 1 per 1d",
        "roughly 1 per 1d",
        "1 per about 3d",
    ],
)
def test_other_words_are_refused_with_an_example_of_about(text: str) -> None:
    with pytest.raises(ValueError, match="or about 1 per 30d, which is an attempt and no promise"):
        parse_false_alarms(text)


def test_few_blocks_are_made_shorter_and_what_that_loses_is_told() -> None:
    x = walk(3000)
    whole = Memory.of([[x]], len(x))
    short = Memory.of([[x]], len(x), fewest_blocks=ABOUT_BLOCKS)
    assert whole.block == whole.whole_block > len(x) // ABOUT_BLOCKS
    assert short.block == len(x) // ABOUT_BLOCKS
    assert short.time == whole.time
    assert short.noise == pytest.approx(4 / 3 / ABOUT_BLOCKS)


@pytest.mark.parametrize("window", [20, 60, 240])
def test_what_blocks_lose_of_a_window_is_what_drawing_them_shows(window: int) -> None:
    """Windows and references drawn from 400 series of 600 rows, in blocks of 60, against the
    variance that a window and a reference of their own would have."""
    keep, n, block, n_series = 0.9, 600, 60, 400
    rng = np.random.default_rng(11)
    x = np.zeros((n_series, n))
    x[:, 0] = rng.normal(size=n_series) / np.sqrt(1 - keep**2)
    for i in range(1, n):
        x[:, i] = keep * x[:, i - 1] + rng.normal(size=n_series)
    rho = keep ** np.arange(1, n, dtype=float)
    memory = Memory(19.0, block, 0.0, 0.0, np.ones(1), 0.1, ((Autocorrelation(rho),),), n)
    column = {"x": np.arange(n, dtype=float)}
    rows = replace(Rows.of(fit(column)[0], column), memory=memory)
    drawn = []
    for series in x:
        means = [
            series[rows.draw(n, rng)].mean() - series[rows.draw(window, rng)].mean()
            for _ in range(8)
        ]
        drawn.append(np.mean(np.square(means)))
    truth = Autocorrelation(rho)
    true = (truth.variance(window) + truth.variance(n)) / (1 - keep**2)
    assert memory.kept_of(window)[0] == pytest.approx(np.mean(drawn) / true, abs=0.06)


@pytest.mark.parametrize(
    ("x", "ert_events", "problem", "means"),
    [
        (
            walk(3000),
            1_000,
            f"and {FEWEST_BLOCKS} are needed",
            "blocks of 300, and where it is a tr",
        ),
        (walk(3000, 0.9), 20_000, "carry the information of", "their levels are a guess"),
        (
            walk(150, 0.0),
            2_000,
            "150 reference rows cannot be cal",
            "have in common is hardly known",
        ),
    ],
)
def test_what_the_reference_cannot_support_is_a_caveat(
    x: Any, ert_events: float, problem: str, means: str
) -> None:
    with pytest.raises(ProfileError, match=f"{problem}.*or write `about` before the budget"):
        levels_of(x, ert_events, about=False, window="200 events")
    found = levels_of(x, ert_events, about=True, window="200 events")
    said = [c for c in found.caveats if problem in c]
    assert len(said) == 1
    assert means in said[0]
    assert all(0 < level < 1 for level in found.levels.values())
    assert found.ert_events == ert_events


def test_it_says_which_features_follow_themselves_too_long() -> None:
    columns: dict[str, Any] = {f"w{i}": walk(3000, seed=i) for i in range(5)}
    with pytest.raises(ProfileError, match=r"how far they wander \('x' over \d+\): fit on"):
        levels_of(walk(3000), 1_000, about=False, window="200 events")
    columns |= {"calm": walk(3000, 0.0), "c": list("ab") * 1500}
    profile, _ = fit(columns)
    plan = [(detectors()["mean_shift"], [0, 1])]
    with pytest.raises(
        ProfileError, match=r"\(('w\d' over \d+(, )?){4} and 1 more; enough for 2 of 7 features\)"
    ):
        calibrate(
            profile, columns, plan, [parse_window("200 events")], pane_events=100, ert_events=1_000
        )


def test_a_budget_too_rare_to_simulate_gets_the_rarest_that_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizes, "_WORK", 3e7)
    x = walk(1500, 0.0)
    with pytest.raises(ProfileError, match=r"too rare to simulate.*or write `about`"):
        levels_of(x, 9e8, about=False)
    found = levels_of(x, 9e8, about=True)
    assert found.caveats[0].endswith(f"levels are for 1 per {found.ert_events:,.0f}")
    assert found.ert_events == sizes._FARTHEST * found.horizon  # pyright: ignore[reportPrivateUsage]
    assert found.tail == "log-linear"


def test_references_that_alarm_at_once_are_a_caveat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MOST_EARLY", 0.0)
    monkeypatch.setattr(support, "MOST_EARLY", 0.0)
    found = levels_of(walk(1500, 0.0), 12_000, about=True)
    assert "would alarm within a tenth" in found.caveats[0]
    assert found.caveats[0].endswith("references that alarm at once")


def test_where_looks_of_one_test_are_too_few_the_others_keep_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows of 60 do not alarm as rarely as asked before all that was noted of them does."""
    monkeypatch.setattr(calibration, "_ABOVE", 2.0)
    columns = {"x": walk(3000), "y": walk(3000, 0.9, seed=6)}
    profile, _ = fit(columns)

    def levels() -> Calibration:
        return calibrate(
            profile,
            columns,
            [(detectors()["mean_shift"], [0, 1])],
            [parse_window("60 events"), parse_window("300 events")],
            pane_events=20,
            ert_events=1_000,
            most_replicates=40,
            about=True,
        )

    several = levels()
    monkeypatch.setattr(calibration, "_ROUNDS", 1)
    one = levels()
    assert one.estimate == pytest.approx(1_000, rel=0.02)
    assert one.rate < several.rate
    assert one.levels.keys() == several.levels.keys()


def test_where_the_reference_supports_the_budget_about_changes_nothing() -> None:
    for x in (walk(1500, 0.0), walk(6000, 0.6)):
        plain = levels_of(x, 2_000, about=False)
        assert levels_of(x, 2_000, about=True) == plain
        assert plain.caveats == ()


def test_what_no_level_can_keep_apart_from_the_start_stays_refused() -> None:
    with pytest.raises(ProfileError, match="tested after 300 events"):
        levels_of(walk(1500, 0.0), 600, about=True)
    with pytest.raises(ProfileError, match="20 reference rows cannot be calibrated with.*fit on"):
        levels_of(walk(20, 0.0), 2_000, about=True)


def test_caveats_survive_json_and_references_without_any_read_and_write_as_before() -> None:
    plain = levels_of(walk(1500, 0.0), 2_000, about=False)
    data = plain.to_json()
    assert data["format"] == 3
    assert "caveats" not in data
    assert Calibration.from_json(json.loads(json.dumps(data))) == plain
    said = replace(plain, caveats=("one", "two"))
    data = json.loads(json.dumps(said.to_json()))
    assert data["format"] == 4
    assert Calibration.from_json(data) == said
    del data["caveats"]
    with pytest.raises(ProfileError, match="damaged.*'caveats'"):
        Calibration.from_json(data)


def test_fit_says_it_and_so_do_the_reference_and_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "driftline.yaml"
    path.write_text(CONFIG)
    lines = [
        orjson.dumps({"id": str(i), "ts": START_MS + i * 1000, "features": {"load": float(x)}})
        for i, x in enumerate(walk(1500))
    ]
    (tmp_path / "ref.jsonl").write_bytes(b"\n".join(lines))
    words_of_fit = ["fit", "--config", str(path), "--input", str(tmp_path / "ref.jsonl")]
    told = json.loads(CliRunner().invoke(app, [*words_of_fit, "--json"]).stdout)[0]
    _show_fit(told)
    flat = " ".join(capsys.readouterr().out.split())
    assert "false alarms about 1 per 1000 events" in flat
    assert "NO PROMISE grid: 1,500 rows whose values follow each other" in flat
    assert "events sought" in flat
    config = load(path)
    reference = profiles.load(config.models["grid"].reference, "grid")
    assert reference.budget is not None
    assert references(config)["grid"].budget == reference.budget
    assert [(c["unit"], c["caveat"]) for c in told["caveats"]] == reference.budget.caveats
    assert told["budget"]["units"]["grid"]["caveats"] == [c for _, c in reference.budget.caveats]
    facts = words.level_facts(config.models["grid"], reference, {"grid": 7_000})
    assert facts[0] == ("False alarms asked", "about 1 per 1000 events, whole model")
    assert facts[1][1] == "no promise; levels for 1 per 1,000 of its events, of which 7,000 came"
    assert facts[2:] == [("No promise for grid", c) for _, c in reference.budget.caveats]
    listed = CliRunner().invoke(app, ["reference", "show", "--config", str(path), "--json"])
    one = json.loads(listed.stdout)["references"][0]
    assert one["false_alarms"] == "about 1 per 1000 events"
    assert one["caveats"] == told["caveats"]
    said = CliRunner().invoke(app, ["reference", "show", "--config", str(path)])
    assert "no promise for grid: 1,500 rows whose values" in " ".join(said.output.split())
    path.write_text(CONFIG.replace("about 1 per", "1 per"))
    refused = CliRunner().invoke(app, words_of_fit)
    assert isinstance(refused.exception, ProfileError)
    rule = "grid: `false_alarms: 1 per 1000 events` cannot be kept: 1,500 rows"
    assert str(refused.exception).startswith(rule)
    with pytest.raises(
        ProfileError, match="calibrated for `false_alarms: about 1 per 1000 events`"
    ):
        references(load(path))


def test_tune_varies_a_budget_and_keeps_the_word(tmp_path: Path) -> None:
    path = tmp_path / "driftline.yaml"
    path.write_text(CONFIG)
    tried = grid(load(path).models["grid"])
    labels = {c.level.label for c in tried.candidates}
    assert labels == {f"about 1 per {n} events" for n in (250, 1000, 4000)}
