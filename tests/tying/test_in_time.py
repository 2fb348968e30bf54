"""One cell in two RNNs, and small vectors that two layers share, through every operation."""

import keras
import numpy as np
import pytest
from by_hand import gradient
from keras import layers

from keras_shared.layers import Scale, TiedLayer
from keras_shared.sharing import Reading, sharing_report, unshare
from keras_shared.tying import TieError, bind_ties, check_ties, untie

X = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Counting(layers.Layer):
    """A cell of somebody else, which begins with ones."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.units))

    def call(self, inputs, states):
        state = states[0] + keras.ops.matmul(inputs, self.kernel)
        return state, [state]

    def get_initial_state(self, batch_size=None):
        return [keras.ops.ones((batch_size, self.units))]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


CELLS = {
    "lstm": lambda: layers.LSTMCell(4, name="cell"),
    "gru": lambda: layers.GRUCell(4, name="cell"),
    "simple": lambda: layers.SimpleRNNCell(4, name="cell"),
    "own": lambda: Counting(4, name="cell"),
    "stacked": lambda: layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(4)], name="cell"),
}


def two_rnns(cell):
    """One cell, forwards and backwards."""
    inputs = keras.Input((5, 6))
    onward = layers.RNN(cell, name="onward")(inputs)
    back = layers.RNN(TiedLayer(cell, name="again"), go_backwards=True, name="back")(inputs)
    return keras.Model(inputs, layers.Concatenate()([onward, back]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "lstm",
        pytest.param("own", marks=pytest.mark.slow),
        pytest.param("simple", marks=pytest.mark.slow),
        pytest.param("gru", marks=pytest.mark.slow),
        pytest.param("stacked", marks=pytest.mark.slow),
    ],
)
def test_one_cell_in_two_rnns(kind, tmp_path):
    cell = CELLS[kind]()
    model = two_rnns(cell)
    model.save(tmp_path / "m.keras")
    check_ties(model)
    wanted = model.predict(X, verbose=0)
    for net in (model, keras.models.load_model(tmp_path / "m.keras"),
                keras.models.clone_model(model)):  # fmt: skip
        net.set_weights(model.get_weights())
        assert len(net.weights) == len(cell.weights)
        answers = net.predict(X, verbose=0)
        np.testing.assert_allclose(answers, wanted, atol=1e-6)
        np.testing.assert_allclose(answers[:, 4:], net.get_layer("onward")(X[:, ::-1]), atol=1e-6)
    report = sharing_report(model)
    uses = {k: r for w in report.weights for k, r in w.readers.items()}
    assert set(uses.values()) == {Reading("as is, at each of 5 steps", 2)}
    apart = unshare(model)
    assert apart.count_params() == 2 * model.count_params()
    np.testing.assert_allclose(apart.predict(X, verbose=0), wanted, atol=1e-6)
    model.compile("sgd", "mse")
    model.fit(X, wanted * 0, verbose=0)
    wanted = model.predict(X, verbose=0)
    untie(model)
    np.testing.assert_allclose(model.predict(X, verbose=0), wanted, atol=1e-6)


def test_bidirectional_copies_its_layer_and_its_cell():
    """Keras does so by itself: the reader's source is then outside of the model."""
    inputs, cell = keras.Input((5, 6)), layers.GRUCell(4, name="cell")
    back = layers.RNN(TiedLayer(cell, name="again"), go_backwards=True)
    both = layers.Bidirectional(layers.RNN(cell), backward_layer=back)
    with pytest.raises(
        TieError, match="TiedLayer 'again' is tied to .* 'cell', which is not part of"
    ):
        check_ties(keras.Model(inputs, both(inputs)))
    check_ties(two_rnns(cell))  # what does work, as TiedLayer says


def test_a_cell_with_dropout_is_refused_with_advice():
    message = "The cell 'cell' has dropout.*keras.layers.Dropout before each RNN.*dropout=0.5"
    with pytest.raises(TieError, match=message):
        TiedLayer(layers.LSTMCell(4, dropout=0.5, name="cell"))
    inputs, cell = keras.Input((5, 6)), layers.LSTMCell(4)  # as the message says
    halves = [layers.RNN(c)(layers.Dropout(0.5)(inputs)) for c in (cell, TiedLayer(cell))]
    model = keras.Model(inputs, layers.Add()(halves))
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((3, 4)), verbose=0)


