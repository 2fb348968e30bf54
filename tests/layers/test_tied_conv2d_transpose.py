import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_shared.layers import TiedConv2DTranspose
from keras_shared.tying import TieError


@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(5, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["valid", "same"]),
)
def test_adjoint(size, kernel, stride, padding):
    """<K u, v> = <u, K^T v>, with the output padding that the image size asks for."""
    random = np.random.default_rng(size)
    conv = layers.Conv2D(4, kernel, strides=stride, padding=padding, use_bias=False)
    u = random.normal(size=(1, size, size, 2)).astype("float32")
    mapped = np.asarray(conv(u))
    v = random.normal(size=mapped.shape).astype("float32")
    for output_padding in [None, *range(stride)]:
        layer = TiedConv2DTranspose(conv, use_bias=False, output_padding=output_padding)
        if layer.compute_output_shape(v.shape) == u.shape:
            break
    else:
        return  # Keras has no output padding that leads back to this size
    back = np.asarray(layer(v))
    assert back.shape == u.shape
    np.testing.assert_allclose(np.sum(mapped * v), np.sum(u * back), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_adjoint_with_the_default_output_padding(padding):
    random = np.random.default_rng(1)
    conv = layers.Conv2D(4, 2, strides=2, padding=padding, use_bias=False)
    u = random.normal(size=(2, 8, 8, 3)).astype("float32")
    mapped = np.asarray(conv(u))
    v = random.normal(size=mapped.shape).astype("float32")
    back = np.asarray(TiedConv2DTranspose(conv, use_bias=False)(v))
    assert back.shape == u.shape
    np.testing.assert_allclose(np.sum(mapped * v), np.sum(u * back), rtol=1e-4)


def test_bias_activation_count_and_gradient():
    image = keras.Input((8, 8, 2))
    conv = layers.Conv2D(4, 3, strides=2, padding="same", name="conv")
    out = TiedConv2DTranspose(conv, "relu", bias_initializer="ones")(conv(image))
    model = keras.Model(image, out)
    assert model.count_params() == 3 * 3 * 2 * 4 + 4 + 2
    assert float(np.min(model(np.random.rand(1, 8, 8, 2)))) >= 0
    before = conv.kernel.numpy()
    model.compile("sgd", "mse")
    model.train_on_batch(np.random.rand(4, 8, 8, 2), np.zeros((4, 8, 8, 2)))
    assert np.abs(conv.kernel.numpy() - before).max() > 0


def test_rebuilt_from_config_before_the_source_is_found():
    conv = layers.Conv2D(4, 3, strides=2, padding="same", name="conv")
    conv.build((None, 8, 8, 1))
    layer = TiedConv2DTranspose.from_config(TiedConv2DTranspose(conv).get_config())
    assert layer.compute_output_shape((None, 4, 4, 4)) == (None, 8, 8, 1)
    with pytest.raises(TieError, match=r"tied to the Conv2D 'conv' \(weight \[3, 3, 1, 4\]\)"):
        layer(np.zeros((1, 4, 4, 4), "float32"))


@pytest.mark.parametrize("kwargs", [{"groups": 2}, {"dilation_rate": 2}])
def test_groups_and_dilation_are_refused(kwargs):
    with pytest.raises(TieError, match="without groups and without dilation. Received: 'c'"):
        TiedConv2DTranspose(layers.Conv2D(4, 3, name="c", **kwargs))


def test_wrong_channels_and_wrong_source():
    conv = layers.Conv2D(4, 3)
    conv.build((None, 8, 8, 1))
    with pytest.raises(TieError, match=r"maps with 4 channels.*input_shape=\(1, 6, 6, 3\)"):
        TiedConv2DTranspose(conv)(np.zeros((1, 6, 6, 3), "float32"))
    with pytest.raises(TieError, match="pass a Conv2D object"):
        TiedConv2DTranspose(layers.Dense(3))
