"""tie_weights looks at what layers do, and not at what those inside of them are called."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_shared.layers import SharedStack
from keras_shared.sharing import cluster, tie_weights, unshare
from keras_shared.tying import TieError, check_ties
from keras_shared.zoo import MultiTaskNet

RANDOM = np.random.default_rng(0)


@keras.saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    """With arguments of which one is a dict that holds a `name`."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(input_shape[-1],))

    def call(self, inputs):
        return inputs * self.factor * self.table["name"]

    def get_config(self):
        return {**super().get_config(), "table": self.table}


def test_a_name_among_the_arguments_counts():
    x = keras.Input((3,))
    model = keras.Model(x, Scaled({"name": 3}, name="b")(Scaled({"name": 2}, name="a")(x)))
    model.get_layer("b").set_weights(model.get_layer("a").get_weights())
    with pytest.raises(TieError, match=r"differ in \['table'\]"):
        tie_weights(model, {"b": "a"})


def tower(name, width=3, activation="relu"):
    x = keras.Input((3,))
    y = layers.Dense(width, activation, name=f"{name}_1")(x)
    return keras.Model(x, layers.Add()([layers.Dense(width, name=f"{name}_2")(y), y]), name=name)


def test_functional_towers_with_names_of_their_own():
    a, b = tower("a"), tower("b")
    x = keras.Input((3,))
    model = keras.Model(x, [a(x), b(x)])
    tied = tie_weights(model, {"b": "a"}, keep="source")
    check_ties(tied)
    assert len(tied.weights) == len(a.weights)
    given = RANDOM.random((4, 3)).astype("float32")
    for answer in tied(given):
        np.testing.assert_allclose(answer, a(given), rtol=1e-6)
    other = keras.Model(x, [a(x), tower("c", activation="tanh")(x)])
    with pytest.raises(TieError, match="differ in"):
        tie_weights(other, {"c": "a"}, keep="source")


def test_a_pattern_passes_over_layers_without_weights():
    def stack(name):
        x = keras.Input((3,))
        y = layers.ReLU()(layers.Dense(3, name="d0")(x))
        return keras.Model(x, layers.Dense(3, name="d1")(y), name=name)

    x = keras.Input((3,))
    model = keras.Model(x, stack("dec")(stack("enc")(x)))
    tied = tie_weights(model, {"dec/*": "enc/*"}, keep="source", transpose=False)
    assert tied.count_params() == model.count_params() // 2
    with pytest.raises(TieError, match="no layer with weights whose name fits 'dec/x\\*'"):
        tie_weights(model, {"dec/x*": "enc/x*"}, keep="source")


@pytest.mark.parametrize("penalised", ["a", "b", "ab"])
def test_a_penalty_of_activities_goes_with_its_convolution(penalised):
    def convolution(name, **kwargs):
        penalty = keras.regularizers.L2(0.01) if name in penalised else None
        return layers.Conv2D(
            2, 3, padding="same", name=name, activity_regularizer=penalty, **kwargs
        )

    x = keras.Input((8, 8, 2))
    model = keras.Model(x, convolution("b", strides=2)(convolution("a")(x)))
    model.get_layer("b").set_weights(model.get_layer("a").get_weights())
    tied = tie_weights(model, {"b": "a"}, transpose=False)
    given = RANDOM.random((3, 8, 8, 2)).astype("float32")
    np.testing.assert_allclose(tied(given), model(given), rtol=1e-5)
    assert float(sum(tied.losses)) == pytest.approx(float(sum(model.losses)), rel=1e-5)


@pytest.mark.parametrize("kept", [True, False])
def test_what_was_adapted_is_no_weight_to_draw(kept):
    """The words and means of the data stay, whether weights are copied or drawn anew."""
    means = layers.Normalization()
    means.adapt(RANDOM.normal(50, 10, (100, 3)).astype("float32"))
    words = layers.StringLookup()
    words.adapt(["tied", "weights"])
    x, text = keras.Input((3,)), keras.Input((2,), dtype="string")
    table = layers.Embedding(4, 3)
    model = keras.Model([x, text], [layers.Dense(2)(means(x)), table(words(text))])
    copy = unshare(model, copy_values=kept)
    [own] = [layer for layer in copy.layers if isinstance(layer, layers.Normalization)]
    given = RANDOM.normal(50, 10, (5, 3)).astype("float32")
    np.testing.assert_allclose(own(given), means(given), rtol=1e-6)
    [looked] = [layer for layer in copy.layers if isinstance(layer, layers.StringLookup)]
    assert looked.get_vocabulary() == words.get_vocabulary()
    copy([given, np.array([["tied", "x"]] * 5)])


