"""Panes: mergeable summaries of the events of one slice of event time.

`summarize(a ∪ b) == merge(summarize(a), summarize(b))`, exactly and in any order: counts are
integers, and the sums are integers too, in fixed point relative to the reference, because floating
sums depend on their order.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .entries import Entries, by_pane
from .numeric import summarize_numeric
from .profile import (
    ABSENT,
    BOOLEAN_NAMES,
    UNSEEN,
    CategoricalProfile,
    Column,
    Profile,
    Scalar,
    split_numbers,
)
from .vectors import PRESENT, WITHOUT, VectorColumn, VectorRows, picked

# Names kept of unseen categories and of model versions, per pane.
SAMPLE: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The values of `n` events in the order of a profile's features.

    numeric: (F_numeric, n) float64, NaN where there is no value.
    nan: (F_numeric, n) bool, which of those NaN an event did carry as a value; None for none.
    categorical: one list of n JSON scalars per categorical feature.
    versions: n model versions, one for all, or None.
    vectors: one per vector feature. ids: n, and times_ms: (n,) int64, by which vectors are ordered;
        nothing else needs them.
    """

    n: int
    numeric: npt.NDArray[np.float64]
    categorical: tuple[Sequence[Scalar], ...] = ()
    nan: npt.NDArray[np.bool_] | None = None
    versions: Sequence[str | None] | str | None = None
    vectors: tuple[VectorColumn, ...] = ()
    ids: Sequence[str] = ()
    times_ms: npt.NDArray[np.int64] | None = None

    @staticmethod
    def of(profile: Profile, columns: Mapping[str, Column]) -> Columns:
        """Columns by name, for use outside a stream; every feature but vectors must be there.

        Raises:
            KeyError: a feature of the profile is missing. TypeError: a numeric feature holds
            something that is not a number. ValueError: the columns differ in length.
        """
        lengths = {f.name: len(columns[f.name]) for f in profile.counted}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns differ in length: {lengths}; one value per event each")
        n = next(iter(lengths.values()), 0)
        numeric = np.empty((profile.n_numeric, n), np.float64)
        nan = np.zeros((profile.n_numeric, n), np.bool_)
        for i, f in enumerate(profile.numeric):
            numeric[i], missing = _numbers(f.name, columns[f.name])
            nan[i] = np.isnan(numeric[i]) & ~missing
        categorical = tuple(_as_list(f, columns[f.name]) for f in profile.categorical)
        return Columns(n, numeric, categorical, nan if nan.any() else None)


def _numbers(name: str, column: Column) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    try:
        return split_numbers(column)
    except TypeError as error:
        raise TypeError(f"feature {name!r} is numeric, but {error}") from None


def _as_list(f: CategoricalProfile, column: Column) -> Sequence[Scalar]:
    if f.constant is not None:
        column = _numbers(f.name, column)[0]
    return column.tolist() if isinstance(column, np.ndarray) else column


