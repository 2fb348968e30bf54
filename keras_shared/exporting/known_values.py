"""Values that an input of a model stands for, by the layers that read it: words, and codes."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_shared.tying.keras_private import called_on

MOST = 1000  # of a long vocabulary
WORDS = 8  # in a made-up text


def known_values(
    model: keras.Model, inputs: Mapping[str, keras.KerasTensor]
) -> dict[str, np.ndarray]:
    """What the inputs of a functional model can hold, where layers with a vocabulary read them.

    Args:
        model: holds the layers.
        inputs: name -> one of its inputs.

    Returns:
        Name -> strings or whole numbers that every such layer knows. Without the inputs that no
        such layer reads, or of which there is nothing that all of them know.

    Example:
        >>> import keras
        >>> from keras_shared.exporting.known_values import known_values
        >>> word = keras.Input((), dtype="string")
        >>> code = keras.layers.StringLookup(vocabulary=["a", "b"], num_oov_indices=0)(word)
        >>> model = keras.Model(word, keras.layers.Embedding(2, 4)(code))
        >>> known_values(model, {"word": word})["word"].tolist()
        ['a', 'b']
    """
    found = {name: _known(model, tensor) for name, tensor in inputs.items()}
    return {name: values for name, values in found.items() if values is not None and len(values)}


def _known(model: keras.Model, tensor: keras.KerasTensor) -> np.ndarray | None:
    found = None
    for layer in model.layers:
        for used in called_on(layer):
            for place, read in enumerate(used):
                inner = getattr(layer, "inputs", None)
                if read is not tensor:
                    continue
                if isinstance(layer, keras.Model) and inner and len(inner) == len(used):
                    values = _known(layer, inner[place])
                else:
                    values = _taken_by(layer)
                if values is not None:
                    found = values if found is None else np.intersect1d(found, values)
    return found


def _taken_by(layer: Any) -> np.ndarray | None:
    """What one layer knows."""
    if isinstance(layer, layers.TextVectorization):
        words = layer.get_vocabulary(include_special_tokens=False)[:MOST]
        texts = [" ".join(words[i : i + WORDS]) for i in range(0, len(words), WORDS)]
        return np.array(texts, object)
    if isinstance(layer, (layers.StringLookup, layers.IntegerLookup)):
        if layer.invert:
            return np.arange(min(layer.vocabulary_size(), MOST))
        known = layer.get_vocabulary(include_special_tokens=False)[:MOST]
        words = isinstance(layer, layers.StringLookup)
        return np.array([*map(str, known)], object) if words else np.array(known, "int64")
    if isinstance(layer, layers.Embedding):
        return np.arange(min(layer.input_dim, MOST))
    if isinstance(layer, layers.CategoryEncoding):
        return np.arange(min(layer.num_tokens, MOST))
    return None