def test_local_layers_keep_flags_and_penalties():
    x = keras.Input((6, 6, 2))
    convolution = layers.Conv2D(3, 3, trainable=False, activity_regularizer="l2")
    model = keras.Model(x, convolution(x))
    local = unshare(model, convolutions=True)
    assert not local.trainable_weights and len(local.weights) == 2
    given = RANDOM.random((2, 6, 6, 2)).astype("float32")
    np.testing.assert_allclose(local(given), model(given), rtol=1e-4, atol=1e-5)
    assert float(sum(local.losses)) == pytest.approx(float(sum(model.losses)), rel=1e-4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kernel_regularizer": "l2"}, "has kernel_regularizer, which no local layer has"),
        ({"bias_constraint": "non_neg"}, "has bias_constraint, which no local layer has"),
        ({"data_format": "channels_first"}, "has data_format='channels_first'"),
    ],
)
def test_what_no_local_layer_has_is_refused(given, said):
    x = keras.Input((6, 6, 6))
    model = keras.Model(x, layers.Conv2D(3, 3, **given)(x))
    with pytest.raises(ValueError, match=said):
        unshare(model, convolutions=True)


def test_a_local_layer_has_no_lora():
    x = keras.Input((6, 6, 2))
    convolution = layers.Conv2D(3, 3)
    model = keras.Model(x, convolution(x))
    convolution.enable_lora(2)
    with pytest.raises(ValueError, match="has LoRA, which no local layer has"):
        unshare(model, convolutions=True)


@pytest.mark.parametrize("copy", [unshare, cluster, lambda m: tie_weights(m, {"right": "left"})])
def test_weights_of_a_class_are_not_lost(copy):
    """Those that weigh the losses of a MultiTaskNet belong to none of its layers."""
    model = MultiTaskNet(weighting="uncertainty")
    with pytest.raises(TieError, match=r"\['log_variances'\] besides those of its layers"):
        copy(model)
    plain = keras.Model(model.input, model.output)  # as it says
    x = RANDOM.integers(0, 256, (2, 36, 36, 1)).astype("float32")
    for task, scores in unshare(plain)(x).items():
        np.testing.assert_allclose(scores, model(x)[task], rtol=1e-4, atol=1e-4)


def test_means_of_narrower_inputs_are_not_known():
    means, x = layers.Normalization(), keras.Input((6,))
    model = keras.Model(x, layers.Dense(2)(layers.Dense(8)(means(layers.Dense(8)(x)))))
    means.adapt(RANDOM.random((5, 8)))
    narrow = unshare(model, copy_values=False, parameters=90)
    assert narrow.predict(np.ones((2, 6)), verbose=0).shape == (2, 2)


@keras.saving.register_keras_serializable("tests")
class Holding(layers.Layer):
    """With the config of a layer, as it is, in its own."""

    def __init__(self, sub=None, **kwargs):
        super().__init__(**kwargs)
        self.sub = layers.Dense(3) if sub is None else layers.Dense.from_config(sub)

    def build(self, input_shape):
        self.sub.build(input_shape)

    def call(self, inputs):
        return self.sub(inputs)

    def get_config(self):
        return {**super().get_config(), "sub": self.sub.get_config()}


def test_what_is_frozen_or_called_otherwise_is_no_difference():
    x = keras.Input((3,))
    stacks = [SharedStack(layers.Dense(3), 3, 2, name=name) for name in ("sa", "sb")]
    holding = [Holding(name=name) for name in ("ha", "hb")]
    towers = [tower("ta"), tower("tb")]
    y = x
    for layer in (*stacks, *holding, *towers):
        y = layer(y)
    model = keras.Model(x, y)
    stacks[1].blocks[1].trainable = False
    towers[1].layers[1].trainable = False
    ties = {"sb": "sa", "hb": "ha", "tb": "ta"}
    tied = tie_weights(model, ties, keep="source", transpose=False)
    assert tied.count_params() == model.count_params() // 2
