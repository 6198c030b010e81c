"""Cases in which detectors of this field are known to go wrong, silently or loudly.

Each section names what was seen elsewhere; the tests say what happens here instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from driftline.detectors import (
    Columns,
    Kind,
    Outcome,
    Profile,
    WindowBank,
    detectors,
    fit,
    summarize,
)
from driftline.detectors.profile import column_kind
from driftline.schemas.errors import ProfileError
from driftline.schemas.units import TimeWindow

PANE_MS = 60_000
Values = Sequence[Any] | npt.NDArray[Any]


def history(
    profile: Profile, detector: str, slices: Sequence[Mapping[str, Values]], size: int = 1
) -> list[Outcome | None]:
    """Outcome of the first feature after every slice, in a window of `size` slices; None where no
    window was due."""
    size_ms = size * PANE_MS
    bank = WindowBank(profile, [TimeWindow(size_ms, None, "w")], PANE_MS, size_ms)
    said: list[Outcome | None] = []
    for slot, columns in enumerate(slices):
        chosen = Columns.of(profile, columns)
        panes = summarize(profile, chosen, np.full(chosen.n, slot * PANE_MS, np.int64))
        due = bank.push((slot + 1) * PANE_MS, panes[0] if panes else None)
        outcomes = [outcome for [outcome] in detectors()[detector].test(profile, due, [0])]
        said.append(outcomes[0] if outcomes else None)
    return said


def outcome_of(detector: str, kind: Kind, reference: Values, window: Values) -> Outcome:
    profile, _ = fit({"f": reference}, {"f": kind})
    [outcome] = history(profile, detector, [{"f": window}])
    assert outcome is not None
    return outcome


def p_of(detector: str, kind: Kind, reference: Values, window: Values) -> float:
    p_value = outcome_of(detector, kind, reference, window).p_value
    assert p_value is not None
    return p_value


# Elsewhere: a NaN in a window makes p = NaN, and so "no drift"; or it is dropped without a word.


@pytest.mark.parametrize("strange", [None, math.nan, math.inf, -math.inf])
def test_unusable_value_does_not_hide_a_drift(strange: float | None) -> None:
    rng = np.random.default_rng(1)
    reference, moved = rng.normal(size=500), rng.normal(3, 1, 100)
    outcome = outcome_of("ks", "numeric", reference, [*moved.tolist(), strange])
    expected = stats.ks_2samp(reference, moved, method="exact")
    assert outcome.p_value == pytest.approx(expected.pvalue, rel=1e-9, abs=0)
    assert outcome.significant(1e-6)
    # It is mentioned, and a test of its own is there for it.
    assert outcome.detail["missing" if strange is None else "non_finite"] == 1
    rate = outcome_of("missing_rate", "numeric", reference, [*moved.tolist(), *[strange] * 50])
    assert rate.significant(1e-6)


# Elsewhere: after one NaN or infinity a detector never sees a later shift of 3 sd.


@pytest.mark.parametrize("poison", [None, math.nan, math.inf, -math.inf, 1e308, -1e308])
@pytest.mark.parametrize("size", [1, 3])
def test_one_bad_value_does_not_poison_what_follows(poison: float | None, size: int) -> None:
    rng = np.random.default_rng(2)
    profile, _ = fit({"f": rng.normal(size=400)})
    quiet = [rng.normal(size=60).tolist() for _ in range(5)]
    moved = [rng.normal(3, 1, 60).tolist() for _ in range(3)]
    clean = [{"f": s} for s in [*quiet, *moved]]
    poisoned = [{"f": [*quiet[0], poison]}, *clean[1:]]
    expected, found = history(profile, "ks", clean, size), history(profile, "ks", poisoned, size)
    # Every window that does not hold the value itself any more is as if it had never come.
    assert found[size:] == expected[size:]
    for outcome in found[-2:]:
        assert outcome is not None
        assert outcome.significant(1e-6)
        assert outcome.effect is not None
        assert outcome.effect.value > 1


@pytest.mark.parametrize("poison", [None, math.nan, "never seen before", ""])
def test_one_bad_category_does_not_poison_what_follows(poison: Any) -> None:
    profile, _ = fit({"f": ["a", "b", "b"] * 100})
    clean = [{"f": ["a", "b", "b"] * 20} for _ in range(3)] + [{"f": ["a", "a", "b"] * 20}]
    poisoned = [{"f": ["a", "b", "b"] * 20 + [poison]}, *clean[1:]]
    expected = history(profile, "chi_squared", clean)
    found = history(profile, "chi_squared", poisoned)
    assert found[1:] == expected[1:]
    assert found[-1] is not None
    assert found[-1].significant(1e-5)


# Elsewhere: tied data alarm always, or one window in a few.


def alarms_without_drift(detector: str, kind: Kind, draw: Any, alpha: float) -> int:
    rng = np.random.default_rng(3)
    return sum(
        outcome_of(detector, kind, draw(rng, 600), draw(rng, 150)).significant(alpha)
        for _ in range(400)
    )


# Of 400 looks without drift at level 0.05, 20 alarm in the mean; 4 to 43 in all but 1 of 100,000.
FEWEST, MOST = (int(q) for q in stats.binom.ppf([5e-6, 1 - 5e-6], 400, 0.05))


@pytest.mark.parametrize(
    "draw",
    [
        lambda r, n: r.integers(0, 2, n),
        lambda r, n: r.poisson(0.3, n),
        lambda r, n: r.poisson(4, n),
        lambda r, n: np.round(r.normal(size=n), 1),
    ],
    ids=["Bernoulli", "rare counts", "counts", "rounded"],
)
def test_ks_on_ties_keeps_its_level(draw: Any) -> None:
    """It may stay below it: with ties the test is conservative."""
    assert alarms_without_drift("ks", "numeric", draw, 0.05) <= MOST


def test_ks_without_ties_has_its_level() -> None:
    assert (
        FEWEST <= alarms_without_drift("ks", "numeric", lambda r, n: r.normal(size=n), 0.05) <= MOST
    )


@pytest.mark.parametrize(
    "shares", [[0.5, 0.5], [0.4, 0.3, 0.2, 0.1], [0.9, 0.05, 0.04, 0.01]], ids=str
)
def test_chi_squared_has_its_level(shares: list[float]) -> None:
    names = np.array(list("abcd"))[: len(shares)]
    n = alarms_without_drift(
        "chi_squared", "categorical", lambda r, n: r.choice(names, n, p=shares), 0.05
    )
    assert FEWEST <= n <= MOST


@pytest.mark.parametrize(
    "shares", [1.0 / np.arange(1, 201), np.ones(60)], ids=["most of them rare", "all of them rare"]
)
def test_chi_squared_with_rare_classes_keeps_its_level(shares: npt.NDArray[np.float64]) -> None:
    """Where the limit law fails: categories that are expected less than once, or twice."""
    names = np.array([f"c{i}" for i in range(len(shares))])
    shares = shares / shares.sum()
    n = alarms_without_drift(
        "chi_squared", "categorical", lambda r, n: r.choice(names, n, p=shares), 0.05
    )
    assert n <= MOST


# Elsewhere: one row of a category never seen before is drift; or a NaN among categories raises.


@pytest.mark.parametrize("n", [20, 100, 500, 5000])
@pytest.mark.parametrize("n_reference", [40, 5000, 200_000])
def test_one_unseen_row_is_no_drift(n_reference: int, n: int) -> None:
    reference = ["a", "b"] * (n_reference // 2)
    window = ["a"] * (n // 2) + ["b"] * (n // 2 - 1) + ["new"]
    outcome = outcome_of("chi_squared", "categorical", reference, window)
    assert not outcome.significant(0.05)
    assert outcome.detail["unseen"] == 1
    assert outcome.detail["unseen_sample"] == {"new": 1}


@pytest.mark.parametrize("n", [200, 500, 5000])
@pytest.mark.parametrize("n_reference", [5000, 200_000])
@pytest.mark.parametrize("one_name", [True, False], ids=["one category", "many categories"])
def test_many_unseen_rows_are_drift(n_reference: int, n: int, one_name: bool) -> None:
    """However large the reference is: one that is 400 times the window expects them never."""
    n_new = n // 10
    strangers = ["new"] * n_new if one_name else [f"new{i}" for i in range(n_new)]
    reference = ["a", "b"] * (n_reference // 2)
    window = ["a", "b"] * ((n - n_new) // 2) + strangers
    outcome = outcome_of("chi_squared", "categorical", reference, window)
    assert outcome.significant(1e-6)
    assert outcome.effect is not None
    assert outcome.effect.category == "(unseen)"
    assert outcome.effect.window == pytest.approx(0.1)
    assert len(outcome.detail["unseen_sample"]) == min(5, 1 if one_name else n_new)


@pytest.mark.parametrize("n", [100, 200, 240, 300])
def test_drift_is_seen_where_every_category_is_rare(n: int) -> None:
    """50 categories, each expected 2 to 6 times: no test of single ones, but one of groups."""
    rng = np.random.default_rng(8)
    names = [f"c{i}" for i in range(50)]
    reference = rng.choice(names, 10_000).tolist()
    windows = {
        "alike": rng.choice(names, n).tolist(),
        "one category": ["c7"] * n,
        "half of the categories": rng.choice(sorted(names)[:25], n).tolist(),
    }
    drifted = {
        what: outcome_of("chi_squared", "categorical", reference, window).significant(1e-4)
        for what, window in windows.items()
    }
    assert drifted == {"alike": False, "one category": True, "half of the categories": True}


def test_category_that_was_rare_and_is_not_any_more_is_drift() -> None:
    reference = ["a"] * 25_000 + ["b"] * 24_990 + ["rare"] * 10
    for n_rare, drifted in ((1, False), (25, True)):
        window = ["a", "b"] * ((500 - n_rare) // 2) + ["rare"] * n_rare
        outcome = outcome_of("chi_squared", "categorical", reference, window)
        assert outcome.significant(1e-4) == drifted


def test_nan_and_none_are_one_missing_category() -> None:
    with_none = ["a", "b", None] * 50
    with_nan = ["a", "b", math.nan] * 50
    profile, _ = fit({"f": with_none}, {"f": "categorical"})
    assert fit({"f": with_nan}, {"f": "categorical"})[0].id == profile.id
    outcomes = history(profile, "chi_squared", [{"f": with_none}, {"f": with_nan}])
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] is not None
    assert outcomes[0].p_value == 1.0
    assert outcomes[0].detail["missing"] == 50


# Elsewhere: an integer reference and a window of strings is p = 0, silently; strings fed to a KS
# test bring a p-value back.


@pytest.mark.parametrize(
    ("value", "shown"),
    [("seven", "str 'seven'"), ("7", "str '7'"), (True, "bool 'True'"), ([7], "list '[7]'")],
)
def test_what_is_no_number_is_refused_by_a_numeric_feature(value: Any, shown: str) -> None:
    profile, _ = fit({"amount": list(range(50))})
    with pytest.raises(TypeError) as caught:
        Columns.of(profile, {"amount": [1, 2.5, value]})
    assert (
        str(caught.value) == f"feature 'amount' is numeric, but row 2 holds {shown}, not a number"
    )
    with pytest.raises(ProfileError) as refused:
        fit({"amount": [*range(50), value]}, {"amount": "numeric"})
    assert f"feature 'amount': kind numeric, but row 50 holds {shown}" in str(refused.value)


def test_array_of_strings_is_refused_by_a_numeric_feature() -> None:
    profile, _ = fit({"amount": np.arange(50)})
    with pytest.raises(TypeError, match="row 0 holds str_ 'a', not a number"):
        Columns.of(profile, {"amount": np.array(["a", "b"])})


def test_codes_written_as_text_are_the_same_categories() -> None:
    """A change of spelling between producers is not drift."""
    reference = [1, 2, 3, 3] * 50
    for spelled in (["1", "2", "3", "3"] * 20, [1.0, 2.0, 3.0, 3.0] * 20):
        assert p_of("chi_squared", "categorical", reference, spelled) == 1.0
    assert p_of("chi_squared", "categorical", reference, ["1", "2", "3", "4"] * 20) < 1e-6


# Elsewhere: constant against constant has p = 1.5e-8, or divides by zero, and a constant that comes
# alive is not looked at.


CONSTANTS: list[tuple[Kind, Any, Any]] = [
    ("numeric", 3, "3"), ("numeric", -0.0, "0"), ("numeric", 1.0, "1"), ("numeric", 0.25, "0.25"),
    ("numeric", 2**60, "1.152921504606847e+18"), ("categorical", "a", "a"), ("boolean", True, "true"),
    ("boolean", False, "false"),
]  # fmt: skip


def others_than(value: Any, n: int) -> list[Any]:
    if isinstance(value, bool):
        return [not value] * n
    return [f"other {i % 3}" for i in range(n)] if isinstance(value, str) else [value + 1000.0] * n


def detectors_of(profile: Profile) -> list[str]:
    kind = profile.features[0].kind
    return [name for name, d in sorted(detectors().items()) if kind in d.kinds]


@pytest.mark.parametrize(("kind", "value", "shown"), CONSTANTS)
def test_constant_reference_is_watched_for_any_other_value(
    kind: Kind, value: Any, shown: str
) -> None:
    reference = [value] * 400
    profile, left_out = fit({"f": reference}, {"f": kind})
    assert left_out == ()
    [f] = profile.categorical
    assert (f.only, f.counts.tolist(), f.missing) == (shown, [400], 0)
    assert column_kind(f) == kind
    inferred, _ = fit({"f": reference, "g": [1, 2] * 200})
    assert next(f for f in inferred.categorical if f.name == "f").only == shown
    assert Profile.from_parts(*profile.to_parts()).id == profile.id
    names = detectors_of(profile)
    assert {"chi_squared", "new_category", "psi", "jensen_shannon", "missing_rate"} <= {*names}
    assert ("fisher" in names) == (kind == "boolean")
    for name in names:
        quiet = outcome_of(name, kind, reference, [value] * 100)
        if name == "shiryaev_roberts":  # never quite sure that nothing moved
            assert quiet.deciding_p is not None
            assert quiet.deciding_p > 0.8
        else:
            assert (quiet.deciding_p, quiet.statistic, quiet.reason) == (1.0, 0.0, None), name
        one = outcome_of(name, kind, reference, [value] * 99 + others_than(value, 1))
        assert one.deciding_p is not None
        assert one.deciding_p > 0.1, name
    for name in {"chi_squared", "new_category", "fisher"} & {*names}:
        some = outcome_of(name, kind, reference, [value] * 88 + others_than(value, 12))
        assert some.deciding_p is not None
        assert some.deciding_p < 1e-5, name
        assert some.effect is not None
        if name != "fisher":
            assert some.effect.category == shown
            assert (some.effect.reference, some.effect.window) == (1.0, 0.88)
    for name in {*names} - {"missing_rate"}:
        alive = outcome_of(name, kind, reference, others_than(value, 100))
        assert alive.deciding_p is not None
        assert alive.deciding_p < 1e-20, name


def test_chi_squared_of_a_constant_is_scipys() -> None:
    outcome = outcome_of("chi_squared", "numeric", [5] * 400, [5] * 250 + [6, 7] * 30 + [None] * 40)
    table = [[400, 0, 0], [250, 60, 40]]
    expected = stats.chi2_contingency(table, correction=False)
    assert outcome.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert outcome.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert outcome.detail["unseen_sample"] == {"6": 30, "7": 30}
    assert outcome.detail["missing"] == 40
    # All that differ, as one share.
    assert outcome.effect is not None
    assert (outcome.effect.category, outcome.effect.window) == ("5", pytest.approx(250 / 350))


def test_missing_values_beside_a_constant_are_a_class_of_their_own() -> None:
    column = [5.0, 5.0, math.nan, None] * 25 + [math.inf] * 5
    profile, _ = fit({"f": column}, {"f": "numeric"})
    [f] = profile.categorical
    assert (f.categories, f.counts.tolist(), f.missing, f.constant) == (
        ("5", "inf"),
        [50, 5],
        50,
        5.0,
    )
    assert p_of("chi_squared", "numeric", column, column) == 1.0
    gone = outcome_of("chi_squared", "numeric", [5.0] * 400, [5.0] * 80 + [None] * 20)
    assert gone.effect is not None
    assert gone.effect.category == "(missing)"


def test_what_is_no_number_is_refused_by_a_constant_one_too() -> None:
    profile, _ = fit({"f": [5] * 60}, {"f": "numeric"})
    for strange in ("6", True):
        with pytest.raises(TypeError, match="feature 'f' is numeric, but row 1 holds"):
            Columns.of(profile, {"f": [5, strange]})


def test_zeros_of_both_signs_are_constant() -> None:
    profile, _ = fit({"f": [0.0, -0.0] * 30}, {"f": "numeric"})
    assert [f.only for f in profile.categorical] == ["0"]
    assert p_of("chi_squared", "numeric", [0.0] * 60, [-0.0, 0, 0.0] * 20) == 1.0


def test_constant_window_is_tested_like_any_other() -> None:
    nearly = [5.0] * 59 + [6.0]
    assert p_of("ks", "numeric", nearly, [5.0] * 60) == pytest.approx(1.0)
    assert p_of("ks", "numeric", nearly, [6.0] * 60) < 1e-9
    assert p_of("chi_squared", "categorical", ["a"] * 300 + ["b"] * 300, ["a"] * 60) < 1e-9


# Elsewhere: 1e9 + N(0, 1) cancels.


def test_large_offset_changes_nothing() -> None:
    """Multiples of 2**-20, so that adding 1e9 is exact and any difference is ours."""
    rng = np.random.default_rng(4)
    reference = np.round(rng.normal(size=800) * 2**20) / 2**20
    window = np.round(rng.normal(0.5, 1, 300) * 2**20) / 2**20
    plain = outcome_of("ks", "numeric", reference, window)
    offset = outcome_of("ks", "numeric", 1e9 + reference, 1e9 + window)
    assert (offset.statistic, offset.p_value) == (plain.statistic, plain.p_value)
    assert plain.effect is not None
    assert offset.effect is not None
    assert offset.effect.value == pytest.approx(plain.effect.value, abs=1e-5)
    assert offset.effect.window - 1e9 == pytest.approx(plain.effect.window, abs=1e-5)
    assert plain.effect.value == pytest.approx(0.5, abs=0.2)


# Elsewhere: negative values raise.


def test_sign_of_the_values_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    reference, window = rng.normal(5, 1, 400), rng.normal(5.4, 1, 200)
    up = outcome_of("ks", "numeric", reference, window)
    down = outcome_of("ks", "numeric", -reference, -window)
    assert (up.statistic, up.p_value) == (down.statistic, down.p_value)
    assert up.effect is not None
    assert down.effect is not None
    assert down.effect.value == pytest.approx(-up.effect.value, abs=1e-5)


# Elsewhere: an empty window is an error about shapes, a division by zero or NaN.


@pytest.mark.parametrize(
    ("detector", "values"),
    [
        ("ks", [1.0, 2.0] * 30),
        ("missing_rate", [1.0, 2.0, None] * 20),
        ("chi_squared", ["a", "b"] * 30),
    ],
)
def test_empty_window_says_so_once_and_the_next_is_tested(detector: str, values: Values) -> None:
    profile, _ = fit({"f": values})
    full, empty = {"f": values}, {"f": []}
    said = history(profile, detector, [empty, full, empty, empty, full])
    before, first, then, after, last = said
    # No window before the first event, none after the one that became empty.
    assert before is None
    assert after is None
    assert then is not None
    assert (then.statistic, then.p_value) == (None, None)
    assert then.reason == "the window is empty"
    assert not then.significant(1.0)
    assert first == last
    assert first is not None
    assert first.p_value == 1.0


def test_window_without_a_usable_value_says_so() -> None:
    outcome = outcome_of("ks", "numeric", range(50), [None, math.nan, math.inf])
    assert (outcome.statistic, outcome.p_value) == (None, None)
    assert outcome.reason == "none of its 3 values is a finite number"


# Elsewhere: a float64 event on a float32 reference is a RuntimeError.


def test_float64_events_on_a_float32_reference() -> None:
    rng = np.random.default_rng(6)
    reference = rng.normal(size=500).astype(np.float32)
    window = rng.normal(0.3, 1, 200)
    for column in (window, window.astype(np.float32), window.tolist()):
        outcome = outcome_of("ks", "numeric", reference, column)
        expected = stats.ks_2samp(reference, np.asarray(column), method="exact")
        assert outcome.statistic == pytest.approx(expected.statistic, rel=1e-9)
        assert outcome.p_value == pytest.approx(expected.pvalue, rel=1e-9)


# Elsewhere: defaults silently keep one row of the reference.


def test_every_reference_row_is_used_or_the_reference_is_refused() -> None:
    assert outcome_of("ks", "numeric", range(800), range(200)).detail["n_reference"] == 800
    few: list[tuple[Kind, list[Any], str]] = [
        ("numeric", [*range(19), None, math.nan, math.inf], "only 19 finite values"),
        ("categorical", [*("ab" * 9), "a", None, None], "only 19 values"),
        ("numeric", [None, math.nan] * 30, "all of its 60 values are missing or not finite"),
        ("boolean", [None] * 60, "all of its 60 values are missing"),
    ]
    for kind, values, reason in few:
        with pytest.raises(ProfileError, match="feature 'f': ") as caught:
            fit({"f": values}, {"f": kind})
        assert reason in str(caught.value)
