"""Values that an input of a model stands for, by the layers that read it: words, and codes."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_shared.tying.keras_private import calls_in, flatten_layers
from keras_shared.tying.take_values import LOOKUPS

MOST = 1000  # of a long vocabulary
WORDS = 8  # in a made-up text
# what hands on values as they are, by the names of Keras' layers and operations
HANDING_ON = {
    "Cast", "Concatenate", "ExpandDims", "Flatten", "GetItem", "Permute", "RepeatVector",
    "Reshape", "Squeeze", "Stack", "Transpose",
}  # fmt: skip


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
    found = {}
    for name, tensor in inputs.items():
        values = _known(model, tensor)
        if values is not None and np.issubdtype(values.dtype, np.integer):
            limits = np.iinfo("int64" if "int" not in tensor.dtype else tensor.dtype)
            values = values[(limits.min <= values) & (values <= limits.max)]
        if values is not None and len(values):
            found[name] = values
    return found


def _known(model: keras.Model, tensor: keras.KerasTensor) -> np.ndarray | None:
    """What all readers of a tensor in the graph of a model know."""
    found = None
    for operation, taken, given in calls_in(model):
        for place, read in enumerate(taken):
            if read is not tensor:
                continue
            for values in _read_by(operation, place, tensor, given, model):
                found = values if found is None else np.intersect1d(found, values)
    return found


def _read_by(
    operation: Any, place: int, tensor: keras.KerasTensor, given: list[Any], model: keras.Model
) -> list[np.ndarray]:
    """What one reader of a tensor knows, which may hand it on."""
    if type(operation).__name__ in HANDING_ON:
        every = [_known(model, other) for other in given]
    elif isinstance(operation, keras.Model) and getattr(operation, "inputs", None):
        every = [_known(operation, operation.inputs[place])]
    elif isinstance(operation, keras.Layer):
        every = [_taken_by(operation, tensor.dtype == "string")]
    else:
        every = []
    return [values for values in every if values is not None]


def _taken_by(layer: keras.Layer, text: bool) -> np.ndarray | None:
    """What one layer knows, or what reads the input of a layer around it: a lookup, if any."""
    inside = flatten_layers(layer)
    if not text:
        inside.sort(key=lambda inner: not isinstance(inner, LOOKUPS))
    known = (_words(inner) if text else _codes(inner) for inner in inside)
    return next((values for values in known if values is not None), None)


def _words(layer: keras.Layer) -> np.ndarray | None:
    """Texts that a layer knows."""
    if isinstance(layer, layers.TextVectorization):
        words = layer.get_vocabulary(include_special_tokens=False)[:MOST]
        starts = range(0, len(words), WORDS)
        texts = [" ".join(words[(i + k) % len(words)] for k in range(WORDS)) for i in starts]
        return np.array(texts, object)
    if isinstance(layer, layers.StringLookup) and not layer.invert:
        words = layer.get_vocabulary(include_special_tokens=False)[:MOST]
        return np.array([*map(str, words)], object)
    return None


def _codes(layer: keras.Layer) -> np.ndarray | None:
    """Whole numbers that a layer knows."""
    if isinstance(layer, LOOKUPS) and layer.invert:
        return np.arange(min(layer.vocabulary_size(), MOST))
    if isinstance(layer, layers.IntegerLookup):
        return np.array(layer.get_vocabulary(include_special_tokens=False)[:MOST], "int64")
    if isinstance(layer, layers.Embedding):
        return np.arange(min(layer.input_dim, MOST))
    if isinstance(layer, layers.CategoryEncoding):
        return np.arange(min(layer.num_tokens, MOST))
    return None
