"""signal_report: forward and backward values worked out in NumPy, and what they warn of."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_shared
from keras_shared.initializers import LSUV
from keras_shared.layers import Shared, SharedStack, TiedDense
from keras_shared.signals import SignalError, jacobians, signal_report
from keras_shared.tying.keras_private import flatten_layers

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 6)).astype("float32")
Y = RANDOM.normal(size=(40, 2)).astype("float32")


def mlp(activation="tanh", units=(5, 4, 2), inputs=6, **kwargs):
    layers = [
        keras.layers.Dense(n, activation, name=f"d{i}", **kwargs) for i, n in enumerate(units)
    ]
    model = keras.Sequential([keras.Input((inputs,)), *layers])
    model.compile("sgd", "mse")
    return model


def by_hand(model):
    """Outputs a, gradients of the loss of one example by z, of three tanh layers and MSE."""
    weights = [layer.get_weights() for layer in model.layers]
    outputs, given = [], X
    for kernel, bias in weights:
        given = np.tanh(given @ kernel + bias)
        outputs.append(given)
    gradient = 2 * (outputs[-1] - Y) / Y.shape[1] * (1 - outputs[-1] ** 2)
    gradients = [gradient]
    for i in (2, 1):
        gradient = gradient @ weights[i][0].T * (1 - outputs[i - 1] ** 2)
        gradients.insert(0, gradient)
    return outputs, gradients, weights


def test_every_number_by_hand():
    model = mlp(kernel_initializer="he_normal")
    report = signal_report(model, (X, Y))
    outputs, gradients, weights = by_hand(model)
    assert [layer.name for layer in report.layers] == ["d0", "d1", "d2"]
    given = [X, *outputs]
    for layer, x, a, g, (kernel, _) in zip(report.layers, given, outputs, gradients, weights):
        of_kernel = x.T @ g / len(X)
        assert layer.kernel_gradient_deviation == pytest.approx(of_kernel.std(), rel=1e-4)
        assert layer.kernel_gradients.high == pytest.approx(of_kernel.max(), rel=1e-3)
        assert layer.mean == pytest.approx(a.mean(), abs=1e-6)
        assert layer.deviation == pytest.approx(a.std(), rel=1e-5)
        assert layer.gradient_mean == pytest.approx(g.mean(), abs=1e-6)
        assert layer.gradient_deviation == pytest.approx(g.std(), rel=1e-4)
        norm = np.sqrt((g**2).sum(1).mean())
        assert layer.gradient_norm == pytest.approx(norm, rel=1e-4)
        assert layer.saturated == pytest.approx(((1 - a**2) < 0.05).mean())
        assert layer.dead == 0
        values = np.linalg.svd(kernel * (1 - a[0] ** 2), compute_uv=False)  # of W diag(f')
        np.testing.assert_allclose(layer.jacobian.values, values, rtol=1e-4)
        assert layer.jacobian.root_mean_square == pytest.approx(np.sqrt((values**2).mean()), 1e-4)
        assert layer.jacobian.exact
        assert sum(layer.outputs.counts) == a.size and sum(layer.gradients.counts) == g.size
    assert (report.examples, report.loss, report.ties) == (40, "the model's own", ())


@pytest.mark.parametrize(
    "kind",
    ["dense", *(pytest.param(k, marks=pytest.mark.slow) for k in ("convolution", "recurrent"))],
)
def test_the_randomised_jacobian_finds_the_largest(kind, monkeypatch):
    if kind == "dense":
        model, x = mlp(), X
    elif kind == "convolution":
        layers = [keras.Input((6, 6, 2)), keras.layers.Conv2D(3, 3, activation="tanh"),
                  keras.layers.MaxPooling2D(), keras.layers.Conv2D(2, 2)]  # fmt: skip
        model, x = keras.Sequential(layers), RANDOM.normal(size=(4, 6, 6, 2)).astype("float32")
    else:
        layers = [keras.Input((3, 6)), keras.layers.GRU(8), keras.layers.Dense(2)]
        model, x = keras.Sequential(layers), RANDOM.normal(size=(4, 3, 6)).astype("float32")
    exact = [layer.jacobian for layer in signal_report(model, x).layers]
    monkeypatch.setattr(jacobians, "EXACT", 0)
    for whole, found in zip(exact, signal_report(model, x).layers):
        found = found.jacobian
        assert not found.exact and len(found.values) <= 5
        np.testing.assert_allclose(found.values[:1], whole.values[:1], rtol=0.01)
        assert found.root_mean_square == pytest.approx(whole.root_mean_square, rel=0.4)


def test_s_shaped_activations_saturate_and_others_do_not():
    x = np.linspace(-9, 9, 91, dtype="float32")[:, None] * np.ones((1, 3), "float32")
    slopes = {
        "tanh": 1 - np.tanh(x) ** 2,
        "sigmoid": 4 / (1 + np.exp(-x)) / (1 + np.exp(x)),
        "softsign": 1 / (1 + np.abs(x)) ** 2,
        "hard_sigmoid": np.abs(x) < 3,
    }
    for name in (*slopes, "relu", "linear", "softmax", "relu6"):
        layer = keras.layers.Dense(3, name, kernel_initializer="identity", name="d")
        given = signal_report(keras.Sequential([keras.Input((3,)), layer]), x).layers[0]
        separate = (
            keras.layers.Dense(3, kernel_initializer="identity"),
            keras.layers.Activation(name),
        )
        alone = signal_report(keras.Sequential([keras.Input((3,)), *separate]), x).layers[1]
        assert (given.saturated, given.dead) == (alone.saturated, alone.dead) or name == "linear"
        if name in slopes:
            assert given.saturated == pytest.approx((slopes[name] < 0.05).mean(), abs=0.02)
            assert given.dead == 0
        else:
            assert given.saturated is None
            assert given.dead == (None if name in ("linear", "softmax") else 0)


def test_dead_units_are_those_no_example_wakes():
    model = mlp("relu", units=(8, 8))
    bias = np.array([-100.0] * 3 + [100.0] * 5, "float32")
    model.layers[0].bias.assign(bias)
    report = signal_report(model, X)
    assert report.layers[0].dead == 3 / 8
    assert any(w.startswith("dead: 'd0'") for w in report.warnings)
    model.layers[0].bias.assign(np.zeros(8))
    LSUV(model, X)  # what the warning says
    assert not signal_report(model, X).warnings


def total_gradient(model, variable, x, y):
    """Of the loss that training sees, by one tape."""
    with tf.GradientTape() as tape:
        tape.watch(variable.value)
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=False), training=False)
    return tf.convert_to_tensor(tape.gradient(loss, variable.value)).numpy()


def test_the_uses_of_a_shared_layer_add_up_to_its_gradient():
    layer = keras.layers.Dense(6, "tanh", name="again", kernel_initializer="he_normal")
    model = keras.Sequential([keras.Input((6,)), layer, layer, layer, keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    report = signal_report(model, (X, Y))
    assert [one.name for one in report.layers[:3]] == ["again", "again (2)", "again (3)"]
    tie = next(tie for tie in report.ties if tie.weight.endswith("kernel"))
    (kernel, bias), (last, last_bias) = layer.get_weights(), model.layers[-1].get_weights()
    states = [X]
    for _ in range(3):
        states.append(np.tanh(states[-1] @ kernel + bias))
    gradient = (states[3] @ last + last_bias - Y) @ last.T  # 2 / 2 outputs
    parts = []
    for i in (3, 2, 1):
        gradient = gradient * (1 - states[i] ** 2)
        parts.insert(0, states[i - 1].T @ gradient / len(X))
        gradient = gradient @ kernel.T
    np.testing.assert_allclose(tie.norms, [np.linalg.norm(p) for p in parts], rtol=1e-4)
    assert tie.norm == pytest.approx(np.linalg.norm(sum(parts)), rel=1e-4)
    cosines = [(parts[a] * parts[b]).sum() / np.linalg.norm(parts[a]) / np.linalg.norm(parts[b])
               for a, b in ((0, 1), (0, 2), (1, 2))]  # fmt: skip
    assert tie.cosine == pytest.approx(min(cosines), abs=1e-4)
    assert tie.uses == ("again", "again (2)", "again (3)") and tie.shape == (6, 6)


def test_more_of_the_same_examples_change_nothing():
    layer = keras.layers.Dense(6, "tanh")
    model = keras.Sequential([keras.Input((6,)), layer, layer, keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    once = signal_report(model, (X, Y), jacobians=False)
    thrice = signal_report(model, (np.tile(X, (3, 1)), np.tile(Y, (3, 1))), jacobians=False)
    summed = signal_report(model, (X, Y), keras.losses.MeanSquaredError(reduction="sum"), False)
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    for other in (thrice, summed, signal_report(model, (X, Y), jacobians=False)):
        for one, two in zip(once.layers, other.layers):
            assert two.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)
            deviation = one.kernel_gradient_deviation
            assert two.kernel_gradient_deviation == pytest.approx(deviation, rel=1e-4)
        assert other.ties[0].norm == pytest.approx(once.ties[0].norm, rel=1e-4)


class Traced(keras.Model):
    """Its layers are called when TensorFlow traces it, and then no more."""

    def __init__(self):
        super().__init__()
        self.hidden, self.scores = keras.layers.Dense(8, "relu"), keras.layers.Dense(8)

    def build(self, shape):  # else the first trace holds the initial weights as constants
        self.hidden.build(shape)
        self.scores.build((None, 8))

    @tf.function
    def call(self, x):
        return self.scores(self.hidden(x))


class ByRow(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(6)
        self.hidden.build((None, 6))

    def call(self, x):
        return keras.ops.vectorized_map(lambda row: self.hidden(row[None])[0], x)


class Counting(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.noise = keras.random.SeedGenerator(3)

    def build(self, shape):
        self.kernel = self.add_weight(shape=(6, 6), name="kernel")
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x):
        self.calls.assign_add(1)
        return x @ self.kernel + keras.random.normal((6,), seed=self.noise)


def test_nothing_moves_and_the_kernel_is_the_one_that_is_read():
    layer = Counting()
    model = keras.Sequential([keras.Input((6,)), layer])
    before = [np.asarray(v) for v in model.variables]
    signal_report(model, X)
    for one, two in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    inputs = keras.Input((6,))
    stack = keras.Model(inputs, SharedStack(keras.layers.Dense(6), 2, rank=2)(inputs))
    tie = signal_report(stack, X).ties[0]
    deviations = [u.kernel_gradient_deviation for u in signal_report(stack, X).layers]
    assert tie.shape == (6, 6) and min(deviations) > 0
    lstm = keras.Sequential(
        [keras.Input(batch_shape=(10, 5, 6)), keras.layers.LSTM(4, stateful=True)]
    )
    signal_report(lstm, np.ones((10, 5, 6), "float32"))


def test_calls_that_tensorflow_compiles():
    model = Traced()
    model(X)
    assert [one.kind for one in signal_report(model, X).layers] == ["Dense", "Dense"]
    LSUV(model, 100 * X)
    assert np.var(model(100 * X)) == pytest.approx(1, abs=0.1)
    mapped = keras.Sequential([keras.Input((6,)), ByRow()])
    with pytest.raises(SignalError, match="inside of a loop that TensorFlow compiles"):
        signal_report(mapped, X)
    with pytest.raises(ValueError, match="inside of a loop that TensorFlow compiles"):
        LSUV(mapped, X)
    hidden, inputs = mapped.layers[0].hidden, keras.Input((6,))
    both = keras.Model(inputs, mapped.layers[0](hidden(inputs)))
    with pytest.raises(SignalError, match="inside of a loop that TensorFlow compiles"):
        signal_report(both, X)
    assert not tf.config.functions_run_eagerly()


@pytest.mark.parametrize(
    "kind",
    ["autoencoder", "lstm", pytest.param("gru", marks=pytest.mark.slow), "embedding", "softmax"],
)
def test_the_uses_of_any_tie_add_up(kind):
    y = RANDOM.random((10, 6)).astype("float32")
    x = X[:10]
    if kind == "autoencoder":  # Keras' cross-entropy reads what goes into the sigmoid
        inputs = keras.Input((6,))
        shared = keras.layers.Dense(3, "tanh")
        outputs, loss = TiedDense(shared, "sigmoid")(shared(inputs)), "binary_crossentropy"
    elif kind == "softmax":
        inputs = keras.Input((6,))
        shared = keras.layers.Dense(6, "softmax")
        outputs, loss = shared(shared(inputs)), "categorical_crossentropy"
    elif kind == "embedding":
        inputs = keras.Input((4,), dtype="int32")
        shared = keras.layers.Embedding(6, 3)
        vectors = keras.layers.GlobalAveragePooling1D()(shared(inputs))
        outputs, loss = TiedDense(shared)(vectors), "mse"
        x = RANDOM.integers(0, 6, (10, 4))
    else:
        inputs = [keras.Input((5, 6)), keras.Input((5, 6))]
        shared = (keras.layers.LSTM if kind == "lstm" else keras.layers.GRU)(4)
        outputs = keras.layers.Dense(6)(keras.layers.Concatenate()(Shared(shared)(inputs)))
        loss = "mse"
        x = [RANDOM.normal(size=(10, 5, 6)).astype("float32") for _ in range(2)]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss)
    report = signal_report(model, (x, y), jacobians=False)
    assert report.ties
    for tie in report.ties:
        variable = next(v for v in model.variables if v.path == tie.weight)
        whole = total_gradient(model, variable, x, y)
        assert tie.norm == pytest.approx(np.linalg.norm(whole), rel=1e-4)
        assert min(tie.norms) > 0
    if kind in ("lstm", "gru"):
        assert [layer.steps for layer in report.layers[:2]] == [5, 5]


def test_a_recurrent_net_by_hand():
    """Its steps are taken together; its Jacobian is that of the state by the state before."""
    cell = keras.layers.SimpleRNN(4, return_sequences=True, kernel_initializer="he_normal")
    model = keras.Sequential([keras.Input((5, 3)), cell])
    x = RANDOM.normal(size=(7, 5, 3)).astype("float32")
    layer = signal_report(model, x).layers[0]
    kernel, recurrent, bias = cell.get_weights()
    h, states = np.zeros((7, 4)), []
    for t in range(5):
        h = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
        states.append(h)
    assert layer.mean == pytest.approx(np.mean(states), abs=1e-6)
    assert layer.deviation == pytest.approx(np.std(states), rel=1e-5)
    values = np.linalg.svd(recurrent * (1 - states[0][0] ** 2), compute_uv=False)
    np.testing.assert_allclose(layer.jacobian.values, values, rtol=1e-4)


@keras.saving.register_keras_serializable("tests")
class Two(keras.Model):
    """Subclassed, with two inputs by name and two outputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.layers.Dense(4, "relu")
        self.norm = keras.layers.BatchNormalization()
        self.drop = keras.layers.Dropout(0.5)

    def call(self, inputs, training=None):
        a, b = self.inner(inputs["a"]), self.inner(inputs["b"])
        return {"sum": self.drop(self.norm(a + b), training=training), "first": a}


