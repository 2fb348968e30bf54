"""Windows of a text and batches of sentences: by number, padded, and asked for exactly once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from keras_shared.batching.sentences import (
    SentenceData,
    sentence_test_batches,
    sentence_training_data,
)
from keras_shared.batching.texts import (
    TextData,
    text_test_batches,
    text_training_data,
    windows_in_order,
)
from keras_shared.datasets import DataError, LabelledSentences, TextStream
from keras_shared.tokenizing import Tokenizer

WORDS = [f"w{i}" for i in range(400)]  # each once: a word tells its place
TEXT = " ".join(WORDS)


def stream(text=TEXT, held_out="w1 w2 w3 w4", **tokenizer):
    return TextStream(text, held_out, Tokenizer(**tokenizer))


def rows(dataset):
    """Inputs and targets of all batches; inputs padded to the longest of all."""
    batches = list(dataset.as_numpy_iterator())
    width = max(x.shape[1] for x, _ in batches)
    inputs = [np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x, _ in batches]
    return np.concatenate(inputs), np.concatenate([y for _, y in batches])


# === Windows that train ===


@pytest.mark.parametrize("windows", ["contiguous", "random"])
def test_windows_follow_the_text_and_resume_by_number(windows):
    data = TextData(name="mine", sequence_length=7, windows=windows)
    drawn = text_training_data(stream(), data, 5, seed=3)
    place = {token: i for i, token in enumerate(drawn.vocabulary, 2)}
    text = np.array([place[word] for word in WORDS])
    whole = list(drawn.batches(0, 3).as_numpy_iterator())
    assert len(whole) == 3 * drawn.steps_per_epoch
    starts = []
    for x, y in whole:
        assert x.shape[1] == 7 and x.dtype == "int32"
        for inputs, targets in zip(x, y, strict=True):
            start = int(np.flatnonzero(text == inputs[0])[0])
            assert np.array_equal(inputs, text[start : start + 7])
            assert np.array_equal(targets, text[start + 1 : start + 8])
            starts.append(start)
    again = list(drawn.batches(1, 3).as_numpy_iterator())
    for a, b in zip(whole[drawn.steps_per_epoch :], again, strict=True):
        assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
    epochs = np.split(np.array(starts), 3)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = text_training_data(stream(), data, 5, seed=4)
    assert not np.array_equal(next(iter(other.batches(0, 1)))[0], whole[0][0])
    if windows == "contiguous":  # side by side, each once, from another first token
        for epoch in epochs:
            assert np.array_equal(np.diff(np.sort(epoch)), np.full(len(epoch) - 1, 7))
        assert len({int(epoch.min()) for epoch in epochs}) > 1
        assert all(epoch.min() < 7 and epoch.max() + 14 >= 400 - 7 for epoch in epochs)


@pytest.mark.slow
@settings(deadline=None, max_examples=8)
@given(st.integers(3, 60), st.integers(1, 20), st.integers(0, 2**31 - 1))
def test_no_window_leaves_the_text(tokens, length, seed):
    split = stream(" ".join(WORDS[:tokens]))
    for windows in ("contiguous", "random"):
        data = TextData(name="mine", sequence_length=length, windows=windows)
        if tokens <= length:
            with pytest.raises(DataError, match=f"needs {length + 1}"):
                text_training_data(split, data, 4, seed)
            return
        drawn = text_training_data(split, data, 4, seed)
        x, y = rows(drawn.batches(0, 1))
        assert x.min() > 1 and y.min() > 1 and x.shape == y.shape == (len(x), length)


def test_the_vocabulary_is_of_what_trains_alone():
    split = stream("a b a c\na", "a z", split="whitespace")
    drawn = text_training_data(split, TextData(name="mine", sequence_length=2), 4, 1)
    assert drawn.vocabulary[0] == "a" and set(drawn.vocabulary) == {"a", "b", "c", "<eos>"}
    [(x, y)] = drawn.validation.as_numpy_iterator()
    assert (x[0, 0], y[0, 0]) == (2, 1)  # z is unknown
    few = TextData(name="mine", sequence_length=2, max_tokens=1)
    assert text_training_data(split, few, 4, 1).vocabulary == ("a",)
    first = TextData(name="mine", sequence_length=1, training_tokens=2)
    drawn = text_training_data(split, first, 4, 1)
    assert set(drawn.vocabulary) == {"a", "b"} and drawn.sizes["tokens"] == 2


def test_a_given_vocabulary_stays():
    split = stream("a b a c", split="whitespace", vocabulary=("c", "b"))
    drawn = text_training_data(split, TextData(name="mine", sequence_length=3), 1, 1)
    assert drawn.vocabulary == ("c", "b")
    assert rows(drawn.batches(0, 1))[0].tolist() == [[1, 3, 1]]


def test_without_a_text_to_validate_the_last_tenth_does():
    split = TextStream("ab" * 500, None, Tokenizer("character"))
    drawn = text_training_data(split, TextData(name="mine", sequence_length=10), 1, 1)
    assert drawn.sizes["tokens"] == 900 and drawn.sizes["validation_tokens"] == 100


# === Windows that validate and test ===


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 80), st.integers(1, 20), st.data())
def test_each_token_is_asked_for_once_with_enough_context(tokens, length, more):
    context = more.draw(st.integers(0, length - 1))
    data = TextData(name="mine", sequence_length=length, context=context)
    text = np.arange(2, tokens + 2, dtype="int32")
    x, y = rows(windows_in_order(text, data, "to test"))
    asked = y[y != 0]
    assert asked.tolist() == text[1:].tolist()  # all but the first, in order
    for window, (inputs, targets) in enumerate(zip(x, y, strict=True)):
        for place in np.flatnonzero(targets):
            known = inputs[: place + 1]
            assert known.tolist() == list(range(targets[place] - len(known), targets[place]))
            assert window == 0 or len(known) > context


def test_text_is_tested_by_the_vocabulary_of_the_model():
    data = TextData(name="mine", sequence_length=4)
    with pytest.raises(DataError, match="set model.vocabulary"):
        text_test_batches(stream(), data, 1)
    split = stream("b a z", split="whitespace", vocabulary=("a", "b"))
    x, y = rows(text_test_batches(split, data, 1))
    assert x.tolist() == [[3, 2, 1, 0]] and y.tolist() == [[2, 1, 0, 0]]


@pytest.mark.parametrize(
    ("text", "data", "said"),
    [
        ("a b c", {"sequence_length": 3}, "3 tokens to train on"),
        (TEXT, {"sequence_length": 100, "windows_per_epoch": 5}, "has 3 contiguous windows"),
        ("", {"sequence_length": 2}, "0 different tokens"),
    ],
)
def test_texts_that_are_too_short(text, data, said):
    with pytest.raises(DataError, match=said):
        text_training_data(stream(text), TextData(name="mine", **data), 4, 1)


def test_too_many_different_tokens():
    text = " ".join(f"x{i}" for i in range(50_001))
    with pytest.raises(DataError, match=r"50,001 different tokens.*Set data\.max_tokens"):
        text_training_data(stream(text), TextData(name="mine"), 4, 1)
    drawn = text_training_data(stream(text), TextData(name="mine", max_tokens=50), 4, 1)
    assert len(drawn.vocabulary) == 50


def test_context_is_shorter_than_a_window():
    with pytest.raises(ValidationError, match="less than `sequence_length`, 4"):
        TextData(name="mine", sequence_length=4, context=4)


# === Sentences ===

SENTENCES = np.array([" ".join(WORDS[i : i + 1 + i % 5]) for i in range(60)], object)
SPLIT = LabelledSentences(SENTENCES, np.arange(60) % 3, ("a", "b", "c"))


def test_sentences_are_padded_to_the_longest_of_a_batch():
    drawn = sentence_training_data(SPLIT, SentenceData(name="mine", validation_sentences=6), 4, 1)
    assert drawn.sizes["sentences"] == 54 and drawn.class_names == ("a", "b", "c")
    known = ["", "[UNK]", *drawn.vocabulary]
    seen, widths = [], set()
    for x, y in drawn.batches(0, 1).as_numpy_iterator():
        widths.add(x.shape[1])
        assert (x[:, -1] != 0).any()
        for tokens, label in zip(x, y, strict=True):
            words = [known[token] for token in tokens]
            sentence = " ".join(words).strip()
            assert "" not in words[: len(sentence.split())]  # padding comes last
            seen.append(sentence)
            assert SPLIT.labels[list(SENTENCES).index(sentence)] == label
    assert len(set(seen)) == 54 and len(widths) > 1 and max(widths) == 5
    again = drawn.batches(1, 2), list(drawn.batches(0, 2))[drawn.steps_per_epoch :]
    for (a, _), (b, _) in zip(*again, strict=True):
        assert np.array_equal(a, b)


def test_long_sentences_are_cut_and_empty_ones_are_unknown():
    split = SPLIT._replace(tokenizer=Tokenizer(vocabulary=("w0", "w1", "w2", "w3", "w4")))
    sentences = np.array(["w0 w1 w2", "...", ""], object)
    split = split._replace(sentences=sentences, labels=np.array([0, 1, 2]))
    x, y = rows(sentence_test_batches(split, SentenceData(name="mine", sequence_length=2), 1))
    assert x.tolist() == [[2, 3], [1, 0], [1, 0]] and y.tolist() == [0, 1, 2]


def test_few_sentences_have_the_vocabulary_of_all():
    whole = sentence_training_data(SPLIT, SentenceData(name="mine"), 4, 1)
    data = SentenceData(name="mine", training_sentences=9)
    few, other = (sentence_training_data(SPLIT, data, 4, seed) for seed in (1, 2))
    assert few.vocabulary == whole.vocabulary and few.sizes["sentences"] == 9
    assert {*rows(few.batches(0, 1))[0][:, 0]} != {*rows(other.batches(0, 1))[0][:, 0]}
    own = sentence_training_data(SPLIT._replace(held_out=np.arange(5)), data, 4, 1)
    assert own.sizes["validation_sentences"] == 5
    assert not set(WORDS[:2]) & set(own.vocabulary)  # in held-out sentences alone


@pytest.mark.parametrize(
    ("data", "split", "said"),
    [
        ({"validation_sentences": 60}, SPLIT, "leaves nothing to train on"),
        ({"training_sentences": 60}, SPLIT, "has 54 to train on"),
        ({"validation_sentences": 5}, SPLIT._replace(held_out=np.arange(5)), "says by itself"),
    ],
)
def test_what_sentences_cannot_give(data, split, said):
    with pytest.raises(DataError, match=said):
        sentence_training_data(split, SentenceData(name="mine", **data), 4, 1)
    with pytest.raises(DataError, match=r"set model\.vocabulary"):
        sentence_test_batches(split, SentenceData(name="mine"), 1)
