"""The Jensen–Shannon divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import special

from .base import Outcome
from .profile import Kind, Profile
from .shares import outcomes
from .windows import Window


class JensenShannon:
    """How far apart are the shares of bins or categories, between 0 (the same) and 1 (disjoint)?

    The divergence in bits, ½·KL(p ‖ (p + q)/2) + ½·KL(q ‖ (p + q)/2): the square of
    `scipy.spatial.distance.jensenshannon(p, q, base=2)`. Choose it for a figure that is bounded and
    compares across features; empty classes do it no harm. Numeric features are cut at the
    reference's deciles, so what happens inside a bin is not seen. For power choose `ks` or
    `chi_squared`.

    The p-value is that of the G-test on the same table, G = 2·N·ln 2 times the divergence weighted by
    the sample sizes m and n instead of ½ and ½ (Grosse et al. 2002), with Williams' correction and
    (classes - 1) degrees of freedom. Classes expected fewer than 5 times in either sample are
    pooled first. Cost: about that of finding the hit cells, see docs/statistics.md.

    Source: Lin (1991); Grosse et al. (2002), eq. 10; Williams (1976).

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"c": ["a"] * 60 + ["b"] * 40})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"c": ["a"] * 40 + ["b"] * 60})
    >>> [pane] = summarize(profile, columns, np.zeros(100, np.int64))
    >>> [[outcome]] = JensenShannon().test(profile, bank.push(60_000, pane), [0])
    >>> round(outcome.statistic, 6), round(outcome.p_value, 6), outcome.effect.category
    (0.029049, 0.004693, 'a')
    """

    name: ClassVar[str] = "jensen_shannon"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric", "categorical", "boolean"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        return outcomes(profile, windows, features, _measure)


def _measure(
    reference: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]
) -> tuple[float, float]:
    p, q = reference / reference.sum(), observed / observed.sum()
    middle = (p + q) / 2
    divergence = float((special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum())
    g = g_statistic(reference, observed)
    p_value = float(special.chdtrc(len(reference) - 1, g))
    return max(0.0, divergence / 2 / math.log(2)), p_value


def g_statistic(reference: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]) -> float:
    """G of a 2 × B table without empty classes, divided by Williams' q for such tables."""
    m, n = reference.sum(), observed.sum()
    total, both = reference + observed, m + n
    g = 2 * (
        special.rel_entr(reference, total * (m / both)).sum()
        + special.rel_entr(observed, total * (n / both)).sum()
    )
    rows = both * (1 / m + 1 / n) - 1
    columns = both * (1 / total).sum() - 1
    return max(0.0, float(g)) / (1 + rows * columns / (6 * both * (len(total) - 1)))
