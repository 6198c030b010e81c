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

    all numeric features together (`multivariate`): none, since their own say it all

Counts *on* and *between* the sorted reference values are all that the empirical
distribution functions of both samples need at every point where either can jump, so a
Kolmogorov–Smirnov test made from them is the one made from the raw values, ties included.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ..schemas.errors import ProfileError
from .multivariate import MULTIVARIATE, Multivariate
from .vectors import VectorProfile

Kind = Literal["numeric", "categorical", "boolean", "text", "vector", "group", "multivariate"]
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
    def through(self) -> npt.NDArray[np.int64]:
        """(2U + 1,) finite reference values in each gap and value, in order, or before it."""
        found = np.empty(self.n_finite_cells, np.int64)
        found[0::2], found[1::2] = self.through_gap, self.through_value
        return found

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

    @property
    def classes(self) -> tuple[str, ...]:
        """(C + 2,) what its cells are called."""
        return (*self.categories, "(unseen)", "(missing)")

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(C + 2,) reference rows in each cell."""
        return np.append(self.counts, [self.unseen, self.missing])

    def name_of(self, value: Scalar) -> str | None:
        """The category that a value stands for in this feature, None where it stands for none."""
        if self.constant is not None and isinstance(value, int | np.integer):
            value = as_float(value)  # Beyond 2**53 a whole number and its float differ in text.
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
    multivariate: the numeric features together, None where they cannot be tested so; tests know
    them by the index after the last feature's.
    """

    def __init__(
        self,
        features: Sequence[FeatureProfile],
        n_rows: int,
        ident: str | None = None,
        multivariate: Multivariate | None = None,
    ) -> None:
        numeric = [f for f in features if isinstance(f, NumericProfile)]
        categorical = [f for f in features if isinstance(f, CategoricalProfile)]
        vectors = [f for f in features if isinstance(f, VectorProfile)]
        self.features: tuple[FeatureProfile, ...] = (*numeric, *categorical, *vectors)
        self.n_numeric = len(numeric)
        self.n_categorical = len(categorical)
        self.n_rows = n_rows
        self.multivariate = multivariate
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

    def name_of(self, index: int) -> str:
        """What verdicts call a feature, or all numeric ones together."""
        return MULTIVARIATE if index == len(self.features) else self.features[index].name

    def kind_of(self, index: int) -> Kind:
        return "multivariate" if index == len(self.features) else self.features[index].kind

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
        whole = {"format": FORMAT, "n_rows": self.n_rows, "features": meta}
        if self.multivariate is not None:
            arrays["multivariate.products"] = self.multivariate.products
            whole["multivariate"] = {"n": self.multivariate.n}
        return whole, arrays

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
            multivariate = None
            if "multivariate" in meta:
                products = np.asarray(arrays["multivariate.products"], np.int32)
                d = sum(isinstance(f, NumericProfile) for f in features)
                if products.shape != (d, d):
                    raise ValueError(f"{products.shape} products of {d} numeric features")
                multivariate = Multivariate(products, int(meta["multivariate"]["n"]))
            return Profile(features, int(meta["n_rows"]), multivariate=multivariate)
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


def as_float(value: Any) -> float:
    """A number as a float, infinite where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


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
            values[i] = as_float(v)
    return values, missing
