"""Windows of one long text: the section [data] that describes them, and how they are drawn."""

import itertools
import math
import re
from typing import Any, Literal, Self

import numpy as np
import tensorflow as tf
from pydantic import model_validator

from keras_shared.batching.autotuning import without_autotuning
from keras_shared.batching.training_data import TrainingData
from keras_shared.datasets import DataError, TextStream
from keras_shared.section import Count, NoneOrMore, Section
from keras_shared.tokenizing import PADDING, Tokenizer

MOST_TOKENS = 50_000  # of a vocabulary, which stands in the recipe of a run
WORD = re.compile(r"[^ \t\n\v\f\r]+")  # as TensorFlow splits
EVALUATED = 2048  # tokens in a batch to validate or test, whose logits all lie in memory


class TextData(Section):
    """One long text, read in windows of tokens; each token is to be told from those before it.

    Where training goes along a text, a model begins each window without memory.

    Attributes:
        name: name of the data set.
        path: of your own text: the .txt file of "text".
        sequence_length: tokens in a window.
        windows: "contiguous" for windows side by side, all once in an epoch, in a new order and
            from a new first token; "random" for windows that begin anywhere.
        windows_per_epoch: 0 for so many that their tokens are as many as the text's.
        context: tokens at the beginning of a window that are not asked for again when validating
            and testing, since the window before has them: each other token is told from so many at
            least. 0 for windows side by side.
        max_tokens: so many of the most frequent tokens make the vocabulary; 0 for all.
        training_tokens: the first so many to train on, and to make the vocabulary of; 0 for all.
    """

    name: str
    path: str = ""
    sequence_length: Count = 64
    windows: Literal["contiguous", "random"] = "contiguous"
    windows_per_epoch: NoneOrMore = 0
    context: NoneOrMore = 0
    max_tokens: NoneOrMore = 0
    training_tokens: NoneOrMore = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.context >= self.sequence_length:
            raise ValueError(
                f"`context` must be less than `sequence_length`, {self.sequence_length}. Received: "
                f"{self.context}"
            )
        return self


