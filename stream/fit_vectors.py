"""The vector features of a reference: embedded once for all units, fitted for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..detectors.profile import split_numbers
from ..detectors.vectors import MAX_ROWS, VectorProfile, VectorSpec, fit_vectors
from ..schemas.errors import ProfileError, show_value
from .config.document import ModelConfig
from .embed import LARGEST, embed, encoder_of

# Texts embedded between two steps of the progress bar.
_STEP = 256


@dataclass(frozen=True)
class _Made:
    """Vectors (k, d_in) of some rows: `at`, (k,) ascending. tried: the rows that were looked at."""

    spec: VectorSpec
    encoder: str
    tried: npt.NDArray[np.intp]
    at: npt.NDArray[np.intp]
    vectors: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReferenceVectors:
    """Feature → its vectors of the reference rows."""

    made: Mapping[str, _Made]

    def profiles(self, rows: Sequence[int], ert_per_row: float | None) -> list[VectorProfile]:
        """The features' profiles from some of the rows.

        Args:
            ert_per_row: events to a feature's false alarm, per row: a unit with half of the rows
                sees half of the events.

        Raises:
            ProfileError: too few rows, or vectors that do not vary.
        """
        wanted = np.array(rows, np.intp)
        found: list[VectorProfile] = []
        for name, made in self.made.items():
            mine = np.isin(made.at, wanted, assume_unique=True)
            tried = int(np.isin(wanted, made.tried, assume_unique=True).sum())
            ert = None if ert_per_row is None else ert_per_row * len(rows) * made.spec.share
            found.append(
                fit_vectors(
                    name,
                    made.spec,
                    made.vectors[mine],
                    missing=tried - int(mine.sum()),
                    encoder=made.encoder,
                    ert=ert,
                )
            )
        return found


def reference_vectors(
    model: ModelConfig,
    columns: Mapping[str, Sequence[Any]],
    units: Sequence[Sequence[int]],
    progress: Callable[[str, float], None],
) -> ReferenceVectors:
    """The vectors of a model's rows, of at most so many rows of each unit as a test uses.

    Raises:
        ProfileError: a column is missing, or holds something else than texts, vectors or numbers.
    """
    if not model.vectors:
        return ReferenceVectors({})
    rng = np.random.default_rng(0)
    chosen: set[int] = set()
    for rows in units:
        at = np.array(rows, np.intp)
        chosen |= set((at if len(at) <= MAX_ROWS else rng.choice(at, MAX_ROWS, False)).tolist())
    tried = np.array(sorted(chosen), np.intp)
    made: dict[str, _Made] = {}
    for name, spec in model.vectors.items():
        for column in spec.members or (name,):
            if column not in columns:
                raise ProfileError(
                    f"feature {name!r}: the reference has no column {column!r}; check "
                    "`input.fields`, or take it out of driftline.yaml"
                )
        if spec.kind == "text":
            made[name] = _texts(name, spec, columns[name], tried, progress)
        elif spec.kind == "vector":
            made[name] = _lists(name, spec, columns[name], tried)
        else:
            made[name] = _group(name, spec, columns, tried)
    return ReferenceVectors(made)


def _texts(
    name: str,
    spec: VectorSpec,
    column: Sequence[Any],
    tried: npt.NDArray[np.intp],
    progress: Callable[[str, float], None],
) -> _Made:
    rows = [i for i in tried.tolist() if column[i] is not None]
    for i in rows:
        if not isinstance(column[i], str):
            raise ProfileError(
                f"feature {name!r} is a text, but row {i} holds {show_value(column[i])}; correct "
                "its kind, or take it out"
            )
    encoder = encoder_of(spec)
    parts: list[npt.NDArray[np.float32]] = []
    at: list[int] = []
    for start in range(0, len(rows), _STEP):
        some = rows[start : start + _STEP]
        vectors, failed = embed(encoder, [column[i] for i in some])
        fine = [k for k in range(len(some)) if k not in failed]
        parts.append(vectors[fine])
        at += [some[k] for k in fine]
        progress(name, min(1.0, (start + _STEP) / len(rows)))
    empty = np.empty((0, encoder.dimension), np.float32)
    return _Made(
        spec, encoder.identity, tried, np.array(at, np.intp), np.concatenate([*parts, empty])
    )


def _lists(
    name: str, spec: VectorSpec, column: Sequence[Any], tried: npt.NDArray[np.intp]
) -> _Made:
    rows = [i for i in tried.tolist() if column[i] is not None]
    for i in rows:
        value = column[i]
        if not isinstance(value, list) or not all(type(x) in (int, float) for x in value):
            raise ProfileError(
                f"feature {name!r} is a vector, but row {i} holds {show_value(value)}; a vector is "
                "a list of numbers: correct its kind, or take it out"
            )
    lengths = Counter(len(column[i]) for i in rows)
    wanted = spec.dimension or (lengths.most_common(1)[0][0] if lengths else 1)
    fine = [i for i in rows if len(column[i]) == wanted]
    if 2 * len(fine) < len(rows):
        raise ProfileError(
            f"feature {name!r}: only {len(fine)} of {len(rows)} vectors have {wanted} numbers "
            f"(others: {dict(lengths)}); one model makes vectors of one length"
        )
    vectors = np.array([column[i] for i in fine], np.float64).reshape(len(fine), wanted)
    whole = (np.abs(vectors) <= LARGEST).all(axis=1)
    at = np.array(fine, np.intp)[whole]
    return _Made(spec, "", tried, at, vectors[whole].astype(np.float32))


def _group(
    name: str,
    spec: VectorSpec,
    columns: Mapping[str, Sequence[Any]],
    tried: npt.NDArray[np.intp],
) -> _Made:
    rows = tried.tolist()
    numbers: list[npt.NDArray[np.float64]] = []
    for member in spec.members:
        try:
            numbers.append(split_numbers([columns[member][i] for i in rows])[0])
        except TypeError as error:
            raise ProfileError(
                f"group {name!r}: {member!r} must be numeric, but {error}; take it out"
            ) from None
    vectors = np.stack(numbers, axis=1)
    whole = (np.abs(vectors) <= LARGEST).all(axis=1)
    return _Made(spec, "", tried, tried[whole], vectors[whole].astype(np.float32))
