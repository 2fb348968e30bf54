"""What a split must hold, wherever it comes from: pixels from 0 to 255, a class for each."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_shared.datasets.dataset import DataError
from keras_shared.datasets.image_pairs import ImagePairs
from keras_shared.datasets.labelled_images import LabelledImages
from keras_shared.datasets.labelled_sentences import LabelledSentences
from keras_shared.datasets.lazy_images import LazyImages, Shape
from keras_shared.datasets.several_labels import SeveralLabels
from keras_shared.files.scales import DARK, rescaling

FRACTION = 1.5  # what goes up to here are fractions
KINDS = (LabelledImages, SeveralLabels, LabelledSentences, ImagePairs)


def checked_split(split: Any, where: str, shape: Shape | None) -> Any:
    """A split with its images as pixels and its labels as whole numbers, both as arrays.

    Args:
        split: of a kind of ours; another is given back as it is.
        where: it came from, for messages.
        shape: height, width and channels of the images that the model takes; None for a model that
            does not say it, whose images may be anything: pixels of another scale are warned of.

    Raises:
        DataError: for images or labels that are none.

    Example:
        >>> import numpy as np
        >>> from keras_shared.datasets import LabelledImages
        >>> from keras_shared.datasets.checks import checked_split
        >>> names = ("no", "yes")
        >>> images = np.full((2, 8, 8), 255.0)
        >>> split = LabelledImages(images, [0, 1], np.arange(2), names, names)
        >>> checked_split(split, "mine", (8, 8, 1)).images.shape
        (2, 8, 8, 1)
    """
    if not isinstance(split, KINDS):
        return split
    changes = dict[str, Any]()
    if not isinstance(split, LabelledSentences):
        changes["images"] = _checked_images(split.images, where, shape)
    if not isinstance(split, ImagePairs):
        count = len(split[0])  # images, or sentences
        tasks = len(split.class_names) if isinstance(split.class_names, Mapping) else None
        changes["labels"] = checked_labels(split.labels, where, "labels", count, tasks)
        if tasks is None and split.class_names is not None:
            changes["class_names"] = tuple(map(str, split.class_names))
    return split._replace(**changes)


def _checked_images(images: Any, where: str, shape: Shape | None) -> Any:
    lazy = isinstance(images, LazyImages)
    given = np.asarray(images.sources if lazy else images)
    if lazy and given.ndim == 1:  # paths
        return images
    if shape is None and not lazy:
        image = given.ndim == 4 and given.shape[-1] in (1, 3) and given.size
        if image and (no_pixels := _no_pixels(given, "images")):
            warnings.warn(
                f"{where}: {no_pixels} A model that takes what these are may ignore that.",
                stacklevel=4,
            )
        return given
    x = checked_pixels(given, where, "images", shape)
    return type(images)(x, images.shape[1:]) if lazy else x


def checked_pixels(x: np.ndarray, where: str, name: str, shape: Shape | None) -> np.ndarray:
    """Images as uint8 (images, height, width, channels).

    Args:
        x: the images; channels may be missing.
        where: they came from, for messages.
        name: of the array, for messages.
        shape: that the model takes, for another number of channels than 1 and 3.

    Raises:
        DataError: for another shape, or numbers that are no pixels from 0 to 255.

    Warns:
        UserWarning: for images that are almost black.
    """
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4 or not (x.shape[-1] in (1, 3) or x.shape[1:] == shape) or not x.size:
        raise DataError(
            f"{where}: expected {name} as (images, height, width) or with 1 or 3 channels, and one "
            f"image or more. Received: {name} {x.shape}"
        )
    if no_pixels := _no_pixels(x, name):
        raise DataError(f"{where}: {no_pixels}")
    low, high = float(x.min()), float(x.max())
    if 0 < high < DARK:
        warnings.warn(
            f"{where}: pixels go up to {high:g}, of 255: the images are almost black. "
            f"{rescaling(name, low, high)}",
            stacklevel=2,
        )
    return x if x.dtype == np.uint8 else np.clip(np.round(x), 0, 255).astype("uint8")


def _no_pixels(x: np.ndarray, name: str) -> str:
    """What is wrong with numbers that are no pixels from 0 to 255, and what to do."""
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        return f"expected pixels from 0 to 255. Received: {name} of {x.dtype}"
    low, high = float(x.min()), float(x.max())
    if low >= 0 and (high == 0 or FRACTION < high <= 255.5):
        return ""
    return (
        f"expected pixels from 0 to 255. Received: {x.dtype} from {low:g} to {high:g}. "
        f"{rescaling(name, low, high)}"
    )


def checked_labels(
    labels: Any, where: str, name: str, count: int, tasks: int | None = None
) -> np.ndarray:
    """Labels as integers: (examples,), or (examples, tasks).

    Args:
        labels: what was given.
        where: they came from, for messages.
        name: of the array, for messages.
        count: how many examples there are.
        tasks: how many tasks; None for one alone.

    Raises:
        DataError: for another shape, or what are no whole numbers from 0.
    """
    y = np.asarray(labels)
    y = np.asarray(y.tolist()) if y.dtype == object else y
    shape = (count,) if tasks is None else (count, tasks)
    if y.size != np.prod(shape) or y.shape[:1] != (count,):
        one_hot = tasks is None and y.ndim == 2 and len(y) == count
        advice = f" Of labels that are one-hot take {name}.argmax(axis=1)." if one_hot else ""
        raise DataError(
            f"{where}: expected a label for each of {count} examples, {name} of shape {shape}. "
            f"Received: {name} {y.shape}.{advice}"
        )
    wrong = y[(y < 0) | (y % 1 != 0)] if y.dtype.kind in "buif" else y
    if wrong.size:
        raise DataError(
            f"{where}: expected labels as whole numbers from 0, the place of each class among "
            f"`class_names`. Received: {name} of {y.dtype}, such as {wrong.ravel().tolist()[0]!r}"
        )
    return y.reshape(shape).astype(int)
