import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_shared.layers import TiedDense, tied_dense
from keras_shared.tying import TieError

X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


def autoencoder(**kwargs):
    inputs = keras.Input((4,))
    encoder = layers.Dense(3, name="encoder")
    return keras.Model(inputs, TiedDense(encoder, name="decoder", **kwargs)(encoder(inputs)))


def test_values_gradient_and_count():
    model = autoencoder()
    w, b, c = (v.numpy() for v in model.trainable_variables)
    assert model.count_params() == 4 * 3 + 3 + 4
    code = X @ w + b
    out = code @ w.T + c
    np.testing.assert_allclose(model.predict(X, verbose=0), out, atol=1e-5)
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.train_on_batch(X, np.zeros_like(X))
    d = 2 * out / out.size  # gradient of the mean square
    gradient = X.T @ (d @ w) + d.T @ code  # as encoder, and as decoder
    np.testing.assert_allclose(model.trainable_variables[0].numpy(), w - gradient, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.booleans())
def test_any_width_and_rank(width, units, rank, use_bias):
    source = layers.Dense(units)
    x = np.random.default_rng(width).normal(size=(2,) * rank + (width,)).astype("float32")
    code = source(x)
    layer = TiedDense(source, use_bias=use_bias)
    np.testing.assert_allclose(
        layer(code), np.asarray(code) @ source.kernel.numpy().T, atol=1e-4, rtol=1e-4
    )
    assert layer.compute_output_shape(code.shape) == x.shape
    assert len(layer.variables) == use_bias


def test_embedding_source():
    ids = np.array([[0, 2], [4, 1]])
    table = layers.Embedding(5, 3)
    inputs = keras.Input((2,), dtype="int32")
    model = keras.Model(inputs, TiedDense(table, "softmax")(table(inputs)))
    e, c = (v.numpy() for v in model.trainable_variables)
    logits = e[ids] @ e.T + c
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(model.predict(ids, verbose=0), expected, atol=1e-5)


def test_every_argument_changes_something():
    layer = TiedDense(
        layers.Dense(3), activation="relu", bias_initializer="ones",
        bias_regularizer=keras.regularizers.L2(0.1), bias_constraint="non_neg",
    )  # fmt: skip
    layer.source().build((None, 4))
    out = layer(-np.ones((2, 3), "float32") * 100)
    assert float(np.min(out)) >= 0  # relu
    np.testing.assert_array_equal(layer.bias.numpy(), np.ones(4))
    np.testing.assert_allclose(sum(layer.losses), 0.4, rtol=1e-6)
    np.testing.assert_array_equal(layer.bias.constraint(-layer.bias).numpy(), np.zeros(4))
    assert TiedDense(layers.Dense(3), use_bias=False).use_bias is False
    config = layer.get_config()
    again = TiedDense.from_config(config)
    assert again.get_config() == config


def test_masks_pass():
    ids = np.array([[1, 2, 0]])
    table = layers.Embedding(5, 3, mask_zero=True)
    assert TiedDense(table)(table(ids))._keras_mask is not None


def test_source_never_built():
    with pytest.raises(TieError, match=r"reads the weight of 'late', which has not been built"):
        TiedDense(layers.Dense(3, name="late"))(np.ones((1, 3), "float32"))


def test_wrong_width():
    source = layers.Dense(3)
    source.build((None, 4))
    with pytest.raises(TieError, match=r"takes inputs \(..., 3\).*input_shape=\(1, 5\)"):
        TiedDense(source)(np.ones((1, 5), "float32"))


@pytest.mark.parametrize("source", [None, "encoder", layers.Conv2D(2, 3), layers.ReLU()])
def test_source_of_another_kind(source):
    with pytest.raises(TieError, match="pass a Dense or Embedding object as `source`. Received"):
        TiedDense(source)


def test_lora_is_refused_on_the_reader_and_read_from_the_source():
    model = autoencoder()
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    with pytest.raises(TieError, match="Enable LoRA on its source 'encoder'"):
        decoder.enable_lora(2)
    encoder.enable_lora(2)
    encoder.lora_kernel_b.assign(np.ones((2, 3)))
    w = encoder.kernel.numpy()
    code = X @ w + encoder.bias.numpy()
    np.testing.assert_allclose(model(X), code @ w.T + decoder.bias.numpy(), atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 300), (2, 3, 300)])
def test_a_large_kernel(shape, monkeypatch):
    """Another order of the same product: values and gradients of both uses by hand."""
    monkeypatch.setattr(tied_dense, "LARGE", 2**18)
    source = keras.layers.Dense(300, use_bias=False)
    source.build((None, 1000))
    reader = TiedDense(source, use_bias=False)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    w = source.kernel.numpy().astype("float64")
    with tf.GradientTape() as tape:
        y = reader(x)
        total = tf.reduce_sum(y**2)
    np.testing.assert_allclose(y, x @ w.T, atol=1e-4)
    flat = x.reshape(-1, 300).astype("float64")
    found = tape.gradient(total, source.kernel.value)
    np.testing.assert_allclose(found, 2 * (flat @ w.T).T @ flat, atol=1e-2, rtol=1e-4)
