"""Reducers: fitted once, the same row the same bits in any batch, and back from their parts."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from driftline.detectors.reduce import (
    PCA,
    Reducer,
    ReducerSpec,
    make_reducer,
    parse_reducer,
    reducer_from_parts,
)
from driftline.schemas.errors import EncodingError, ProfileError

SPECS = ["none", "bbsd", "pca 5", "pca 32", "autoencoder 32", "autoencoder 7 3"]


def vectors(n: int, d: int = 48, seed: int = 0) -> npt.NDArray[np.float32]:
    """Rows that vary in every direction, in each by another amount."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(d, d)) * np.linspace(0.1, 3.0, d)
    return (rng.normal(size=(n, d)) @ mixed.T + 5.0).astype(np.float32)


def made(spec: str, d: int = 48) -> Reducer:
    return make_reducer(spec, vectors(400, d), seed=1)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("d", [32, 37, 384])
def test_neighbours_order_and_batches_do_not_change_a_bit(spec: str, d: int) -> None:
    reducer = made(spec, d)
    x = vectors(700, d, seed=2)
    expected = reducer.reduce(x)
    assert expected.shape == (700, reducer.d_out)
    assert expected.dtype == np.float32
    order = np.random.default_rng(3).permutation(700)
    for cut in (1, 13, 255, 256, 257, 700):
        for start in range(0, 700 if cut > 1 else 40, cut):
            chosen = order[start : start + cut]
            assert reducer.reduce(x[chosen]).tobytes() == expected[chosen].tobytes()
    # Views that are not contiguous, and rows given in float64, are the same rows.
    assert reducer.reduce(np.asfortranarray(x)).tobytes() == expected.tobytes()
    assert reducer.reduce(x.astype(np.float64)[::2]).tobytes() == expected[::2].tobytes()


@pytest.mark.parametrize("spec", SPECS)
def test_parts_make_the_same_reducer(spec: str) -> None:
    reducer = made(spec)
    meta, arrays = reducer.to_parts()
    again = reducer_from_parts(json.loads(json.dumps(meta)), arrays)
    x = vectors(20, seed=4)
    assert again.reduce(x).tobytes() == reducer.reduce(x).tobytes()
    assert (again.kind, again.d_in, again.d_out) == (reducer.kind, 48, reducer.d_out)
    assert again.kind == spec.split()[0]


@pytest.mark.parametrize("spec", SPECS)
def test_input_is_left_alone_and_empty_batches_are_fine(spec: str) -> None:
    reducer = made(spec)
    x = vectors(10)
    before = x.copy()
    out = reducer.reduce(x)
    out[:] = 0.0
    assert x.tobytes() == before.tobytes()
    assert reducer.reduce(x[:0]).shape == (0, reducer.d_out)


def test_pca_is_the_projection_on_the_covariance_s_first_eigenvectors() -> None:
    reference, x = vectors(400), vectors(50, seed=5)
    found = make_reducer("pca 6", reference).reduce(x)
    exact = reference.astype(np.float64)
    values, directions = np.linalg.eigh(np.cov(exact.T))
    directions = directions[:, np.argsort(-values)[:6]]
    expected = (x - exact.mean(axis=0)) @ directions
    assert np.abs(np.abs(found) - np.abs(expected)).max() < 1e-3
    variance = make_reducer("pca 6", reference).reduce(reference).var(axis=0, ddof=1)
    np.testing.assert_allclose(variance, np.sort(values)[::-1][:6], rtol=1e-4)


def test_pca_s_signs_do_not_depend_on_the_order_of_the_reference() -> None:
    reference, x = vectors(400), vectors(50, seed=5)
    one = make_reducer("pca 6", reference).reduce(x)
    other = make_reducer("pca 6", reference[::-1]).reduce(x)
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_autoencoder_is_linear_relu_linear_on_standardised_rows() -> None:
    reference, x = vectors(400), vectors(50, seed=5)
    reducer = make_reducer("autoencoder 20 4", reference, seed=3)
    _, arrays = reducer.to_parts()
    a = {name: value.astype(np.float64) for name, value in arrays.items()}
    z = (x - reference.astype(np.float64).mean(axis=0)) / reference.astype(np.float64).std(axis=0)
    hidden = np.maximum(z @ a["weights_1"] + a["biases_1"], 0.0)
    expected = hidden @ a["weights_2"] + a["biases_2"]
    np.testing.assert_allclose(reducer.reduce(x), expected, atol=1e-5)
    for layer, fan_in in (("1", 48), ("2", 20)):
        drawn = np.concatenate([a[f"weights_{layer}"].ravel(), a[f"biases_{layer}"]])
        bound = fan_in**-0.5
        assert 0.9 * bound < np.abs(drawn).max() <= bound * (1 + 1e-6)
        assert abs(drawn.mean()) < 4 * bound / np.sqrt(3 * drawn.size)


def test_the_seed_decides_the_autoencoder() -> None:
    x = vectors(10)
    one, same, other = (make_reducer("autoencoder 4", vectors(50), s).reduce(x) for s in (1, 1, 2))
    assert one.tobytes() == same.tobytes() != other.tobytes()


