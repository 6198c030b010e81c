"""What a stream is compared with: the reference, reduced to exactly what the tests need.

A *profile* describes the reference rows of one unit (a model, or one segment of it). Every feature
has *cells*, the places an event's value can fall into; a pane is nothing but counts per cell:

    numeric, U distinct reference values v[0] < … < v[U-1]: 2U + 5 cells

        gap    0      1      2           U       U + 1 gaps: before v0, between, after v[U-1]
            ───────●──────●──── … ────●───────
        value      0      1          U-1         U values, met exactly

        cells: the gaps, the values, then missing, NaN, +inf, -inf

    categorical or boolean, C reference categories: C + 2 cells

        category 0 … C-1, then one cell for every category the reference never saw, then missing

    numeric, but one value in all reference rows: categorical, with that value's text as the only
        category, since all there is to see is whether another one comes

    text, vector or group: 2 cells

        events with a vector, events without; the vectors themselves go beside the counts (vectors)

Counts *on* and *between* the sorted reference values are all that the empirical
distribution functions of both samples need at every point where either can jump, so a
Kolmogorov–Smirnov test made from them is the one made from the raw values, ties included.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ..schemas.errors import ProfileError
from .vectors import VectorProfile

Kind = Literal["numeric", "categorical", "boolean", "text", "vector", "group"]
VECTOR_KINDS: Final = ("text", "vector", "group")
Scalar = str | int | float | bool | None
Column = Sequence[Any] | npt.NDArray[Any]

T = TypeVar("T")

FORMAT: Final = 1

# Cells of a numeric feature after its gaps and values.
MISSING, NAN, POS_INF, NEG_INF = 0, 1, 2, 3
NUMERIC_EXTRA: Final = 4
# Cells of a categorical feature after its categories.
UNSEEN, ABSENT = 0, 1
CATEGORICAL_EXTRA: Final = 2

# The fewest usable reference values a feature is accepted with. Below it no test has power: with 20
# values a two-sample KS test at level 1e-4 needs a distance of about 0.5 however large the window.
MIN_REFERENCE: Final = 20

# Longest category name kept; longer ones keep their head and a digest, so that they stay distinct.
MAX_NAME: Final = 200


@dataclass(frozen=True, eq=False)
class NumericProfile:
    """A numeric feature of the reference.

    values: (U,) float64, the sorted distinct finite reference values (or, with `slots`, quantiles
        of them).
    through_gap: (U+1,) int64, how many finite reference values lie in or before each gap.
    through_value: (U,) int64, how many are at most each value.
    n: finite reference values; missing, nan, pos_inf, neg_inf: the others.
    mean, sd: of the finite reference values (sd with n - 1).
    resolution: the largest share of the reference inside one gap between kept values; the exact KS
        statistic exceeds the one from the cells by at most this. 0 when every value was kept.
    zero, unit: what the sums of panes are relative to, None for mean and sd: another profile's, in
        a reference that was made of panes (`earlier`).
    """

    name: str
    values: npt.NDArray[np.float64]
    through_gap: npt.NDArray[np.int64]
    through_value: npt.NDArray[np.int64]
    n: int
    missing: int
    nan: int
    pos_inf: int
    neg_inf: int
    mean: float
    sd: float
    resolution: float = 0.0
    zero: float | None = None
    unit: float | None = None

    @property
    def kind(self) -> Kind:
        return "numeric"

    def from_sums(self, distance: float) -> float:
        """The value at a distance from `zero`, in `unit`."""
        if self.zero is None or self.unit is None:
            return self.mean + self.sd * distance
        return self.zero + self.unit * distance

    @cached_property
    def n_finite_cells(self) -> int:
        """Gaps and values; the cells from here on are those of values that are not finite."""
        return 2 * len(self.values) + 1

    @property
    def n_cells(self) -> int:
        return self.n_finite_cells + NUMERIC_EXTRA

    @property
    def absent(self) -> int:
        """Reference rows without a usable value: missing or not finite."""
        return self.missing + self.nan + self.pos_inf + self.neg_inf


@dataclass(frozen=True, slots=True, eq=False)
class CategoricalProfile:
    """A categorical or boolean feature of the reference.

    categories: (C,) names, sorted; counts: (C,) int64; missing: rows without a value; unseen: rows of
    other categories, in a reference that was made of panes (`earlier`).
    constant: the one finite value of a numeric feature that has no other; None for all else.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    missing: int
    unseen: int = 0
    constant: float | None = None

    @property
    def n(self) -> int:
        """Reference rows, missing ones included: missing is a class of its own."""
        return int(self.counts.sum()) + self.unseen + self.missing

    @property
    def only(self) -> str | None:
        """The category of all rows that have one; None where there are several."""
        return self.categories[0] if len(self.categories) == 1 and not self.unseen else None

    def name_of(self, value: Scalar) -> str | None:
        """The category that a value stands for in this feature, None where it stands for none."""
        if self.constant is not None and isinstance(value, int | np.integer):
            value = _float(value)  # Beyond 2**53 a whole number and its float differ in text.
        name = category_name(value)
        return BOOLEAN_NAMES.get(name, name) if self.kind == "boolean" and name else name

    @property
    def n_cells(self) -> int:
        return len(self.categories) + CATEGORICAL_EXTRA


