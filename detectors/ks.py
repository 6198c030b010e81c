"""The two-sample Kolmogorov–Smirnov test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from .base import Effect, Outcome
from .kolmogorov import two_sample_p_values
from .profile import Kind, NumericProfile, Profile
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
    is exact while n_reference·n_test ≤ 1,000,000, else by the limit law (`detail.method`). Cost: one
    pass over the reference's distinct values per window, whatever the window holds.

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
        n_test = np.zeros((len(windows), len(features)), np.int64)
        numerator = np.zeros_like(n_test)
        for w, window in enumerate(windows):
            for j, index in enumerate(features):
                n_test[w, j], numerator[w, j] = largest_distance(
                    profile.numeric[index], window.feature(index)
                )
        n_reference = np.array([profile.numeric[i].n for i in features], np.int64)
        n_reference = np.broadcast_to(n_reference, n_test.shape)
        made = n_test > 0
        p = np.full(n_test.shape, np.nan)
        exact = np.zeros(n_test.shape, np.bool_)
        p[made], exact[made] = two_sample_p_values(
            n_reference[made], n_test[made], numerator[made]
        )
        d = numerator / np.maximum(n_reference * n_test, 1)
        return [
            self._outcomes(profile, window, features, n_test[w].tolist(), d[w].tolist(),
                           p[w].tolist(), exact[w].tolist())  # fmt: skip
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
            missing, *non_finite = absent[index]
            detail: dict[str, object] = {"n_reference": f.n, "n_test": n}
            if missing:
                detail["missing"] = missing
            if any(non_finite):
                detail["non_finite"] = sum(non_finite)
            if n == 0:
                reason = "the window is empty"
                if window.events:
                    reason = f"none of its {window.events} values is a finite number"
                outcomes.append(Outcome(index, None, None, reason=reason, detail=detail))
                continue
            detail["method"] = "exact" if exact[j] else "asymp"
            if f.resolution:
                detail["statistic_error"] = f.resolution
            effect, mean = None, window.mean(index, n)
            if mean is not None:
                effect = Effect("mean_shift", (mean - f.mean) / f.sd,
                                "reference standard deviations", f.mean, mean)  # fmt: skip
            outcomes.append(
                Outcome(index, distances[j], p_values[j], effect=effect, detail=detail)
            )
        return outcomes


def largest_distance(f: NumericProfile, counts: npt.NDArray[np.int32]) -> tuple[int, int]:
    """(n, |D|·n_reference·n) for the counts of one feature's cells; (0, 0) without finite values.

    The distance can only be largest just after a gap or just after a value, and at both ends of
    each both distribution functions are known as whole numbers.
    """
    n_gaps = len(f.values) + 1
    in_gaps, on_values = counts[:n_gaps], counts[n_gaps : f.n_finite_cells]
    through = np.cumsum(in_gaps, dtype=np.int32)
    met = on_values.max() > 0
    if met:
        met_through = np.cumsum(on_values, dtype=np.int32)
        through[1:] += met_through
    n = int(through[-1])
    if n == 0:
        return 0, 0
    dtype = np.int32 if f.n * n <= _INT32_PRODUCT else np.int64
    steps = f.steps
    distance = np.multiply(through, dtype(f.n), dtype=dtype)
    if not met and steps.height is not None:
        # No window value equals a reference value, so at each value only the reference steps.
        distance -= steps.gap[dtype] * dtype(n)
        return n, max(int(distance.max()), n * steps.height - int(distance[:-1].min()))
    at_values = distance[:-1] + dtype(f.n) * on_values.astype(dtype)
    at_values -= steps.value[dtype] * dtype(n)
    distance -= steps.gap[dtype] * dtype(n)
    ends = (distance.max(), -distance.min(), at_values.max(), -at_values.min())
    return n, max(int(end) for end in ends)
