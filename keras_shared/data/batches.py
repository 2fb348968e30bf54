"""From a recipe's [data] section to the batches that train, validate and test a model."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_shared.data.digits import load_digits
from keras_shared.data.distort import distort_images
from keras_shared.data.fashion_mnist import load_fashion_mnist
from keras_shared.data.labelled_images import DataError, LabelledImages
from keras_shared.data.mnist import load_mnist
from keras_shared.data.omniglot import load_omniglot
from keras_shared.data.pairs import EVALUATION_BATCH, Pairs
from keras_shared.recipe import PairData, Recipe

_LOADERS: dict[str, Callable[[str, str | None], LabelledImages]] = {
    "digits": load_digits,
    "fashion_mnist": load_fashion_mnist,
    "mnist": load_mnist,
    "omniglot": load_omniglot,
}


class TrainingData(NamedTuple):
    """What training reads.

    Attributes:
        batches: gives the batches from one epoch (included) to another (not included), so that a
            resumed training sees what an unbroken one would have seen.
        steps_per_epoch: number of batches in an epoch.
        validation: batches that are never trained on.
        sizes: number of examples in each part, for the card.
    """

    batches: Callable[[int, int], tf.data.Dataset]
    steps_per_epoch: int
    validation: tf.data.Dataset
    sizes: dict[str, int]


def training_data(recipe: Recipe, data_dir: str | None = None) -> TrainingData:
    """The training and validation batches of a recipe. The test split is not opened.

    Args:
        recipe: its sections [data] and [training], and the kind of model.
        data_dir: folder of prepared TFDS data sets.

    Raises:
        DataError: if the data set cannot be had, or is too small for the recipe.
    """
    split = labelled_images(recipe, "train", data_dir)
    batch_size, seed = recipe.training.batch_size, recipe.training.seeds[0]
    if isinstance(recipe.data, PairData):
        held_out = (*recipe.data.validation_groups, *recipe.data.test_groups)
        unknown = sorted(set(held_out).difference(split.group_names))
        if unknown:  # a misspelt group would be trained on
            raise DataError(
                f"{recipe.path}: '{recipe.data.name}' has no group {unknown}. "
                f"It has: {sorted(split.group_names)}"
            )
        present = {split.group_names[g] for g in split.groups}
        trained = tuple(sorted(present.difference(held_out)))
        pairs = Pairs(split, trained, recipe.data.negatives)
        steps = math.ceil(recipe.data.pairs_per_epoch / batch_size)
        return TrainingData(
            lambda first, last: pairs.batches(first * steps, last * steps, batch_size, seed),
            steps,
            Pairs(split, recipe.data.validation_groups, recipe.data.negatives).fixed(
                recipe.data.validation_pairs, recipe.data.seed
            ),
            {
                "groups": len(trained),
                "pairs_per_epoch": steps * batch_size,
                "validation_pairs": recipe.data.validation_pairs,
            },
        )

    order = np.random.default_rng(recipe.data.seed).permutation(len(split.images))
    held_out_images = recipe.data.validation_images
    if held_out_images >= len(order):
        raise DataError(
            f"data.validation_images = {held_out_images} leaves nothing to train on: the training "
            f"split of '{recipe.data.name}' has {len(order)} images."
        )
    validation, trained_on = order[:held_out_images], order[held_out_images:]
    return TrainingData(
        lambda first, last: _shuffled(split, trained_on, recipe, first, last),
        math.ceil(len(trained_on) / batch_size),
        _in_order(split, validation, recipe),
        {"images": len(trained_on), "validation_images": len(validation)},
    )


def labelled_images(recipe: Recipe, split: str, data_dir: str | None = None) -> LabelledImages:
    """A whole split of a recipe's data set, for evaluation.

    Args:
        recipe: its section [data].
        split: `"train"` or `"test"`.
        data_dir: folder of prepared TFDS data sets.

    Returns:
        uint8 images (images, height, width, channels) with their labels.

    Raises:
        DataError: if the data set cannot be had.
    """
    return _LOADERS[recipe.data.name](split, data_dir)


def test_batches(recipe: Recipe, split: LabelledImages) -> tf.data.Dataset:
    """The test batches of a recipe, in a fixed order; for evaluation alone.

    Args:
        recipe: its section [data] and the kind of model.
        split: the test split, from `labelled_images`.

    Returns:
        Batches of inputs and targets: images and labels, vectors twice, or pairs and whether they
        are the same.

    Raises:
        DataError: if the split has too few classes or images for pairs.
    """
    if isinstance(recipe.data, PairData):
        pairs = Pairs(split, recipe.data.test_groups, recipe.data.negatives)
        return pairs.fixed(recipe.data.test_pairs, recipe.data.seed)
    return _in_order(split, slice(None), recipe)


def _targets(recipe: Recipe, x: Any, y: Any) -> Any:
    """Images and labels for a classifier; for an autoencoder vectors in [0, 1], twice."""
    if recipe.model.class_name == "LeNet5":
        return x, y
    vectors = tf.reshape(tf.cast(x, tf.float32) / 255, (tf.shape(x)[0], math.prod(x.shape[1:])))
    return vectors, vectors


def _shuffled(
    split: LabelledImages, indices: np.ndarray, recipe: Recipe, first: int, last: int
) -> tf.data.Dataset:
    """Epochs `first` to `last` - 1; the number decides order and distortions of each."""
    x, y, indices = tf.constant(split.images), _labels(split), tf.constant(indices)
    seed, distortion = recipe.training.seeds[0], recipe.data.distortion  # type: ignore[union-attr]

    def epoch(number: Any) -> tf.data.Dataset:
        keys = tf.random.stateless_uniform([len(indices)], tf.stack([seed, number]))
        order = tf.data.Dataset.from_tensor_slices(tf.gather(indices, tf.argsort(keys)))
        batches = order.batch(recipe.training.batch_size).enumerate()
        return batches.map(lambda i, chosen: (chosen, tf.stack([seed, number * 2**32 + i])))

    def gather(chosen: Any, key: Any) -> Any:
        images = tf.gather(x, chosen)
        if any(distortion):
            images = distort_images(images, distortion, key)
        return _targets(recipe, images, tf.gather(y, chosen))

    numbers = tf.data.Dataset.range(first, last)
    batches = numbers.flat_map(epoch).map(gather, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE)


def _in_order(split: LabelledImages, indices: Any, recipe: Recipe) -> tf.data.Dataset:
    columns = (split.images[indices], _labels(split)[indices])
    batches = tf.data.Dataset.from_tensor_slices(columns).batch(EVALUATION_BATCH)
    return batches.map(lambda x, y: _targets(recipe, x, y))


def _labels(split: LabelledImages) -> np.ndarray:
    return split.labels.astype("int32")