def test_a_subclassed_model_and_nothing_in_it_changes():
    model, x = Two(), {"a": X, "b": 2 * X}
    with pytest.raises(SignalError, match="is not built"):
        signal_report(model, x)
    model(x, training=True)
    before = [np.asarray(v) for v in model.variables]
    report = signal_report(model, tf.data.Dataset.from_tensor_slices(x).batch(16))
    assert report.examples == 16
    assert [layer.kind for layer in report.layers] == ["Dense", "Dense", "BatchNormalization"]
    for value, variable in zip(before, model.variables):
        np.testing.assert_array_equal(value, variable)
    assert all("call" not in vars(layer) for layer in flatten_layers(model))
    assert model.inner.activation is keras.activations.relu
    model.compile("sgd", {"sum": "mse", "first": "mae"})
    zeros = np.zeros((40, 4), "float32")
    model.fit(x, {"sum": zeros, "first": zeros}, verbose=0)
    assert signal_report(model, (x, {"sum": zeros, "first": zeros})).loss == "the model's own"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_other_dtypes(dtype):
    layers = [keras.layers.Dense(6, "tanh", dtype=dtype, name=f"d{i}") for i in range(2)]
    model = keras.Sequential([keras.Input((6,), dtype="float32"), *layers, layers[0]])
    report = signal_report(model, X)
    kernel = np.asarray(keras.ops.cast(layers[0].kernel, "float64"))
    assert report.layers[0].deviation == pytest.approx(np.tanh(X @ kernel).std(), rel=0.02)
    assert report.layers[0].jacobian.values[0] > 0


