"""Pairs, triplets and classes of your own images, endlessly: for a training loop or loss."""

import numpy as np
import tensorflow as tf

from keras_shared.arguments import check_arguments
from keras_shared.batching.classes import STILL, Classes
from keras_shared.batching.pairs import Negatives, Pairs
from keras_shared.datasets import LabelledImages
from keras_shared.section import NotNegative


def pair_batches(
    data: LabelledImages, batch_size: int = 32, negatives: Negatives = "any", seed: int = 1
) -> tf.data.Dataset:
    """Batches of pairs without end; half of each show the same class, in two different images.

    Args:
        data: a split, as from `keras_shared.datasets.from_folder`; images that it holds out to
            validate are left out.
        batch_size: pairs in a batch.
        negatives: for pairs of two classes: the second drawn from all ("any"), or from the group
            of the first ("same_group").
        seed: the same seed gives the same batches.

    Returns:
        Of `({"image_a": ..., "image_b": ...}, same)`: uint8 (batch, height, width, channels) twice,
        float32 (batch,).

    Raises:
        DataError: if a class has one image, or there are not two classes.

    Example:
        >>> import numpy as np
        >>> from keras_shared.batching import pair_batches
        >>> from keras_shared.datasets import load_digits
        >>> from keras_shared.zoo import SiameseNet
        >>> pairs = pair_batches(load_digits("train"), batch_size=16)
        >>> model = SiameseNet(image_shape=(8, 8, 1))
        >>> model.compile()
        >>> history = model.fit(pairs, steps_per_epoch=2, shuffle=False, verbose=0)
        >>> images, same = next(iter(pairs))
        >>> images["image_a"].shape, float(np.mean(same))
        (TensorShape([16, 8, 8, 1]), 0.5)
    """
    _check_size(batch_size, 1)
    drawn = _pairs(data, negatives).batches(0, tf.int64.max, batch_size, seed)
    return drawn.map(lambda images, same: (images, same["probability"]))


def triplet_batches(
    data: LabelledImages, batch_size: int = 32, negatives: Negatives = "any", seed: int = 1
) -> tf.data.Dataset:
    """Batches of triplets without end: two images of one class, and one of another.

    Args:
        data: as of `pair_batches`.
        batch_size: triplets in a batch.
        negatives: as of `pair_batches`.
        seed: the same seed gives the same batches.

    Returns:
        Of `{"anchor": ..., "positive": ..., "negative": ...}`, each uint8 (batch, height, width,
        channels).

    Raises:
        DataError: if a class has one image, or there are not two classes.

    Example:
        >>> from keras_shared.batching import triplet_batches
        >>> from keras_shared.datasets import load_digits
        >>> batch = next(iter(triplet_batches(load_digits("train"), batch_size=16)))
        >>> sorted(batch), batch["anchor"].shape
        (['anchor', 'negative', 'positive'], TensorShape([16, 8, 8, 1]))
    """
    _check_size(batch_size, 1)
    return _pairs(data, negatives).triplets(batch_size, seed)


def class_batches(
    data: LabelledImages,
    batch_size: int = 64,
    examples_per_class: int = 2,
    distortion: tuple[NotNegative, NotNegative, NotNegative, NotNegative] = STILL,
    seed: int = 1,
) -> tf.data.Dataset:
    """Batches of several classes without end, for losses that compare a whole batch.

    Args:
        data: as of `pair_batches`.
        batch_size: images in a batch, at most.
        examples_per_class: images of each class.
        distortion: as of `keras_shared.batching.distort.distort_images`; the background must be 0.
        seed: the same seed gives the same batches.

    Returns:
        Of `(images, classes)`: (batch, height, width, channels), uint8 or, distorted, float32;
        int32 (batch,).

    Raises:
        DataError: if a class has fewer images, or there are not two classes.
        ValueError: for a `distortion` that is none.

    Example:
        >>> from keras_shared.batching import class_batches
        >>> from keras_shared.datasets import load_digits
        >>> from keras_shared.losses import TripletLoss
        >>> from keras_shared.zoo import SiameseNet
        >>> batches = class_batches(load_digits("train"), batch_size=20)
        >>> model = SiameseNet(image_shape=(8, 8, 1))
        >>> model.embedder.compile("adam", TripletLoss(margin=0.2, mining="semi_hard"))
        >>> history = model.embedder.fit(batches, steps_per_epoch=2, shuffle=False, verbose=0)
        >>> images, classes = next(iter(batches))
        >>> images.shape, len(set(classes.numpy()))
        (TensorShape([20, 8, 8, 1]), 10)
    """
    check_arguments(class_batches, distortion=distortion)
    data = _to_train_on(data)
    names = tuple(dict.fromkeys(data.group_names))
    _check_size(batch_size, 2 * examples_per_class)
    classes = Classes(data, names, examples_per_class, distortion=distortion)
    return classes.batches(0, tf.int64.max, batch_size, seed)


def _pairs(data: LabelledImages, negatives: Negatives) -> Pairs:
    """Of all classes, without the images that are held out to validate."""
    data = _to_train_on(data)
    return Pairs(data, tuple(dict.fromkeys(data.group_names)), negatives)


def _to_train_on(data: LabelledImages) -> LabelledImages:
    if data.held_out is None:
        return data
    return data.part(np.setdiff1d(np.arange(len(data.labels)), data.held_out))


def _check_size(batch_size: int, least: int) -> None:
    if batch_size < least:
        raise ValueError(
            f"`batch_size` must be at least {least}. Received: batch_size={batch_size!r}"
        )