@pytest.mark.parametrize("d", [1, 48, 5_000])
def test_no_product_is_rounded_before_its_end(d: int) -> None:
    """The largest numbers that there can be: all at their bound, all of one sign."""
    weights = np.ones((d, 1), np.float32)
    reducer = PCA(np.zeros(d, np.float32), weights * np.float32(1 - 2**-24))
    x = np.full((1, d), 1 - 2**-24, np.float32)
    bits = 29 - (d - 1).bit_length()
    exact = d * ((1 - 2**-24) * 2**24) * round((1 - 2**-24) * 2**bits)
    assert exact <= 2**53
    assert float(reducer.reduce(x)[0, 0]) == float(np.float32(exact * 2.0 ** -(24 + bits)))


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_rows_of_any_size_keep_their_digits(size: float) -> None:
    x = vectors(30) - np.float32(5.0)
    reducer = PCA(np.zeros(48, np.float32), np.linalg.qr(x.T)[0][:, :4].copy())
    expected = (x * size).astype(np.float32).astype(np.float64) @ reducer.components
    largest = np.abs(x).max(axis=1, keepdims=True) * size
    assert np.abs((reducer.reduce(x * np.float32(size)) - expected) / largest).max() < 2e-5


def test_a_dimension_that_never_varies_is_no_trouble() -> None:
    reference = vectors(100)
    reference[:, 3] = 0.1
    for spec in SPECS:
        assert np.isfinite(make_reducer(spec, reference).reduce(reference)).all()


@pytest.mark.parametrize("spec", SPECS)
def test_rows_that_are_not_finite_are_named(spec: str) -> None:
    x = vectors(300)
    x[3, 0], x[290, 47] = np.nan, np.inf
    with pytest.raises(EncodingError, match="2 of 300 .* number 3: .* NaN or infinity") as caught:
        made(spec).reduce(x)
    assert list(caught.value.failures) == [3, 290]


def test_a_row_that_overflows_is_named() -> None:
    x = vectors(5)
    x[2] = 3e38
    x[2, ::2] *= -1
    with pytest.raises(EncodingError, match="number 2: .* overflows") as caught:
        made("pca 5").reduce(x)
    assert list(caught.value.failures) == [2]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("none", ReducerSpec("none")),
        ("bbsd", ReducerSpec("bbsd")),
        ("pca 32", ReducerSpec("pca", 32)),
        ("  PCA   8 ", ReducerSpec("pca", 8)),
        ("autoencoder 32", ReducerSpec("autoencoder", 32, 256)),
        ("autoencoder 64 8", ReducerSpec("autoencoder", 8, 64)),
    ],
)
def test_specs_are_read(spec: str, expected: ReducerSpec) -> None:
    assert parse_reducer(spec) == expected


@pytest.mark.parametrize(
    "spec", ["", "pca", "pca 0", "pca -1", "pca 2.5", "pca 3 4", "autoencoder", "umap 2", None, 32]
)
def test_other_specs_are_refused_with_the_rule(spec: object) -> None:
    with pytest.raises(ValueError, match=r"is no way to reduce vectors; .*such as pca 32"):
        parse_reducer(spec)


def test_references_that_cannot_do_name_the_reason() -> None:
    with pytest.raises(ValueError, match="asks for 49 directions; .* varies in 48"):
        make_reducer("pca 49", vectors(400))
    with pytest.raises(ValueError, match="asks for 5 directions; .*3 rows of 48.* varies in 2"):
        make_reducer("pca 5", vectors(3))
    with pytest.raises(ValueError, match="varies in 0"):
        make_reducer("pca 1", np.ones((10, 4)))
    with pytest.raises(ValueError, match="no rows"):
        make_reducer("none", np.empty((0, 4)))
    with pytest.raises(ValueError, match="row 1 of the reference"):
        make_reducer("none", [[1.0], [np.nan]])


@pytest.mark.parametrize("spec", SPECS)
def test_vectors_of_another_length_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 47\); .* \(rows, 48\)"):
        made(spec).reduce(vectors(5, 47))


def test_damaged_parts_are_refused() -> None:
    meta, arrays = made("autoencoder 7 3").to_parts()
    with pytest.raises(ProfileError, match="does not know"):
        reducer_from_parts({"kind": "umap"}, {})
    with pytest.raises(ProfileError, match="damaged"):
        reducer_from_parts({"kind": "none"}, {})
    for name, value in arrays.items():
        with pytest.raises(ProfileError, match="damaged"):
            reducer_from_parts(meta, {k: v for k, v in arrays.items() if k != name})
        with pytest.raises(ProfileError, match="damaged"):
            reducer_from_parts(meta, {**arrays, name: value[:-1]})
        with pytest.raises(ProfileError, match="damaged"):
            reducer_from_parts(meta, {**arrays, name: value * np.float32(np.nan)})


def test_the_example_in_the_documentation_is_true() -> None:
    path = Path(__file__).parent.parent / "docs" / "text.md"
    found = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert found.attempted > 4
    assert found.failed == 0
