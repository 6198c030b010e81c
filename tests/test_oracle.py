"""Statistics and p-values of the detectors against scipy's on the raw values, to 1e-9 relative.

Every window goes the way of a stream: its events are dealt out over panes and batches, summarised,
merged and collected by a `WindowBank`; scipy sees the list of values.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import special, stats
from scipy.stats.contingency import expected_freq

from driftline.detectors import (
    Columns,
    Kind,
    Outcome,
    Profile,
    Window,
    WindowBank,
    detectors,
    fit,
    merge,
    summarize,
)
from driftline.detectors.chi_squared import homogeneity, pool_alone, pool_rare
from driftline.detectors.hypergeometric import fisher, more_often
from driftline.detectors.kolmogorov import (
    _exact_sf,
    _Memo,
    _memo,
    _split,
    kolmogorov_sf,
    smirnov_sf,
    two_sample_p_values,
)
from driftline.schemas.units import TimeWindow

Values = Sequence[Any] | npt.NDArray[Any]
Case = Callable[[np.random.Generator], tuple[Values, Values]]

PANE_MS = 60_000
N_PANES = 4

# Numbers of words (split at single blanks) of title + " " + description of the first 400 entries of
# projects.json, from Made With ML, https://github.com/GokuMohandas/Made-With-ML, Copyright (c) 2018
# Goku Mohandas, MIT licence. Its lesson on monitoring compares the second 200 with the first 200.
LESSON_REFERENCE = [
    28, 36, 16, 17, 15, 17, 15, 19, 19, 15, 14, 18, 19, 11, 35, 22, 34, 14, 13, 20, 18, 17, 22,
    8, 13, 9, 26, 25, 13, 9, 30, 27, 21, 16, 29, 11, 20, 31, 20, 21, 25, 17, 21, 11, 15, 27, 27,
    18, 29, 22, 29, 20, 28, 26, 21, 15, 17, 15, 32, 12, 24, 23, 9, 26, 14, 22, 19, 14, 21, 21,
    25, 27, 18, 15, 23, 9, 11, 27, 21, 18, 33, 31, 22, 13, 22, 11, 29, 12, 19, 33, 22, 25, 22,
    10, 16, 17, 23, 17, 26, 22, 28, 27, 23, 22, 24, 20, 10, 20, 19, 15, 27, 23, 9, 13, 20, 9,
    14, 16, 14, 24, 21, 10, 25, 22, 9, 9, 19, 33, 27, 18, 32, 16, 14, 18, 25, 18, 9, 11, 15, 10,
    21, 9, 8, 25, 9, 12, 16, 30, 20, 20, 7, 26, 20, 15, 27, 7, 20, 10, 25, 22, 27, 12, 10, 14,
    34, 27, 29, 24, 29, 23, 10, 27, 21, 18, 29, 12, 27, 22, 19, 32, 23, 20, 19, 15, 11, 18, 24,
    29, 16, 24, 20, 9, 25, 29, 25, 23, 20, 28, 28, 13,
]  # fmt: skip

LESSON_WINDOW = [
    20, 23, 12, 19, 19, 28, 17, 23, 21, 17, 25, 21, 23, 24, 13, 18, 22, 26, 29, 31, 31, 31, 17,
    38, 28, 14, 18, 24, 6, 22, 24, 10, 14, 12, 35, 40, 17, 9, 9, 10, 34, 31, 20, 29, 28, 21, 9,
    19, 29, 12, 24, 23, 27, 15, 15, 19, 27, 13, 17, 11, 15, 31, 30, 33, 22, 22, 23, 16, 35, 16,
    25, 23, 19, 27, 18, 14, 11, 27, 12, 28, 26, 34, 10, 24, 13, 22, 14, 18, 19, 19, 28, 26, 23,
    11, 25, 26, 23, 19, 22, 25, 22, 20, 15, 19, 15, 14, 31, 30, 33, 12, 26, 16, 12, 9, 21, 23,
    28, 19, 28, 17, 35, 23, 5, 27, 19, 27, 25, 14, 18, 16, 10, 31, 25, 30, 28, 25, 26, 22, 24,
    22, 26, 15, 32, 22, 22, 32, 27, 14, 10, 17, 24, 20, 8, 25, 15, 27, 5, 11, 13, 16, 25, 12,
    30, 30, 8, 11, 27, 20, 11, 21, 30, 15, 26, 34, 28, 20, 32, 27, 19, 15, 24, 21, 28, 14, 32,
    35, 30, 16, 18, 13, 11, 11, 21, 22, 19, 13, 25, 11, 20, 22,
]  # fmt: skip


def close(value: float) -> Any:
    """Equal to `value` to 1e-9 relative, and to nothing else near 0."""
    return pytest.approx(value, rel=1e-9, abs=0)


def streamed(profile: Profile, columns: dict[str, Values], seed: int = 0) -> Window:
    """The window of all rows, which came shuffled, in batches, over several panes."""
    rng = np.random.default_rng(seed)
    n = len(next(iter(columns.values())))
    slots = rng.integers(0, N_PANES, n)
    batches = np.array_split(rng.permutation(n), 3)
    panes = []
    for rows in batches:
        part = {
            name: values[rows] if isinstance(values, np.ndarray) else [values[i] for i in rows]
            for name, values in columns.items()
        }
        panes += summarize(profile, Columns.of(profile, part), slots[rows] * PANE_MS)
    by_start = {pane.start_ms: pane for pane in merge(profile, panes)}
    size = TimeWindow(N_PANES * PANE_MS, None, "all")
    bank = WindowBank(profile, [size], PANE_MS, retention_ms=N_PANES * PANE_MS)
    for slot in range(N_PANES):
        bank.push((slot + 1) * PANE_MS, by_start.get(slot * PANE_MS))
    [window] = bank.windows
    assert window.events == n
    return window


def outcome_of(
    detector: str, reference: Values, window: Values, kind: Kind, *, slots: int | None = None
) -> Outcome:
    profile, _ = fit({"x": reference}, {"x": kind}, slots=slots)
    [[outcome]] = detectors()[detector].test(profile, [streamed(profile, {"x": window})], [0])
    return outcome


def finite(values: Values) -> npt.NDArray[np.float64]:
    numbers = np.array([np.nan if v is None else v for v in values], np.float64)
    return numbers[np.isfinite(numbers)]


def expected_ks(reference: Values, window: Values) -> tuple[float, float, str]:
    a, b = finite(reference), finite(window)
    method = "exact" if len(a) * len(b) <= 1_000_000 else "asymp"
    result = stats.ks_2samp(a, b, method=method)
    return float(result.statistic), float(result.pvalue), method


def assert_equals_scipy_ks(reference: Values, window: Values) -> None:
    statistic, p_value, method = expected_ks(reference, window)
    outcome = outcome_of("ks", reference, window, "numeric")
    assert outcome.statistic == close(statistic)
    assert outcome.p_value == close(p_value)
    assert outcome.detail["method"] == method
    assert outcome.detail["n_reference"] == len(finite(reference))
    assert outcome.detail["n_test"] == len(finite(window))
    assert "statistic_error" not in outcome.detail


def mixed(rng: np.random.Generator, values: npt.NDArray[np.float64]) -> list[float | None]:
    """`values` with missing, NaN and both infinities among them."""
    strange = [None] * 7 + [math.nan] * 5 + [math.inf] * 3 + [-math.inf] * 2
    everything = [*values.tolist(), *strange]
    return [everything[i] for i in rng.permutation(len(everything))]


def nudged(rng: np.random.Generator) -> tuple[Values, Values]:
    """Window values next to reference values, one unit in the last place away or not at all."""
    reference = rng.normal(size=300)
    picked = rng.choice(reference, 200)
    return reference, np.nextafter(picked, picked + rng.integers(-1, 2, 200))


KS_CASES: dict[str, Case] = {
    "continuous": lambda r: (r.normal(size=700), r.normal(size=300)),
    "continuous, shifted": lambda r: (r.normal(size=700), r.normal(0.5, 1, 300)),
    "narrower": lambda r: (r.normal(size=700), r.normal(0, 0.6, 300)),
    "by the limit law": lambda r: (r.normal(size=5000), r.normal(0.05, 1, 900)),
    "by the limit law, shifted": lambda r: (r.normal(size=5000), r.normal(1, 1, 900)),
    "by the limit law, heavy ties": lambda r: (r.poisson(3, 5000), r.poisson(3.2, 900)),
    "exact to the last pair": lambda r: (r.normal(size=1000), r.normal(size=1000)),
    "one pair beyond exact": lambda r: (r.normal(size=1000), r.normal(size=1001)),
    "heavy ties": lambda r: (r.poisson(3, 700), r.poisson(3.5, 300)),
    "two values": lambda r: (r.integers(0, 2, 700), r.integers(0, 2, 300)),
    "ints in lists": lambda r: (r.integers(-50, 50, 400).tolist(), r.integers(0, 60, 90).tolist()),
    "ints of 64 bits": lambda r: (r.integers(0, 2**53, 400), r.integers(0, 2**53, 90)),
    "ties on some values only": lambda r: (
        np.round(r.normal(size=700), 1),
        np.where(r.random(300) < 0.5, np.round(r.normal(size=300), 1), r.normal(size=300)),
    ),
    "one unit in the last place": nudged,
    "offset 1e9": lambda r: (1e9 + r.normal(size=700), 1e9 + r.normal(0.2, 1, 300)),
    "negative": lambda r: (-r.exponential(size=700) - 3, -r.exponential(size=300) - 3),
    "denormal": lambda r: (r.integers(1, 400, 700) * 5e-324, r.integers(1, 500, 300) * 5e-324),
    "huge": lambda r: (r.normal(size=700) * 1e300, r.normal(0.2, 1, 300) * 1e300),
    "the whole range of floats": lambda r: (
        r.choice([-1, 1], 700) * 10.0 ** r.uniform(-300, 300, 700),
        r.choice([-1, 1], 300) * 10.0 ** r.uniform(-300, 290, 300),
    ),
    "zeros of both signs": lambda r: (
        r.choice([-0.0, 0.0, 1.0, -1.0], 300), r.choice([-0.0, 0.0, 0.5], 100)
    ),
    "float32 against float64": lambda r: (
        r.normal(size=400).astype(np.float32), np.round(r.normal(size=200), 1)
    ),
    "missing and not finite": lambda r: (mixed(r, r.normal(size=700)), mixed(r, r.normal(size=99))),
    "one value": lambda r: (r.normal(size=700), r.normal(size=1)),
    "two window values": lambda r: (r.normal(size=700), r.normal(size=2)),
    "smallest reference": lambda r: (r.normal(size=20), r.normal(size=5000)),
    "coprime sizes": lambda r: (r.normal(size=997), r.normal(size=13)),
    "one reference value repeated": lambda r: (np.arange(100.0), np.full(50, 37.0)),
    "one value between": lambda r: (np.arange(100.0), np.full(50, 37.5)),
    "the smallest value repeated": lambda r: (np.arange(100.0), np.full(50, 0.0)),
    "the largest value repeated": lambda r: (np.arange(100.0), np.full(50, 99.0)),
    "below the reference": lambda r: (r.normal(size=700), r.normal(-50, 1, 300)),
    "above the reference": lambda r: (r.normal(size=700), r.normal(50, 1, 300)),
    "around the reference": lambda r: (r.normal(size=700), r.choice([-50.0, 50.0], 300)),
    "the reference itself": lambda r: ((x := r.normal(size=300)), x),
    "the reference itself, tied": lambda r: ((x := r.poisson(2, 300)), x),
    "half of the reference": lambda r: ((x := r.normal(size=300)), np.sort(x)[:150]),
}  # fmt: skip


@pytest.mark.parametrize("case", KS_CASES.values(), ids=KS_CASES.keys())
def test_ks_equals_scipy(case: Case) -> None:
    assert_equals_scipy_ks(*case(np.random.default_rng(11)))


@pytest.mark.parametrize("seed", range(150))
def test_ks_equals_scipy_on_random_samples(seed: int) -> None:
    """Sizes, ties, place and spread all at random; every third window repeats reference values."""
    rng = np.random.default_rng([2, seed])
    n_reference, n_test = int(10 ** rng.uniform(1.31, 3.5)), int(10 ** rng.uniform(0, 3))
    reference = rng.normal(size=n_reference)
    window = rng.normal(rng.uniform(-0.5, 0.5), rng.uniform(0.5, 1.5), n_test)
    if seed % 3 == 0:
        window = np.where(rng.random(n_test) < 0.5, rng.choice(reference, n_test), window)
    if seed % 3 == 1:
        reference, window = np.round(reference, seed % 2), np.round(window, seed % 2)
    if n_reference == n_test:
        n_test, window = n_test + 1, np.append(window, 0.0)
    assert_equals_scipy_ks(reference, window)


def test_ks_of_many_features_at_once() -> None:
    """Features of all sizes side by side, tied or not, drifted or not, in one window and several;
    a window's counts are stored in blocks of 16 cells, so sizes around multiples of it matter."""
    rng = np.random.default_rng(21)
    reference: dict[str, Values] = {}
    window: dict[str, Values] = {}
    for i, n_distinct in enumerate([2, 3, 14, 15, 16, 17, 30, 31, 32, 33, 47, 48, 300, 2000]):
        values = np.sort(rng.normal(size=n_distinct))
        reference[f"f{i}"] = np.concatenate([values, rng.choice(values, 2000 - n_distinct)])
        kinds = (
            rng.choice(values, 400),
            rng.normal(0.3, 1, 400),
            np.where(rng.random(400) < 0.5, rng.choice(values, 400), rng.normal(size=400)),
            np.full(400, values[i % n_distinct]),
        )
        window[f"f{i}"] = kinds[i % 4]
    window["f5"] = [None, math.nan] * 200
    window["f7"] = [*window["f7"][:399], math.inf]
    reference["c"], window["c"] = ["a", "b"] * 1000, ["a", "b"] * 200
    profile, _ = fit(reference)
    streams = [streamed(profile, window, seed=1), streamed(profile, reference, seed=2)]
    features = list(range(profile.n_numeric))
    of_window, of_reference = detectors()["ks"].test(profile, streams, features)
    for outcome in of_reference:
        assert (outcome.statistic, outcome.p_value) == (0.0, 1.0)
    for outcome, name in zip(of_window, profile.names, strict=False):
        if name == "f5":
            assert outcome.p_value is None
            assert outcome.reason == "none of its 400 values is a finite number"
            continue
        statistic, p_value, _ = expected_ks(reference[name], window[name])
        assert (outcome.statistic, outcome.p_value) == (close(statistic), close(p_value)), name


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("n", [16, 17, 100, 1000])
def test_ks_finds_a_distance_that_is_largest_at_any_one_place(n: int, place: str) -> None:
    """All window values at one place, on a reference value or beside it, and one anywhere else."""
    reference = np.arange(float(max(n, 20)))
    at = {"first": 0, "middle": n // 2, "last": n - 1}[place]
    for where in (-0.5, 0.0, 0.5):
        for other in (-1.0, 0.0, n / 3, n + 5.0):
            window = np.append(np.full(30, at + where), other)
            assert_equals_scipy_ks(reference, window)


@pytest.mark.parametrize("n", [46_340, 46_341], ids=["within int32", "beyond int32"])
@pytest.mark.parametrize("offset", [-100.0, 100.0, 0.5, 0.25])
def test_ks_does_not_overflow(n: int, offset: float) -> None:
    """n² is the largest distance in the integer arithmetic; 46,341² is beyond 2**31."""
    reference = np.arange(n) / n
    for window in (reference + offset, np.round(reference + offset, 3)):
        statistic, p_value, method = expected_ks(reference, window)
        outcome = outcome_of("ks", reference, window, "numeric")
        assert (outcome.statistic, outcome.p_value) == (close(statistic), close(p_value))
        assert outcome.detail["method"] == method == "asymp"


def test_ks_takes_the_limit_law_where_scipy_cannot_count() -> None:
    """scipy's exact law comes out as 1.0000000000000002 here; it warns, and so takes the limit."""
    reference = np.arange(23.0)
    window = reference + 0.5
    with pytest.warns(RuntimeWarning, match="Exact calculation unsuccessful"):
        expected = stats.ks_2samp(reference, window, method="exact")
    outcome = outcome_of("ks", reference, window, "numeric")
    assert outcome.statistic == close(expected.statistic) == close(1 / 23)
    assert outcome.p_value == close(expected.pvalue)
    assert outcome.detail["method"] == "asymp"


def test_ks_counts_what_it_does_not_test() -> None:
    reference = [*range(30), None, math.nan]
    window = [1, 2, None, None, math.nan, math.inf, -math.inf, math.inf]
    outcome = outcome_of("ks", reference, window, "numeric")
    assert outcome.detail == {
        "n_reference": 30, "n_test": 2, "missing": 2, "non_finite": 4, "method": "exact",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "offset"), [(1.0, 0.0), (1.0, 1e9), (1e-3, -5e6), (1e200, 0.0), (1e-200, 0.0)]
)
def test_effect_of_ks_is_the_shift_of_the_mean(scale: float, offset: float) -> None:
    rng = np.random.default_rng(5)
    reference = offset + scale * rng.normal(size=900)
    window = offset + scale * rng.normal(0.7, 1, 400)
    effect = outcome_of("ks", reference, window, "numeric").effect
    assert effect is not None
    # Differences to one value, scaled, so that the oracle itself neither cancels nor overflows.
    base = reference[0]
    before, now = (reference - base) / scale, (window - base) / scale
    mean_before, mean_now = math.fsum(before) / len(before), math.fsum(now) / len(now)
    assert effect.kind == "mean_shift"
    assert effect.unit == "reference standard deviations"
    # A value is summed to the next 2**-20 of a reference standard deviation.
    shift = (mean_now - mean_before) / np.std(before, ddof=1)
    assert effect.value == pytest.approx(shift, abs=2**-20)
    assert effect.reference == pytest.approx(base + mean_before * scale, abs=1e-12 * abs(base))
    assert effect.window == pytest.approx(base + mean_now * scale, abs=2**-20 * scale)


