"""One-shot tasks: of each class one image is known, and each query is put into one class."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_shared.batching.autotuning import without_autotuning
from keras_shared.batching.fetching import fetcher, prepared
from keras_shared.datasets import DataError, LabelledImages
from keras_shared.datasets.lazy_images import LazyImages


class OneShotTasks(NamedTuple):
    """Tasks that are always the same.

    Attributes:
        images: of a split.
        tasks: int (2, ways) each, numbers of images: those that are known, and one query of each of
            the same classes, in the same order.
    """

    images: np.ndarray | LazyImages
    tasks: list[np.ndarray]

    @classmethod
    def drawn(
        cls,
        data: LabelledImages,
        groups: tuple[str, ...] | None,
        ways: int,
        number: int,
        seed: int,
    ) -> "OneShotTasks":
        """Tasks with as many classes, or all that a group has, drawn by a seed.

        Where drawers are known, one gives all that is known, another the queries.

        Args:
            data: a split.
            groups: names of the groups; each task is within one, and they take turns. Where each
                class is a group of its own, tasks are of all their classes. None for classes of
                all groups alike.
            ways: classes in a task.
            number: how many tasks.
            seed: the same seed gives the same tasks.

        Raises:
            DataError: if there are no two classes of two images.
        """
        random = np.random.default_rng(seed)
        counts = np.bincount(data.labels, minlength=len(data.groups))
        order = np.argsort(data.labels, kind="stable")
        first = np.cumsum(counts) - counts
        wanted = [None] if groups is None else [data.group_names.index(name) for name in groups]
        of_group = [
            np.flatnonzero((counts > 1) & ((data.groups == g) if g is not None else True))
            for g in wanted
        ]
        if max(map(len, of_group)) < 2:
            of_group = [np.concatenate(of_group)]
        enough = [classes for classes in of_group if len(classes) > 1]
        if not enough:
            raise DataError(
                "A one-shot task needs two classes of two images each. Received: "
                f"{None if groups is None else list(groups)[:8]}"
            )
        tasks = []
        for i in range(number):
            classes = random.permutation(enough[i % len(enough)])[:ways]
            images = [order[first[c] : first[c] + counts[c]] for c in classes]
            tasks.append(_two_of_each(images, data.drawers, random))
        return cls(data.images, tasks)

    def batches(self) -> tf.data.Dataset:
        """A batch for each task: the images that are known, then the queries; and their classes."""
        fetch = fetcher(self.images)
        lengths = [task.size for task in self.tasks]
        flat = tf.constant(np.concatenate([task.ravel() for task in self.tasks]), tf.int32)
        rows = tf.RaggedTensor.from_row_lengths(flat, lengths)

        def batch(chosen: Any) -> tuple[Any, Any]:
            ways = tf.size(chosen) // 2
            return fetch(chosen), tf.tile(tf.range(ways), [2])

        return without_autotuning(tf.data.Dataset.from_tensor_slices(rows).map(batch))

    def through(self, prepare: Callable[[Any], np.ndarray]) -> "OneShotTasks":
        """The same tasks of images that are prepared once; those of no task are left out."""
        used, inverse = np.unique(
            np.concatenate([t.ravel() for t in self.tasks]), return_inverse=True
        )
        ends = np.cumsum([task.size for task in self.tasks])[:-1]
        tasks = [part.reshape(2, -1) for part in np.split(inverse, ends)]
        return OneShotTasks(prepared(self.images[used], prepare), tasks)


def _two_of_each(
    images: list[np.ndarray], drawers: np.ndarray | None, random: np.random.Generator
) -> np.ndarray:
    """Two images of each class: of two drawers who drew all classes, if there are such."""
    if drawers is not None:
        known = set.intersection(*(set(drawers[own].tolist()) for own in images))
        if len(known) > 1:
            pair = random.permutation(sorted(known))[:2]
            return np.array([[own[drawers[own] == d][0] for own in images] for d in pair])
    return np.array([random.permutation(own)[:2] for own in images]).T
