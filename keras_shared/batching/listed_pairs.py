"""Batches of pairs that a list names, in place of drawn ones."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from keras_shared.batching.autotuning import without_autotuning
from keras_shared.batching.fetching import fetcher
from keras_shared.batching.images import EVALUATION_BATCH
from keras_shared.batching.training_data import TrainingData
from keras_shared.datasets.image_pairs import ImagePairs


def listed_training_data(split: ImagePairs, batch_size: int, seed: int) -> TrainingData:
    """All training pairs once in each epoch, in an order of its own, and the validation pairs."""
    assert split.held_out is not None
    rest = np.setdiff1d(np.arange(len(split.same)), split.held_out)
    training, validation = split.part(rest), split.part(split.held_out)
    pairs = len(training.same)

    def epoch(number: Any) -> tf.data.Dataset:
        key = tf.stack([tf.cast(seed, tf.int64), number])
        order = tf.random.experimental.stateless_shuffle(tf.range(pairs), key)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    return TrainingData(
        lambda first, last: without_autotuning(
            _images_of(tf.data.Dataset.range(first, last).flat_map(epoch), training).prefetch(4)
        ),
        math.ceil(pairs / batch_size),
        listed_batches(validation),
        {
            "images": len(np.union1d(split.left, split.right)),
            "pairs_per_epoch": pairs,
            "validation_pairs": len(validation.same),
        },
    )


def listed_batches(split: ImagePairs) -> tf.data.Dataset:
    """All pairs in their order, as `Pairs` gives them."""
    order = tf.data.Dataset.range(len(split.same)).batch(EVALUATION_BATCH)
    return without_autotuning(_images_of(order, split))


def _images_of(order: tf.data.Dataset, split: ImagePairs) -> tf.data.Dataset:
    fetch = fetcher(split.images)
    left, right = (tf.constant(side, tf.int32) for side in (split.left, split.right))
    same = tf.constant(split.same, tf.float32)

    def of(pairs: Any) -> Any:
        images = {
            "image_a": fetch(tf.gather(left, pairs)),
            "image_b": fetch(tf.gather(right, pairs)),
        }
        chosen = tf.gather(same, pairs)
        return images, {"distance": chosen, "probability": chosen}

    return order.map(of, num_parallel_calls=2)
