"""Features that are vectors: embedded texts, vectors an event carries, groups of numbers.

What a pane keeps of them is the vectors themselves, in the order of (event time, id), so that a
test that looks at every event sees the same sequence however the events came. Above a stated number
a pane keeps a sample, chosen by a digest of the id: which events are in it depends on the ids
alone, and the sample of a union is the sample of the samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..schemas.errors import ProfileError
from .mmd_fit import Fitted
from .online_mmd import OnlineMMD
from .reduce import Reducer, make_reducer, parse_reducer, reducer_from_parts

VectorKind = Literal["text", "vector", "group"]

# Cells of a vector feature: how many events had a usable value, and how many had none.
PRESENT, WITHOUT = 0, 1
VECTOR_CELLS: Final = 2

# Reference rows that are kept: the cost of every event grows with them, its power hardly.
MAX_ROWS: Final = 4_000
# Events from one false alarm to the next, in largest windows, where nothing else is said.
DEFAULT_ERT_WINDOWS: Final = 20
DEFAULT_WINDOWS: Final = (50, 200, 800)
# One in so many reference rows is for the reducer, where it follows the rows it is fitted on so closely
# that to a test these would differ from all others: principal components.
_REDUCER_SHARE: Final = 3
# Standard deviations from the reference's mean that a group's members are cut off at.
_FURTHEST: Final = 1e9
# Looks that thresholds are simulated with, about half a minute's work; and the streams they are shared
# out among, at least and at most.
_LOOKS: Final = 1e6
_STREAMS: Final = (150, 1_000)
# Beyond it thresholds follow from those simulated for it and for a quarter of it.
_LONGEST_ERT: Final = 5_000.0


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """How a feature becomes vectors and how they are tested.

    kind: `text` (embedded by `encoder`), `vector` (carried by the event, of `dimension` numbers;
        None takes the reference's) or `group` (numeric features `members`, standardised).
    encoder, revision, pooling, max_tokens: see `driftline.detectors.encode`; of texts only.
    reduce: a reducer as in `driftline.detectors.reduce`.
    windows: sizes of the online test, in events; empty for those of 50, 200, 800 that the
        reference is large enough for. ert: expected events to a false alarm of this feature, None
        for what the budget leaves it, or 20 largest windows.
    sample: the most vectors a pane keeps. share: share of the events whose vector is taken, by id.
    include_values: whether panes and verdicts may carry texts.
    """

    kind: VectorKind
    encoder: str | None = None
    revision: str | None = None
    pooling: str = "mean"
    last_k: int = 4
    max_tokens: int = 256
    dimension: int | None = None
    members: tuple[str, ...] = ()
    reduce: str = "none"
    windows: tuple[int, ...] = ()
    ert: float | None = None
    sample: int = 500
    share: float = 1.0
    include_values: bool = False

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        return {**data, "members": list(self.members), "windows": list(self.windows)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> VectorSpec:
        tuples = {name: tuple(data[name]) for name in ("members", "windows")}
        return VectorSpec(**{**data, **tuples})


@dataclass(frozen=True, eq=False)
class VectorProfile:
    """A vector feature of the reference.

    encoder: what decides the vectors of texts (model, weights, pooling …), empty for others.
    centre, scale: (d_in,) of a group's members, empty for others.
    reducer: (n, d_in) → (n, d). mmd: the online test fitted on the reduced reference, on rows that
    the reducer was not fitted on where that makes a difference.
    n: reference rows with a vector; missing: the others.
    """

    name: str
    spec: VectorSpec
    encoder: str
    centre: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    reducer: Reducer
    mmd: Fitted
    n: int
    missing: int

    @property
    def kind(self) -> VectorKind:
        return self.spec.kind

    @property
    def n_cells(self) -> int:
        return VECTOR_CELLS

    @property
    def dimension(self) -> int:
        """Of the vectors in panes."""
        return self.mmd.reference_window.shape[1]

    @property
    def dimension_in(self) -> int:
        """Of what the event carries or the encoder makes."""
        return self.reducer.d_in

    def reduced(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n, d_in) → (n, d); a row's result does not depend on its neighbours."""
        if len(self.centre):
            standard = (vectors - self.centre) / self.scale
            vectors = np.clip(standard, -_FURTHEST, _FURTHEST).astype(np.float32)
        return self.reducer.reduce(vectors)

    def to_parts(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Metadata (JSON-able) and arrays, from which `from_parts` makes an equal profile."""
        reducer, arrays = self.reducer.to_parts()
        mmd = self.mmd
        parts = {f"reducer.{name}": array for name, array in arrays.items()}
        parts |= {
            "centre": self.centre,
            "scale": self.scale,
            "mmd.centre": mmd.centre,
            "mmd.reference_window": mmd.reference_window,
            "mmd.prefill": mmd.prefill,
            "mmd.starts": mmd.starts,
            "mmd.thresholds": mmd.thresholds,
        }
        meta = {
            "name": self.name,
            "kind": self.kind,
            "spec": self.spec.to_json(),
            "encoder": self.encoder,
            "reducer": reducer,
            "n": self.n,
            "missing": self.missing,
            "mmd": {
                "window_sizes": list(mmd.window_sizes),
                "ert": mmd.ert,
                "seed": mmd.seed,
                "n_bootstraps": mmd.n_bootstraps,
                "bandwidth": mmd.bandwidth,
                "reference_term": mmd.reference_term,
            },
        }
        return meta, parts

    @staticmethod
    def from_parts(
        meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
    ) -> VectorProfile:
        """Raises KeyError, TypeError or ValueError where parts are missing or do not fit."""
        prefix = "reducer."
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        said = {**meta["mmd"], "window_sizes": tuple(meta["mmd"]["window_sizes"])}
        fitted = Fitted(
            centre=arrays["mmd.centre"],
            reference_window=arrays["mmd.reference_window"],
            prefill=arrays["mmd.prefill"],
            starts=arrays["mmd.starts"],
            thresholds=arrays["mmd.thresholds"],
            **said,
        )
        return VectorProfile(
            name=meta["name"],
            spec=VectorSpec.from_json(meta["spec"]),
            encoder=meta["encoder"],
            centre=arrays["centre"],
            scale=arrays["scale"],
            reducer=reducer_from_parts(meta["reducer"], own),
            mmd=fitted,
            n=int(meta["n"]),
            missing=int(meta["missing"]),
        )


def fit_vectors(
    name: str,
    spec: VectorSpec,
    vectors: npt.NDArray[np.float32],
    *,
    missing: int = 0,
    encoder: str = "",
    ert: float | None = None,
    seed: int = 0,
) -> VectorProfile:
    """The profile of a vector feature from the vectors (n, d_in) of its reference rows.

    Args:
        missing: reference rows without a vector. encoder: what decides the vectors of texts.
        ert: expected events to a false alarm, where `spec` does not say it.

    Raises:
        ProfileError: too few rows for a window, an ERT that cannot be simulated, or vectors that
            are all alike.
    """
    n, d_in = vectors.shape
    if spec.dimension is not None and n and d_in != spec.dimension:
        raise ProfileError(
            f"feature {name!r}: the reference's vectors have {d_in} numbers, and `dimension` is "
            f"{spec.dimension}; correct one of them"
        )
    centre = scale = np.empty(0)
    if spec.kind == "group":
        centre, scale = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=float)
        if not (scale > 0).all():
            constant = [m for m, s in zip(spec.members, scale.tolist(), strict=True) if s <= 0]
            raise ProfileError(
                f"group {name!r}: {', '.join(constant)} is the same in all {n} reference rows; "
                "leave it out of the group"
            )
        vectors = ((vectors - centre) / scale).astype(np.float32)
    rng = np.random.default_rng(seed)
    if n > MAX_ROWS:
        vectors = vectors[np.sort(rng.choice(n, MAX_ROWS, replace=False))]
    said = ""
    try:
        sizes = spec.windows or _possible(len(vectors))
        mine = compared = vectors
        if parse_reducer(spec.reduce).kind == "pca":
            order, third = rng.permutation(len(vectors)), len(vectors) // _REDUCER_SHARE
            mine, compared = vectors[np.sort(order[:third])], vectors[np.sort(order[third:])]
            said = f" (of {len(vectors)} reference rows, {third} are for `{spec.reduce}` alone)"
        reducer = make_reducer(spec.reduce, mine, seed)
        asked = float(spec.ert or ert or DEFAULT_ERT_WINDOWS * max(sizes))
        fitted = _fitted(reducer.reduce(compared), sizes, asked, seed)
    except ValueError as error:
        raise ProfileError(f"feature {name!r}: {error}{said}") from error
    return VectorProfile(name, spec, encoder, centre, scale, reducer, fitted, n, missing)


def _possible(n: int) -> tuple[int, ...]:
    sizes = tuple(w for w in DEFAULT_WINDOWS if n >= 3 * w)
    if not sizes:
        raise ValueError(
            f"{n} reference rows have a vector; the smallest window, {DEFAULT_WINDOWS[0]} events, "
            f"needs {3 * DEFAULT_WINDOWS[0]}: fit on more rows, or name smaller `windows`"
        )
    return sizes


def _fitted(rows: npt.NDArray[np.float32], sizes: Sequence[int], ert: float, seed: int) -> Fitted:
    """The online test for an ERT of any length.

    The tail of MMD² under the null falls exponentially (it is that of a weighted sum of squares),
    so a threshold grows with the logarithm of the ERT it stands for.
    """

    def simulated(length: float) -> Fitted:
        streams = int(np.clip(_LOOKS / length, *_STREAMS))
        return OnlineMMD.fit(rows, sizes, ert=length, seed=seed, n_bootstraps=streams).fitted

    if ert <= _LONGEST_ERT:
        return simulated(ert)
    long, short = simulated(_LONGEST_ERT), simulated(_LONGEST_ERT / 4)
    growth = (long.thresholds[-1] - short.thresholds[-1]) / np.log(4)
    thresholds = long.thresholds + growth * np.log(ert / _LONGEST_ERT)
    return replace(long, ert=ert, thresholds=thresholds)


@dataclass(slots=True, eq=False)
class VectorColumn:
    """The vectors of a batch of n events.

    present: (n,) bool, which events have a usable value. at: (k,) positions of those whose vector
    was taken. rows: (k, d) float32. texts: k texts, or None where they are not to be kept.
    """

    present: npt.NDArray[np.bool_]
    at: npt.NDArray[np.intp]
    rows: npt.NDArray[np.float32]
    texts: Sequence[str] | None = None


@dataclass(slots=True, eq=False)
class VectorRows:
    """What a pane keeps of a vector feature, in the order of (event time, id, vector).

    times_ms: (k,) int64. ids: k. rows: (k, d) float32. texts: k, or none at all.
    """

    times_ms: npt.NDArray[np.int64]
    ids: Sequence[str]
    rows: npt.NDArray[np.float32]
    texts: Sequence[str] = field(default=())

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, at: npt.NDArray[np.intp]) -> VectorRows:
        texts = picked(self.texts, at) if self.texts else ()
        return VectorRows(self.times_ms[at], picked(self.ids, at), self.rows[at], texts)

    @staticmethod
    def merged(parts: Iterable[VectorRows], most: int) -> VectorRows:
        """All rows of the parts in order, or the `most` of them that the ids' digests choose."""
        listed = [p for p in parts if len(p)]
        if len(listed) == 1:
            joined = listed[0]
        else:
            joined = VectorRows(
                np.concatenate([p.times_ms for p in listed]),
                [i for p in listed for i in p.ids],
                np.concatenate([p.rows for p in listed]),
                [t for p in listed for t in p.texts],
            )
        if len(joined) > most:
            # Rows of one id stay in an order that does not depend on how they came.
            ranks = [(digest(i), i, t, r) for i, t, r in _keys(joined)]
            chosen = sorted(range(len(joined)), key=ranks.__getitem__)[:most]
            joined = joined.take(np.array(chosen, np.intp))
        order = [(t, i, r) for i, t, r in _keys(joined)]
        return joined.take(np.array(sorted(range(len(joined)), key=order.__getitem__), np.intp))


def _keys(rows: VectorRows) -> Iterable[tuple[str, int, bytes]]:
    contents = map(np.ndarray.tobytes, rows.rows)
    return zip(rows.ids, rows.times_ms.tolist(), contents, strict=True)


def picked(items: Sequence[str], at: npt.NDArray[np.intp]) -> list[str]:
    """The items at these positions."""
    return [items[int(i)] for i in at]


def digest(ident: str) -> int:
    """A number in [0, 2⁶⁴) that looks random and follows from the id alone, everywhere."""
    raw = hashlib.blake2b(ident.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(raw, "big")


def taken(ids: Sequence[str], share: float) -> npt.NDArray[np.bool_]:
    """(n,) which events a share of all takes, by their ids."""
    if share >= 1.0:
        return np.ones(len(ids), np.bool_)
    limit = int(share * 2**64)
    return np.fromiter((digest(i) < limit for i in ids), np.bool_, len(ids))