def test_effect_of_ks_leaves_out_values_too_far_away_to_sum() -> None:
    reference = np.arange(100.0)
    effect = outcome_of("ks", reference, [10.0, 20.0, 1e30, -1e300], "numeric").effect
    assert effect is not None
    assert effect.window == pytest.approx(15.0, abs=1e-4)
    assert outcome_of("ks", reference, [1e30, -1e300], "numeric").effect is None


# Reduced references


@pytest.mark.parametrize("slots", [20, 50, 333, 1999])
@pytest.mark.parametrize("digits", [2, 9], ids=["ties", "continuous"])
def test_reduced_reference_keeps_its_bound(slots: int, digits: int) -> None:
    rng = np.random.default_rng([slots, digits])
    reference = np.round(rng.normal(size=2000), digits)
    distinct = len(np.unique(reference))
    for shift in (0.0, 0.1, 1.0):
        window = np.round(rng.normal(shift, 1, 300), digits)
        profile, _ = fit({"x": reference}, {"x": "numeric"}, slots=slots)
        [f] = profile.numeric
        [[outcome]] = detectors()["ks"].test(profile, [streamed(profile, {"x": window})], [0])
        exact = stats.ks_2samp(reference, window).statistic
        assert outcome.statistic is not None
        assert -1e-12 <= exact - outcome.statistic <= f.resolution + 1e-12
        if distinct <= slots:
            assert f.resolution == 0
            assert "statistic_error" not in outcome.detail
        else:
            assert len(f.values) <= slots
            assert 0 < f.resolution <= 1 / (slots - 1)
            assert outcome.detail["statistic_error"] == f.resolution
            kept = np.isin(np.sort(reference), f.values)
            gaps = np.diff(np.flatnonzero(np.concatenate([[True], kept, [True]]))) - 1
            assert f.resolution == close(gaps.max() / len(reference))
        # The p-value is that of two samples as far apart as was found: i and j values at 0 each.
        distance = round(outcome.statistic * 600_000)
        i, j = _split(2000, 300, distance)
        x, y = np.repeat([0, 1], [i, 2000 - i]), np.repeat([0, 1], [j, 300 - j])
        assert outcome.p_value == close(stats.ks_2samp(x, y, method="exact").pvalue)