def test_frozen_layers_have_gradients_too():
    model = mlp(trainable=False)
    _, gradients, _ = by_hand(model)
    layer = signal_report(model, (X, Y)).layers[0]
    assert layer.gradient_deviation == pytest.approx(gradients[0].std(), rel=1e-4)


def test_what_no_loss_reads_has_no_gradient():
    inputs = keras.Input((6,))
    read, unread = keras.layers.Dense(2, name="read"), keras.layers.Dense(2, name="unread")
    model = keras.Model(inputs, [read(inputs), unread(inputs)])
    model.compile("sgd", ["mse", None])
    layers = {layer.name: layer for layer in signal_report(model, (X, [Y, Y])).layers}
    assert layers["read"].gradient_deviation > 0
    assert layers["unread"].gradient_deviation is None and layers["unread"].gradients is None
    assert layers["unread"].deviation > 0


# === Warnings: each is right, and its advice is followed ===


def kinds(model, data):
    return [w.partition(":")[0] for w in signal_report(model, data, jacobians=False).warnings]


@pytest.mark.slow
def test_glorot_vanishes_in_thirty_relu_layers_and_he_does_not():
    x = RANDOM.normal(size=(100, 50)).astype("float32")
    for name, expected in (("glorot_uniform", True), ("he_normal", False)):
        model = mlp("relu", units=(50,) * 30, inputs=50, kernel_initializer=name)
        assert ("vanishing gradient" in kinds(model, x)) is expected
        LSUV(model, x)
        assert not [k for k in kinds(model, x) if k != "dead"]


