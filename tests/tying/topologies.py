"""Small models with a tie in every place that a tie can be, and what each must compute."""

import keras
import numpy as np
from keras import layers

from keras_shared.layers import Shared, TiedConv2DTranspose, TiedDense, TiedLayer

X = np.random.default_rng(5).normal(size=(3, 6)).astype("float32")


def dense(name="code"):
    return layers.Dense(4, name=name)


def flat():
    inputs, source = keras.Input((6,)), dense()
    return keras.Model(inputs, TiedDense(source, name="reader")(source(inputs)))


def sequential():
    source = dense()
    return keras.Sequential([keras.Input((6,)), source, TiedDense(source, name="reader")])


def encoder_decoder():
    source = dense()
    x, z, inputs = keras.Input((6,)), keras.Input((4,)), keras.Input((6,))
    encoder = keras.Model(x, source(x), name="encoder")
    decoder = keras.Model(z, TiedDense(source, name="reader")(z), name="decoder")
    return keras.Model(inputs, decoder(encoder(inputs)))


def source_in_sub_model():
    source = dense()
    x, inputs = keras.Input((6,)), keras.Input((6,))
    encoder = keras.Model(x, source(x), name="encoder")
    return keras.Model(inputs, TiedDense(source, name="reader")(encoder(inputs)))


def tower_in_two_sub_models():
    source = dense()
    x, y, inputs = keras.Input((6,)), keras.Input((6,)), keras.Input((6,))
    left = keras.Model(x, source(x), name="left")
    right = keras.Model(y, TiedLayer(source, name="reader")(y), name="right")
    return keras.Model(inputs, layers.Concatenate()([left(inputs), right(inputs)]))


def shared():
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Concatenate()(Shared(dense())([inputs, inputs])))


def embedding():
    inputs, source = keras.Input((2,), dtype="int32"), layers.Embedding(6, 4, name="code")
    return keras.Model(inputs, TiedDense(source, name="reader")(source(inputs)))


def convolution():
    inputs = keras.Input((4, 4, 1))
    source = layers.Conv2D(3, 2, strides=2, name="code")
    return keras.Model(inputs, TiedConv2DTranspose(source, name="reader")(source(inputs)))


TOPOLOGIES = (
    flat, sequential, encoder_decoder, source_in_sub_model, tower_in_two_sub_models, shared,
    embedding, convolution,
)  # fmt: skip


def data_for(topology):
    if topology is embedding:
        return np.array([[0, 5], [3, 2], [1, 1]], "int32")
    if topology is convolution:
        return np.random.default_rng(6).normal(size=(3, 4, 4, 1)).astype("float32")
    return X


def owner_of(model):
    """The one layer named `code` that owns the shared weight."""
    owners = {id(la): la for la in model._flatten_layers() if la.name == "code"}
    assert len(owners) == 1
    return next(iter(owners.values()))


def expected(topology, model, x):
    """By hand, from the owner's weight and the biases."""
    owner = owner_of(model)
    if topology is embedding:
        table = owner.embeddings.numpy()
        return table[x] @ table.T + reader_bias(model)
    w, b = owner.kernel.numpy(), owner.bias.numpy()
    if topology in (tower_in_two_sub_models, shared):
        return np.concatenate([x @ w + b] * 2, axis=-1)
    if topology is convolution:  # fields of 2x2 side by side: a dense layer on each
        fields = x.reshape(3, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(3, 2, 2, 4)
        back = (fields @ w.reshape(4, 3) + b) @ w.reshape(4, 3).T
        back = back.reshape(3, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(3, 4, 4, 1)
        return back + reader_bias(model)
    return (x @ w + b) @ w.T + reader_bias(model)


def reader_bias(model):
    return next(la for la in model._flatten_layers() if la.name == "reader").bias.numpy()


def check_tied(topology, model, x):
    """Change the owner: every use must follow. The formula must hold before and after."""
    owner = owner_of(model)
    for step in range(2):
        np.testing.assert_allclose(
            model.predict(x, verbose=0), expected(topology, model, x), atol=1e-4
        )
        weight = owner.trainable_variables[0]
        weight.assign(weight * 1.5 + 0.1 * (step + 1))
    variables = [id(v) for v in model.variables]
    assert len(variables) == len(set(variables))
    assert len(variables) == EXPECTED_VARIABLES[topology.__name__]


EXPECTED_VARIABLES = {
    "flat": 3, "sequential": 3, "encoder_decoder": 3, "source_in_sub_model": 3,
    "tower_in_two_sub_models": 2, "shared": 2, "embedding": 2, "convolution": 3,
}  # fmt: skip
