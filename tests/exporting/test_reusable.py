"""What was written fine-tunes in plain TensorFlow, with the numbers of Keras."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_shared
from keras_shared.exporting.saved_model import write_saved_model
from keras_shared.layers import TiedDense
from keras_shared.presets.names import entry_names, version_dir
from keras_shared.presets.publishing import PublishError
from keras_shared.serving import check
from keras_shared.zoo import LeNet5, SiameseNet, TiedAutoencoder

RANDOM = np.random.default_rng(5)


def loaded_from(model, folder):
    write_saved_model(model, folder)
    return tf.saved_model.load(str(folder))


def normalised():
    """Dropout, batch normalisation, and a layer that can be frozen."""
    inputs = keras.Input((4,), name="x")
    x = layers.Dense(8, kernel_regularizer=keras.regularizers.L2(0.1), name="first")(inputs)
    x = layers.Dropout(0.5, name="drop")(layers.BatchNormalization(name="norm")(x))
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


# === Each preset: Keras, tf.saved_model.load and TFSMLayer come to the same weights ===


def inputs_of(model, batch):
    """Upright strokes, which each preset sees as a digit or a letter: noise saturates sigmoids."""
    strokes = np.zeros((batch, 28, 28, 1), "float32")
    for number in range(batch):
        strokes[number, 5:23, 10 + number : 13 + number] = RANDOM.uniform(0.7, 1.0, (18, 3, 1))

    def one(tensor):
        if tensor.dtype == "int32":  # numbers of tokens, 0 the one that pads
            return RANDOM.integers(1, len(model.vocabulary), (batch, 12)).astype("int32")
        if len(tensor.shape) == 4:
            sides = [side or 28 for side in tensor.shape[1:3]]
            grey = np.array(tf.image.resize(RANDOM.permutation(strokes), sides)) * 255
            return np.repeat(grey, tensor.shape[-1], axis=-1)
        return strokes.reshape(batch, *tensor.shape[1:])

    return keras.tree.map_structure(one, model.input)


def around(layer, inputs):
    """A Keras model that calls `layer`, to be fitted."""
    symbols = keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=x.dtype.name), inputs
    )
    outputs = layer(symbols)
    return keras.Model(symbols, outputs if isinstance(outputs, dict) else {"out": outputs})


def fit(layer, inputs, targets, rate):
    model = around(layer, inputs)
    targets = targets if isinstance(targets, dict) else {"out": targets}
    model.compile(keras.optimizers.SGD(rate), loss=dict.fromkeys(targets, "mse"), jit_compile=False)
    model.fit(inputs, targets, batch_size=4, shuffle=False, verbose=0)


def gradients_of(loaded, inputs, targets):
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(loaded(inputs, training=True))
        pairs = zip(outputs, tf.nest.flatten(targets), strict=True)
        loss = tf.add_n([tf.reduce_mean((y - target) ** 2) for y, target in pairs])
    gradients = tape.gradient(loss, loaded.trainable_variables)
    return [tf.convert_to_tensor(gradient) for gradient in gradients]


def step(loaded, inputs, targets, rate=0.1):
    """One step of gradient descent, as a user of TensorFlow alone writes it."""
    gradients = gradients_of(loaded, inputs, targets)
    for variable, gradient in zip(loaded.trainable_variables, gradients, strict=True):
        variable.assign_sub(rate * gradient)


def part(structure, rows):
    return keras.tree.map_structure(lambda x: x[rows], structure)


NETS = [  # each of the zoo's once: these differ from another entry in their weights alone
    n for n in entry_names() if not n.endswith(("_distorted", "_small1", "_small2"))
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.thorough] * n.startswith(("shared_tr", "tied_lm")))
        for n in NETS  # a minute and more each
    ],
)
def test_each_preset_fine_tunes_as_in_keras(name, tmp_path):
    model, version = keras_shared.load(name), str(version_dir(name))
    inputs = inputs_of(model, 8)
    targets = keras.tree.map_structure(
        lambda y: np.asarray(y) + RANDOM.normal(size=y.shape).astype("f"), model(inputs)
    )
    loaded = tf.saved_model.load(str(version))
    layer = layers.TFSMLayer(version, call_training_endpoint="train")
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    assert len(layer.trainable_variables) == len(model.trainable_variables)
    for variable, of_file in zip(model.variables, loaded.variables, strict=True):
        if variable.dtype != "float32":  # the state of a seed, which each load draws anew
            variable.assign(of_file)
    # layers of two heads may have one name: the same variables are those that begin the same, too
    same = [
        next((v for v in layer.variables if v.name == of_file.name.replace("/", "_")
              and np.array_equal(v, of_file)), None)
        for of_file in loaded.variables
    ]  # fmt: skip
    before = [v.numpy() for v in model.trainable_variables]

    # the first of two steps moves the weights by 0.02 in Euclid's norm
    first, second = slice(4), slice(4, 8)
    untouched = tf.saved_model.load(str(version))
    gradients = gradients_of(untouched, part(inputs, first), part(targets, first))
    assert np.isfinite(1 / tf.linalg.global_norm(gradients))
    rate = float(0.02 / tf.linalg.global_norm(gradients))

    fit(model, inputs, targets, rate)
    step(loaded, part(inputs, first), part(targets, first), rate)
    step(loaded, part(inputs, second), part(targets, second), rate)
    fit(layer, inputs, targets, rate)

    for variable, tuned, of_layer in zip(model.variables, loaded.variables, same, strict=True):
        if variable.dtype == "float32":
            np.testing.assert_allclose(tuned, variable, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(of_layer, variable, rtol=1e-4, atol=1e-6)
    moved = [np.abs(v - b).max() for v, b in zip(model.trainable_variables, before)]
    assert sum(1e-5 < m < 1 for m in moved) > len(moved) / 2, moved

    back = keras_shared.load(version)
    for old, new in zip(back.variables, loaded.variables, strict=True):
        old.assign(new)
    again = tf.saved_model.load(str(keras_shared.publish(back, tmp_path / "net")))
    for answer, expected in zip(
        tf.nest.flatten(again(inputs)), tf.nest.flatten(model(inputs)), strict=True
    ):
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_what_was_trained_is_written_by_tensorflow_itself(tmp_path):
    """Without Keras: the folder is loaded, trained, saved with its signatures, and serves."""
    model = TiedAutoencoder(units=(8, 3), input_dim=16)
    version = keras_shared.publish(model, tmp_path / "net")
    loaded = tf.saved_model.load(str(version))
    x = RANDOM.random((4, 16), "float32")
    step(loaded, x, x)
    tf.saved_model.save(loaded, str(tmp_path / "net" / "2"), signatures=loaded.signatures)
    again = tf.saved_model.load(str(tmp_path / "net" / "2"))
    served = again.signatures["reconstruct"](inputs=tf.constant(x))["reconstruction"]
    np.testing.assert_allclose(served, loaded(x), atol=1e-6)
    assert np.abs(served - model(x)).max() > 1e-6
    assert not [f for f in check(tmp_path / "net" / "2") if f.severity == "error"]


# === The interface ===


def test_variables_are_those_of_keras_in_its_order(tmp_path):
    model = normalised()
    model.get_layer("last").trainable = False
    loaded = loaded_from(model, tmp_path / "m")
    assert [v.name for v in loaded.trainable_variables] == [
        "first/kernel:0", "first/bias:0", "norm/gamma:0", "norm/beta:0"
    ]  # fmt: skip
    for mine, theirs in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    trained = {id(v) for v in loaded.trainable_variables}
    assert trained < {id(v) for v in loaded.variables}
    layer = layers.TFSMLayer(tmp_path / "m", call_training_endpoint="train")
    assert len(layer.trainable_variables) == 4
    last = model.get_layer("last").kernel
    assert last.value.trainable  # TensorFlow's flag is as it was
    model.trainable = False
    assert not loaded_from(model, tmp_path / "frozen").trainable_variables


def test_training_drops_out_and_moves_the_statistics_as_keras_does(tmp_path):
    model = normalised()
    loaded = loaded_from(model, tmp_path / "m")
    layer = layers.TFSMLayer(tmp_path / "m", call_training_endpoint="train")
    mean = {v.name: v for v in loaded.variables}["norm/moving_mean:0"]
    mean_of_layer = {v.name: v for v in layer.variables}["norm_moving_mean:0"]
    for batch in (1, 2, 17):
        x = RANDOM.random((batch, 4), "float32")
        np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
        np.testing.assert_allclose(loaded(x, training=False), layer(x), atol=1e-6)
        expected = model(x, training=True)  # the state of the seed was written too
        np.testing.assert_allclose(loaded(x, training=True), expected, atol=1e-5)
        np.testing.assert_allclose(layer(x, training=True), expected, atol=1e-5)
        np.testing.assert_allclose(mean, model.get_layer("norm").moving_mean, atol=1e-6)
        np.testing.assert_allclose(mean_of_layer, mean, atol=1e-6)
    assert np.abs(mean).max() > 0


def test_frozen_batch_normalisation_stays(tmp_path):
    model = normalised()
    model.get_layer("norm").trainable = False
    loaded = loaded_from(model, tmp_path / "m")
    before = [v.numpy() for v in loaded.variables]
    loaded(np.ones((3, 4), "float32"), training=True)
    changed = [v.name for v, b in zip(loaded.variables, before) if (v.numpy() != b).any()]
    assert all("seed" in name for name in changed)


def test_gradient_of_a_shared_weight_is_the_sum_over_its_uses(tmp_path):
    inputs, code = keras.Input((5,), name="x"), layers.Dense(3, use_bias=False, name="code")
    model = keras.Model(inputs, TiedDense(code, use_bias=False, name="back")(code(inputs)))
    version = keras_shared.publish(model, tmp_path / "net")
    loaded = tf.saved_model.load(str(version))
    x, g = RANDOM.random((2, 7, 5)).astype("float32")  # g: gradient of the outputs
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded(x, training=True) * g)
    (kernel,) = loaded.trainable_variables
    w = kernel.numpy()
    by_hand = x.T @ (g @ w) + g.T @ (x @ w)  # outputs = x w w^T
    np.testing.assert_allclose(tape.gradient(loss, kernel), by_hand, rtol=1e-5)
    assert len(layers.TFSMLayer(version, call_training_endpoint="train").trainable_variables) == 1
    size = (version / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert size < w.nbytes + 3000


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_inputs_keep_the_structure_of_the_model(kind, tmp_path):
    ids, more = keras.Input((3,), dtype="int32", name="ids"), keras.Input((None, 4), name="more")
    x = layers.Concatenate(axis=1)([layers.Embedding(7, 4, name="table")(ids), more])
    taken = [ids, more] if kind == "list" else {"ids": ids, "more": more}
    model = keras.Model(taken, [layers.GlobalMaxPooling1D()(x), layers.Dense(2)(x)])
    loaded = loaded_from(model, tmp_path / "m")
    layer = layers.TFSMLayer(tmp_path / "m", call_training_endpoint="train")
    for batch in (1, 2, 17):
        values = [RANDOM.integers(0, 7, (batch, 3)).astype("int32")]
        values += [RANDOM.random((batch, 5, 4)).astype("float32")]
        given = keras.tree.pack_sequence_as(taken, [tf.constant(v) for v in values])
        for training in (False, True):
            for call in (loaded, layer):
                for answer, expected in zip(call(given, training=training), model(given)):
                    np.testing.assert_allclose(answer, expected, atol=1e-6)


@pytest.mark.slow
def test_regularization_losses(tmp_path):
    model = normalised()
    loaded = loaded_from(model, tmp_path / "m")
    (loss,) = loaded.regularization_losses
    kernel = loaded.trainable_variables[0]
    np.testing.assert_allclose(loss(), 0.1 * np.sum(kernel.numpy() ** 2), rtol=1e-6)
    with tf.GradientTape() as tape:
        value = loss()
    np.testing.assert_allclose(tape.gradient(value, kernel), 0.2 * kernel.numpy(), rtol=1e-5)
    kernel.assign(kernel * 0)
    assert loss() == 0
    assert list(loaded_from(LeNet5(), tmp_path / "none").regularization_losses) == []


def test_a_loss_on_outputs_is_left_out_with_a_warning(tmp_path):
    inputs = keras.Input((3,), name="x")
    sparse = layers.Dense(2, activity_regularizer="l1", kernel_regularizer="l2", name="y")
    model = keras.Model(inputs, sparse(inputs))
    with pytest.warns(UserWarning, match="goes without it. keras_shared.load gives"):
        loaded = loaded_from(model, tmp_path / "m")
    assert len(loaded.regularization_losses) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_saved_model(normalised(), tmp_path / "n")


@keras.saving.register_keras_serializable("tests")
class Peeks(layers.Layer):
    """In training it looks at a number, which no graph allows."""

    def call(self, inputs, training=False):
        return inputs * 2 if training and float(inputs[0, 0]) > 0 else inputs


@keras.saving.register_keras_serializable("tests")
class Noisy(layers.Layer):
    """Draws from the seed that all layers share, which no model lists among its variables."""

    def call(self, inputs, training=False):
        return inputs + keras.random.normal(keras.ops.shape(inputs)) if training else inputs


def test_a_call_in_training_that_cannot_be_traced_is_left_out(tmp_path):
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, layers.Dense(2, name="y")(Peeks()(inputs)))
    with pytest.warns(UserWarning, match="without its call in training mode.*keras_shared.load"):
        version = keras_shared.publish(model, tmp_path / "m")
    loaded = tf.saved_model.load(str(version))
    x = np.ones((2, 3), "float32")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
    assert not hasattr(loaded, "train") and len(loaded.trainable_variables) == 2


def test_the_seed_that_all_layers_share_is_written(tmp_path):
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, layers.Dense(2, name="y")(Noisy()(inputs)))
    loaded = tf.saved_model.load(str(keras_shared.publish(model, tmp_path / "m")))
    x = np.ones((2, 3), "float32")
    assert np.abs(loaded(x, training=True) - loaded(x, training=True)).max() > 1e-3


@pytest.mark.slow
def test_quantised_models_train_what_keras_trains(tmp_path):
    model = TiedAutoencoder(units=(32, 8), input_dim=64)
    model.quantize("int8")
    loaded = loaded_from(model, tmp_path / "m")
    x = RANDOM.random((3, 64), "float32")
    biases = [v.path for v in model.trainable_variables]
    assert [v.name.partition(":")[0] for v in loaded.trainable_variables] == biases
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(loaded(x, training=True) ** 2)
    assert all(np.abs(g).max() > 0 for g in tape.gradient(loss, loaded.trainable_variables))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16"])
def test_half_precision_takes_and_trains_floats(dtype, tmp_path):
    model = TiedAutoencoder(units=(32, 8), input_dim=64, dtype=dtype)
    version = keras_shared.publish(model, tmp_path / "m")
    loaded = tf.saved_model.load(str(version))
    x = RANDOM.random((3, 64), "float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(loaded(x, training=True) ** 2)
    gradients = tape.gradient(loss, loaded.trainable_variables)
    assert all(g is not None for g in gradients)


@pytest.mark.slow
def test_signatures_are_what_they_were(tmp_path):
    names = {
        TiedAutoencoder(units=(4,), input_dim=6): {"reconstruct", "encode", "decode"},
        LeNet5("modern"): {"classify", "classify_bytes"},
        SiameseNet(image_shape=(28, 28, 1)): {"verify", "verify_bytes", "embed", "embed_bytes"},
        normalised(): set(),
    }
    for number, (model, expected) in enumerate(names.items()):
        loaded = loaded_from(model, tmp_path / str(number))
        assert set(loaded.signatures) == expected | {"serving_default"}
        assert all(hasattr(loaded, name) for name in expected)


# === Tables of strings ===


def from_a_word(layer):
    """A model from a word to two scores, with `layer` inside."""
    word = keras.Input((1,), dtype="string", name="word")
    vectors = layers.Embedding(9, 3)(layer(word))
    return keras.Model(word, layers.Dense(2, name="scores")(layers.Flatten()(vectors)))


def vocabulary_in_a_file(folder):
    (folder / "words.txt").write_text("red\nblue\n")
    return layers.StringLookup(vocabulary=str(folder / "words.txt"))


def text(folder):
    layer = layers.TextVectorization(output_sequence_length=2)
    layer.adapt(["red blue", "blue"])
    return layer


LOOKUPS = {
    "words": lambda folder: layers.StringLookup(vocabulary=["red", "blue"]),
    "file": vocabulary_in_a_file,
    "text": text,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOOKUPS)
def test_a_model_of_words_is_published_and_comes_back(kind, tmp_path):
    model = from_a_word(LOOKUPS[kind](tmp_path))
    keras_shared.publish(model, tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "moved")
    (tmp_path / "words.txt").unlink(missing_ok=True)
    words = np.array([["blue"], ["red"], ["grey"]], object)
    expected = model(tf.constant(words)).numpy()
    assert len(np.unique(expected, axis=0)) == 3
    version = tmp_path / "moved" / "1"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        served = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
        asked = served.signature_def["serving_default"]
        feed = {asked.inputs["word"].name: words}
        answer = session.run(asked.outputs["scores"].name, feed)
    np.testing.assert_allclose(answer, expected, atol=1e-6)
    np.testing.assert_allclose(keras_shared.load(version)(tf.constant(words)), expected, atol=1e-6)
    loaded = tf.saved_model.load(str(version))
    np.testing.assert_allclose(loaded(tf.constant(words)), expected, atol=1e-6)
    step(loaded, tf.constant(words), expected + 1)
    assert np.abs(loaded(tf.constant(words)) - expected).max() > 1e-5


def test_a_model_that_answers_with_words_is_published(tmp_path):
    number = keras.Input((1,), dtype="int64", name="number")
    names = layers.StringLookup(vocabulary=["red", "blue"], invert=True, name="colour")
    loaded = tf.saved_model.load(
        str(keras_shared.publish(keras.Model(number, names(number)), tmp_path / "m"))
    )
    answer = loaded.signatures["serving_default"](number=tf.constant([[2]], tf.int64))
    assert answer["colour"].numpy().tolist() == [[b"blue"]]


# === Layers that Keras does not load again ===


@pytest.mark.slow
def test_a_saved_model_inside_is_exported_and_publish_says_so(tmp_path):
    inner = TiedAutoencoder(units=(8, 3), input_dim=16)
    version = keras_shared.publish(inner, tmp_path / "inner")
    layer = layers.TFSMLayer(version, call_training_endpoint="train", name="from_elsewhere")
    inputs = keras.Input((16,), name="x")
    model = keras.Model(inputs, layers.Dense(2, name="y")(layer(inputs)))
    with pytest.raises(PublishError, match="'from_elsewhere' is a TFSMLayer.*keras_shared.export"):
        keras_shared.publish(model, tmp_path / "outer")
    path = keras_shared.export(model, tmp_path / "exported" / "1")
    assert not [f for f in check(path) if f.severity == "error"]
    loaded = tf.saved_model.load(str(path))
    x = RANDOM.random((4, 16), "float32")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
    assert len(loaded.trainable_variables) == len(inner.trainable_variables) + 2
    before = [v.numpy() for v in loaded.trainable_variables]
    step(loaded, x, np.ones((4, 2), "float32"))
    assert all((v.numpy() != b).any() for v, b in zip(loaded.trainable_variables, before))


@pytest.mark.slow
def test_a_class_that_is_not_registered_is_named(tmp_path):
    class Halves(layers.Layer):
        def call(self, x):
            return keras.ops.mean(x, axis=(1, 2)) / 2

    def net():
        return SiameseNet(Halves(), image_shape=(8, 8, 1))

    with pytest.raises(PublishError, match="Halves of 'halves' is not registered.*register_keras"):
        keras_shared.publish(net(), tmp_path / "m")
    keras.saving.register_keras_serializable("my_package")(Halves)  # what the message says
    assert keras_shared.publish(net(), tmp_path / "m").name == "1"
