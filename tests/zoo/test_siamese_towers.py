"""Towers of others: normalisation with statistics of its own, frozen and not, of open sizes."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from keras_shared.layers import TiedLayer
from keras_shared.sharing import unshare
from keras_shared.tying import untie
from keras_shared.zoo import SiameseNet

RANDOM = np.random.default_rng(4)
A, B = RANDOM.integers(0, 256, (2, 4, 12, 10, 3)).astype("uint8")
SAME = np.array([0, 1, 1, 0])


def efficient(height=None, width=None):
    """The parts of EfficientNet: scaling and statistics of its own, blocks that weigh channels."""
    image = keras.Input((height, width, 3))
    statistics = layers.Normalization(axis=-1)
    statistics.adapt(RANDOM.normal(0.4, 0.2, (50, 4, 4, 3)))
    x = statistics(layers.Rescaling(1 / 255)(image))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    x = layers.Activation("swish")(layers.BatchNormalization(momentum=0.5)(x))
    weight = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Multiply()([x, layers.Conv2D(4, 1, activation="sigmoid")(weight)])
    x = layers.BatchNormalization(momentum=0.5)(layers.DepthwiseConv2D(3, use_bias=False)(x))
    return keras.Model(image, layers.GlobalAveragePooling2D()(x), name="efficient")


def fit(model):
    """Paths of the tower's weights that a step changes."""
    before = [w.copy() for w in model.tower.get_weights()]
    model.compile(keras.optimizers.Adam(0.01), "contrastive", run_eagerly=True)
    model.fit([A, B], SAME, verbose=0)
    pairs = zip(model.tower.weights, before, strict=True)
    return {w.name for w, old in pairs if np.any(w.numpy() != old)}


def test_frozen_and_unfrozen():
    model = SiameseNet(efficient(), (None, None, 3), (0, 255))
    model.tower.trainable = False
    answers = model.embed(A)
    assert fit(model) == set()  # nor do the moving statistics
    np.testing.assert_array_equal(model.embed(A), answers)
    model.tower.trainable = True
    statistics = {"gamma", "beta", "moving_mean", "moving_variance"}
    changed = fit(model)
    assert changed >= statistics | {"kernel"} and not changed & {"mean", "variance", "count"}
    for layer in model.tower.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    changed = fit(model)
    assert not changed & statistics and "kernel" in changed
    again = SiameseNet.from_config(model.get_config())
    assert len(again.trainable_variables) == len(model.trainable_variables)


@pytest.mark.slow
def test_statistics_come_with_the_weights(tmp_path):
    """Where a model is built again and takes weights: Keras' own layer would go on without."""
    model = SiameseNet(efficient(), (None, None, 3), (0, 255))
    answers = model.embed(A)
    assert np.std(answers) > 0.01
    for again in (model.with_image_shape((12, 10, 3)), SiameseNet.from_config(model.get_config())):
        again.set_weights(model.get_weights())
        np.testing.assert_allclose(again.embed(A), answers, atol=1e-6)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.embed(A), answers, atol=1e-6)
    tower, image = model.tower, keras.Input((12, 10, 3))
    twice = keras.Model(image, [tower(image), TiedLayer(tower)(image)])
    for apart in (unshare(twice), untie(twice)):
        for output in apart.predict(A, verbose=0):
            np.testing.assert_allclose(output, tower.predict(A, verbose=0), atol=1e-5)


@pytest.mark.slow
def test_images_of_two_sizes_in_one_request(tmp_path):
    """As bytes: each is decoded at its own size, or all are brought to one."""
    model = SiameseNet(efficient(), (None, None, 3), (0, 255))
    model.export(tmp_path / "m")
    verify = tf.saved_model.load(tmp_path / "m").signatures["verify_bytes"]
    large = RANDOM.integers(0, 256, (30, 20, 3)).astype("uint8")

    def png(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        return tf.constant([file.getvalue()])

    answer = verify(image_a_bytes=png(A[0]), image_b_bytes=png(large))
    expected = model.verify(A[:1], large[None])
    np.testing.assert_allclose(answer["probability"], expected, atol=1e-5)


def test_embeddings_that_grow_with_the_image_are_refused():
    maps = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match=r"maps of \(None, None, 2\).*GlobalAveragePooling2D"):
        SiameseNet(maps, (None, None, 3))
    assert SiameseNet(maps, (6, 6, 3)).embed(A[:, :6, :6]).shape == (4, 32)  # as it says
    pooled = keras.Sequential([maps, layers.GlobalAveragePooling2D()])
    assert SiameseNet(pooled, (None, None, 3)).verify(A[:, :6], B).shape == (4,)
