import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from keras_shared import sharing_report
from keras_shared.layers import GaussianRBF

RANDOM = np.random.default_rng(6)


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def built(width, **arguments):
    layer = GaussianRBF(4, width, **arguments)
    layer.build((None, 3))
    layer.log_width.assign(noise(*layer.log_width.shape) / 2)
    return layer


def by_hand(layer, x):
    squared = np.square(x[..., None, :] - np.asarray(layer.centers)).sum(-1)
    return squared, np.exp(-squared / (2 * np.exp(np.asarray(layer.log_width)) ** 2))


@pytest.mark.parametrize("width", ["own", "shared"])
def test_by_hand(width):
    layer = built(width)
    for x in (noise(5, 3), noise(2, 6, 3)):
        np.testing.assert_allclose(layer(x), by_hand(layer, x)[1], rtol=1e-4)
        assert layer.compute_output_shape(x.shape) == (*x.shape[:-1], 4)


def test_the_gradient_of_a_shared_width_is_the_sum_over_units():
    layer, x, upstream = built("shared"), noise(5, 3), noise(5, 4)
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(layer(x) * upstream)
    of_centers, of_width = tape.gradient(loss, [layer.centers, layer.log_width])
    squared, answers = by_hand(layer, x)
    precision = np.exp(-2 * np.asarray(layer.log_width))
    np.testing.assert_allclose(
        of_width, [np.sum(upstream * answers * squared * precision)], rtol=1e-4
    )
    pull = (upstream * answers * precision)[..., None] * (x[:, None] - np.asarray(layer.centers))
    np.testing.assert_allclose(of_centers, pull.sum(0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("width", ["own", "shared"])
def test_saved_and_counted(width, tmp_path):
    inputs = keras.Input((3,))
    layer = GaussianRBF(4, width, initial_width=2.0, train_centers=False, name="rbf")
    model = keras.Model(inputs, layer(inputs))
    np.testing.assert_allclose(np.exp(layer.log_width), 2.0, rtol=1e-6)
    assert [v.name for v in model.trainable_variables] == ["log_width"]
    model.save(tmp_path / "m.keras")
    loaded, x = keras.models.load_model(tmp_path / "m.keras"), noise(5, 3)
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[1].get_config() == layer.get_config()
    totals = sharing_report(model).totals
    assert totals["multiply_adds"] == totals["parameters_without_sharing"] == 4 * 3 + 4


def test_an_rbf_net_reads_digits():
    """Centres by k-means and one width, a linear layer by least squares: as Moody and Darken."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    layer = GaussianRBF(60, "shared", initial_width=1.5)
    layer.build((None, 64))
    layer.centers.assign(KMeans(60, n_init=1, random_state=0).fit(images[:1200]).cluster_centers_)
    features = np.asarray(layer(images))
    weights, *_ = np.linalg.lstsq(features[:1200], np.eye(10)[labels[:1200]], rcond=None)
    assert np.mean((features[1200:] @ weights).argmax(-1) == labels[1200:]) > 0.85


def test_refuses():
    for wrong, expected in (
        ({"units": 0}, "a positive integer. Received: units=0"),
        ({"units": 2.5}, "a positive integer. Received: units=2.5"),
        ({"width": "one"}, "'own' or 'shared'. Received: width='one'"),
        ({"initial_width": 0.0}, "a positive number, of all units. Received: initial_width=0.0"),
        ({"initial_width": float("inf")}, "Received: initial_width=inf"),
        ({"initial_width": True}, "Received: initial_width=True"),
        ({"initial_width": "1"}, "Received: initial_width='1'"),
        ({"initial_width": [1.0, 2.0]}, r"Received: initial_width=\[1.0, 2.0\]"),
    ):
        with pytest.raises(ValueError, match=expected):
            GaussianRBF(**{"units": 3, **wrong})
    with pytest.raises(ValueError, match=r"known width. Received: input_shape=\(None, None\)"):
        GaussianRBF(3)(keras.Input((None,)))
    layer = GaussianRBF(3)
    layer.build((None, 6))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 6"):
        layer(keras.ops.ones((2, 1)))  # which would be subtracted from each feature


def test_half_precision_holds_distances_that_float16_does_not():
    pixels = np.full((1, 64), 60.0)  # 64 * 60^2 is above 65504
    layer = GaussianRBF(1, "shared", 200.0, centers_initializer="zeros", dtype="mixed_float16")
    np.testing.assert_allclose(layer(pixels), [[np.exp(-64 * 60**2 / 2 / 200**2)]], rtol=3e-2)


@pytest.mark.parametrize("width", [np.float32(0.5), np.int64(2)])
def test_widths_as_numpy_has_them(width):
    layer = GaussianRBF(2, initial_width=width)
    assert json.loads(json.dumps(layer.get_config()))["initial_width"] == float(width)
