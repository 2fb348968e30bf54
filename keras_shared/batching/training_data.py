from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

DIGEST = "digest"  # in sizes: stands for the examples of your own data


def counts_in(sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of a training that are numbers of examples."""
    return {key: size for key, size in sizes.items() if key != DIGEST}


def same_data(sizes: Mapping[str, int], others: Mapping[str, int]) -> bool:
    """Whether two trainings had the same data, as far as is known: earlier ones have no digest."""
    known = DIGEST in sizes and DIGEST in others
    return counts_in(sizes) == counts_in(others) and (not known or sizes[DIGEST] == others[DIGEST])


class TrainingData(NamedTuple):
    """What training reads.

    Attributes:
        batches: gives the batches from one epoch (included) to another (not included), so that a
            resumed training sees what an unbroken one would have seen.
        steps_per_epoch: number of batches in an epoch.
        validation: batches that are never trained on, or None where all are.
        sizes: number of examples in each part, for the card; of your own data a `digest` too.
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
