"""Shiryaev and Roberts' rule over the panes of a window, for changes of any size and age."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from .base import Effect, Outcome
from .cells import finite_detail, mean_effect, too_few
from .evidence import Shares, ages, averages, of_moments, tails
from .layout import layout_of
from .moments import in_units, spread_effect, sums_in_sd
from .numeric import ONE
from .profile import CategoricalProfile, Kind, NumericProfile, Profile
from .scores import pane_scores, scores_of
from .shares import category_counts, category_detail
from .windows import Kept, Window

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

    Numbers are looked at through their normal scores: as the normal quantiles of their ranks among the
    reference values. So wild values do not decide alone, and p-values hold whatever the feature's law.

    A Bayes factor has mean 1 where nothing moved, and so has the average, which therefore exceeds
    1 / p with a probability of at most p (Markov). So the p-value is too large, mostly by ten times and
    more; calibrated levels make up for it.

    Effect: once the average exceeds 1, that of what weighs most, from the likeliest onset on
    (`detail.n_since` values), from Σ and Σ² of the values; before, of the whole window. Stateless.
    Cost: one sum per pane in the window.

    Source: Shiryaev (1963) and Roberts (1966) for the sum over onsets; Pollak (1987) for its mixture
    over unknown shifts; Lai (1995) for the window; Chernoff & Savage (1958) for normal scores; Ramdas
    et al. (2023) for 1 / average as a p-value.

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
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric", "categorical", "boolean"})
    # Its outcome depends on which pane of the window a value is in, not only on the window's counts.
    reads_panes: ClassVar[bool] = True

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        if not features:
            return [[] for _ in windows]
        return [_outcomes(profile, window, features) for window in windows]


def _outcomes(profile: Profile, window: Window, features: Sequence[int]) -> list[Outcome]:
    absent = window.absent()
    since = _Since.of(profile, window) if window.events else None
    outcomes: list[Outcome] = []
    for i in features:
        f = profile.counted[i]
        if isinstance(f, NumericProfile):
            n = window.events - sum(absent[i])
            detail = finite_detail(f, absent[i], n)
            outcome = too_few(window, i, detail, 2)
            if outcome is None and since is not None:
                outcome = _of_numbers(f, i, profile, since, window.mean(i, n), detail)
        else:
            observed = category_counts(profile, window, i)
            detail = category_detail(f, window, i, observed)
            outcome = too_few(window, i, detail, 1)
            if outcome is None and since is not None:
                outcome = _of_categories(f, i, profile, since, observed, detail)
        assert outcome is not None
        outcomes.append(outcome)
    return outcomes


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
        scores = np.array([_scores(profile, pane) for pane in panes], np.int64)
        first = window.layout.first_rest
        places = [p.rest_places for p in panes]
        span = np.repeat(
            of_ages.searchsorted(np.arange(1, len(panes) + 1)), [len(x) for x in places]
        )
        width = window.layout.size - first
        code = span * width + (np.concatenate(places) - first)
        counts = np.concatenate([p.rest_counts for p in panes])
        rest = np.bincount(code, counts, len(of_ages) * width).astype(np.int64)
        return _Since(
            panes,
            of_ages,
            events,
            scores.cumsum(axis=0)[last],
            rest.reshape(len(of_ages), width).cumsum(axis=0),
        )


def _of_numbers(
    f: NumericProfile,
    index: int,
    profile: Profile,
    since: _Since,
    mean_of_all: float | None,
    detail: dict[str, object],
) -> Outcome:
    layout = layout_of(profile)
    absent = since.rest[:, layout.absent[index] - layout.first_rest].sum(axis=1)
    n = since.events - absent
    mean, square = (since.scores[:, index].T / ONE) / np.maximum(n, 1)
    of_mean, of_spread = of_moments(n, mean, square, f.n, tails(scores_of(profile, index).fourth))
    average, likeliest = _average(of_mean + of_spread, since)
    effect = mean_effect(f, mean_of_all)
    if average > 1:
        detail["n_since"] = int(n[likeliest])
        panes = since.panes[: since.ages[likeliest]]
        moved = "mean" if of_mean[likeliest] >= of_spread[likeliest] else "spread"
        effect = _effect(f, index, panes, int(n[likeliest]), moved)
    return _outcome(index, average, effect, detail)


def _effect(
    f: NumericProfile, index: int, panes: Sequence[Kept], n: int, moved: str
) -> Effect | None:
    """Of the values in some panes, in the feature's own unit."""
    low = float(np.fmin.reduce([p.low[index] for p in panes]))
    high = float(np.fmax.reduce([p.high[index] for p in panes]))
    sums = np.sum([p.sums[index] for p in panes], axis=0)
    total, squares = sums_in_sd(f, sums, low, high)
    if moved == "mean":
        return mean_effect(f, in_units(f, total / n))
    return spread_effect(f, total, squares, n)


def _of_categories(
    f: CategoricalProfile,
    index: int,
    profile: Profile,
    since: _Since,
    of_all: _FLOATS,
    detail: dict[str, object],
) -> Outcome:
    layout = layout_of(profile)
    a, b = profile.offsets[index : index + 2].tolist()
    count = since.rest[:, layout.position[a:b] - layout.first_rest]
    reference = np.append(f.counts, [f.unseen, f.missing])
    shares = profile.cached(("moved shares", index), lambda: Shares.of(reference))
    factors = shares.factors(count, since.events)
    average, likeliest = _average(factors.mean(axis=1), since)
    before = reference / reference.sum()
    now = of_all / of_all.sum()
    most = int(np.abs(now - before).argmax())
    if average > 1:
        detail["n_since"] = n = int(since.events[likeliest])
        most = int(factors[likeliest].argmax())
        now = count[likeliest] / n
    name = (*f.categories, "(unseen)", "(missing)")[most]
    shift = float(now[most] - before[most])
    effect = Effect("share_shift", shift, "share", float(before[most]), float(now[most]), name)
    return _outcome(index, average, effect, detail)


def _average(factors: _FLOATS, since: _Since) -> tuple[float, int]:
    """The average over onsets, and which of them weighs most."""
    likeliest = int((factors * np.diff(since.ages, prepend=0)).argmax())
    return float(averages(factors, since.ages)[-1]), likeliest


def _outcome(
    index: int, average: float, effect: Effect | None, detail: dict[str, object]
) -> Outcome:
    return Outcome(index, math.log(average), min(1.0, 1.0 / average), effect, detail=detail)


def _scores(profile: Profile, pane: Kept) -> _INTS:
    """`pane_scores`, made once for a pane, which many windows have and many looks."""
    found = pane.made.get(ShiryaevRoberts.name)
    if found is None:
        found = pane_scores(profile, pane.places, pane.counts)
        pane.made[ShiryaevRoberts.name] = found
    return found
