"""Fisher's exact test, for booleans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from .base import Effect, Outcome
from .cells import too_few
from .hypergeometric import fisher
from .profile import UNSEEN, CategoricalProfile, Kind, Profile
from .shares import category_counts, category_detail
from .windows import Window


class Fisher:
    """Is a boolean feature true as often as in the reference?

    Fisher's exact test on the 2 × 2 table of true and false, reference against window:
    `scipy.stats.fisher_exact`, two-sided. Choose it instead of `chi_squared` where one of the two
    is rare (fraud, an error flag) or windows are small: exact whatever the counts, and so
    conservative. Missing values and what is neither true nor false are left out and counted in
    `detail`; `missing_rate` and `new_category` test them. Where the reference knows only one of the
    two, all else that comes counts as the other. The statistic is the difference of the
    shares of true. Cost: more than `chi_squared` for counts it has not met before.

    Source: Fisher (1922), Irwin (1935).

    >>> import numpy as np
    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"b": [True] * 2 + [False] * 98})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"b": [True] * 6 + [False] * 44})
    >>> [pane] = summarize(profile, columns, np.zeros(50, np.int64))
    >>> [[outcome]] = Fisher().test(profile, bank.push(60_000, pane), [0])
    >>> round(outcome.statistic, 3), round(outcome.p_value, 6)
    (0.1, 0.016964)
    """

    name: ClassVar[str] = "fisher"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"boolean"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        return [[_test(profile, window, i) for i in features] for window in windows]


def _test(profile: Profile, window: Window, index: int) -> Outcome:
    f = profile.features[index]
    assert isinstance(f, CategoricalProfile)
    observed = category_counts(profile, window, index)
    detail = category_detail(f, window, index, observed)
    known = dict(zip(f.categories, observed.tolist(), strict=False))
    before = dict(zip(f.categories, f.counts.tolist(), strict=True))
    if len(f.categories) == 1:
        other = "false" if "true" in known else "true"
        known[other], before[other] = observed[len(f.categories) + UNSEEN], f.unseen
    m, n = sum(before.values()), int(sum(known.values()))
    detail |= {"n_reference": m, "n_test": n}
    none = too_few(window, index, detail, 1, "true or false")
    if none is not None:
        return none
    true_before, true_now = before["true"], int(known["true"])
    p = fisher(m, true_before, n, true_now)
    shares = true_before / m, true_now / n
    difference = shares[1] - shares[0]
    effect = Effect("share_shift", difference, "share", *shares, "true")
    return Outcome(index, difference, min(1.0, p), effect, detail=detail)
