"""The detectors beside ks, chi_squared and missing_rate: against scipy on the raw values, under no
change (their p-values are as rare as they say), and under the change each of them is for.

Windows go the way of a stream, as in test_oracle.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from scipy.spatial import distance
from test_oracle import Case, Values, close, finite, mixed, outcome_of

from driftline.detectors import Columns, Profile, Window, WindowBank, detectors, fit
from driftline.detectors import summarize as summarize_panes
from driftline.detectors.chi_squared import pool_rare
from driftline.detectors.cramer_von_mises import limit_sf
from driftline.detectors.cusum import sup_wiener_sf
from driftline.detectors.evidence import Shares, ages, of_moments, tails
from driftline.detectors.hypergeometric import more_often
from driftline.detectors.resample import Rows
from driftline.detectors.run_length import Simulator
from driftline.detectors.wasserstein import AreaLaw
from driftline.schemas.units import parse_window

PANE_MS = 60_000


def in_panes(profile: Profile, columns: dict[str, Values], n_panes: int) -> Window:
    """The window of all rows in their order, in panes of about equal size."""
    n = len(next(iter(columns.values())))
    bank = WindowBank(profile, [parse_window(f"{n_panes}m")], PANE_MS, 10**9)
    slots = np.arange(n) * n_panes // n * PANE_MS
    for pane in summarize_panes(profile, Columns.of(profile, columns), slots):
        [window] = bank.push(pane.start_ms + PANE_MS, pane)
    return window


# Cramér–von Mises


def between(rng: np.random.Generator, n: int, scale: float = 1.0) -> npt.NDArray[np.float64]:
    return rng.normal(size=n) * scale


CVM_CASES: dict[str, Case] = {
    "continuous": lambda r: (between(r, 700), between(r, 300)),
    "shifted": lambda r: (between(r, 700), between(r, 300) + 0.3),
    "narrower": lambda r: (between(r, 2000), between(r, 300, 0.6)),
    "ties with the reference": lambda r: ((x := np.round(between(r, 700), 1)), r.choice(x, 300)),
    "heavy ties": lambda r: ([*r.poisson(3, 700), *range(20)], np.minimum(r.poisson(3.5, 300), 19)),
    "missing and not finite": lambda r: (mixed(r, between(r, 700)), mixed(r, between(r, 99))),
    "smallest": lambda r: (between(r, 20), between(r, 2)),
    "outside": lambda r: (between(r, 300), between(r, 40) + 9),
    "window larger than the reference": lambda r: (between(r, 50), between(r, 3000)),
    "offset 1e9": lambda r: (1e9 + between(r, 700), 1e9 + between(r, 300)),
    "the reference itself": lambda r: ((x := between(r, 300)), x),
}


def trapezoid(reference: Values, window: Values) -> float:
    """T with the mean of the squared distances before and after each group of equal values."""
    a, b = np.sort(finite(reference)), np.sort(finite(window))
    values, w = np.unique(np.concatenate([a, b]), return_counts=True)
    after, before = (
        np.searchsorted(a, values, side) / len(a) - np.searchsorted(b, values, side) / len(b)
        for side in ("right", "left")
    )
    total = float((w * (before**2 + after**2)).sum()) / 2
    return len(a) * len(b) / (len(a) + len(b)) ** 2 * total


@pytest.mark.parametrize("case", CVM_CASES.values(), ids=CVM_CASES.keys())
def test_cramer_von_mises_equals_scipy(case: Case) -> None:
    """Where no two values are equal; with ties, what scipy's formula is without them."""
    reference, window = case(np.random.default_rng(3))
    a, b = finite(reference), finite(window)
    outcome = outcome_of("cramer_von_mises", reference, window, "numeric")
    assert outcome.statistic == pytest.approx(trapezoid(a, b), rel=1e-9, abs=1e-12)
    if len({*a, *b}) < len(a) + len(b):
        return
    expected = stats.cramervonmises_2samp(a, b, method="asymptotic")
    assert outcome.statistic == close(expected.statistic)
    # Below 1e-5 scipy's 1 - cdf runs out of digits; the law itself is checked below.
    assert outcome.p_value == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-8)
    if expected.pvalue > 1e-5:
        assert outcome.p_value == close(expected.pvalue)


numbers = st.integers(-12, 12).map(lambda i: i / 2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(numbers, min_size=21, max_size=60).filter(lambda v: len(set(v)) > 1),
    st.lists(numbers, min_size=2, max_size=60),
    st.sampled_from([None, 3, 5]),
)
def test_cramer_von_mises_lies_within_its_error(
    reference: list[float], window: list[float], slots: int | None
) -> None:
    """Ties the counts cannot see, and an order that `slots` have thrown away, are bounded."""
    outcome = outcome_of("cramer_von_mises", reference, window, "numeric", slots=slots)
    expected = trapezoid(reference, window)
    error = outcome.detail.get("statistic_error", 0.0)
    assert outcome.statistic is not None
    assert abs(outcome.statistic - expected) <= error + 1e-9
    if slots is None:
        assert outcome.statistic <= expected + 1e-9
        # Only values that share a gap leave a doubt.
        strangers = [v for v in window if v not in reference]
        if len(strangers) < 2:
            assert error == 0.0


