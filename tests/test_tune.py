"""A tuning says what a replay would have said, reads events once, and prints the same bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka.admin import NewTopic
from stream_helpers import T0, python_json
from typer.testing import CliRunner

from driftline.detectors import Columns, fit, summarize
from driftline.schemas.errors import ConfigError, DriftlineError
from driftline.schemas.units import parse_time_ms
from driftline.stream import profiles
from driftline.stream.broker.node import Broker
from driftline.stream.cli import app
from driftline.stream.clients import admin, producer
from driftline.stream.config.document import load
from driftline.stream.fit import collect, fit_rows
from driftline.stream.replay import Replay
from driftline.stream.sources import file_batches
from driftline.stream.tune.candidates import grid, parse_level
from driftline.stream.tune.command import Options, task_of
from driftline.stream.tune.evidence import Span, quiet_parts
from driftline.stream.tune.incidents import read_incidents
from driftline.stream.tune.inject import INJECTIONS, change, drawn, gaining, injected, values_of
from driftline.stream.tune.looks import look
from driftline.stream.tune.store import find, key_of
from driftline.stream.tune.task import lookers_of, plan_for, units_of
from driftline.stream.tune.work import Tuned, tune
from driftline.stream.tune.write import tuned_yaml, write

MINUTE = 60_000
HOUR = 60 * MINUTE
COUNTRIES = ("ES", "FR")

# Comments and order are kept by what is written.
CONFIG = """\
# The shop's model.
kafka: {bootstrap.servers: localhost:9092}
model: fraud   # its name
input: {topic: inference}
reference: ./reference
pane: 10m      # ten minutes
windows:
  - 30m
  - 1h         # an hour
features: {x: numeric, y: numeric, z: numeric, c: categorical, b: boolean}
segment_by: [country]
allowed_lateness: 10s
min_events: 10
retention: 1d
alerts: {resolve_after: 2}
# the end
"""


def _events(n: int, seed: int, start_ms: int, step_ms: int, shift: slice | None = None) -> bytes:
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(n):
        x, y, z = rng.normal(size=3).round(3).tolist()
        if shift is not None and shift.start <= i < shift.stop:
            x += 1.5
        # Out of order, some too late, some without a value; a pause of three hours.
        ms = start_ms + i * step_ms - int(rng.integers(0, 20_000)) + (i > n // 2) * 3 * HOUR
        lines.append(
            python_json(
                {
                    "id": f"e{i}",
                    "ts": ms,
                    "features": {
                        "x": x,
                        "y": None if rng.random() < 0.02 else y,
                        "z": round(z, 1),
                        "c": str(rng.choice(["a", "b", "k", "new"], p=[0.5, 0.3, 0.199, 0.001])),
                        "b": bool(rng.random() < 0.3),
                    },
                    "segment": {"country": COUNTRIES[int(rng.random() < 0.3)]},
                }
            )
        )
    return b"\n".join(lines) + b"\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """driftline.yaml, a reference, and eleven hours of events with an incident."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "driftline.yaml").write_text(CONFIG)
    (folder / "reference.jsonl").write_bytes(_events(6000, 1, T0, 10_000))
    (folder / "events.jsonl").write_bytes(_events(3500, 2, T0, 7_000, slice(2600, 3200)))
    os.utime(folder / "events.jsonl", (T0 / 1000 + 10**6,) * 2)
    config = load(folder / "driftline.yaml")
    model = config.models["fraud"]
    rows = collect(model, (folder / "reference.jsonl").read_bytes().splitlines())
    profiles.save(fit_rows(rows, {}).reference, model.reference)
    (folder / "incidents.csv").write_text(
        f"start,end,name,features\n{T0 + 2600 * 7_000 + 3 * HOUR},"
        f"{T0 + 3200 * 7_000 + 3 * HOUR},wrong unit,x\n"
    )
    return folder


OPTIONS = Options(
    panes=("10m", "30m"),
    windows=("30m,1h", "1h hop 1h", "300 events"),
    detectors=("ks,missing_rate,chi_squared", "ks"),
    budgets=("0.05", "0.001", "1 per 4h"),
    bearable="1 per 4h",
)


