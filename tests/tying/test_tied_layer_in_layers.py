"""A TiedLayer inside of layers whose shapes are worked out before the source is found."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers

import keras_shared
from keras_shared.layers import Shared, TiedDense, TiedLayer
from keras_shared.tying import TieError, check_ties, tie, untie

X = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
STEPS = np.random.default_rng(1).normal(size=(3, 5, 6)).astype("float32")


@keras.saving.register_keras_serializable("tied_layer_in_layers")
class OneMore(layers.Layer):
    """Calls a layer, and has no `compute_output_shape`."""

    def __init__(self, inner, twice=False, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.twice = inner, twice

    def call(self, x):
        return 1 + (self.inner(x, x) if self.twice else self.inner(x))

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner, "twice": self.twice}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config["inner"])
        return cls(**{**config, "inner": inner})


def shared(mode):
    source, a, b = layers.Dense(6), keras.Input((6,)), keras.Input((6,))
    return keras.Model([a, b], Shared(TiedLayer(source), mode=mode)([source(a), b])), [X, X]


def tower():
    source, a, b = layers.Dense(6), keras.Input((6,)), keras.Input((6,))
    inner = keras.Sequential([keras.Input((6,)), TiedLayer(source), layers.Dense(4)])
    return keras.Model([a, b], Shared(inner)([source(a), b])), [X, X]


def in_a_layer():
    source, a = layers.Dense(6), keras.Input((6,))
    return keras.Model(a, OneMore(TiedLayer(source))(source(a))), X


def cell():
    source, a, b = layers.LSTMCell(6), keras.Input((5, 6)), keras.Input((5, 6))
    first = layers.RNN(source, return_sequences=True)(a)
    return keras.Model([a, b], Shared(layers.RNN(TiedLayer(source)))([first, b])), [STEPS, STEPS]


def attention():
    source, a = layers.MultiHeadAttention(2, 3), keras.Input((5, 6))
    return keras.Model(a, OneMore(TiedLayer(source), twice=True)(source(a, a))), STEPS


CASES = {
    "looped": lambda: shared("looped"), "joined": lambda: shared("joined"), "tower": tower,
    "layer": in_a_layer, "cell": cell, "attention": attention,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_it_comes_back(case, tmp_path):
    model, x = CASES[case]()
    wanted = keras.tree.flatten(model.predict(x, verbose=0))
    model.save(tmp_path / "model.keras")
    again = [
        keras_shared.load(tmp_path / "model.keras"),
        keras.models.clone_model(model),
        keras.models.model_from_json(model.to_json()),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ]
    for other in again:
        other.set_weights(model.get_weights())
        for one, two in zip(wanted, keras.tree.flatten(other.predict(x, verbose=0))):
            np.testing.assert_allclose(two, one, atol=1e-6)
        assert len(other.weights) == len(model.weights)
    check_ties(again[0])


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


def test_a_source_that_computes_something_else_is_refused():
    first, reader = layers.Dense(6, "relu"), None
    reader = TiedLayer(first)
    a = keras.Input((6,))
    untie(keras.Model(a, reader(first(a))))
    other = built(layers.Dense(6), 6)
    other.set_weights(first.get_weights())
    with pytest.raises(TieError, match=r"differs from that in \['activation'\]"):
        tie(reader, other)
    assert tie(reader, first).source() is first


def test_a_tower_without_one_kernel_is_tied_again_by_hand():
    lstm, a = layers.LSTM(4, name="rnn"), keras.Input((5, 6))
    lstm(a)
    clone = keras.models.clone_model(keras.Model(a, TiedLayer(lstm, name="again")(a)))
    with pytest.raises(TieError, match="is a GRU. Pass a source of that class"):
        tie(clone.get_layer("again"), built(layers.GRU(4), 5, 6))
    tie(clone.get_layer("again"), lstm)
    np.testing.assert_allclose(clone(STEPS), lstm(STEPS), atol=1e-6)


@pytest.mark.parametrize("reader", [TiedLayer, TiedDense])
def test_a_frozen_reader_stays_frozen(reader):
    source, a = layers.Dense(6), keras.Input((6,))
    tied = reader(source)
    model = keras.Model(a, tied(source(a)))
    tied.trainable = False
    untie(model)
    assert not tied.own_layer.trainable_weights and len(model.trainable_weights) == 2


class Unused(layers.Layer):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return x


@keras.saving.register_keras_serializable("tied_layer_in_layers")
class Unsaved(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units)

    def call(self, x):
        return self.dense(x)


def test_all_are_cut_or_none():
    source, a = layers.Dense(6), keras.Input((6,))
    first = TiedDense(source, name="first")
    model = keras.Model(a, Unused(TiedLayer(source))(first(source(a))))
    weights = model.count_params()
    with pytest.raises(TieError, match="was never called"):
        untie(model)
    own = Unsaved(6)
    other = keras.Model(a, TiedLayer(own)(own(TiedDense(source)(source(a)))))
    with pytest.raises(TieError, match="Unsaved .* cannot be copied.*get_config"):
        untie(other)
    assert not first.untied and model.count_params() == weights
    assert not any(layer.untied for layer in other.layers if hasattr(layer, "untied"))
    np.testing.assert_array_equal(other(X), own(own(TiedDense(source)(source(X)))))
