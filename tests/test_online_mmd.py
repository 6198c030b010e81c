"""Online MMD: every statistic is the direct one, run lengths are those asked for, state survives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from driftline.detectors.kernels import unbiased_mmd2
from driftline.detectors.mmd_thresholds import Streams, _at, _blocks, _last, _share
from driftline.detectors.online_mmd import OnlineMMD


def fitted(d: int, sizes: tuple[int, ...], n: int = 0, **options) -> OnlineMMD:
    reference = np.random.default_rng(d).normal(size=(n or 3 * max(sizes), d))
    return OnlineMMD.fit(reference, sizes, **{"ert": 50, "n_bootstraps": 520, **options})


def drifting(d: int, n: int) -> np.ndarray:
    """Quiet, then shifted, then spread so far that float32 no longer serves."""
    stream = np.random.default_rng([1, d]).normal(size=(n, d))
    stream[n // 2 :] += 0.5
    stream[3 * n // 4 : 3 * n // 4 + 30] *= 1000.0
    return stream


def in_batches(detector: OnlineMMD, stream: np.ndarray, size: int):
    parts = [detector.update(stream[i : i + size]) for i in range(0, len(stream), size)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
@pytest.mark.parametrize("d", [32, 384])
def test_every_batching_gives_the_direct_statistic(d: int, batch: int) -> None:
    detector = fitted(d, (30, 70, 110))
    stream = drifting(d, 1000)
    statistic, threshold, drifted = in_batches(detector, stream, batch)
    assert statistic.shape == threshold.shape == drifted.shape == (1000, 3)
    # Rows of the reference come before the first event.
    full = np.vstack([detector.fitted.prefill, stream])
    for k, w in enumerate((30, 70, 110)):
        for t in [0, 1, 28, w - 1, w, 250, 255, 256, 499, 520, 749, 760, 800, 900, 999]:
            window = full[110 + t - w + 1 : 110 + t + 1]
            direct = unbiased_mmd2(detector.reference_window, window, detector.bandwidth)
            assert statistic[t, k] == pytest.approx(direct, abs=1e-5)
    np.testing.assert_array_equal(drifted, statistic > threshold)
    assert not drifted[200:220].all()
    assert drifted[740].all()
    np.testing.assert_allclose(detector.window, stream[-110:], rtol=1e-12, atol=1e-9)


def test_rounding_does_not_add_up_over_a_long_stream() -> None:
    detector = fitted(4, (16,), n_bootstraps=200)
    stream = np.random.default_rng(3).normal(size=(60_000, 4))
    statistic = detector.update(stream).statistic
    for t in [30_000, 45_055, 59_999]:
        direct = unbiased_mmd2(
            detector.reference_window, stream[t - 15 : t + 1], detector.bandwidth
        )
        assert statistic[t, 0] == pytest.approx(direct, abs=1e-6)


def test_memory_does_not_grow_with_the_stream() -> None:
    detector = fitted(4, (20, 40))
    stream = np.random.default_rng(4).normal(size=(5_000, 4))
    detector.update(stream[:100])
    short = detector.to_bytes()
    detector.update(stream[100:])
    assert detector.seen == 5_000
    # Only digits in the metadata may differ.
    assert abs(len(detector.to_bytes()) - len(short)) < 64


@pytest.mark.parametrize("cut", [0, 13, 40, 41, 500])
def test_a_restored_detector_goes_on_to_the_same_bits(cut: int) -> None:
    detector = fitted(8, (20, 40), seed=5)
    stream = drifting(8, 1000)
    detector.update(stream[:cut])
    saved = detector.to_bytes()
    restored = OnlineMMD.from_bytes(saved)
    assert restored.to_bytes() == saved
    assert restored.fitted.ert == 50
    for found, expected in zip(
        restored.update(stream[cut:]), detector.update(stream[cut:]), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(restored.window, detector.window)


def test_reset_begins_a_new_run_with_the_same_thresholds() -> None:
    detector = fitted(8, (20, 40))
    stream = drifting(8, 300)
    first = detector.update(stream)
    detector.update(stream[::-1])
    detector.reset()
    for found, expected in zip(detector.update(stream), first, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_seed_repeats_and_the_input_is_left_alone() -> None:
    reference = np.random.default_rng(6).normal(size=(120, 3))
    before = reference.copy()
    one, same, other = (
        OnlineMMD.fit(reference, (30,), ert=40, seed=seed, n_bootstraps=200) for seed in (1, 1, 2)
    )
    assert one.to_bytes() == same.to_bytes()
    assert not np.array_equal(one.fitted.thresholds, other.fitted.thresholds)
    np.testing.assert_array_equal(reference, before)
    # The reference window and what fills the windows are rows of the reference, each once.
    rows = {tuple(row) for row in reference}
    compared = {tuple(row) for row in one.reference_window}
    filling = {tuple(row) for row in one.fitted.prefill}
    assert (len(compared & rows), len(filling & rows)) == (120 - 60, 30)
    assert not compared & filling
    np.testing.assert_allclose(one.window, one.fitted.prefill, atol=1e-12)


def test_an_offset_common_to_all_rows_changes_nothing() -> None:
    rng = np.random.default_rng(7)
    reference, stream = rng.normal(size=(90, 3)), rng.normal(size=(100, 3))
    plain = OnlineMMD.fit(reference, (30,), ert=40, n_bootstraps=200)
    moved = OnlineMMD.fit(reference + 1e6, (30,), ert=40, n_bootstraps=200)
    np.testing.assert_allclose(
        moved.update(stream + 1e6).statistic, plain.update(stream).statistic, atol=1e-6
    )


def test_the_largest_finite_values_stay_finite() -> None:
    detector = fitted(3, (20,))
    looks = detector.update(np.full((40, 3), 1e308) * np.array([1.0, -1.0, 1.0]))
    assert np.isfinite(looks.statistic).all()
    assert looks.drifted[30:].all()


# Thresholds -------------------------------------------------------------------------------------


def test_blocks_double_and_end_after_two_erts() -> None:
    assert list(_blocks(8.0, 10_000)) == [(0, 1), (1, 3), (3, 7), (7, 11), (11, 16)]
    # So long is the first block that three of the streams alarm in it.
    assert next(iter(_blocks(4000.0, 1_000))) == (0, 12)
    # With few streams thresholds end changing while 100 are silent.
    assert list(_blocks(8.0, 120)) == [(0, 1)]


@pytest.mark.parametrize("alarms", [0, 1, 17, 200])
def test_columns_share_the_alarms_of_a_block(alarms: int) -> None:
    values = np.random.default_rng(alarms).normal(size=(500, 2))
    values[:, 1] += 0.5 * values[:, 0] + 3.0
    over = values > _at(values, _share(values, alarms))
    assert over[:, 0].sum() == over[:, 1].sum()
    # One row more in each column would be one or two alarms too many.
    assert alarms - 1 <= over.any(axis=1).sum() <= alarms


class Unlike:
    """Streams that alarm at rates of their own: exponential times, in parts of `looks`."""

    def __init__(self, rates: np.ndarray, seed: int) -> None:
        self._rates, self._rng = rates, np.random.default_rng(seed)

    def highest(self, which: np.ndarray, looks: int) -> np.ndarray:
        # Over -log(v) with the probability that a Poisson process of rate·v has an event.
        gap = self._rng.exponential(size=len(which)) / (self._rates[which] * looks)
        return -np.log(gap)[:, None].astype(np.float32)


def test_the_last_threshold_is_for_the_mixture_of_unlike_streams() -> None:
    """Rates that differ by a factor of 9: the mean run time is ERT at E[1/rate]/v = ERT, which
    the average rate does not give (2.1 times as long)."""
    rates = np.repeat([3.0, 1.0, 1 / 3], 2_000)
    [threshold] = _last(Unlike(rates, 1), np.arange(6_000), 300.0)  # type: ignore[arg-type]
    v = np.exp(-float(threshold))
    assert (1 / (rates * v)).mean() == pytest.approx(300.0, rel=0.08)


class Scripted:
    """Hands out these numbers, in their order, as its draws."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._left = numbers

    def integers(self, n: int, size: int | tuple[int, int]) -> np.ndarray:
        drawn, self._left = np.split(self._left, [int(np.prod(size))])
        return drawn.reshape(size)


