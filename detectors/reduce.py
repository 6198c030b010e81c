"""Long vectors become short ones before they are tested: the same row the same bits, in any batch.

A matrix product's last bits depend on the rows beside a row and on the processor, also when all
products have one shape. Here products are sums of whole numbers below 2^53, which float64 adds
without rounding in any order: see `_product`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..schemas.errors import EncodingError, ProfileError
from .kernels import as_rows

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[Any]]
Kind = Literal["none", "bbsd", "pca", "autoencoder"]

# Rows in float64 at a time; results do not depend on it.
_ROWS_AT_ONCE = 4_096
# Bits of a number of a row, relative to the row's largest: those of float32.
_ROW_BITS = 24
_HIDDEN = 256
_RULE = "write none, bbsd, pca K, autoencoder K or autoencoder HIDDEN K, such as pca 32"


class Reducer(Protocol):
    """Rows of d_in numbers become rows of d_out."""

    kind: ClassVar[Kind]

    @property
    def d_in(self) -> int: ...

    @property
    def d_out(self) -> int: ...

    def reduce(self, x: npt.ArrayLike) -> Float32:
        """(n, d_in) → (n, d_out); a row's result is the same bits whatever the other rows.

        Raises:
            ValueError: `x` has another shape.
            EncodingError: rows with NaN or infinity, or whose result would overflow.
        """
        ...

    def to_parts(self) -> tuple[dict[str, Any], Arrays]:
        """Metadata (JSON-able) and arrays, from which `reducer_from_parts` makes an equal one."""
        ...


@dataclass(frozen=True, slots=True)
class ReducerSpec:
    """What a user asked for. k: numbers per row; hidden: width of the autoencoder's first layer."""

    kind: Kind
    k: int = 0
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Unreduced:
    """The vectors as they are: embeddings that are short enough."""

    kind: ClassVar[Kind] = "none"
    d_in: int

    @property
    def d_out(self) -> int:
        return self.d_in

    def reduce(self, x: npt.ArrayLike) -> Float32:
        rows = _rows(x, self.d_in)
        return _finite(rows, rows).copy()

    def to_parts(self) -> tuple[dict[str, Any], Arrays]:
        return {"kind": self.kind, "d_in": self.d_in}, {}


@dataclass(frozen=True, slots=True)
class BlackBox(Unreduced):
    """A classifier's probabilities or scores per class, taken as the reduced input itself.

    Choose it where such scores are at hand: what moves them matters to the model. It misses a
    change that the classifier does not react to.

    Source: Lipton, Wang & Smola (2018), "Detecting and correcting for label shift with black box
    predictors"; Rabanser, Günnemann & Lipton (2019).
    """

    kind: ClassVar[Kind] = "bbsd"


@dataclass(frozen=True, slots=True, eq=False)
class PCA:
    """The k directions in which the reference varies most.

    Choose it first. It misses a change in directions in which the reference hardly varies.
    centre: (d_in,) float32. components: (d_in, k) float32, orthonormal columns, by falling
    variance; the entry of largest size in each is positive.
    """

    kind: ClassVar[Kind] = "pca"
    centre: Float32
    components: Float32

    @property
    def d_in(self) -> int:
        return self.components.shape[0]

    @property
    def d_out(self) -> int:
        return self.components.shape[1]

    def reduce(self, x: npt.ArrayLike) -> Float32:
        return _reduce(self, _rows(x, self.d_in))

    def apply(self, rows: Float64) -> Float64:
        return _product(rows - self.centre, self.components)

    def to_parts(self) -> tuple[dict[str, Any], Arrays]:
        return {"kind": self.kind}, {"centre": self.centre, "components": self.components}


