"""All numeric features tested together: textbook formulas on the raw rows, and what it is for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from driftline.detectors import Columns, WindowBank, detectors, fit, summarize
from driftline.detectors.base import Outcome, plan_of
from driftline.detectors.evidence import of_distance
from driftline.detectors.multivariate import MULTIVARIATE, ROWS_PER_FEATURE
from driftline.detectors.profile import Profile
from driftline.schemas.units import parse_window

Array = np.ndarray[Any, np.dtype[np.float64]]
PANE_MS = 60_000


def table(x: Array) -> dict[str, Any]:
    return {f"x{j}": x[:, j] for j in range(x.shape[1])}


def of_a_window(profile: Profile, x: Array, pane: int) -> Outcome:
    n_panes = len(x) // pane
    bank = WindowBank(profile, [parse_window(f"{n_panes}m")], PANE_MS, 2**60)
    due: list[Any] = []
    starts = np.repeat(np.arange(n_panes) * PANE_MS, pane)
    for made in summarize(profile, Columns.of(profile, table(x)), starts):
        due = bank.push(made.start_ms + PANE_MS, made)
    [[outcome]] = detectors()["shiryaev_roberts"].test(profile, due, [len(profile.features)])
    return outcome


def related(n: int, rng: np.random.Generator) -> Array:
    """Five features, three of which go together."""
    shared = rng.normal(size=(n, 1))
    x = rng.normal(size=(n, 5))
    x[:, :3] = 0.97 * shared + math.sqrt(1 - 0.97**2) * x[:, :3]
    return x


def raw_scores(reference: Array, x: Array) -> Array:
    """Normal scores of x by hand: ranks among the reference, ties by half, standardised."""
    out = np.zeros_like(x)
    for j in range(x.shape[1]):
        own = reference[:, j][~np.isnan(reference[:, j])]

        def score(v: Array, own: Array = own) -> Array:
            below = (own[None, :] < v[:, None]).sum(1) + (own[None, :] == v[:, None]).sum(1) / 2
            return stats.norm.ppf((below + 0.5) / (len(own) + 1))

        there = ~np.isnan(x[:, j])
        among = score(own)
        out[there, j] = (score(x[there, j]) - among.mean()) / among.std()
    return out


def test_it_is_the_formula_on_the_raw_rows() -> None:
    """Ties and missing values included: Hotelling's T² of mean normal scores since each onset, its
    density under a shift over that under none (as F laws of scipy), averaged over all onsets."""
    rng = np.random.default_rng(1)

    def draw(n: int) -> Array:
        x = related(n, rng)
        x[:, 3] = np.round(x[:, 3])
        x[rng.random(n) < 0.2, 4] = np.nan
        return x

    reference, window = draw(400), draw(240)
    profile, _ = fit(table(reference), multivariate=True)
    found = of_a_window(profile, window, 40)
    scores = raw_scores(reference, reference)
    covariance = scores.T @ scores / len(scores)
    factors = []
    k, m = 5, len(reference)
    widest = 2 * (math.sqrt(k * 5.2) + 5.2) / k
    for panes in range(1, 7):
        n = 40 * panes
        mean = raw_scores(reference, window)[-n:].mean(axis=0)
        size = 1 / (1 / n + 1 / m)
        squared = size * mean @ np.linalg.solve(covariance, mean)
        gain = min(size / 4, widest)
        law = stats.f(k, m - k)
        to_f = (m - k) / (k * (m - 1))
        under_shift = law.pdf(squared * to_f / (1 + gain)) / (1 + gain)
        factors.append(under_shift / law.pdf(squared * to_f))
    assert found.statistic == pytest.approx(math.log(np.mean(factors)), abs=1e-4)
    assert found.p_value == pytest.approx(min(1, 1 / np.mean(factors)), rel=1e-4)
    assert found.detail["n_reference"] == 400
    assert found.detail["n_test"] == 240


@pytest.mark.parametrize(("n", "m", "directions"), [(50, 300, 2), (400, 300, 20), (30, 5000, 40)])
def test_a_factor_has_mean_one_where_nothing_moved(n: int, m: int, directions: int) -> None:
    law = stats.f(directions, m - directions)
    size = 1 / (1 / n + 1 / m)
    to_distance = directions * (m - 1) / (m - directions) / size

    def part(f: float) -> float:
        return float(of_distance(np.array(n), np.array(f * to_distance), m, directions)) * law.pdf(
            f
        )

    mean, _ = integrate.quad(part, 0, np.inf, limit=400)
    assert mean == pytest.approx(1, abs=1e-6)


def test_a_little_in_every_feature_adds_up() -> None:
    """0.2 standard deviations in each of twenty: plain together, and in none alone."""
    rng = np.random.default_rng(2)
    profile, _ = fit(table(rng.normal(size=(4000, 20))), multivariate=True)
    shift = 0.2 * rng.choice([-1, 1], 20)
    changed = np.concatenate([rng.normal(size=(200, 20)), rng.normal(size=(200, 20)) + shift])
    found = of_a_window(profile, changed, 10)
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert found.detail["n_since"] == pytest.approx(200, abs=50)
    assert found.effect is not None
    assert found.effect.value == pytest.approx(0.2, abs=0.05)
    for name, moved in found.detail["shifts"].items():
        assert moved * shift[int(name[1:])] > 0
    alone = detectors()["ks"]
    bank = WindowBank(profile, [parse_window("200 events")], PANE_MS, 2**60)
    due: list[Any] = []
    for made in summarize(
        profile, Columns.of(profile, table(changed)), np.arange(400) // 10 * PANE_MS
    ):
        due = bank.push(made.start_ms + PANE_MS, made)
    [row] = alone.test(profile, due, range(20))
    assert min(o.p_value for o in row if o.p_value is not None) > 1e-4


def test_a_feature_that_leaves_its_relation_is_seen_though_its_values_are_usual() -> None:
    rng = np.random.default_rng(3)
    profile, _ = fit(table(related(4000, rng)), multivariate=True)
    usual = of_a_window(profile, related(300, rng), 10)
    assert usual.p_value is not None
    assert usual.p_value > 0.05
    apart = related(300, rng)
    apart[200:, 0] += 0.3
    found = of_a_window(profile, apart, 10)
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert found.detail["n_since"] == pytest.approx(100, abs=20)


@pytest.mark.parametrize("twice", [1.0, -3.0])
def test_features_that_tell_each_other_are_one_direction(twice: float) -> None:
    rng = np.random.default_rng(4)
    x = related(2000, rng)
    both = np.concatenate([x, twice * x[:, :1]], axis=1)
    alone, _ = fit(table(x), multivariate=True)
    profile, _ = fit(table(both), multivariate=True)
    assert profile.multivariate is not None
    assert len(profile.multivariate.whitening) == 5
    window = related(200, rng) + 0.2
    doubled = np.concatenate([window, twice * window[:, :1]], axis=1)
    found = of_a_window(profile, doubled, 20).statistic
    assert found == pytest.approx(of_a_window(alone, window, 20).statistic, rel=1e-3)


def test_p_values_are_never_too_small() -> None:
    """1 / average is a p-value whatever the laws: normal, skewed and heavy tails, related features."""
    rng = np.random.default_rng(5)
    small = 0
    for r in range(300):
        reference, window = related(500, rng), related(200, rng)
        if r % 3 == 1:
            reference, window = np.exp(reference), np.exp(window)
        elif r % 3 == 2:
            reference, window = reference**3, window**3
        profile, _ = fit(table(reference), multivariate=True)
        p = of_a_window(profile, window, 20).p_value
        assert p is not None
        small += p <= 0.05
    assert small <= 15


def test_which_profiles_have_it() -> None:
    rng = np.random.default_rng(6)
    x = table(rng.normal(size=(60, 4)))
    profile, _ = fit(x, multivariate=True)
    known = profile.multivariate
    assert known is not None
    meta, arrays = profile.to_parts()
    again = Profile.from_parts(meta, arrays)
    assert again.id == profile.id
    assert again.multivariate is not None
    assert np.array_equal(again.multivariate.products, known.products)
    assert profile.name_of(4) == MULTIVARIATE
    assert profile.kind_of(4) == "multivariate"
    plain, _ = fit(x)
    assert plain.multivariate is None
    assert plain.id != profile.id
    one, _ = fit({"x0": x["x0"], "c": ["a", "b"] * 30}, multivariate=True)
    assert one.multivariate is None
    wide = table(rng.normal(size=(60, 60 // ROWS_PER_FEATURE + 1)))
    assert fit(wide, multivariate=True)[0].multivariate is None

    def names(kind: str) -> tuple[str, ...]:
        return {"numeric": ("ks",), "multivariate": ("shiryaev_roberts",)}[kind]

    assert [(d.name, own) for d, own in plan_of(profile, names)] == [
        ("ks", [0, 1, 2, 3]),
        ("shiryaev_roberts", [4]),
    ]
    assert [d.name for d, _ in plan_of(plain, names)] == ["ks"]


def test_a_window_without_any_value_is_not_tested() -> None:
    rng = np.random.default_rng(11)
    profile, _ = fit(table(related(400, rng)), multivariate=True)
    x = related(100, rng)
    x[:, 1:] = np.nan
    assert of_a_window(profile, x, 50).p_value is not None
    x[:, 0] = np.inf
    outcome = of_a_window(profile, x, 50)
    assert (outcome.p_value, outcome.effect) == (None, None)
    assert outcome.reason == "none of its 100 values is a finite number"
