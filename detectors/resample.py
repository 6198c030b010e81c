"""Null draws from reference rows: references and streams that the same source might have sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .profile import (
    BOOLEAN_NAMES,
    CategoricalProfile,
    Column,
    Profile,
    category_name,
    split_numbers,
)

# An autocorrelation beyond so many standard errors (1/√n each) counts as one. Politis & White
# (2004) take 1.96 times √(log10 n); several features are looked at here, hence a wider band.
_BAND: Final = 3.0

# Block length in integrated autocorrelation times. Cutting a series into blocks of L loses a share
# of about τ/(2L) of the variance of its means, and few long blocks make that variance noisy.
_BLOCKS_PER_TIME: Final = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class NumericRows:
    """One numeric feature of the reference rows, as ranks.

    rank: (N,) float64, the row's place among the U distinct finite values (0 … U-1), NaN without a
        finite value. values: (N,) as they were, missing ones NaN. missing: (N,) bool.
    single: (N,) bool, finite and met once: such a value moves; one met more often is an atom of the
        distribution and stays. edges: (U+1,) where a value may move to: halfway to its neighbours.
    """

    name: str
    rank: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    missing: npt.NDArray[np.bool_]
    single: npt.NDArray[np.bool_]
    edges: npt.NDArray[np.float64]

    @staticmethod
    def of(name: str, column: Column) -> NumericRows:
        values, missing = split_numbers(column)
        values = values + 0.0
        finite = np.isfinite(values)
        distinct, inverse, counts = np.unique(
            values[finite], return_inverse=True, return_counts=True
        )
        rank = np.full(len(values), np.nan)
        rank[finite] = inverse
        single = np.zeros(len(values), np.bool_)
        single[finite] = counts[inverse] == 1
        half = distinct / 2
        middle = half[1:] + half[:-1]
        first, last = distinct[:1], distinct[-1:]
        if len(middle):
            with np.errstate(over="ignore"):
                low, high = 2 * distinct[:1] - middle[:1], 2 * distinct[-1:] - middle[-1:]
            first = np.where(np.isfinite(low), low, first)
            last = np.where(np.isfinite(high), high, last)
        return NumericRows(
            name, rank, values, missing, single, np.concatenate([first, middle, last])
        )

    def moved_ranks(
        self, rows: npt.NDArray[np.intp], uniform: npt.NDArray[Any]
    ) -> npt.NDArray[np.float64]:
        """Ranks of `rows`, each single value moved by `uniform` (in [0, 1)) - ½ of a rank."""
        rank = self.rank[rows]
        return rank + self.single[rows] * (uniform - 0.5)

    def moved_values(
        self, rows: npt.NDArray[np.intp], uniform: npt.NDArray[Any]
    ) -> npt.NDArray[np.float64]:
        """Values of `rows`, each single value moved within its rank gap.

        >>> import numpy as np
        >>> x = NumericRows.of("x", np.array([1.0, 2.0, 2.0, 4.0, np.nan]))
        >>> x.moved_values(np.arange(5), np.array([0.0, 0.9, 0.1, 0.5, 0.3])).tolist()
        [0.5, 2.0, 2.0, 4.0, nan]
        """
        out = self.values[rows].copy()
        move = self.single[rows]
        at = self.rank[rows][move].astype(np.intp)
        low, high, u = self.edges[at], self.edges[at + 1], uniform[move].astype(np.float64)
        out[move] = low * (1 - u) + high * u
        return out


@dataclass(frozen=True, slots=True, eq=False)
class CategoricalRows:
    """One categorical feature: code (N,) int64 into `categories`, their number where missing."""

    name: str
    categories: tuple[str, ...]
    code: npt.NDArray[np.int64]

    @staticmethod
    def of(profile: CategoricalProfile, column: Column) -> CategoricalRows:
        raw: Sequence[Any] = column.tolist() if isinstance(column, np.ndarray) else column
        names = [category_name(v) for v in raw]
        if profile.kind == "boolean":
            names = [None if v is None else BOOLEAN_NAMES.get(v, v) for v in names]
        categories = tuple(sorted({v for v in names if v is not None}))
        place: dict[str | None, int] = {c: i for i, c in enumerate(categories)}
        place[None] = len(categories)
        code = np.fromiter((place[v] for v in names), np.int64, len(names))
        return CategoricalRows(profile.name, categories, code)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The reference rows in the order of a profile's features, ready to be drawn from.

    correlation_time: τ = 1 + 2·Σ ρ(k), the largest of any feature: so many rows carry the
    information of one. block: rows drawn together, 1 where no feature is autocorrelated.
    """

    n: int
    numeric: tuple[NumericRows, ...]
    categorical: tuple[CategoricalRows, ...]
    correlation_time: float
    block: int

    @staticmethod
    def of(profile: Profile, columns: Mapping[str, Column]) -> Rows:
        """Args:
        profile: whose features are drawn. columns: name → values of all reference rows, in the
            order in which they came; more columns than features do not matter.

        Raises:
            KeyError: a feature has no column. ValueError: the columns differ in length.
        """
        lengths = {f.name: len(columns[f.name]) for f in profile.counted}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"reference columns differ in length: {lengths}; one value per row")
        numeric = tuple(NumericRows.of(f.name, columns[f.name]) for f in profile.numeric)
        categorical = tuple(CategoricalRows.of(f, columns[f.name]) for f in profile.categorical)
        n = next(iter(lengths.values()))
        series = [r for f in numeric for r in _numeric_series(f)]
        series += [(f.code == c).astype(np.float64) for f in categorical for c in _common(f.code)]
        time = max((correlation_time(s) for s in series), default=1.0)
        block = 1 if time <= 1.0 else min(math.ceil(_BLOCKS_PER_TIME * time), n)
        return Rows(n, numeric, categorical, time, block)

    @property
    def n_effective(self) -> int:
        """Independent rows that carry as much information."""
        return int(self.n / self.correlation_time)

    def draw(self, n: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
        """(n,) row numbers: single rows, or blocks that follow each other, from anywhere.

        Circular blocks of fixed length (Politis & Romano 1992), the first one begun at random.
        """
        if self.block == 1:
            return rng.integers(0, self.n, n)
        starts = rng.integers(0, self.n, n // self.block + 2)
        rows = (starts[:, None] + np.arange(self.block)[None, :]) % self.n
        skip = int(rng.integers(0, self.block))
        return rows.ravel()[skip : skip + n]


class Draw:
    """One replicate under the null: its own reference and its own stream, of whole rows.

    reference: (n_reference,) row numbers, stream: (n_stream,) row numbers.
    """

    __slots__ = ("_seed", "_uniforms", "reference", "rows", "stream")

    def __init__(self, rows: Rows, n_stream: int, seed: Sequence[int]) -> None:
        rng = np.random.default_rng([*seed, 0])
        self.rows = rows
        self.reference = rows.draw(rows.n, rng)
        self.stream = rows.draw(n_stream, rng)
        self._seed = (*seed, 1)
        self._uniforms: dict[int, npt.NDArray[np.float32]] = {}

    def uniform(self, feature: int) -> npt.NDArray[np.float32]:
        """(n_reference + n_stream,) what moves a numeric feature's values, in [0, 1)."""
        if feature not in self._uniforms:
            rng = np.random.default_rng([*self._seed, feature])
            size = len(self.reference) + len(self.stream)
            self._uniforms[feature] = rng.random(size, np.float32)
        return self._uniforms[feature]

    def reference_ranks(self, feature: int) -> npt.NDArray[np.float64]:
        """The moved ranks of the reference, those without a finite value left out."""
        u = self.uniform(feature)[: len(self.reference)]
        ranks = self.rows.numeric[feature].moved_ranks(self.reference, u)
        return ranks[~np.isnan(ranks)]

    def stream_ranks(self, feature: int, start: int, stop: int) -> npt.NDArray[np.float64]:
        """The moved ranks of events `start:stop`, those without a finite value left out."""
        n = len(self.reference)
        u = self.uniform(feature)[n + start : n + stop]
        ranks = self.rows.numeric[feature].moved_ranks(self.stream[start:stop], u)
        return ranks[~np.isnan(ranks)]

    def columns(self) -> tuple[dict[str, Column], dict[str, Column]]:
        """The values of reference and stream by name; in lists, so that a NaN that is a value and
        one that is missing stay apart."""
        n = len(self.reference)
        at = np.concatenate([self.reference, self.stream])
        found: dict[str, list[Any]] = {}
        for i, f in enumerate(self.rows.numeric):
            values = f.moved_values(at, self.uniform(i)).tolist()
            missing = f.missing[at].tolist()
            found[f.name] = [None if m else v for v, m in zip(values, missing, strict=True)]
        for g in self.rows.categorical:
            names = (*g.categories, None)
            found[g.name] = [names[c] for c in g.code[at].tolist()]
        return {k: v[:n] for k, v in found.items()}, {k: v[n:] for k, v in found.items()}


def _numeric_series(f: NumericRows) -> list[npt.NDArray[np.float64]]:
    finite = np.isfinite(f.rank)
    series = [np.where(finite, f.rank, np.nanmean(f.rank))]
    # What makes a window's spread differ may follow itself although its level does not.
    series.append(np.abs(series[0] - series[0].mean()))
    if not finite.all():
        series.append((~finite).astype(np.float64))
    return series


def _common(code: npt.NDArray[np.int64]) -> list[int]:
    """The ten commonest codes."""
    counts = np.bincount(code)
    return [int(c) for c in np.argsort(-counts, kind="stable")[:10] if counts[c]]


def correlation_time(series: npt.NDArray[np.float64]) -> float:
    """τ = 1 + 2·Σ ρ(k) up to where the autocorrelations ρ leave off; 1 for independent values.

    The cut: the first lag m after which a run of K = max(5, √log10 n) lags lies within the noise
    band (Politis & White 2004, section 3.2); lags up to 2m then enter with their flat-top weights.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> correlation_time(rng.normal(size=4000))
    1.0
    """
    n = len(series)
    x = series - series.mean()
    if n < 30 or not x.any():
        return 1.0
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(x, size)
    rho = np.fft.irfft(spectrum * spectrum.conj(), size)[: n // 4 + 1]
    rho = rho / rho[0]
    band = _BAND * math.sqrt(max(1.0, math.log10(n)) / n)
    outside = np.abs(rho[1:]) > band
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    quiet = np.convolve(outside, np.ones(run), "valid") == 0
    cut = int(quiet.argmax()) if quiet.any() else len(outside)
    if cut == 0:
        return 1.0
    lags = np.arange(1, min(2 * cut, len(outside)) + 1)
    weights = np.clip(2 * (1 - lags / (2 * cut + 1)), 0, 1)
    return max(1.0, float(1 + 2 * (weights * rho[lags]).sum()))
