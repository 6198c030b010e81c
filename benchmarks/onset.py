"""How well the onset is estimated, and how well the responsible features are named.

    python -m benchmarks.onset [--alpha] [--draws 20] [--case NAME …] [--json]

A monitor of twenty features (14 numeric, standard normal; 6 of eight categories, shares as 1/rank)
reads a stream in which some of them change at a known event: windows of 500 and 2,000 events, panes of
50, a reference of 4,000 rows, and either a budget of one false alarm in 20,000 events, with what a
budget has by default, or (`--alpha`) `alpha: 0.001` for a look at the whole model. Every draw has its
own reference and stream; the levels of the budget are from another reference. Before the change the
monitor reads in silence, so that an alarm is always of the change. What is measured is what users get:
verdicts (`since` and its confidence set) of the features that truly changed, and the features of the
alert, when it fires and 500 events (one window) later. Errors are in events, and in windows of 500.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from driftline.detectors import Columns, fit, summarize
from driftline.detectors.base import plan_of
from driftline.detectors.calibration import calibrate
from driftline.detectors.multivariate import MULTIVARIATE
from driftline.schemas.pane import PartitionProgress, Progress
from driftline.schemas.units import parse_time_ms
from driftline.schemas.verdict import Verdict as VerdictMessage
from driftline.stream.alert import incident
from driftline.stream.config.document import Config, load
from driftline.stream.deltas import to_delta
from driftline.stream.monitor import Monitor
from driftline.stream.profiles import Budget, Reference

N_NUMERIC: Final = 14
N_CATEGORICAL: Final = 6
REFERENCE_ROWS: Final = 4000
PANE_EVENTS: Final = 50
WINDOW: Final = 500
CHANGE_AT: Final = 2530  # in the midst of a pane, with the larger window full
MOST_EVENTS: Final = 4000  # after the change; a change not seen by then is missed
PANE_MS: Final = 60_000
SHARES: Final = (1 / np.arange(1, 9)) / (1 / np.arange(1, 9)).sum()

CONFIG = """
kafka: {bootstrap.servers: "localhost:9092"}
model: m
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [500 events, 2000 events]
features: {%s}
"""
BUDGET: Final = "false_alarms: 1 per 20000 events\n"
ALPHA: Final = "alpha: 0.001\n"


@dataclass(frozen=True, slots=True)
class Case:
    """shift, scale: of a numeric feature, in sd; mass: gained by the third category; missing: share
    of values lost. over: events until the change is whole; 0 is sudden. n: features that change."""

    name: str
    n: int = 1
    shift: float = 0.0
    scale: float = 1.0
    mass: float = 0.0
    missing: float = 0.0
    over: int = 0


CASES: Final = (
    Case("mean 0.5 sd", shift=0.5),
    Case("mean 1 sd", shift=1.0),
    Case("scale x 1.5", scale=1.5),
    Case("category + 10 %", mass=0.1),
    Case("missing + 5 %", missing=0.05),
    Case("mean 0.5 sd, three", n=3, shift=0.5),
    Case("mean 1 sd, three", n=3, shift=1.0),
    Case("mean 1 sd over 2,000", shift=1.0, over=2000),
    Case("mean 1 sd over 2,000, three", n=3, shift=1.0, over=2000),
)


@dataclass(frozen=True, slots=True)
class Draw:
    """One stream. errors: estimate less truth, in events, of each truly changed feature at the first
    verdict on it; covered: truth within the confidence set; widths: of the sets. at, later: (named
    and changed, named, changed) when the alert fires and a window later."""

    delay: int
    errors: list[float]
    covered: list[bool]
    widths: list[float]
    at: tuple[int, int, int]
    later: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Setting:
    """What the monitors of all draws have in common. levels: of a budget, None with `alpha`."""

    config: Config
    levels: Budget | None


def setting_of(*, alpha: bool) -> Setting:
    kinds = [f"x{i}: numeric" for i in range(N_NUMERIC)]
    kinds += [f"c{j}: categorical" for j in range(N_CATEGORICAL)]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "driftline.yaml"
        path.write_text(CONFIG % ", ".join(kinds) + (ALPHA if alpha else BUDGET), encoding="utf-8")
        config = load(path)
    if alpha:
        return Setting(config, None)
    columns = reference_rows(np.random.default_rng(10_000))
    profile, _ = fit(columns, multivariate=True)
    model = config.models["m"]
    assert model.false_alarms is not None
    found = calibrate(
        profile,
        columns,
        plan_of(profile, model.detectors_for),
        model.windows,
        pane_events=PANE_EVENTS,
        ert_events=model.false_alarms.events or 0,
    )
    return Setting(
        config, Budget(model.false_alarms.label, PANE_MS, PANE_EVENTS * 60, {"m": found})
    )


def reference_rows(rng: np.random.Generator) -> dict[str, Any]:
    columns: dict[str, Any] = {f"x{i}": rng.normal(size=REFERENCE_ROWS) for i in range(N_NUMERIC)}
    codes = rng.choice(8, (N_CATEGORICAL, REFERENCE_ROWS), p=SHARES)
    return columns | {f"c{j}": [f"k{c}" for c in codes[j]] for j in range(N_CATEGORICAL)}


def events(case: Case, changed: Sequence[str], first: int, rng: np.random.Generator) -> Any:
    """Columns of the PANE_EVENTS events from number `first` on."""
    since = np.arange(first, first + PANE_EVENTS) - CHANGE_AT
    part = np.clip((since + 1) / max(case.over, 1), 0.0, 1.0)
    columns: dict[str, Any] = {}
    for i in range(N_NUMERIC):
        x = rng.normal(size=PANE_EVENTS)
        lost = rng.random(PANE_EVENTS)
        if f"x{i}" in changed:
            x = x * (1 + (case.scale - 1) * part) + case.shift * part
            x = np.where(lost < case.missing * part, np.nan, x)
        columns[f"x{i}"] = x
    for j in range(N_CATEGORICAL):
        code = rng.choice(8, PANE_EVENTS, p=SHARES)
        # Moved there from anywhere, so that its share rises by `mass`.
        moved = rng.random(PANE_EVENTS) < case.mass / (1 - SHARES[2]) * part
        if f"c{j}" in changed:
            code = np.where(moved, 2, code)
        columns[f"c{j}"] = [f"k{c}" for c in code]
    return columns


def draw(setting: Setting, case: Case, seed: int) -> Draw | None:
    """One stream; None where the change was not seen."""
    config, rng = setting.config, np.random.default_rng([seed, CASES.index(case)])
    profile, _ = fit(reference_rows(rng), multivariate=True)
    reference = Reference("m", {"m": ({}, profile)}, budget=setting.levels)
    monitor = Monitor(config, {"m": reference})
    kind, n_kind = ("c", N_CATEGORICAL) if case.mass else ("x", N_NUMERIC)
    changed = [f"{kind}{i}" for i in rng.permutation(n_kind)[: case.n]]
    first_verdict: dict[str, Any] = {}
    row: Any = None
    fired_at = None
    at = later = (0, 0, case.n)
    for pane in range((CHANGE_AT + MOST_EVENTS) // PANE_EVENTS):
        first = pane * PANE_EVENTS
        monitor.quiet = first + PANE_EVENTS <= CHANGE_AT
        columns = Columns.of(profile, events(case, changed, first, rng))
        starts = np.full(PANE_EVENTS, pane * PANE_MS)
        monitor.delta(2 * pane, to_delta("m", {}, profile, summarize(profile, columns, starts)))
        passed = PartitionProgress(
            0, 0, (pane + 1) * PANE_MS + config.models["m"].allowed_lateness_ms
        )
        for v in monitor.progress(2 * pane + 1, Progress("inference", 1, [passed])):
            if v.drifted and v.fields["feature"] in changed:
                first_verdict.setdefault(v.fields["feature"], orjson.loads(v.value))
            if v.look is not None:
                look = orjson.loads(v.look)
                fields = VerdictMessage.from_json(v.value).model_dump()
                row, _ = incident.step(row, fields, look, 10**6)
        if row is None:
            continue
        named = set(row["firing"]["features"]) - {MULTIVARIATE}
        found = (len(named & set(changed)), len(named), case.n)
        fired_at = first if fired_at is None else fired_at
        at = found if first == fired_at else at
        if first >= fired_at + WINDOW:
            later = found
            break
    if fired_at is None:
        return None
    times = [
        tuple(
            parse_time_ms(ms) / PANE_MS * PANE_EVENTS if ms else 0.0
            for ms in (v["since"], v["detail"]["since_earliest"], v["detail"]["since_latest"])
        )
        for v in first_verdict.values()
    ]
    return Draw(
        fired_at + PANE_EVENTS - CHANGE_AT,
        [since - CHANGE_AT for since, _, _ in times],
        [low <= CHANGE_AT <= high for _, low, high in times],
        [high - low for _, low, high in times],
        at,
        later,
    )


def summary(setting: Setting, case: Case, draws: int) -> dict[str, Any]:
    found = [d for d in (draw(setting, case, seed) for seed in range(draws)) if d is not None]
    errors = np.array([e for d in found for e in d.errors])
    row: dict[str, Any] = {"case": case.name, "draws": draws, "seen": len(found)}
    row["delay_events"] = float(np.median([d.delay for d in found]))
    row["median_error_events"] = float(np.median(np.abs(errors)))
    row["median_error_windows"] = row["median_error_events"] / WINDOW
    row["p90_error_events"] = float(np.quantile(np.abs(errors), 0.9))
    row["bias_events"] = float(errors.mean())
    row["covered"] = float(np.mean([c for d in found for c in d.covered]))
    row["width_events"] = float(np.median([w for d in found for w in d.widths]))
    for name in ("at", "later"):
        right, named, true = np.sum([getattr(d, name) for d in found], axis=0).tolist()
        row[f"precision_{name}"], row[f"recall_{name}"] = right / named, right / true
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--case", action="append", choices=[c.name for c in CASES])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alpha", action="store_true", help="a level in place of the budget")
    wanted = parser.parse_args()
    setting = setting_of(alpha=wanted.alpha)
    for case in CASES:
        if wanted.case and case.name not in wanted.case:
            continue
        row = summary(setting, case, wanted.draws)
        if wanted.json:
            print(json.dumps(row), flush=True)
            continue
        print(
            f"{row['case']:<28} seen {row['seen']:>3}/{row['draws']}  delay {row['delay_events']:>5.0f}"
            f"  |error| median {row['median_error_events']:>4.0f} ({row['median_error_windows']:.2f}"
            f" windows) p90 {row['p90_error_events']:>4.0f} bias {row['bias_events']:>+5.0f}"
            f"  covered {row['covered']:.2f} width {row['width_events']:>4.0f}"
            f"  at alarm P {row['precision_at']:.2f} R {row['recall_at']:.2f}"
            f"  a window later P {row['precision_later']:.2f} R {row['recall_later']:.2f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
