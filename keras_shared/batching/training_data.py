from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class TrainingData(NamedTuple):
    """What training reads.

    Attributes:
        batches: gives the batches from one epoch (included) to another (not included), so that a
            resumed training sees what an unbroken one would have seen.
        steps_per_epoch: number of batches in an epoch.
        validation: batches that are never trained on, or None where all are.
        sizes: number of examples in each part, for the card.
        class_names: names of the classes of the labels, or None; of several tasks, of each.
        pairs: labelled pairs to calibrate by, where `validation` holds none.
        through: where a part of the model is trained, the same data for it: takes what makes the
            part's inputs of images. None where the whole model is trained.
        vocabulary: tokens of the training text that the model knows, or None.
    """

    batches: Callable[[int, int], tf.data.Dataset]
    steps_per_epoch: int
    validation: tf.data.Dataset | None
    sizes: dict[str, int]
    class_names: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None
    pairs: tf.data.Dataset | None = None
    through: "Callable[[Callable[[Any], np.ndarray]], TrainingData] | None" = None
    vocabulary: tuple[str, ...] | None = None
