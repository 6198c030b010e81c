"""Shiryaev and Roberts' rule over the panes of a window, for changes of any size and age."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .base import Effect, Outcome
from .cells import finite_detail, mean_effect, too_few
from .evidence import Shares, ages, averages, of_distance, of_moments, tails
from .layout import layout_of
from .moments import in_units, spread_effect, sums_in_sd
from .numeric import ONE
from .profile import UNSEEN, CategoricalProfile, Kind, NumericProfile, Profile
from .scores import kept_scores, scores_of
from .shares import category_counts, category_detail
from .windows import Kept, Window

SHIFTS: Final = 5
"""Features whose shifts are told of all together."""

_FLOATS = npt.NDArray[np.float64]
_INTS = npt.NDArray[np.int64]


class ShiryaevRoberts:
    """Has a feature moved since some pane of the window: its mean, its spread, a category's share?

    For each pane, the evidence of the values since then: the Bayes factor of "it moved when this pane
    began, by an unknown amount" over "nothing moved". The statistic is the logarithm of their
    average over the panes; the p-value is 1 / average. Choose it, with one long window, to be told
    early of changes of any size: a sum over onsets leaves no window size to be chosen, as all
    smaller windows are in it. Of a numeric feature four parts in five of the prior are on a mean
    that moved, one on the spread; of a categorical one equal parts on each category, on those never
    seen and on missing values. Blind to what leaves all of these; values that
    follow each other make its p-values too small, like those of every test here.

    All numeric features together (`multivariate`) are one vector, whose mean has moved or not: then
    what is a little in many of them adds up, and a feature that leaves its relation with the others is
    seen though its own values are usual. How they go together is known from the reference rows.

    Numbers are looked at through their normal scores: as the normal quantiles of their ranks among the
    reference values. So wild values do not decide alone, and p-values hold whatever the feature's law.

    A Bayes factor has mean 1 where nothing moved, and so has the average, which therefore exceeds
    1 / p with a probability of at most p (Markov). So the p-value is too large, mostly by ten times and
    more; calibrated levels make up for it.

    Effect: of a vector, the root mean square shift of its K directions, which is the Mahalanobis
    distance of its mean, less what chance alone would make of it, over √K. Of a feature, once the
    average exceeds 1, that of what weighs most, from the likeliest onset on (`detail.n_since` values),
    from Σ and Σ² of the values; before, of the whole window. Stateless.
    Cost: one sum per pane in the window.

    Source: Shiryaev (1963) and Roberts (1966) for the sum over onsets; Pollak (1987) for its mixture
    over unknown shifts; Lai (1995) for the window; Chernoff & Savage (1958) for normal scores; Ramdas
    et al. (2023) for 1 / average as a p-value; Hotelling (1931) for vectors.

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"x": np.arange(100.0)})
    >>> bank = WindowBank(profile, [parse_window("3m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> x = [*range(0, 100, 2), *range(1, 100, 2), *range(60, 100)]
    >>> columns = Columns.of(profile, {"x": x})
    >>> for pane in summarize(profile, columns, np.repeat([0, 60_000, 120_000], [50, 50, 40])):
    ...     due = bank.push(pane.start_ms + 60_000, pane)
    >>> [[outcome]] = ShiryaevRoberts().test(profile, due, [0])
    >>> outcome.p_value < 1e-3, outcome.detail["n_since"], round(outcome.effect.window, 6)
    (True, 40, 79.5)
    """

    name: ClassVar[str] = "shiryaev_roberts"
    kinds: ClassVar[frozenset[Kind]] = frozenset(
        {"numeric", "categorical", "boolean", "multivariate"}
    )
    # Its outcome depends on which pane of the window a value is in, not only on the window's counts.
    reads_panes: ClassVar[bool] = True
    # It asks since when, so a window that has not filled yet has fewer onsets, and no other meaning.
    before_full: ClassVar[bool] = True

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        if not features:
            return [[] for _ in windows]
        return [_outcomes(profile, window, features) for window in windows]


def _outcomes(profile: Profile, window: Window, features: Sequence[int]) -> list[Outcome]:
    since = _Since.of(profile, window) if window.events else None
    found: dict[int, _Weighed] = {}
    if since is not None:
        found = _numbers(profile, since, [i for i in features if i < profile.n_numeric])
        categories = range(profile.n_numeric, len(profile.counted))
        found |= _categories(profile, since, [i for i in features if i in categories])
    absent = window.absent()
    outcomes: list[Outcome] = []
    for i in features:
        if i == len(profile.features):
            outcomes.append(_together(profile, window, since, absent))
            continue
        f = profile.counted[i]
        if isinstance(f, NumericProfile):
            n = window.events - sum(absent[i])
            detail = finite_detail(f, absent[i], n)
            outcome = too_few(window, i, detail, 2)
            whole = partial(_mean, f, window, i, n)
        else:
            observed = category_counts(profile, window, i)
            detail = category_detail(f, window, i, observed)
            outcome = too_few(window, i, detail, 1)
            whole = partial(_largest_shift, f, observed)
        if outcome is None:
            weighed = found[i]
            if weighed.average > 1:
                detail["n_since"] = weighed.n
            effect = weighed.effect() if weighed.average > 1 else whole()
            statistic, p = math.log(weighed.average), min(1.0, 1.0 / weighed.average)
            outcome = Outcome(i, statistic, p, effect, detail=detail)
        outcomes.append(outcome)
    return outcomes


def _together(
    profile: Profile, window: Window, since: _Since | None, absent: Sequence[Sequence[int]]
) -> Outcome:
    index, known = len(profile.features), profile.multivariate
    assert known is not None
    # Where no feature has any value, all would be as good as at their means.
    n = window.events - min(map(sum, absent))
    detail: dict[str, object] = {"n_reference": known.n, "n_test": window.events if n else 0}
    if (none := too_few(window, index, detail, 2)) is not None:
        return none
    assert since is not None
    directions = len(known.whitening)
    distance = known.squared_distance(since.scores[:, :, 0] / ONE / since.events[:, None])
    factors = of_distance(since.events, distance, known.n, directions)
    [average], [k] = since.weigh(factors[:, None])
    if average > 1:
        detail["n_since"] = int(since.events[k])
    else:
        k = len(since.ages) - 1
    detail["shifts"] = _largest_shifts(profile, since, k)
    by_chance = directions * (1 / int(since.events[k]) + 1 / known.n)
    moved = math.sqrt(max(0.0, float(distance[k]) - by_chance) / directions)
    detail["directions"] = directions
    effect = Effect("distance", moved, "reference standard deviations", 0.0, moved)
    statistic, p = math.log(average), min(1.0, 1.0 / average)
    return Outcome(index, statistic, p, effect, detail=detail)


def _largest_shifts(profile: Profile, since: _Since, k: int) -> dict[str, float]:
    """Mean normal scores since onset k of the features that moved most against what chance makes."""
    layout = layout_of(profile)
    n = since.events[k] - since.rest[k][layout.absent - layout.first_rest].sum(axis=1)
    mean = since.scores[k, :, 0] / ONE / np.maximum(n, 1)
    most = np.argsort(-np.abs(mean) * np.sqrt(n), kind="stable")[:SHIFTS]
    return {profile.numeric[i].name: round(float(mean[i]), 3) for i in most.tolist() if n[i]}


class _Weighed(NamedTuple):
    """The evidence on one feature: its average over onsets; since the onset that weighs most, n values,
    and the effect of what weighs most there."""

    average: float
    n: int
    effect: Callable[[], Effect | None]


@dataclass(frozen=True, slots=True, eq=False)
class _Since:
    """What a window holds since each of A onsets, the latest first.

    panes: the latest first. ages: (A,) how many panes ago. events: (A,). scores: (A, F, 2) sums of the
    normal scores of each numeric feature and of their squares, as in `pane_scores`. rest: (A, R) of
    the R places of a store that hold no finite number.
    """

    panes: Sequence[Kept]
    ages: _INTS
    events: _INTS
    scores: _INTS
    rest: _INTS

    @staticmethod
    def of(profile: Profile, window: Window) -> _Since:
        panes = list(window.panes())[::-1]
        of_ages = ages(len(panes))
        panes, last = panes[: of_ages[-1]], of_ages - 1
        events = np.array([p.events for p in panes], np.int64).cumsum()[last]
        made = [_rest_of(profile, pane) for pane in panes]
        scores = np.array([kept_scores(profile, pane) for pane in panes], np.int64)
        first = window.layout.first_rest
        places = [m.places for m in made]
        span = np.repeat(
            of_ages.searchsorted(np.arange(1, len(panes) + 1)), [len(x) for x in places]
        )
        width = window.layout.size - first
        code = span * width + (np.concatenate(places) - first)
        counts = np.concatenate([m.counts for m in made])
        rest = np.bincount(code, counts, len(of_ages) * width).astype(np.int64)
        return _Since(
            panes,
            of_ages,
            events,
            scores.cumsum(axis=0)[last],
            rest.reshape(len(of_ages), width).cumsum(axis=0),
        )

    def weigh(self, factors: _FLOATS) -> tuple[list[float], list[int]]:
        """Of factors (A, F) with each onset: their averages over onsets, and which onset weighs most."""
        likeliest = (factors.T * np.diff(self.ages, prepend=0)).argmax(axis=1)
        return averages(factors.T, self.ages)[:, -1].tolist(), likeliest.tolist()


def _numbers(profile: Profile, since: _Since, features: Sequence[int]) -> dict[int, _Weighed]:
    if not features:
        return {}
    layout = layout_of(profile)
    places = layout.absent[list(features)] - layout.first_rest
    n = since.events[:, None] - since.rest[:, places].sum(axis=2)
    moments = since.scores[:, list(features)] / ONE / np.maximum(n, 1)[:, :, None]
    m = np.array([profile.numeric[i].n for i in features])
    tail = np.array([tails(scores_of(profile, i).fourth) for i in features])
    of_mean, of_spread = of_moments(n, moments[:, :, 0], moments[:, :, 1], m, tail)
    average, likeliest = since.weigh(of_mean + of_spread)
    found = {}
    for j, (i, k) in enumerate(zip(features, likeliest, strict=True)):
        own, panes = int(n[k, j]), since.panes[: since.ages[k]]
        what = _moved_mean if of_mean[k, j] >= of_spread[k, j] else _moved_spread
        found[i] = _Weighed(average[j], own, partial(what, profile.numeric[i], i, panes, own))
    return found


def _categories(profile: Profile, since: _Since, features: Sequence[int]) -> dict[int, _Weighed]:
    if not features:
        return {}
    layout = profile.cached(
        ("moved shares", *features), lambda: _Classes.of(profile, tuple(features))
    )
    count = since.rest[:, layout.places]
    factors = layout.shares.factors(count, since.events)
    by_feature = np.add.reduceat(factors, layout.starts, axis=1) / layout.sizes
    average, likeliest = since.weigh(by_feature)
    found = {}
    for j, (i, k) in enumerate(zip(features, likeliest, strict=True)):
        own = slice(int(layout.starts[j]), int(layout.starts[j] + layout.sizes[j]))
        most = int(factors[k, own].argmax())
        f, n = profile.categorical[i - profile.n_numeric], int(since.events[k])
        found[i] = _Weighed(average[j], n, partial(_moved_share, f, most, count[k, own]))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Classes:
    """The classes of several features end to end: their places among those of `_Since.rest`, and where
    each feature's begin and how many they are."""

    shares: Shares
    places: _INTS
    starts: _INTS
    sizes: _INTS

    @staticmethod
    def of(profile: Profile, features: tuple[int, ...]) -> _Classes:
        layout = layout_of(profile)
        own = [profile.categorical[i - profile.n_numeric] for i in features]
        sizes = np.array([f.n_cells for f in own])
        cells = [np.arange(*profile.offsets[i : i + 2].tolist()) for i in features]
        return _Classes(
            Shares.joined([Shares.of(f.rows) for f in own]),
            layout.position[np.concatenate(cells)].astype(np.int64) - layout.first_rest,
            np.cumsum(sizes) - sizes,
            sizes,
        )


def _mean(f: NumericProfile, window: Window, index: int, n: int) -> Effect | None:
    return mean_effect(f, window.mean(index, n))


def _moved_mean(f: NumericProfile, index: int, panes: Sequence[Kept], n: int) -> Effect | None:
    total, _ = _sums(f, index, panes)
    return mean_effect(f, in_units(f, total / n))


def _moved_spread(f: NumericProfile, index: int, panes: Sequence[Kept], n: int) -> Effect | None:
    return spread_effect(f, *_sums(f, index, panes), n)


def _sums(f: NumericProfile, index: int, panes: Sequence[Kept]) -> tuple[float, float]:
    low = float(np.fmin.reduce([p.low[index] for p in panes]))
    high = float(np.fmax.reduce([p.high[index] for p in panes]))
    return sums_in_sd(f, np.sum([p.sums[index] for p in panes], axis=0), low, high)


def _largest_shift(f: CategoricalProfile, observed: _FLOATS) -> Effect:
    reference = f.rows
    most = int(np.abs(observed / observed.sum() - reference / reference.sum()).argmax())
    return _moved_share(f, most, observed)


def _moved_share(f: CategoricalProfile, most: int, observed: npt.NDArray[Any]) -> Effect:
    reference = f.rows
    if f.only is not None and most == len(f.categories) + UNSEEN:
        # What is new has no name, what it takes the place of has.
        most = 0
    before = float(reference[most] / reference.sum())
    now = float(observed[most] / observed.sum())
    return Effect("share_shift", now - before, "share", before, now, f.classes[most])


class _Rest(NamedTuple):
    """Of one pane: its entries that are no finite numbers."""

    places: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]


def _rest_of(profile: Profile, pane: Kept) -> _Rest:
    """Made once for a pane, which many windows have and many looks."""
    found = pane.made.get(ShiryaevRoberts.name)
    if found is None:
        rest = pane.places >= layout_of(profile).first_rest
        found = pane.made[ShiryaevRoberts.name] = _Rest(pane.places[rest], pane.counts[rest])
    return found
