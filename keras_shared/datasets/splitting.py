"""Own images parted into training, validation and test: by their folders, or by a seed."""

import warnings

import numpy as np

from keras_shared.datasets.dataset import DataError
from keras_shared.datasets.labelled_images import LabelledImages

SHARE = 0.2  # of each class tests; as much of the rest validates
IMBALANCE = 10  # times as many images in one class as in another


def check_split(split: str) -> str:
    """See that there is such a split of one's own data.

    Raises:
        DataError: for another name.
    """
    if split not in ("train", "test"):
        raise DataError(
            f"`split` must be 'train' (with what validates) or 'test'. Received: split={split!r}"
        )
    return split


def split_by_seed(
    images: LabelledImages, seed: int, where: str
) -> tuple[LabelledImages, LabelledImages]:
    """Training split (with `held_out`) and test split, drawn from each class by the seed.

    Args:
        images: all of them.
        seed: the same seed gives the same splits.
        where: where they came from, for messages.

    Raises:
        DataError: if a class has fewer than three images: one to train, validate and test.
    """
    check_classes(images, where, least=3)
    order = np.random.default_rng(seed).permutation(len(images.labels))
    test, held_out = [], []
    for label in range(len(images.class_names)):
        own = order[images.labels[order] == label]
        tested = max(1, round(SHARE * len(own)))
        validated = max(1, round(SHARE * (len(own) - tested)))
        test.append(own[:tested])
        held_out.append(own[tested : tested + validated])
    testing = np.sort(np.concatenate(test))
    training = np.setdiff1d(np.arange(len(order)), testing)
    validating = np.searchsorted(training, np.sort(np.concatenate(held_out)))
    return images.part(training)._replace(held_out=validating), images.part(testing)


def check_classes(images: LabelledImages, where: str, least: int) -> None:
    """See that each class has enough images; warn if some have many more than others.

    Raises:
        DataError: naming the classes that have too few.
    """
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    if len(counts) < 2:
        raise DataError(f"{where} has {len(counts)} class: expected at least two, a folder each.")
    few = {images.class_names[i]: int(counts[i]) for i in np.flatnonzero(counts < least)}
    if few:
        named = ", ".join(f"'{name}' ({count})" for name, count in list(few.items())[:8])
        raise DataError(
            f"{where}: each class needs at least {least} images. Fewer has: {named}. Add some, or "
            "take the class out."
        )
    if counts.max() > IMBALANCE * counts.min():
        most, least_ = images.class_names[counts.argmax()], images.class_names[counts.argmin()]
        warnings.warn(
            f"{where}: '{most}' has {counts.max()} images and '{least_}' {counts.min()}. A model "
            "learns to prefer what it sees often; the confusion matrix of its card shows it.",
            stacklevel=2,
        )
