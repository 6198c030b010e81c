"""A test of the share of categories that the reference never had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from .base import Effect, Outcome
from .cells import too_few
from .hypergeometric import more_often
from .profile import ABSENT, UNSEEN, CategoricalProfile, Kind, Profile
from .shares import category_counts, category_detail
from .windows import Window


class NewCategory:
    """Does a categorical feature bring values that the reference never had, more than is its way?

    A new airport, a misspelt code, another language of texts. `chi_squared` sees them too, but as
    one class among many; here they are all that counts. Blind to everything else.

    Some features always bring new values: names, long tails. How often is told by the reference
    itself: the values that it has once would each have been new, had that row come last. So k new ones
    among n values are compared with the reference's s singletons among m by Fisher's exact test,
    one-sided; with no singletons, as where the reference has one value only, that is k of n
    against 0 of m. A new value that comes again and
    again counts each time, as it should; for long tails and windows as large as the reference this
    makes p-values too small. Missing values are left out. The statistic is the share of new values.
    Cost: less than `chi_squared`.

    Source: Fisher (1922); Good (1953) for the singletons.

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"c": ["a"] * 60 + ["b"] * 40})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"c": ["a"] * 28 + ["b"] * 18 + ["c"] * 4})
    >>> [pane] = summarize(profile, columns, np.zeros(50, np.int64))
    >>> [[outcome]] = NewCategory().test(profile, bank.push(60_000, pane), [0])
    >>> outcome.statistic, round(outcome.p_value, 6), outcome.detail["unseen_sample"]
    (0.08, 0.011367, {'c': 4})
    """

    name: ClassVar[str] = "new_category"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"categorical", "boolean"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        return [[_test(profile, window, i) for i in features] for window in windows]


def _test(profile: Profile, window: Window, index: int) -> Outcome:
    f = profile.features[index]
    assert isinstance(f, CategoricalProfile)
    observed = category_counts(profile, window, index)
    detail = category_detail(f, window, index, observed)
    m, n = f.n - f.missing, int(observed.sum() - observed[len(f.categories) + ABSENT])
    singletons = int(np.count_nonzero(f.counts == 1))
    detail |= {"n_reference": m, "n_test": n}
    if singletons:
        detail["singletons"] = singletons
    none = too_few(window, index, detail, 1, "there")
    if none is not None:
        return none
    new = int(observed[len(f.categories) + UNSEEN])
    p = more_often(m, singletons, n, new)
    effect = Effect("share_shift", new / n, "share", 0.0, new / n, "(unseen)")
    if f.only is not None:
        effect = Effect("share_shift", -new / n, "share", 1.0, 1 - new / n, f.only)
    return Outcome(index, new / n, p, effect, detail=detail)
