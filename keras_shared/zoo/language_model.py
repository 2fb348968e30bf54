import functools
import re
import string
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_shared.signature import Signature
from keras_shared.tokenizing import (
    PADDING,
    SPECIAL,
    UNKNOWN,
    Split,
    Tokenizer,
    checked_vocabulary,
)
from keras_shared.zoo.zoo_model import ZooModel

MOST = 1000  # tokens that are written at once
USUAL = 20  # where a request says 0
LIKELY = 10  # next tokens that are named
SURE = 1e-6  # of 1, so that rounding never leaves the last token


class LanguageModel(ZooModel):
    """A zoo model that tells each token of a text from those before it, and so can write.

    A subclass calls `super().__init__(tokens, logits, vocabulary, split, ...)` with a graph from
    int32 tokens (batch, length) to logits (batch, length, tokens), whose last layer makes logits of
    the features of one place each. Tokens have the numbers of `keras_shared.tokenizing.Tokenizer`:
    0 is padding, 1 any token that is not in the vocabulary, 2 the first that is.

    Attributes:
        vocabulary: the tokens that it knows.
        split: "character" or "whitespace", as of `keras.layers.TextVectorization`.
        context: tokens that it looks back at when it writes.
        tokenizer: the layer from text to tokens; it is part of the published graph.
    """

    task = "language_modeling"
    loss_names: ClassVar[tuple[str, ...]] = ("token_crossentropy",)
    context: int = 64

    def __init__(
        self, tokens: Any, logits: Any, vocabulary: tuple[str, ...], split: Split, **kwargs: Any
    ) -> None:
        super().__init__(tokens, logits, **kwargs)
        self.vocabulary, self.split = vocabulary, split
        self.tokenizer = self._words.layer(name="tokenizer")
        self.detokenizer = keras.layers.StringLookup(
            vocabulary=list(vocabulary), mask_token="", invert=True, name="detokenizer"
        )

    @staticmethod
    def known_tokens(vocabulary: Sequence[str] | None, split: Split) -> tuple[str, ...]:
        """The vocabulary, checked; the printable characters of ASCII where none is given.

        Raises:
            ValueError: if it is none, or none is given for words.
        """
        if vocabulary is None and split == "whitespace":
            raise ValueError(
                "`vocabulary` must name the words for split='whitespace'. Received: None. A recipe "
                "takes it from its training data."
            )
        return checked_vocabulary(
            list(string.printable) if vocabulary is None else vocabulary, split
        )

    @property
    def _words(self) -> Tokenizer:
        return Tokenizer(self.split, "none", self.vocabulary)

    # === Asking ===

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`; an array that holds no tokens of this model is refused."""
        return super().predict(self._known(x), *args, **kwargs)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`, for arrays of tokens that this model knows."""
        self._check_targets(y)
        return super().fit(self._known(x), y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`, for arrays of tokens that this model knows."""
        self._check_targets(y)
        return super().evaluate(self._known(x), y, *args, **kwargs)

    def _known(self, tokens: Any) -> Any:
        """Arrays, and lists of numbers, checked; data sets and lists of arrays as they are."""
        of_arrays = isinstance(tokens, list) and tokens and hasattr(tokens[0], "shape")
        known = isinstance(tokens, (np.ndarray, list)) and not of_arrays
        return self._checked(tokens) if known else tokens

    def _check_targets(self, y: Any) -> None:
        """Whole numbers are tokens; a negative one may be the mark of a loss."""
        most = len(self.vocabulary) + SPECIAL
        whole = isinstance(y, np.ndarray) and y.ndim == 2 and np.issubdtype(y.dtype, np.integer)
        if whole and y.size and y.max() >= most:
            raise ValueError(
                f"`y` must hold tokens from 0 to {most - 1}: the vocabulary has "
                f"{len(self.vocabulary):,} after padding and unknown ones. Received: up to "
                f"{y.max()}"
            )

    def generate(
        self,
        prompts: str | Sequence[str],
        max_new_tokens: int = 100,
        temperature: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
    ) -> Any:
        """Texts that go on as the model thinks likely.

        Args:
            prompts: how a text begins, or several; of tokens that the model knows.
            max_new_tokens: so many tokens are added, 1 to 1,000.
            temperature: logits are divided by it: below 1 for the likely, 0 for the likeliest
                alone.
            top_k: draws among so many of the likeliest; 0 among all.
            seed: the same seed gives the same text, here and in the published signature
                `generate`; of several prompts the second has the next seed, and so on.

        Returns:
            The prompt with what follows; a list for several.

        Raises:
            ValueError: for an empty prompt, one with a token that is not in the vocabulary, or a
                number out of its range.
        """
        from keras_shared.exporting.texts import uniforms

        _check_range("max_new_tokens", max_new_tokens, 1, MOST)
        _check_range("temperature", temperature, 0, 1e6, Real)
        _check_range("top_k", top_k, 0, 2**31 - 1)
        if seed is None:
            seed = int(np.random.default_rng().integers(2**30))
        _check_range("seed", seed, 0, 2**31 - 1)
        if not isinstance(prompts, (str, list, tuple)) and np.ndim(prompts) != 1:
            raise ValueError(f"`prompts` must be a text or a list of texts. Received: {prompts!r}")
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        numbers = self._numbers(texts)
        seeds = (seed + np.arange(len(texts))) % 2**31
        draws = ops.convert_to_tensor(np.asarray(uniforms(seeds, max_new_tokens)))
        rows = (np.full(len(texts), temperature, "float32"), np.full(len(texts), top_k, "int32"))
        written = self._writer()(ops.convert_to_tensor(numbers), draws, *rows)
        words, separator = self._words, self._words.separator
        found = [
            separator.join([text, words.joined(row)])
            for text, row in zip(texts, ops.convert_to_numpy(written).tolist(), strict=True)
        ]
        return found[0] if isinstance(prompts, str) else found

    def signatures(self) -> dict[str, Signature]:
        from keras_shared.exporting.texts import joined, replaced, uniforms

        text: Any = keras.KerasTensor((None,), "string")
        whole: Any = keras.KerasTensor((None,), "int32")

        def tokenized(text: Any) -> Any:
            ended = replaced(text, "\n", self._words.lines_ended("\n"))
            return ops.cast(self.tokenizer(ended), "int32")

        def next_token(text: Any) -> dict[str, Any]:
            tokens = tokenized(text)
            logits = _without_special(self.next_logits(*self._window(tokens)))
            shares, best = ops.top_k(ops.softmax(logits), min(LIKELY, len(self.vocabulary)))
            return {
                "tokens": self.detokenizer(best),
                "probabilities": shares,
                "unknown_tokens": _count(tokens, UNKNOWN),
            }

        def generate(
            prompt: Any, max_new_tokens: Any, temperature: Any, top_k: Any, seed: Any
        ) -> dict[str, Any]:
            tokens = tokenized(prompt)
            wanted = ops.where(max_new_tokens == 0, USUAL, ops.clip(max_new_tokens, 1, MOST))
            most = ops.max(wanted)
            written = self._writer()(tokens, uniforms(seed, most), temperature, top_k)
            written = ops.where(ops.arange(most)[None] < wanted[:, None], written, PADDING)
            return {
                "text": joined(prompt, self.detokenizer(written), self._words.separator),
                "unknown_tokens": _count(tokens, UNKNOWN),
            }

        asked = {"prompt": text, "max_new_tokens": whole}
        asked |= {"temperature": keras.KerasTensor((None,)), "top_k": whole, "seed": whole}
        return {
            "next_token": Signature(next_token, {"text": text}),
            "generate": Signature(generate, asked),
            "logits": Signature(
                lambda tokens: {"logits": self(tokens, training=False)},
                {"tokens": keras.KerasTensor((None, None), "int32")},
            ),
        }

    # === Writing ===

    def next_logits(self, tokens: Any, lengths: Any) -> Any:
        """Logits (batch, tokens) of what comes after the first `lengths` of `tokens`."""
        last = self.layers[-1]
        features = keras.Model(self.input, last.input)(tokens, training=False)
        places = ops.reshape(lengths - 1, (-1, 1, 1))
        features = ops.take_along_axis(features, places, axis=1)  # (batch, 1, width)
        return ops.cast(last(features)[:, 0], "float32")

    def written(self, tokens: Any, draws: Any, temperature: Any, top_k: Any) -> Any:
        """Tokens (batch, count) that follow; each draw in [0, 1) decides one, by the sum of shares.

        Args:
            tokens: int32 (batch, length), padded by 0.
            draws: float32 (batch, count).
            temperature: float32 (batch,).
            top_k: int32 (batch,).
        """
        places = ops.arange(self.context)
        count = ops.shape(draws)[1]

        def step(i: Any, window: Any, lengths: Any, found: Any) -> Any:
            logits = _without_special(self.next_logits(window, lengths))
            token = _drawn(logits, ops.take(draws, i, axis=1), temperature, top_k)[:, None]
            full = (lengths == self.context)[:, None]
            window = ops.where(full, ops.roll(window, -1, axis=1), window)
            last = ops.minimum(lengths, self.context - 1)[:, None]
            window = ops.where(places == last, token, window)
            found = ops.where(ops.arange(count) == i, token, found)
            return i + 1, window, ops.minimum(lengths + 1, self.context), found

        window, lengths = self._window(tokens)
        start = (0, window, lengths, ops.cast(ops.zeros_like(draws), "int32"))
        return ops.while_loop(lambda i, *_: i < count, step, start)[-1]

    def _window(self, tokens: Any) -> tuple[Any, Any]:
        """The last tokens of each row, at its beginning, and how many; of none, an unknown one."""
        lengths = _count(tokens, PADDING, equal=False)
        empty = (lengths == 0)[:, None]
        places = ops.arange(self.context)
        first = ops.maximum(lengths - self.context, 0)[:, None]
        padded = ops.pad(tokens, ((0, 0), (0, self.context)))
        window = ops.take_along_axis(padded, first + places, axis=1)
        lengths = ops.clip(lengths, 1, self.context)
        known = ops.where(empty, UNKNOWN, window)
        return ops.where(places < lengths[:, None], known, PADDING), lengths

    def _writer(self) -> Any:
        """`written` as a graph, made anew when layers have other variables than then."""
        if keras.backend.backend() != "tensorflow":
            return self.written
        from keras_shared.exporting.texts import compiled

        variables = tuple(map(id, self.variables))
        kept = self.__dict__.get("_compiled_writer")
        if kept is None or kept[0] != variables:
            kept = (variables, compiled(functools.partial(LanguageModel.written, self)))
            object.__setattr__(self, "_compiled_writer", kept)  # no part of the model
        return kept[1]

    # === Checks ===

    def _numbers(self, texts: list[str]) -> np.ndarray:
        for text in texts:
            if not isinstance(text, str) or not text.strip(
                "" if self.split == "character" else None
            ):
                raise ValueError(
                    f"A prompt must be a text of at least one token. Received: {text!r}"
                )
        if not texts:
            raise ValueError("`prompts` must hold at least one text. Received: none")
        numbers: np.ndarray = self._words.numbers(texts)
        rows, columns = np.nonzero(numbers == UNKNOWN)
        if len(rows):
            words = self._words
            text = words.lines_ended(texts[rows[0]])
            # not str.split, which also splits at spaces that TensorFlow keeps
            parts = text if words.split == "character" else re.findall(r"[^ \t\n\v\f\r]+", text)
            unknown = parts[columns[0]]
            kind = "character" if words.split == "character" else "word"
            raise ValueError(
                f"A prompt holds the {kind} {unknown!r}, which is not among the "
                f"{len(self.vocabulary):,} of the model's vocabulary, such as "
                f"{list(self.vocabulary[:8])}. Received: {texts[rows[0]]!r}"
            )
        return numbers

    def _checked(self, tokens: Any) -> np.ndarray:
        array: np.ndarray = np.asarray(tokens)
        most = len(self.vocabulary) + SPECIAL
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer) or not array.size:
            raise ValueError(
                "`x` must be whole numbers of shape (batch, length), as `tokenizer` makes them of "
                f"texts. Received: an array of shape {array.shape} and dtype {array.dtype}"
            )
        if array.min() < 0 or array.max() >= most:
            raise ValueError(
                f"`x` must hold tokens from 0 to {most - 1}: the vocabulary has "
                f"{len(self.vocabulary):,} after padding and unknown ones. Received: "
                f"{array.min()} to {array.max()}"
            )
        return array

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary": self.vocabulary, "split": self.split}