def test_bound_of_a_reduced_reference_is_reached() -> None:
    """All window values just below a kept one: the whole gap before it is out of sight."""
    reference = np.arange(1000.0)
    profile, _ = fit({"x": reference}, slots=11)
    [f] = profile.numeric
    window = np.full(100, f.values[10] - 0.5)
    reduced = outcome_of("ks", reference, window, "numeric", slots=11)
    exact = stats.ks_2samp(reference, window).statistic
    assert reduced.statistic is not None
    assert 0.99 * f.resolution <= exact - reduced.statistic <= f.resolution + 1e-12


# The laws of D


# 140 and 100,000 are where one method takes over from another.
SIZES = [1, 2, 3, 5, 10, 20, 50, 100, 139, 140, 141, 142, 200, 500, 1000, 3000, 10_000]
# n → where its tail is looked at.
TAILS = {
    99_999: [9.0], 100_000: [2.2001], 100_001: [2.5, 100.0], 1_000_000: [3.0],
    1_000_001: [2.5, 12.0, 150.0],
}  # fmt: skip


def distances(n: int, scaled: npt.NDArray[np.float64] | list[float]) -> npt.NDArray[np.float64]:
    """Distances d of n·d² = `scaled`, inside (0, 1]."""
    d = np.sqrt(np.asarray(scaled) / n)
    return d[d <= 1.0]