@pytest.mark.slow
def test_too_large_explodes_and_saturates():
    x = RANDOM.normal(size=(100, 30)).astype("float32")
    large = keras.initializers.RandomNormal(stddev=1.0)
    model = mlp("relu", units=(30,) * 9, inputs=30, kernel_initializer=large)
    assert {"exploding", "exploding gradient"} <= {*kinds(model, x)}
    LSUV(model, x)
    assert not kinds(model, x)
    model = mlp("tanh", units=(30,) * 6, inputs=30, kernel_initializer=large)
    assert "saturated" in kinds(model, x)
    LSUV(model, x)
    assert not kinds(model, x)


def test_units_that_are_alike_are_found_and_a_zero_output_layer_is_not():
    for name in ("ones", "zeros", keras.initializers.Constant(0.1)):
        found = kinds(mlp(kernel_initializer=name), (X, np.stack([Y[:, 0]] * 2, 1)))
        assert "identical units" in found
    assert "identical units" not in kinds(mlp(kernel_initializer="glorot_uniform"), (X, Y))
    layers = [keras.layers.Dense(8, "tanh"), keras.layers.Dense(2, kernel_initializer="zeros")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("sgd", "mse")
    assert "identical units" not in kinds(model, (X, Y))  # each output has targets of its own


def test_opposed_uses():
    """One layer whose two outputs are pulled apart: x W towards y, and x W towards -y."""
    inputs = keras.Input((6,))
    layer = keras.layers.Dense(2, name="both", kernel_initializer="zeros")
    model = keras.Model(inputs, [layer(inputs), layer(inputs)])
    model.compile("sgd", ["mse", "mse"])
    report = signal_report(model, (X, [Y, -Y]))
    assert report.ties[0].cosine == pytest.approx(-1)
    assert any(w.startswith("opposed uses: those of 'both/kernel'") for w in report.warnings)


def test_one_use_alone():
    inputs = keras.Input((6,))
    layer = keras.layers.Dense(2, name="both")
    model = keras.Model(inputs, [layer(inputs), keras.layers.Rescaling(1e-4)(layer(inputs))])
    model.compile("sgd", ["mse", "mse"])
    found = [w for w in signal_report(model, (X, [Y, Y])).warnings if w.startswith("one use")]
    # Keras calls what lies deeper first: the scaled one
    assert "comes from 'both (2)' " in found[0] and "hardly from 'both' " in found[0]


def test_weights_of_nan_are_named_first():
    model = mlp()
    model.layers[1].kernel.assign(np.full((5, 4), np.nan))
    report = signal_report(model, (X, Y))
    assert len(report.warnings) == 1 and report.warnings[0].startswith("not finite: 'd1'")
    json.dumps(report.to_dict(), allow_nan=False)
    assert "nan" in str(report)
    LSUV(model, X)
    assert not signal_report(model, (X, Y)).warnings


# === Input, text, pictures ===


@pytest.mark.parametrize(
    ("data", "arguments", "said"),
    [
        (X[:0], {}, r"empty.*\(0, 6\)"),
        ((), {}, "empty"),
        (np.where(X > 2, np.nan, X), {}, "NaN or infinity"),
        ((X, np.where(Y > 2, np.inf, Y)), {}, "NaN or infinity"),
        (X, {"loss": "mse"}, "needs targets"),
        (tf.data.Dataset.from_tensor_slices(X[:0]).batch(4), {}, "empty"),
    ],
)
def test_bad_data(data, arguments, said):
    with pytest.raises(SignalError, match=said):
        signal_report(mlp(), data, **arguments)


class Batches(keras.utils.PyDataset):
    def __init__(self, *batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        return self.batches[number]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, r"Received: None .of type NoneType..$"),
        (3, r"Received: 3 .of type int..$"),
        ("digits", r"Received: 'digits' .of type str..$"),
        (X.tolist(), r"of type float.. Make arrays of lists: numpy.array"),
        ((X, Y.tolist()), r"of type float.. Make arrays of lists: numpy.array"),
        (iter([(X, Y)]), r"of type list_iterator.. It gives its batches once.*next.data"),
        (((X, Y) for _ in range(2)), r"of type generator.. It gives its batches once.*next.data"),
        (Batches(), "first batch of the data cannot be taken: IndexError"),
    ],
)
def test_what_is_no_batch(data, said):
    with pytest.raises(SignalError, match=said) as error:
        signal_report(mlp(), data)
    assert "empty" not in str(error.value)


