"""LSUV and rescale: the variance of every use, worked out in NumPy from the weights."""

import keras
import numpy as np
import pytest

from keras_shared.initializers import LSUV, rescale
from keras_shared.layers import ClusteredDense, HashedDense, Shared, TiedDense

NUMBERS = 30 * np.random.default_rng(0).normal(size=(200, 12)).astype("float32") + 5


def relu(x):
    return np.maximum(x, 0)


def deep(activation="relu", depth=6, **kwargs):
    layers = [keras.layers.Dense(16, activation, name=f"d{i}", **kwargs) for i in range(depth)]
    return keras.Sequential([keras.Input((12,)), *layers])


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", None])
def test_every_layer_has_unit_variance_before_its_activation(activation):
    model = deep(activation)
    factors = LSUV(model, NUMBERS)
    y = NUMBERS
    of = {
        "relu": relu,
        "tanh": np.tanh,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        None: lambda x: x,
    }
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        assert (y @ kernel + bias).var() == pytest.approx(1, abs=0.06)
        np.testing.assert_allclose(np.linalg.svd(kernel, compute_uv=False),
                                   factors[layer.kernel.path], rtol=1e-4)  # fmt: skip
        y = of[activation](y @ kernel + bias)
    assert set(factors) == {layer.kernel.path for layer in model.layers}


def test_rescale_keeps_the_directions():
    model = deep()
    before = [layer.get_weights()[0] for layer in model.layers]
    factors = rescale(model, NUMBERS)
    for kernel, layer in zip(before, model.layers):
        factor = factors[layer.kernel.path]
        np.testing.assert_allclose(layer.get_weights()[0], kernel * factor, rtol=1e-5)


def test_weights_of_one_path_have_factors_of_their_own():
    heads = [
        keras.Sequential([keras.Input((12,)), keras.layers.Dense(16, name="out")], name=name)
        for name in ("left", "right")
    ]
    inputs = keras.Input((12,))
    model = keras.Model(inputs, [head(inputs) for head in heads])
    kernels = [head.layers[-1].kernel for head in heads]
    kernels[1].assign(7 * kernels[1])
    before = [kernel.numpy() for kernel in kernels]
    factors = rescale(model, NUMBERS)
    assert list(factors) == ["left/out/kernel", "right/out/kernel"]
    for kernel, values, factor in zip(kernels, before, factors.values()):
        np.testing.assert_allclose(kernel.numpy(), values * factor, rtol=1e-5)


@pytest.mark.slow
def test_convolutions_and_activations_of_their_own():
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, name="c")(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="n")(x))
    x = keras.layers.SeparableConv2D(5, 3, name="s")(x)
    x = keras.layers.DepthwiseConv2D(3, activation="tanh", name="w")(x)
    model = keras.Model(image, keras.layers.Dense(3, name="o")(keras.layers.Flatten()(x)))
    images = np.random.default_rng(1).normal(size=(50, 8, 8, 1)).astype("float32") * 9
    moving = model.get_layer("n").get_weights()
    depthwise = np.asarray(model.get_layer("s").depthwise_kernel)
    rescale(model, images)
    for name in "cso":  # without an activation: what they give
        outputs = keras.Model(image, model.get_layer(name).output).predict(images, verbose=0)
        assert outputs.var() == pytest.approx(1, abs=0.06)
    w = model.get_layer("w")
    w.activation = None
    before = keras.Model(image, w(model.get_layer("s").output)).predict(images, verbose=0)
    assert before.var() == pytest.approx(1, abs=0.06)
    np.testing.assert_array_equal(moving, model.get_layer("n").get_weights())
    np.testing.assert_array_equal(depthwise, model.get_layer("s").depthwise_kernel)


def autoencoder():
    x = keras.Input((12,))
    first, second = (keras.layers.Dense(n, "tanh", name=f"e{n}") for n in (8, 4))
    code = second(first(x))
    y = TiedDense(first, "sigmoid", name="d8")(TiedDense(second, "tanh", name="d4")(code))
    return keras.Model(x, y)