@dataclass(slots=True, eq=False)
class Pane:
    """The summary of the events of one slice of event time.

    start_ms: where the slice begins. events: how many events.
    cells: (E,) int32, the profile's cells that were hit, each once; counts: (E,) int32, how often.
    sums: (F_numeric, 3) int64, Σ and Σ² of the fixed-point distance from the reference mean, and
        how many values were too far away for them.
    low, high: (F_numeric,) float64, smallest and largest finite value, NaN without any.
    unseen: categorical feature index → a bounded sample of names the reference never saw, with
        their counts.
    versions: a bounded sample of model versions with their counts.
    vectors: vector feature index → its vectors, absent where there are none.
    """

    start_ms: int
    events: int
    cells: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    sums: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    unseen: dict[int, dict[str, int]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    vectors: dict[int, VectorRows] = field(default_factory=dict)


def summarize(profile: Profile, columns: Columns, start_ms: npt.NDArray[np.int64]) -> list[Pane]:
    """The panes of a batch of events.

    Args:
        profile: the reference of the unit that the events belong to.
        columns: the events' values.
        start_ms: (n,) for each event the start of the slice that its event time falls in.

    Returns:
        one pane per distinct start, in order of time.

    >>> from driftline.detectors import fit
    >>> profile, _ = fit({"x": list(range(40))})
    >>> columns = Columns.of(profile, {"x": [3, 3.5, None, 99]})
    >>> [pane] = summarize(profile, columns, np.zeros(4, np.int64))
    >>> pane.events, pane.cells.tolist(), pane.counts.tolist()
    (4, [44, 4, 40, 81], [1, 1, 1, 1])
    """
    if columns.n == 0:
        return []
    order = None
    if columns.n > 1 and not bool((start_ms[1:] >= start_ms[:-1]).all()):
        order = np.argsort(start_ms, kind="stable")
        start_ms = start_ms[order]
    inner = np.flatnonzero(start_ms[1:] != start_ms[:-1]) + 1
    bounds = np.concatenate([[0], inner, [columns.n]])
    n_panes = len(inner) + 1
    parts: list[Entries] = []
    if profile.n_numeric:
        # `take` leaves rows contiguous, which indexing does not.
        values = columns.numeric.copy() if order is None else columns.numeric.take(order, axis=1)
        nan = columns.nan
        if nan is not None and order is not None:
            nan = nan[:, order]
        numeric = summarize_numeric(profile, values, nan, bounds)
        parts += numeric.entries
        sums, low, high = numeric.sums, numeric.low, numeric.high
    else:
        sums = np.zeros((n_panes, 0, 3), np.int64)
        low = high = np.empty((n_panes, 0))
    unseen: list[dict[int, dict[str, int]]] = [{} for _ in range(n_panes)]
    pane_of = _pane_of(order, bounds) if profile.n_categorical or profile.vectors else bounds[:0]
    for j, g in enumerate(profile.categorical):
        i = profile.n_numeric + j
        part, names = _categorical(profile, i, g, columns.categorical[j], pane_of, n_panes)
        parts.append(part)
        for pane, sample in names.items():
            unseen[pane][i] = sample
    vectors: list[dict[int, VectorRows]] = [{} for _ in range(n_panes)]
    for j, column in enumerate(columns.vectors):
        i = profile.n_numeric + profile.n_categorical + j
        part, rows = _vectors(profile, i, column, columns, pane_of, n_panes)
        parts.append(part)
        for pane, own in rows.items():
            vectors[pane][i] = own
    versions = _versions(columns.versions, order, bounds)

    cells, counts, ends = by_pane(parts, n_panes)
    edges = [0, *ends.tolist()]
    return [
        Pane(
            start_ms=int(start_ms[first]),
            events=last - first,
            cells=cells[edges[p] : edges[p + 1]],
            counts=counts[edges[p] : edges[p + 1]],
            sums=sums[p],
            low=low[p],
            high=high[p],
            unseen=unseen[p],
            versions=versions[p],
            vectors=vectors[p],
        )
        for p, (first, last) in enumerate(pairwise(bounds.tolist()))
    ]


def _pane_of(
    order: npt.NDArray[np.intp] | None, bounds: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """(n,) which pane each event falls into, the events in the order they came in."""
    pane_of = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    if order is None:
        return pane_of
    back = np.empty_like(pane_of)
    back[order] = pane_of
    return back


def _lookup(f: CategoricalProfile) -> dict[Any, int]:
    """JSON scalar → cell, for the spellings that need no second look."""
    n = len(f.categories)
    table: dict[Any, int] = {name: i for i, name in enumerate(f.categories)}
    if f.kind == "boolean":
        codes = {name: table[to] for name, to in BOOLEAN_NAMES.items() if to in table}
        table |= codes
        table |= {
            flag: table[name] for flag, name in ((True, "true"), (False, "false")) if name in table
        }
    elif f.constant is not None:
        # Its events hold floats only, so 0 and 1 are no booleans.
        table[f.constant] = table[f.name_of(f.constant)]
    else:
        # Not 0 and 1: to a dict they are the keys False and True, which are other categories.
        numbers = [c for c in f.categories if c.isdecimal() and c == str(int(c)) and int(c) > 1]
        table |= {int(c): table[c] for c in numbers}
    table[None] = n + ABSENT
    return table


def _categorical(
    profile: Profile,
    index: int,
    f: CategoricalProfile,
    column: Sequence[Scalar],
    pane_of: npt.NDArray[np.intp],
    n_panes: int,
) -> tuple[Entries, dict[int, dict[str, int]]]:
    n = len(f.categories)
    table = profile.cached(("lookup", index), lambda: _lookup(f))
    code = np.fromiter(map(table.get, column, repeat(-1)), np.int64, len(column))
    strangers: dict[int, Counter[str]] = {}
    for row in np.flatnonzero(code < 0).tolist():
        name = f.name_of(column[row])
        known = n + ABSENT if name is None else table.get(name, -1)
        if known < 0 and name is not None:
            strangers.setdefault(int(pane_of[row]), Counter())[name] += 1
            known = n + UNSEEN
        code[row] = known
    code += pane_of * f.n_cells
    if n_panes * f.n_cells <= 16 * len(column) + 1024:
        tally = np.bincount(code, minlength=n_panes * f.n_cells)
        hit = np.flatnonzero(tally)
        counts = tally[hit]
    else:
        hit, counts = np.unique(code, return_counts=True)
    pane, cell = np.divmod(hit, f.n_cells)
    entries = Entries(
        np.array([index]),
        np.bincount(pane, minlength=n_panes)[None, :],
        (cell + int(profile.offsets[index])).astype(np.int32),
        counts.astype(np.int32),
    )
    return entries, {p: sample_names(names) for p, names in strangers.items()}


def _vectors(
    profile: Profile,
    index: int,
    column: VectorColumn,
    columns: Columns,
    pane_of: npt.NDArray[np.intp],
    n_panes: int,
) -> tuple[Entries, dict[int, VectorRows]]:
    assert columns.times_ms is not None
    first = int(profile.offsets[index])
    tally = np.zeros((n_panes, 2), np.int32)
    np.add.at(tally, (pane_of, np.where(column.present, PRESENT, WITHOUT)), 1)
    pane, cell = np.nonzero(tally)
    entries = Entries(
        np.array([index]),
        np.bincount(pane, minlength=n_panes)[None, :],
        (first + cell).astype(np.int32),
        tally[pane, cell],
    )
    most = profile.vector(index).spec.sample
    found: dict[int, VectorRows] = {}
    owner = pane_of[column.at]
    for p in np.unique(owner).tolist():
        mine = np.flatnonzero(owner == p)
        events = column.at[mine]
        rows = VectorRows(
            columns.times_ms[events],
            picked(columns.ids, events),
            column.rows[mine],
            picked(column.texts, mine) if column.texts is not None else (),
        )
        found[p] = VectorRows.merged([rows], most)
    return entries, found


def sample_names(counts: Mapping[str, int], size: int = SAMPLE) -> dict[str, int]:
    """The `size` names of smallest CRC-32, with their counts.

    Which names these are does not depend on how the events were divided, and a name that is among
    the first of a union is among the first of every part it occurs in: so the counts kept are
    exact and merge exactly, in bounded space.
    """
    if len(counts) <= size:
        return dict(sorted(counts.items()))
    ranked = sorted((zlib.crc32(n.encode("utf-8", "surrogatepass")), n) for n in counts)
    return {name: counts[name] for _, name in sorted(ranked[:size], key=lambda pair: pair[1])}


def merge_names(samples: Iterable[Mapping[str, int]], size: int = SAMPLE) -> dict[str, int]:
    """One sample of names from several."""
    total: Counter[str] = Counter()
    for sample in samples:
        total.update(sample)
    return sample_names(total, size)


def _versions(
    versions: Sequence[str | None] | str | None,
    order: npt.NDArray[np.intp] | None,
    bounds: npt.NDArray[np.intp],
) -> list[dict[str, int]]:
    edges = bounds.tolist()
    if versions is None:
        return [{} for _ in edges[1:]]
    if isinstance(versions, str):
        return [{versions: b - a} for a, b in pairwise(edges)]
    listed = versions if order is None else [versions[i] for i in order.tolist()]
    return [
        sample_names(Counter(v for v in listed[a:b] if v is not None)) for a, b in pairwise(edges)
    ]


class OpenPane:
    """A pane being put together from its parts, in any order.

    Memory is at most one count per cell of the profile, however many parts come.
    """

    __slots__ = (
        "_dense",
        "_parts",
        "_pending",
        "events",
        "high",
        "low",
        "profile",
        "start_ms",
        "sums",
        "unseen",
        "vectors",
        "versions",
    )

    def __init__(self, profile: Profile, start_ms: int) -> None:
        self.profile = profile
        self.start_ms = start_ms
        self.events = 0
        self.sums = np.zeros((profile.n_numeric, 3), np.int64)
        self.low = np.full(profile.n_numeric, np.nan)
        self.high = np.full(profile.n_numeric, np.nan)
        self.unseen: dict[int, dict[str, int]] = {}
        self.versions: dict[str, int] = {}
        self.vectors: dict[int, VectorRows] = {}
        self._parts: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]] = []
        self._pending = 0
        self._dense: npt.NDArray[np.int32] | None = None

    def add(self, part: Pane) -> None:
        self.events += part.events
        self.sums += part.sums
        self.low = np.fmin(self.low, part.low)
        self.high = np.fmax(self.high, part.high)
        for i, names in part.unseen.items():
            self.unseen[i] = merge_names([self.unseen.get(i, {}), names])
        if part.versions:
            self.versions = merge_names([self.versions, part.versions])
        for i, rows in part.vectors.items():
            most = self.profile.vector(i).spec.sample
            known = self.vectors.get(i)
            self.vectors[i] = rows if known is None else VectorRows.merged([known, rows], most)
        if self._dense is not None:
            self._dense[part.cells] += part.counts
            return
        self._parts.append((part.cells, part.counts))
        self._pending += len(part.cells)
        if len(self._parts) > 1 and self._pending > self.profile.n_cells // 2:
            self._dense = np.zeros(self.profile.n_cells, np.int32)
            for cells, counts in self._parts:
                self._dense[cells] += counts
            self._parts.clear()

    def close(self) -> Pane:
        if self._dense is not None:
            cells = np.flatnonzero(self._dense).astype(np.int32)
            counts = self._dense[cells]
        elif len(self._parts) == 1:
            cells, counts = self._parts[0]
        elif self._parts:
            both = np.concatenate([c for c, _ in self._parts])
            cells, inverse = np.unique(both, return_inverse=True)
            counts = np.zeros(len(cells), np.int32)
            np.add.at(counts, inverse, np.concatenate([k for _, k in self._parts]))
        else:
            cells, counts = np.empty(0, np.int32), np.empty(0, np.int32)
        return Pane(
            self.start_ms,
            self.events,
            cells,
            counts,
            self.sums,
            self.low,
            self.high,
            self.unseen,
            self.versions,
            self.vectors,
        )


def merge(profile: Profile, panes: Iterable[Pane]) -> list[Pane]:
    """Panes of the same slices merged, in order of time."""
    opened: dict[int, OpenPane] = {}
    for pane in panes:
        if pane.start_ms not in opened:
            opened[pane.start_ms] = OpenPane(profile, pane.start_ms)
        opened[pane.start_ms].add(pane)
    return [opened[start].close() for start in sorted(opened)]
