"""Since when: change points between panes, on streams whose change is known. Panes are a minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from driftline.detectors import Columns, WindowBank, fit, summarize
from driftline.detectors.onset import STEPS, History, Onset
from driftline.schemas.units import parse_window

MINUTE = 60_000
PER_PANE = 40
Values = Callable[[np.random.Generator, int], Sequence[Any]]


def stream(
    values: Values, panes: int, *, reference: Sequence[Any], windows: Sequence[str], seed: int = 1
) -> tuple[WindowBank, History]:
    """The bank after `panes` panes of `values(rng, number of the pane)`, one feature `x`."""
    rng = np.random.default_rng(seed)
    profile, _ = fit({"x": reference})
    bank = WindowBank(profile, [parse_window(w) for w in windows], MINUTE, 10**10)
    for pane in range(panes):
        columns = Columns.of(profile, {"x": values(rng, pane)})
        starts = np.full(columns.n, pane * MINUTE)
        bank.push((pane + 1) * MINUTE, *(summarize(profile, columns, starts) or [None]))
    return bank, History(bank)


def normal(n: int = 3000) -> np.ndarray:
    return np.random.default_rng(7).normal(size=n)


def shifted(at: int, by: float, until: int = 10**9) -> Values:
    return lambda rng, pane: rng.normal(by * (at <= pane < until), 1, PER_PANE)


def of_window(bank: WindowBank, history: History, window: int, absent: bool = False) -> Onset:
    found = history.onset(0, absent=absent, window_start_ms=bank.windows[window].start_ms)
    assert found is not None
    return found


def test_a_shift_is_dated_to_its_pane_also_where_it_is_older_than_the_window() -> None:
    """
    0                    60        70    90 ✓      10m: [80, 90)    2h: [-30, 90)
    ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅
    """
    bank, history = stream(shifted(60, 1.0), 90, reference=normal(), windows=["10m", "2h"])
    for window in (0, 1):
        found = of_window(bank, history, window)
        assert abs(found.since_ms - 60 * MINUTE) <= MINUTE
        assert found.earliest_ms is not None
        assert found.earliest_ms <= 60 * MINUTE <= found.latest_ms
        assert found.latest_ms - found.earliest_ms <= 8 * MINUTE


def test_a_change_that_ended_is_not_the_beginning_of_the_next_one() -> None:
    """
    0     20        60          100   120 ✓    10m: the second one    2h: the one that weighs more
    ▁▁▁▁▁▁▇▇▇▇▇▇▇▇▇▇▁▁▁▁▁▁▁▁▁▁▁▁▇▇▇▇▇
    """

    def values(rng: np.random.Generator, pane: int) -> np.ndarray:
        return rng.normal(1.0 * (20 <= pane < 60 or pane >= 110), 1, PER_PANE)

    bank, history = stream(values, 120, reference=normal(), windows=["10m", "2h"])
    assert abs(of_window(bank, history, 0).since_ms - 110 * MINUTE) <= MINUTE
    assert abs(of_window(bank, history, 1).since_ms - 20 * MINUTE) <= MINUTE


def test_a_change_before_all_that_is_kept_has_no_earliest_time() -> None:
    bank, history = stream(shifted(0, 0.8), 60, reference=normal(), windows=["30m"])
    assert of_window(bank, history, 0) == Onset(30 * MINUTE, None, 31 * MINUTE)


def test_a_change_of_scale_or_of_shape_is_dated_too() -> None:
    def wider(rng: np.random.Generator, pane: int) -> np.ndarray:
        return rng.normal(0, 1.0 + 0.8 * (pane >= 45), PER_PANE)

    bank, history = stream(wider, 60, reference=normal(), windows=["1h"])
    assert abs(of_window(bank, history, 0).since_ms - 45 * MINUTE) <= 2 * MINUTE


def test_values_that_go_missing_are_dated_by_the_share_of_absent_ones() -> None:
    def values(rng: np.random.Generator, pane: int) -> np.ndarray:
        lost = rng.random(PER_PANE) < (0.3 if pane >= 40 else 0.02)
        return np.where(lost, np.nan, rng.normal(2.0 * (pane >= 20), 1, PER_PANE))

    bank, history = stream(values, 50, reference=normal(), windows=["10m", "1h"])
    assert abs(of_window(bank, history, 0, absent=True).since_ms - 40 * MINUTE) <= MINUTE
    # What the other values do is another question.
    assert abs(of_window(bank, history, 1).since_ms - 20 * MINUTE) <= MINUTE


@pytest.mark.parametrize("newcomer", ["b", "new", None])
def test_categories_known_new_and_missing_are_dated(newcomer: str | None) -> None:
    common = ["a"] * 60 + ["b"] * 20 + [f"rare{i}" for i in range(40)]

    def values(rng: np.random.Generator, pane: int) -> list[str | None]:
        share = 0.25 if pane >= 33 else 0.0
        return [
            newcomer if rng.random() < share else common[rng.integers(len(common))]
            for _ in range(PER_PANE)
        ]

    bank, history = stream(values, 45, reference=common * 20, windows=["1h"])
    assert abs(of_window(bank, history, 0).since_ms - 33 * MINUTE) <= 2 * MINUTE


def test_the_coarse_search_finds_what_the_full_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        at = 150 + 37 * seed
        bank, coarse = stream(
            shifted(at, 0.6), 420, reference=normal(), windows=["10m", "7h"], seed=seed
        )
        monkeypatch.setattr("driftline.detectors.onset.STEPS", 16)
        found = [of_window(bank, coarse, w) for w in (0, 1)]
        monkeypatch.setattr("driftline.detectors.onset.STEPS", 10**6)
        whole = History(bank)
        assert found[1] == of_window(bank, whole, 1)
        # How far the search goes back may differ by a step; what it finds then does not.
        assert found[0].since_ms == of_window(bank, whole, 0).since_ms
        monkeypatch.undo()
    assert STEPS == 256


def test_a_history_that_looks_late_or_often_says_the_same() -> None:
    """
    panes     ├───────────────── 400 ────────────────┤     kept: the last hour
    asked     ✓ ✓ ✓ ✓ ✓ ✓ every pane       or once, at the end; or with a long silence
    """
    rng = np.random.default_rng(3)
    profile, _ = fit({"x": normal()})
    bank = WindowBank(profile, [parse_window("5m"), parse_window("1h")], MINUTE, 10**10)
    often, seldom = History(bank), History(bank)
    for pane in range(400):
        values = rng.normal(0.7 * (pane % 150 > 100), 1, PER_PANE)
        columns = Columns.of(profile, {"x": values})
        start = 0 if pane < 5 else bank.windows[0].start_ms
        # Gaps in the stream, too.
        if pane % 7 != 3:
            [one] = summarize(profile, columns, np.full(PER_PANE, pane * MINUTE))
            bank.push((pane + 1) * MINUTE, one)
        else:
            bank.push((pane + 1) * MINUTE, None)
        found = often.onset(0, absent=False, window_start_ms=start)
        if pane % 90 == 0:
            assert found == seldom.onset(0, absent=False, window_start_ms=start)
        if pane % 50 == 0:
            assert found == History(bank).onset(0, absent=False, window_start_ms=start)


def test_a_window_without_values_has_no_onset() -> None:
    def values(rng: np.random.Generator, pane: int) -> list[float | None]:
        return [None] * 5 if pane >= 20 else rng.normal(size=5).tolist()

    bank, history = stream(values, 30, reference=normal(), windows=["5m"])
    assert history.onset(0, absent=False, window_start_ms=bank.windows[0].start_ms) is None
    assert of_window(bank, history, 0, absent=True).since_ms == 25 * MINUTE
    empty = WindowBank(bank.profile, [parse_window("5m")], MINUTE, 10**10)
    assert History(empty).onset(0, absent=False, window_start_ms=0) is None


def test_the_confidence_set_holds_the_truth_and_the_error_is_below_a_window() -> None:
    """60 streams of a shift by half a standard deviation; windows of 500 events."""
    profile, _ = fit({"x": normal()})
    errors, covered = [], 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        bank = WindowBank(profile, [parse_window("500 events")], MINUTE, 10**10)
        change = 1010.0 + seed
        for pane in range(40):
            number = pane * PER_PANE + np.arange(PER_PANE)
            x = rng.normal(size=PER_PANE) + 0.5 * (number >= change)
            columns = Columns.of(profile, {"x": x})
            bank.push(
                (pane + 1) * MINUTE, *summarize(profile, columns, np.full(PER_PANE, pane * MINUTE))
            )
        found = of_window(bank, History(bank), 0)
        true_ms = change / PER_PANE * MINUTE
        errors.append(abs(found.since_ms - true_ms) / MINUTE * PER_PANE)
        covered += (found.earliest_ms or 0) <= true_ms <= found.latest_ms
    assert np.median(errors) < 60
    assert covered >= 54