def _check_range(name: str, value: Any, least: float, most: float, kind: type = Integral) -> None:
    what = "a whole number" if kind is Integral else "a number"
    if not isinstance(value, kind) or isinstance(value, bool) or not least <= value <= most:  # type: ignore[operator]
        raise ValueError(f"`{name}` must be {what} from {least:,} to {most:,}. Received: {value!r}")


def _count(tokens: Any, number: int, equal: bool = True) -> Any:
    """int32 (batch,): how many tokens have that number, or another."""
    counted = tokens == number if equal else tokens != number
    return ops.sum(ops.cast(counted, "int32"), axis=1)


def _without_special(logits: Any) -> Any:
    """Padding and unknown tokens are never written."""
    return ops.where(ops.arange(logits.shape[-1]) < SPECIAL, -1e30, logits)


def _drawn(logits: Any, draws: Any, temperature: Any, top_k: Any) -> Any:
    """int32 (batch,): where the running sum of the shares first exceeds the draw."""
    size = logits.shape[-1]
    place = ops.clip(ops.where(top_k == 0, size, top_k), 1, size)[:, None] - 1
    least = ops.take_along_axis(ops.flip(ops.sort(logits, axis=-1), axis=-1), place, axis=-1)
    kept = ops.where(logits < least, -1e30, logits)
    scaled = (kept - ops.max(kept, axis=-1, keepdims=True)) / ops.maximum(temperature, 1e-6)[
        :, None
    ]
    sums = ops.cumsum(ops.softmax(scaled), axis=-1)
    aims = ops.minimum(draws, 1 - SURE)[:, None] * sums[:, -1:]
    likeliest = ops.argmax(logits, axis=-1)
    drawn = ops.argmax(ops.cast(sums > aims, "int32"), axis=-1)
    return ops.cast(ops.where(temperature > 0, drawn, likeliest), "int32")