def _tuned(folder: Path, **overrides: Any) -> Tuned:
    config = load(folder / "driftline.yaml")
    options = replace(
        OPTIONS,
        input=folder / "events.jsonl",
        incidents=folder / "incidents.csv",
        keep=folder / "kept",
        **overrides,
    )
    return tune(task_of(config, config.models["fraud"], options))


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Tuned:
    return _tuned(folder)


def _replayed(folder: Path, config: Path) -> list[dict[str, Any]]:
    loaded = load(config)
    references = {n: profiles.load(m.reference, n) for n, m in loaded.models.items()}
    work = Replay(loaded, references)
    batches = file_batches(folder / "events.jsonl", "inference")
    return [orjson.loads(v.value) for v in work.run(batches)]


def _key(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    segment = verdict["segment"].get("country", "")
    window = verdict["window"]
    return (segment, verdict["feature"], verdict["detector"], window["size"], window["end"])


@pytest.mark.parametrize("pane", ["10m", "30m"])
def test_a_candidate_says_what_a_replay_of_it_says(tuned: Tuned, folder: Path, pane: str) -> None:
    """Each look: its window, statistic, p-value and decision are those of the replay's verdict, and
    there is no look more or less."""
    score = next(
        s
        for s in tuned.scores
        if s.candidate.pane == pane
        and len(s.candidate.windows) == 2
        and s.candidate.level.alpha == 0.05
        and s.candidate.numeric == ("ks", "missing_rate")
    )
    out = folder / f"candidate-{pane}.yaml"
    write(folder / "driftline.yaml", tuned.task.model, score.candidate, out)
    verdicts = {_key(v): v for v in _replayed(folder, out)}

    task, seen = tuned.task, {}
    wanted = {w.label for w in score.candidate.windows}
    for unit, profile in units_of(task.reference).items():
        country = unit.partition("=")[2]
        plan = plan_for(profile, [score.candidate])
        [looker] = [
            x for n, x in lookers_of(task, profile, plan).items() if n == score.candidate.pane_ms
        ]

        def witness(
            window: Any,
            detector: str,
            outcomes: Any,
            profile: Any = profile,
            country: str = country,
        ) -> None:
            if window.label in wanted:
                for o in outcomes:
                    name = profile.features[o.feature].name
                    key = (country, name, detector, window.label, window.end_ms)
                    seen[key] = (window.start_ms, window.events, o.statistic, o.p_value)

        looker._witness = witness
        look(tuned.kept.panes(unit, profile), [looker])
        looker.finish(tuned.kept.largest_ms or 0, task.model.allowed_lateness_ms)

    replayed = {
        (*key[:4], parse_time_ms(key[4])): (
            parse_time_ms(v["window"]["start"]),
            v["window"]["n"],
            v["statistic"],
            v["p_value"],
        )
        for key, v in verdicts.items()
        if "n_test" in v["detail"]
    }
    assert len(seen) > 500
    assert seen == replayed

    drifted = set()
    n_looks = 0
    for (unit, pane_ms, label), looks in tuned.evidence.looks.items():
        if pane_ms != score.candidate.pane_ms or label not in wanted:
            continue
        n_looks += sum(looks.p[d].shape[1] for d in looks.p) * len(looks.end_ms)
        for detector, features in tuned.evidence.plans[unit].items():
            p = looks.p[detector]
            for row, column in np.argwhere(p <= score.level).tolist():
                name = tuned.evidence.units[unit].features[features[column]].name
                country = unit.partition("=")[2]
                drifted.add((country, name, detector, label, int(looks.end_ms[row])))
    assert n_looks == len(verdicts)
    told = {(*key[:4], parse_time_ms(key[4])) for key, v in verdicts.items() if v["drifted"]}
    assert drifted == told
    assert drifted
    assert {v["alpha"] for v in verdicts.values()} == {score.level}


def test_the_first_alarm_of_an_episode_is_the_first_drifted_verdict(
    tuned: Tuned, folder: Path
) -> None:
    score = next(s for s in tuned.scores if s.episodes and s.candidate.level.alpha == 0.001)
    out = folder / "episodes.yaml"
    write(folder / "driftline.yaml", tuned.task.model, score.candidate, out)
    ends = [parse_time_ms(v["window"]["end"]) for v in _replayed(folder, out) if v["drifted"]]
    assert score.episodes[0][0] == min(ends)
    assert all(any(a <= end < b for a, b in score.episodes) for end in ends)


def test_a_second_run_reads_no_events_and_says_the_same(tuned: Tuned, folder: Path) -> None:
    from driftline.stream.tune.terminal import as_dict

    again = _tuned(folder)
    assert tuned.read
    assert not again.read
    assert orjson.dumps(as_dict(again)) == orjson.dumps(as_dict(tuned))
    # Other candidates over the same panes: twice as long is made of what is there.
    other = _tuned(folder, panes=("20m",), windows=("20m", "40m"))
    assert not other.read
    assert other.evidence.span.start_ms == tuned.evidence.span.start_ms


def test_changed_events_are_read_again(tuned: Tuned, folder: Path) -> None:
    task = tuned.task
    config = load(folder / "driftline.yaml")
    changed = folder / "changed.jsonl"
    changed.write_bytes((folder / "events.jsonl").read_bytes().replace(b'"x": 0.', b'"x": 1.', 1))
    os.utime(changed, ns=(0, (folder / "events.jsonl").stat().st_mtime_ns))
    options = replace(OPTIONS, input=changed, keep=folder / "kept")
    other = task_of(config, config.models["fraud"], options)
    same = task_of(config, config.models["fraud"], replace(options, input=folder / "events.jsonl"))
    keys = [key_of(t.source, t.model, t.reference) for t in (task, same, other)]
    assert keys[0] == keys[1] != keys[2]
    assert find(folder / "kept", keys[0], 10 * MINUTE) is not None
    assert find(folder / "kept", keys[0], 15 * MINUTE) is None
    assert find(folder / "kept", keys[2], 10 * MINUTE) is None


def test_panes_that_were_cut_short_are_not_used(tuned: Tuned, folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tuned.kept.directory, tmp_path / "key" / "600000")
    assert find(tmp_path, "key", 600_000) is not None
    with (tmp_path / "key" / "600000" / "panes.bin").open("r+b") as file:
        file.truncate(1000)
    assert find(tmp_path, "key", 600_000) is None


def test_the_incident_is_found_and_its_time_is_not_quiet(tuned: Tuned) -> None:
    [incident] = tuned.evidence.incidents
    [zone] = tuned.evidence.span.zones
    assert zone[0] == incident.start_ms
    assert zone[1] > incident.end_ms
    assert all(b <= zone[0] or a >= zone[1] for a, b in tuned.evidence.span.quiet)
    best = tuned.chosen
    assert best.bearable
    assert best.incidents[0].delay_ms is not None
    assert 0 < best.incidents[0].delay_ms <= HOUR
    # What the incident's features do not show is not counted as seen.
    never_x = replace(tuned.evidence.incidents[0], features=("b",))
    from driftline.stream.tune.score import Scorer

    other = Scorer(replace(tuned.evidence, incidents=[never_x]), tuned.task.bearable)
    strict = next(s for s in tuned.scores if s.candidate.level.alpha == 0.001)
    assert other.score(strict.candidate).incidents[0].delay_ms is None


def test_always_and_never_are_the_ends_of_the_scale(tuned: Tuned) -> None:
    always, never = tuned.always, tuned.never
    assert never.false_alarms == 0
    assert never.lag == 1.0
    assert never.found_injected[0] == 0
    assert always.found_injected[0] == always.found_injected[1] > 0
    assert always.false_alarms == sum(
        (b - a) // (10 * MINUTE) for a, b in tuned.evidence.span.quiet
    )
    assert all(always.lag <= s.lag <= never.lag for s in tuned.scores)


def test_larger_changes_are_seen_sooner_and_stricter_levels_later(tuned: Tuned) -> None:
    for s in tuned.scores:
        share = {i.name: i.share for i in s.injected}
        assert share["mean_1"] <= share["mean_0.5"] <= share["mean_0.25"]
        assert share["mean_1"] <= share["gradual_1"]
    for loose in tuned.scores:
        for strict in tuned.scores:
            a, b = loose.candidate, strict.candidate
            if replace(a, level=b.level, current=b.current) == b and (loose.level or 0) >= (
                strict.level or 1
            ):
                assert loose.lag <= strict.lag


def test_the_ranking_and_its_pareto_front(tuned: Tuned) -> None:
    scores = tuned.scores
    assert [s.rank for s in scores] == list(range(1, len(scores) + 1))
    bearable = [s.bearable for s in scores]
    assert bearable == sorted(bearable, reverse=True)
    for s in scores:
        beaten = any(
            o.false_alarms <= s.false_alarms
            and o.lag <= s.lag
            and (o.false_alarms, o.lag) != (s.false_alarms, s.lag)
            for o in scores
        )
        assert not (s.pareto and beaten)
        if not s.pareto and not beaten:
            assert any(
                o.pareto and (o.false_alarms, o.lag) == (s.false_alarms, s.lag) for o in scores
            )


def test_a_budgets_level_keeps_it_on_the_quiet_part(tuned: Tuned) -> None:
    """The largest such level: the next p-value that was seen would be one alarm too many."""
    span = tuned.evidence.span
    found = [s for s in tuned.scores if s.how == "empirical"]
    assert found
    for s in found:
        assert s.candidate.level.budget is not None
        assert s.false_alarms <= span.allowed(s.candidate.level.budget)


def test_values_drawn_from_a_pane_give_its_counts_again() -> None:
    rng = np.random.default_rng(5)
    rows = {
        "x": rng.normal(size=300),
        "k": rng.poisson(2, 300).astype(float),
        "c": rng.choice(["a", "b", "d"], 300).tolist(),
        "b": rng.choice([True, False], 300).tolist(),
    }
    profile, _ = fit(rows)
    x = rng.normal(0.3, 2, 400)
    x[:5] = [np.nan, np.inf, -np.inf, 50, -50]
    columns = {
        "x": x,
        "k": [None, *rng.poisson(3, 399).tolist()],
        "c": rng.choice(["a", "b", "e", None], 400).tolist(),
        "b": rng.choice([True, False, None], 400).tolist(),
    }
    [pane] = summarize(profile, Columns.of(profile, columns), np.zeros(400, np.int64))
    [again] = summarize(profile, values_of(profile, pane, rng), np.zeros(400, np.int64))
    assert again.events == pane.events
    assert again.cells.tolist() == pane.cells.tolist()
    assert again.counts.tolist() == pane.counts.tolist()


def test_drift_put_into_panes_is_as_drift_put_into_the_values() -> None:
    """The panes' values are known to within a gap of the reference; what the tests say of them,
    changed, is what they say of the true values, changed."""
    rng = np.random.default_rng(6)
    n = 2_000
    profile, _ = fit(
        {
            "x": rng.normal(size=4_000),
            "y": rng.exponential(size=4_000),
            "c": rng.choice(list("abc"), 4_000).tolist(),
        }
    )
    true = Columns.of(
        profile,
        {
            "x": rng.normal(size=n),
            "y": rng.exponential(size=n),
            "c": rng.choice(list("abc"), n).tolist(),
        },
    )
    [pane] = summarize(profile, true, np.zeros(n, np.int64))
    for injection in INJECTIONS:
        if injection.gone or injection.gain:
            continue
        [made] = injected(injection, profile, drawn(profile, [pane], 0), 0)
        # The order of values is not known; a gradual change meets others of them.
        changed = change(injection, profile, true, 0, rng)
        [other] = summarize(profile, changed, np.zeros(n, np.int64))
        for i, f in enumerate(profile.numeric):
            a, b = profile.offsets[i], profile.offsets[i + 1]
            ours, theirs = (np.zeros(profile.n_cells) for _ in range(2))
            ours[made.cells], theirs[other.cells] = made.counts, other.counts
            u = len(f.values)
            cdf = [
                np.cumsum(np.append(c[a : a + u] + c[a + u + 1 : a + 2 * u + 1], c[a + u])) / n
                for c in (ours, theirs)
            ]
            allowed = 0.03 if injection.ramp_events else 0.004
            assert np.abs(cdf[0] - cdf[1]).max() <= allowed, (injection.name, f.name)
        assert b <= profile.n_cells


def test_shares_that_are_put_in_are_those_that_are_stated() -> None:
    rng = np.random.default_rng(7)
    n = 20_000
    profile, _ = fit(
        {
            "x": rng.normal(size=500),
            "y": rng.normal(5, 3, 500),
            "c": rng.choice(list("abc"), 500, p=[0.6, 0.3, 0.1]).tolist(),
        }
    )
    columns = Columns.of(
        profile, {"x": rng.normal(size=n), "y": rng.normal(5, 3, n), "c": ["a"] * n}
    )
    assert gaining(profile.categorical[0]) == "b"
    by_name = {i.name: i for i in INJECTIONS}

    def changed(name: str) -> Columns:
        return change(by_name[name], profile, columns, 0, np.random.default_rng(0))

    assert np.isnan(changed("missing_5").numeric).mean() == pytest.approx(0.05, abs=0.004)
    assert changed("missing_5").categorical[0].count(None) / n == pytest.approx(0.05, abs=0.005)
    assert changed("category_10").categorical[0].count("b") / n == pytest.approx(0.1, abs=0.006)
    sd = np.array([f.sd for f in profile.numeric])
    moved = changed("mean_0.5").numeric - columns.numeric
    assert np.allclose(moved, 0.5 * sd[:, None])
    ramp = (changed("gradual_1").numeric - columns.numeric) / sd[:, None]
    assert np.allclose(ramp[:, [0, 999, 1999, 5000]], [1 / 2000, 0.5, 1, 1])
    assert (changed("swap").numeric[0] == columns.numeric[1]).all()
    assert columns.categorical[0].count("a") == n
    wide = changed("scale_1.5").numeric.std(axis=1) / columns.numeric.std(axis=1)
    assert np.allclose(wide, 1.5)


def test_what_is_written_keeps_comments_and_all_else(tuned: Tuned, folder: Path) -> None:
    [one] = [
        s.candidate
        for s in tuned.scores
        if s.candidate.pane == "30m"
        and s.candidate.windows_label == "1h hop 1h"
        and s.candidate.level.budget is not None
        and s.candidate.numeric == ("ks",)
    ]
    text = tuned_yaml(folder / "driftline.yaml", "fraud", one, folder / "sub" / "tuned.yaml")
    assert text == (
        CONFIG.replace("pane: 10m      # ten minutes", "pane: 30m  # ten minutes")
        .replace(
            "windows:\n  - 30m\n  - 1h         # an hour\n", "windows: [{size: 1h, hop: 1h}]\n"
        )
        .replace("reference: ./reference", "reference: ../reference")
        .replace(
            "alerts: {resolve_after: 2}\n",
            "alerts: {resolve_after: 2}\n"
            "detectors: {numeric: [ks], categorical: [chi_squared]}\nfalse_alarms: 1 per 4h\n",
        )
    )
    write(folder / "driftline.yaml", tuned.task.model, one, folder / "sub" / "tuned.yaml")
    again = load(folder / "sub" / "tuned.yaml").models["fraud"]
    assert again.reference == tuned.task.model.reference


def test_a_model_among_several_is_written_in_its_own_section(tuned: Tuned, tmp_path: Path) -> None:
    path = tmp_path / "driftline.yaml"
    path.write_text(
        "kafka: {bootstrap.servers: localhost:9092}\ninput: {topic: inference}\npane: 1m\n"
        "windows: [5m]\nmodels:\n  other: {reference: ./o}\n  fraud:\n    reference: ./r\n"
        "    alpha: 0.5  # loose\n  third:\n    reference: ./t\n"
    )
    score = next(s for s in tuned.scores if s.candidate.level.alpha == 0.001)
    text = tuned_yaml(path, "fraud", score.candidate, path)
    assert "    alpha: 0.001  # loose\n" in text
    path.write_text(text)
    config = load(path)
    assert config.models["fraud"].pane_ms == score.candidate.pane_ms
    assert config.models["fraud"].windows == score.candidate.windows
    assert config.models["third"].pane_ms == MINUTE
    path.write_text(
        "{kafka: {bootstrap.servers: x}, model: fraud, input: {topic: t}, reference: r}"
    )
    with pytest.raises(DriftlineError, match="in braces"):
        tuned_yaml(path, "fraud", score.candidate, path)


BAD_INCIDENTS = [
    ("begin,end,name\n", ':1: "begin,end,name": column start is missing; begin the file'),
    ("start,end,nmae\n", '"nmae": the columns are start, end, name, features; write name'),
    ("start,end,name\nyesterday,2024-01-02,a\n", ':2: start: "yesterday": a time is ISO-8601'),
    ("start,end,name\n-1h,2024-01-02,a\n", ':2: start: "-1h": a time is ISO-8601'),
    ("start,end,name\n2024-01-03,2024-01-02,a\n", ':2: end: "2024-01-02": an incident ends after'),
    ("start,end,name\n2024-01-01,2024-01-02,\n", ':2: name: "": an incident has a name'),
    (
        "start,end,name\n2024-01-01,2024-01-02\n",
        ":2: 2: the line has another number of values than 3",
    ),
    ("start,end,name\n2024-01-01,2024-01-02,a,b\n", ":2: 4: the line has another number of values"),
    (
        "start,end,name,features\n2024-01-01,2024-01-02,a,tmep\n",
        "no such feature; it has temp, x; write temp",
    ),
    ("start,end,name\n", "the file lists no incident"),
]


@pytest.mark.parametrize(("text", "said"), BAD_INCIDENTS)
def test_a_mistake_in_incidents_is_named_with_line_value_rule_and_remedy(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "incidents.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_incidents(path, ["temp", "x"])
    assert said in str(raised.value)
    assert str(path) in str(raised.value)


def test_incidents_are_read_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "incidents.csv"
    path.write_text(
        '\ufeffstart, end, name, features\n2024-02-01, 2024-02-02T12:00Z, "b, again", x;temp\n'
        "1704067200000,2024-01-03,a,\n",
        encoding="utf-8",
    )
    a, b = read_incidents(path, ["temp", "x"])
    assert (a.name, a.start_ms, a.features) == ("a", 1_704_067_200_000, ())
    assert (b.name, b.features) == ("b, again", ("x", "temp"))


def test_quiet_parts_are_what_incidents_leave() -> None:
    span = Span(0, 100, quiet_parts(0, 100, [(-5, 10), (40, 50), (45, 60)]), 10)
    assert span.quiet == ((10, 40), (60, 100))
    assert span.quiet_ms == 70


def test_a_level_is_an_alpha_or_a_budget() -> None:
    assert parse_level("alpha=0.01").alpha == 0.01
    assert parse_level("1e-4").alpha == 1e-4
    budget = parse_level("2 per 1d").budget
    assert budget is not None
    assert budget.ms == 12 * HOUR
    for text in ("2", "0", "alpha x", "once a day"):
        with pytest.raises(ValueError, match=r"alpha|false_alarms"):
            parse_level(text)


def test_combinations_that_cannot_be_are_left_out_and_said(folder: Path) -> None:
    model = load(folder / "driftline.yaml").models["fraud"]
    found = grid(model, panes=("10m", "25m"), windows=("30m", "50m", "2d"), budgets=("0.01",))
    assert {(c.pane, c.windows_label) for c in found.candidates} == {
        ("10m", "30m"),
        ("10m", "50m"),
        ("25m", "50m"),
        ("10m", "30m, 1h"),
    }
    assert found.left_out
    assert "window 2d with allowed_lateness is longer than retention" in found.reason
    assert found.base_pane_ms == 5 * MINUTE
    assert sum(c.current for c in found.candidates) == 1


def test_the_command_prints_and_writes_the_same_bytes_twice(
    tuned: Tuned, folder: Path, tmp_path: Path
) -> None:
    runner = CliRunner()
    said, written, pages = [], [], []
    for i in range(2):
        out, page = tmp_path / f"{i}.yaml", tmp_path / f"{i}.html"
        arguments = ["tune", "--config", str(folder / "driftline.yaml")]
        arguments += ["--input", str(folder / "events.jsonl"), "--keep", str(tmp_path / "kept")]
        arguments += ["--incidents", str(folder / "incidents.csv"), "--json"]
        arguments += [
            "--panes",
            "10m",
            "--windows",
            "1h",
            "--budgets",
            "0.01",
            "--budgets",
            "1 per 4h",
        ]
        arguments += ["--out", str(out), "--report", str(page)]
        result = runner.invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        said.append(result.stdout)
        written.append(out.read_bytes())
        pages.append(page.read_bytes())
    assert said[0] == said[1]
    assert written[0] == written[1]
    assert pages[0] == pages[1]
    data = orjson.loads(said[0])
    assert data["candidates"][0]["rank"] == 1
    assert load(tmp_path / "0.yaml").models["fraud"].pane_ms == 10 * MINUTE
    assert "wrong unit" in pages[0].decode()


@pytest.mark.long
def test_calibrated_levels_are_those_that_fit_finds(folder: Path, tmp_path: Path) -> None:
    """The best candidate with a budget, calibrated here; its file, fitted and replayed, decides
    alike."""
    directory = tmp_path / "long"
    directory.mkdir()
    text = CONFIG.replace("segment_by: [country]\n", "").replace(", c: categorical, b: boolean", "")
    (directory / "driftline.yaml").write_text(text)
    for name in ("events.jsonl", "reference.jsonl"):
        (directory / name).write_bytes((folder / name).read_bytes())
    runner = CliRunner()
    config = str(directory / "driftline.yaml")
    rows = str(directory / "reference.jsonl")
    assert runner.invoke(app, ["fit", "--config", config, "--input", rows]).exit_code == 0
    out = directory / "tuned.yaml"
    arguments = ["tune", "--config", config, "--input", str(directory / "events.jsonl"), "--json"]
    arguments += ["--panes", "10m", "--windows", "300 events", "--detectors", "ks"]
    arguments += ["--budgets", "1 per 5000 events", "--reference-rows", rows, "--out", str(out)]
    result = runner.invoke(app, arguments, catch_exceptions=False)
    data = orjson.loads(result.stdout)
    [best] = [c for c in data["candidates"] if c["level"]["found_by"] == "calibrated"]
    assert best["calibration"]["fraud"]["asked"] == 5_000
    loaded = load(directory / "driftline.yaml").models["fraud"]
    [candidate] = [
        c
        for c in grid(
            loaded,
            panes=("10m",),
            windows=("300 events",),
            detector_sets=("ks",),
            budgets=("1 per 5000 events",),
        ).candidates
        if not c.current
    ]
    write(directory / "driftline.yaml", loaded, candidate, out)
    assert runner.invoke(app, ["fit", "--config", str(out), "--input", rows]).exit_code == 0
    ends = [v["window"]["end"] for v in _replayed(directory, out) if v["drifted"]]
    assert bool(ends) == bool(best["episodes"])
    assert best["episodes"][0][0] == min(ends)


def test_a_topic_is_known_by_its_id_and_offsets(
    tuned: Tuned, folder: Path, kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """Three partitions, read in whatever order: the result is that of the file, since no event is
    late there either; and more messages, or the same ones in another topic, are other events."""
    topic = f"{topic_prefix}-in"
    config = load(
        folder / "driftline.yaml",
        overrides={
            "kafka": {"bootstrap.servers": kafka.bootstrap_servers},
            "input": {"topic": topic},
            "allowed_lateness": "30s",
        },
    )
    client = admin(config)
    client.create_topics([NewTopic(topic, 3, 1)])[topic].result(20)
    writer = producer(config)
    for i, value in enumerate((folder / "events.jsonl").read_bytes().splitlines()):
        writer.produce(topic, value, partition=i % 3)
    writer.flush(30)
    model = config.models["fraud"]
    options = replace(OPTIONS, keep=tmp_path, panes=("30m",), windows=("1h",), detectors=("ks",))
    task = task_of(config, model, options)
    assert key_of(task_of(config, model, options).source, model, task.reference) == key_of(
        task.source, model, task.reference
    )
    ours = tune(task)
    again = tune(task_of(config, model, options))
    assert ours.read
    assert not again.read
    from_file = tune(task_of(config, model, replace(options, input=folder / "events.jsonl")))
    assert [s.episodes for s in ours.scores] == [s.episodes for s in from_file.scores]
    assert [s.injected for s in ours.scores] == [s.injected for s in from_file.scores]
    writer.produce(topic, b"{}", partition=0)
    writer.flush(30)
    grown = task_of(config, model, options)
    assert key_of(grown.source, model, task.reference) != key_of(task.source, model, task.reference)


def test_options_that_are_wrong_are_usage_errors(folder: Path) -> None:
    config = load(folder / "driftline.yaml")
    model = config.models["fraud"]
    for given, said in (
        ({"panes": ("5",)}, "--panes '5': a duration"),
        ({"windows": ("1h,60m",)}, "--windows '1h,60m': 60m is listed twice"),
        ({"detectors": ("kss",)}, "--detectors 'kss': there is no detector 'kss'"),
        ({"budgets": ("often",)}, "--budgets 'often': false_alarms is a number per"),
        ({"bearable": "never"}, "--bearable 'never': false_alarms is a number per"),
    ):
        options = replace(OPTIONS, input=folder / "events.jsonl", **given)
        with pytest.raises(ConfigError) as raised:
            task_of(config, model, options)
        assert said in str(raised.value)
