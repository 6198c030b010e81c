"""The two-sample Cramér–von Mises test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
from scipy import special

from .base import Outcome
from .cells import Cells, Hits, cells_of, finite_detail, mean_effect, too_few
from .profile import Kind, Profile
from .windows import Window

# Above it the tail is taken from its own integral: 1 - cdf would lose the digits.
_TAIL_FROM: Final = 0.6
_NODES: Final = 160


class CramerVonMises:
    """Is a numeric feature distributed as in the reference?

    T measures the squared distance between the two empirical distribution functions, averaged over
    all values, where `ks` takes the largest distance. Choose it for changes that are small but lie
    everywhere (a shift of the centre, a gradual one); a change in one place `ks` sees better, and
    the far tails neither. Finite values only. Cost: several times `ks`.

    Without ties, statistic and p-value are those of `scipy.stats.cramervonmises_2samp(reference,
    window, method="asymptotic")`. A group of equal values counts with the mean of the squared
    distances before and after it. That is symmetric and makes the test conservative; Anderson's
    formula with midranks, which scipy takes for ties, does not: it grows with the cube of a group's
    size, and finds two samples of 1,000 and 300 counts of the same Poisson law different.

    Counts do not tell whether values of the window in one gap between reference values are equal.
    They are taken to be distinct; `detail.statistic_error` is what T would gain if those of each gap
    were all equal, and with `slots`, how far any order within a gap could move it.

    Source: Anderson (1962), eq. 9, 10, 12; Csörgő & Faraway (1996), eq. 1.3, and Smirnov (1936) for
    the tail of the limit law.

    >>> from driftline.detectors import Columns, WindowBank, fit, summarize
    >>> from driftline.schemas.units import parse_window
    >>> profile, _ = fit({"x": np.arange(100.0)})
    >>> bank = WindowBank(profile, [parse_window("1m")], pane_ms=60_000, retention_ms=3_600_000)
    >>> columns = Columns.of(profile, {"x": np.arange(50.0, 100.0)})
    >>> [pane] = summarize(profile, columns, np.zeros(50, np.int64))
    >>> [[outcome]] = CramerVonMises().test(profile, bank.push(60_000, pane), [0])
    >>> round(outcome.statistic, 6), round(outcome.p_value, 9)
    (2.778333, 2.22e-07)
    """

    name: ClassVar[str] = "cramer_von_mises"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"numeric"})

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        if not features:
            return [[] for _ in windows]
        cells = cells_of(profile)
        return [_outcomes(profile, cells, window, features) for window in windows]


def _outcomes(
    profile: Profile, cells: Cells, window: Window, features: Sequence[int]
) -> list[Outcome]:
    hits = cells.hits(window)
    absent = window.absent()
    statistics, errors = statistics_of(cells, hits)
    made = hits.n > 1
    p = np.full(len(made), np.nan)
    p[made] = limit_p_values(statistics[made], cells.n[made], hits.n[made])
    outcomes = []
    for i in features:
        f, n = profile.numeric[i], int(hits.n[i])
        detail = finite_detail(f, absent[i], n)
        none = too_few(window, i, detail, 2)
        if none is not None:
            outcomes.append(none)
            continue
        if errors[i]:
            detail["statistic_error"] = float(errors[i])
        outcomes.append(
            Outcome(
                i,
                float(statistics[i]),
                float(p[i]),
                mean_effect(f, window.mean(i, n)),
                detail=detail,
            )
        )
    return outcomes


def statistics_of(
    cells: Cells, hits: Hits
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(F,) T of each feature, and by how much the true one may differ; 0 without values.

    With e = n·(reference values so far) - m·(window values so far), T is the sum over groups of w
    equal values of w·(e² before + e² after) / 2, divided by n·m·N². Single values of one sample
    in a row, over which e goes from a to b in c steps of s: c·(a² + a·b + b²)/3 + c·s²/6.
    """
    m, n = cells.n.astype(np.float64), hits.n.astype(np.float64)
    of = hits.feature
    mine, below = cells.reference[hits.cell], cells.below[hits.cell]
    count = hits.count.astype(np.float64)
    start = n[of] * below - m[of] * (hits.through - hits.count)
    end = n[of] * (below + mine) - m[of] * hits.through
    group = (mine + count) * (start**2 + end**2) / 2
    row = count * (start**2 + start * end + end**2) / 3 + count * m[of] ** 2 / 6
    alone = cells.is_gap[hits.cell] & (mine == 0)
    # The reference values behind a hit and before the next: n²·Σ r² - 2nm·w·Σ r + (m·w)²·Σ 1.
    squares, next_below = cells.squares_before[hits.cell], np.append(below[1:], 0)
    next_squares = np.append(squares[1:], 0.0)
    last = hits.ends[hits.n > 0] - 1
    next_below[last] = cells.n[of[last]]
    next_squares[last] = cells.squares[of[last]]
    behind = below + mine
    own_squares = mine * (below**2 + behind**2) / 2
    rest = (
        n[of] ** 2 * (next_squares - squares - own_squares)
        - n[of] * m[of] * hits.through * (next_below**2 - behind**2)
        + (m[of] * hits.through) ** 2 * (next_below - behind)
    )
    total = hits.sums(np.where(alone, row, group) + rest)
    # Before the first hit the window has nothing.
    first = hits.begins[hits.n > 0]
    total[of[first]] += n[of[first]] ** 2 * squares[first]
    # What is alone in its gap may be tied; in what `slots` left together, every order is possible.
    low, high = n[of] * below - m[of] * hits.through, start + n[of] * mine
    least = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(low**2, high**2))
    shared = (mine + count) * (np.maximum(low**2, high**2) - least)
    doubt = np.where(alone, m[of] ** 2 * (count**3 - count) / 6, 0.0)
    doubt = hits.sums(np.where(cells.is_gap[hits.cell] & ~alone, shared, doubt))
    doubt += n**2 * cells.ties_in_gaps / 6
    scale = np.maximum(n, 1) * m * (m + n) ** 2
    return total / scale, doubt / scale


