"""SVD: every value against NumPy's decomposition and a convolution written by hand."""

import keras
import numpy as np
import pytest

from keras_shared import initializers
from keras_shared.initializers import SVD


def values_of(kernel):
    kernel = np.asarray(keras.ops.convert_to_numpy(kernel), "float64")
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)


@pytest.mark.parametrize("shape", [(6, 6), (3, 7), (7, 3), (3, 3, 2, 5), (5, 4, 2), (1, 1), (1, 4)])
def test_all_singular_values_are_the_one_that_is_asked_for(shape):
    np.testing.assert_allclose(values_of(SVD(2.5)(shape)), 2.5, rtol=1e-5)


def test_a_given_spectrum():
    wanted = [4.0, 2.0, 1.0, 0.0]
    np.testing.assert_allclose(values_of(SVD(wanted)((6, 4))), wanted, atol=1e-5)
    np.testing.assert_allclose(values_of(SVD(wanted[::-1])((4, 9))), wanted, atol=1e-5)


@pytest.mark.parametrize("ord", ["fro", "nuc", 2])
def test_norms_are_those_of_numpy(ord):
    for values in (1.0, None, [3.0, 1.0, 0.5]):
        kernel = np.asarray(SVD(values, norm=7.0, ord=ord)((3, 8)))
        assert np.linalg.norm(kernel, ord) == pytest.approx(7.0, rel=1e-5)


def test_without_singular_values_the_draw_is_only_scaled():
    drawn = np.asarray(keras.random.normal((5, 4), seed=3))
    np.testing.assert_allclose(np.asarray(SVD(None, seed=3)((5, 4))), drawn, atol=1e-5)
    one = np.asarray(SVD(seed=3)((5, 4)))
    left, _, right = np.linalg.svd(drawn.astype("float64"), full_matrices=False)
    np.testing.assert_allclose(one, left @ right, atol=1e-5)


def test_of_a_given_matrix_the_directions_are_kept():
    given = np.random.default_rng(0).normal(size=(5, 3))
    left, values, right = np.linalg.svd(given, full_matrices=False)
    np.testing.assert_allclose(np.asarray(SVD(matrix=given)((5, 3))), left @ right, atol=1e-5)
    scaled = np.asarray(SVD(None, norm=2.0, ord=2, matrix=given)((5, 3)))
    np.testing.assert_allclose(scaled, given * 2 / values[0], atol=1e-5)
    kernel = given.reshape(1, 5, 1, 3)
    as_kernel = np.asarray(SVD([3, 2, 1], matrix=kernel)((1, 5, 1, 3)))
    np.testing.assert_allclose(as_kernel.reshape(5, 3), left * [3, 2, 1] @ right, atol=1e-5)


def test_directions_are_drawn_uniformly():
    """Of an orthogonal (4, 4) matrix each entry has mean 0 and variance 1/4."""
    draws = np.stack([np.asarray(SVD()((4, 4))) for _ in range(100)])
    assert np.abs(draws.mean(0)).max() < 4 * 0.5 / np.sqrt(100)
    np.testing.assert_allclose((draws**2).mean(0), 0.25, atol=0.14)


