"""Which constants of a converted model are one and the same tied weight."""

import itertools
from collections.abc import Iterator

import keras
import numpy as np

from keras_shared.tying import effective_weight, readers_of
from keras_shared.tying.effective_weight import weight_names, weight_shape


def tied_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """What the readers inside `model` read: path of the owner -> its weight, each once."""
    found: dict[str, np.ndarray] = {}
    for owner in (reader.source() for reader in readers_of(model)):
        if weight_shape(owner) is None:
            continue  # the weights of a whole tower are never transposed
        weights = effective_weight(owner, "float32")
        for name, weight in zip(
            weight_names(owner),
            weights if isinstance(weights, tuple) else (weights,),
            strict=True,
        ):
            path = owner.path if len(weight_names(owner)) == 1 else f"{owner.path}/{name}"
            found[path] = keras.ops.convert_to_numpy(weight)
    return found


def layouts(weight: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """`weight` with its axes in every order."""
    for axes in itertools.permutations(range(weight.ndim)):
        yield axes, np.ascontiguousarray(np.transpose(weight, axes))
