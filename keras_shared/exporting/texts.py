"""What a graph does with text besides Keras' own layers: draws for each row, and joined tokens."""

import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def uniforms(seeds: Any, count: Any) -> Any:
    """(rows, count) numbers in [0, 1), those of a row by its seed alone.

    Example:
        >>> from keras_shared.exporting.texts import uniforms
        >>> draws = uniforms([7, 8, 7], 3).numpy()
        >>> draws.shape, bool((draws[0] == draws[2]).all()), bool((draws[0] == draws[1]).any())
        ((3, 3), True, False)
    """

    def row(seed: Any) -> Any:
        return tf.random.stateless_uniform([count], tf.stack([seed, 0]))

    seeds = tf.cast(seeds, tf.int32)
    return tf.map_fn(row, seeds, fn_output_signature=tf.TensorSpec((None,), tf.float32))


def joined(beginnings: Any, tokens: Any, separator: str) -> Any:
    """Strings (rows,): each beginning with the tokens (rows, count) after it; empty ones are none.

    Example:
        >>> from keras_shared.exporting.texts import joined
        >>> joined(["to"], [["be", "or", ""]], " ").numpy().tolist()
        [b'to be or']
    """
    tokens = tf.convert_to_tensor(tokens)
    parted = tf.where(tokens == "", "", tf.strings.join([separator, tokens]))
    return tf.strings.join([beginnings, tf.strings.reduce_join(parted, axis=-1)])


def replaced(texts: Any, old: str, new: str) -> Any:
    """Strings (rows,) with each `old` replaced.

    Example:
        >>> from keras_shared.exporting.texts import replaced
        >>> replaced(["to be\\nor"], "\\n", " / ").numpy().tolist()
        [b'to be / or']
    """
    return tf.strings.regex_replace(texts, re.escape(old), new)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors as a graph."""
    graph: Callable[..., Any] = tf.function(function, autograph=False, reduce_retracing=True)
    return graph