def test_the_first_batch_of_a_pydataset():
    model = mlp()
    batches = Batches((X, Y), (np.full_like(X, np.nan), Y))
    assert signal_report(model, batches).layers == signal_report(model, (X, Y)).layers


def test_one_weight_for_a_whole_batch():
    """As `fit` takes it from a data set, of which each batch may have another one."""
    whole = tf.data.Dataset.from_tensors((X, Y, 1.0))
    assert signal_report(mlp(), whole).layers
    with pytest.raises(SignalError, match="Expected a batch as `fit` takes it"):
        signal_report(mlp(), (np.float32(3), Y))


@pytest.mark.parametrize("data", [(X, Y[:7]), (X, Y[:1]), (X, Y, np.ones(3, "float32"))])
def test_arrays_of_other_lengths(data):
    with pytest.raises(SignalError, match=r"arrays of one length. Received: .*\(40, 6\)"):
        signal_report(mlp(), data)


def test_targets_that_do_not_fit_the_loss():
    batches = tf.data.Dataset.from_tensors((X, Y[:7]))
    with pytest.raises(SignalError, match=r"the model's own, cannot be .*\(7, 2\), \(40, 2\)"):
        signal_report(mlp(), batches)
    with pytest.raises(SignalError, match=r"mean_squared_error, cannot be .*\(40, 6\), \(40, 2\)"):
        signal_report(mlp(), (X, X), loss="mse")