@pytest.mark.parametrize("x", [0.05, 0.2, 0.59, 0.61, 1.0, 1.5])
def test_the_law_of_cramer_von_mises_by_inversion(x: float) -> None:
    """ω² = Σ z_j² / (jπ)² for standard normal z_j, its characteristic function turned round
    (Gil-Pelaez 1951)."""
    root = np.linspace(0, 70, 7_001)[1:]
    t, j = root**2, np.arange(1, 301)
    of_each = 1 - 2j * np.multiply.outer(t, 1 / (j * np.pi) ** 2)
    rest = 1 / 6 - np.sum(1 / (j * np.pi) ** 2)  # of the mean, in the terms left out
    phi = np.exp(-0.5 * np.log(of_each).sum(axis=1) + 1j * t * (rest - x))
    integral = integrate.simpson(np.append(0.0, phi.imag / t * 2 * root), dx=root[0])
    assert limit_sf(np.array([x]))[0] == pytest.approx(0.5 + integral / np.pi, abs=1e-6)


@pytest.mark.parametrize("x", [3.0, 8.0, 40.0])
def test_the_tail_of_cramer_von_mises_keeps_its_digits(x: float) -> None:
    """Smirnov's first integral, without its root at the start; the end and the others are nothing."""

    def integrand(v: float) -> float:
        s = math.pi + v * v
        return math.sqrt(s / math.sin(v * v)) * v * math.exp(-x * s * s / 2) / s

    end = math.sqrt(math.pi) * (1 - 1e-9)
    expected, _ = integrate.quad(integrand, 1e-9, end, epsabs=0, epsrel=1e-9, limit=200)
    assert limit_sf(np.array([x]))[0] == pytest.approx(4 / math.pi * expected, rel=1e-6)


# Wasserstein


