from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class TrainingData(NamedTuple):
    """What training reads.

    Attributes:
        batches: gives the batches from one epoch (included) to another (not included), so that a
            resumed training sees what an unbroken one would have seen.
        steps_per_epoch: number of batches in an epoch.
        validation: batches that are never trained on.
        sizes: number of examples in each part, for the card.
        class_names: names of the classes of the labels, or None.
    """

    batches: Callable[[int, int], tf.data.Dataset]
    steps_per_epoch: int
    validation: tf.data.Dataset
    sizes: dict[str, int]
    class_names: tuple[str, ...] | None = None
