"""Benchmark: is a budget of false alarms kept? Realised run time over the one asked for.

    python -m benchmarks.false_alarms [--cases 'independent; ar1'] [--json FILE] [--markdown FILE]

A case is a source of rows, a number of features, a reference and a budget. Each of its calibrations
gets a reference of its own; then fresh pairs of a reference and a stream, not resamples, are run
through the live code (`fit`, `summarize`, `WindowBank`, `test`) with its levels until the first
alarm. A run without one ends at twelve budgets. Seeds are fixed, so the same command gives the same
figures. The standard error is that between calibrations where there are at least ten, else that of
the run lengths alone.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter

from driftline.detectors import Columns, WindowBank, fit, summarize
from driftline.detectors.base import plan_of
from driftline.detectors.calibration import calibrate
from driftline.detectors.levels import Calibration
from driftline.detectors.looking import look_at
from driftline.schemas.units import parse_window
from driftline.stream.config.models import BUDGET_DETECTORS, DEFAULT_DETECTORS

PANE = 100
PANE_MS = 60_000
MIN_EVENTS = 30
LIMIT = 12
SEED = 77

Rows = dict[str, Any]
Source = Callable[[int], Rows]


def independent(k: int, rng: np.random.Generator) -> Source:
    return lambda n: {f"x{i:02d}": rng.normal(size=n) for i in range(k)}


def correlated(k: int, rng: np.random.Generator) -> Source:
    def rows(n: int) -> Rows:
        shared = math.sqrt(0.95) * rng.normal(size=n)
        return {f"x{i:02d}": shared + math.sqrt(0.05) * rng.normal(size=n) for i in range(k)}

    return rows


def ties(k: int, rng: np.random.Generator) -> Source:
    """Three in five are Poisson(3), the others exponentials rounded to 0.1."""

    def rows(n: int) -> Rows:
        return {
            f"x{i:02d}": rng.poisson(3, n).astype(float)
            if i % 5 < 3
            else np.round(rng.exponential(1, n), 1)
            for i in range(k)
        }

    return rows


def missing(k: int, rng: np.random.Generator) -> Source:
    return lambda n: {
        f"x{i:02d}": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)) for i in range(k)
    }


def categories(k: int, rng: np.random.Generator) -> Source:
    """Twenty categories, shares as 1/rank^1.5."""
    share = 1 / np.arange(1, 21) ** 1.5
    share /= share.sum()
    names = np.array([f"c{i:02d}" for i in range(20)])
    return lambda n: {f"x{i:02d}": names[rng.choice(20, n, p=share)].tolist() for i in range(k)}


def ar1(k: int, rng: np.random.Generator) -> Source:
    """x(t) = 0.8·x(t-1) + noise, each feature on its own, in its stride from the first row on."""
    state = rng.normal(size=(k, 1)) * 0.8 / 0.6

    def rows(n: int) -> Rows:
        nonlocal state
        found, state = lfilter([1.0], [1.0, -0.8], rng.normal(size=(k, n)), axis=1, zi=state)
        return {f"x{i:02d}": found[i] for i in range(k)}

    return rows


def daily(k: int, rng: np.random.Generator) -> Source:
    """Days of 1,000 events, beginning at any hour. Feature 0, 5, … moves by a sine of amplitude 1
    (standard deviation of the noise: 1), 1, 6, … by 0.5, 2, 7, … jumps by 1 for a third of the day,
    3, 8, … doubles its spread for half the day, 4, 9, … has no cycle."""
    at = int(rng.integers(0, 1_000))

    def rows(n: int) -> Rows:
        nonlocal at
        hour = ((at + np.arange(n)) % 1_000) / 1_000
        at += n
        level = [
            np.sin(2 * np.pi * hour),
            0.5 * np.sin(2 * np.pi * (hour + 0.3)),
            (hour < 1 / 3).astype(float),
            np.zeros(n),
            np.zeros(n),
        ]
        spread = np.where(hour < 0.5, 2.0, 1.0)
        return {
            f"x{i:02d}": level[i % 5] + rng.normal(size=n) * (spread if i % 5 == 3 else 1.0)
            for i in range(k)
        }

    return rows


@dataclass(frozen=True, slots=True)
class Case:
    source: Callable[[int, np.random.Generator], Source]
    features: int = 5
    reference: int = 4_000
    budget: int = 5_000
    windows: tuple[str, ...] = ("500 events", "2000 events")
    calibrations: int = 2
    runs: int = 300
    most_replicates: int = 500
    tests: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: BUDGET_DETECTORS)


CASES: dict[str, Case] = {
    "independent": Case(independent),
    "correlated": Case(correlated),
    "ties": Case(ties),
    "missing": Case(missing),
    "categories": Case(categories),
    # The defaults under `alpha`.
    "independent, fewer": Case(independent, tests=DEFAULT_DETECTORS),
    "correlated, fewer": Case(correlated, tests=DEFAULT_DETECTORS),
    "ties, fewer": Case(ties, tests=DEFAULT_DETECTORS),
    "missing, fewer": Case(missing, tests=DEFAULT_DETECTORS),
    "categories, fewer": Case(categories, tests=DEFAULT_DETECTORS),
    "50 features": Case(independent, features=50),
    "budget 50,000": Case(independent, budget=50_000, calibrations=2, runs=100),
    "50 features, budget 50,000": Case(
        independent, features=50, budget=50_000, calibrations=2, runs=80
    ),
    # What differs between references counts most here: many quick calibrations, few runs each.
    "ar1": Case(ar1, calibrations=14, runs=16, most_replicates=120),
    "daily": Case(daily, reference=10_000, calibrations=10, runs=20, most_replicates=120),
}


def first_alarm(case: Case, levels: Calibration, rng: np.random.Generator) -> int:
    """Events until a fresh stream, tested against a fresh reference, alarms; LIMIT budgets at most."""
    source = case.source(case.features, rng)
    profile, _ = fit(source(case.reference), multivariate=True)
    plan = plan_of(profile, lambda kind: case.tests.get(kind, ()))
    bank = WindowBank(profile, [parse_window(w) for w in case.windows], PANE_MS, 2**60)
    stretch = 20 * PANE
    at = 0
    while at < LIMIT * case.budget:
        starts = np.arange(at, at + stretch) // PANE * PANE_MS
        for pane in summarize(profile, Columns.of(profile, source(stretch)), starts):
            at += PANE
            due = bank.push(at // PANE * PANE_MS, pane)
            for look in look_at(profile, plan, due, MIN_EVENTS):
                for (detector, _), row in zip(plan, look.outcomes, strict=True):
                    for o in row:
                        name = profile.name_of(o.feature)
                        if o.significant(levels.level(name, detector.name, look.window.label)):
                            return at
    return LIMIT * case.budget


def measure(name: str, case: Case) -> dict[str, Any]:
    seed = [SEED, *name.encode()]
    per_calibration: list[list[int]] = []
    made: list[dict[str, Any]] = []
    calibrating = running = 0.0
    for c in range(case.calibrations):
        rng = np.random.default_rng([*seed, c])
        reference = case.source(case.features, rng)(case.reference)
        profile, _ = fit(reference, multivariate=True)
        begun = time.process_time()
        found = calibrate(
            profile,
            reference,
            plan_of(profile, lambda kind: case.tests.get(kind, ())),
            [parse_window(w) for w in case.windows],
            pane_events=PANE,
            ert_events=case.budget,
            pane_ms=PANE_MS,
            min_events=MIN_EVENTS,
            most_replicates=case.most_replicates,
            seed=c,
        )
        calibrating += time.process_time() - begun
        begun = time.process_time()
        per_calibration.append([first_alarm(case, found, rng) for _ in range(case.runs)])
        running += time.process_time() - begun
        made.append({k: v for k, v in found.to_json().items() if k != "levels"})
    times = np.array(per_calibration, float) / case.budget
    means = times.mean(axis=1)
    few = len(means) < 10
    error = times.std() / math.sqrt(times.size) if few else means.std(ddof=1) / len(means) ** 0.5
    return {
        "case": {**asdict(case), "source": case.source.__name__},
        "realised_over_asked": float(times.mean()),
        "standard_error": float(error),
        "by_calibration": means.tolist(),
        "runs": int(times.size),
        "without_alarm": int((times >= LIMIT).sum()),
        "within_a_tenth": float((times <= 0.1).mean()),
        "calibration_s": calibrating / case.calibrations,
        "run_s": running / times.size,
        "calibrations": made,
    }


def markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "| case | realised / asked | standard error | calibrations × runs | tail | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, f in found.items():
        case, tails = f["case"], sorted({c["tail"] for c in f["calibrations"]})
        lines.append(
            f"| {name} | {f['realised_over_asked']:.2f} | {f['standard_error']:.2f} | "
            f"{case['calibrations']} × {case['runs']} | {', '.join(tails)} | "
            f"{f['calibration_s']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--cases", help=f"some of: {', '.join(CASES)} (separated by `;`, since names hold commas)"
    )
    parser.add_argument("--calibrations", type=int, help="instead of the case's own number")
    parser.add_argument(
        "--runs", type=int, help="per calibration, instead of the case's own number"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    given = parser.parse_args()
    names = [n.strip() for n in given.cases.split(";")] if given.cases else list(CASES)
    for name in names:
        if name not in CASES:
            parser.error(f"no case {name!r}; the cases are {', '.join(CASES)}")
    found: dict[str, Any] = {}
    for name in names:
        case = CASES[name]
        given_size = {
            k: v for k in ("calibrations", "runs") if (v := getattr(given, k)) is not None
        }
        found[name] = measure(name, replace(case, **given_size))
        print(markdown({name: found[name]}).splitlines()[-1], flush=True)
        # After each case: a long run that is cut off leaves what it had.
        if given.json:
            given.json.write_text(json.dumps(found, indent=2))
        if given.markdown:
            given.markdown.write_text(markdown(found))
    print("\n" + markdown(found))


if __name__ == "__main__":
    main()