def test_names_of_losses():
    labels = np.arange(40) % 2
    assert signal_report(mlp(), (X, labels), loss="rbf").loss == "rbf_loss"
    report = signal_report(mlp("softmax"), (X, labels), loss="sparse_categorical_crossentropy")
    assert report.loss == "sparse_categorical_crossentropy"
    given = signal_report(mlp(), (X, Y), loss="keras.losses:mean_squared_error")
    assert given.loss == "mean_squared_error"
    for wrong in ("nope", {"d": "mse"}, 3):
        with pytest.raises(SignalError, match="`loss` is none: .*keras_shared.losses.LOSSES"):
            signal_report(mlp(), (X, Y), loss=wrong)
    with pytest.raises(ValueError, match="The loss 'keras.losses:nope' cannot be imported"):
        signal_report(mlp(), (X, Y), loss="keras.losses:nope")


def test_layers_of_one_name_are_told_apart():
    table = keras.layers.Dense(4, name="table")
    inputs, code = keras.Input((6,)), keras.Input((4,))
    hidden = table(inputs)
    heads = [
        keras.Model(code, TiedDense(table, name="out")(code), name=name)
        for name in ("left", "right")
    ]
    report = signal_report(keras.Model(inputs, [head(hidden) for head in heads]), X)
    names = {"table", "left/out", "right/out"}
    assert {layer.layer for layer in report.layers} == names and len(report.layers) == 3
    [tie] = report.ties
    assert tie.weight == "table/kernel" and {*tie.uses} == names


