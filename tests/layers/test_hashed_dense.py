import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_shared
from keras_shared.layers import HashedDense
from keras_shared.sharing import Reading, find_ties, sharing_report, unshare

RANDOM = np.random.default_rng(4)


def by_hand(layer, inputs):
    """Position by position, in Python's own integers."""
    codes = [
        int(c) for c in np.random.RandomState(layer.seed).randint(0, 2**31, inputs + layer.units)
    ]
    weights = np.asarray(layer.kernel)
    matrix = np.zeros((inputs, layer.units), "float32")
    buckets = np.zeros((inputs, layer.units), int)
    for i in range(inputs):
        for j in range(layer.units):
            mixed = (codes[i] ^ codes[inputs + j]) * 0x2C1B3C6D % 2**32
            negative = mixed >= 2**31
            number = mixed ^ (mixed >> 15 | (0xFFFE0000 if negative else 0))  # sign extended
            buckets[i, j] = number % len(weights)
            matrix[i, j] = (-1 if negative else 1) * weights[buckets[i, j]]
    return matrix, buckets


def built(inputs=7, **arguments):
    layer = HashedDense(**{"units": 5, "compression": 3, "bias_initializer": "normal", **arguments})
    layer.build((None, inputs))
    return layer


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.floats(1, 80), st.integers(0, 2**32 - 1))
def test_by_hand(inputs, units, compression, seed):
    layer = built(inputs, units=units, compression=compression, seed=seed)
    assert layer.kernel.shape == (int(np.ceil(inputs * units / compression)),)
    matrix, _ = by_hand(layer, inputs)
    np.testing.assert_array_equal(layer.matrix(), matrix)
    x = RANDOM.normal(size=(3, 2, inputs)).astype("float32")
    np.testing.assert_allclose(layer(x), x @ matrix + np.asarray(layer.bias), atol=1e-5)
    assert layer.compute_output_shape(x.shape) == (3, 2, units)


def test_the_gradient_of_a_weight_is_the_sum_over_its_bucket():
    layer = built()
    x, upstream = RANDOM.normal(size=(4, 7)).astype("float32"), RANDOM.normal(size=(4, 5))
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(layer(x) * upstream.astype("float32"))
    dense = x.T @ upstream  # of every position, as in a Dense
    _, buckets = by_hand(layer, 7)
    signs = np.asarray(layer.buckets()[1])
    summed = np.zeros(layer.kernel.shape)
    np.add.at(summed, buckets, signs * dense)
    of_kernel, of_bias = tape.gradient(loss, layer.trainable_variables)
    np.testing.assert_allclose(of_kernel, summed, atol=1e-5)
    np.testing.assert_allclose(of_bias, upstream.sum(0), atol=1e-5)


def test_buckets_and_signs_are_spread_evenly():
    layer = built(784, units=300, compression=8)
    numbers, signs = (np.asarray(part) for part in layer.buckets())
    filled = np.bincount(numbers.ravel(), minlength=29_400)
    assert filled.mean() == 8 and filled.var() == pytest.approx(8, rel=0.05)  # Poisson
    assert abs(signs.mean()) < 0.01
    same = numbers[:, :, None] == numbers[:, None, :30]  # a bucket twice in one row: by chance
    assert same.sum() - 784 * 30 == pytest.approx(784 * 30 * 299 / 29_400, rel=0.2)
    half = built(300, units=100, compression=30_000 / 512)  # a power of two hides no equal rows
    assert len(np.unique(half.matrix(), axis=0)) == 300
    assert np.linalg.matrix_rank(half.matrix()) == 100
    other = built(784, units=300, compression=8, seed=1)
    assert (np.asarray(other.buckets()[0]) == numbers).mean() < 0.001


def test_the_range_is_that_of_the_whole_matrix():
    layer = built(400, units=200, compression=50)
    limit = np.sqrt(6 / 600)  # Glorot and Bengio 2010, of 400 inputs and 200 units
    assert 0.9 * limit < np.abs(layer.kernel).max() <= limit
    assert np.std(layer.matrix()) == pytest.approx(limit / np.sqrt(3), rel=0.1)


