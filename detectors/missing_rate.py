"""A test of the share of values that are missing or not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from .base import Effect, Outcome
from .chi_squared import FEWEST_EXPECTED, homogeneity
from .hypergeometric import fisher
from .layout import layout_of
from .profile import ABSENT, CATEGORICAL_EXTRA, FeatureProfile, Kind, NumericProfile, Profile
from .windows import Window


class MissingRate:
    """Does a feature come without a usable value as often as in the reference?

    The tests of a distribution look at the values that are there; a sensor that falls silent, or a
    pipeline that begins to send NaN, they cannot see. Missing and non-finite values together are
    compared with the reference's in a 2 × 2 table: by chi-squared, or by Fisher's exact test where
    a cell is expected fewer than 5 times (`detail.method`); the statistic is the difference of the
    shares. A categorical feature's missing values are one class of `chi_squared`, too; among many
    classes this test sees them better.

    Source: Fisher (1922), Pearson (1900); Cochran (1954) for the choice between them.

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"x": list(range(100))})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"x": [1.0] * 90 + [None] * 10})
    >>> [pane] = summarize(profile, columns, np.zeros(100, np.int64))
    >>> [[outcome]] = MissingRate().test(profile, bank.push(60_000, pane), [0])
    >>> outcome.statistic, round(outcome.p_value, 6), outcome.detail["method"]
    (0.1, 0.001177, 'chi_squared')
    """

    name: ClassVar[str] = "missing_rate"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric", "categorical", "boolean"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        rows = [(window, window.absent()) for window in windows]
        return [
            [_test(profile.features[i], window, i, _absent(profile, window, i, absent))
             for i in features]
            for window, absent in rows
        ]  # fmt: skip


def _absent(profile: Profile, window: Window, index: int, numeric: list[list[int]]) -> int:
    if index < profile.n_numeric:
        return sum(numeric[index])
    cell = profile.offsets[index + 1] - CATEGORICAL_EXTRA + ABSENT
    return int(window.store[layout_of(profile).position[cell]])


def _test(f: FeatureProfile, window: Window, index: int, absent: int) -> Outcome:
    n = window.events
    absent_before = f.absent if isinstance(f, NumericProfile) else f.missing
    n_reference = f.n + f.absent if isinstance(f, NumericProfile) else f.n
    detail: dict[str, object] = {"n_reference": n_reference, "n_test": n}
    if n == 0:
        return Outcome(index, None, None, reason="the window is empty", detail=detail)
    before, now = absent_before / n_reference, absent / n
    p, detail["method"] = _p_value(n_reference, absent_before, n, absent)
    effect = Effect("share_shift", now - before, "share", before, now, "(missing)")
    return Outcome(index, now - before, p, effect, detail=detail)


def _p_value(n_reference: int, absent_before: int, n: int, absent: int) -> tuple[float, str]:
    if absent_before + absent == 0:
        return 1.0, "chi_squared"
    total = n_reference + n
    rarer = min(absent_before + absent, total - absent_before - absent)
    if rarer * min(n_reference, n) / total < FEWEST_EXPECTED:
        return fisher(n_reference, absent_before, n, absent), "fisher"
    reference = np.array([n_reference - absent_before, absent_before], np.float64)
    observed = np.array([n - absent, absent], np.float64)
    return homogeneity(reference, observed)[2], "chi_squared"
