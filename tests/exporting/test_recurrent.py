"""Recurrent layers in LiteRT: which files work, for which batch, and what is said."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_shared
from keras_shared.layers import Shared, TiedDense

RANDOM = np.random.default_rng(2)
KINDS = {
    "LSTM": lambda **k: layers.LSTM(4, **k),
    "GRU": lambda **k: layers.GRU(4, **k),
    "GRU reset before": lambda **k: layers.GRU(4, reset_after=False, return_sequences=True, **k),
    "SimpleRNN": lambda **k: layers.SimpleRNN(4, go_backwards=True, **k),
    "Bidirectional": lambda **k: layers.Bidirectional(layers.LSTM(4, return_sequences=True, **k)),
    "RNN of cells": lambda **k: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], **k),
    "ConvLSTM2D": lambda **k: layers.ConvLSTM2D(2, 3, **k),
}
EACH = [  # two in the default run
    pytest.param(kind, marks=[] if kind in ("LSTM", "ConvLSTM2D") else [pytest.mark.slow])
    for kind in KINDS
]


def net(layer, batch=None, steps=5):
    shape = (steps, 6, 6, 2) if isinstance(layer, layers.ConvLSTM2D) else (steps, 3)
    x = keras.Input(batch_shape=(batch, *shape), name="x")
    return keras.Model(x, layer(x))


def runner_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")


def assert_same(path, model, rows):
    x = RANDOM.normal(size=(rows, *(side or 5 for side in model.input_shape[1:]))).astype("float32")
    (answer,) = runner_of(path)(x=x).values()
    np.testing.assert_allclose(answer, model(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", EACH)
def test_unrolled_takes_any_batch(kind, tmp_path):
    model = net(KINDS[kind](unroll=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        path = keras_shared.export(model, tmp_path / "m.tflite")
    for rows in (1, 3):
        assert_same(path, model, rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", EACH)
def test_a_loop_runs_for_one_row_and_says_so(kind, tmp_path):
    model = net(KINDS[kind]())
    with pytest.warns(UserWarning, match="takes one row at a time.*for any batch, build.*unroll=T"):
        path = keras_shared.export(model, tmp_path / "m.tflite")
    assert_same(path, model, 1)
    details = runner_of(path).get_input_details()["x"]
    assert details["shape"].tolist() == [1, *model.input_shape[1:]]


def test_a_fixed_batch_keeps_its_loop_without_a_word(tmp_path):
    model = net(layers.LSTM(4), batch=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        path = keras_shared.export(model, tmp_path / "m.tflite")
    assert_same(path, model, 3)


@pytest.mark.slow
def test_sequences_of_any_length_one_at_a_time(tmp_path):
    model = net(layers.Bidirectional(layers.GRU(4)), steps=None)
    with pytest.warns(UserWarning, match="takes one row at a time"):
        path = keras_shared.export(model, tmp_path / "m.tflite")
    interpreter = tf.lite.Interpreter(str(path))
    for steps in (2, 9):
        x = RANDOM.normal(size=(1, steps, 3)).astype("float32")
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(answer, model(x), atol=1e-5)


@pytest.mark.parametrize("unroll", [False, True])
def test_a_state_goes_on_from_call_to_call(unroll, tmp_path):
    model = net(layers.LSTM(4, stateful=True, unroll=unroll, name="memory"), batch=2)
    x = RANDOM.normal(size=(2, 5, 3)).astype("float32")
    model.predict(x, verbose=0)
    before = [np.array(state) for state in model.get_layer("memory").states]
    path = keras_shared.export(model, tmp_path / "m.tflite")
    for state, value in zip(model.get_layer("memory").states, before, strict=True):
        np.testing.assert_array_equal(state, value)
    run = runner_of(path)
    for _ in range(3):  # starts where the model stood, and moves as it does
        (answer,) = run(x=x).values()
        np.testing.assert_allclose(answer, model(x), atol=1e-5)


@pytest.mark.slow
def test_masks_and_tables_and_ties(tmp_path):
    """A language model with a tied table: whole numbers, padding, a loop."""
    ids, table = keras.Input((5,), dtype="int32", name="x"), layers.Embedding(
        9, 4, mask_zero=True, name="table")  # fmt: skip
    states = layers.GRU(4, return_sequences=True)(table(ids))
    model = keras.Model(ids, TiedDense(table, name="logits")(states))
    with pytest.warns(UserWarning, match="one row at a time"):
        path = keras_shared.export(model, tmp_path / "m.tflite")
    run = runner_of(path)
    for row in ([1, 2, 3, 0, 0], [4, 4, 4, 4, 8], [0, 0, 0, 0, 0]):
        x = np.array([row], "int32")
        (answer,) = run(x=x).values()
        np.testing.assert_allclose(answer, model(x), atol=1e-5)


@pytest.mark.slow
def test_two_uses_of_one_loop(tmp_path):
    a, b = keras.Input((5, 3), name="a"), keras.Input((5, 3), name="b")
    model = keras.Model([a, b], layers.Dot(1, name="y")(Shared(layers.GRU(4))([a, b])))
    with pytest.warns(UserWarning, match="one row at a time"):
        path = keras_shared.export(model, tmp_path / "m.tflite")
    x, y = RANDOM.normal(size=(2, 1, 5, 3)).astype("float32")
    np.testing.assert_allclose(runner_of(path)(a=x, b=y)["y"], model([x, y]), atol=1e-5)
