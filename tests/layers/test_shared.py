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


@pytest.mark.parametrize("each", [False, True])
def test_attention_that_is_not_built_yet(tmp_path, each):
    """It is built by the shapes of two tensors."""
    first, second, value = keras.Input((5, 4)), keras.Input((7, 4)), keras.Input((3, 6))
    attention = layers.MultiHeadAttention(2, 3)
    given = [value, value] if each else value
    model = keras.Model([first, second, value], Shared(attention)([first, second], value=given))
    random = np.random.default_rng(1)
    x = [random.normal(size=(2, *s)).astype("float32") for s in ((5, 4), (7, 4), (3, 6))]
    model.save(tmp_path / "m.keras")
    for one in (model, keras.models.load_model(tmp_path / "m.keras")):
        for query, answer in zip(x, one(x)):
            np.testing.assert_allclose(answer, attention(query, x[2]), atol=1e-6)


@pytest.mark.parametrize("mode", ["looped", "joined"])
@pytest.mark.parametrize("layer", [layers.LSTM(3), layers.Bidirectional(layers.GRU(3))])
def test_states_that_are_several_tensors(layer, mode):
    """For two inputs a list of two tensors is one state of every use; of a GRU, one for each."""
    x = [X, X[:, ::-1]]
    h, c = np.ones((2, 3), "float32"), np.full((2, 3), -1, "float32")
    for answer, given in zip(Shared(layer, mode=mode)(x, initial_state=[h, c]), x):
        np.testing.assert_allclose(answer, layer(given, initial_state=[h, c]), atol=1e-6)
    answers = Shared(layer, mode=mode)(x, initial_state=[[h, c], [c, h]])
    for answer, given, states in zip(answers, x, ([h, c], [c, h])):
        np.testing.assert_allclose(answer, layer(given, initial_state=states), atol=1e-6)
    gru = layers.GRU(3)
    for answer, given, state in zip(Shared(gru)(x, initial_state=[h, c]), x, (h, c)):
        np.testing.assert_allclose(answer, gru(given, initial_state=state), atol=1e-6)


def test_states_by_name_of_two_cells_and_of_images():
    h, c = np.ones((2, 3), "float32"), np.full((2, 3), -1, "float32")
    lstm = layers.LSTM(3)
    named = Shared(lstm)({"a": X, "b": -X}, initial_state={"a": [h, c], "b": [c, h]})
    np.testing.assert_allclose(named["b"], lstm(-X, initial_state=[c, h]), atol=1e-6)
    two = layers.RNN([layers.LSTMCell(3), layers.LSTMCell(3)])
    states = [[h, c], [c, h]]
    for answer, given in zip(Shared(two)([X, -X], initial_state=states), (X, -X)):
        np.testing.assert_allclose(answer, two(given, initial_state=states), atol=1e-6)
    images = np.random.default_rng(2).normal(size=(2, 3, 6, 6, 1)).astype("float32")
    convolutional = layers.ConvLSTM2D(2, 1)
    state = np.ones((2, 6, 6, 2), "float32")
    given = {"initial_state": [state, -state]}
    for answer, x in zip(Shared(convolutional)([images, -images], **given), (images, -images)):
        np.testing.assert_allclose(answer, convolutional(x, **given), atol=1e-5)


@pytest.mark.parametrize("more", [None, 2.0])
def test_joined_gives_tensors_alone(more):
    class Two(layers.Layer):
        def call(self, x):
            return x, more

    x = np.ones((2, 3))
    assert Shared(Two())([x, x])[1][1] == more
    with pytest.raises((ValueError, TypeError), match="mode='looped'"):
        Shared(Two(), mode="joined")([x, x])


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda x: keras.ops.reshape(x, (-1, 3)), (3,)),  # more rows
        (lambda x: keras.ops.transpose(x, (1, 0, 2)), (2, 3)),  # the rows elsewhere
        (lambda x: keras.ops.mean(x, 0), (3,)),  # no rows
    ],
)
def test_joined_needs_a_row_for_a_row(change, shape):
    x = np.arange(24, dtype="float32").reshape(2, 4, 3)
    shared = Shared(layers.Lambda(change, output_shape=shape), mode="joined")
    with pytest.raises(ValueError, match="the 5 rows of all uses.*mode='looped'"):
        shared([x, x[[0, 1, 1]]])
    inputs = [keras.Input((4, 3)), keras.Input((4, 3))]
    model = keras.Model(inputs, shared(inputs))
    with pytest.raises(Exception, match="reshape|rows of all uses"):
        model.predict([x[:1], x[:1]], verbose=0)


def test_joined_attention():
    attention = layers.MultiHeadAttention(2, 3)
    x = [X, X[:, ::-1]]
    for answer, query, value in zip(Shared(attention, mode="joined")(x, value=x[::-1]), x, x[::-1]):
        np.testing.assert_allclose(answer, attention(query, value), atol=1e-6)