FeatureProfile = NumericProfile | CategoricalProfile | VectorProfile


def column_kind(f: FeatureProfile) -> Kind:
    """The kind that a feature's values are read as: numeric, too, where it is constant in the
    reference and so tested as a category."""
    return "numeric" if isinstance(f, CategoricalProfile) and f.constant is not None else f.kind


class Profile:
    """The reference of one unit: its features and where their cells lie.

    Numeric features come first, then categorical ones, then vectors.

    offsets: (F+1,) int64; the cells of feature f are `offsets[f]:offsets[f+1]` in a flat count
    vector of `n_cells` entries. id: a digest of the content, unless it was given.
    """

    def __init__(
        self, features: Sequence[FeatureProfile], n_rows: int, ident: str | None = None
    ) -> None:
        numeric = [f for f in features if isinstance(f, NumericProfile)]
        categorical = [f for f in features if isinstance(f, CategoricalProfile)]
        vectors = [f for f in features if isinstance(f, VectorProfile)]
        self.features: tuple[FeatureProfile, ...] = (*numeric, *categorical, *vectors)
        self.n_numeric = len(numeric)
        self.n_categorical = len(categorical)
        self.n_rows = n_rows
        self.numeric: tuple[NumericProfile, ...] = tuple(numeric)
        self.categorical: tuple[CategoricalProfile, ...] = tuple(categorical)
        self.vectors: tuple[VectorProfile, ...] = tuple(vectors)
        self._cache: dict[Hashable, Any] = {}
        sizes = [f.n_cells for f in self.features]
        self.offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self.n_cells = int(self.offsets[-1])
        self.id = ident or self._digest()

    @property
    def counted(self) -> tuple[NumericProfile | CategoricalProfile, ...]:
        """The features that panes count, which are all but the vectors."""
        return (*self.numeric, *self.categorical)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.features)

    def vector(self, index: int) -> VectorProfile:
        """The vector feature at `index` among all features."""
        return self.vectors[index - self.n_numeric - self.n_categorical]

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned the first time; for tables that follow from the profile alone."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def to_parts(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Metadata (JSON-able) and arrays, from which `from_parts` makes an equal profile."""
        meta: list[dict[str, Any]] = []
        arrays: dict[str, npt.NDArray[Any]] = {}
        for i, f in enumerate(self.features):
            if isinstance(f, NumericProfile):
                arrays[f"{i}.values"] = f.values
                arrays[f"{i}.through_gap"] = f.through_gap
                arrays[f"{i}.through_value"] = f.through_value
                meta.append(
                    {
                        "name": f.name,
                        "kind": f.kind,
                        "n": f.n,
                        "missing": f.missing,
                        "nan": f.nan,
                        "pos_inf": f.pos_inf,
                        "neg_inf": f.neg_inf,
                        "mean": f.mean,
                        "sd": f.sd,
                        "resolution": f.resolution,
                    }
                )
            elif isinstance(f, VectorProfile):
                own, parts = f.to_parts()
                arrays |= {f"{i}.{name}": array for name, array in parts.items()}
                meta.append(own)
            else:
                arrays[f"{i}.counts"] = f.counts
                own = {
                    "name": f.name,
                    "kind": f.kind,
                    "categories": list(f.categories),
                    "missing": f.missing,
                }
                if f.constant is not None:
                    own["constant"] = f.constant
                meta.append(own)
        return {"format": FORMAT, "n_rows": self.n_rows, "features": meta}, arrays

    @staticmethod
    def from_parts(meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Profile:
        """The inverse of `to_parts`.

        Raises:
            ProfileError: the parts are of another format, or do not belong together.
        """
        if meta.get("format") != FORMAT:
            raise ProfileError(
                f"profile format {meta.get('format')!r}: this version reads format {FORMAT}; "
                "fit the reference again with `driftline fit`"
            )
        features: list[FeatureProfile] = []
        try:
            for i, entry in enumerate(meta["features"]):
                own = dict(entry)
                kind = own.pop("kind")
                if kind == "numeric":
                    values = np.asarray(arrays[f"{i}.values"], np.float64)
                    through_gap = np.asarray(arrays[f"{i}.through_gap"], np.int64)
                    through_value = np.asarray(arrays[f"{i}.through_value"], np.int64)
                    _check_length(f"{i}.through_gap", through_gap, len(values) + 1)
                    _check_length(f"{i}.through_value", through_value, len(values))
                    features.append(
                        NumericProfile(
                            values=values,
                            through_gap=through_gap,
                            through_value=through_value,
                            **own,
                        )
                    )
                elif kind in VECTOR_KINDS:
                    prefix = f"{i}."
                    parts = {
                        n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)
                    }
                    features.append(VectorProfile.from_parts(entry, parts))
                else:
                    own["categories"] = tuple(own["categories"])
                    counts = np.asarray(arrays[f"{i}.counts"], np.int64)
                    _check_length(f"{i}.counts", counts, len(own["categories"]))
                    features.append(CategoricalProfile(kind=kind, counts=counts, **own))
            return Profile(features, int(meta["n_rows"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(
                f"profile is damaged ({type(error).__name__}: {error}); "
                "fit the reference again with `driftline fit`"
            ) from error

    def _digest(self) -> str:
        meta, arrays = self.to_parts()
        digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
        for name in sorted(arrays):
            digest.update(name.encode() + b"\0" + np.ascontiguousarray(arrays[name]).tobytes())
        return digest.hexdigest()[:32]


def _check_length(name: str, array: npt.NDArray[Any], length: int) -> None:
    if array.shape != (length,):
        raise ValueError(f"array {name!r} has shape {array.shape}, its feature needs ({length},)")


def category_name(value: Scalar) -> str | None:
    """The category a JSON scalar stands for, None where it stands for none (null, NaN).

    A number and its text are one category, as are 3 and 3.0: producers differ in how they write a
    code, and a change of spelling is not drift.

    >>> [category_name(v) for v in ("ES", 3, 3.0, 2.5, True, None, float("nan"))]
    ['ES', '3', '3', '2.5', 'true', None, None]
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return None
    if isinstance(value, str):
        if len(value) <= MAX_NAME:
            return value
        digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8)
        return f"{value[: MAX_NAME - 17]}…{digest.hexdigest()}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        return repr(value)
    return str(value)


BOOLEAN_NAMES: Final[Mapping[str, str]] = {
    "true": "true",
    "false": "false",
    "1": "true",
    "0": "false",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A column that `fit` was free to leave out, and why."""

    name: str
    reason: str


def infer_kind(column: Column) -> tuple[Kind | None, str]:
    """The kind a column's values speak for, or None with the reason there is none.

    >>> infer_kind([1, 2.5, None]), infer_kind([True, None]), infer_kind(["a", "b", "a"])
    (('numeric', ''), ('boolean', ''), ('categorical', ''))
    """
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        return "numeric", ""
    if isinstance(column, np.ndarray) and column.dtype.kind == "b":
        return "boolean", ""
    present = [v for v in column if v is not None]
    if not present:
        return None, "every value is missing"
    types = {type(v) for v in present}
    if types <= {bool, np.bool_}:
        return "boolean", ""
    if all(issubclass(t, (int, float, np.number)) and not issubclass(t, bool) for t in types):
        return "numeric", ""
    if types <= {str}:
        distinct = len(set(present))
        if distinct > 50 and distinct > 0.5 * len(present):
            return None, (
                f"{distinct} distinct texts in {len(present)} values: an identifier or free text"
            )
        return "categorical", ""
    if any(issubclass(t, (list, dict, np.ndarray)) for t in types):
        return None, "values are lists or objects"
    names = ", ".join(sorted(t.__name__ for t in types))
    return None, f"values are of mixed types ({names})"


def fit(
    columns: Mapping[str, Column],
    kinds: Mapping[str, Kind] | None = None,
    *,
    slots: int | None = None,
    max_categories: int = 1000,
    required: bool = True,
    vectors: Sequence[VectorProfile] = (),
) -> tuple[Profile, tuple[LeftOut, ...]]:
    """The profile of a reference.

    Args:
        columns: name → values of all reference rows, equally long; None (and, in an array of
            floats, NaN) is a missing value.
        kinds: name → kind of the features to keep. None keeps every column whose kind can be told
            and which can be monitored, and says of the others why not. A column of one value is
            kept, a numeric one as a category (`CategoricalProfile.constant`).
        slots: reduce a numeric feature with more distinct values than this to so many quantiles;
            None keeps all of them, which is exact.
        max_categories: the most categories a feature may have.
        required: whether a feature named in `kinds` that cannot be monitored is an error, or left
            out like any other.
        vectors: features that were fitted by `fit_vectors`.

    Returns:
        the profile, and the columns left out.

    Raises:
        ProfileError: a feature named in `kinds` cannot be monitored, or nothing is left.

    >>> profile, left_out = fit({"x": [float(i) for i in range(40)], "c": ["a", "b"] * 20})
    >>> profile.names, profile.n_cells, left_out
    (('x', 'c'), 89, ())
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ProfileError(f"reference columns differ in length: {lengths}; one value per row each")
    n_rows = next(iter(lengths.values()), 0)
    free = kinds is None or not required
    features: list[FeatureProfile] = []
    left_out: list[LeftOut] = []
    problems: list[str] = []
    wanted: Mapping[str, Kind | None] = dict.fromkeys(columns) if kinds is None else dict(kinds)
    for name, asked in wanted.items():
        try:
            if name not in columns:
                raise _Unusable("the reference has no such column")
            kind, reason = (asked, "") if asked is not None else infer_kind(columns[name])
            if kind is None:
                raise _Unusable(reason)
            if kind == "numeric":
                features.append(_fit_numeric(name, columns[name], slots))
            else:
                features.append(_fit_categorical(name, kind, columns[name], max_categories))
        except _Unusable as unusable:
            if free:
                left_out.append(LeftOut(name, str(unusable)))
            else:
                problems.append(f"feature {name!r}: {unusable}")
    if problems:
        raise ProfileError(
            "the reference cannot serve these features:\n  " + "\n  ".join(problems) + "\n"
            "Remove them from `features`, correct their kind, or fit on rows that have values."
        )
    if not features and not vectors:
        said = "; ".join(f"{entry.name!r}: {entry.reason}" for entry in left_out)
        raise ProfileError(
            f"no column of the reference ({n_rows} rows) can be monitored"
            + (f" ({said})" if said else "")
            + f"; at least {MIN_REFERENCE} rows with a value of a feature are needed"
        )
    return Profile([*features, *vectors], n_rows), tuple(left_out)


class _Unusable(Exception):
    """Why one column cannot be a feature."""


def split_numbers(
    column: Column,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Values as float64 and which of them are missing.

    In a list, None is missing and NaN is a value that is not a number; an array of floats has no
    None, so there NaN is missing (as in pandas).

    Raises:
        TypeError: a value is neither a number nor None; names its position.
    """
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        values = column.astype(np.float64)
        return values, np.isnan(values)
    missing = np.fromiter((v is None for v in column), np.bool_, len(column))
    values = np.empty(len(column), np.float64)
    for i, v in enumerate(column):
        if v is None:
            values[i] = np.nan
        elif isinstance(v, (bool, np.bool_)) or not isinstance(v, (int, float, np.number)):
            raise TypeError(f"row {i} holds {type(v).__name__} {str(v)[:40]!r}, not a number")
        else:
            values[i] = _float(v)
    return values, missing


def _float(value: Any) -> float:
    """A number as a float, infinite where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _fit_numeric(
    name: str, column: Column, slots: int | None
) -> NumericProfile | CategoricalProfile:
    try:
        values, missing = split_numbers(column)
    except TypeError as error:
        raise _Unusable(f"kind numeric, but {error}") from None
    finite = np.sort(values[np.isfinite(values)])
    if len(finite) == 0:
        raise _Unusable(f"all of its {len(values)} values are missing or not finite")
    if len(finite) < MIN_REFERENCE:
        raise _Unusable(f"only {len(finite)} finite values; at least {MIN_REFERENCE} are needed")
    # -0.0 and 0.0 are one value to every comparison, so they must be one slot.
    distinct = np.unique(finite + 0.0)
    if len(distinct) == 1:
        return _fit_constant(name, values)
    if slots is not None and len(distinct) > slots:
        picks = np.linspace(0, len(finite) - 1, slots).round().astype(np.int64)
        distinct = np.unique(finite[picks] + 0.0)
    through_gap = np.append(np.searchsorted(finite, distinct, "left"), len(finite))
    through_value = np.searchsorted(finite, distinct, "right")
    in_gap = through_gap - np.concatenate([[0], through_value])
    resolution = float(in_gap.max()) / len(finite)
    mean, sd = mean_and_sd(finite)
    if not (math.isfinite(mean) and math.isfinite(sd) and sd > 0):
        raise _Unusable(f"its spread (sd {sd!r}) cannot be represented")
    return NumericProfile(
        name=name,
        values=distinct,
        through_gap=through_gap.astype(np.int64),
        through_value=through_value.astype(np.int64),
        n=len(finite),
        missing=int(missing.sum()),
        nan=int((np.isnan(values) & ~missing).sum()),
        pos_inf=int(np.isposinf(values).sum()),
        neg_inf=int(np.isneginf(values).sum()),
        mean=mean,
        sd=sd,
        resolution=resolution,
    )


def _fit_constant(name: str, values: npt.NDArray[np.float64]) -> CategoricalProfile:
    """A numeric column of one finite value. Infinite ones are categories beside it."""
    counts = Counter(n for v in values.tolist() if (n := category_name(v)) is not None)
    categories = tuple(sorted(counts))
    return CategoricalProfile(
        name=name,
        kind="categorical",
        categories=categories,
        counts=np.array([counts[c] for c in categories], np.int64),
        missing=len(values) - sum(counts.values()),
        constant=float(values[np.isfinite(values)][0] + 0.0),
    )


def mean_and_sd(finite: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) of numbers that are not all equal.

    In units of a power of two near the largest, which is exact: neither a sum of 1e308 overflows,
    nor a square of 1e-200 vanishes. Relative to one of them: 1e9 + N(0,1) does not cancel.
    """
    exponent = int(np.frexp(np.abs(finite).max())[1])
    y = np.ldexp(finite, -exponent)
    mean = y[0] + (y - y[0]).mean()
    spread = y - mean
    largest = np.abs(spread).max()
    sd = largest * np.sqrt(((spread / largest) ** 2).sum() / (len(y) - 1))
    with np.errstate(over="ignore"):
        return float(np.ldexp(mean, exponent)), float(np.ldexp(sd, exponent))


def _fit_categorical(
    name: str, kind: Kind, column: Column, max_categories: int
) -> CategoricalProfile:
    raw: Sequence[Any] = column.tolist() if isinstance(column, np.ndarray) else column
    names = [category_name(v) for v in raw]
    if kind == "boolean":
        names = [None if v is None else BOOLEAN_NAMES.get(v, v) for v in names]
        strange = next((v for v in names if v is not None and v not in ("true", "false")), None)
        if strange is not None:
            raise _Unusable(f"kind boolean, but a value is {strange!r}")
    counts = Counter(v for v in names if v is not None)
    n = sum(counts.values())
    if n == 0:
        raise _Unusable(f"all of its {len(names)} values are missing")
    if n < MIN_REFERENCE:
        raise _Unusable(f"only {n} values; at least {MIN_REFERENCE} are needed")
    if len(counts) > max_categories:
        raise _Unusable(
            f"{len(counts)} categories; at most max_categories = {max_categories} are tested "
            "(an identifier, a text or a number cannot be a category)"
        )
    categories = tuple(sorted(counts))
    return CategoricalProfile(
        name=name,
        kind=kind,
        categories=categories,
        counts=np.array([counts[c] for c in categories], np.int64),
        missing=len(names) - n,
    )
