"""The two-sample Kolmogorov–Smirnov test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .base import Outcome
from .cells import finite_detail, mean_effect, too_few
from .kolmogorov import two_sample_p_values
from .layout import BLOCK, layout_of
from .profile import Kind, Profile
from .windows import Window

# A product of sample sizes up to here keeps n_reference·count within an int32.
_INT32_PRODUCT = 2**31 - 1


class KolmogorovSmirnov:
    """Is a numeric feature distributed as in the reference?

    D = sup |F_reference - F_window|, the largest distance between the two empirical distribution
    functions. Sees any change of distribution, location best; choose it as the default for numbers.
    Weak in the far tails and for changes that leave the middle alone. With ties it is conservative.
    Finite values only: missing and infinite ones are counted, and `missing_rate` tests them.

    The statistic is computed from integer counts, so it is the one of the raw values; the p-value
    is exact while n_reference·n_test ≤ 1,000,000, else by the limit law (`detail.method`). Cost:
    one pass over the reference's distinct values per window, whatever the window holds.

    Source: Smirnov (1939); Hodges (1958) for the exact law; Simard & L'Ecuyer (2011).

    >>> import numpy as np
    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"x": np.arange(100.0)})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"x": np.arange(50.0, 100.0)})
    >>> [pane] = summarize(profile, columns, np.zeros(50, np.int64))
    >>> [[outcome]] = KolmogorovSmirnov().test(profile, bank.push(60_000, pane), [0])
    >>> outcome.statistic, round(outcome.p_value, 12)
    (0.5, 5.2853e-08)
    """

    name: ClassVar[str] = "ks"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        if not features:
            return [[] for _ in windows]
        reference = profile.cached("ks", lambda: _Reference(profile))
        chosen = list(features)
        found = [largest_distances(reference, window) for window in windows]
        n_test = np.array([n[chosen] for n, _ in found], np.int64).reshape(-1, len(chosen))
        numerator = np.array([d[chosen] for _, d in found], np.int64).reshape(-1, len(chosen))
        n_reference = np.array([profile.numeric[i].n for i in features], np.int64)
        n_reference = np.broadcast_to(n_reference, n_test.shape)
        made = n_test > 0
        p = np.full(n_test.shape, np.nan)
        exact = np.zeros(n_test.shape, np.bool_)
        p[made], exact[made] = two_sample_p_values(n_reference[made], n_test[made], numerator[made])
        d = numerator / np.maximum(n_reference * n_test, 1)
        return [
            self._outcomes(
                profile,
                window,
                features,
                n_test[w].tolist(),
                d[w].tolist(),
                p[w].tolist(),
                exact[w].tolist(),
            )
            for w, window in enumerate(windows)
        ]

    def _outcomes(
        self,
        profile: Profile,
        window: Window,
        features: Sequence[int],
        n_test: list[int],
        distances: list[float],
        p_values: list[float],
        exact: list[bool],
    ) -> list[Outcome]:
        absent = window.absent()
        outcomes: list[Outcome] = []
        for j, index in enumerate(features):
            f, n = profile.numeric[index], n_test[j]
            detail = finite_detail(f, absent[index], n)
            none = too_few(window, index, detail, 1)
            if none is not None:
                outcomes.append(none)
                continue
            detail["method"] = "exact" if exact[j] else "asymp"
            if f.resolution:
                detail["statistic_error"] = f.resolution
            effect = mean_effect(f, window.mean(index, n))
            outcomes.append(Outcome(index, distances[j], p_values[j], effect=effect, detail=detail))
        return outcomes


class _Reference:
    """The reference's cumulative counts, laid out like a window's store.

    gap, value: (BLOCK, n_blocks) how many reference values lie in or before each gap, and at or
    before each value; through, before: (n_blocks,) the same at the end and the start of a block.
    Padding counts as after everything, where both distribution functions are 1.
    """

    def __init__(self, profile: Profile) -> None:
        self.layout = layout = layout_of(profile)
        shape = (BLOCK, layout.total_blocks)
        self.n = np.array([f.n for f in profile.numeric], np.int64)
        gap = np.empty(shape, np.int64)
        value = np.empty(shape, np.int64)
        n_per_block = np.repeat(self.n, layout.n_blocks)
        gap[:], value[:] = n_per_block, n_per_block
        for i, f in enumerate(profile.numeric):
            places = layout.place(np.arange(len(f.values) + 1), i)
            gap.ravel()[places] = f.through_gap
            value.ravel()[places[:-1]] = f.through_value
        through = value[-1].copy()
        before = np.concatenate([[0], through[:-1]])
        before[layout.first_block] = 0
        self._wide = {
            "n": n_per_block,
            "gap": gap,
            "value": value,
            "through": through,
            "before": before,
        }
        self._narrow = {name: a.astype(np.int32) for name, a in self._wide.items()}

    def arrays(self, largest_n_test: int) -> dict[str, npt.NDArray[Any]]:
        """The arrays in the narrowest type that holds every product of two counts."""
        fits = int(self.n.max(initial=0)) * largest_n_test <= _INT32_PRODUCT
        return self._narrow if fits else self._wide


def largest_distances(
    reference: _Reference, window: Window
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Per numeric feature, n and |D|·n_reference·n; both 0 without finite values.

    The distance can only be largest just after a gap or just after a value, and there both
    distribution functions are whole numbers. Both rise, so inside a block the distance is bounded
    by the corners: only blocks whose bound exceeds the best distance at a block's end are scanned.
    """
    layout = reference.layout
    if not layout.total_blocks:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    gaps, values = layout.gaps(window.store), layout.values(window.store)
    met = np.add.reduce(values, axis=0, dtype=np.int32)
    inside = np.add.reduce(gaps, axis=0, dtype=np.int32)
    inside += met
    ends = np.cumsum(inside, dtype=np.int64)
    last = ends[layout.first_block + layout.n_blocks - 1]
    base = np.concatenate([[0], last[:-1]])
    n_test = last - base
    known = reference.arrays(int(n_test.max()))
    dtype = known["n"].dtype
    n_reference = known["n"]
    n = np.repeat(n_test.astype(dtype), layout.n_blocks)
    through = (ends - np.repeat(base, layout.n_blocks)).astype(dtype)
    before = through - inside
    high, reference_high = n_reference * through, n * known["through"]
    best = np.maximum.reduceat(np.abs(high - reference_high), layout.first_block)
    bound = np.maximum(high - n * known["before"], reference_high - n_reference * before)
    scan = np.flatnonzero(bound > np.repeat(best, layout.n_blocks))
    if len(scan):
        most = _scan(
            gaps[:, scan],
            values[:, scan] if met[scan].any() else None,
            before[scan],
            n_reference[scan],
            n[scan],
            known["gap"][:, scan],
            known["value"][:, scan],
        )
        feature = np.searchsorted(layout.first_block, scan, "right") - 1
        np.maximum.at(best, feature, most)
    return n_test, best.astype(np.int64)


def _scan(
    gaps: npt.NDArray[Any],
    values: npt.NDArray[Any] | None,
    before: npt.NDArray[Any],
    n_reference: npt.NDArray[Any],
    n_test: npt.NDArray[Any],
    reference_gap: npt.NDArray[Any],
    reference_value: npt.NDArray[Any],
) -> npt.NDArray[Any]:
    """(K,) the largest |n_reference·window - n_test·reference| inside each of K blocks."""
    through_gap = gaps.astype(n_test.dtype)
    through_gap[0] += before
    if values is not None:
        through_gap[1:] += values[:-1]
    for row in range(1, len(through_gap)):
        through_gap[row] += through_gap[row - 1]
    through_value = through_gap if values is None else through_gap + values
    at_gap = n_reference * through_gap - n_test * reference_gap
    at_value = n_reference * through_value - n_test * reference_value
    if values is None:
        # At a value that the window does not meet only the reference steps: downwards.
        return np.maximum(at_gap.max(axis=0), -at_value.min(axis=0))
    ends = (at_gap.max(axis=0), -at_gap.min(axis=0), at_value.max(axis=0), -at_value.min(axis=0))
    return np.maximum.reduce(ends)
