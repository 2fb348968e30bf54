"""What a model is tried with: the words and codes that it knows, under names that a graph has."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_shared
from keras_shared.exporting.known_values import known_values
from keras_shared.exporting.signatures import examples, signatures_of
from keras_shared.serving.session import loaded

WORDS = [*"abcdefghij"]


def of_text(end, **kwargs):
    text = keras.Input((), dtype="string", name="text")
    codes = layers.TextVectorization(vocabulary=WORDS, **kwargs)(text)
    return keras.Model(text, end(layers.Embedding(12, 3)(codes)))


def of_words(end=layers.Flatten):
    words = keras.Input((2,), dtype="string", name="words")
    codes = layers.StringLookup(vocabulary=WORDS, num_oov_indices=0)(words)
    return keras.Model(words, end()(layers.Embedding(10, 2)(codes)))


def of_codes():
    codes = keras.Input((2,), dtype="int64", name="codes")
    places = layers.IntegerLookup(vocabulary=[10, 20], num_oov_indices=0)(codes)
    return keras.Model(codes, layers.CategoryEncoding(2)(places))


def of_a_column():
    """As of a table of columns, of which one holds words."""
    table = keras.Input((3,), dtype="string", name="table")
    codes = layers.StringLookup(vocabulary=WORDS, num_oov_indices=0)(table[:, :1])
    return keras.Model(table, layers.Flatten()(layers.Embedding(10, 2)(codes)))


@keras.saving.register_keras_serializable("test_known_values")
class Words(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(10, 2)
        self.codes = layers.StringLookup(vocabulary=WORDS, num_oov_indices=0)

    def call(self, inputs):
        return self.table(self.codes(inputs))

    def compute_output_shape(self, shape):
        return (*shape, 2)


def in_an_own_layer():
    words = keras.Input((1, 2), dtype="string", name="pair")
    return keras.Model(words, layers.Flatten()(Words()(layers.Reshape((2,))(words))))


def of_other_codes():
    codes = keras.Input((2,), dtype="int32", name="codes")
    known = [10, 2**40, 20]  # of which the input can hold two
    places = layers.IntegerLookup(vocabulary=known, num_oov_indices=0)(codes)
    return keras.Model(codes, layers.CategoryEncoding(3)(places))


def nested():
    outer = keras.Input((2,), dtype="string", name="outer")
    return keras.Model(outer, layers.Dense(1)(of_words()(outer)))


def in_a_dict():
    inner = {"text": of_text(layers.LSTM(2)), "codes": of_codes()}
    return keras.Model(
        {key: model.input for key, model in inner.items()},
        layers.Concatenate()([model.output for model in inner.values()]),
    )


MODELS = {
    "characters": lambda: of_text(layers.GRU(2), split="character"),
    "both ways": lambda: of_text(layers.Bidirectional(layers.GRU(2))),
    "convolution": lambda: of_text(layers.Conv1D(2, 3)), "words": of_words,
    "codes": of_codes, "nested": nested, "dict": in_a_dict, "other codes": of_other_codes,
    "own layer": in_an_own_layer,
    "sequential": lambda: keras.Sequential(
        [keras.Input((), dtype="string"), layers.TextVectorization(vocabulary=WORDS),
         layers.Embedding(12, 3), layers.LSTM(2)]
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [of_a_column, *(pytest.param(model, id=name, marks=pytest.mark.slow)
                 for name, model in MODELS.items())],
)  # fmt: skip
def test_models_that_know_some_words_alone_are_exported(tmp_path, make):
    model = make()
    [signature] = signatures_of(model).values()
    asked = examples(signature, 3, encoded=False)
    assert all(len(np.unique(values)) > 1 for values in asked.values())
    keras_shared.export(model, tmp_path / "m")
    served = tf.saved_model.load(tmp_path / "m").signatures["serving_default"]
    answer = served(**{key: tf.constant(value) for key, value in asked.items()})
    expected = signature.call(**{key: tf.constant(value) for key, value in asked.items()})
    for key, value in expected.items():
        np.testing.assert_allclose(answer[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_model_of_text_is_published(tmp_path):
    model = in_a_dict()
    keras_shared.publish(model, tmp_path / "m")
    assert keras_shared.load(tmp_path / "m").count_params() == model.count_params()


def test_what_all_readers_of_an_input_know():
    codes = keras.Input((2,), dtype="int32")
    tables = [layers.Embedding(size, 2)(codes) for size in (5, 3, 9)]
    model = keras.Model(codes, layers.Add()(tables))
    assert known_values(model, {"codes": codes})["codes"].tolist() == [0, 1, 2]
    plain = keras.Input((2,))
    assert known_values(keras.Model(plain, layers.Dense(1)(plain)), {"x": plain}) == {}
    words = keras.Input((2,), dtype="string")
    ends = [layers.StringLookup(vocabulary=[*some])(words) for some in ("ab", "cd")]
    assert known_values(keras.Model(words, ends), {"words": words}) == {}


def test_an_input_on_which_keras_itself_fails(tmp_path):
    text = keras.Input((), dtype="string", name="text")
    model = keras.Model(text, layers.Lambda(tf.strings.to_number, output_shape=())(text))
    said = r"Keras' own .* with .*text.*b''.*some words.*StringToNumber.*: let the model take such"
    with pytest.raises(ValueError, match=said):
        keras_shared.export(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", ["hours per week", "größe", "_x", "a[0]", "class", "self"])
def test_a_name_that_a_graph_has_not(tmp_path, name):
    table = keras.Input((2,), name=name)
    model = keras.Model(table, layers.Dense(1)(table))
    with pytest.raises(ValueError, match=r"cannot name an argument .*\. Name it keras.Input"):
        keras_shared.export(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_unusual_names_that_a_graph_has(tmp_path):
    names = ["native-country", "capital.gain", "1st", "match", "name", "a>b"]
    tables = [keras.Input((1,), name=name) for name in names]
    model = keras.Model(tables, layers.Dense(1)(layers.Concatenate()(tables)))
    keras_shared.export(model, tmp_path / "m")
    with loaded(tmp_path / "m") as (_, served):
        assert {*served["serving_default"].inputs} == {*names}


def test_a_divisor_is_no_zero(tmp_path):
    whole = [keras.Input((3,), dtype="int32", name=name) for name in ("a", "b")]
    model = keras.Model(whole, layers.Dense(2)(keras.ops.cast(whole[0] // whole[1], "float32")))
    for name in ("m", "m.onnx"):
        assert keras_shared.export(model, tmp_path / name).exists()


@keras.saving.register_keras_serializable("test_known_values")
class Fuse(layers.Layer):
    def call(self, a, b=None):
        return a if b is None else a + b


def test_optional_inputs_are_needed_in_a_graph(tmp_path):
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b", optional=True)
    with pytest.warns(UserWarning, match="can be called without 'b', and what is exported cannot"):
        keras_shared.export(keras.Model([a, b], Fuse()(a, b)), tmp_path / "m")
    served = tf.saved_model.load(tmp_path / "m").signatures["serving_default"]
    assert {*served.structured_input_signature[1]} == {"a", "b"}
    keras_shared.export(keras.Model(a, Fuse()(a)), tmp_path / "without")  # the advice


@keras.saving.register_keras_serializable("test_known_values")
class Maybe(layers.Layer):
    optional = True

    def call(self, inputs):
        return inputs * 2


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_layer_may_have_an_attribute_of_that_name(tmp_path):
    inputs = keras.Input((2,), name="a")
    keras_shared.export(keras.Model(inputs, Maybe()(inputs)), tmp_path / "m")
