"""Metrics of language modelling and of sentences, against NumPy written out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_shared.datasets import TextStream
from keras_shared.losses import LOSSES
from keras_shared.tasks import TASKS
from keras_shared.tasks.language_modeling import language_metrics, plot_loss_by_position
from keras_shared.tokenizing import Tokenizer

LANGUAGE = TASKS["language_modeling"]
LOGITS = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")
TARGETS = np.array([[2, 3, 4, 5], [5, 1, 2, 2], [3, 4, 0, 0]], "int32")


def by_hand():
    """-ln softmax of each target, by NumPy."""
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    return -np.log(np.take_along_axis(shares, TARGETS[..., None], -1)[..., 0])


def fixed_model():
    """Gives LOGITS for windows that begin with 0, 1 and 2."""
    tokens = keras.Input((None,), dtype="int32")
    table = keras.layers.Embedding(3, 24, weights=[LOGITS.reshape(3, 24)])
    return keras.Model(tokens, keras.layers.Reshape((4, 6))(table(tokens[:, 0])))


INPUTS = np.array([[0] * 4, [1] * 4, [2] * 4], "int32")


def test_loss_metric_and_test_are_one_number():
    """Padding is left out of all three, and a batch with less of it counts for more."""
    expected = by_hand()[TARGETS != 0].mean()
    model = fixed_model()
    arguments = LANGUAGE.compile_arguments(LOSSES["token_crossentropy"]())
    model.compile("sgd", **arguments)
    for batch in (1, 3):
        logs = model.evaluate(INPUTS, TARGETS, batch_size=batch, return_dict=True, verbose=0)
        assert logs["loss_per_token"] == pytest.approx(expected, rel=1e-5)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    batches = tf.data.Dataset.from_tensor_slices((INPUTS, TARGETS)).batch(2)
    losses = LANGUAGE.outputs(model, batches)
    np.testing.assert_allclose(losses, by_hand(), rtol=1e-5)
    metrics = language_metrics(losses, TARGETS, characters=25, words=4)
    assert metrics["tokens"] == 10 and metrics["unknown_tokens"] == 1
    assert metrics["loss_per_token"] == pytest.approx(expected, abs=1e-4)
    assert metrics["perplexity"] == pytest.approx(np.exp(expected), abs=1e-3)
    assert metrics["bits_per_character"] == pytest.approx(10 * expected / 25 / np.log(2), abs=1e-4)
    assert metrics["perplexity_per_word"] == pytest.approx(np.exp(expected * 10 / 4), rel=1e-5)
    of_words = language_metrics(losses, TARGETS, characters=25)
    assert of_words["perplexity_per_word"] == of_words["perplexity"]


def test_a_regularizer_is_not_part_of_the_loss_per_token():
    tokens = keras.Input((4,), dtype="int32")
    logits = keras.layers.Embedding(6, 6, embeddings_regularizer="l2")(tokens)
    model = keras.Model(tokens, logits)
    model.compile("sgd", **LANGUAGE.compile_arguments(LOSSES["token_crossentropy"]()))
    logs = model.evaluate(INPUTS, TARGETS, return_dict=True, verbose=0)
    added = 0.01 * np.square(model.get_weights()[0]).sum()
    assert logs["loss"] == pytest.approx(logs["loss_per_token"] + added, rel=1e-4)


def test_a_diverged_model_has_a_perplexity_that_json_holds():
    metrics = language_metrics(np.full((1, 2), 1e6), np.array([[2, 2]]), 2)
    assert np.isfinite(metrics["perplexity"])


def test_loss_by_position_needs_enough_windows():
    losses, targets = np.ones((30, 4)), np.full((30, 4), 2)
    targets[5:, 3] = 0
    [figure] = plot_loss_by_position(losses, targets).values()
    [line] = figure.axes[0].lines
    assert line.get_xdata().tolist() == [1, 2, 3] and line.get_ydata().tolist() == [1, 1, 1]
    assert plot_loss_by_position(losses[:5], targets[:5]) == {}


def test_unigrams_are_the_baseline():
    tokenizer = Tokenizer("character", vocabulary=("a", "b"))
    test = TASKS["language_modeling"]
    split = TextStream("aab", None, tokenizer)
    from keras_shared.batching import TextData
    from keras_shared.tasks import Tested

    batches = test.test_batches(split, TextData(name="mine", sequence_length=2), 1)
    truth = np.concatenate([y.numpy() for _, y in batches])
    metrics, plots = test.baselines(None, batches, Tested(None, truth, batches, split))
    # counts with one more each: padding 1, unknown 1, a 2, b 2, of a, b that are asked for
    assert metrics["unigram_perplexity"] == pytest.approx(3.0) and not plots


def test_sentences_are_counted():
    task = TASKS["sentence_classification"]
    scores = np.array([[3.0, 1, 0], [0, 1, 3], [0, 4, 1], [1, 0, 0]])
    labels = np.array([0, 2, 2, 1])
    from keras_shared.datasets import LabelledSentences
    from keras_shared.tasks import Tested

    split = LabelledSentences(np.array(list("abcd"), object), labels, ("x", "y", "$z$"))
    test = Tested(scores, labels, None, split)
    metrics = task.measure(test)
    assert metrics["accuracy_percent"] == 50.0 and metrics["errors"] == 2
    assert metrics["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert list(task.plots(test)) == ["confusion"] == list(task.captions)
