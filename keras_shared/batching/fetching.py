from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_shared.datasets.lazy_images import LazyImages


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