def limit_p_values(
    statistic: npt.NDArray[np.float64],
    n_reference: npt.NDArray[np.int64],
    n_test: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """(k,) p-values by the limit law, T standardised by its exact mean and variance (Anderson)."""
    m, n = n_reference.astype(np.float64), n_test.astype(np.float64)
    total, product = m + n, m * n
    expected = (1 + 1 / total) / 6
    variance = (total + 1) * (4 * product * total - 3 * (m**2 + n**2) - 2 * product)
    variance /= 45 * total**2 * 4 * product
    return limit_sf(1 / 6 + (statistic - expected) / np.sqrt(45 * variance))


def limit_sf(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """P(ω² ≥ x) for the limit ω² of the Cramér–von Mises statistic.

    The body is scipy's series (Csörgő & Faraway 1996, eq. 1.3). In the tail 1 - cdf has no digits;
    there it is Smirnov's integral,

        2/π · Σ_j (-1)^(j+1) ∫ √(-s / sin s) · exp(-x·s²/2) / s ds,   s from (2j - 1)π to 2jπ,

    whose integrand has roots at both ends; with s = c - (π/2)·cos φ it is smooth and periodic, so
    that equal steps in φ converge geometrically.

    >>> limit_sf(np.array([0.34730, 0.46136, 0.74346])).round(4)
    array([0.1 , 0.05, 0.01])
    """
    p = np.ones(len(x))
    body, tail = (x > 0.003) & (x < _TAIL_FROM), x >= _TAIL_FROM
    if body.any():
        q = 16 * x[body]
        k = np.arange(8)[:, None]
        y = 4 * k + 1
        # exp(-2·y²/q) · (the scaled K), where K itself would underflow.
        terms = np.exp(special.gammaln(k + 0.5) - special.gammaln(k + 1) - 2 * y**2 / q)
        terms = terms * np.sqrt(y) * special.kve(0.25, y**2 / q)
        p[body] = 1 - terms.sum(axis=0) / (np.pi**1.5 * np.sqrt(x[body]))
    if tail.any():
        p[tail] = _tail(x[tail])
    return np.clip(p, 0.0, 1.0)


def _tail(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    phi = (np.arange(_NODES) + 0.5) * np.pi / _NODES
    total = np.zeros(len(x))
    for j in (1, 2):
        from_start = np.pi * np.sin(phi / 2) ** 2
        s = (2 * j - 1) * np.pi + from_start
        root = np.sqrt(s / np.sin(from_start)) * np.sin(phi) / s
        total -= (-1) ** j * (root * np.exp(-np.outer(x, s**2) / 2)).sum(axis=1)
    # 2/π, the half π of ds and the step in φ.
    return total * np.pi / _NODES
