import keras
import numpy as np
import pytest

from keras_shared import cluster, unshare
from keras_shared.layers import Conv2D


def twins(side=5, **arguments):
    """A layer of ours and one of Keras with the same weights, and what both are called with."""
    own = Conv2D(6, side, **arguments)
    theirs = keras.layers.Conv2D(6, side, **arguments)
    inputs = np.random.default_rng(1).normal(size=(4, 5, 5, 4)).astype("float32")
    for layer in (own, theirs):
        layer.build(inputs.shape)
    values = np.random.default_rng(2)
    theirs.set_weights([values.normal(size=w.shape) for w in own.get_weights()])
    own.set_weights(theirs.get_weights())
    return own, theirs, inputs


@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"use_bias": False}, {"activation": "tanh"}, {"side": 3}, {"padding": "same"},
        {"strides": 2}, {"groups": 2}, {"side": 2, "dilation_rate": 4}, {"side": (5, 3)},
        {"dtype": "mixed_bfloat16"},
    ],
)  # fmt: skip
def test_as_keras_own(arguments):
    own, theirs, inputs = twins(**arguments)
    rounding = 0.05 if "dtype" in arguments else 1e-5
    got, wanted = (keras.ops.cast(layer(inputs), "float32") for layer in (own, theirs))
    np.testing.assert_allclose(got, wanted, rtol=rounding, atol=rounding)


def test_one_position_by_hand():
    own, _, inputs = twins(activation="relu")
    kernel, bias = own.get_weights()
    by_hand = np.maximum(np.einsum("bijc,ijcf->bf", inputs, kernel) + bias, 0)
    np.testing.assert_allclose(own(inputs)[:, 0, 0], by_hand, rtol=1e-5, atol=1e-5)


def test_any_size_as_a_graph_without_sizes():
    """What `to_convolutional` calls it with: the size is known when it runs, and is larger."""
    own, theirs, _ = twins()
    images = keras.Input((None, None, 4))
    pair = keras.Model(images, [own(images), theirs(images)])
    got, wanted = pair(np.random.default_rng(3).normal(size=(2, 7, 9, 4)))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_files_are_those_of_keras(tmp_path):
    def model(kind):
        return keras.Sequential([keras.Input((5, 5, 4)), kind(6, 5), keras.layers.Flatten()])

    theirs, own = model(keras.layers.Conv2D), model(Conv2D)
    theirs.save_weights(tmp_path / "m.weights.h5")
    own.load_weights(tmp_path / "m.weights.h5")
    own.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again.layers[0]) is Conv2D
    for kept, loaded in zip(theirs.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, loaded)


def test_lora_is_added():
    own, theirs, inputs = twins()
    own.enable_lora(2)
    own.lora_kernel_b.assign(np.ones(own.lora_kernel_b.shape))
    added = np.einsum("...r,rf->...f", own.lora_kernel_a.numpy(), own.lora_kernel_b.numpy())
    wanted = np.asarray(theirs(inputs)) + np.einsum("bijc,ijcf->bf", inputs, added)[:, None, None]
    np.testing.assert_allclose(own(inputs), wanted, rtol=1e-4, atol=1e-4)


def test_it_is_clustered_and_unshared_as_keras_own():
    images = keras.Input((9, 9, 1))
    model = keras.Model(images, Conv2D(2, 5)(Conv2D(3, 5)(images)))
    x = np.random.default_rng(4).normal(size=(2, 9, 9, 1)).astype("float32")
    small = cluster(model, codes=4)
    assert all(len(np.unique(layer.kernel)) <= 4 for layer in small.layers[1:])
    np.testing.assert_allclose(unshare(model, convolutions=True)(x), model(x), atol=1e-5)