def borders(n: int) -> npt.NDArray[np.float64]:
    """Distances on both sides of every line between two methods."""
    lines = np.array([
        math.sqrt(2.2 / n), (1.4 / n) ** (2 / 3), 0.5, math.sqrt(370 / n), math.sqrt(18 / n),
        0.5 / n, 1.0 / n, 1.0,
    ])  # fmt: skip
    around = np.concatenate([lines, lines * (1 - 1e-7), lines * (1 + 1e-7)])
    return around[around <= 1.0]


@pytest.mark.parametrize("n", SIZES)
def test_kolmogorov_equals_kstwo(n: int) -> None:
    few = 400 if n < 100 else 40
    d = np.concatenate([
        distances(n, np.geomspace(1e-3, 400, few)), distances(n, np.linspace(0.1, 9, few)),
        np.linspace(0, 1, 41), borders(n),
    ])  # fmt: skip
    expected = stats.kstwo.sf(d, n)
    found = kolmogorov_sf(np.full(len(d), float(n)), d)
    for at in range(len(d)):
        assert found[at] == close(expected[at]), f"n={n} d={d[at]!r}"


@pytest.mark.parametrize("n", TAILS)
def test_kolmogorov_equals_kstwo_for_large_samples(n: int) -> None:
    """scipy's own tail takes a third of a second here, and seconds for n = 1,000,000."""
    body = distances(n, np.geomspace(0.02, 2.1999, 20 if n <= 100_000 else 60))
    beyond = distances(n, [370.1, 1000.0])
    tail = distances(n, TAILS[n])
    d = np.concatenate([body, tail, beyond, [1.0]])
    expected = stats.kstwo.sf(d, n)
    found = kolmogorov_sf(np.full(len(d), float(n)), d)
    for at in range(len(d)):
        assert found[at] == close(expected[at]), f"n={n} d={d[at]!r}"


def test_kolmogorov_keeps_the_order_of_its_arguments() -> None:
    rng = np.random.default_rng(3)
    n = rng.integers(1, 3000, 150).astype(np.float64)
    d = np.minimum(np.sqrt(10 ** rng.uniform(-2, 2, 150) / n), 1.0)
    expected = [float(stats.kstwo.sf(x, k)) for k, x in zip(n, d, strict=True)]
    assert kolmogorov_sf(n, d).tolist() == [close(p) for p in expected]