@dataclass(frozen=True, slots=True, eq=False)
class Autoencoder:
    """The encoding half of an autoencoder that was never trained: Linear, ReLU, Linear.

    A random map that keeps some of everything: choose it where a change may lie outside of the
    directions in which the reference varies. Inputs are standardised by the reference's mean and
    standard deviation, each dimension on its own, since a bias drawn for inputs of size 1 would
    be nothing or all beside others. Weights and biases are uniform in ±1/√(inputs of the layer),
    as torch's Linear draws them, by `seed`.

    centre, scale: (d_in,). weights_1: (d_in, hidden), biases_1: (hidden,), weights_2: (hidden, k),
    biases_2: (k,); all float32.

    Source: Rabanser, Günnemann & Lipton (2019), "Failing loudly", where it is called UAE.
    """

    kind: ClassVar[Kind] = "autoencoder"
    centre: Float32
    scale: Float32
    weights_1: Float32
    biases_1: Float32
    weights_2: Float32
    biases_2: Float32

    @property
    def d_in(self) -> int:
        return self.weights_1.shape[0]

    @property
    def d_out(self) -> int:
        return self.weights_2.shape[1]

    def reduce(self, x: npt.ArrayLike) -> Float32:
        return _reduce(self, _rows(x, self.d_in))

    def apply(self, rows: Float64) -> Float64:
        hidden = _product((rows - self.centre) / self.scale, self.weights_1) + self.biases_1
        return _product(np.maximum(hidden, 0.0), self.weights_2) + self.biases_2

    def to_parts(self) -> tuple[dict[str, Any], Arrays]:
        return {"kind": self.kind}, {name: getattr(self, name) for name in _AUTOENCODER}


_AUTOENCODER = ("centre", "scale", "weights_1", "biases_1", "weights_2", "biases_2")


def parse_reducer(spec: object) -> ReducerSpec:
    """`none`, `bbsd`, `pca 32`, `autoencoder 32` (256 hidden) or `autoencoder 256 32`.

    Raises ValueError, whose message has the rule and an example, for anything else.

    >>> parse_reducer("autoencoder 32")
    ReducerSpec(kind='autoencoder', k=32, hidden=256)
    """
    text = " ".join(spec.split()).lower() if isinstance(spec, str) else ""
    if text in ("none", "bbsd"):
        return ReducerSpec("none" if text == "none" else "bbsd")
    if match := re.fullmatch(r"pca ([1-9]\d{0,4})", text):
        return ReducerSpec("pca", int(match[1]))
    if match := re.fullmatch(r"autoencoder (?:([1-9]\d{0,4}) )?([1-9]\d{0,4})", text):
        return ReducerSpec("autoencoder", int(match[2]), int(match[1] or _HIDDEN))
    raise ValueError(f"{spec!r} is no way to reduce vectors; {_RULE}")


def make_reducer(spec: str, reference_vectors: npt.ArrayLike, seed: int = 0) -> Reducer:
    """The reducer that `spec` asks for, fitted on the reference (n, d), in float64.

    Args:
        seed: draws the autoencoder's weights; the others need none.

    Raises:
        ValueError: the spec is none of `parse_reducer`'s, the reference has another shape, no
            rows, or a value that is not finite, or it spans fewer than k directions.

    >>> rng = np.random.default_rng(0)
    >>> reference = rng.normal(size=(500, 6)) * [9, 5, 1, 1, 1, 1]
    >>> reducer = make_reducer("pca 2", reference)
    >>> reducer.reduce(reference[:10]).shape
    (10, 2)
    """
    wanted = parse_reducer(spec)
    rows = as_rows(reference_vectors, "reference")
    n, d = rows.shape
    if n == 0:
        raise ValueError("the reference has no rows; a reducer needs at least one")
    if wanted.kind == "none":
        return Unreduced(d)
    if wanted.kind == "bbsd":
        return BlackBox(d)
    centre = rows.mean(axis=0)
    if wanted.kind == "autoencoder":
        rng = np.random.default_rng(seed)
        scale = rows.std(axis=0)
        # A dimension that never varies has no scale; only its centre is taken off.
        scale[scale <= 1e-9 * np.maximum(np.abs(centre), 1e-30)] = 1.0
        first, second = 1.0 / np.sqrt(d), 1.0 / np.sqrt(wanted.hidden)
        return Autoencoder(
            *(
                np.ascontiguousarray(part, np.float32)
                for part in (
                    centre,
                    scale,
                    rng.uniform(-first, first, (d, wanted.hidden)),
                    rng.uniform(-first, first, wanted.hidden),
                    rng.uniform(-second, second, (wanted.hidden, wanted.k)),
                    rng.uniform(-second, second, wanted.k),
                )
            )
        )
    _, sizes, directions = np.linalg.svd(rows - centre, full_matrices=False)
    spanned = int(np.count_nonzero(sizes > 1e-9 * max(sizes[0], np.abs(rows).max())))
    if wanted.k > spanned:
        raise ValueError(
            f"{spec!r} asks for {wanted.k} directions; the reference ({n} rows of {d}) varies in "
            f"{spanned}: ask for at most so many, or give more rows"
        )
    components = directions[: wanted.k].T
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, np.arange(wanted.k)])
    return PCA(centre.astype(np.float32), np.ascontiguousarray(components, np.float32))


