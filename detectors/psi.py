"""The population stability index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import special

from .base import Outcome
from .profile import Kind, Profile
from .shares import outcomes
from .windows import Window


class PopulationStability:
    """By how much have the shares of bins or categories moved, as credit scoring measures it?

    PSI = Σ (q - p)·ln(q / p) over the classes, p and q their shares in reference and window. Choose it
    where people know the figure: below 0.1 is called stable, above 0.2 or 0.25 a change. That
    convention takes no account of the sample sizes; the p-value does, and is what drift is decided
    on. Numeric features are cut at the reference's deciles, so what happens inside a bin is not
    seen, and of their values only finite ones count. For power choose `ks` or `chi_squared`.

    Half a row is added to every class of both samples, so that an empty one is not infinite. Classes
    that are expected fewer than 5 times in either sample are pooled first. The p-value: with B
    classes, PSI / (1/n + 1/m) has in the limit the chi-squared law with B - 1 degrees of freedom.
    Cost: about that of finding the hit cells, see docs/statistics.md.

    Source: Siddiqi (2006) for the convention; Yurdakul & Naranjo (2020) for the law.

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"c": ["a"] * 60 + ["b"] * 40})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"c": ["a"] * 40 + ["b"] * 60})
    >>> [pane] = summarize(profile, columns, np.zeros(100, np.int64))
    >>> [[outcome]] = PopulationStability().test(profile, bank.push(60_000, pane), [0])
    >>> round(outcome.statistic, 6), round(outcome.p_value, 6), outcome.effect.category
    (0.158947, 0.004816, 'a')
    """

    name: ClassVar[str] = "psi"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric", "categorical", "boolean"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        return outcomes(profile, windows, features, _measure)


def _measure(
    reference: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]
) -> tuple[float, float]:
    m, n, classes = reference.sum(), observed.sum(), len(reference)
    p, q = (reference + 0.5) / (m + 0.5 * classes), (observed + 0.5) / (n + 0.5 * classes)
    statistic = float(((q - p) * np.log(q / p)).sum())
    return statistic, float(special.chdtrc(classes - 1, statistic / (1 / n + 1 / m)))
