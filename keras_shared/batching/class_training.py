"""Training data of a loss that compares a whole batch."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_shared.batching.classes import Classes
from keras_shared.batching.one_shot import OneShotTasks
from keras_shared.batching.training_data import TrainingData


def class_training_data(
    classes: Classes,
    tasks: OneShotTasks,
    pairs: tf.data.Dataset,
    images_per_epoch: int,
    batch_size: int,
    seed: int,
) -> TrainingData:
    """Batches of classes, one-shot tasks to validate, and pairs to calibrate by.

    Args:
        classes: what trains.
        tasks: what validates.
        pairs: of images that validate.
        images_per_epoch: 0 for as many as there are.
        batch_size: images in a batch.
        seed: of the run.
    """
    steps = math.ceil((images_per_epoch or classes.count) / batch_size)

    def through(prepare: Callable[[Any], np.ndarray]) -> TrainingData:
        inside = classes.through(prepare), tasks.through(prepare)
        return class_training_data(*inside, pairs, images_per_epoch, batch_size, seed)

    return TrainingData(
        lambda first, last: classes.batches(first * steps, last * steps, batch_size, seed),
        steps,
        tasks.batches(),
        {
            "groups": classes.groups,
            "images": classes.count,
            "images_per_epoch": steps * batch_size,
            "validation_tasks": len(tasks.tasks),
        },
        pairs=pairs,
        through=through,
    )
