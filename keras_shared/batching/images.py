"""Batches of labelled images: the section [data] that describes them, and how they are drawn."""

import math
from collections.abc import Callable
from typing import Any, Self, TypeAlias

import numpy as np
import tensorflow as tf
from pydantic import model_validator

from keras_shared.batching.autotuning import without_autotuning
from keras_shared.batching.distort import distort_images
from keras_shared.batching.fetching import fetcher
from keras_shared.batching.shrink import shrink_images
from keras_shared.batching.training_data import TrainingData
from keras_shared.datasets import DataError, LabelledImages, SeveralLabels
from keras_shared.datasets.lazy_images import LazyImages
from keras_shared.section import NoneOrMore, NotNegative, Pixels, Section, Seed

EVALUATION_BATCH = 500

Targets = Callable[[Any, Any], tuple[Any, Any]]
Images: TypeAlias = LabelledImages | SeveralLabels


class ImageData(Section):
    """Images with labels; those of the data set's own test split test.

    With `training_images`, a run trains on a small sample: training, validation and test images
    are then drawn anew for each run's seed.

    Attributes:
        name: name of the data set.
        validation_images: drawn from the training split with `seed`, never trained on; None for a
            tenth of it. 0 trains on all, with what other runs have chosen: nothing validates then.
        images_per_class: to train on, drawn by the run's seed; 0 for all.
        images_per_epoch: a small set comes round several times; 0 for each image once.
        distortion: of the training images, each drawn uniformly up to plus or minus this:
            rotation in degrees, shear, share of the size, shift in pixels; zeros for none.
        seed: decides which images validate.
        training_images: size of a small sample to train on; 0 for all but those that validate.
        test_images: to test on, drawn by the run's seed; 0 for all.
        margin: pixels cut off on each side.
        side: pixels of a side, to which images are shrunk afterwards; 0 leaves them as they are.
        path: of your own data: the folder of "folder", the .npz file of "arrays", the name of
            "tfds".
    """

    name: str
    path: str = ""
    validation_images: NoneOrMore | None = None
    images_per_class: NoneOrMore = 0
    images_per_epoch: NoneOrMore = 0
    distortion: tuple[NotNegative, NotNegative, NotNegative, NotNegative] = (0.0, 0.0, 0.0, 0.0)
    seed: Seed = 1
    training_images: NoneOrMore = 0
    test_images: NoneOrMore = 0
    margin: Pixels = 0
    side: Pixels = 0

    @model_validator(mode="after")
    def _one_sample(self) -> Self:
        if self.training_images and self.images_per_class:
            raise ValueError("`training_images` and `images_per_class` cannot both be set")
        if self.margin and not self.side:
            raise ValueError("`margin` needs `side`, the pixels of a side afterwards")
        return self