def model_of(**arguments):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((7,))
    hidden = HashedDense(5, 3, "tanh", bias_initializer="normal", name="hidden", **arguments)
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(hidden(inputs)))


def test_saved_copied_and_exported(tmp_path):
    model, x = model_of(seed=9), RANDOM.normal(size=(3, 7)).astype("float32")
    wanted = model.predict(x, verbose=0)
    model.save(tmp_path / "m.keras")
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for again in (keras.models.load_model(tmp_path / "m.keras"), copy):
        np.testing.assert_array_equal(again.predict(x, verbose=0), wanted)
        assert again.layers[1].get_config() == model.layers[1].get_config()
    keras_shared.export(model, tmp_path / "saved")
    served = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    (name,) = served.structured_input_signature[1]
    (answer,) = served(**{name: x}).values()
    np.testing.assert_allclose(answer, wanted, atol=1e-6)


def test_report_and_unshare():
    model = model_of(kernel_regularizer="l2")
    report = sharing_report(model)
    kernel = report.weights[0]
    assert kernel.readers == {"hidden": Reading("hashed", 1)} and kernel.uses == 1
    assert report.weights[1].readers == {"hidden": Reading("as is", 1)}  # the biases
    (shared,) = find_ties(model).shared
    assert shared.path == "hidden/kernel" and shared.readers == kernel.readers
    assert kernel.shape == (12,) and kernel.without_sharing == kernel.multiply_adds == 35
    assert report.totals["parameters_without_sharing"] == model.count_params() - 12 + 35
    apart = unshare(model)
    assert apart.count_params() == report.totals["parameters_without_sharing"]
    assert type(apart.get_layer("hidden")) is keras.layers.Dense
    x = RANDOM.normal(size=(3, 7)).astype("float32")
    np.testing.assert_allclose(apart.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    fresh = unshare(model, copy_values=False)
    assert np.abs(fresh.get_layer("hidden").kernel - apart.get_layer("hidden").kernel).max() > 0
    np.testing.assert_allclose(sum(model.losses), 0.01 * np.sum(np.square(model.get_weights()[0])))


def test_it_learns_in_half_precision():
    model = model_of(dtype="mixed_float16")
    assert model.get_layer("hidden").kernel.dtype == "float32"
    model.compile("adam", "mse")
    before = model.get_weights()[0]
    x = RANDOM.normal(size=(8, 7))
    losses = model.fit(x, x[:, :2], epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and np.abs(model.get_weights()[0] - before).max() > 0


def test_refuses():
    for wrong in (0.5, "8", float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"a number from 1. Received: compression={wrong!r}"):
            HashedDense(3, compression=wrong)
    for wrong in (0, 2.5, "3", None):
        with pytest.raises(ValueError, match=f"a positive integer. Received: units={wrong!r}"):
            HashedDense(wrong)
    for wrong in (-1, None, "a", 2**32):  # None would be another hash in each process
        with pytest.raises(ValueError, match=f"it chooses the hash. Received: seed={wrong!r}"):
            HashedDense(3, seed=wrong)
    layer = HashedDense(3)
    layer.build((None, 4))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 4"):
        layer(keras.ops.ones((2, 5)))
    with pytest.raises(ValueError, match=r"known width. Received: input_shape=\(None, None\)"):
        HashedDense(3).build((None, None))
    with pytest.raises(ValueError, match="unexpected|Unrecognized"):
        HashedDense(3, buckets=4)


@pytest.mark.backends
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_same_matrix_there_too(backend):
    pytest.importorskip(backend)
    program = (
        "import json, keras, numpy as np; from keras_shared.layers import HashedDense\n"
        "la = HashedDense(5, 3, seed=9); la.build((None, 7))\n"
        "la.kernel.assign(np.arange(1, 13, dtype='float32'))\n"
        "print(json.dumps(keras.ops.convert_to_numpy(la.matrix()).tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    layer = built(seed=9)
    layer.kernel.assign(np.arange(1, 13))
    assert json.loads(done.stdout.splitlines()[-1]) == np.asarray(layer.matrix()).tolist()
