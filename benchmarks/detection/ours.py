"""driftline's side: a monitor with one configuration for all cases, its levels from calibration.

Several runs go through one `WindowBank` side by side, each with features, a reference and a stream of
its own: tests look at one feature at a time, so it is the same as one bank for each. What a look shows
is kept as a score, the largest log(level / p) of a run's tests: it alarms at 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from driftline.detectors import Columns, WindowBank, fit, summarize
from driftline.detectors.base import plan_of
from driftline.detectors.calibration import calibrate
from driftline.detectors.levels import Calibration
from driftline.detectors.looking import look_at
from driftline.detectors.looks import Found, Replicate
from driftline.detectors.memory import Memory
from driftline.detectors.multivariate import MULTIVARIATE
from driftline.detectors.resample import Draw, NumericRows, Rows
from driftline.detectors.run_length import Simulator
from driftline.schemas.units import parse_window
from driftline.stream.config.models import BUDGET_DETECTORS

from . import cases
from .records import Record, joined, record

Array = npt.NDArray[Any]

PANE: Final = 10  # events
PANE_MS: Final = 1_000
MIN_EVENTS: Final = 30
# From the fewest events that are tested by default, each about three times the one before.
WINDOWS: Final = ("30 events", "100 events", "300 events", "1000 events")
_Detectors = Mapping[str, tuple[str, ...]]
_ONE_WINDOW: Final = ("1000 events",)
# The first has what a budget has by default.
VARIANTS: Final[Mapping[str, tuple[_Detectors, tuple[str, ...]]]] = {
    "driftline": (BUDGET_DETECTORS, _ONE_WINDOW),
    "driftline, four windows": (BUDGET_DETECTORS, WINDOWS),
    "driftline, mean_shift": (
        {"numeric": ("ks", "mean_shift", "missing_rate"), "categorical": ("chi_squared",)},
        WINDOWS,
    ),
    "driftline, mean_shift alone": ({"numeric": ("mean_shift",)}, WINDOWS),
    "driftline, early set": (
        {"numeric": ("ks", "cusum", "variance_shift", "missing_rate")},
        WINDOWS,
    ),
    "driftline, shiryaev_roberts alone": (
        {"numeric": ("shiryaev_roberts",), "categorical": ("shiryaev_roberts",)},
        _ONE_WINDOW,
    ),
}
# Calibrations, each on a reference of its own, and the most replicates of each.
CALIBRATIONS: Final = {"one": (3, 500), "twenty": (1, 100), "category": (3, 500)}
_RUNS_AT_ONCE: Final = {"one": 20, "twenty": 1, "category": 20}
# How far below an alarm, in log p, a look is still noted.
_NOTED: Final = 1.5
_FLOOR: Final = -100.0


def named(model: str, x: Array, prefix: str) -> dict[str, Any]:
    """Columns of the (n, features) values of one run."""
    if cases.MODELS[model]:
        return {f"{prefix}{j:02d}": x[:, j] for j in range(x.shape[1])}
    return {f"{prefix}{j:02d}": [f"k{int(v)}" for v in x[:, j]] for j in range(x.shape[1])}


def plan(profile: Any, variant: str = "driftline") -> Any:
    return plan_of(profile, lambda kind: VARIANTS[variant][0].get(kind, ()))


def levels_of(model: str, number: int, variant: str) -> tuple[Calibration, float]:
    """A calibration on a reference of its own, and the seconds that it took."""
    reference = named(model, cases.reference(model, 1_000_000 + number), "x")
    profile, _ = fit(reference, multivariate=True)
    begun = time.process_time()
    found = calibrate(
        profile,
        reference,
        plan(profile, variant),
        [parse_window(w) for w in VARIANTS[variant][1]],
        pane_events=PANE,
        ert_events=cases.ERT,
        pane_ms=PANE_MS,
        min_events=MIN_EVENTS,
        most_replicates=CALIBRATIONS[model][1],
        seed=number,
    )
    return found, time.process_time() - begun


class Monitor:
    """Runs of one model, side by side."""

    def __init__(self, model: str, numbers: list[int], levels: Calibration, variant: str) -> None:
        self.model, self.numbers, self.levels = model, numbers, levels
        rows: dict[str, Any] = {}
        for r in numbers:
            rows |= named(model, cases.reference(model, r), f"r{r}x")
        # Side by side, features of several runs would be told of together.
        self.profile, _ = fit(rows, multivariate=len(numbers) == 1)
        self.plan = plan(self.profile, variant)
        names = [f.name for f in self.profile.features]
        self.windows = [parse_window(w) for w in VARIANTS[variant][1]]
        self.own = [numbers.index(int(n[1 : n.index("x")])) for n in names]
        self.feature = [n[n.index("x") :] for n in names]
        if self.profile.multivariate is not None:
            self.own, self.feature = [*self.own, 0], [*self.feature, MULTIVARIATE]
        self.start()

    def start(self) -> None:
        self.bank = WindowBank(self.profile, self.windows, PANE_MS, 2**60)
        self.panes = 0

    def feed(self, streams: list[Array]) -> Array:
        """(events, runs) scores of whole panes; one (events, features) stream for each run."""
        n = len(streams[0])
        columns: dict[str, Any] = {}
        for r, x in zip(self.numbers, streams, strict=True):
            columns |= named(self.model, x, f"r{r}x")
        out = np.full((n, len(self.numbers)), _FLOOR)
        starts = (self.panes + np.arange(n) // PANE) * PANE_MS
        made = summarize(self.profile, Columns.of(self.profile, columns), starts)
        for k, pane in enumerate(made, 1):
            self.panes += 1
            due = self.bank.push(self.panes * PANE_MS, pane)
            for look in look_at(self.profile, self.plan, due, MIN_EVENTS):
                for (detector, _), row in zip(self.plan, look.outcomes, strict=True):
                    for o in row:
                        if o.deciding_p is None:
                            continue
                        name = self.feature[o.feature]
                        level = self.levels.level(name, detector.name, look.window.label)
                        p = max(o.deciding_p, 1e-300)
                        run = self.own[o.feature]
                        score = np.log(level) - np.log(p)
                        out[k * PANE - 1, run] = max(out[k * PANE - 1, run], score)
        return out


class Quick:
    """One run of a numeric model by the looks of the calibration, which a test holds to be those of
    the monitor: much faster for many features."""

    def __init__(self, model: str, number: int, levels: Calibration, variant: str) -> None:
        self.model, self.number, self.levels, self.variant = model, number, levels, variant

    def scores(self, x: Array) -> Array:
        """(events,) scores of a stream (events, features) from its first event on."""
        reference = cases.reference(self.model, self.number)
        n, n_panes = len(reference), len(x) // PANE
        both = named(self.model, np.concatenate([reference, x[: n_panes * PANE]]), "x")
        profile, _ = fit({name: values[:n] for name, values in both.items()}, multivariate=True)
        as_they_are = tuple(_AsTheyAre.of(name, values) for name, values in both.items())
        rows = Rows(len(both["x00"]), as_they_are, (), _ALONE)
        fresh = _Fresh(rows, n)
        windows = [parse_window(w) for w in VARIANTS[self.variant][1]]
        simulator = Simulator(
            profile,
            rows,
            plan(profile, self.variant),
            windows,
            pane_events=PANE,
            pane_ms=PANE_MS,
            min_events=MIN_EVENTS,
            seed=0,
        )
        tests = simulator.tests
        level = np.log([
            self.levels.level(profile.name_of(t.feature), t.detector.name, windows[t.window].label)
            for t in tests
        ])  # fmt: skip
        found = Found()
        own = Replicate(fresh, n_panes, level + _NOTED, False, found)
        simulator.numeric.run(own)
        simulator.moments.run(own)
        simulator.onset.run(own)
        simulator.spread.run(own)
        seen = found.seen()
        out = np.full(len(x), _FLOOR)
        np.maximum.at(out, seen.pane * PANE - 1, level[seen.test] - seen.log_p)
        return out


_ALONE: Final = Memory(1.0, 1, 0.0, 0.0, np.ones(0), 0.0)


class _AsTheyAre(NumericRows):
    """Rows that are not moved within their gaps."""

    @staticmethod
    def of(name: str, column: Any) -> _AsTheyAre:
        made = NumericRows.of(name, column)
        return _AsTheyAre(*(getattr(made, f.name) for f in fields(made)))

    def moved_ranks(self, rows: Any, uniform: Any) -> Array:
        return self.rank[rows]

    def moved_values(self, rows: Any, uniform: Any) -> Array:
        return self.values[rows].copy()


class _Fresh(Draw):
    """Rows as they are, in place of a draw: the first are the reference, the others the stream."""

    def __init__(self, rows: Rows, n_reference: int) -> None:
        super().__init__(rows, np.arange(n_reference), np.arange(n_reference, rows.n), ())

    def uniform(self, feature: int) -> npt.NDArray[np.float32]:
        return np.zeros(self.rows.n, np.float32)


def quick_runs(
    model: str, number: int, levels: Calibration, calibration: int, phase: int, variant: str
) -> dict[str, Any]:
    """As `runs`, of one run."""
    quick = Quick(model, number, levels, variant)
    quiet = record(quick.scores(cases.null(model, number)))
    found: dict[str, Any] = {"number": number, "warm": _FLOOR, "quiet": quiet}
    found |= {"before": _FLOOR, "after": {}, "calibration": calibration}
    change = cases.CHANGE_AT - phase
    for case in cases.cases_of(model):
        x = np.concatenate([cases.before(model, number)[phase:], cases.after(case, number)])
        scores = quick.scores(x)
        found["before"] = float(scores[:change].max())
        found["after"][case.name] = record(scores[change:])
    return found


def runs(
    model: str, numbers: list[int], levels: Calibration, calibration: int, phase: int, variant: str
) -> list[dict[str, Any]]:
    """Records of some runs; phase: a change comes so many events before the end of a pane."""
    monitor = Monitor(model, numbers, levels, variant)
    quiet = monitor.feed([cases.null(model, r) for r in numbers])
    found = [
        {
            "number": r,
            "warm": _FLOOR,
            "quiet": record(quiet[:, i]),
            "before": _FLOOR,
            "after": {},
            "calibration": calibration,
        }
        for i, r in enumerate(numbers)
    ]
    stop = max(1.0, float(quiet.max()))
    for case in cases.cases_of(model):
        monitor.start()
        parts = [cases.before(model, r)[phase:] for r in numbers]
        parts = [
            np.concatenate([b, cases.after(case, r)]) for b, r in zip(parts, numbers, strict=True)
        ]
        change = cases.CHANGE_AT - phase
        records: list[Record] = [[] for _ in numbers]
        whole = len(parts[0]) // PANE * PANE
        first = change // PANE * PANE
        for a, b in [(0, first), *[(a, min(a + 250, whole)) for a in range(first, whole, 250)]]:
            scores = monitor.feed([p[a:b] for p in parts])
            for i in range(len(numbers)):
                if a == 0:
                    found[i]["before"] = float(scores[:, i].max())
                else:
                    records[i] = joined(records[i], record(scores[:, i], a + 1 - change))
            if a and all(r and r[-1][1] > stop for r in records):
                break
        for i in range(len(numbers)):
            found[i]["after"][case.name] = records[i]
    return found


def measure(model: str, first: int, end: int, variant: str = "driftline") -> dict[str, Any]:
    """Runs `first:end`, in equal parts with each of the calibrations."""
    made = [levels_of(model, c, variant) for c in range(CALIBRATIONS[model][0])]
    begun, found = time.process_time(), []
    step = _RUNS_AT_ONCE[model]
    for k, a in enumerate(range(first, end, step)):
        numbers = list(range(a, min(a + step, end)))
        c = k % len(made)
        # Changes fall anywhere in a pane.
        phase = (3 + 7 * k) % PANE
        if model == "twenty":
            found += [quick_runs(model, r, made[c][0], c, phase, variant) for r in numbers]
        else:
            found += runs(model, numbers, made[c][0], c, phase, variant)
    return {
        "version": "this repository",
        "from_library": None,
        "step": 0.0,
        "seconds": time.process_time() - begun,
        "calibration_seconds": [s for _, s in made],
        "estimates": [[c.estimate, c.low, c.high, c.tail] for c, _ in made],
        "runs": found,
    }