@pytest.mark.parametrize("n", [141, 145, 200, 599, 600, 601, 1199, 1200, 1201, 5000, 20_000])
def test_smirnov_equals_scipy(n: int) -> None:
    d = np.concatenate([
        distances(n, np.geomspace(2.2, 369, 25)), [0.3, 0.4999],
        # Where terms begin to be skipped: n·d·(1 - 2d) = 40.
        (1 - np.sqrt(np.maximum(1 - 8 * np.array([39.9, 40.1]) / n, 0))) / 4,
    ])  # fmt: skip
    d = d[(d < 0.5) & (n * d * d >= 2.2) & (n * d * d < 370)]
    assert len(d) > 10
    for x in d.tolist():
        assert smirnov_sf(n, x) == pytest.approx(special.smirnov(n, x), rel=2e-11), f"d={x!r}"


@pytest.mark.parametrize("scaled", [2.3, 30.0, 300.0])
def test_smirnov_equals_scipy_for_large_samples(scaled: float) -> None:
    d = math.sqrt(scaled / 100_000)
    assert smirnov_sf(100_000, d) == pytest.approx(special.smirnov(100_000, d), rel=1e-10)


def test_a_p_value_does_not_depend_on_those_computed_with_it() -> None:
    """Which are computed together follows from batches and restarts: to the last bit the same."""
    rng = np.random.default_rng(1)
    n = rng.integers(200, 5000, 400).astype(np.float64)
    d = np.sqrt(rng.uniform(0.05, 3.0, 400) / n)
    alone = [kolmogorov_sf(n[i : i + 1], d[i : i + 1])[0] for i in range(400)]
    assert kolmogorov_sf(n, d).tolist() == alone
    assert kolmogorov_sf(n[:7], d[:7]).tolist() == alone[:7]


def test_no_distance_at_all_is_no_evidence() -> None:
    assert kolmogorov_sf(np.array([200_000.0]), np.array([0.0])).tolist() == [1.0]


def test_p_values_come_back_in_the_order_asked_for() -> None:
    """Repeated ones too, and exact ones among those of the limit law."""
    rng = np.random.default_rng(8)
    kinds = [(50, 30), (2000, 700), (60, 25), (3000, 1000)]
    n_reference, n_test = np.array([kinds[i] for i in rng.integers(0, 4, 200)]).T
    i, j = rng.integers(0, n_reference + 1), rng.integers(0, n_test + 1)
    numerator = np.abs(i * n_test - j * n_reference)
    p, exact = two_sample_p_values(n_reference, n_test, numerator)
    again, _ = two_sample_p_values(n_reference[::-1], n_test[::-1], numerator[::-1])
    assert again[::-1].tolist() == p.tolist()
    assert exact.tolist() == (n_reference * n_test <= 1_000_000).tolist()
    for at in range(200):
        a, b = int(n_reference[at]), int(n_test[at])
        x = np.repeat([0, 1], [i[at], a - i[at]])
        y = np.repeat([0, 1], [j[at], b - j[at]])
        method = "exact" if a * b <= 1_000_000 else "asymp"
        assert p[at] == close(float(stats.ks_2samp(x, y, method=method).pvalue))


def test_memory_of_p_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Memo, "limit", 50)
    monkeypatch.setattr(_memo, "known", {})
    n = np.full(20, 100)
    first, _ = two_sample_p_values(n, n, np.arange(1, 21) * 100 + 3000)
    for start in range(0, 6000, 2000):
        two_sample_p_values(n, n, np.arange(1, 21) * 100 + start)
        assert len(_memo.known) <= 50
    again, _ = two_sample_p_values(n, n, np.arange(1, 21) * 100 + 3000)
    assert again.tolist() == first.tolist()


def test_samples_of_given_distance_are_found_or_refused() -> None:
    for n_reference, n_test in ((6, 4), (7, 5), (20, 1), (3, 9)):
        possible = {
            abs(i * n_test - j * n_reference)
            for i in range(n_reference + 1)
            for j in range(n_test + 1)
        }
        for numerator in range(n_reference * n_test + 1):
            if numerator in possible:
                i, j = _split(n_reference, n_test, numerator)
                assert 0 <= i <= n_reference
                assert 0 <= j <= n_test
                assert abs(i * n_test - j * n_reference) == numerator
            else:
                with pytest.raises(ValueError, match=f"are {numerator} / {n_reference * n_test}"):
                    _split(n_reference, n_test, numerator)
    assert _exact_sf(20, 30, 0) == (1.0, True)


# Chi-squared


def table_of(reference: Values, window: Values) -> npt.NDArray[np.int64]:
    """Counts per class: categories of the reference, all others as one, missing as one."""
    known = {v for v in reference if v is not None}

    def counted(values: Values) -> Counter[object]:
        return Counter(
            ("missing",) if v is None else v if v in known else ("unseen",) for v in values
        )

    before, now = counted(reference), counted(window)
    classes = sorted({*before, *now}, key=repr)
    return np.array([[row[c] for c in classes] for row in (before, now)])


def assert_equals_scipy_chi_squared(reference: Values, window: Values) -> Outcome:
    table = table_of(reference, window)
    expected = stats.chi2_contingency(table, correction=False)
    outcome = outcome_of("chi_squared", reference, window, "categorical")
    assert outcome.statistic == close(float(expected.statistic))
    assert outcome.p_value == close(float(expected.pvalue))
    assert outcome.detail["degrees_of_freedom"] == expected.dof
    assert (outcome.detail["n_reference"], outcome.detail["n_test"]) == tuple(table.sum(axis=1))
    rare = bool((expected.expected_freq < 5).any())
    assert ("pooled" in outcome.detail) == rare == (outcome.confirmed_p is not None)
    assert outcome.detail.get("missing", 0) == sum(v is None for v in window)
    effect = outcome.effect
    assert effect is not None
    shares = table / table.sum(axis=1, keepdims=True)
    move = shares[1] - shares[0]
    assert effect.kind == "share_shift"
    assert abs(effect.value) == pytest.approx(np.abs(move).max(), rel=1e-9, abs=1e-15)
    assert effect.window - effect.reference == pytest.approx(effect.value, abs=1e-15)
    return outcome