@pytest.mark.parametrize("seed", range(40))
def test_wasserstein_lies_within_its_error_of_scipys(seed: int) -> None:
    rng = np.random.default_rng([7, seed])
    draws: list[Callable[[int], npt.NDArray[np.float64]]] = [
        lambda n: rng.normal(size=n),
        lambda n: rng.exponential(size=n) ** 2,
        lambda n: np.round(rng.normal(size=n), 1),
        lambda n: 1e9 + rng.normal(size=n),
    ]
    draw = draws[seed % 4]
    reference, window = draw(int(rng.integers(20, 900))), draw(int(rng.integers(1, 600)))
    # None of it outside, some on one side, on both, and all of it outside.
    window = window + [0, 1, 0, 30][seed // 4 % 4] * (window > np.median(window))
    window = window - [0, 0, 2, 0][seed // 4 % 4] * (window < np.median(window))
    outcome = outcome_of("wasserstein", reference, window, "numeric")
    expected = stats.wasserstein_distance(reference, window)
    assert outcome.effect is not None
    error = outcome.detail["distance_error"]
    assert abs(outcome.effect.window - expected) <= error + 1e-5 * np.std(reference)
    clipped = np.clip(window, reference.min(), reference.max())
    assert outcome.statistic is not None
    inside = stats.wasserstein_distance(reference, clipped)
    assert abs(outcome.statistic * np.std(reference, ddof=1) - inside) <= error + 1e-9 * inside


@pytest.mark.parametrize("seed", range(6))
def test_wasserstein_is_scipys_where_values_are_the_references(seed: int) -> None:
    rng = np.random.default_rng([8, seed])
    reference = [rng.poisson(4, 500) * 1.5, rng.normal(size=500)][seed % 2]
    window = np.append(rng.choice(reference, 200), rng.choice(np.sort(reference)[-60:], 50))
    outcome = outcome_of("wasserstein", reference, window, "numeric")
    assert outcome.effect is not None
    assert outcome.detail["distance_error"] == 0.0
    assert outcome.effect.window == close(stats.wasserstein_distance(reference, window))
    assert outcome.effect.value == close(outcome.effect.window / np.std(reference, ddof=1))


def test_wild_values_count_as_256_standard_deviations() -> None:
    reference = np.arange(100.0)
    sd = float(np.std(reference, ddof=1))
    for wild, bound in (([1e9] * 3, 1), ([-1e9] * 3, 1), ([1e9, -1e9, 1e9], 3)):
        window = [*np.arange(100.0).tolist(), *wild]
        nearest = np.clip(window, 49.5 - 256 * sd, 49.5 + 256 * sd)
        outcome = outcome_of("wasserstein", reference, window, "numeric")
        assert outcome.effect is not None
        assert outcome.detail["beyond"] == 3
        error = outcome.detail["distance_error"]
        expected = stats.wasserstein_distance(reference, nearest)
        assert abs(outcome.effect.window - expected) <= error + 1e-6
        assert error < bound * expected
        mean = outcome_of("mean_shift", reference, window, "numeric")
        assert mean.detail["beyond"] == 3
        if len(set(wild)) == 1:
            welch = stats.ttest_ind(nearest, reference, equal_var=False)
            assert mean.p_value == pytest.approx(welch.pvalue, rel=1e-4)


def test_the_law_of_the_area_is_the_brownian_bridges() -> None:
    """For uniform values A = ∫|B(t)|dt, whose moments and table are known (Shepp 1982; Rice 1982;
    Johnson & Killeen 1983): mean √(π/32), variance 7/60 - π/32, 5 % above 0.5821."""
    t = (np.arange(64) + 0.5) / 64
    law = AreaLaw(t, np.full(64, 1 / 64))
    assert law.sd == pytest.approx(math.sqrt(1 / 12), rel=1e-3)
    for a, p in ((0.4993, 0.10), (0.5821, 0.05), (0.7518, 0.01)):
        assert law.p_value(a) == pytest.approx(p, rel=0.12)
    grid = np.linspace(0, 3, 3001)
    sf = np.array([law.p_value(a) for a in grid])
    assert (np.diff(sf) <= 0).all()
    mean = integrate.trapezoid(sf, grid)
    assert mean == pytest.approx(math.sqrt(math.pi / 32), rel=0.02)
    # Far out, the two normal tails of ∫B, times a constant.
    ratio = [law.p_value(k * law.sd) / (2 * special.ndtr(-k)) for k in (5.0, 8.0, 11.0, 20.0, 35.0)]
    assert all(0.8 < r < 1.4 for r in ratio)


# Mean and spread


@pytest.mark.parametrize("seed", range(12))
def test_mean_shift_equals_welch(seed: int) -> None:
    rng = np.random.default_rng([9, seed])
    draw = [rng.normal, rng.exponential][seed % 2]
    reference = mixed(rng, draw(size=int(rng.integers(20, 900))))
    window = mixed(rng, draw(size=int(rng.integers(2, 900))) + 0.1 * (seed % 3))
    outcome = outcome_of("mean_shift", reference, window, "numeric")
    a, b = finite(window), finite(reference)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert outcome.statistic == pytest.approx(expected.statistic, rel=2e-5, abs=2e-5)
    assert outcome.p_value == pytest.approx(expected.pvalue, rel=1e-3)
    assert outcome.effect is not None
    assert outcome.effect.window == pytest.approx(b.mean() + (a.mean() - b.mean()), abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_variance_shift_equals_levene_where_values_are_the_references(seed: int) -> None:
    rng = np.random.default_rng([10, seed])
    reference = [rng.normal(size=601), rng.poisson(4, 500) * 0.5][seed % 2]
    window = rng.choice(reference, [200, 33][seed // 2 % 2])
    outcome = outcome_of("variance_shift", reference, mixed(rng, window), "numeric")
    expected = stats.levene(reference, window, center="median")
    assert outcome.statistic == pytest.approx(expected.statistic, rel=1e-9, abs=1e-12)
    assert outcome.p_value == close(expected.pvalue)
    assert outcome.effect is not None
    assert outcome.effect.window == pytest.approx(np.std(window, ddof=1), rel=1e-5)


def test_variance_shift_is_near_levene_between_values() -> None:
    rng = np.random.default_rng(11)
    reference, window = rng.normal(size=3000), rng.normal(size=400)
    outcome = outcome_of("variance_shift", reference, window, "numeric")
    clipped = np.clip(window, reference.min(), reference.max())
    expected = stats.levene(reference, clipped, center="median")
    assert outcome.p_value == pytest.approx(expected.pvalue, rel=0.02)


def test_spread_of_values_at_two_places_is_no_drift() -> None:
    """Their distances from the median do not vary: a variance of 0, and nothing to divide by."""
    same = outcome_of("variance_shift", [0.1, 0.7] * 50, [0.1, 0.7] * 20, "numeric")
    assert (same.statistic, same.p_value) == (0.0, 1.0)
    constant = outcome_of("variance_shift", [0.1, 0.7] * 50, [0.1] * 20, "numeric")
    assert constant.p_value == 0.0
    assert constant.effect is not None
    assert constant.effect.value == pytest.approx(-1)


# Shares


def table(reference: Values, window: Values) -> npt.NDArray[np.float64]:
    names = sorted({v for v in reference if v is not None})
    rows = [[sum(v == name for v in values) for name in names] for values in (reference, window)]
    for row, values in zip(rows, (reference, window), strict=True):
        missing = sum(v is None for v in values)
        row += [len(values) - sum(row) - missing, missing]
    found = np.array(rows, np.float64)
    return found[:, found.sum(axis=0) > 0]


def binned(reference: npt.NDArray[Any], window: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    deciles = np.quantile(reference, np.arange(1, 10) / 10, method="inverted_cdf")
    edges = np.concatenate([[-np.inf], np.unique(deciles), [np.inf]])
    bins = [np.searchsorted(edges[1:-1], v, "left") for v in (reference, window)]
    return np.array([np.bincount(b, minlength=len(edges) - 1) for b in bins], np.float64)


def psi(pooled: npt.NDArray[np.float64]) -> tuple[float, float]:
    m, n = pooled.sum(axis=1)
    p, q = (pooled + 0.5) / (pooled + 0.5).sum(axis=1, keepdims=True)
    value = float(np.sum((q - p) * (np.log(q) - np.log(p))))
    return value, float(stats.chi2.sf(value / (1 / n + 1 / m), pooled.shape[1] - 1))


def jensen_shannon(pooled: npt.NDArray[np.float64]) -> tuple[float, float]:
    p, q = pooled / pooled.sum(axis=1, keepdims=True)
    value = distance.jensenshannon(p, q, base=2) ** 2
    g = stats.chi2_contingency(pooled, correction=False, lambda_="log-likelihood")
    total, rows, columns = pooled.sum(), pooled.sum(axis=1), pooled.sum(axis=0)
    williams = 1 + (total * (1 / rows).sum() - 1) * (total * (1 / columns).sum() - 1) / (
        6 * total * g.dof
    )
    return float(value), float(stats.chi2.sf(g.statistic / williams, g.dof))


@pytest.mark.parametrize(("name", "oracle"), [("psi", psi), ("jensen_shannon", jensen_shannon)])
@pytest.mark.parametrize("seed", range(10))
def test_divergences_of_shares(
    name: str, oracle: Callable[[npt.NDArray[np.float64]], tuple[float, float]], seed: int
) -> None:
    rng = np.random.default_rng([12, seed])
    if seed % 2:
        draw = [rng.normal, rng.exponential][seed // 2 % 2]
        reference, window = draw(size=900), draw(size=[400, 35][seed // 4 % 2]) * 1.2
        counts, kind = binned(reference, window), "numeric"
        window = mixed(rng, window)
    else:
        names = np.array([*"abcdefgh", None], object)
        shares = rng.dirichlet(np.full(9, 0.7))
        reference = [*rng.choice(names, 700, p=shares), *"aab"]
        window = [*rng.choice(names, 300, p=shares), *["new"] * (seed % 3)]
        counts, kind = table(reference, window), "categorical"
    outcome = outcome_of(name, reference, window, kind)  # pyright: ignore[reportArgumentType]
    pooled = pool_rare(*counts)
    statistic, p_value = oracle(counts if pooled is None else np.array(pooled))
    assert outcome.statistic == pytest.approx(statistic, rel=1e-9, abs=1e-12)
    assert outcome.p_value == close(p_value)


def test_the_bin_that_moved_most_is_named() -> None:
    reference, window = np.arange(100.0), np.append(np.arange(100.0), np.full(40, 14.5))
    effect = outcome_of("psi", reference, window, "numeric").effect
    assert effect is not None
    assert effect.category == "9 … 19"
    assert (effect.reference, effect.window) == (close(0.1), close(50 / 140))
    few = outcome_of("psi", [0.0] * 95 + [1.0] * 5, [0.0] * 50 + [1.0] * 50, "numeric").effect
    assert few is not None
    assert few.category == "above 0"


# Categories and booleans


@pytest.mark.parametrize("seed", range(10))
def test_fisher_equals_scipy(seed: int) -> None:
    rng = np.random.default_rng([13, seed])
    reference = [True, False, *(rng.random(int(rng.integers(20, 3000))) < 0.03).tolist(), None]
    window = [*(rng.random(int(rng.integers(1, 400))) < 0.06).tolist(), None, "maybe"]
    outcome = outcome_of("fisher", reference, window, "boolean")
    yes, no = (
        [sum(v is x for v in values) for values in (reference, window)] for x in (True, False)
    )
    assert outcome.p_value == close(stats.fisher_exact([[no[0], yes[0]], [no[1], yes[1]]]).pvalue)
    assert outcome.detail["n_test"] == len(window) - 2
    assert (outcome.detail["missing"], outcome.detail["unseen"]) == (1, 1)


def test_new_categories_against_those_the_reference_has_once() -> None:
    reference = ["a"] * 60 + ["b"] * 37 + ["c", "d", "e", None, None]
    window = ["a"] * 40 + ["x"] * 4 + ["y", None]
    outcome = outcome_of("new_category", reference, window, "categorical")
    # 5 of 45 are new; 3 of the reference's 100 would have been.
    expected = stats.fisher_exact([[5, 40], [3, 97]], alternative="greater").pvalue
    assert outcome.p_value == close(expected)
    assert outcome.detail["singletons"] == 3
    assert outcome.detail["unseen_sample"] == {"x": 4, "y": 1}
    # Without singletons, that all k came late: C(n, k) / C(n + m, k).
    assert more_often(100, 0, 50, 4) == close(math.comb(50, 4) / math.comb(150, 4))
    assert more_often(100, 7, 50, 0) == 1.0


def test_missing_rate_of_categories_and_booleans() -> None:
    for name, kind in (("a", "categorical"), (True, "boolean")):
        reference = [name, not name if kind == "boolean" else "b"] * 40 + [None] * 20
        outcome = outcome_of("missing_rate", reference, [name] * 30 + [None] * 70, kind)  # pyright: ignore[reportArgumentType]
        expected = stats.chi2_contingency([[80, 20], [30, 70]], correction=False)
        assert outcome.statistic == close(0.5)
        assert outcome.p_value == close(expected.pvalue)


# CUSUM


@pytest.mark.parametrize("seed", range(6))
def test_cusum_is_the_largest_sum_at_the_end_of_a_pane(seed: int) -> None:
    rng = np.random.default_rng([14, seed])
    reference, window = rng.exponential(size=400), rng.exponential(size=250)
    window[::17] = np.nan
    profile, _ = fit({"x": reference})
    [[outcome]] = detectors()["cusum"].test(profile, [in_panes(profile, {"x": window}, 20)], [0])
    z = (window - reference.mean()) / reference.std(ddof=1)
    through = np.cumsum(np.where(np.isnan(z), 0, z))
    ends = np.flatnonzero(np.diff(np.arange(250) * 20 // 250, append=20))
    n = int(np.isfinite(window).sum())
    statistic = np.abs(through[ends]).max() / math.sqrt(n)
    assert outcome.statistic == pytest.approx(statistic, rel=1e-4)
    p = sup_wiener_sf(statistic / math.sqrt(1 + n / 400))
    assert outcome.p_value == pytest.approx(p, rel=1e-3)
    assert outcome.detail["panes"] == 20


def test_the_law_of_the_largest_sum() -> None:
    """Both series are the same function where they meet; 2.2414 is the published 5 % point."""
    assert sup_wiener_sf(1 - 1e-12) == pytest.approx(sup_wiener_sf(1.0), rel=1e-9)
    assert sup_wiener_sf(2.2414) == pytest.approx(0.05, abs=1e-5)
    assert sup_wiener_sf(30.0) == pytest.approx(4 * stats.norm.sf(30), rel=1e-9)
    assert sup_wiener_sf(0.0) == 1.0


def test_cusum_sees_what_came_and_went() -> None:
    """Up for a fifth of the window, then down for a fifth: the window's mean is as it was."""
    rng = np.random.default_rng(15)
    profile, _ = fit({"x": rng.normal(size=5000)})
    x = rng.normal(size=1000)
    x[200:400] += 0.6
    x[600:800] -= 0.6
    window = in_panes(profile, {"x": x}, 50)
    p = {name: detectors()[name].test(profile, [window], [0])[0][0].p_value
         for name in ("cusum", "mean_shift")}  # fmt: skip
    assert p["cusum"] is not None
    assert p["mean_shift"] is not None
    assert p["cusum"] < 1e-3 < 0.05 < p["mean_shift"]


# Shiryaev and Roberts


@pytest.mark.parametrize(("n", "mean", "square", "m", "kurtosis"), [
    (30, 0.0, 1.0, 400, 3.0), (30, 0.6, 1.4, 400, 3.0), (250, -0.2, 0.8, 4000, 1.8),
    (250, 0.1, 1.9, 300, 9.0), (4000, 0.08, 1.02, 4000, 3.0),
])  # fmt: skip
def test_bayes_factors_are_the_integrals(
    n: int, mean: float, square: float, m: int, kurtosis: float
) -> None:
    """Over the prior of the shift, normal with standard deviation ½, and that of reference variance /
    new variance, gamma with shape 4 and mean 1; both no wider than √15 standard errors."""
    size = 1 / (1 / n + 1 / m)
    sd = min(0.5, math.sqrt(15 / size))

    def of_shift(shift: float) -> float:
        ratio = math.exp(size * (mean * shift - shift**2 / 2))
        return ratio * float(stats.norm.pdf(shift, scale=sd))

    half = size / (kurtosis - 1)
    shape = max(4.0, half / 15)

    def of_precision(precision: float) -> float:
        ratio = half * math.log(precision) - half * square * (precision - 1)
        return math.exp(ratio) * float(stats.gamma.pdf(precision, shape, scale=1 / shape))

    of_mean, of_spread = of_moments(
        np.array([n]), np.array([mean]), np.array([square]), m, tails(kurtosis)
    )
    at = [mean, mean / 2]
    expected, _ = integrate.quad(of_shift, -4, 4, points=at, epsabs=0, epsrel=1e-10, limit=500)
    assert of_mean[0] == pytest.approx(0.8 * expected, rel=1e-8)
    expected, _ = integrate.quad(
        of_precision, 1e-9, 8, points=[1 / square, 1.0], epsrel=1e-10, limit=500
    )
    assert of_spread[0] == pytest.approx(0.2 * expected, rel=1e-7)


def test_bayes_factors_of_shares_are_those_of_beta_binomial_laws() -> None:
    """An average of 1 where nothing moved, over all counts there can be."""
    reference = np.array([700, 41, 3, 0, 12])
    shares = Shares.of(reference)
    own = reference + 0.5
    for n, rows in ((1, 3.0), (17, 3.0), (90, 1 / (1 / 90 + 1 / own.sum()) / 15)):
        count = np.arange(n + 1)[:, None] * np.ones(5, np.int64)
        factors = shares.factors(count, np.full(n + 1, n))
        for j, a in enumerate(own):
            b, p = own.sum() - a, a / own.sum()
            moved = stats.betabinom.pmf(count[:, j], n, rows * p, rows * (1 - p))
            same = stats.betabinom.pmf(count[:, j], n, a, b)
            np.testing.assert_allclose(factors[:, j], moved / same, rtol=1e-9)
            assert (same * factors[:, j]).sum() == pytest.approx(1)


def test_shiryaev_roberts_names_the_category_that_moved() -> None:
    rng = np.random.default_rng(26)
    profile, _ = fit({"c": letters(rng, 4000)})
    c = [*letters(rng, 900), *("d" if rng.random() < 0.35 else v for v in letters(rng, 100))]
    window = in_panes(profile, {"c": c}, 50)
    [[outcome]] = detectors()["shiryaev_roberts"].test(profile, [window], [0])
    effect, since = outcome.effect, outcome.detail["n_since"]
    assert outcome.significant(0.01)
    assert effect is not None
    assert (effect.kind, effect.category) == ("share_shift", "d")
    assert 60 <= since <= 140
    assert effect.window == c[-since:].count("d") / since
    # Never seen before: at once.
    window = in_panes(profile, {"c": [*c[:880], *["z"] * 5]}, 44)
    [[outcome]] = detectors()["shiryaev_roberts"].test(profile, [window], [0])
    assert outcome.significant(0.001)
    assert outcome.effect is not None
    assert outcome.effect.category == "(unseen)"


@pytest.mark.parametrize("seed", range(5))
def test_shiryaev_roberts_averages_over_onsets(seed: int) -> None:
    """From the raw values: their normal scores since each onset, each weighted by the panes it stands
    for."""
    rng = np.random.default_rng([24, seed])
    reference, window = rng.gamma(3, size=900), rng.gamma(3, size=500)
    if seed == 4:
        reference, window = np.round(reference), np.round(window)
    if seed in (1, 3):
        window[400:] *= 1.6
    window[::17], window[3] = np.nan, np.inf
    if seed == 3:
        window[450] = 1e9
    profile, _ = fit({"x": reference})
    detector = detectors()["shiryaev_roberts"]
    [[outcome]] = detector.test(profile, [in_panes(profile, {"x": window}, 25)], [0])

    def normal_score(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        below = (reference[None, :] < x[:, None]).sum(axis=1)
        equal = (reference[None, :] == x[:, None]).sum(axis=1)
        return stats.norm.ppf((below + equal / 2 + 0.5) / 901)

    of_reference = normal_score(reference)
    mean, sd = of_reference.mean(), of_reference.std()
    kurtosis = float((((of_reference - mean) / sd) ** 4).mean())
    z = (normal_score(window) - mean) / sd
    found, since = [], []
    for age in ages(25):
        own = z[np.isfinite(window) & (np.arange(500) >= 500 - 20 * age)]
        moments = np.array([own.mean()]), np.array([(own**2).mean()])
        of_either = of_moments(np.array([len(own)]), *moments, 900, tails(kurtosis))
        found.append(of_either[0][0] + of_either[1][0])
        since.append(len(own))
    share = np.diff(ages(25), prepend=0) / ages(25)[-1]
    average = float(share @ found)
    assert outcome.statistic == pytest.approx(math.log(average), abs=1e-3)
    assert outcome.p_value == pytest.approx(min(1.0, 1 / average), rel=1e-3)
    if seed in (1, 3):
        assert outcome.p_value is not None
        assert outcome.p_value < 1e-4
        assert outcome.detail["n_since"] == since[int(np.argmax(share * found))]
    if seed == 1:
        own = window[np.isfinite(window)][-int(outcome.detail["n_since"]) :]
        assert outcome.effect is not None
        kind, now = outcome.effect.kind, outcome.effect.window
        expected = own.mean() if kind == "mean_shift" else own.std(ddof=1)
        assert now == pytest.approx(expected, rel=1e-4)


def test_shiryaev_roberts_does_not_take_wild_values_for_a_change() -> None:
    """0.1 % of windows of Cauchy values may have p ≤ 0.001; of 800, at most 4."""
    rng = np.random.default_rng(27)
    p = []
    for _ in range(20):
        columns = [{f"x{i:02d}": rng.standard_cauchy(n) for i in range(40)} for n in (1000, 600)]
        profile, _ = fit(columns[0])
        window = in_panes(profile, columns[1], 30)
        [row] = detectors()["shiryaev_roberts"].test(profile, [window], range(40))
        p += [o.p_value for o in row if o.p_value is not None]
    assert len(p) == 800
    assert sum(x <= 0.001 for x in p) <= 4


def test_shiryaev_roberts_says_whether_mean_or_spread_moved() -> None:
    rng = np.random.default_rng(25)
    profile, _ = fit({"x": rng.normal(size=5000), "y": rng.normal(size=5000)})
    x, y = rng.normal(size=(2, 1000))
    x[900:] += 0.8
    y[900:] *= 1.8
    window = in_panes(profile, {"x": x, "y": y}, 100)
    [[moved, wider]] = detectors()["shiryaev_roberts"].test(profile, [window], [0, 1])
    assert moved.effect is not None
    assert wider.effect is not None
    assert (moved.effect.kind, wider.effect.kind) == ("mean_shift", "spread_shift")
    assert moved.effect.value == pytest.approx(0.8, abs=0.25)
    assert wider.effect.value == pytest.approx(0.8, abs=0.25)
    assert all(60 <= o.detail["n_since"] <= 140 for o in (moved, wider))


# Under no change, and under the change each is for


def normals(rng: np.random.Generator, n: int) -> list[Any]:
    return rng.normal(size=n).tolist()


def counts_of_three(rng: np.random.Generator, n: int) -> list[Any]:
    return rng.poisson(3, n).astype(float).tolist()


def flags(rng: np.random.Generator, n: int) -> list[Any]:
    return [None if u < 0.05 else bool(u < 0.3) for u in rng.random(n)]


def letters(rng: np.random.Generator, n: int) -> list[Any]:
    shares = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    names = rng.choice(list("abcde"), n, p=shares)
    return [None if u < 0.05 else str(v) for v, u in zip(names, rng.random(n), strict=True)]


def names_without_end(rng: np.random.Generator, n: int) -> list[Any]:
    """One value in twenty is a name of its own."""
    return [f"n{i}" if i < 10**7 else "a" if i % 2 else "b"
            for i in rng.integers(0, 2 * 10**8, n).tolist()]  # fmt: skip


Draw = Callable[[np.random.Generator, int], list[Any]]
NULLS: list[tuple[str, Draw]] = [
    *((name, draw) for draw in (normals, counts_of_three) for name in (
        "cramer_von_mises", "wasserstein", "psi", "jensen_shannon", "mean_shift", "variance_shift",
        "cusum", "shiryaev_roberts")),
    *((name, draw) for draw in (letters, flags) for name in (
        "psi", "jensen_shannon", "missing_rate")),
    *(("shiryaev_roberts", draw) for draw in (letters, flags)),
    ("fisher", flags),
    ("new_category", names_without_end),
]  # fmt: skip
# By their making: exact tests of few counts, a law that bounds what happens between panes, and
# Markov's inequality.
CONSERVATIVE = {"fisher", "new_category", "cusum", "missing_rate", "shiryaev_roberts"}


def null_p_values(name: str, draw: Draw, n_references: int) -> npt.NDArray[np.float64]:
    """40 features at a time: references of 1,000 rows and windows of 300."""
    rng = np.random.default_rng([16, *name.encode(), *draw.__name__.encode()])
    found: list[float] = []
    for _ in range(n_references):
        columns = [{f"x{i:02d}": draw(rng, n) for i in range(40)} for n in (1000, 300)]
        profile, _ = fit(columns[0], max_categories=5000)
        window = in_panes(profile, columns[1], 30)
        [row] = detectors()[name].test(profile, [window], range(len(profile.features)))
        found += [o.p_value for o in row if o.p_value is not None]
    assert len(found) == 40 * n_references
    return np.array(found)


def assert_as_rare_as_they_say(name: str, p: npt.NDArray[np.float64]) -> None:
    for level in (0.05, 0.001):
        low, high = stats.binom.interval(0.999, len(p), level)
        if name in CONSERVATIVE:
            low = 0
        # The limit laws are not exact so far out with 300 values.
        high *= 1.0 if level > 0.01 else 1.5
        assert low <= (p <= level).sum() <= high + 1, (level, (p <= level).mean())


@pytest.mark.parametrize(("name", "draw"), NULLS, ids=lambda v: getattr(v, "__name__", v))
def test_p_values_are_as_rare_as_they_say(name: str, draw: Draw) -> None:
    assert_as_rare_as_they_say(name, null_p_values(name, draw, 10))


@pytest.mark.long
@pytest.mark.parametrize(("name", "draw"), NULLS, ids=lambda v: getattr(v, "__name__", v))
def test_p_values_are_as_rare_as_they_say_in_many_draws(name: str, draw: Draw) -> None:
    assert_as_rare_as_they_say(name, null_p_values(name, draw, 250))


def ramp(rng: np.random.Generator, n: int) -> list[Any]:
    return (rng.normal(size=n) + np.linspace(0, 0.6, n)).tolist()


CHANGES: list[tuple[str, Draw, Draw]] = [
    ("cramer_von_mises", normals, lambda r, n: (r.normal(size=n) + 0.35).tolist()),
    ("wasserstein", normals, lambda r, n: (r.normal(size=n) + 0.35).tolist()),
    ("wasserstein", normals, lambda r, n: r.exponential(size=n).tolist()),
    ("psi", normals, lambda r, n: (1.5 * r.normal(size=n)).tolist()),
    ("jensen_shannon", normals, lambda r, n: (1.5 * r.normal(size=n)).tolist()),
    ("psi", letters, lambda r, n: r.choice(list("abcde"), n).tolist()),
    ("jensen_shannon", letters, lambda r, n: r.choice(list("abcde"), n).tolist()),
    ("mean_shift", normals, lambda r, n: (r.normal(size=n) + 0.35).tolist()),
    ("variance_shift", normals, lambda r, n: (1.35 * r.normal(size=n)).tolist()),
    ("variance_shift", normals, lambda r, n: (0.7 * r.normal(size=n)).tolist()),
    ("cusum", normals, ramp),
    ("shiryaev_roberts", normals, ramp),
    ("shiryaev_roberts", letters, lambda r, n: r.choice(list("abcde"), n).tolist()),
    ("shiryaev_roberts", flags, lambda r, n: (r.random(n) < 0.5).tolist()),
    ("shiryaev_roberts", normals, lambda r, n: (1.35 * r.normal(size=n)).tolist()),
    ("missing_rate", letters, lambda r, n: [None if u < 0.15 else "a" for u in r.random(n)]),
    ("fisher", flags, lambda r, n: (r.random(n) < 0.5).tolist()),
    ("new_category", letters, lambda r, n: [*letters(r, n - 9), *["x"] * 5, *"pqrs"]),
]


@pytest.mark.parametrize(("name", "before", "after"), CHANGES)
def test_each_sees_what_it_is_for(name: str, before: Draw, after: Draw) -> None:
    """In eight of ten windows of 300, at a level of one in a thousand."""
    rng = np.random.default_rng(17)
    seen = 0
    for _ in range(10):
        profile, _ = fit({"x": before(rng, 2000)})
        window = in_panes(profile, {"x": after(rng, 300)}, 30)
        [[outcome]] = detectors()[name].test(profile, [window], [0])
        seen += outcome.significant(0.001)
        assert outcome.effect is not None
    assert seen >= 8


def test_calibration_looks_with_them_as_the_monitor_does() -> None:
    """Those without a quick way take the slow one: each look of each of them is there."""
    rng = np.random.default_rng(18)
    columns = {"x": rng.normal(size=300), "c": letters(rng, 300)}
    profile, _ = fit(columns)
    known = detectors()
    plan = [(known["variance_shift"], [0]), (known["psi"], [0]), (known["missing_rate"], [0, 1])]
    simulator = Simulator(
        profile,
        Rows.of(profile, columns),
        plan,
        [parse_window("100 events")],
        pane_events=50,
        pane_ms=PANE_MS,
        min_events=30,
        seed=1,
    )
    seen = simulator.run(0, 12, np.zeros(len(simulator.tests)))
    names = [(t.detector.name, t.feature) for t in simulator.tests]
    # Nothing of x is missing, so there is nothing to look at.
    expected = [("variance_shift", 0), ("psi", 0), ("missing_rate", 1)]
    assert {names[t] for t in seen.test.tolist()} == set(expected)
    for test in expected:
        of = seen.test == names.index(test)
        assert seen.pane[of].tolist() == list(range(2, 13))
        assert len(set(seen.log_p[of].tolist())) > 5


def test_effects_in_other_kinds_are_said_in_words() -> None:
    from driftline.stream.alert import wording

    def said(kind: str, value: float, before: float, after: float) -> str:
        unit = "reference standard deviations"
        effect = {"kind": kind, "value": value, "unit": unit, "reference": before, "window": after}
        return wording.effect({"effect": effect, "detector": "x", "feature": "delay"})

    sd = "reference standard deviations"
    assert said("distance", 0.4, 0, 3.2) == f"moved away by 0.4 {sd} (3.2)"
    assert said("spread_shift", 0.5, 2, 3) == f": spread rose by 0.5 {sd} (2 → 3)"
    assert said("spread_shift", -0.5, 2, 1) == f": spread fell by 0.5 {sd} (2 → 1)"
