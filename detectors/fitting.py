"""Reference rows to a profile: what each column is, and whether it can be monitored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..schemas.errors import ProfileError
from .multivariate import Multivariate, why_not
from .numeric import ONE
from .profile import (
    BOOLEAN_NAMES,
    CategoricalProfile,
    Column,
    FeatureProfile,
    Kind,
    NumericProfile,
    Profile,
    category_name,
    split_numbers,
)
from .scores import Scores
from .vectors import VectorProfile

_ROWS_AT_ONCE: Final = 50_000
# The fewest usable reference values a feature is accepted with. Below it no test has power: with 20
# values a two-sample KS test at level 1e-4 needs a distance of about 0.5 however large the window.
MIN_REFERENCE: Final = 20


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
    multivariate: bool = False,
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
        multivariate: whether the numeric features can be tested together, too, where there are 2 to
            500 and five rows for each.

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
    together = None
    numeric = [f for f in features if isinstance(f, NumericProfile)]
    if multivariate and why_not(len(numeric), n_rows) is None:
        together = Multivariate.of(_scores(numeric, columns, n_rows))
    return Profile([*features, *vectors], n_rows, multivariate=together), tuple(left_out)


def _scores(
    numeric: Sequence[NumericProfile], columns: Mapping[str, Column], n_rows: int
) -> Iterator[npt.NDArray[np.float64]]:
    """Parts (…, D) of the rows' normal scores, 0 for what is no finite number."""
    scores = [Scores.of(f.through).cells[:, 0] / ONE for f in numeric]
    for a in range(0, n_rows, _ROWS_AT_ONCE):
        found = np.zeros((min(_ROWS_AT_ONCE, n_rows - a), len(numeric)))
        for j, f in enumerate(numeric):
            values, _ = split_numbers(columns[f.name][a : a + _ROWS_AT_ONCE])
            finite = np.isfinite(values)
            place = np.searchsorted(f.values, values[finite], "left")
            place += np.searchsorted(f.values, values[finite], "right")
            found[finite, j] = scores[j][place]
        yield found


class _Unusable(Exception):
    """Why one column cannot be a feature."""


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