def reducer_from_parts(meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Reducer:
    """The inverse of `to_parts`.

    Raises:
        ProfileError: the parts are of no reducer, or do not belong together.
    """
    kind = meta.get("kind")
    try:
        if kind in ("none", "bbsd"):
            return (Unreduced if kind == "none" else BlackBox)(int(meta["d_in"]))
        if kind == "pca":
            pca = PCA(_part(arrays, "centre", 1), _part(arrays, "components", 2))
            _agree(pca.centre.shape == (pca.d_in,))
            return pca
        if kind == "autoencoder":
            net = Autoencoder(*(_part(arrays, n, 1 + n.startswith("w")) for n in _AUTOENCODER))
            _agree(net.centre.shape == net.scale.shape == (net.d_in,))
            _agree(net.biases_1.shape == net.weights_2.shape[:1] == net.weights_1.shape[1:])
            _agree(net.biases_2.shape == (net.d_out,))
            return net
    except (KeyError, ValueError, TypeError) as error:
        raise ProfileError(
            f"the profile's reducer {kind!r} is damaged ({error}); make it again: driftline fit"
        ) from None
    raise ProfileError(
        f"the profile's reducer is {kind!r}, which this version does not know; make the profile "
        "again with this version: driftline fit"
    )


def _part(arrays: Mapping[str, npt.NDArray[Any]], name: str, n_axes: int) -> Float32:
    part = np.ascontiguousarray(arrays[name], np.float32)
    if part.ndim != n_axes or part.size == 0 or not np.isfinite(part).all():
        raise ValueError(f"{name} has shape {part.shape}, or a value that is not finite")
    return part


def _agree(shapes_agree: bool) -> None:
    if not shapes_agree:
        raise ValueError("the shapes of its arrays do not belong together")


def _rows(x: npt.ArrayLike, d: int) -> Float32:
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(x, np.float32)
    if rows.ndim != 2 or rows.shape[1] != d:
        raise ValueError(
            f"the vectors have shape {rows.shape}; the reducer was fitted on (rows, {d}): both "
            "must come from the same encoder"
        )
    return rows


def _finite(rows: Float32, reduced: Float32) -> Float32:
    """`reduced`, unless a row of it or of `rows` holds NaN or infinity."""
    failures = {
        int(i): "the vector holds NaN or infinity"
        for i in np.flatnonzero(~np.isfinite(rows).all(axis=1))
    }
    for i in np.flatnonzero(~np.isfinite(reduced).all(axis=1)).tolist():
        failures.setdefault(i, "the vector is so large that the reduced one overflows")
    if failures:
        raise EncodingError(failures, len(rows))
    return reduced


def _reduce(reducer: PCA | Autoencoder, rows: Float32) -> Float32:
    out = np.empty((len(rows), reducer.d_out), np.float32)
    with np.errstate(over="ignore"):
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE].astype(np.float64)
            part[~np.isfinite(part)] = 0.0  # such rows are refused below
            out[start : start + len(part)] = reducer.apply(part)
    return _finite(rows, out)


def _product(rows: Float64, weights: Float32) -> Float64:
    """rows @ weights, to 24 bits of each row's largest number, and independent of the rest.

    Each row and the weights are rounded to whole numbers times a power of two, so few bits of them
    that d products add up to less than 2^53. Of the weights, 20 bits remain at d = 512, 17 at 4,096.
    """
    weight_bits = 53 - _ROW_BITS - (len(weights) - 1).bit_length()
    weight_shift = weight_bits - int(np.frexp(np.abs(weights).max())[1])
    shift = _ROW_BITS - np.frexp(np.abs(rows).max(axis=1, initial=0.0))[1][:, None]
    whole = np.rint(np.ldexp(weights.astype(np.float64), weight_shift))
    return np.ldexp(np.rint(np.ldexp(rows, shift)) @ whole, -shift - weight_shift)
