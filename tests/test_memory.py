"""How reference rows follow each other, and whether draws from them keep it."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from driftline.detectors import fit
from driftline.detectors.memory import Memory, correlation_time, find_period, without_cycle
from driftline.detectors.resample import Draw, Rows


def remembering(n: int, phi: float, seed: int) -> npt.NDArray[np.float64]:
    noise = np.random.default_rng(seed).normal(size=n + 200).tolist()
    return np.array(list(accumulate(noise, lambda x, e: phi * x + e)))[200:]


def rows_of(columns: dict[str, Any]) -> Rows:
    profile, _ = fit(columns)
    return Rows.of(profile, columns)


def test_the_correlation_time_is_that_of_the_process() -> None:
    assert correlation_time(np.random.default_rng(6).normal(size=8000)) == 1.0
    found = [correlation_time(remembering(8000, 0.8, seed)) for seed in range(10)]
    assert np.mean(found) == pytest.approx(9.0, rel=0.1)  # (1 + φ) / (1 - φ)


def test_blocks_are_as_long_as_the_memory_asks() -> None:
    rows = rows_of({"x": remembering(8000, 0.8, 6)})
    block = rows.memory.block
    drawn = rows.draw(5000, np.random.default_rng(0))
    joints = int((np.diff(drawn) % rows.n != 1).sum())
    assert block == pytest.approx(6 * rows.memory.time, abs=1)
    assert joints == pytest.approx(5000 / block, abs=1)


def test_what_blocks_lose_and_leave_to_luck_is_what_memory_says() -> None:
    """The long-run variance of a reference's blocks, all of them, over 40 references."""
    said, found, noise = [], [], []
    for seed in range(40):
        x = remembering(4000, 0.8, seed)
        memory = Memory.of([[x]], len(x))
        block = memory.block
        sums = np.cumsum(np.append(0.0, np.append(x, x[:block])))
        means = (sums[block : block + len(x)] - sums[: len(x)]) / block
        found.append(block * np.mean((means - x.mean()) ** 2) / x.var())
        said.append(memory.kept[0] * memory.time)
        noise.append(memory.noise)
    assert np.mean(said) < 0.93 * 9  # (1 + φ) / (1 - φ)
    assert np.mean(found) == pytest.approx(np.mean(said), rel=0.03)
    assert np.std(found) / np.mean(found) == pytest.approx(np.sqrt(np.mean(noise)), rel=0.3)


def test_draws_stretch_p_values_by_what_they_lack_and_do_not_know() -> None:
    memory = Memory(9.0, 54, 0.0, 0.0, np.array([0.9, 0.8]), 0.02)
    rng = np.random.default_rng(2)
    stretches = np.array([memory.stretch(rng) for _ in range(20_000)])
    # E[ν / χ²(ν)] = ν / (ν - 2), with ν = 2 / noise = 100
    assert stretches.mean(axis=0) == pytest.approx(100 / 98 / memory.kept, rel=0.005)
    assert (stretches * memory.kept).std(axis=0) == pytest.approx(0.145, rel=0.05)
    certain = Memory(1.0, 1, 0.0, 0.0, np.array([1.0]), 0.0)
    assert certain.stretch(rng).tolist() == [1.0]


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8, 0.95])
def test_memory_is_no_cycle(phi: float) -> None:
    assert find_period([remembering(4000, phi, seed) for seed in range(40)]) == 0.0


@pytest.mark.parametrize(
    ("n", "period"), [(4000, 1000.0), (4000, 24.0), (5000, 24.37), (20_000, 3000.0)]
)
def test_a_cycle_is_found_under_memory(n: int, period: float) -> None:
    wave = np.sin(2 * np.pi * np.arange(n) / period)
    x = remembering(n, 0.5, 3)
    assert find_period([x, x + wave]) == pytest.approx(period, rel=period / n / 10)


def test_the_longest_cycle_counts_and_its_overtones_do_not() -> None:
    t = np.arange(20_000)
    noise = np.random.default_rng(4).normal(size=len(t))
    day = (t % 400 < 100).astype(float)
    week = (t // 400 % 5 == 0).astype(float)
    assert find_period([day + noise]) == pytest.approx(400, abs=1)
    assert find_period([day + week + noise]) == pytest.approx(2000, abs=4)


def test_without_its_cycle_a_series_is_independent_again() -> None:
    t = np.arange(10_000)
    x = np.sin(2 * np.pi * t / 1000) + np.random.default_rng(5).normal(size=len(t))
    assert correlation_time(x) > 50
    assert correlation_time(without_cycle(x, 1000.0)) == 1.0


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_draws_keep_the_hour(phi: float) -> None:
    n, period = 8000, 1000
    x = 3 * np.sin(2 * np.pi * np.arange(n) / period) + remembering(n, phi, 6)
    rows = rows_of({"x": x})
    assert rows.memory.period == period
    assert (rows.memory.block > 1) == (phi > 0)
    drawn = rows.draw(3000, np.random.default_rng(7), hour=250)
    off = (drawn - (250 + np.arange(3000)) + period / 2) % period - period / 2
    assert np.abs(off).max() <= rows.memory.near + 0.5
    assert len({*(drawn // period).tolist()}) == 8  # of any of the days
    # The reference is drawn from its own first hour on, a stream from any.
    firsts = [Draw.of(rows, rows.n, 200, (8, r)) for r in range(30)]
    assert all((d.reference[0] + 30) % period <= 60 for d in firsts)
    assert len({int(d.stream[0]) % period // 100 for d in firsts}) > 5
