"""Batches of labelled sentences: the section [data] that describes them, and how they are drawn."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from keras_shared.batching.autotuning import without_autotuning
from keras_shared.batching.texts import check_vocabulary_size
from keras_shared.batching.training_data import TrainingData
from keras_shared.datasets import DataError, LabelledSentences
from keras_shared.section import Count, NoneOrMore, Section, Seed
from keras_shared.tokenizing import PADDING, UNKNOWN

EVALUATION_BATCH = 256


class SentenceData(Section):
    """Sentences with labels; those of the data set's own test split test.

    Attributes:
        name: name of the data set.
        path: of your own sentences: the .csv file of "sentences".
        sequence_length: tokens of a sentence at most; the rest is cut off.
        validation_sentences: drawn from the training split with `seed`, never trained on; None for
            a tenth of it.
        training_sentences: to train on, drawn by the run's seed; 0 for all but those that validate.
        max_tokens: so many of the most frequent tokens make the vocabulary; 0 for all.
        seed: decides which sentences validate.
    """

    name: str
    path: str = ""
    sequence_length: Count = 64
    validation_sentences: Count | None = None
    training_sentences: NoneOrMore = 0
    max_tokens: NoneOrMore = 0
    seed: Seed = 1


def sentence_training_data(
    split: LabelledSentences, data: SentenceData, batch_size: int, seed: int
) -> TrainingData:
    """Training and validation batches; the vocabulary is the tokenizer's, or of what trains.

    A vocabulary that is made here is made of all sentences but those that validate, whatever
    `training_sentences` is: models trained on fewer have the same number of parameters then.

    Args:
        split: the training split of the data set.
        data: section [data] of the recipe.
        batch_size: sentences in a batch.
        seed: of the run.

    Raises:
        DataError: if the split is too small for what the recipe wants.

    Example:
        >>> import numpy as np
        >>> from keras_shared.batching.sentences import SentenceData, sentence_training_data
        >>> from keras_shared.datasets import LabelledSentences
        >>> sentences = np.array(["so good", "very very bad"] * 10, object)
        >>> split = LabelledSentences(sentences, np.arange(20) % 2, ("good", "bad"))
        >>> data = sentence_training_data(split, SentenceData(name="mine"), 4, seed=1)
        >>> x, y = next(iter(data.batches(0, 1)))
        >>> x.shape[0], int((x[0] != 0).numpy().sum()) - 2 == int(y[0])
        (4, True)
    """
    order = np.random.default_rng(data.seed).permutation(len(split.sentences))
    if split.held_out is not None:
        if data.validation_sentences:
            raise DataError(
                f"'{data.path}' says by itself which sentences validate. Received: "
                f"data.validation_sentences = {data.validation_sentences}. Leave it out."
            )
        validating = split.held_out
        training = np.setdiff1d(np.arange(len(order)), validating)
    else:
        held_out = data.validation_sentences or max(1, len(order) // 10)
        if held_out >= len(order):
            raise DataError(
                f"data.validation_sentences = {held_out} leaves nothing to train on: the training "
                f"split of '{data.name}' has {len(order)} sentences."
            )
        validating, training = order[:held_out], order[held_out:]
    tokenizer = split.tokenizer
    if tokenizer.vocabulary is None:
        tokenizer = tokenizer.adapted(split.sentences[training].tolist(), data.max_tokens)
        check_vocabulary_size(tokenizer.vocabulary or ())
    if data.training_sentences:
        if data.training_sentences > len(training):
            raise DataError(
                f"data.training_sentences = {data.training_sentences}, and '{data.name}' has "
                f"{len(training)} to train on. Lower it."
            )
        training = np.random.default_rng(seed).permutation(training)[: data.training_sentences]
    known = split.tokenized(tokenizer)
    trained = known.part(training)
    return TrainingData(
        lambda first, last: _shuffled(trained, data, batch_size, seed, first, last),
        math.ceil(len(training) / batch_size),
        sentences_in_order(known.part(validating), data),
        {
            "sentences": len(training),
            "validation_sentences": len(validating),
            "vocabulary": len(tokenizer.vocabulary or ()),
        },
        class_names=split.class_names,
        vocabulary=tokenizer.vocabulary,
    )


def sentence_test_batches(
    split: LabelledSentences, data: SentenceData, seed: int
) -> tf.data.Dataset:
    """The test sentences in their order.

    Args:
        split: the test split, with the tokenizer of the model.
        data: section [data] of the recipe.
        seed: of the run, which decides nothing.

    Raises:
        DataError: for a split without a vocabulary: it is of training data alone.
    """
    if split.tokenizer.vocabulary is None:
        raise DataError(
            "Sentences are tested with the vocabulary of the model, and the recipe holds none: use "
            "the recipe that lies with the run, or set model.vocabulary."
        )
    return sentences_in_order(split, data)


def sentences_in_order(split: LabelledSentences, data: SentenceData) -> tf.data.Dataset:
    """Batches of tokens, padded to the longest sentence of each, and labels."""
    whole = tf.data.Dataset.from_tensor_slices((_tokens(split, data), split.labels.astype("int32")))
    return without_autotuning(whole.batch(EVALUATION_BATCH).map(_trimmed))


def _tokens(split: LabelledSentences, data: SentenceData) -> np.ndarray:
    """int32 (sentences, longest); a sentence without a token has one that is unknown."""
    numbers = np.asarray(split.tokenizer.numbers(split.sentences.tolist()))
    numbers = numbers[:, : data.sequence_length]
    if not numbers.shape[1]:
        numbers = np.zeros((len(numbers), 1), "int32")
    numbers[:, 0] = np.where(numbers[:, 0] == PADDING, UNKNOWN, numbers[:, 0])
    return numbers


def _trimmed(tokens: Any, labels: Any) -> tuple[Any, Any]:
    """Without the columns that are padding in all sentences of a batch."""
    longest = tf.reduce_max(tf.reduce_sum(tf.cast(tokens != PADDING, tf.int32), axis=1))
    return tokens[:, :longest], labels


def _shuffled(
    split: LabelledSentences, data: SentenceData, batch_size: int, seed: int, first: int, last: int
) -> tf.data.Dataset:
    """Epochs `first` to `last` - 1; the number decides the order of each."""
    tokens, labels = tf.constant(_tokens(split, data)), tf.constant(split.labels.astype("int32"))

    def epoch(number: Any) -> tf.data.Dataset:
        key = tf.stack([tf.cast(seed, tf.int64), number])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(split.labels)), key)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    batches = tf.data.Dataset.range(first, last).flat_map(epoch)
    gathered = batches.map(lambda chosen: (tf.gather(tokens, chosen), tf.gather(labels, chosen)))
    return without_autotuning(gathered.map(_trimmed).prefetch(4))
