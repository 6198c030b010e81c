"""Shares of bins and of categories, for detectors that compare the two columns of such a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .base import Effect, Outcome
from .cells import cells_of, finite_detail, too_few
from .chi_squared import pool_rare, settle
from .layout import layout_of
from .profile import ABSENT, UNSEEN, CategoricalProfile, NumericProfile, Profile
from .windows import Window

N_BINS: Final = 10

# (reference counts, window counts), each class expected often enough → statistic, p-value.
Measure = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class _Classes:
    """The classes of one feature: reference (B,) how many rows in each, and what they are called."""

    reference: npt.NDArray[np.float64]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Bins:
    """The bins of all numeric features: bin_of (K,) the bin of each cell, numbered over all;
    first: (F,) each feature's first."""

    bin_of: npt.NDArray[np.intp]
    first: npt.NDArray[np.intp]
    classes: tuple[_Classes, ...]

    @staticmethod
    def of(profile: Profile) -> _Bins:
        cells = cells_of(profile)
        bin_of = np.zeros(len(cells.places), np.intp)
        first: list[int] = []
        classes: list[_Classes] = []
        n_bins = 0
        for i, f in enumerate(profile.numeric):
            cuts = _cuts(f)
            edges = f.values[cuts]
            own = slice(int(cells.first[i]), int(cells.last[i]) + 1)
            # The cell after value u is number 2u + 2: a bin ends with its value.
            bin_of[own][2 * cuts + 2] = 1
            bin_of[own] = n_bins + np.cumsum(bin_of[own])
            first.append(n_bins)
            n_bins += len(cuts) + 1
            through = np.append(f.through_value[cuts], f.n)
            shown = [f"{edge:.4g}" for edge in edges.tolist()]
            between = [f"{a} … {b}" for a, b in pairwise(shown)]
            names = (f"up to {shown[0]}", *between, f"above {shown[-1]}")
            classes.append(_Classes(np.diff(through, prepend=0).astype(np.float64), names))
        return _Bins(bin_of, np.array(first, np.intp), tuple(classes))


def _cuts(f: NumericProfile) -> npt.NDArray[np.intp]:
    """Where the reference values' deciles are among its distinct values; fewer where values tie.

    The largest value is no cut: above it the reference has nothing.
    """
    ranks = np.arange(1, N_BINS) * f.n / N_BINS
    cuts = np.unique(np.searchsorted(f.through_value, ranks))
    return cuts[cuts < len(f.values) - 1] if len(cuts) > 1 else np.minimum(cuts, len(f.values) - 2)


def outcomes(
    profile: Profile, windows: Sequence[Window], features: Sequence[int], measure: Measure
) -> list[list[Outcome]]:
    """One outcome per window and feature, of a measure on its table of shares.

    Numeric features in bins between the reference's deciles, finite values only; categorical ones by
    category, with one class for what the reference never had and one for missing values, as in
    `chi_squared`. Classes expected fewer than 5 times in either sample are pooled (`pool_rare`), and
    a measure sees the pooled table. Effect: the class whose share moved most, before pooling.
    """
    numeric = [i for i in features if i < profile.n_numeric]
    bins = profile.cached("bins", lambda: _Bins.of(profile)) if numeric else None
    rows: list[list[Outcome]] = []
    for window in windows:
        binned = _binned(profile, bins, window) if bins is not None else None
        absent = window.absent()
        row: list[Outcome] = []
        for i in features:
            f = profile.counted[i]
            if isinstance(f, NumericProfile):
                assert bins is not None
                assert binned is not None
                classes, observed = bins.classes[i], binned[i]
                detail = finite_detail(f, absent[i], int(observed.sum()))
            else:
                classes, observed = _categories(profile, i, f), category_counts(profile, window, i)
                detail = category_detail(f, window, i, observed)
            none = too_few(window, i, detail, 1)
            numeric_one = i < profile.n_numeric
            row.append(none or _outcome(i, classes, observed, detail, measure, numeric_one))
        rows.append(row)
    return rows


def _binned(profile: Profile, bins: _Bins, window: Window) -> list[npt.NDArray[np.float64]]:
    hits = cells_of(profile).hits(window)
    n_bins = sum(len(c.names) for c in bins.classes)
    counts = np.bincount(bins.bin_of[hits.cell], hits.count, n_bins).astype(np.float64)
    return np.split(counts, bins.first[1:])


def _categories(profile: Profile, index: int, f: CategoricalProfile) -> _Classes:
    def make() -> _Classes:
        return _Classes(f.rows.astype(np.float64), f.classes)

    return profile.cached(("classes", index), make)


def category_counts(profile: Profile, window: Window, index: int) -> npt.NDArray[np.float64]:
    """(C + 2,) a categorical feature's counts: its categories, never seen ones, missing ones."""
    a, b = profile.offsets[index : index + 2].tolist()
    return window.store[layout_of(profile).position[a:b]].astype(np.float64)


def category_detail(
    f: CategoricalProfile, window: Window, index: int, observed: npt.NDArray[np.float64]
) -> dict[str, object]:
    """What a verdict on a categorical feature says in `detail`, whatever the test."""
    n = len(f.categories)
    detail: dict[str, object] = {"n_reference": f.n, "n_test": int(observed.sum())}
    if observed[n + ABSENT]:
        detail["missing"] = int(observed[n + ABSENT])
    if observed[n + UNSEEN]:
        detail["unseen"] = int(observed[n + UNSEEN])
        detail["unseen_sample"] = window.unseen(index)
    return detail


def _outcome(
    index: int,
    classes: _Classes,
    observed: npt.NDArray[np.float64],
    detail: dict[str, Any],
    measure: Measure,
    numeric: bool,
) -> Outcome:
    reference = classes.reference
    before, now = reference / reference.sum(), observed / observed.sum()
    moved = np.abs(now - before)
    if not numeric:
        settle(moved, np.array([len(moved)]))
    most = int(moved.argmax())
    shift = float(now[most] - before[most])
    effect = Effect(
        "share_shift", shift, "share", float(before[most]), float(now[most]), classes.names[most]
    )
    pooled = pool_rare(reference, observed)
    if pooled is None:
        kept = reference + observed > 0
        pooled = reference[kept], observed[kept]
    detail["classes"] = len(pooled[0])
    if len(pooled[0]) < 2:
        return Outcome(index, 0.0, 1.0, effect, detail=detail)
    statistic, p = measure(*pooled)
    return Outcome(index, statistic, p, effect, detail=detail)
