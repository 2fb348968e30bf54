"""From text to whole numbers: Keras' own TextVectorization, one way for training and serving."""

import re
import string
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import keras

Split = Literal["character", "whitespace"]
Standardize = Literal["none", "lower", "strip_punctuation", "lower_and_strip_punctuation"]
PADDING, UNKNOWN = 0, 1  # numbers that are no token of the vocabulary
SPECIAL = 2  # so many of them come before it
SPACE = set(" \t\n\v\f\r")  # at which TensorFlow splits
PUNCTUATION = set(string.punctuation)  # that Keras strips
LINE_END = "<eos>"  # the word that stands for a line's end


class Tokenizer(NamedTuple):
    """How text becomes tokens.

    Attributes:
        split: "character" for one token each, "whitespace" for words as they stand, a line's end
            as the word `<eos>`.
        standardize: before that, as of `keras.layers.TextVectorization`; "none" changes nothing.
        vocabulary: the tokens that are known, the first with the number 2: 0 is padding, 1 any
            other token. None where it is still to be made, of training data alone.

    Example:
        >>> from keras_shared.tokenizing import Tokenizer
        >>> tokenizer = Tokenizer("character").adapted(["banana"])
        >>> tokenizer.vocabulary, tokenizer.numbers(["bank"]).tolist()
        (('a', 'n', 'b'), [[4, 2, 3, 1]])
    """

    split: Split = "whitespace"
    standardize: Standardize = "none"
    vocabulary: tuple[str, ...] | None = None

    def layer(self, **kwargs: Any) -> keras.layers.TextVectorization:
        """The layer that takes strings (batch,) and gives int64 (batch, longest), padded by 0."""
        return keras.layers.TextVectorization(
            standardize=None if self.standardize == "none" else self.standardize,
            split=self.split,
            vocabulary=None if self.vocabulary is None else list(self.vocabulary),
            **kwargs,
        )

    def adapted(self, texts: Iterable[str], max_tokens: int = 0) -> "Tokenizer":
        """The same with the vocabulary of these texts, most frequent first.

        Args:
            texts: of the training data.
            max_tokens: so many of the most frequent tokens; 0 for all.
        """
        layer = self._replace(vocabulary=None).layer(
            max_tokens=max_tokens + SPECIAL if max_tokens else None
        )
        layer.adapt([self.lines_ended(text) for text in texts])
        tokens = layer.get_vocabulary(include_special_tokens=False)
        return self._replace(vocabulary=tuple(map(str, tokens)))

    def numbers(self, texts: Sequence[str]) -> Any:
        """int32 (texts, longest), padded by 0 at the end."""
        tokens = self.layer()([self.lines_ended(text) for text in texts])
        return keras.ops.convert_to_numpy(tokens).astype("int32")

    def lines_ended(self, text: str) -> str:
        """The text, for words with `<eos>` in the place of line ends."""
        return text.replace("\n", f" {LINE_END} ") if self.split == "whitespace" else text

    def joined(self, numbers: Iterable[int]) -> str:
        """The text that these numbers stand for."""
        assert self.vocabulary is not None
        known = ["", "[UNK]", *self.vocabulary]
        return self.separator.join(known[number] for number in numbers if number != PADDING)

    @property
    def separator(self) -> str:
        """What stands between two tokens of a text."""
        return "" if self.split == "character" else " "


def with_a_token(tokens: Any) -> Any:
    """int32 (batch, length + 1): a row without a token, of an empty text, has one that is unknown.

    Example:
        >>> import keras
        >>> from keras_shared.tokenizing import with_a_token
        >>> keras.ops.convert_to_numpy(with_a_token([[5, 4], [0, 0]])).tolist()
        [[5, 4, 0], [1, 0, 0]]
    """
    ops = keras.ops
    padded = ops.pad(ops.cast(tokens, "int32"), ((0, 0), (0, 1)))
    places = ops.arange(padded.shape[1] or ops.shape(padded)[1])
    return ops.where((padded == PADDING) & (places == 0), UNKNOWN, padded)


def checked_vocabulary(
    vocabulary: Sequence[str], split: Split, standardize: Standardize = "none"
) -> tuple[str, ...]:
    """The vocabulary as a tuple.

    Raises:
        ValueError: if it is empty, holds a token twice, or one that the split never gives.

    Warns:
        UserWarning: for tokens that no text holds which is standardised so.

    Example:
        >>> from keras_shared.tokenizing import checked_vocabulary
        >>> checked_vocabulary(["a", "b"], "character")
        ('a', 'b')
    """
    no_list = isinstance(vocabulary, (str, set, frozenset))  # a set has another order each time
    if no_list or not all(isinstance(token, str) for token in vocabulary):
        raise ValueError(
            f"`vocabulary` must be a list of strings, one for each token. Received: {vocabulary!r}"
        )
    tokens = tuple(vocabulary)
    if not tokens:
        raise ValueError("`vocabulary` must hold at least one token. Received: none")
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise ValueError(f"`vocabulary` must hold each token once. Received: {twice!r} twice")
    for token in tokens:
        impossible = len(token) != 1 if split == "character" else not token or SPACE & {*token}
        if impossible or token == "[UNK]":
            raise ValueError(
                f"`vocabulary` holds {token!r}, which split={split!r} never gives: expected "
                f"{'single characters' if split == 'character' else 'words without spaces'}; "
                "padding and '[UNK]' are added by themselves."
            )
    lower, strip = "lower" in standardize, "strip" in standardize
    never = [
        token
        for token in tokens
        if (lower and re.search("[A-Z]", token)) or (strip and PUNCTUATION & {*token})
    ]
    if never:
        warnings.warn(
            f"{len(never):,} of {len(tokens):,} tokens in `vocabulary` are never found, since "
            f"standardize={standardize!r} changes such texts: {never[:5]}",
            stacklevel=3,
        )
    return tokens
