import keras
import numpy as np
import pytest
from keras import layers

from keras_shared.layers import Shared

X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")


def dense_model(mode):
    inputs = [keras.Input((4,)), keras.Input((4,))]
    a, b = Shared(layers.Dense(3, name="tower"), mode=mode)(inputs)
    return keras.Model(inputs, [a, b])


@pytest.mark.parametrize("mode", ["looped", "joined"])
def test_values_and_summed_gradient(mode):
    model = dense_model(mode)
    kernel, bias = (v.numpy() for v in model.trainable_variables)
    for out, x in zip(model.predict(list(X), verbose=0), X, strict=True):
        np.testing.assert_allclose(out, x @ kernel + bias, atol=1e-6)
    model.compile(keras.optimizers.SGD(1.0), loss=["mse", "mse"])
    zeros = np.zeros((5, 3), "float32")
    model.train_on_batch(list(X), [zeros, zeros])
    # d/dW of mean((x W + b)^2), summed over both uses
    gradient = sum(x.T @ (2 * (x @ kernel + bias) / 15) for x in X)
    np.testing.assert_allclose(model.trainable_variables[0].numpy(), kernel - gradient, atol=1e-5)


@pytest.mark.parametrize("mode", ["looped", "joined"])
@pytest.mark.parametrize("structure", [list, tuple, lambda v: dict(zip("ab", v, strict=True))])
def test_structure_comes_back(mode, structure):
    layer = Shared(layers.Dense(3), mode=mode)
    given = structure([X[0], X[1]])
    out = layer(given)
    assert type(out) is type(given)
    assert len(layer.variables) == 2
    keras.tree.assert_same_structure(out, given)


def test_saved_and_loaded_with_dict_and_tower(tmp_path):
    tower = keras.Sequential([layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(2)])
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    model = keras.Model(inputs, Shared(tower, name="twin")(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    data = {"a": X[0], "b": X[1]}
    for key in "ab":
        np.testing.assert_array_equal(
            loaded.predict(data, verbose=0)[key], model.predict(data, verbose=0)[key]
        )
    assert len(loaded.trainable_variables) == 4


def test_training_reaches_the_tower_and_batch_norm_differs_by_mode():
    means = {}
    for mode in ("looped", "joined"):
        layer = Shared(layers.BatchNormalization(momentum=0.5), mode=mode)
        layer([X[0], X[1]], training=True)
        means[mode] = layer.layer.moving_mean.numpy()
    a, b = X[0].mean(0), X[1].mean(0)
    np.testing.assert_allclose(means["looped"], 0.25 * a + 0.5 * b, atol=1e-6)  # two updates
    np.testing.assert_allclose(means["joined"], 0.25 * (a + b), atol=1e-6)  # one


def test_masks_pass_looped_and_are_refused_joined():
    ids = np.array([[1, 2, 0], [3, 0, 0]])
    embedding = layers.Embedding(5, 4, mask_zero=True)
    looped = Shared(layers.LSTM(2))
    x = embedding(ids)
    short = looped.layer(embedding(np.array([[1, 2], [3, 0]])))
    np.testing.assert_allclose(looped([x, x])[0], short, atol=1e-6)  # masked steps change nothing
    with pytest.raises(ValueError, match="mode='looped'"):
        Shared(looped.layer, mode="joined")([x, x])


def test_inputs_of_different_size():
    conv = Shared(keras.Sequential([layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()]))
    out = conv([np.ones((1, 8, 8, 1), "float32"), np.ones((3, 5, 9, 1), "float32")])
    assert [o.shape for o in out] == [(1, 2), (3, 2)]
    joined = Shared(layers.Dense(2), mode="joined")
    joined.build([(None, 3), (None, 3)])
    with pytest.raises(ValueError, match="inputs of one shape"):
        joined([np.ones((2, 3)), np.ones((2, 2))])


def test_several_inputs_to_one_use():
    a, b = keras.Input((4,)), keras.Input((4,))
    tower = keras.Model([a, b], layers.Dense(2)(layers.Add()([a, b])))
    out = Shared(tower)([[X[0], X[1]], [X[1], X[0]]])
    np.testing.assert_allclose(out[0], out[1], atol=1e-6)


@pytest.mark.parametrize("bad", [X[0], {}, []])
def test_single_or_no_input_is_refused(bad):
    with pytest.raises(ValueError, match=r"list, tuple or dict"):
        Shared(layers.Dense(3))(bad)


def test_bad_mode_and_bad_layer():
    with pytest.raises(ValueError, match="mode='both'"):
        Shared(layers.Dense(3), mode="both")
    with pytest.raises(ValueError, match="valid Keras layer"):
        Shared(lambda x: x)


def test_inputs_of_two_widths_are_refused_when_the_model_is_built():
    left, right = keras.Input((4,)), keras.Input((5,))
    with pytest.raises(ValueError, match=r"'narrow' .*\{-1: 4\} .*\(None, 5\)"):
        Shared(keras.layers.Dense(3, name="narrow"))([left, right])
