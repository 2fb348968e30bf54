"""A SavedModel in a Session of its own, as TF Serving loads and runs it."""

import logging
import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def loaded(folder: str | os.PathLike[str]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Load a SavedModel, of any program and TensorFlow.

    Args:
        folder: what holds `saved_model.pb`.

    Yields:
        The session, and its signatures: name -> SignatureDef.

    Raises:
        Exception: whatever TensorFlow raises for a graph that it cannot load.
    """
    import tensorflow as tf

    session = tf.compat.v1.Session(graph=tf.Graph())
    logger = tf.get_logger()
    kept = logger.level
    try:
        logger.setLevel(logging.ERROR)  # TF Serving's way to load is called deprecated here
        with session.graph.as_default():
            graph = tf.compat.v1.saved_model.load(session, ["serve"], os.fspath(folder))
        logger.setLevel(kept)
        yield session, dict(graph.signature_def)
    finally:
        logger.setLevel(kept)
        session.close()


def run(
    session: Any,
    signature: Any,
    inputs: Mapping[str, Any],
    outputs: Collection[str] = (),
    seconds: float | None = None,
) -> dict[str, np.ndarray]:
    """The outputs of a signature by name, but for ragged and sparse ones.

    Args:
        session: as `loaded` yields it.
        signature: one of its SignatureDefs.
        inputs: name -> array; those with a default may be left out.
        outputs: names of those that are wanted; by default all.
        seconds: that it may take.

    Returns:
        Name -> array.

    Raises:
        tensorflow.errors.OpError: if the graph fails.
        ValueError, TypeError: for arrays that it does not take.
    """
    import tensorflow as tf

    defaults = {key: tf.make_ndarray(value) for key, value in signature.defaults.items()}
    fetched = {
        key: info.name
        for key, info in signature.outputs.items()
        if info.name and (not outputs or key in outputs)
    }
    fed = {signature.inputs[key].name: value for key, value in {**defaults, **inputs}.items()}
    options = None
    if seconds is not None:
        options = tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(1000 * seconds)))
    found = session.run(fetched, fed, options=options)
    # a single text stays whole: NumPy's own kind of texts loses zeros at their end
    return {k: np.asarray(v, object if isinstance(v, bytes) else None) for k, v in found.items()}


def array_of(name: str, value: Any, most: int) -> np.ndarray:
    """The array of a TensorProto, whose few bytes may stand for a large one.

    Args:
        name: what it is, for a message.
        value: the TensorProto.
        most: bytes that it may take; a string counts as 16 of them, and its length.

    Raises:
        ValueError: if it would take more, has a size below 0, or more values than its shape.
        Exception: whatever TensorFlow raises for one that is damaged.
    """
    import tensorflow as tf

    sizes, dtype = [dim.size for dim in value.tensor_shape.dim], tf.as_dtype(value.dtype)
    taken = math.prod(sizes) * (16 if dtype == tf.string else dtype.size)
    if min(sizes, default=0) < 0:
        raise ValueError(f"{name} of shape {sizes} has a size below 0")
    if taken > most:
        raise ValueError(f"{name} of shape {sizes} has {taken:,} bytes, and {most:,} are allowed")
    content, places = len(value.tensor_content), math.prod(sizes)
    if content and dtype != tf.string and content != taken:
        raise ValueError(f"{name} of shape {sizes} has {content:,} bytes, and takes {taken:,}")
    fields = [len(field) for kind, field in value.ListFields() if kind.name.endswith("_val")]
    held = sum(fields) // (2 if dtype.is_complex else 1)
    if held > places:  # where there are fewer, the last one stands for the others
        raise ValueError(f"{name} of shape {sizes} has {held:,} values, and takes {places:,}")
    return np.asarray(tf.make_ndarray(value))
