"""The two-sample Cramér–von Mises test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from scipy import special

from .base import Outcome
from .cells import Cells, Hits, cells_of, finite_detail, mean_effect, too_few
from .profile import Kind, Profile
from .windows import Window

# scipy's `method="auto"` counts orderings while neither sample is larger.
EXACT_LIMIT: Final = 20

# Above it the tail is taken from its own integral: 1 - cdf would lose the digits.
_TAIL_FROM: Final = 0.6
_NODES: Final = 160


class CramerVonMises:
    """Is a numeric feature distributed as in the reference?

    T measures the squared distance between the two empirical distribution functions, averaged over
    all values, where `ks` takes the largest distance. Choose it for changes that are small but lie
    everywhere (a shift of the centre, a gradual one); a change in one place `ks` sees better, and
    the far tails neither. With ties it is conservative. Finite values only.

    Statistic and p-value are those of `scipy.stats.cramervonmises_2samp` with midranks, except for
    one thing that counts cannot know: values of the window that lie between the same two
    reference values are taken to be distinct. Equal ones would add Σ(t³ - t) / (12·n_reference·N)
    to T, t being how many are equal: `detail.statistic_error` is the most that can be, where all
    values of a gap are equal. It is 0 for values that the reference has. With `slots`, what shares a
    gap counts as tied, and the bound covers every order it may have. Cost: several times `ks`.

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
    (2.778056, 2.22e-07)
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
        exact = max(f.n, n) <= EXACT_LIMIT
        detail["method"] = "exact" if exact else "asymptotic"
        if errors[i]:
            detail["statistic_error"] = float(errors[i])
        outcomes.append(
            Outcome(
                i,
                float(statistics[i]),
                _exact_p_value(cells, hits, i) if exact else float(p[i]),
                mean_effect(f, window.mean(i, n)),
                detail=detail,
            )
        )
    return outcomes


def statistics_of(
    cells: Cells, hits: Hits
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(F,) T of each feature, and by how much the true one may differ; 0 without values.

    With r - i the difference between a value's midrank among all and its rank in its own sample,
    U = m·Σ(r - i)² over the reference + n·Σ(r - i)² over the window. Untied, r - i is how many of
    the other sample lie before; a group of t values tied with s of the other sample adds
    t·(before + s/2)² + t(t² - 1)/12. All of it, times 12, are whole numbers.
    """
    known = cells.n.max(initial=1), hits.n.max(initial=1)
    # Beyond it the sums leave 64 bits; then the last digits are given up.
    kind = np.int64 if 12 * float(max(known)) ** 3 < 2**62 else np.float64
    mine, count = cells.reference[hits.cell].astype(kind), hits.count.astype(kind)
    below, through = cells.below[hits.cell].astype(kind), hits.through.astype(kind)
    next_below = np.append(below[1:], kind(0))
    last = hits.ends[hits.n > 0] - 1
    next_below[last] = cells.n[hits.feature[last]]
    between = next_below - below - mine
    gap = cells.is_gap[hits.cell]
    ties = _cubes(count)

    of_reference = hits.sums(12 * between * through**2 + 3 * mine * (2 * through - count) ** 2)
    of_window = hits.sums(3 * count * (2 * below + mine) ** 2 + np.where(gap, 0, ties))
    # With slots, the order of what shares a gap is not known either.
    shared = gap & (mine > 0)
    error_window = np.where(gap & ~shared, ties, 0)
    error_window += np.where(shared, 3 * count * _range(2 * below, 2 * mine, count), 0)
    errors_window = hits.sums(error_window)
    errors_reference = hits.sums(
        np.where(shared, 3 * mine * _range(2 * (through - count), 2 * count, mine), 0)
    )
    own = zip(cells.ties.tolist(), cells.ties_in_gaps.tolist(), strict=True)
    statistics, errors = np.zeros(len(cells.n)), np.zeros(len(cells.n))
    for i, (tied, tied_in_gaps) in enumerate(own):
        m, n = int(cells.n[i]), int(hits.n[i])
        if n:
            scale = 12 * m * n * (m + n)
            u = m * (of_reference[i].item() + tied) + n * of_window[i].item()
            statistics[i] = (u - 2 * m * n * (4 * m * n - 1)) / scale
            unknown = m * (errors_reference[i].item() + tied_in_gaps) + n * errors_window[i].item()
            errors[i] = unknown / scale
    return statistics, errors


def _cubes(t: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return t**3 - t


def _range(
    before: npt.NDArray[Any], other: npt.NDArray[Any], own: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """By how much (2(r - i))² of one value may vary among `own` that share a gap with `other`/2."""
    return (before + other + own - 1) ** 2 - np.maximum(before - own + 1, 0) ** 2


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


def _exact_p_value(cells: Cells, hits: Hits, feature: int) -> float:
    """Over all orderings of two small samples, which scipy counts; it is given their ranks."""
    from scipy import stats

    own = slice(int(cells.first[feature]), int(cells.last[feature]) + 1)
    reference = np.repeat(np.arange(len(cells.reference))[own], cells.reference[own])
    of = hits.feature == feature
    cell, count = hits.cell[of], hits.count[of]
    # Inside a gap the window's values are distinct: any order between its neighbours will do.
    step = np.where(cells.is_gap[cell], 0.5, 0.0)
    window = [c + s * k / n for c, s, n in zip(cell.tolist(), step.tolist(), count.tolist(),
                                               strict=True) for k in range(n)]  # fmt: skip
    return float(stats.cramervonmises_2samp(reference, window, method="exact").pvalue)
