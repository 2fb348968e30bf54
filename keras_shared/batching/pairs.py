from typing import Any

import numpy as np
import tensorflow as tf

from keras_shared.datasets.labelled_images import DataError, LabelledImages
from keras_shared.batching.steady import steady

EVALUATION_BATCH = 500


class Pairs:
    """Balanced pairs of images, drawn by number: the same seed and number give the same pairs.

    Half of each batch shows one class twice, in two different images; the other half shows two
    classes. Classes are drawn uniformly, then images of the class.

    Args:
        data: a split.
        groups: names of the groups whose classes are used.
        negatives: `"any"` draws the second class from all others, `"same_group"` from the
            others of the first one's group.

    Raises:
        DataError: if a group is unknown, or too small to draw from.
    """

    def __init__(self, data: LabelledImages, groups: tuple[str, ...], negatives: str) -> None:
        unknown = [g for g in groups if g not in data.group_names]
        if unknown:
            raise DataError(
                f"The data set has no group {unknown}. It has: {sorted(data.group_names)}"
            )
        wanted = [data.group_names.index(g) for g in groups]
        order = np.argsort(data.labels, kind="stable")
        counts = np.bincount(data.labels, minlength=len(data.groups))
        first = np.cumsum(counts) - counts  # where each class starts in `order`
        used = np.isin(data.groups, wanted) & (counts > 0)
        classes = np.array(sorted(np.flatnonzero(used), key=lambda c: (data.groups[c], c)), int)
        group_of = data.groups[classes] if negatives == "same_group" else np.zeros(len(classes))
        _, start, size = np.unique(group_of, return_index=True, return_counts=True)
        which = np.searchsorted(np.unique(group_of), group_of)
        if not len(classes) or size.min() < 2 or counts[classes].min() < 2:
            raise DataError(
                f"Pairs need two classes to differ, and two images of each. Received: {groups} "
                f"with {len(classes)} classes, negatives='{negatives}'"
            )
        self._images = tf.constant(data.images)
        self._order = tf.constant(order, tf.int32)
        self._first = tf.constant(first[classes], tf.int32)
        self._count = tf.constant(counts[classes], tf.int32)
        self._start = tf.constant(start[which], tf.int32)  # first class of the same group
        self._size = tf.constant(size[which], tf.int32)  # classes in the same group

    def batches(self, first: int, last: int, batch_size: int, seed: int) -> tf.data.Dataset:
        """The batches numbered `first` to `last` - 1.

        Each is `({"image_a": ..., "image_b": ...}, {"distance": same, "probability": same})`:
        uint8 (batch, height, width, channels) twice, and float32 (batch,) for each output.
        """
        numbers = tf.data.Dataset.range(first, last)
        batches = numbers.map(
            lambda number: self._images_of(*self.draw(batch_size, seed, number)),
            num_parallel_calls=2,
        )
        return steady(batches.prefetch(4))

    def fixed(self, pairs: int, seed: int) -> tf.data.Dataset:
        """That many pairs, always the same, in batches as above."""
        drawn = tf.data.Dataset.from_tensor_slices(self.draw(pairs, seed, -1))
        return steady(drawn.batch(EVALUATION_BATCH).map(self._images_of))

    def draw(self, batch_size: int, seed: Any, number: Any) -> tuple[Any, Any, Any]:
        """Indices of the left and right images, and whether they are the same class."""
        base = tf.stack([tf.cast(seed, tf.int64), tf.cast(number, tf.int64)])
        same = tf.range(batch_size) < (batch_size + 1) // 2

        def uniform(stream: int, limit: Any) -> Any:  # int32 (batch,) in [0, limit)
            key = tf.random.experimental.stateless_fold_in(base, stream)
            return tf.random.stateless_uniform([batch_size], key, 0, limit, tf.int32)

        left = uniform(0, tf.size(self._count))
        size, start = tf.gather(self._size, left), tf.gather(self._start, left)
        other = start + (left - start + 1 + _below(uniform, 1, size - 1)) % size
        right = tf.where(same, left, other)
        count = tf.gather(self._count, left)
        i = _below(uniform, 2, count)
        j = tf.where(
            same,
            (i + 1 + _below(uniform, 3, count - 1)) % count,
            _below(uniform, 4, tf.gather(self._count, right)),
        )
        index_a = tf.gather(self._order, tf.gather(self._first, left) + i)
        index_b = tf.gather(self._order, tf.gather(self._first, right) + j)
        return index_a, index_b, same

    def _images_of(self, index_a: Any, index_b: Any, same: Any) -> Any:
        images = {
            "image_a": tf.gather(self._images, index_a),
            "image_b": tf.gather(self._images, index_b),
        }
        same = tf.cast(same, tf.float32)
        return images, {"distance": same, "probability": same}


def _below(uniform: Any, stream: int, limits: Any) -> Any:
    """Whole numbers in [0, limit), with a limit for each: the generator takes one for all."""
    fraction = tf.cast(uniform(stream, 2**30), tf.float64) / 2**30
    return tf.cast(tf.floor(fraction * tf.cast(limits, tf.float64)), tf.int32)
