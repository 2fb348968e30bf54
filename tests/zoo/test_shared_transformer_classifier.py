"""SharedTransformerClassifier: padding changes nothing, it learns, and its folder takes text."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_shared
from keras_shared.tokenizing import Tokenizer
from keras_shared.zoo import SharedTransformerClassifier

WORDS = ["good", "bad", "very", "film"]


def small(**arguments):
    sizes = {"num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 40}
    return SharedTransformerClassifier(WORDS, ("no", "yes"), **{**sizes, **arguments})


@pytest.mark.slow
def test_padding_changes_nothing():
    model = small()
    tokens = np.array([[2, 4, 5]], "int32")
    padded = np.pad(tokens, ((0, 0), (0, 4)))
    scores = model.predict(tokens, verbose=0)
    np.testing.assert_allclose(model.predict(padded, verbose=0), scores, atol=1e-6)
    block = 4 * 72 + 32 + 8 * 16 + 16 + 16 * 8 + 8
    assert model.count_params() == 6 * 8 + 40 * 8 + block + 16 + 8 * 2 + 2


@pytest.mark.slow
def test_learns_and_answers_from_its_folder(tmp_path):
    keras.utils.set_random_seed(1)
    model = small(num_layers=2)
    texts = ["good film", "very good", "bad film", "very bad film"] * 8
    labels = np.array([1, 1, 0, 0] * 8)
    model.compile(keras.optimizers.Adam(0.02))
    model.fit(model.tokenizer(texts), labels, epochs=15, verbose=0)
    asked = ["very very good", "bad", ""]
    answers = model.classify(asked)
    assert answers[:2] == ["yes", "no"]
    folder = keras_shared.publish(model, tmp_path / "m")
    served = tf.saved_model.load(str(folder)).signatures["classify"](text=tf.constant(asked))
    assert [label.decode() for label in served["label"].numpy()] == answers
    loaded = keras_shared.load(folder)
    assert loaded.classify(asked) == answers and loaded.get_config() == model.get_config()
    assert len(model.classify(["good " * 60])) == 1  # more than it has positions for


@pytest.mark.parametrize("standardize", ["none", "lower_and_strip_punctuation"])
def test_line_ends_are_read_as_in_training(standardize):
    keras.utils.set_random_seed(1)
    (end,) = Tokenizer("whitespace", standardize).adapted(["\n"]).vocabulary
    model = SharedTransformerClassifier(
        ["good", "film", end], ("no", "yes"), standardize=standardize, num_heads=2, hidden_dim=8,
        intermediate_dim=16, max_sequence_length=5,
    )  # fmt: skip
    texts = ["good\nfilm", "good film", "a\nfilm b c d e f"]
    tokens = Tokenizer("whitespace", standardize, model.vocabulary).numbers(texts)
    assert tokens[0].tolist()[:3] == [2, 4, 3] and tokens[1].tolist()[:3] == [2, 3, 0]
    wanted = model.predict(tokens[:, :5], verbose=0)
    answer = model.signatures()["classify"].call(tf.constant(texts))
    np.testing.assert_allclose(answer["scores"], wanted, atol=1e-5)
    assert answer["unknown_tokens"].numpy().tolist() == [0, 0, 3]  # of the five that are read
    assert model.classify(texts) == [model.class_names[i] for i in wanted.argmax(1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocabulary": None, "class_names": ("a", "b")}, "Received: vocabulary=None"),
        ({"vocabulary": WORDS, "class_names": ("a",)}, "two classes or more"),
        ({"vocabulary": ["two words"], "class_names": ("a", "b")}, "never gives"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SharedTransformerClassifier(**arguments)


@pytest.mark.parametrize(
    ("word", "standardize"),
    [("Good", "lower"), ("it's", "strip_punctuation"), ("OK", "lower_and_strip_punctuation")],
)
def test_words_that_no_text_holds_are_told(word, standardize):
    with pytest.warns(UserWarning, match=f"1 of 2 tokens .* are never found.*{word}"):
        SharedTransformerClassifier([word, "fine"], ("a", "b"), standardize=standardize)


@pytest.mark.slow
def test_texts_are_a_list():
    with pytest.raises(ValueError, match="list of texts. Received: 'good'"):
        small().classify("good")


@pytest.mark.slow
def test_texts_come_as_an_array_or_one_by_one():
    model, texts = small(), ["a b", "b", "a"]
    expected = model.classify(texts)
    assert model.classify(np.array(texts, object)) == expected
    assert model.classify(text for text in texts) == expected
