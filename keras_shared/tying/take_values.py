from typing import Any

import keras

from keras_shared.errors import boundary
from keras_shared.tying.keras_private import flatten_layers
from keras_shared.tying.normalization import renew_normalization
from keras_shared.tying.tie_error import TieError

LOOKUPS = (keras.layers.StringLookup, keras.layers.IntegerLookup)  # also those of TextVectorization


def take_values(copy: keras.Layer, layer: keras.Layer) -> None:
    """Give a layer that was made from another's config all values of the other.

    Beside the weights these are what `keras.Layer.set_weights` leaves as it was: what Normalization
    computes with, the factor of LoRA, and the words that a lookup was adapted to.

    Args:
        copy: of the class and with the config of `layer`; it is built here if it was not.
        layer: keeps its values.

    Raises:
        TieError: if Keras cannot set the weights, as those of a float8 layer.

    Example:
        >>> import keras
        >>> from keras_shared.tying.take_values import take_values
        >>> words = keras.layers.StringLookup()
        >>> words.adapt(["tied", "weights", "tied"])
        >>> copy = keras.layers.StringLookup.from_config(words.get_config())
        >>> take_values(copy, words)
        >>> [str(word) for word in copy.get_vocabulary()]
        ['[UNK]', 'tied', 'weights']
    """
    parts = flatten_layers(layer)
    if float8 := [p.name for p in parts if getattr(p, "quantization_mode", None) == "float8"]:
        raise TieError(
            f"'{layer.name}' cannot be copied: {float8} is quantised as 'float8', whose weights "
            "Keras cannot set. Untie, unshare or tie the model first, and quantise it then."
        )
    with boundary(f"{type(layer).__name__} '{layer.name}' cannot be copied", TieError):
        if layer.weights:
            if not copy.built:
                copy.build_from_config(layer.get_build_config())
            copy.set_weights(layer.get_weights())
            renew_normalization(copy)
        for mine, theirs in zip(flatten_layers(copy), flatten_layers(layer), strict=False):
            if getattr(theirs, "lora_enabled", False):
                mine.lora_alpha = theirs.lora_alpha  # Keras forgets it when it enables LoRA
    take_adapted(copy, layer)


def take_adapted(copy: keras.Layer, layer: keras.Layer) -> None:
    """Give such a layer what `adapt` computed of data: means, variances and words.

    Args:
        copy: as of `take_values`.
        layer: keeps its values.

    Raises:
        TieError: for a lookup that weights its words.
    """
    with boundary(f"{type(layer).__name__} '{layer.name}' cannot be copied", TieError):
        for mine, theirs in zip(flatten_layers(copy), flatten_layers(layer), strict=False):
            if isinstance(theirs, keras.layers.Normalization) and theirs.weights:
                if not mine.built:
                    mine.build_from_config(theirs.get_build_config())
                mine.set_weights(theirs.get_weights())
            if isinstance(theirs, LOOKUPS) and theirs.input_vocabulary is None:
                _take_words(mine, theirs)
        renew_normalization(copy)


def _take_words(copy: Any, lookup: Any) -> None:
    words = lookup.get_vocabulary(include_special_tokens=False)
    if len(words) and lookup.output_mode == "tf_idf":
        raise ValueError("tf_idf weights its words. Build it with `vocabulary` and `idf_weights`")
    if len(words):
        copy.set_vocabulary(words)
