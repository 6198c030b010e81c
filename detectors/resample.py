"""Null draws from reference rows: references and streams that the same source might have sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .memory import Memory
from .profile import CategoricalProfile, Column, Profile, split_numbers


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
        names = [profile.name_of(v) for v in raw]
        categories = tuple(sorted({v for v in names if v is not None}))
        place: dict[str | None, int] = {c: i for i, c in enumerate(categories)}
        place[None] = len(categories)
        code = np.fromiter((place[v] for v in names), np.int64, len(names))
        return CategoricalRows(profile.name, categories, code)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The reference rows in the order of a profile's features, ready to be drawn from.

    memory: how the rows follow each other.
    """

    n: int
    numeric: tuple[NumericRows, ...]
    categorical: tuple[CategoricalRows, ...]
    memory: Memory

    @staticmethod
    def of(profile: Profile, columns: Mapping[str, Column], *, fewest_blocks: int = 1) -> Rows:
        """Args:
        profile: whose features are drawn. columns: name → values of all reference rows, in the
            order in which they came; more columns than features do not matter.
        fewest_blocks: see `Memory.of`.

        Raises:
            KeyError: a feature has no column. ValueError: the columns differ in length.
        """
        lengths = {f.name: len(columns[f.name]) for f in profile.counted}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"reference columns differ in length: {lengths}; one value per row")
        numeric = tuple(NumericRows.of(f.name, columns[f.name]) for f in profile.numeric)
        categorical = tuple(CategoricalRows.of(f, columns[f.name]) for f in profile.categorical)
        n = next(iter(lengths.values()))
        series = [_numeric_series(f) for f in numeric]
        series += [[(f.code == c).astype(np.float64) for c in _common(f.code)] for f in categorical]
        memory = Memory.of(series, n, fewest_blocks=fewest_blocks)
        return Rows(n, numeric, categorical, memory)

    @property
    def silent(self) -> frozenset[int]:
        """Features that are one and the same in all rows: no draw differs from another, and no test
        of theirs has anything to say."""
        first = len(self.numeric)
        same = (bool((f.code == f.code[:1]).all()) for f in self.categorical)
        return frozenset(first + j for j, is_same in enumerate(same) if is_same)

    @property
    def n_effective(self) -> int:
        """Independent rows that carry as much information."""
        return int(self.n / self.memory.time)

    def draw(self, n: int, rng: np.random.Generator, hour: int = 0) -> npt.NDArray[np.intp]:
        """(n,) row numbers: single rows, or blocks that follow each other, from anywhere.

        Circular blocks of fixed length (Politis & Romano 1992), the first one begun at random.
        Where there is a cycle, each block begins at that hour of the cycle which it is drawn for,
        in any round of it (Dudek et al. 2014); the draw begins at `hour`, in rows.
        """
        memory, block = self.memory, self.memory.block
        skip = int(rng.integers(0, block)) if block > 1 else 0
        n_blocks = -(-(n + skip) // block)
        if memory.period:
            wanted = (np.arange(n_blocks, dtype=np.float64) * block - skip + hour) % memory.period
            starts = self._at_hours(wanted, rng)
        else:
            starts = rng.integers(0, self.n, n_blocks)
        if block == 1:
            return starts
        rows = (starts[:, None] + np.arange(block)[None, :]) % self.n
        return rows.ravel()[skip : skip + n]

    def _at_hours(
        self, wanted: npt.NDArray[np.float64], rng: np.random.Generator
    ) -> npt.NDArray[np.intp]:
        """Rows at about the hours `wanted` of a cycle, from which a block can still run."""
        period = self.memory.period
        hours = np.arange(self.n - self.memory.block + 1) % period
        order = np.argsort(hours, kind="stable")
        hours = hours[order]
        around = np.concatenate([hours - period, hours, hours + period])
        width = self.memory.near + 0.5
        first = around.searchsorted(wanted - width, "left")
        last = around.searchsorted(wanted + width, "left")
        return order[rng.integers(first, last) % len(order)]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where a stream's values of one numeric feature lie among the reference's.

    reference: (n,) moved ranks, sorted. below, through: (events,) how many of these lie below that of
    each event, and how many at most at it: the same array where no value is met twice. finite:
    (events,) bool, those that have a finite value; the places of others mean nothing.
    """

    reference: npt.NDArray[np.float64]
    below: npt.NDArray[np.int64]
    through: npt.NDArray[np.int64]
    finite: npt.NDArray[np.bool_]

    @staticmethod
    def of(
        f: NumericRows,
        reference: npt.NDArray[np.float64],
        rows: npt.NDArray[np.intp],
        uniform: npt.NDArray[Any],
    ) -> Places:
        """A search takes three times as long. Rows of lower rank are below: counted once. Those of the
        same rank are few, unless it is one of many equal values, which do not move."""
        has_one = ~np.isnan(f.rank)
        rank = np.where(has_one, f.rank, 0).astype(np.intp)
        within = np.bincount((reference + 0.5).astype(np.intp), minlength=len(f.edges) - 1)
        first = np.concatenate([[0], np.cumsum(within)])[:-1]
        own = rank[rows]
        below = first[own]
        alone = f.single[rows]
        left = np.flatnonzero(alone & (within[own] > 0))
        of_left = own[left]
        moved = of_left + (uniform[left].astype(np.float64) - 0.5)
        at, end = first[of_left], first[of_left] + within[of_left]
        while len(left):
            passed = reference[at] < moved
            left, moved, at, end = left[passed], moved[passed], at[passed] + 1, end[passed]
            below[left] += 1
            more = at < end
            left, moved, at, end = left[more], moved[more], at[more], end[more]
        through = below if f.single[has_one].all() else below + np.where(alone, 0, within[own])
        return Places(reference, below, through, has_one[rows])


class Draw:
    """One replicate under the null: its own reference and its own stream, of whole rows.

    reference: (n_reference,) row numbers, stream: (n_stream,) row numbers.
    """

    __slots__ = ("_places", "_seed", "_uniforms", "reference", "rows", "stream")

    def __init__(
        self,
        rows: Rows,
        reference: npt.NDArray[np.intp],
        stream: npt.NDArray[np.intp],
        seed: Sequence[int],
    ) -> None:
        self.rows, self.reference, self.stream = rows, reference, stream
        self._seed = (*seed, 1)
        self._uniforms: dict[int, npt.NDArray[np.float32]] = {}
        self._places: dict[int, Places] = {}

    @staticmethod
    def of(rows: Rows, n_reference: int, n_stream: int, seed: Sequence[int]) -> Draw:
        rng = np.random.default_rng([*seed, 0])
        reference = rows.draw(n_reference, rng)
        # When the monitor is started is not known: at any hour.
        hour = int(rng.integers(0, int(rows.memory.period))) if rows.memory.period else 0
        return Draw(rows, reference, rows.draw(n_stream, rng, hour), seed)

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

    def places(self, feature: int) -> Places:
        if feature not in self._places:
            f, u = self.rows.numeric[feature], self.uniform(feature)[len(self.reference) :]
            reference = np.sort(self.reference_ranks(feature))
            self._places[feature] = Places.of(f, reference, self.stream, u)
        return self._places[feature]

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