def one_vector(frozen):
    """One vector multiplies the inputs of two layers, in two sub-models."""
    a, b, x, y = keras.Input((6,)), keras.Input((6,)), keras.Input((6,)), keras.Input((6,))
    vector = Scale("normal", name="vector", trainable=not frozen)
    left = keras.Model(a, layers.Dense(2)(vector(a)), name="left")
    right = keras.Model(b, layers.Dense(2)(TiedLayer(vector)(b)), name="right")
    return keras.Model([x, y], layers.Add()([left(x), right(y)]))


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_one_vector_for_two_layers(frozen, tmp_path):
    model = one_vector(frozen)
    data = [X[:, 0], X[:, 1]]
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    clone = bind_ties(keras.models.clone_model(model))
    clone.set_weights(model.get_weights())
    for net in (model, loaded, clone):
        own = net.get_layer("left").get_layer("vector")
        assert len(net.weights) == 5 and len(own.weights) == 1
        assert own.trainable == (not frozen)
        before = own.get_weights()[0]
        net.compile("sgd", "mse")
        net.fit(data, np.ones((3, 2)), verbose=0)
        assert (np.abs(own.get_weights()[0] - before).max() > 0) == (not frozen)
        left, right = (net.get_layer(n).layers[-1] for n in ("left", "right"))
        scale = own.get_weights()[0]
        wanted = sum(
            (x * scale) @ d.kernel.numpy() + d.bias.numpy() for x, d in zip(data, (left, right))
        )
        np.testing.assert_allclose(net.predict(data, verbose=0), wanted, atol=1e-5)
    assert sharing_report(model).weights[0].uses == 2


@pytest.mark.parametrize("frozen", [False, True])
def test_one_layer_called_twice_and_frozen(frozen, tmp_path):
    inputs = keras.Input((6,))
    layer = layers.Dense(6, name="twice", trainable=not frozen)
    model = keras.Model(inputs, layers.Dense(1)(layer(layer(inputs))))
    check_ties(model)
    model.save(tmp_path / "m.keras")
    for net in (keras.models.load_model(tmp_path / "m.keras"), keras.models.clone_model(model)):
        assert len(net.weights) == 4
        before = net.get_layer("twice").get_weights()[0]
        net.compile("sgd", "mse")
        net.fit(X[:, 0], np.ones((3, 1)), verbose=0)
        after = net.get_layer("twice").get_weights()[0]
        assert (np.abs(after - before).max() > 0) == (not frozen)


def test_gradient_through_time_is_the_sum_over_the_steps():
    """h_t = tanh(x_t W + h_(t-1) U + b); the loss is sum(h_T * g)."""
    inputs = keras.Input((5, 6))
    model = keras.Model(inputs, layers.SimpleRNN(4, bias_initializer="normal")(inputs))
    w, u, b = (v.astype("float64") for v in model.get_weights())
    towards = np.random.default_rng(3).normal(size=(3, 4))
    states = [np.zeros((3, 4))]
    for t in range(5):
        states.append(np.tanh(X[:, t] @ w + states[-1] @ u + b))
    steps = []  # what each step adds to the gradients of W, U and b
    flowing = towards
    for t in reversed(range(5)):
        inner = flowing * (1 - states[t + 1] ** 2)
        steps.append((X[:, t].T @ inner, states[t].T @ inner, inner.sum(axis=0)))
        flowing = inner @ u.T
    for number, variable in enumerate(model.trainable_variables):
        found = gradient(model, X, towards, variable)
        wanted = sum(step[number] for step in steps)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert np.abs(found - steps[0][number]).max() > 1e-3  # the last step alone is not it


@pytest.mark.parametrize("length", [5, None])
def test_one_cell_is_reported_with_its_steps(length):
    inputs = keras.Input((length, 6))
    model = keras.Model(inputs, layers.LSTM(4)(layers.GRU(3, return_sequences=True)(inputs)))
    report = sharing_report(model)
    steps = length or 8  # the report is of 8 where the model leaves it open
    said = "at each of 5 steps" if length else "at each step"
    assert all(r.form == f"as is, {said}" for w in report.weights for r in w.readers.values())
    assert report.totals["multiply_adds"] == steps * model.count_params()
