"""The MMD permutation test: its statistic, its p-value and its level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from driftline.detectors.kernels import median_bandwidth, unbiased_mmd2
from driftline.detectors.mmd import mmd_permutation_test


def mmd2_by_loops(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """The definition, one pair at a time."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(-float(((a - b) ** 2).sum()) / (2 * bandwidth**2))

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    xy = sum(k(a, b) for a in x for b in y)
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


@pytest.mark.parametrize("offset", [0.0, 1e6], ids=["centred", "far from the origin"])
def test_the_statistic_is_the_one_of_the_definition(offset: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(23, 5)) + offset
    y = rng.normal(0.4, size=(14, 5)) + offset
    expected = mmd2_by_loops(x, y, 1.7)
    assert unbiased_mmd2(x, y, 1.7) == pytest.approx(expected, abs=1e-9)
    assert mmd_permutation_test(x, y, 99, bandwidth=1.7).statistic == pytest.approx(
        expected, abs=1e-9
    )


def test_the_p_value_is_that_of_all_relabellings() -> None:
    """4 + 3 rows have 35 relabellings: 20,000 draws must find their shares."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(4, 2)), rng.normal(0.5, size=(3, 2))
    pooled = np.vstack([x, y])
    observed = mmd2_by_loops(x, y, 1.0)
    values = []
    for mask in range(1 << 7):
        labels = np.array([mask >> i & 1 for i in range(7)], bool)
        if labels.sum() == 3:
            values.append(mmd2_by_loops(pooled[~labels], pooled[labels], 1.0))
    exact = np.mean(np.array(values) >= observed - 1e-12)
    assert 0.1 < exact < 0.9
    found = mmd_permutation_test(x, y, 20_000, seed=3, bandwidth=1.0)
    assert found.p_value == pytest.approx(exact, abs=4 * math.sqrt(0.25 / 20_000))


def test_the_bandwidth_is_the_median_heuristic() -> None:
    rows = np.random.default_rng(4).normal(size=(40, 3))
    squares = [((rows[i] - rows[j]) ** 2).sum() for i in range(40) for j in range(i)]
    found = median_bandwidth(rows, np.random.default_rng(0))
    assert found == pytest.approx(math.sqrt(np.median(squares) / 2), rel=1e-12)


def test_false_alarms_come_at_the_level() -> None:
    """400 tests without drift: alarms at 5 % lie in the binomial band, and p-values are even."""
    p_values = []
    for seed in range(400):
        rng = np.random.default_rng([5, seed])
        found = mmd_permutation_test(
            rng.standard_t(3, size=(40, 3)), rng.standard_t(3, size=(25, 3)), 99, seed
        )
        assert found.drifted == (found.p_value <= found.alpha)
        assert found.drifted == (found.statistic > found.threshold)
        p_values.append(found.p_value)
    low, high = binom.ppf([0.001, 0.999], 400, 0.05)
    assert low <= np.sum(np.array(p_values) <= 0.05) <= high
    low, high = binom.ppf([0.001, 0.999], 400, 0.5)
    assert low <= np.sum(np.array(p_values) <= 0.5) <= high


@pytest.mark.parametrize(
    "change",
    [lambda y: y + 0.8, lambda y: y * 1.8, lambda y: np.repeat(y[:, :1], 3, axis=1)],
    ids=["mean", "scale", "dependence"],
)
def test_it_sees_changes_of_mean_scale_and_dependence(change) -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(200, 3)), change(rng.normal(size=(100, 3)))
    found = mmd_permutation_test(x, y, 199)
    assert found.p_value == 1 / 200
    assert found.effect == pytest.approx(math.sqrt(found.statistic))
    assert (found.n_reference, found.n_test) == (200, 100)


def test_a_seed_repeats_and_the_input_is_left_alone() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(20, 2))
    before = x.copy(), y.copy()
    assert mmd_permutation_test(x, y, 99, seed=1) == mmd_permutation_test(x, y, 99, seed=1)
    assert mmd_permutation_test(x, y, 99, seed=1) != mmd_permutation_test(x, y, 99, seed=2)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


GOOD = np.random.default_rng(8).normal(size=(10, 2))
WITH_NAN = GOOD.copy()
WITH_NAN[3, 1] = np.nan


@pytest.mark.parametrize(
    ("reference", "window", "options", "message"),
    [
        (GOOD, WITH_NAN, {}, "row 3 of the window holds nan in column 1"),
        (GOOD, GOOD[:, :1], {}, "1 features; the reference has 2"),
        (GOOD[:0], GOOD, {}, "a reference of 0 and a window of 10 rows"),
        (np.ones((5, 2)), np.ones((4, 2)), {}, "all 9 rows are equal"),
        (GOOD, GOOD, {"n_permutations": 18}, "alpha=0.05 needs at least 19"),
        (GOOD, GOOD, {"bandwidth": 0.0}, "bandwidth is 0.0"),
        (GOOD, GOOD, {"alpha": 1.0}, "alpha is 1.0"),
        (np.zeros((9_990, 1)), GOOD[:, :1].repeat(2, 0), {}, "10010 rows; at most 10000"),
    ],
)
def test_what_cannot_be_tested_is_refused_with_the_reason(
    reference, window, options, message
) -> None:
    with pytest.raises(ValueError) as raised:
        mmd_permutation_test(reference, window, **options)
    assert message in str(raised.value)