def test_simulated_statistics_are_direct_ones() -> None:
    """One stream that draws no row twice, look by look."""
    rows = np.random.default_rng(9).normal(size=(400, 2))
    order = np.random.default_rng(10).permutation(400)
    reference, stream = rows[order[:8]], rows[order[8:]]
    kernel = np.exp(-0.5 * ((rows[:, None] - rows[None]) ** 2).sum(axis=2)).astype(np.float32)
    np.fill_diagonal(kernel, 0.0)
    streams = Streams(kernel, 8, (4, 80), 1, Scripted(order))  # type: ignore[arg-type]
    # The first 80 fill the windows.
    for t in range(80, 80 + 2 * 128):
        [found] = streams.highest(np.array([0]), 1)
        for k, w in enumerate((4, 80)):
            direct = unbiased_mmd2(reference, stream[t - w + 1 : t + 1], 1.0)
            assert found[k] == pytest.approx(direct, abs=1e-5)


def test_simulated_streams_vary_as_streams_of_fresh_rows_do() -> None:
    """Mean, spread and upper tail of the statistic, where rows are few and features many, so that
    drawing a row twice would show: with kernel values of 1 for it the spread is 1.4 times as wide."""
    d, n, m, w = 128, 300, 100, 100
    rng = np.random.default_rng(20)
    rows = rng.normal(size=(n, d)) / d**0.5
    kernel = np.exp(-0.5 * ((rows[:, None] - rows[None]) ** 2).sum(axis=2)).astype(np.float32)
    np.fill_diagonal(kernel, 0.0)
    streams = Streams(kernel, m, (w,), 400, rng)
    simulated = streams.highest(np.arange(400), 1)[:, 0]
    fresh = np.array(
        [
            unbiased_mmd2(x[:m], x[m:], 1.0)
            for x in (rng.normal(size=(m + w, d)) / d**0.5 for _ in range(300))
        ]
    )
    spread = fresh.std()
    assert abs(simulated.mean() - fresh.mean()) < 0.15 * spread
    assert simulated.std() == pytest.approx(spread, rel=0.1)
    high = np.quantile(fresh, 0.97)
    assert np.mean(simulated > high) == pytest.approx(0.03, abs=0.025)


