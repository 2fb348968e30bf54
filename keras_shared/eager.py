"""Functions of TensorFlow run call by call, so that the layers in them can be watched."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras


@contextmanager
def functions_run_eagerly() -> Iterator[None]:
    """Run `tf.function`s call by call: one that was traced before calls no layer."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def is_compiled(tensor: Any) -> bool:
    """Whether a tensor has no value, since TensorFlow compiles what makes it."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.is_symbolic_tensor(tensor))
