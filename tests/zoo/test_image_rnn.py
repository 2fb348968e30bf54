"""ImageRNN against NumPy, step by step."""

import numpy as np
import pytest

from keras_shared.zoo import ImageRNN

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 2)).astype("float32")


@pytest.mark.parametrize(
    ("read", "activation"),
    [
        ("pixel", "relu"),
        *(pytest.param("row", f, marks=pytest.mark.slow) for f in ("relu", "tanh")),
    ],
)
def test_by_hand(read, activation):
    model = ImageRNN(6, activation, read, "identity", image_shape=(3, 4, 2), class_names=("a", "b"))
    kernel, recurrent, bias = model.get_layer("recurrent").get_weights()
    np.testing.assert_array_equal(recurrent, np.eye(6))
    x, state = IMAGES / 255, np.zeros((5, 6))
    for step in (
        x.reshape(5, 12, 2).swapaxes(0, 1) if read == "pixel" else x.reshape(5, 3, 8).swapaxes(0, 1)
    ):
        state = step @ kernel + state @ recurrent + bias
        state = np.tanh(state) if activation == "tanh" else np.maximum(state, 0)
    last, offset = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), state @ last + offset, atol=1e-4)


def test_the_recurrent_kernel_is_drawn_by_its_own_initialiser():
    for name, values in (("svd", 1.0), (None, 1.0), ("zeros", 0.0)):
        kernel = ImageRNN(6, recurrent_initializer=name).get_layer("recurrent").get_weights()[1]
        np.testing.assert_allclose(np.linalg.svd(kernel, compute_uv=False), values, atol=1e-5)
    config = ImageRNN(6, recurrent_initializer="identity").get_config()
    assert config["recurrent_initializer"] == "identity" and config["kernel_initializer"] is None
    assert ImageRNN.from_config(config).get_config() == config


def test_bad_arguments():
    for arguments in ({"units": 0}, {"read": "column"}):
        with pytest.raises(
            ValueError, match="`units` must be a positive|`read` must be 'pixel' or 'row'"
        ):
            ImageRNN(**arguments)
    with pytest.raises(ValueError, match="no initialiser named 'identidy'"):
        ImageRNN(recurrent_initializer="identidy")