def test_a_tied_kernel_is_scaled_once_by_all_its_uses():
    model = autoencoder()
    factors = LSUV(model, NUMBERS)
    (w, b), (v, c) = (model.get_layer(name).get_weights() for name in ("e8", "e4"))
    z1 = NUMBERS @ w + b
    z2 = np.tanh(z1) @ v + c
    z3 = np.tanh(z2) @ v.T
    z4 = np.tanh(z3) @ w.T
    assert (z1.var() + z4.var()) / 2 == pytest.approx(1, abs=0.06)
    assert (z2.var() + z3.var()) / 2 == pytest.approx(1, abs=0.06)
    assert len(factors) == 2
    np.testing.assert_allclose(np.linalg.svd(w, compute_uv=False),
                               factors[model.get_layer("e8").kernel.path], rtol=1e-4)  # fmt: skip


def test_a_layer_on_two_inputs_that_are_not_alike():
    a, b = keras.Input((12,)), keras.Input((12,))
    tower = keras.layers.Dense(6, "relu", name="tower")
    model = keras.Model([a, b], Shared(tower)([a, b]))
    rescale(model, [NUMBERS, 0.1 * NUMBERS])
    z = NUMBERS @ tower.get_weights()[0]
    assert (z.var() + (0.1 * z).var()) / 2 == pytest.approx(1, abs=0.06)


def test_a_linear_tie_goes_by_the_fourth_power():
    """Both uses in closed form: c^2 a and c^4 b; plain division would swing for ever."""
    x = keras.Input((12,))
    first = keras.layers.Dense(3, name="first")
    model = keras.Model(x, TiedDense(first)(first(x)))
    kernel = first.get_weights()[0]
    a, b = (NUMBERS @ kernel).var(), (NUMBERS @ kernel @ kernel.T).var()
    factor = rescale(model, NUMBERS)[first.kernel.path]
    assert (factor**2 * a + factor**4 * b) / 2 == pytest.approx(1, abs=0.06)


