"""The chi-squared test of homogeneity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import special

from .base import Effect, Outcome
from .hypergeometric import fisher
from .layout import layout_of
from .profile import ABSENT, CATEGORICAL_EXTRA, UNSEEN, CategoricalProfile, Kind, Profile
from .windows import Window

# A class expected fewer times than this in either sample makes the limit law unsafe (Cochran 1954).
FEWEST_EXPECTED = 5.0
# Shares that moved equally far, but for rounding.
_EQUAL = 1e-12


class ChiSquared:
    """Are the categories of a feature as frequent as in the reference?

    Pearson's X² on the table reference × window, without Yates' correction, at (classes - 1)
    degrees of freedom. Values the reference never saw form one class, missing values one class, a
    class empty in both samples is left out. Choose it for categories and booleans; with very many
    categories it dilutes a change in a few of them.

    X² has its limit law only where no class is rare: one row of a new category among 500 would be
    "p = 1e-5". So where a class is expected fewer than 5 times in either sample, drift is called
    only if the table with its rare classes pooled says so too (`detail.pooled`); statistic and
    p-value stay those of the whole table. A pool that is still rare is tested against the other
    classes by Fisher's exact test, with one row fewer, so that many rows of a new category are
    drift and one never is. Where every class is rare they are pooled in groups. A feature of one
    category, as one that is constant in the reference has, has no degree of freedom until another
    value comes, and p = 1.

    Source: Pearson (1900); Cochran (1954) for rare classes; Hosack et al. (2003) for the row fewer.

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
        if not features:
            return [[] for _ in windows]
        layout = profile.cached(
            ("chi_squared", *features), lambda: _Layout(profile, tuple(features))
        )
        return [layout.test(window) for window in windows]


