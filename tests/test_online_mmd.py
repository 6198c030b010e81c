"""Online MMD: every statistic is the direct one, run lengths are those asked for, state survives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from driftline.detectors.kernels import unbiased_mmd2
from driftline.detectors.online_mmd import OnlineMMD, _block_maxima, _block_starts, _thresholds


def fitted(d: int, sizes: tuple[int, ...], n: int = 0, **options) -> OnlineMMD:
    reference = np.random.default_rng(d).normal(size=(n or 3 * max(sizes), d))
    return OnlineMMD.fit(reference, sizes, **{"ert": 50, "n_bootstraps": 700, **options})


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
    for k, w in enumerate((30, 70, 110)):
        assert np.isnan(statistic[: w - 1, k]).all()
        assert np.isnan(threshold[: w - 1, k]).all()
        assert not drifted[: w - 1, k].any()
        assert np.isfinite(statistic[w - 1 :, k]).all()
        for t in [w - 1, w, 250, 255, 256, 499, 520, 749, 760, 800, 900, 999]:
            window = stream[t - w + 1 : t + 1]
            direct = unbiased_mmd2(detector.reference_window, window, detector.bandwidth)
            assert statistic[t, k] == pytest.approx(direct, abs=1e-5)
    np.testing.assert_array_equal(drifted[109:], (statistic > threshold)[109:])
    assert not drifted[200:220].all()
    assert drifted[740].all()
    np.testing.assert_allclose(detector.window, stream[-110:], rtol=1e-12, atol=1e-9)


def test_rounding_does_not_add_up_over_a_long_stream() -> None:
    detector = fitted(4, (16,), n_bootstraps=500)
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
    assert not np.array_equal(one.fitted.thresholds, other.fitted.thresholds, equal_nan=True)
    np.testing.assert_array_equal(reference, before)
    # The reference window holds rows of the reference, each once.
    rows = {tuple(row) for row in reference}
    assert len({tuple(row) for row in one.reference_window} & rows) == 120 - 60


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
    assert np.isfinite(looks.statistic[19:]).all()
    assert looks.drifted[30:].all()


# Thresholds -------------------------------------------------------------------------------------


def test_blocks_begin_where_a_window_fills_and_double() -> None:
    assert _block_starts((10,)).tolist() == [9, 10, 11, 13]
    assert _block_starts((4, 10)).tolist() == [3, 4, 5, 9, 10, 11, 13]


def test_replicates_survive_each_block_as_a_memoryless_law_says() -> None:
    """On the simulated values themselves the share is met, and sizes share it equally."""
    rng = np.random.default_rng(8)
    sizes = (5, 20)
    starts = _block_starts(sizes)
    highest = rng.normal(size=(4_000, len(starts), 2))
    highest[:, :, 1] += 0.5 * highest[:, :, 0]
    highest[:, starts < 19, 1] = -np.inf
    thresholds = _thresholds(highest, sizes, 30.0)
    assert np.isnan(thresholds[:4]).all()
    assert np.isnan(thresholds[4:19, 1]).all()
    silent = np.ones(4_000, bool)
    for b, start in enumerate(starts):
        over = highest[silent, b] > np.nan_to_num(thresholds[start], nan=np.inf)
        if start >= 19:
            assert abs(over[:, 0].sum() - over[:, 1].sum()) <= 1
        silent[silent] = ~over.any(axis=1)
        stop = [*starts[1:], 40][b]
        assert silent.sum() == pytest.approx(4_000 * (1 - 1 / 30) ** (stop - 4), abs=2)


def test_simulated_maxima_are_those_of_direct_statistics() -> None:
    """One replicate, done again by hand from the same draw."""
    rng = np.random.default_rng(9)
    rows = rng.normal(size=(30, 2))
    kernel = np.exp(-0.5 * ((rows[:, None] - rows[None]) ** 2).sum(axis=2)).astype(np.float32)
    np.fill_diagonal(kernel, 0.0)
    highest = _block_maxima(kernel, (4, 8), 1, np.random.default_rng(10))[0]
    order = np.random.default_rng(10).permutation(30)
    stream, reference = rows[order[:16]], rows[order[16:]]
    starts = _block_starts((4, 8))
    for k, w in enumerate((4, 8)):
        for start, stop, found in zip(starts, [*starts[1:], 16], highest[:, k], strict=True):
            direct = [
                unbiased_mmd2(reference, stream[t - w + 1 : t + 1], 1.0)
                for t in range(start, stop)
                if t >= w - 1
            ]
            assert found == pytest.approx(max(direct, default=-np.inf), abs=1e-5)


@pytest.mark.parametrize("sizes", [(20,), (8, 20)], ids=["one size", "two sizes"])
def test_first_alarms_come_at_the_expected_run_time(sizes: tuple[int, ...]) -> None:
    """Fresh references and streams, d = 4: the mean run length within 10 % + 3 standard errors,
    and as many silent after one ERT as a memoryless law leaves."""
    ert, streams = 50, 10
    means, lengths = [], []
    for r in range(30):
        rng = np.random.default_rng([11, r])
        detector = OnlineMMD.fit(
            rng.normal(size=(80, 4)), sizes, ert=ert, seed=r, n_bootstraps=1_000
        )
        found = []
        for _ in range(streams):
            detector.reset()
            alarm = detector.update(rng.normal(size=(20 * ert, 4))).drifted.any(axis=1)
            assert alarm.any()
            found.append(int(alarm.argmax()) - min(sizes) + 2)
        means.append(np.mean(found))
        lengths += found
    error = float(np.std(means, ddof=1)) / len(means) ** 0.5
    assert abs(np.mean(means) - ert) < 0.1 * ert + 3 * error
    silent = np.sum(np.array(lengths) > ert)
    # Streams of one reference go together; a band for a third as many is wide enough.
    low, high = binom.ppf([0.001, 0.999], 100, (1 - 1 / ert) ** ert)
    assert low <= silent / 3 <= high


def test_drift_is_found_soon() -> None:
    rng = np.random.default_rng(12)
    detector = OnlineMMD.fit(rng.normal(size=(240, 16)), (20, 60), ert=1_000, n_bootstraps=1_500)
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
        (GOOD, (34,), {}, "a window of 34 events is too large for a reference of 100 rows"),
        (GOOD, (34,), {}, "the largest possible window is 33"),
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
        (GOOD, (5,), {"ert": 100_000}, "raise n_bootstraps to"),
        (GOOD, (5, 33), {"ert": 3}, "until the window of 33 events is full, 28 looks after"),
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
        saved.replace(b"driftline.online_mmd.v1", b"x" * 23),
    ):
        with pytest.raises(ValueError, match="are not a saved OnlineMMD"):
            OnlineMMD.from_bytes(data)
