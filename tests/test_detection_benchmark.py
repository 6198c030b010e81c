"""What the benchmark of detection delays rests on: run lengths from records, and quick looks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.detection import cases, ours
from benchmarks.detection.records import Run, Runs, delay, expected, joined, record, run_time


def test_a_record_tells_the_first_alarm_of_every_threshold() -> None:
    scores = np.random.default_rng(1).normal(size=300)
    kept = joined(record(scores[:200]), record(scores[200:], 201))
    runs = Runs([Run(0, -9.0, kept, 0.0, {})], 300, 0)
    for threshold in (-1.0, 0.0, 1.0, 2.0, 5.0):
        over = np.flatnonzero(scores >= threshold)
        first = over[0] + 1 if len(over) else np.inf
        assert runs.run_lengths(np.array([threshold]))[0, 0] == first


def test_runs_cut_off_at_the_horizon_count_with_what_they_would_have_lasted() -> None:
    times = np.random.default_rng(2).exponential(1000.0, 5000)
    cut = np.where(times <= 2000, times, np.inf)
    assert expected(cut, 2000) == pytest.approx(1000, rel=0.05)


def test_the_threshold_is_the_one_of_the_expected_run_time() -> None:
    """Maxima of n independent normal scores pass a threshold of rate 1/500 after 500 events."""
    rng = np.random.default_rng(3)
    made = [
        Run(
            r,
            -9.0,
            record(rng.normal(size=1000)),
            -9.0,
            {"jump": record(rng.normal(size=50) + 4.0)},
        )
        for r in range(400)
    ]
    runs = Runs(made, 1000, 50)
    [threshold, *others] = runs.thresholds(500, 20)
    assert threshold == pytest.approx(2.878, abs=0.08)
    assert np.std(others) < 0.1
    assert run_time(runs, float(threshold)).mean == pytest.approx(500, rel=0.02)
    # A score of N(4, 1) passes it with probability 0.87.
    found = delay(runs, "jump", np.array([threshold, *others]))
    assert found.mean == pytest.approx(1 / 0.87, rel=0.08)
    assert (found.n, found.missed) == (400, 0)


def test_a_run_that_alarmed_before_the_change_is_left_out() -> None:
    after: dict[str, Any] = {"jump": [(3, 2.0)]}
    made = [Run(0, -9.0, [(1, 0.0)], 5.0, after), Run(1, -9.0, [(1, 0.0)], 0.0, after)]
    assert Runs(made, 10, 10).delays("jump", 1.0).tolist()[1:] == [3.0]
    assert np.isnan(Runs(made, 10, 10).delays("jump", 1.0)[0])


@pytest.mark.parametrize(
    ("variant", "level"),
    # p-values of shiryaev_roberts are too large.
    [("driftline", 0.1), ("driftline, mean_shift", 5e-4), ("driftline, early set", 5e-4)],
)
def test_the_quick_looks_of_a_run_are_those_of_the_monitor(variant: str, level: float) -> None:
    levels: Any = SimpleNamespace(level=lambda feature, detector, window: level)
    stream = cases.null("twenty", 3)[:1500]
    quick = ours.Quick("twenty", 3, levels, variant).scores(stream)
    live = ours.Monitor("twenty", [3], levels, variant).feed([stream])[:, 0]
    near = live > -1.4
    assert near.sum() > 20
    np.testing.assert_allclose(quick[near], live[near], atol=1e-9)
    assert quick[~near].max() < -1.4