def run_lengths(
    d: int, n: int, sizes: tuple[int, ...], ert: int, references: int, streams: int
) -> np.ndarray:
    """(references, streams) events to the first alarm, on fresh references and streams."""
    found = np.empty((references, streams))
    for r in range(references):
        rng = np.random.default_rng([11, r])
        detector = OnlineMMD.fit(rng.normal(size=(n, d)), sizes, ert=ert, seed=r, n_bootstraps=400)
        for s in range(streams):
            detector.reset()
            alarm = np.zeros(0, bool)
            while not alarm.any():
                more = detector.update(rng.normal(size=(4 * ert, d))).drifted.any(axis=1)
                alarm = np.concatenate([alarm, more])
            found[r, s] = int(alarm.argmax()) + 1
    return found


def assert_memoryless(found: np.ndarray, ert: int) -> None:
    """Mean within 10 % + 3 standard errors; as many silent after one ERT as the law leaves."""
    means = found.mean(axis=1)
    error = float(np.std(means, ddof=1)) / len(means) ** 0.5
    assert abs(means.mean() - ert) < 0.1 * ert + 3 * error
    # Streams of one reference go together; a band for a third as many is wide enough.
    low, high = binom.ppf([0.001, 0.999], found.size // 3, (1 - 1 / ert) ** ert)
    assert low <= (found > ert).sum() / 3 <= high


@pytest.mark.parametrize("sizes", [(20,), (8, 20)], ids=["one size", "two sizes"])
def test_first_alarms_come_at_the_expected_run_time(sizes: tuple[int, ...]) -> None:
    assert_memoryless(run_lengths(4, 80, sizes, 50, references=16, streams=12), 50)


def test_a_long_expected_run_time_is_not_overshot() -> None:
    """An ERT of ten windows. Thresholds that stay after two windows gave 5.9 times the ERT here."""
    found = run_lengths(4, 60, (20,), 200, references=16, streams=16)
    assert found.mean() < 1.45 * 200
    assert_memoryless(found, 200)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("ert", [200, 400, 2000])
def test_run_lengths_of_a_realistic_detector(ert: int) -> None:
    found = run_lengths(32, 800, (200,), ert, references=75, streams=8)
    assert_memoryless(found, ert)
    means = found.mean(axis=1) / ert
    assert abs(means.mean() - 1.0) < 0.1 + 2 * means.std(ddof=1) / len(means) ** 0.5


def test_drift_is_found_soon() -> None:
    rng = np.random.default_rng(12)
    detector = OnlineMMD.fit(rng.normal(size=(240, 16)), (20, 60), ert=1_000, n_bootstraps=200)
    quiet = detector.update(rng.normal(size=(100, 16)))
    assert not quiet.drifted.any()
    looks = detector.update(rng.normal(0.7, size=(60, 16)))
    assert looks.drifted.any(axis=1).argmax() < 20


# Refusals ---------------------------------------------------------------------------------------

GOOD = np.random.default_rng(13).normal(size=(100, 2))
BAD = GOOD.copy()
BAD[7, 1] = np.inf


@pytest.mark.parametrize(
    ("reference", "sizes", "options", "message"),
    [
        (GOOD, (51,), {}, "a window of 51 events is too large for a reference of 100 rows"),
        (GOOD, (51,), {}, "the largest possible window is 50"),
        (GOOD, (1,), {}, "window_sizes is [1]"),
        (GOOD, (), {}, "window_sizes is []"),
        (GOOD, (5, 5), {}, "window_sizes is [5, 5]"),
        (GOOD[:0], (5,), {}, "the reference is empty"),
        (GOOD[:, 0], (5,), {}, "the reference has shape (100,)"),
        (BAD, (5,), {}, "row 7 of the reference holds inf in column 1"),
        (np.full((100, 2), 3.0), (5,), {}, "all 100 rows are equal"),
        (np.repeat(GOOD[:2], [99, 1], axis=0), (5,), {}, "half of the pairs of rows are equal"),
        (np.zeros((12_001, 1)), (5,), {}, "12001 rows; at most 12000"),
        (GOOD, (5,), {"ert": 1.0}, "ert is 1.0"),
        (GOOD, (5,), {"ert": float("nan")}, "ert is nan"),
        (GOOD, (5,), {"ert": 1e7}, "lower n_bootstraps or ert"),
        (GOOD, (5,), {"n_bootstraps": 99}, "rest on at least 100"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_the_reason(
    reference, sizes, options, message
) -> None:
    with pytest.raises(ValueError) as raised:
        OnlineMMD.fit(reference, sizes, **{"ert": 20, "n_bootstraps": 500, **options})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (BAD, "row 7 of the batch holds inf in column 1"),
        (GOOD[:, :1], "1 features; the reference has 2"),
        (GOOD[0], "the batch has shape (2,)"),
    ],
)
def test_a_bad_batch_is_refused_and_leaves_no_trace(batch, message: str) -> None:
    detector = fitted(2, (10,))
    detector.update(GOOD[:30])
    before = detector.to_bytes()
    with pytest.raises(ValueError) as raised:
        detector.update(batch)
    assert message in str(raised.value)
    assert detector.to_bytes() == before


def test_an_empty_batch_is_no_event() -> None:
    detector = fitted(2, (10,))
    assert detector.update(np.empty((0, 2))).statistic.shape == (0, 1)
    assert detector.seen == 0


def test_foreign_bytes_are_refused() -> None:
    saved = fitted(2, (10,)).to_bytes()
    for data in (
        b"",
        b"nonsense",
        saved[:-5],
        saved.replace(b"driftline.online_mmd.v2", b"x" * 23),
    ):
        with pytest.raises(ValueError, match="are not a saved OnlineMMD"):
            OnlineMMD.from_bytes(data)
