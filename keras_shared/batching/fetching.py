from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_shared.datasets.lazy_images import LazyImages

CHUNK = 500  # images that are prepared at once


def fetcher(images: np.ndarray | LazyImages) -> Callable[[Any], Any]:
    """A function for tf.data from numbers of images to the images.

    An array becomes a constant of the graph; lazy images are read from their files as they are
    drawn.

    Example:
        >>> import numpy as np
        >>> from keras_shared.batching.fetching import fetcher
        >>> fetcher(np.arange(3)[:, None])([2, 0]).numpy().tolist()
        [[2], [0]]
    """
    if isinstance(images, LazyImages):
        shape = images.shape[1:]

        def read(chosen: Any) -> Any:
            batch = tf.numpy_function(images.read, [chosen], tf.uint8)
            return tf.ensure_shape(batch, (None, *shape))

        return read
    constant = tf.constant(images)
    return lambda chosen: tf.gather(constant, chosen)


def prepared(
    images: np.ndarray | LazyImages, prepare: Callable[[Any], np.ndarray], dtype: str = "float16"
) -> np.ndarray:
    """All images as `prepare` makes them, a few at a time; float16, since they stay in memory.

    Example:
        >>> import numpy as np
        >>> from keras_shared.batching.fetching import prepared
        >>> prepared(np.arange(6).reshape(3, 2), lambda images: images / 2).tolist()
        [[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]]
    """
    parts = []
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        whole = part.read() if isinstance(part, LazyImages) else part
        parts.append(np.asarray(prepare(whole), dtype))
    return np.concatenate(parts)