LETTERS = np.array(list("abcdefghij"))
CHI_CASES: dict[str, Case] = {
    "alike": lambda r: (r.choice(LETTERS, 900), r.choice(LETTERS, 500)),
    "moved": lambda r: (r.choice(LETTERS, 900), r.choice(LETTERS[:5], 500)),
    "two classes": lambda r: (r.choice(LETTERS[:2], 900), r.choice(LETTERS[:2], 80)),
    "unseen as one class": lambda r: (r.choice(LETTERS[:4], 900), r.choice(LETTERS, 500)),
    "all unseen": lambda r: (r.choice(LETTERS[:4], 900), r.choice(LETTERS[5:], 50)),
    "missing as a class": lambda r: (
        [*r.choice(LETTERS[:4], 900).tolist(), *[None] * 50],
        [*r.choice(LETTERS[:4], 300).tolist(), *[None] * 90],
    ),
    "missing in the window only": lambda r: (
        r.choice(LETTERS[:4], 900), [*r.choice(LETTERS[:4], 300).tolist(), None]
    ),
    "missing in the reference only": lambda r: (
        [*r.choice(LETTERS[:4], 900).tolist(), None, None], r.choice(LETTERS[:4], 300)
    ),
    "all missing": lambda r: (r.choice(LETTERS[:4], 900), [None] * 40),
    "rare classes": lambda r: (
        r.choice(LETTERS, 900, p=np.geomspace(1, 1e-3, 10) / np.geomspace(1, 1e-3, 10).sum()),
        r.choice(LETTERS, 60),
    ),
    "one event": lambda r: (r.choice(LETTERS, 900), ["c"]),
    "one unseen event": lambda r: (r.choice(LETTERS, 900), ["z"]),
    "smallest reference": lambda r: (["a"] * 10 + ["b"] * 10, r.choice(LETTERS[:2], 5000)),
    "the reference itself": lambda r: ((x := r.choice(LETTERS, 500)), x),
    "a thousand categories": lambda r: (
        [f"k{i}" for i in r.permutation(np.tile(np.arange(1000), 9))],
        [f"k{i}" for i in r.integers(0, 1000, 4000)],
    ),
    "thousands of unseen categories": lambda r: (
        r.choice(LETTERS, 900), [f"new{i}" for i in range(3000)]
    ),
    "not ASCII, and empty": lambda r: (
        r.choice(np.array(["", "España", "日本", "a|b", "🚗"]), 600),
        r.choice(np.array(["", "España", "日本", "e\u0301"]), 300),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHI_CASES.values(), ids=CHI_CASES.keys())
def test_chi_squared_equals_scipy(case: Case) -> None:
    reference, window = (
        v.tolist() if isinstance(v, np.ndarray) else v for v in case(np.random.default_rng(12))
    )
    assert_equals_scipy_chi_squared(reference, window)


@pytest.mark.parametrize("seed", range(80))
def test_chi_squared_equals_scipy_on_random_tables(seed: int) -> None:
    rng = np.random.default_rng([3, seed])
    n_classes = int(10 ** rng.uniform(0.31, 2))
    names = np.array([*(f"c{i}" for i in range(n_classes)), None], object)
    shares = rng.dirichlet(np.full(n_classes + 1, 10 ** rng.uniform(-1, 1)))
    moved = rng.dirichlet(np.full(n_classes + 1, 1.0)) if seed % 2 else shares
    n_reference, n_test = int(10 ** rng.uniform(2, 4)), int(10 ** rng.uniform(0, 4))
    reference = [*rng.choice(names, n_reference, p=shares), "c0", *["c1"] * 20]
    window = rng.choice(names, n_test, p=moved).tolist()
    window = [f"{v}?" if v is not None and rng.random() < 0.03 else v for v in window]
    assert_equals_scipy_chi_squared(reference, window)


def test_chi_squared_of_many_features_at_once() -> None:
    """Features of all sizes side by side, with rare classes, without, and with too few in all."""
    rng = np.random.default_rng(22)
    reference: dict[str, Values] = {"x": rng.normal(size=900)}
    window: dict[str, Values] = {"x": rng.normal(size=400)}
    for i, n_classes in enumerate([2, 3, 5, 10, 40, 200]):
        names = [f"k{j}" for j in range(n_classes)]
        shares = rng.dirichlet(np.full(n_classes, 0.7))
        reference[f"c{i}"] = [*names, *rng.choice(names, 900 - n_classes, p=shares).tolist()]
        now = [*names, None, "new"] if i % 2 else names
        window[f"c{i}"] = [now[j] for j in rng.integers(0, len(now), 400)]
    reference["flag"] = [True, False, None] * 300
    window["flag"] = [False] * 400
    profile, _ = fit(reference)
    streams = [streamed(profile, window, seed=1), streamed(profile, reference, seed=2)]
    features = list(range(profile.n_numeric, len(profile.names)))
    of_window, of_reference = detectors()["chi_squared"].test(profile, streams, features)
    for outcome in of_reference:
        assert (outcome.statistic, outcome.p_value) == (0.0, 1.0)
    for outcome, name in zip(of_window, profile.names[profile.n_numeric :], strict=True):
        table = table_of(reference[name], window[name])
        expected = stats.chi2_contingency(table, correction=False)
        assert outcome.statistic == close(expected.statistic), name
        assert outcome.p_value == close(expected.pvalue), name
        pooled = pool_rare(*table.astype(np.float64))
        if pooled is None:
            assert outcome.confirmed_p is None
        else:
            again = stats.chi2_contingency(pooled, correction=False)
            assert outcome.confirmed_p == close(again.pvalue), name
            assert outcome.detail["pooled"]["classes"] == len(pooled[0])
            # Every class is then expected 5 times in both samples.
            assert again.expected_freq.min() >= 5 or len(pooled[0]) == 1


def test_chi_squared_of_booleans_in_every_spelling() -> None:
    reference = [True] * 300 + [False] * 100 + [None] * 20
    window = [True, "true", 1, 1.0, "1", False, "false", 0, 0.0, "0", None, math.nan, "maybe", 2]
    outcome = outcome_of("chi_squared", reference, window, "boolean")
    expected = stats.chi2_contingency([[300, 100, 0, 20], [5, 5, 2, 2]], correction=False)
    assert outcome.statistic == close(expected.statistic)
    assert outcome.p_value == close(expected.pvalue)
    assert outcome.detail["unseen_sample"] == {"maybe": 1, "2": 1}
    assert (outcome.detail["unseen"], outcome.detail["missing"]) == (2, 2)


def test_chi_squared_takes_a_number_and_its_text_for_one_category() -> None:
    reference = [1, 2, 3, 2.5, True] * 40
    window = ["1", 1.0, 1, "2", 2, 2.0, 3, "3.0", "2.5", 2.5, True, "true", False, "4", 4, 4.0]
    outcome = outcome_of("chi_squared", reference, window, "categorical")
    # 1 · 2 · 3 · 2.5 · true · unseen, which are "3.0", false and three spellings of 4.
    table = [[40, 40, 40, 40, 40, 0], [3, 3, 1, 2, 2, 5]]
    expected = stats.chi2_contingency(table, correction=False)
    assert outcome.statistic == close(expected.statistic)
    assert outcome.p_value == close(expected.pvalue)
    assert outcome.detail["unseen_sample"] == {"3.0": 1, "false": 1, "4": 3}


def test_effect_of_chi_squared_names_the_class_that_moved_most() -> None:
    reference = ["a"] * 50 + ["b"] * 30 + ["c"] * 20
    cases: list[tuple[list[Any], str, float, float]] = [
        (["a"] * 54 + ["b"] * 5 + ["c"] * 41, "b", 0.30, 0.05),
        (["a"] * 45 + ["b"] * 20 + ["c"] * 15 + ["d"] * 9 + ["e"] * 11, "(unseen)", 0.0, 0.20),
        (["a"] * 35 + ["b"] * 20 + ["c"] * 15 + [None] * 30, "(missing)", 0.0, 0.30),
    ]
    for window, category, before, now in cases:
        effect = outcome_of("chi_squared", reference, window, "categorical").effect
        assert effect is not None
        assert effect.category == category
        assert (effect.reference, effect.window) == (close(before), close(now))
        assert effect.value == close(now - before)
        assert effect.unit == "share"


def test_homogeneity_of_one_class_is_certain() -> None:
    assert homogeneity(np.array([3.0, 0.0]), np.array([5.0, 0.0])) == (0.0, 0, 1.0)


def test_rare_classes_are_pooled() -> None:
    """Window and reference equal in size: a class is expected half of its total in either."""
    pooled = pool_rare(np.array([50.0, 3, 40, 1, 4, 2]), np.array([48.0, 4, 41, 2, 2, 3]))
    assert pooled is not None
    assert [row.tolist() for row in pooled] == [[10, 50, 40], [11, 48, 41]]
    # A pool that is itself rare takes in the rarest of the other classes.
    pooled = pool_rare(np.array([50.0, 46, 4, 0]), np.array([60.0, 39, 1, 0]))
    assert pooled is not None
    assert [row.tolist() for row in pooled] == [[50, 50], [40, 60]]
    assert pool_rare(np.array([50.0, 45, 5]), np.array([60.0, 35, 5])) is None
    assert pool_rare(np.array([95.0, 5, 0]), np.array([95.0, 5, 0])) is None


@pytest.mark.parametrize(
    ("n_classes", "n"),
    [(2, 1), (2, 4), (5, 9), (6, 9), (40, 1), (40, 9), (40, 60), (50, 99), (1000, 20), (1000, 999)],
)
def test_classes_that_are_all_rare_are_pooled_in_groups(n_classes: int, n: int) -> None:
    """As many as can be expected five times each; at least one, whatever there is."""
    rng = np.random.default_rng([n_classes, n])
    reference = rng.multinomial(10 * n, np.full(n_classes, 1 / n_classes)).astype(np.float64)
    observed = rng.multinomial(n, np.full(n_classes, 1 / n_classes)).astype(np.float64)
    smaller = n / (11 * n)
    total = reference + observed
    assert (total * smaller < 5).all()
    pooled = pool_rare(reference, observed)
    assert pooled is not None
    before, now = pooled
    assert (before.sum(), now.sum()) == (reference.sum(), observed.sum())
    expected = (before + now) * smaller
    # From 5 to 15, and up to 5 more in the last, which takes what is left over.
    assert len(expected) == 1 or expected.min() >= 5
    assert expected.max() < 20
    # In the order of the classes: the sums of a cut list.
    assert set(np.cumsum(before)) <= set(np.cumsum(reference))


def test_rare_classes_must_agree_before_drift_is_called() -> None:
    reference = ["a"] * 250 + ["b"] * 250
    one = outcome_of("chi_squared", reference, ["a"] * 25 + ["b"] * 24 + ["new"], "categorical")
    assert one.p_value is not None
    assert one.confirmed_p is not None
    assert one.p_value < 0.01 < one.confirmed_p
    assert not one.significant(0.01)
    # Pooled with the smaller of the others: {new, b} against a.
    expected = stats.chi2_contingency([[250, 250], [25, 25]], correction=False).pvalue
    assert one.confirmed_p == close(expected) == one.detail["pooled"]["p_value"]
    assert one.detail["pooled"]["classes"] == 2


def test_small_pool_of_rare_classes_is_also_tested_alone() -> None:
    """Six of 50 are new: {new, b} against a is no drift, new against the others is."""
    reference = ["a"] * 250 + ["b"] * 250
    outcome = outcome_of(
        "chi_squared", reference, ["a"] * 24 + ["b"] * 20 + ["n"] * 6, "categorical"
    )
    together = stats.chi2_contingency([[250, 250], [24, 26]], correction=False).pvalue
    # One row of the six is left out.
    alone = stats.fisher_exact([[500, 0], [44, 5]]).pvalue
    assert alone < together
    assert outcome.confirmed_p == close(2 * alone) == outcome.detail["pooled"]["p_value"]
    assert outcome.detail["pooled"]["classes"] == 2


def test_pool_alone_leaves_a_row_out_of_the_sample_that_has_more_of_it() -> None:
    more_now, more_before = pool_alone(500, 2, 60, 5), pool_alone(60, 5, 500, 2)
    assert more_now == close(stats.fisher_exact([[498, 2], [55, 4]]).pvalue)
    assert more_before == close(stats.fisher_exact([[55, 4], [498, 2]]).pvalue)
    for n_reference in (20, 1000, 10**6):
        assert pool_alone(n_reference, 0, 50, 1) == 1.0
        assert pool_alone(n_reference, 1, 50, 0) == 1.0
    assert pool_alone(100, 10, 50, 5) == close(stats.fisher_exact([[90, 9], [45, 5]]).pvalue)


# Missing rate


@pytest.mark.parametrize("seed", range(60))
def test_missing_rate_equals_scipy(seed: int) -> None:
    rng = np.random.default_rng([4, seed])
    n_reference, n_test = int(10 ** rng.uniform(1.5, 3.5)), int(10 ** rng.uniform(0, 3.5))
    before, now = 10 ** rng.uniform(-3, -0.4, 2)
    strange = np.array([None, math.nan, math.inf, -math.inf], object)

    def column(n: int, share: float) -> list[float | None]:
        usable = rng.random(n) > share
        return [x if ok else rng.choice(strange)
                for x, ok in zip(rng.normal(size=n).tolist(), usable, strict=True)]  # fmt: skip

    reference, window = [*column(n_reference, before), *range(20)], column(n_test, now)
    outcome = outcome_of("missing_rate", reference, window, "numeric")
    used = np.array([[len(finite(v)), len(v) - len(finite(v))] for v in (reference, window)])
    shares = used[:, 1] / used.sum(axis=1)
    assert outcome.statistic == pytest.approx(shares[1] - shares[0], rel=1e-9, abs=1e-15)
    assert outcome.effect is not None
    assert (outcome.effect.reference, outcome.effect.window) == (close(shares[0]), close(shares[1]))
    if used[:, 1].sum() == 0:
        assert outcome.p_value == 1.0
    elif expected_freq(used).min() < 5:
        assert outcome.detail["method"] == "fisher"
        assert outcome.p_value == close(stats.fisher_exact(used).pvalue)
    else:
        assert outcome.detail["method"] == "chi_squared"
        assert outcome.p_value == close(stats.chi2_contingency(used, correction=False).pvalue)


def test_missing_rate_takes_chi_squared_from_five_expected() -> None:
    """100 usable and 10 missing over two equal samples: each expects exactly 5 of the missing."""
    reference = [*range(50), *[None] * 4, math.inf]
    five = outcome_of("missing_rate", reference, [*range(50), *[None] * 5], "numeric")
    fewer = outcome_of("missing_rate", reference, [*range(51), *[None] * 4], "numeric")
    assert (five.detail["method"], fewer.detail["method"]) == ("chi_squared", "fisher")
    assert five.p_value == 1.0
    assert fewer.p_value == close(stats.fisher_exact([[50, 5], [51, 4]]).pvalue)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_missing_rate_counts_every_kind_of_unusable_value(value: float | None) -> None:
    outcome = outcome_of("missing_rate", [*range(80), *[value] * 20], [1.0] * 30 + [value] * 70,
                         "numeric")  # fmt: skip
    assert outcome.statistic == close(0.5)
    expected = stats.chi2_contingency([[80, 20], [30, 70]], correction=False)
    assert outcome.p_value == close(expected.pvalue)


def test_missing_rate_without_any_missing_is_certain() -> None:
    outcome = outcome_of("missing_rate", [*range(80)], [1.0] * 30, "numeric")
    assert (outcome.statistic, outcome.p_value) == (0.0, 1.0)


# A published lesson


def size_class(words: int) -> str:
    return "small" if words <= 10 else "medium" if words <= 25 else "large"


def test_lesson_lengths_have_not_drifted() -> None:
    """The lesson prints the limit law of infinite samples, 0.3927307; two hundred are exact."""
    outcome = outcome_of("ks", LESSON_REFERENCE, LESSON_WINDOW, "numeric")
    assert outcome.statistic == close(0.09)
    assert outcome.p_value == pytest.approx(0.39353, abs=5e-6)
    assert stats.kstwobign.sf(outcome.statistic * 10) == pytest.approx(0.3927307, rel=1e-6)
    assert not outcome.significant(0.01)


def test_lesson_classes_have_not_drifted() -> None:
    reference = [size_class(n) for n in LESSON_REFERENCE]
    outcome = outcome_of("chi_squared", reference, [size_class(n) for n in LESSON_WINDOW],
                         "categorical")  # fmt: skip
    assert outcome.statistic == pytest.approx(4.135522, abs=5e-7)
    assert outcome.p_value == pytest.approx(0.12646862, abs=5e-9)
    assert not outcome.significant(0.01)


def test_lesson_changed_classes_have_drifted() -> None:
    """The figures are those of its counts; the lesson itself prints 118.03 for this window."""
    reference = [size_class(n) for n in LESSON_REFERENCE]
    window = ["small"] * 80 + ["medium"] * 40 + ["large"] * 80
    outcome = outcome_of("chi_squared", reference, window, "categorical")
    assert outcome.statistic == pytest.approx(89.145193, abs=5e-7)
    assert outcome.p_value == pytest.approx(4.389e-20, rel=1e-4)
    assert outcome.significant(0.01)


def test_fishers_test_is_scipys_for_all_sizes() -> None:
    rng = np.random.default_rng(33)
    for i in range(400):
        n_reference, n = (int(10**power) for power in rng.uniform(0, (5, 4.5)))
        most = (n_reference, n) if i % 2 else (min(n_reference, 30), min(n, 30))
        before, now = (int(rng.integers(0, m + 1)) for m in most)
        table = np.array([[now, before], [n - now, n_reference - before]])
        for found, side in ((fisher, "two-sided"), (more_often, "greater")):
            expected = float(stats.fisher_exact(table, alternative=side).pvalue)
            assert found(n_reference, before, n, now) == pytest.approx(
                expected, rel=1e-9, abs=1e-250
            )


def test_a_stage_does_not_load_scipy_stats() -> None:
    """It takes seconds, by which a restarted stage would be later."""
    code = """
import sys
import numpy as np
import driftline.stream.ingest, driftline.stream.detect, driftline.stream.replay
from driftline.detectors.hypergeometric import fisher
from driftline.detectors.kolmogorov import two_sample_p_values
from driftline.stream.look import benjamini_yekutieli

two_sample_p_values(np.array([9000] * 3), np.array([900] * 3), np.array([1, 100_000, 4_000_000]))
fisher(900, 3, 300, 9), benjamini_yekutieli([0.1, 0.2])
assert "scipy.stats" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