def test_bad_models():
    with pytest.raises(SignalError, match="not built"):
        signal_report(keras.Sequential([keras.layers.Dense(3)]), X)
    with pytest.raises(SignalError, match="no loss for the targets.*leave the targets out"):
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
        signal_report(model, (X, Y))
    assert signal_report(model, X).loss == "a random direction"
    assert signal_report(model, (X, Y), loss="mse").loss == "mean_squared_error"
    assert signal_report(model, (X, Y), loss=keras.losses.Huber()).loss == "huber_loss"


def test_the_table_has_eighty_columns_and_the_dict_is_json():
    names = [f"a_layer_with_a_long_name_{i}" for i in range(3)]
    layers = [keras.layers.Dense(6, "tanh", name=name) for name in names]
    model = keras.Sequential([keras.Input((6,)), *layers, layers[0]], name="a" * 70)
    report = keras_shared.signal_report(model, 1e5 * X)
    assert max(map(len, str(report).splitlines())) <= 80
    kept = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert kept["layers"][0]["jacobian"]["values"] == list(report.layers[0].jacobian.values)
    assert kept["ties"][0]["uses"] == [names[0], f"{names[0]} (2)"]


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError()])
def test_weights_of_examples_count_for_a_loss_that_is_given(loss):
    model = mlp()
    weights = np.linspace(0, 3, len(X)).astype("float32")
    own = signal_report(model, (X, Y, weights)).to_dict()
    given = signal_report(model, (X, Y, weights), loss=loss).to_dict()
    plain = signal_report(model, (X, Y), loss=loss).to_dict()
    for a, b, c in zip(own["layers"], given["layers"], plain["layers"], strict=True):
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-5)
        assert a["gradient_norm"] != pytest.approx(c["gradient_norm"], rel=1e-2)


def test_one_loss_is_for_one_output():
    x = keras.Input((6,))
    model = keras.Model(x, {"a": keras.layers.Dense(2)(x), "b": keras.layers.Dense(2)(x)})
    with pytest.raises(SignalError, match="of one output, and .* gives 2. Compile it"):
        signal_report(model, (X, {"a": Y, "b": Y}), loss="mse")


def test_a_loss_that_takes_all_outputs():
    x = keras.Input((6,))
    model = keras.Model(x, {"o": keras.layers.Dense(2)(x), "p": keras.layers.Dense(2)(x)})
    report = signal_report(model, (X, Y), loss=lambda y, o: tf.reduce_mean(tf.square(y - o["o"])))
    assert report.layers