class _Layout:
    """The classes of several features end to end, so that one pass tests them all."""

    def __init__(self, profile: Profile, features: tuple[int, ...]) -> None:
        self.features = features
        self.profiles = [profile.features[i] for i in features]
        ranges = [(int(profile.offsets[i]), int(profile.offsets[i + 1])) for i in features]
        self.places = layout_of(profile).position[
            np.concatenate([np.arange(a, b) for a, b in ranges])
        ]
        self.sizes = np.array([b - a for a, b in ranges])
        self.ends = np.cumsum(self.sizes)
        self.starts = self.ends - self.sizes
        self.reference = np.concatenate(
            [f.rows for f in self.profiles if isinstance(f, CategoricalProfile)]
        ).astype(np.float64)
        self.n_reference = np.add.reduceat(self.reference, self.starts)

    def _spread(self, per_feature: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.repeat(per_feature, self.sizes)

    def _sums(self, per_class: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.add.reduceat(per_class, self.starts)

    def test(self, window: Window) -> list[Outcome]:
        observed = window.store[self.places].astype(np.float64)
        n = self._sums(observed)
        n_safe = np.maximum(n, 1.0)
        share = n_safe / (self.n_reference + n_safe)
        total = self.reference + observed
        terms = _terms(self.reference, observed, total, self._spread(share))
        statistic = self._sums(terms)
        degrees = self._sums((total > 0).astype(np.float64)) - 1
        p = _p_values(degrees, statistic)
        # Classes that are rare in the smaller sample, as one class.
        rare = (total > 0) & (total * self._spread(np.minimum(share, 1 - share)) < FEWEST_EXPECTED)
        n_rare = self._sums(rare.astype(np.float64))
        pooled_p, pooled_classes = p, degrees + 1
        if n_rare.any():
            pooled_p, pooled_classes = self._pooled(observed, total, terms, rare, n_rare, share)
        moved = np.abs(
            observed / self._spread(n_safe) - self.reference / self._spread(self.n_reference)
        )
        settle(moved, self.ends)
        return [
            self._outcome(
                k,
                window,
                observed[a:b],
                statistic[k],
                int(degrees[k]),
                p[k],
                (pooled_p[k], int(pooled_classes[k])) if n_rare[k] else None,
                int(moved[a:b].argmax()),
            )
            for k, (a, b) in enumerate(zip(self.starts.tolist(), self.ends.tolist(), strict=True))
        ]

    def _pooled(
        self,
        observed: npt.NDArray[np.float64],
        total: npt.NDArray[np.float64],
        terms: npt.NDArray[np.float64],
        rare: npt.NDArray[np.bool_],
        n_rare: npt.NDArray[np.float64],
        share: npt.NDArray[np.float64],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """p-values and numbers of classes with rare classes pooled."""
        pool_observed = self._sums(observed * rare)
        pool_total = self._sums(total * rare)
        pool_terms = _terms(pool_total - pool_observed, pool_observed, pool_total, share)
        statistic = self._sums(np.where(rare, 0.0, terms)) + pool_terms
        common = self._sums(((total > 0) & ~rare).astype(np.float64))
        classes = common + (n_rare > 0)
        p = _p_values(classes - 1, statistic)
        # One feature at a time where the pool is all there is, or is itself rare: then it takes in
        # the next rarest class. That hides it, so it is looked at alone as well; two looks, twice
        # the smaller p.
        small = pool_total * np.minimum(share, 1 - share) < FEWEST_EXPECTED
        for k in np.flatnonzero((n_rare > 0) & (small | (common == 0))).tolist():
            own = slice(self.starts[k], self.ends[k])
            pooled = pool_rare(self.reference[own], observed[own])
            if pooled is not None:
                _, degrees, p[k] = homogeneity(*pooled)
                classes[k] = degrees + 1
            if small[k]:
                before, now = int(pool_total[k] - pool_observed[k]), int(pool_observed[k])
                n = int(observed[own].sum())
                alone = pool_alone(int(self.n_reference[k]), before, n, now)
                p[k] = min(1.0, 2.0 * min(p[k], alone))
        return p, classes

    def _outcome(
        self,
        k: int,
        window: Window,
        observed: npt.NDArray[np.float64],
        statistic: float,
        degrees: int,
        p: float,
        pooled: tuple[float, int] | None,
        most: int,
    ) -> Outcome:
        f, index = self.profiles[k], self.features[k]
        assert isinstance(f, CategoricalProfile)
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
        detail["degrees_of_freedom"] = degrees
        confirmed = None
        if pooled is not None:
            confirmed = float(pooled[0])
            detail["pooled"] = {"classes": pooled[1], "p_value": confirmed}
        names = f.classes
        reference = self.reference[int(self.starts[k]) + most]
        before, now = float(reference / self.n_reference[k]), float(observed[most] / n)
        effect = Effect("share_shift", now - before, "share", before, now, names[most])
        return Outcome(index, float(statistic), float(p), effect, None, confirmed, detail)


def settle(moved: npt.NDArray[np.float64], ends: npt.NDArray[np.int64]) -> None:
    """Let ties between classes that moved equally far fall to missing values, which say most, and
    not to unseen ones, which say least: where all else was one value, that value is named.

    moved: changed in place; how far each class of several features moved. ends: where each
    feature's classes, `unseen` and `missing` the last, end.
    """
    moved[ends - CATEGORICAL_EXTRA + UNSEEN] -= _EQUAL
    moved[ends - CATEGORICAL_EXTRA + ABSENT] += _EQUAL


def _terms(
    reference: npt.NDArray[np.float64],
    observed: npt.NDArray[np.float64],
    total: npt.NDArray[np.float64],
    share: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """What each class adds to X²; 0 for one that is empty in both samples."""
    expected = total * share
    expected_reference = total * (1 - share)
    safe, safe_reference = (
        np.where(total > 0, expected, 1.0),
        np.where(total > 0, expected_reference, 1.0),
    )
    return (observed - expected) ** 2 / safe + (
        reference - expected_reference
    ) ** 2 / safe_reference


def _p_values(
    degrees: npt.NDArray[np.float64], statistic: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return np.where(
        degrees < 1, 1.0, special.chdtrc(np.maximum(degrees, 1.0), np.maximum(statistic, 0.0))
    )


def homogeneity_p(
    reference: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(looks,) p of each row of `observed`, (looks, classes), against `reference`, (classes,)."""
    n = np.maximum(observed.sum(axis=1, keepdims=True), 1.0)
    total = observed + reference
    terms = _terms(reference, observed, total, n / (reference.sum() + n))
    degrees = (total > 0).sum(axis=1) - 1.0
    return _p_values(degrees, terms.sum(axis=1))


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

    A pool that is itself expected too rarely takes in the rarest of the other classes. Where there
    are no others, one pool would be the whole table and see nothing: then the classes, in their
    order, are pooled in groups, each of which is expected often enough.
    """
    total = reference + observed
    n_reference, n_observed = float(reference.sum()), float(observed.sum())
    smaller_share = min(n_reference, n_observed) / (n_reference + n_observed)
    kept = np.flatnonzero(total > 0)
    expected = total[kept] * smaller_share
    rare = expected < FEWEST_EXPECTED
    if not bool(rare.any()):
        return None
    group = np.zeros(len(kept), np.int64)
    if bool(rare.all()):
        # Twice as wide as needed: a group ends within one class, less than FEWEST_EXPECTED, of it.
        group = ((np.cumsum(expected) - expected) // (2 * FEWEST_EXPECTED)).astype(np.int64)
        if group[-1] and expected[group == group[-1]].sum() < FEWEST_EXPECTED:
            group[group == group[-1]] -= 1
    else:
        if expected[rare].sum() < FEWEST_EXPECTED:
            rare[np.flatnonzero(~rare)[expected[~rare].argmin()]] = True
        group[~rare] = 1 + np.arange(int((~rare).sum()))
    before = np.bincount(group, weights=reference[kept])
    now = np.bincount(group, weights=observed[kept])
    return before.astype(np.float64), now.astype(np.float64)


def pool_alone(n_reference: int, before: int, n: int, now: int) -> float:
    """p of a rare pool of classes against all others: `before` of n_reference rows, `now` of n.

    By Fisher's exact test, with one row of the pool fewer in the sample that has the larger share
    of it: no single row can make the result, and what many rows make hardly changes.
    """
    if now * n_reference > before * n:
        return fisher(n_reference, before, n - 1, now - 1)
    return fisher(n_reference - 1, before - 1, n, now) if before else 1.0
