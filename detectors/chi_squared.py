"""The chi-squared test of homogeneity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import special

from .base import Effect, Outcome
from .profile import ABSENT, UNSEEN, CategoricalProfile, Kind, Profile
from .windows import Window

# A class expected fewer times than this in either sample makes the limit law unsafe (Cochran 1954).
FEWEST_EXPECTED = 5.0


class ChiSquared:
    """Are the categories of a feature as frequent as in the reference?

    Pearson's X² on the table reference × window, without Yates' correction, at (classes - 1) degrees
    of freedom. Values the reference never saw form one class, missing values one class, a class
    empty in both samples is left out. Choose it for categories and booleans; with very many
    categories it dilutes a change in a few of them.

    X² has its limit law only where no class is rare: one row of a new category among 500 would be
    "p = 1e-5". So where a class is expected fewer than 5 times in either sample, drift is called only
    if the table with its rare classes pooled says so too (`detail.pooled`); statistic and p-value
    stay those of the whole table.

    Source: Pearson (1900); Cochran (1954) for rare classes.

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"c": ["a"] * 60 + ["b"] * 40})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"c": ["a"] * 40 + ["b"] * 60})
    >>> [pane] = summarize(profile, columns, np.zeros(100, np.int64))
    >>> [[outcome]] = ChiSquared().test(profile, bank.push(60_000, pane), [0])
    >>> round(outcome.statistic, 12), round(outcome.p_value, 12), outcome.effect.category
    (8.0, 0.004677734981, 'a')
    """

    name: ClassVar[str] = "chi_squared"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"categorical", "boolean"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        return [[_test(profile, window, index) for index in features] for window in windows]


def _test(profile: Profile, window: Window, index: int) -> Outcome:
    f = profile.features[index]
    assert isinstance(f, CategoricalProfile)
    observed = window.feature(index).astype(np.float64)
    n = int(observed.sum())
    n_categories = len(f.categories)
    unseen, missing = int(observed[n_categories + UNSEEN]), int(observed[n_categories + ABSENT])
    detail: dict[str, object] = {"n_reference": f.n, "n_test": n}
    if missing:
        detail["missing"] = missing
    if unseen:
        detail["unseen"] = unseen
        detail["unseen_sample"] = window.unseen(index)
    if n == 0:
        return Outcome(index, None, None, reason="the window is empty", detail=detail)
    reference = np.append(f.counts, [0, f.missing]).astype(np.float64)
    statistic, degrees, p = homogeneity(reference, observed)
    confirmed = None
    pooled = pool_rare(reference, observed)
    if pooled is not None:
        _, pooled_degrees, confirmed = homogeneity(*pooled)
        detail["pooled"] = {"classes": len(pooled[0]), "p_value": confirmed}
        if pooled_degrees == 0:
            confirmed = 1.0
    detail["degrees_of_freedom"] = degrees
    return Outcome(index, statistic, p, _effect(f, reference, observed), None, confirmed, detail)


def homogeneity(
    reference: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]
) -> tuple[float, int, float]:
    """(X², degrees of freedom, p) of two rows of counts, what scipy's
    `chi2_contingency([reference, observed], correction=False)` gives; (0, 0, 1) for one class."""
    total = reference + observed
    kept = total > 0
    if not kept.all():
        reference, observed, total = reference[kept], observed[kept], total[kept]
    degrees = len(total) - 1
    if degrees < 1:
        return 0.0, 0, 1.0
    n_reference, n_observed = float(reference.sum()), float(observed.sum())
    share = n_observed / (n_reference + n_observed)
    expected = total * share
    expected_reference = total * (n_reference / (n_reference + n_observed))
    statistic = float(
        ((observed - expected) ** 2 / expected).sum()
        + ((reference - expected_reference) ** 2 / expected_reference).sum()
    )
    return statistic, degrees, float(special.chdtrc(degrees, statistic))


def pool_rare(
    reference: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """The table with its rare classes as one, None where no class is rare.

    Rarest first, classes join the pool until it is itself expected often enough in both samples.
    """
    total = reference + observed
    n_reference, n_observed = float(reference.sum()), float(observed.sum())
    smaller_share = min(n_reference, n_observed) / (n_reference + n_observed)
    expected = total * smaller_share
    kept = np.flatnonzero(total > 0)
    if not bool((expected[kept] < FEWEST_EXPECTED).any()):
        return None
    order = kept[np.argsort(expected[kept], kind="stable")]
    n_rare = int((expected[order] < FEWEST_EXPECTED).sum())
    while n_rare < len(order) and expected[order[:n_rare]].sum() < FEWEST_EXPECTED:
        n_rare += 1
    rare, rest = order[:n_rare], order[n_rare:]
    return (
        np.append(reference[rest], reference[rare].sum()),
        np.append(observed[rest], observed[rare].sum()),
    )


def _effect(
    f: CategoricalProfile,
    reference: npt.NDArray[np.float64],
    observed: npt.NDArray[np.float64],
) -> Effect:
    """The class whose share moved most."""
    before, now = reference / reference.sum(), observed / observed.sum()
    most = int(np.abs(now - before).argmax())
    names = (*f.categories, "(unseen)", "(missing)")
    return Effect(
        "share_shift", float(now[most] - before[most]), "share", float(before[most]),
        float(now[most]), names[most],
    )  # fmt: skip
