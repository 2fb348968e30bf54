"""From a recipe's [data] section to the batches that train, validate and test a model."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_shared.datasets.digits import load_digits
from keras_shared.batching.distort import distort_images
from keras_shared.datasets.fashion_mnist import load_fashion_mnist
from keras_shared.datasets.labelled_images import DataError, LabelledImages
from keras_shared.datasets.mnist import load_mnist
from keras_shared.datasets.omniglot import load_omniglot
from keras_shared.batching.pairs import EVALUATION_BATCH, Pairs
from keras_shared.batching.shrink import shrink_images
from keras_shared.batching.steady import steady
from keras_shared.recipe import PairData, Recipe, SampleData

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

    Example:
        >>> from keras_shared.data import training_data
        >>> from keras_shared.demo import RECIPE
        >>> from keras_shared.recipe import read_recipe
        >>> training_data(read_recipe(RECIPE)).sizes
        {'groups': 5, 'pairs_per_epoch': 3200, 'validation_pairs': 1000}
    """
    split = labelled_images(recipe, "train", data_dir)
    if isinstance(recipe.data, PairData):
        return _pairs(split, recipe, recipe.data)
    if isinstance(recipe.data, SampleData):
        count = recipe.data.training_images
        training = _sample(split, count, recipe, recipe.data)
        validation = _sample(split, recipe.data.validation_images, recipe, recipe.data, after=count)
        return _images(training, validation, recipe)
    order = np.random.default_rng(recipe.data.seed).permutation(len(split.images))
    held_out = recipe.data.validation_images
    if held_out >= len(order):
        raise DataError(
            f"data.validation_images = {held_out} leaves nothing to train on: the training "
            f"split of '{recipe.data.name}' has {len(order)} images."
        )
    validation, training = _part(split, order[:held_out]), _part(split, order[held_out:])
    if recipe.data.images_per_class:
        training = _some_of_each_class(training, recipe, recipe.data.images_per_class)
    return _images(training, validation, recipe, recipe.data.distortion)


def _pairs(split: LabelledImages, recipe: Recipe, data: PairData) -> TrainingData:
    batch_size, seed = recipe.training.batch_size, recipe.training.seeds[0]
    held_out = (*data.validation_groups, *data.test_groups)
    unknown = sorted(set(held_out).difference(split.group_names))
    if unknown:  # a misspelt group would be trained on
        raise DataError(
            f"{recipe.path}: '{data.name}' has no group {unknown}. "
            f"It has: {sorted(split.group_names)}"
        )
    present = {split.group_names[g] for g in split.groups}
    trained = tuple(sorted(present.difference(held_out)))
    pairs = Pairs(split, trained, data.negatives)
    validation = Pairs(split, data.validation_groups, data.negatives)
    steps = math.ceil(data.pairs_per_epoch / batch_size)
    return TrainingData(
        lambda first, last: pairs.batches(first * steps, last * steps, batch_size, seed),
        steps,
        validation.fixed(data.validation_pairs, data.seed),
        {
            "groups": len(trained),
            "pairs_per_epoch": steps * batch_size,
            "validation_pairs": data.validation_pairs,
        },
    )


def _images(
    training: LabelledImages,
    validation: LabelledImages,
    recipe: Recipe,
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
) -> TrainingData:
    epoch = recipe.data.images_per_epoch or len(training.images)  # type: ignore[union-attr]
    return TrainingData(
        lambda first, last: _shuffled(training, recipe, distortion, epoch, first, last),
        math.ceil(epoch / recipe.training.batch_size),
        _in_order(validation, recipe),
        {"images": len(training.images), "validation_images": len(validation.images)},
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
        recipe: its section [data] and the kind of model; of a small sample also the run's seed.
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
    if isinstance(recipe.data, SampleData):
        split = _sample(split, recipe.data.test_images, recipe, recipe.data)
    return _in_order(split, recipe)


def _targets(recipe: Recipe, x: Any, y: Any) -> Any:
    """Images and labels for a classifier; for an autoencoder vectors in [0, 1], twice."""
    if recipe.model.class_name != "TiedAutoencoder":
        return x, y
    vectors = tf.reshape(tf.cast(x, tf.float32) / 255, (tf.shape(x)[0], math.prod(x.shape[1:])))
    return vectors, vectors


def _some_of_each_class(split: LabelledImages, recipe: Recipe, wanted: int) -> LabelledImages:
    """So many of each class, drawn by the run's seed."""
    order = np.random.default_rng(recipe.training.seeds[0]).permutation(len(split.images))
    labels = split.labels[order]
    counts = np.bincount(labels, minlength=len(split.class_names))
    if counts.min() < wanted:
        raise DataError(
            f"{recipe.path}: data.images_per_class = {wanted}, and '{recipe.data.name}' has "
            f"{counts.min()} images of class '{split.class_names[counts.argmin()]}' to train on."
        )
    classes = range(len(counts))
    return _part(split, np.concatenate([order[labels == c][:wanted] for c in classes]))


def _part(split: LabelledImages, indices: np.ndarray) -> LabelledImages:
    return split._replace(images=split.images[indices], labels=split.labels[indices])


def _sample(
    split: LabelledImages, count: int, recipe: Recipe, data: SampleData, after: int = 0
) -> LabelledImages:
    """So many images in the order of the run's seed, without the first `after`; shrunk."""
    order = np.random.default_rng(recipe.training.seeds[0]).permutation(len(split.images))
    chosen = order[after : after + count]
    if len(chosen) < count:
        raise DataError(
            f"{recipe.path}: '{recipe.data.name}' has {len(order)} images in this split, and the "
            f"recipe wants {after + count}. Lower the numbers in [data]."
        )
    part = _part(split, chosen)
    return part._replace(images=shrink_images(part.images, data.margin, data.side))


def _shuffled(
    split: LabelledImages,
    recipe: Recipe,
    distortion: tuple[float, float, float, float],
    size: int,
    first: int,
    last: int,
) -> tf.data.Dataset:
    """Epochs `first` to `last` - 1; the number decides order and distortions of each.

    An epoch has `size` images: all of the split once, or again and again in new orders.
    """
    x, y, seed = tf.constant(split.images), _labels(split), recipe.training.seeds[0]
    rounds = math.ceil(size / len(split.images))

    def epoch(number: Any) -> tf.data.Dataset:
        shape, key = [rounds, len(split.images)], tf.stack([seed, number])
        orders = tf.argsort(tf.random.stateless_uniform(shape, key), axis=1)
        order = tf.data.Dataset.from_tensor_slices(tf.reshape(orders, [-1])[:size])
        batches = order.batch(recipe.training.batch_size).enumerate()
        return batches.map(lambda i, chosen: (chosen, tf.stack([seed, number * 2**32 + i])))

    def gather(chosen: Any, key: Any) -> Any:
        images = tf.gather(x, chosen)
        if any(distortion):
            images = distort_images(images, distortion, key)
        return _targets(recipe, images, tf.gather(y, chosen))

    numbers = tf.data.Dataset.range(first, last)
    return steady(numbers.flat_map(epoch).map(gather, num_parallel_calls=2).prefetch(4))


def _in_order(split: LabelledImages, recipe: Recipe) -> tf.data.Dataset:
    columns = (split.images, _labels(split))
    batches = tf.data.Dataset.from_tensor_slices(columns).batch(EVALUATION_BATCH)
    return steady(batches.map(lambda x, y: _targets(recipe, x, y)))


def _labels(split: LabelledImages) -> np.ndarray:
    return split.labels.astype("int32")
