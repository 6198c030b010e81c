"""The two-sample Kolmogorov–Smirnov test."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .base import Outcome
from .cells import finite_detail, mean_effect, too_few
from .kolmogorov import p_values_of
from .layout import BLOCK, layout_of
from .numeric import means_of
from .profile import Kind, Profile
from .windows import Window

# A product of sample sizes up to here keeps the difference of two such products within an int32.
_INT32_PRODUCT = 2**30


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
        n_test, numerator = largest_distances(reference, windows)
        return [
            _outcomes(profile, window, chosen, n, d)
            for window, n, d in zip(windows, n_test, numerator, strict=True)
        ]


def _outcomes(
    profile: Profile,
    window: Window,
    features: Sequence[int],
    n_test: npt.NDArray[np.int64],
    numerator: npt.NDArray[np.int64],
) -> list[Outcome]:
    numeric = profile.numeric
    means, absent = means_of(profile, window.sums, n_test), window.absent()
    n_tests, numerators = n_test.tolist(), numerator.tolist()
    tested = [(numeric[i].n, n_tests[i], numerators[i]) for i in features if n_tests[i]]
    p_values = iter(p_values_of(tested))
    outcomes: list[Outcome] = []
    for i in features:
        f, n = numeric[i], n_tests[i]
        detail = finite_detail(f, absent[i], n)
        if (none := too_few(window, i, detail, needed=1)) is not None:
            outcomes.append(none)
            continue
        p_value, exact = next(p_values)
        detail["method"] = "exact" if exact else "asymp"
        if f.resolution:
            detail["statistic_error"] = f.resolution
        effect = mean_effect(f, means[i])
        outcomes.append(Outcome(i, numerators[i] / (f.n * n), p_value, effect, detail=detail))
    return outcomes


class _Reference:
    """The reference's counts, laid out like a window's store.

    n: (F,) finite values of each feature. counts: (n_blocks, BLOCK) int32; inside: (n_blocks,)
    their sums.
    """

    def __init__(self, profile: Profile) -> None:
        self.layout = layout = layout_of(profile)
        self.n = np.array([f.n for f in profile.numeric], np.int64)
        self.counts = np.zeros((layout.total_blocks, BLOCK), np.int32)
        places = self.counts.ravel()
        for f, block in zip(profile.numeric, layout.first_block.tolist(), strict=True):
            through = f.through
            begin = BLOCK * block
            places[begin : begin + len(through)] = np.diff(through, prepend=0)
        self.inside = self.counts.sum(axis=1, dtype=np.int32)
        self._n_per_block = {t: self.n.astype(t)[layout.feature] for t in (np.int32, np.int64)}

    def n_per_block(self, largest_n_test: int) -> npt.NDArray[Any]:
        """(n_blocks,) `n` of each block's feature, in the narrowest type for products of counts."""
        fits = int(self.n.max(initial=0)) * largest_n_test <= _INT32_PRODUCT
        return self._n_per_block[np.int32 if fits else np.int64]


def largest_distances(
    reference: _Reference, windows: Sequence[Window]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(n_windows, F) n and |D|·n_reference·n per numeric feature; both 0 without finite values.

    From place to place n_reference·F_window·n - n·F_reference·n_reference, a whole number, rises with
    the window's counts and falls with the reference's. It ends at 0, so one running sum serves all
    features. Inside a block it stays below where it would be if all the block's rises came before
    its falls, and above the reverse: only blocks in which that exceeds the largest distance at the end
    of any block are looked into.
    """
    layout = reference.layout
    if not (windows and layout.total_blocks):
        nothing = np.zeros((len(windows), len(reference.n)), np.int64)
        return nothing, nothing
    inside = np.stack([w.block_sums[: layout.total_blocks] for w in windows])
    n_test = np.add.reduceat(inside, layout.first_block, axis=1, dtype=np.int64)
    n_reference = reference.n_per_block(int(n_test.max()))
    n = np.repeat(n_test.astype(n_reference.dtype), layout.n_blocks, axis=1)
    rise, fall = n_reference * inside, n * reference.inside
    ahead = np.cumsum(rise - fall, axis=1, dtype=n.dtype)
    best = np.maximum.reduceat(np.abs(ahead), layout.first_block, axis=1)
    bound = np.maximum(ahead + fall, rise - ahead)
    within = np.flatnonzero(bound > np.repeat(best, layout.n_blocks, axis=1))
    if len(within):
        window, block = np.divmod(within, layout.total_blocks)
        end = ahead.ravel()[within]
        edges = window.searchsorted(np.arange(len(windows) + 1)).tolist()
        counts = np.concatenate([
            layout.blocks(w.store).take(block[a:b], axis=0)
            for w, (a, b) in zip(windows, pairwise(edges), strict=True)
        ])  # fmt: skip
        steps = counts * n_reference[block, None]
        steps -= reference.counts.take(block, axis=0) * n.ravel()[within, None]
        # One running sum again: at each block it jumps from the last one's end to where this begins.
        begin = end - rise.ravel()[within] + fall.ravel()[within]
        begin[1:] -= end[:-1]
        steps[:, 0] += begin
        path = np.abs(np.cumsum(steps, dtype=n.dtype))
        series = window * len(reference.n) + layout.feature[block]
        first = np.flatnonzero(np.diff(series, prepend=-1))
        at = series[first]
        best.ravel()[at] = np.maximum(best.ravel()[at], np.maximum.reduceat(path, BLOCK * first))
    return n_test, best.astype(np.int64)
