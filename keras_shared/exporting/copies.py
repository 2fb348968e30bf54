"""Which constants of a converted model are one and the same tied weight."""

import itertools
from collections.abc import Iterator

import keras
import numpy as np

from keras_shared.tying import effective_weight, readers_of
from keras_shared.tying.effective_weight import weight_shape


def tied_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """What the readers inside `model` read: path of the owner -> its weight, each once."""
    owners = [reader.source() for reader in readers_of(model)]
    return {
        owner.path: keras.ops.convert_to_numpy(effective_weight(owner, "float32"))
        for owner in owners
        if weight_shape(owner) is not None  # the weights of a whole tower are never transposed
    }


def layouts(weight: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """`weight` with its axes in every order."""
    for axes in itertools.permutations(range(weight.ndim)):
        yield axes, np.ascontiguousarray(np.transpose(weight, axes))
