from collections.abc import Iterator
from contextlib import contextmanager

import keras

from keras_shared.tying.keras_private import flatten_layers


@contextmanager
def state_kept(model: keras.Model) -> Iterator[None]:
    """Put back what calls of `model` move: the states of stateful RNNs, seeds, statistics."""
    states = [getattr(layer, "states", None) for layer in flatten_layers(model)]  # listed nowhere
    moving = [v for v in keras.tree.flatten(states) if isinstance(v, keras.Variable)]
    before = [(v, keras.ops.copy(v)) for v in [*model.non_trainable_variables, *moving]]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