def text_training_data(
    split: TextStream, data: TextData, batch_size: int, seed: int
) -> TrainingData:
    """Training and validation windows; the vocabulary is the tokenizer's, or made of what trains.

    Args:
        split: the training split of the data set.
        data: section [data] of the recipe.
        batch_size: windows in a batch.
        seed: of the run.

    Raises:
        DataError: if a text is too short for a window, or has too many different tokens.

    Example:
        >>> from keras_shared.batching.texts import TextData, text_training_data
        >>> from keras_shared.datasets import TextStream
        >>> from keras_shared.tokenizing import Tokenizer
        >>> split = TextStream("abcd" * 20, "abcd" * 4, Tokenizer("character"))
        >>> data = text_training_data(split, TextData(name="mine", sequence_length=8), 4, seed=1)
        >>> x, y = next(iter(data.batches(0, 1)))
        >>> x.shape, bool((x[:, 1:] == y[:, :-1]).numpy().all()), len(data.vocabulary)
        (TensorShape([4, 8]), True, 4)
    """
    text, held_out = split.text, split.held_out
    if held_out is None:
        place = round(0.9 * len(text))
        text, held_out = text[:place], text[place:]
    vocabulary = split.tokenizer.vocabulary
    if vocabulary is None:
        if data.training_tokens:
            text = _first(split.tokenizer, text, data.training_tokens)
        vocabulary = split.tokenizer.adapted([text], data.max_tokens).vocabulary or ()
        check_vocabulary_size(vocabulary)
    tokenizer = split.tokenizer._replace(vocabulary=vocabulary)
    tokens = numbers_of(text, tokenizer)
    if data.training_tokens:
        tokens = tokens[: data.training_tokens]
    length = data.sequence_length
    if len(tokens) <= length:
        raise DataError(
            f"'{data.path or data.name}' has {len(tokens)} tokens to train on, and a window of "
            f"data.sequence_length = {length} needs {length + 1}. Shorten it, or name a longer "
            "text."
        )
    side_by_side = max(1, len(tokens) // length - 1)  # whatever the first token is
    windows = data.windows_per_epoch or side_by_side
    if data.windows == "contiguous" and windows > side_by_side:
        raise DataError(
            f"data.windows_per_epoch = {windows}, and the text has {side_by_side} contiguous "
            'windows. Lower it, or set data.windows = "random".'
        )
    steps = math.ceil(windows / batch_size)
    validating = numbers_of(held_out, tokenizer)
    return TrainingData(
        lambda first, last: _drawn(
            tokens, data, windows, side_by_side, batch_size, seed, first, last
        ),
        steps,
        windows_in_order(validating, data, "to validate"),
        {
            "tokens": len(tokens),
            "vocabulary": len(vocabulary),
            "windows_per_epoch": windows,
            "validation_tokens": len(validating),
        },
        vocabulary=vocabulary,
    )


def text_test_batches(split: TextStream, data: TextData, seed: int) -> tf.data.Dataset:
    """The windows of a text in order; every token but the first is asked for once.

    Args:
        split: the test split, with the tokenizer of the model.
        data: section [data] of the recipe.
        seed: of the run, which decides nothing.

    Raises:
        DataError: for a split without a vocabulary: it is of training data alone.
    """
    if split.tokenizer.vocabulary is None:
        raise DataError(
            "Text is tested with the vocabulary of the model, and the recipe holds none: use the "
            "recipe that lies with the run, or set model.vocabulary."
        )
    return windows_in_order(numbers_of(split.text, split.tokenizer), data, "to test")


def numbers_of(text: str, tokenizer: Tokenizer) -> np.ndarray:
    """The tokens of one text, int32 (tokens,)."""
    return np.asarray(tokenizer.numbers([text])[0])


def check_vocabulary_size(vocabulary: tuple[str, ...]) -> None:
    """Refuse a vocabulary that no recipe can hold, or none.

    Raises:
        DataError: with what to set.
    """
    if not 0 < len(vocabulary) <= MOST_TOKENS:
        raise DataError(
            f"The text to train on has {len(vocabulary):,} different tokens: expected 1 to "
            f"{MOST_TOKENS:,}. Set data.max_tokens to keep the most frequent ones."
        )


def windows_in_order(tokens: np.ndarray, data: TextData, purpose: str) -> tf.data.Dataset:
    """Batches of inputs and targets.

    Targets that are not asked for, the padding at the end and the context, are 0.

    Raises:
        DataError: if there are not two tokens.
    """
    if len(tokens) < 2:
        raise DataError(
            f"'{data.path or data.name}' has {len(tokens)} token(s) {purpose}: expected at least "
            "two. Name a longer text."
        )
    length = data.sequence_length
    stride = length - data.context
    count = 1 + max(0, math.ceil((len(tokens) - 1 - length) / stride))
    starts = np.arange(count) * stride
    padded = np.pad(tokens, (0, int(starts[-1]) + length + 1 - len(tokens)))
    inputs, targets = _window(padded, starts, length)
    targets[1:, : data.context] = PADDING
    whole = tf.data.Dataset.from_tensor_slices((inputs, targets))
    return without_autotuning(whole.batch(max(1, EVALUATED // length)))


def _window(tokens: Any, starts: Any, length: int) -> tuple[Any, Any]:
    chosen = tokens[starts[:, None] + np.arange(length + 1)]
    return chosen[:, :-1].copy(), chosen[:, 1:].copy()


def _first(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    """The beginning of a text that has so many tokens."""
    if tokenizer.split == "character":
        return text[:tokens]
    text = tokenizer.lines_ended(text)
    words = itertools.islice(WORD.finditer(text), tokens)
    return text[: max((word.end() for word in words), default=0)]


def _drawn(
    tokens: np.ndarray,
    data: TextData,
    windows: int,
    side_by_side: int,
    batch_size: int,
    seed: int,
    first: int,
    last: int,
) -> tf.data.Dataset:
    """Epochs `first` to `last` - 1; the number decides the windows of each."""
    text, length = tf.constant(tokens), data.sequence_length

    def starts(number: Any) -> tf.data.Dataset:
        key = tf.stack([tf.cast(seed, tf.int64), number])
        if data.windows == "random":
            chosen = tf.random.stateless_uniform(
                [windows], key, maxval=len(tokens) - length, dtype=tf.int32
            )
        else:
            free = min(length, len(tokens) - side_by_side * length)
            offset = tf.random.stateless_uniform([], key, maxval=free, dtype=tf.int32)
            order = tf.random.experimental.stateless_shuffle(tf.range(side_by_side), key)
            chosen = offset + length * order[:windows]
        return tf.data.Dataset.from_tensor_slices(chosen).batch(batch_size)

    def window(chosen: Any) -> tuple[Any, Any]:
        read = tf.gather(text, chosen[:, None] + tf.range(length + 1))  # (batch, length + 1)
        return read[:, :-1], read[:, 1:]

    numbers = tf.data.Dataset.range(first, last)
    return without_autotuning(numbers.flat_map(starts).map(window).prefetch(4))