def image_training_data(
    split: Images, data: ImageData, batch_size: int, seed: int, targets: Targets
) -> TrainingData:
    """Training and validation batches of a training split.

    Args:
        split: the training split of the data set.
        data: section [data] of the recipe.
        batch_size: images in a batch.
        seed: of the run.
        targets: from a batch of images and labels to inputs and targets of the model.

    Raises:
        DataError: if the split is too small for what the recipe wants.
    """
    seed_of_split = seed if data.training_images else data.seed
    order = np.random.default_rng(seed_of_split).permutation(len(split.images))
    held_out = data.validation_images
    if held_out is None:
        held_out = max(1, len(order) // 10)
    if split.held_out is not None and data.validation_images is not None:
        raise DataError(
            f"'{data.path}' says by itself which images validate. Received: "
            f"data.validation_images = {data.validation_images}. Leave it out."
        )
    if split.held_out is not None and not data.training_images:
        validation = _part(split, split.held_out, data)
        training = _part(split, np.setdiff1d(np.arange(len(order)), split.held_out), data)
    elif data.training_images:
        wanted = data.training_images + held_out
        _enough(order, wanted, data)
        training = _part(split, order[: data.training_images], data)
        validation = _part(split, order[data.training_images : wanted], data)
    else:
        if held_out >= len(order):
            raise DataError(
                f"data.validation_images = {held_out} leaves nothing to train on: the training "
                f"split of '{data.name}' has {len(order)} images."
            )
        validation = _part(split, order[:held_out], data)
        training = _part(split, order[held_out:], data)
    if data.images_per_class:
        training = _some_of_each_class(training, data, seed)
    epoch = data.images_per_epoch or len(training.images)
    return TrainingData(
        lambda first, last: _shuffled(
            training, data, batch_size, seed, targets, epoch, first, last
        ),
        math.ceil(epoch / batch_size),
        _in_order(validation, targets) if len(validation.images) else None,
        {"images": len(training.images), "validation_images": len(validation.images)},
    )


def image_test_batches(
    split: Images, data: ImageData, seed: int, targets: Targets
) -> tf.data.Dataset:
    """The test batches, in a fixed order.

    Args:
        split: the test split of the data set.
        data: section [data] of the recipe.
        seed: of the run, which draws the images where `data.test_images` wants some.
        targets: as of `image_training_data`.
    """
    order = np.arange(len(split.images))
    if data.test_images:
        _enough(order, data.test_images, data)
        order = np.random.default_rng(seed).permutation(len(order))[: data.test_images]
    return _in_order(_part(split, order, data), targets)


def _enough(order: np.ndarray, wanted: int, data: ImageData) -> None:
    if len(order) < wanted:
        raise DataError(
            f"'{data.name}' has {len(order)} images in this split, and the recipe wants {wanted}. "
            "Lower the numbers in [data]."
        )


def _part(split: Images, indices: np.ndarray, data: ImageData) -> Images:
    chosen = split.part(indices)
    images = chosen.images
    if data.side:
        whole = images.read() if isinstance(images, LazyImages) else images
        images = shrink_images(whole, data.margin, data.side)
    return chosen._replace(images=images)


def _some_of_each_class(split: Images, data: ImageData, seed: int) -> Images:
    """So many of each class, drawn by the run's seed."""
    assert isinstance(split, LabelledImages)  # the section of several labels refuses it
    order = np.random.default_rng(seed).permutation(len(split.images))
    labels, wanted = split.labels[order], data.images_per_class
    counts = np.bincount(labels, minlength=len(split.class_names))
    if counts.min() < wanted:
        raise DataError(
            f"data.images_per_class = {wanted}, and '{data.name}' has {counts.min()} images of "
            f"class '{split.class_names[counts.argmin()]}' to train on."
        )
    chosen = np.concatenate([order[labels == c][:wanted] for c in range(len(counts))])
    return split.part(chosen)


def _shuffled(
    split: Images,
    data: ImageData,
    batch_size: int,
    seed: int,
    targets: Targets,
    size: int,
    first: int,
    last: int,
) -> tf.data.Dataset:
    """Epochs `first` to `last` - 1; the number decides order and distortions of each.

    An epoch has `size` images: all of the split once, or again and again in new orders.
    """
    fetch, y = fetcher(split.images), _labels(split)
    rounds = math.ceil(size / len(split.images))

    def epoch(number: Any) -> tf.data.Dataset:
        shape, key = [rounds, len(split.images)], tf.stack([seed, number])
        orders = tf.argsort(tf.random.stateless_uniform(shape, key), axis=1)
        order = tf.data.Dataset.from_tensor_slices(tf.reshape(orders, [-1])[:size])
        batches = order.batch(batch_size).enumerate()
        return batches.map(lambda i, chosen: (chosen, tf.stack([seed, number * 2**32 + i])))

    def gather(chosen: Any, key: Any) -> Any:
        images = fetch(chosen)
        if any(data.distortion):
            images = distort_images(images, data.distortion, key)
        return targets(images, tf.gather(y, chosen))

    numbers = tf.data.Dataset.range(first, last)
    batches = numbers.flat_map(epoch).map(gather, num_parallel_calls=2)
    return without_autotuning(batches.prefetch(4))


def _in_order(split: Images, targets: Targets) -> tf.data.Dataset:
    fetch = fetcher(split.images)
    columns = (np.arange(len(split.images)), _labels(split))
    batches = tf.data.Dataset.from_tensor_slices(columns).batch(EVALUATION_BATCH)
    return without_autotuning(batches.map(lambda i, labels: targets(fetch(i), labels)))


def _labels(split: Images) -> np.ndarray:
    return split.labels.astype("int32")