@keras.saving.register_keras_serializable("tests")
class Twice(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.layers.Dense(12, "relu")

    def call(self, x, other=None):
        y = self.inner(self.inner(x))
        return y if other is None else y + self.inner(other)


def test_a_subclassed_model_that_calls_a_layer_twice():
    model = Twice()
    with pytest.raises(ValueError, match="is not built"):
        LSUV(model, NUMBERS)
    model(NUMBERS)
    rescale(model, NUMBERS)
    w, b = model.inner.get_weights()
    z1 = NUMBERS @ w + b
    z2 = relu(z1) @ w + b
    assert (z1.var() + z2.var()) / 2 == pytest.approx(1, abs=0.06)


def test_words_and_a_table_that_is_read_transposed():
    words = keras.Input((5,), dtype="int32")
    table = keras.layers.Embedding(20, 6, name="table")
    model = keras.Model(words, TiedDense(table, name="logits")(table(words)))
    rescale(model, np.random.default_rng(0).integers(0, 20, (30, 5)))
    vectors = model.predict(np.arange(20).reshape(4, 5), verbose=0)
    assert 0.3 < vectors.var() < 3


@pytest.mark.slow
def test_what_is_left_as_it_is():
    x = keras.Input((4, 12))
    frozen = keras.layers.Dense(5, trainable=False, name="frozen")
    y = keras.layers.LSTM(6, name="lstm")(frozen(x))
    model = keras.Model(x, keras.layers.Dense(1, name="p")(keras.layers.Dense(1, name="o")(y)))
    before = {w.path: np.asarray(w) for w in model.weights}
    numbers = np.random.default_rng(0).normal(size=(20, 4, 12)).astype("float32")
    factors = LSUV(model, numbers)
    assert list(factors) == [model.get_layer("o").kernel.path]  # "p" has one number
    for weight in model.weights:
        if weight.path not in factors:
            np.testing.assert_array_equal(before[weight.path], weight)


@pytest.mark.parametrize(
    "layer", [HashedDense(8, 2), ClusteredDense(8, codes=4)], ids=["hashed", "clustered"]
)
def test_layers_that_share_inside_of_one_matrix_are_scaled(layer):
    model = keras.Sequential([keras.Input((12,)), layer, keras.layers.Dense(2)])
    (weight,) = [v for v in layer.trainable_variables if v.name != "bias"]
    before = np.asarray(weight)
    factors = LSUV(model, NUMBERS)
    assert len(factors) == 2 and np.var(layer(NUMBERS)) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(weight, factors[weight.path] * before, rtol=1e-4)


def test_a_data_set_as_of_fit():
    import tensorflow as tf

    model, again = deep(depth=2), deep(depth=2)
    again.set_weights(model.get_weights())
    data = tf.data.Dataset.from_tensor_slices((NUMBERS, NUMBERS)).batch(len(NUMBERS))
    assert [*rescale(model, data).values()] == [*rescale(again, NUMBERS).values()]


class Idle(keras.Model):
    def __init__(self):
        super().__init__()
        self.used, self.idle = keras.layers.Dense(3), keras.layers.Dense(3)

    def build(self, shape):
        self.used.build(shape)
        self.idle.build(shape)

    def call(self, x):
        return self.used(x)


def test_a_kernel_that_no_call_reads():
    model = Idle()
    model(NUMBERS)
    with pytest.warns(UserWarning, match="No layer that the model calls reads .*idle/dense"):
        rescale(model, NUMBERS)


def test_a_bias_that_no_kernel_makes_up_for():
    model = deep(depth=1)
    model.layers[0].bias.assign(100.0 * np.arange(16))
    with pytest.warns(UserWarning, match="stays away from 1.*make it smaller"):
        rescale(model, NUMBERS)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (NUMBERS[:0], r"empty.*\(0, 12\)"),
        ([], "empty"),
        (np.where(NUMBERS > 60, np.nan, NUMBERS), "NaN or infinity, .* times"),
        (np.where(NUMBERS > 60, np.inf, NUMBERS), "NaN or infinity"),
        (np.zeros((5, 12), "float32"), "'d0' gives the same for all|/d0' gives the same for all"),
    ],
)
def test_bad_batches_change_nothing_that_was_there(batch, said):
    model = deep()
    before = model.get_weights()
    with pytest.raises(ValueError, match=said):
        rescale(model, batch)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_zero_kernels_cannot_be_scaled_and_are_drawn_by_lsuv():
    model = deep(kernel_initializer="zeros")
    with pytest.raises(ValueError, match="gives the same for all.*LSUV"):
        rescale(model, NUMBERS)
    LSUV(model, NUMBERS)


def test_models_without_anything_to_scale():
    for layer in (keras.layers.BatchNormalization(), keras.layers.Dense(3, trainable=False)):
        model = keras.Sequential([keras.Input((12,)), layer])
        with pytest.raises(ValueError, match="no kernel that can be scaled"):
            LSUV(model, NUMBERS)
    with pytest.raises(ValueError, match="is not built"):
        LSUV(keras.Sequential([keras.layers.Dense(3)]), NUMBERS)


@pytest.mark.parametrize("initialise", [LSUV, rescale])
def test_weights_are_put_back_where_it_fails(initialise):
    far = keras.initializers.Constant(-1e6)
    model = deep(depth=2)
    dead = keras.layers.Dense(4, "relu", bias_initializer=far, name="dead")
    model.add(dead)
    model.add(keras.layers.Dense(3, name="last"))
    before = model.get_weights()
    with pytest.raises(ValueError) as caught:
        initialise(model, NUMBERS)
    said = str(caught.value)
    assert said.startswith("'") and "/last/kernel' brings that to variance 1" in said
    assert "a bias that no unit gets over" in said and "Exception encountered" not in said
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    dead.bias.assign(dead.bias * 0)  # as it says
    assert len(initialise(model, NUMBERS)) == 4