@pytest.mark.parametrize("side", [3, 4])
@pytest.mark.parametrize("rank", [1, 2])
def test_delta_orthogonal_keeps_the_length_of_an_image(side, rank):
    kernel = np.asarray(SVD(delta=True)((*(side,) * rank, 3, 5)))
    middle = kernel[((side - 1) // 2,) * rank]
    np.testing.assert_allclose(middle @ middle.T, np.eye(3), atol=1e-5)
    assert np.count_nonzero(kernel) == np.count_nonzero(middle) == 15
    images = np.random.default_rng(0).normal(size=(2, *(8,) * rank, 3)).astype("float32")
    kind = keras.layers.Conv1D if rank == 1 else keras.layers.Conv2D
    layer = kind(5, side, padding="same", use_bias=False, kernel_initializer=SVD(delta=True))
    maps = np.asarray(layer(images))
    np.testing.assert_allclose(maps, images @ np.asarray(layer.kernel)[((side - 1) // 2,) * rank],
                               atol=1e-4)  # fmt: skip
    assert np.linalg.norm(maps) == pytest.approx(np.linalg.norm(images), rel=1e-5)


def test_delta_of_a_dense_kernel_is_the_matrix_itself():
    np.testing.assert_array_equal(SVD(delta=True, seed=1)((3, 4)), SVD(seed=1)((3, 4)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(dtype):
    kernel = SVD()((6, 4), dtype)
    assert keras.backend.standardize_dtype(kernel.dtype) == dtype
    given = keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float64"))
    close = 1e-12 if dtype == "float64" else 0.02
    np.testing.assert_allclose(given.T @ given, np.eye(4), atol=close)


def test_one_object_draws_anew_for_each_layer_and_with_a_seed_does_not():
    drawn = SVD()
    a, b = np.asarray(drawn((4, 4))), np.asarray(drawn((4, 4)))
    assert np.abs(a - b).max() > 0.01
    seeded = SVD(seed=5)
    np.testing.assert_array_equal(seeded((4, 4)), seeded((4, 4)))
    generator = SVD(seed=keras.random.SeedGenerator(5))
    assert np.abs(np.asarray(generator((4, 4))) - np.asarray(generator((4, 4)))).max() > 0.01
    keras.utils.set_random_seed(1)
    first = np.asarray(SVD()((4, 4)))
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(first, SVD()((4, 4)))


def test_saved_and_loaded(tmp_path):
    given = np.random.default_rng(1).normal(size=(4, 3))
    one = SVD([3.0, 2.0, 1.0], norm=2.0, ord=2, matrix=given)
    two = SVD(None, delta=True, seed=keras.random.SeedGenerator(3))
    layers = [keras.layers.Dense(3, kernel_initializer=one),
              keras.layers.Dense(2, kernel_initializer=two)]  # fmt: skip
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for layer, initializer in zip(loaded.layers, (one, two)):
        got = layer.kernel_initializer
        assert type(got) is SVD
        assert str(got.get_config()) == str(initializer.get_config())
    np.testing.assert_allclose(np.asarray(loaded.layers[0].kernel_initializer((4, 3))),
                               np.asarray(one((4, 3))))  # fmt: skip
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_the_recurrent_kernel_of_an_lstm():
    """A rectangle of (units, 4 units): its rows are orthonormal."""
    cell = keras.layers.LSTMCell(3, recurrent_initializer=SVD())
    cell.build((None, 2))
    kernel = np.asarray(cell.recurrent_kernel)
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(3), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"singular_values": -1.0}, "singular_values=-1.0"),
        ({"singular_values": [1.0, float("nan")]}, "none of them negative, NaN"),
        ({"singular_values": [[1.0]]}, "a number, a list of numbers or None"),
        ({"norm": 0.0}, "`norm` must be a number above 0"),
        ({"norm": float("inf")}, "`norm` must be a number above 0"),
        ({"ord": "max"}, "ord='max'"),
        ({"singular_values": 0.0, "norm": 1.0}, "all zero cannot have norm"),
        ({"matrix": np.zeros((2, 2))}, "singular: of its 2 singular values 2 are 0"),
        ({"matrix": np.ones((3, 2))}, "singular: of its 2 singular values 1 are 0"),
        ({"matrix": np.ones(3)}, r"shape \(3,\)"),
        ({"matrix": np.full((2, 2), np.nan)}, "with NaN or infinity"),
        ({"matrix": np.zeros((0, 2))}, r"shape \(0, 2\)"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        SVD(**arguments)


def test_a_singular_matrix_may_keep_its_own_values():
    """The advice of the error is followed."""
    given = np.outer([1.0, 2.0], [2.0, 1.0])
    kernel = np.asarray(SVD(None, norm=1.0, matrix=given)((2, 2)))
    np.testing.assert_allclose(kernel, given / 5, atol=1e-6)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"shape=\(4,\).*'zeros' and 'ones'"):
        SVD()((4,))
    with pytest.raises(ValueError, match=r"has 3 singular values\. Received: 2"):
        SVD([1.0, 2.0])((3, 4))
    with pytest.raises(ValueError, match=r"`matrix` has the shape \(2, 2\), and the weight \(3, 2"):
        SVD(matrix=np.eye(2))((3, 2))


def test_names():
    assert type(initializers.get("svd")) is SVD
    assert initializers.get("delta_orthogonal").delta
    assert type(initializers.get("keras.initializers:HeNormal")).__name__ == "HeNormal"
    assert initializers.get(None) is None
    kernel = np.asarray(initializers.get("standard_uniform")((400, 50)))
    assert 0.99 / 20 < np.abs(kernel).max() <= 1 / 20 + 1e-7
    for identifier in ("glorot_uniform", keras.initializers.HeNormal(), {"class_name": "Zeros"}):
        assert isinstance(initializers.get(identifier), keras.initializers.Initializer)
    given = keras.initializers.HeNormal()
    a, b = (np.asarray(initializers.get(given)((4, 4))) for _ in range(2))
    assert np.abs(a - b).max() > 0.01  # Keras' own object would give the same twice
    with pytest.raises(ValueError, match="no initialiser named 'svdd'. Did you mean 'svd'"):
        initializers.get("svdd")
    with pytest.raises(ValueError, match="cannot be made without arguments.*an object in place"):
        initializers.get("datetime:datetime")  # a class that needs some
    with pytest.raises(ValueError, match="'constant' cannot be made without arguments"):
        initializers.get("constant")  # of Keras, which says KeyError: 'value'
