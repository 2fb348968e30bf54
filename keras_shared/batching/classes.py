"""Batches of several classes with several images each, for losses that compare a whole batch."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_shared.batching.autotuning import without_autotuning
from keras_shared.batching.distort import distort_images
from keras_shared.batching.fetching import fetcher, prepared
from keras_shared.datasets import DataError, LabelledImages

STILL = (0.0, 0.0, 0.0, 0.0)


class Classes:
    """Batches of images of several classes, drawn by number: the same seed and number, the same.

    Classes are drawn without repetition, then different images of each. With `groups_per_batch`
    they come in equal parts from that many groups, which are drawn in proportion to the square root
    of their classes; a group that has fewer classes gives all it has, and the batch is smaller.

    Args:
        data: a split.
        groups: names of the groups whose classes are used.
        examples_per_class: images of each class in a batch.
        groups_per_batch: groups that the classes of a batch come from; 0 for all classes alike.
        rotated_classes: turns the images of a group (without groups: of a class) by 0, 90, 180 or
            270 degrees, drawn for each batch; a class that is turned counts as another.
        distortion: of each image, as of `keras_shared.batching.distort.distort_images`. A class of
            fewer images than `examples_per_class` gives some several times, each time distorted
            anew.

    Raises:
        DataError: if there are too few groups, classes or images.
    """

    def __init__(
        self,
        data: LabelledImages,
        groups: tuple[str, ...],
        examples_per_class: int,
        groups_per_batch: int = 0,
        rotated_classes: bool = False,
        distortion: tuple[float, float, float, float] = STILL,
    ) -> None:
        counts = np.bincount(data.labels, minlength=len(data.groups))
        wanted = [data.group_names.index(name) for name in groups]
        classes = np.flatnonzero(np.isin(data.groups, wanted) & (counts > 0))
        few = [data.class_names[c] for c in classes[counts[classes] < examples_per_class]]
        if few and not any(distortion):
            raise DataError(
                f"data.examples_per_class = {examples_per_class}, and these classes have fewer "
                f"images: {few[:8]}. Lower it, add images, take the classes out, or set "
                "data.distortion: an image is used several times then."
            )
        _, group_of = np.unique(data.groups[classes], return_inverse=True)
        sizes = np.bincount(group_of)
        if len(classes) < 2 or len(sizes) < groups_per_batch:
            raise DataError(
                f"A batch needs two classes, and data.groups_per_batch = {groups_per_batch} "
                f"groups. Received: {len(classes)} classes in {len(sizes)} groups: "
                f"{list(groups)[:8]}"
            )
        order = np.argsort(data.labels, kind="stable")
        self.images = data.images
        self.count = int(counts[classes].sum())
        self.groups = len(sizes)
        self._order = tf.constant(order, tf.int32)
        self._first = tf.constant((np.cumsum(counts) - counts)[classes], tf.int32)
        self._count = tf.constant(counts[classes], tf.int32)
        self._most = max(examples_per_class, int(counts[classes].max()))
        self._group_of = tf.constant(group_of, tf.int32)
        self._log_share = tf.constant(np.log(np.sqrt(sizes)), tf.float32)
        self._examples, self._from = examples_per_class, groups_per_batch
        self._rotated, self._distortion = rotated_classes, distortion

    def batches(self, first: int, last: int, batch_size: int, seed: int) -> tf.data.Dataset:
        """The batches numbered `first` to `last` - 1, of `batch_size` images at most.

        Each is `(images, classes)`: (batch, height, width, channels), float32 where they are turned
        or distorted; int32 (batch,).
        """

        fetch = fetcher(self.images)

        def batch(number: Any) -> tuple[Any, Any]:
            chosen, classes, turns, key = self.draw(batch_size, seed, number)
            images = fetch(chosen)
            if self._rotated or any(self._distortion):
                images = distort_images(images, self._distortion, key, turns)
            return images, classes

        numbers = tf.data.Dataset.range(first, last)
        return without_autotuning(numbers.map(batch, num_parallel_calls=2).prefetch(4))

    def through(self, prepare: Callable[[Any], np.ndarray]) -> "Classes":
        """The same batches of images that are prepared once, before they are distorted."""
        other = copy.copy(self)
        other.images = prepared(self.images, prepare)
        return other

    def draw(self, batch_size: int, seed: Any, number: Any) -> tuple[Any, Any, Any, Any]:
        """Numbers of the images, their classes and quarter turns, and a key for distortions."""
        base = tf.stack([tf.cast(seed, tf.int64), tf.cast(number, tf.int64)])

        def uniform(stream: int, shape: Any) -> Any:
            key = tf.random.experimental.stateless_fold_in(base, stream)
            return tf.random.stateless_uniform(shape, key)

        wanted = max(2, batch_size // self._examples)
        order = uniform(0, tf.shape(self._count))
        if self._from:
            weighted = self._log_share - tf.math.log(
                -tf.math.log(uniform(1, self._log_share.shape))
            )
            groups = tf.math.top_k(weighted, self._from).indices
            own = groups[:, None] == self._group_of  # (groups, classes)
            each = tf.minimum(max(1, wanted // self._from), tf.size(order))
            best = tf.math.top_k(tf.where(own, order, -1.0), each)
            classes = tf.boolean_mask(best.indices, best.values >= 0)
        else:
            classes = tf.math.top_k(order, tf.minimum(wanted, tf.size(order))).indices
        ranks = uniform(2, [tf.size(classes), self._most])
        count = tf.gather(self._count, classes)[:, None]
        again = tf.range(self._most) // count  # 0 for each image, 1 for each once more, ...
        ranks -= tf.cast(again, ranks.dtype)
        numbers = tf.math.top_k(ranks, self._examples).indices % count
        chosen = tf.gather(self._order, tf.gather(self._first, classes)[:, None] + numbers)
        turns = tf.cast(uniform(3, tf.shape(self._count)) * 4, tf.int32)
        of_group = self._group_of if self._from else tf.range(tf.size(order))
        turned = tf.gather(turns, tf.gather(of_group, classes)) * int(self._rotated)
        return (
            tf.reshape(chosen, [-1]),
            tf.repeat(classes, self._examples),
            tf.repeat(turned, self._examples),
            tf.random.experimental.stateless_fold_in(base, 4),
        )
