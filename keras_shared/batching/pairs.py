"""Pairs of images: the section [data] that describes them, and how they are drawn."""

import math
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import tensorflow as tf
from pydantic import model_validator

from keras_shared.batching.autotuning import without_autotuning
from keras_shared.batching.class_training import class_training_data
from keras_shared.batching.classes import Classes
from keras_shared.batching.fetching import fetcher
from keras_shared.batching.images import EVALUATION_BATCH
from keras_shared.batching.listed_pairs import listed_batches, listed_training_data
from keras_shared.batching.one_shot import OneShotTasks
from keras_shared.batching.training_data import TrainingData
from keras_shared.datasets import DataError, ImagePairs, LabelledImages
from keras_shared.section import Count, NoneOrMore, NotNegative, Section, Seed

LISTED = "pairs"  # the data set whose pairs are listed in a file
Negatives: TypeAlias = Literal["any", "same_group"]

ENOUGH = (
    "Where a seed draws the splits, a fifth of each class tests and a fifth of the rest validates, "
    "so that ten images of a class are enough: add some"
)


class PairData(Section):
    """Pairs of images for verification; half of them show the same class.

    Of the data set "pairs", which lists them in a CSV file, `path` and `seed` are all; see
    `keras_shared.datasets.from_pairs`.

    Attributes:
        name: name of the data set.
        path: of your own data, as in `ImageData`; of "pairs", the file.
        validation_groups: groups of classes (alphabets; of digits: the classes) that validate; none
            for other images of the classes that train.
        test_groups: groups that test; none for the images of the test split. The rest trains.
        negatives: the rule for pairs of two classes: a second class drawn from all ("any"), or from
            the group of the first ("same_group"). No image is paired with itself.
        pairs_per_epoch: drawn anew in each epoch.
        validation_pairs: always the same, drawn with `seed`.
        test_pairs: always the same, drawn with `seed`.
        examples_per_class: of a loss that compares a whole batch: images of each class in a batch,
            which is of `training.batch_size` images then; 0 for pairs. None for 2 or 0, as the
            loss wants it.
        groups_per_batch: groups that the classes of such a batch come from, in equal parts; 0 for
            all classes alike.
        rotated_classes: whether each group of such a batch is turned by 0, 90, 180 or 270 degrees;
            a class that is turned counts as another.
        distortion: of such a batch, as in `ImageData`, of the images as the tower takes them; what
            comes in from outside is 0.
        images_per_epoch: of such batches; 0 for as many as there are.
        validation_tasks: one-shot tasks of such a training, always the same, drawn with `seed`: of
            `ways` classes of one group (all it has, if fewer), one image each is known, another is
            asked for.
        ways: see above.
        seed: see above.
    """

    name: str
    path: str = ""
    validation_groups: tuple[str, ...] = ()
    test_groups: tuple[str, ...] = ()
    negatives: Negatives = "any"
    pairs_per_epoch: Count = 32000
    validation_pairs: Count = 4000
    test_pairs: Count = 20000
    examples_per_class: NoneOrMore | None = None
    groups_per_batch: NoneOrMore = 0
    rotated_classes: bool = False
    distortion: tuple[NotNegative, NotNegative, NotNegative, NotNegative] = (0.0, 0.0, 0.0, 0.0)
    images_per_epoch: NoneOrMore = 0
    validation_tasks: Count = 320
    ways: Count = 20
    seed: Seed = 1

    @model_validator(mode="after")
    def _groups_apart(self) -> Self:
        both = sorted(set(self.validation_groups).intersection(self.test_groups))
        if both:
            raise ValueError(f"{both} cannot be both in `validation_groups` and in `test_groups`")
        changed = [
            key
            for key, field in type(self).model_fields.items()
            if key not in ("name", "path", "seed") and getattr(self, key) != field.default
        ]
        if self.name == LISTED and changed:
            raise ValueError(f"{changed} draw pairs, and '{LISTED}' lists them: leave these out")
        return self


def pair_training_data(
    split: LabelledImages | ImagePairs, data: PairData, batch_size: int, seed: int
) -> TrainingData:
    """Training and validation pairs of a training split: drawn from classes, or as listed.

    Args:
        split: the training split of the data set.
        data: section [data] of the recipe.
        batch_size: pairs in a batch.
        seed: of the run.

    Raises:
        DataError: if a group is unknown, or too small to draw from.
    """
    if isinstance(split, ImagePairs):
        return listed_training_data(split, batch_size, seed)
    training, trained, validating, groups = training_and_validation(split, data)
    validation = Pairs(validating, groups, data.negatives, "validate")
    fixed = validation.fixed(data.validation_pairs, data.seed)
    if data.examples_per_class:
        drawn = Classes(
            training, trained, data.examples_per_class, data.groups_per_batch,
            data.rotated_classes, data.distortion,
        )  # fmt: skip
        tasks = OneShotTasks.drawn(validating, groups, data.ways, data.validation_tasks, data.seed)
        return class_training_data(drawn, tasks, fixed, data.images_per_epoch, batch_size, seed)
    pairs = Pairs(training, trained, data.negatives)
    steps = math.ceil(data.pairs_per_epoch / batch_size)
    return TrainingData(
        lambda first, last: pairs.batches(first * steps, last * steps, batch_size, seed),
        steps,
        fixed,
        {
            "groups": len(trained),
            "pairs_per_epoch": steps * batch_size,
            "validation_pairs": data.validation_pairs,
        },
    )


def training_and_validation(
    split: LabelledImages, data: PairData
) -> tuple[LabelledImages, tuple[str, ...], LabelledImages, tuple[str, ...]]:
    """What trains, with its groups, and what validates, with its own.

    Raises:
        DataError: if a group is unknown.
    """
    held_out = (*data.validation_groups, *data.test_groups)
    unknown = sorted(set(held_out).difference(split.group_names))
    if unknown:  # a misspelt group would be trained on
        raise DataError(
            f"'{data.name}' has no group {unknown}. It has: {sorted(split.group_names)}"
        )
    training, validating = split, split
    if not data.validation_groups:  # the same classes, other images
        training, validating = _other_images(split, data.seed)
    trained = tuple(sorted(_groups(training).difference(held_out)))
    return training, trained, validating, data.validation_groups or trained


def pair_test_batches(split: LabelledImages | ImagePairs, data: PairData) -> tf.data.Dataset:
    """The test pairs of a test split, in a fixed order.

    Raises:
        DataError: if a group is unknown, or too small to draw from.
    """
    if isinstance(split, ImagePairs):
        return listed_batches(split)
    groups = data.test_groups or tuple(sorted(_groups(split)))
    pairs = Pairs(split, groups, data.negatives, "test")
    return pairs.fixed(data.test_pairs, data.seed)


def _groups(split: LabelledImages) -> set[str]:
    """The groups of which the split has images."""
    return {split.group_names[split.groups[label]] for label in np.unique(split.labels)}


def _other_images(split: LabelledImages, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Images to train on, and others of the same classes to validate."""
    held_out = split.held_out
    if held_out is None:
        order = np.random.default_rng(seed).permutation(len(split.labels))
        held_out = order[: max(1, len(order) // 5)]
    rest = np.setdiff1d(np.arange(len(split.labels)), held_out)
    return split.part(rest), split.part(held_out)


class Pairs:
    """Balanced pairs of images, drawn by number: the same seed and number give the same pairs.

    Half of each batch shows one class twice, in two different images; the other half shows two
    classes. Classes are drawn uniformly, then images of the class.

    Args:
        data: a split.
        groups: names of the groups whose classes are used.
        negatives: `"any"` draws the second class from all others, `"same_group"` from the
            others of the first one's group.
        purpose: what these images do, for messages: "validate" or "test".

    Raises:
        DataError: if a group is unknown, or too small to draw from.
    """

    def __init__(
        self, data: LabelledImages, groups: tuple[str, ...], negatives: str, purpose: str = ""
    ) -> None:
        if negatives not in ("any", "same_group"):
            raise ValueError(
                f"`negatives` must be 'any' or 'same_group'. Received: negatives={negatives!r}"
            )
        unknown = sorted(set(groups).difference(data.group_names))
        if unknown:
            raise DataError(
                f"The data set has no group {unknown}. It has: {sorted(data.group_names)}"
            )
        number = {name: i for i, name in enumerate(data.group_names)}
        wanted = [number[g] for g in groups]
        order = np.argsort(data.labels, kind="stable")
        counts = np.bincount(data.labels, minlength=len(data.groups))
        first = np.cumsum(counts) - counts  # where each class starts in `order`
        used = np.isin(data.groups, wanted) & (counts > 0)
        classes = np.array(sorted(np.flatnonzero(used), key=lambda c: (data.groups[c], c)), int)
        group_of = data.groups[classes] if negatives == "same_group" else np.zeros(len(classes))
        _, start, size = np.unique(group_of, return_index=True, return_counts=True)
        which = np.searchsorted(np.unique(group_of), group_of)
        alone = [data.class_names[c] for c in classes[counts[classes] < 2]]
        if alone:
            raise DataError(
                f"Pairs need two images of each class{f' that {purpose}' if purpose else ''}. "
                f"These have one: {alone[:8]}. {ENOUGH if purpose else 'Add another'}, or take the "
                "class out."
            )
        if not len(classes) or size.min() < 2:
            raise DataError(
                f"Pairs need two classes to differ. Received: {list(groups)[:8]} with "
                f"{len(classes)} classes, negatives='{negatives}'"
            )
        self._fetch = fetcher(data.images)
        self._order = tf.constant(order, tf.int32)
        self._first = tf.constant(first[classes], tf.int32)
        self._count = tf.constant(counts[classes], tf.int32)
        self._start = tf.constant(start[which], tf.int32)  # first class of the same group
        self._size = tf.constant(size[which], tf.int32)  # classes in the same group

    def batches(self, first: int, last: int, batch_size: int, seed: int) -> tf.data.Dataset:
        """The batches numbered `first` to `last` - 1.

        Each is `({"image_a": ..., "image_b": ...}, {"distance": same, "probability": same})`:
        uint8 (batch, height, width, channels) twice, and float32 (batch,) for each output.
        """
        numbers = tf.data.Dataset.range(first, last)
        batches = numbers.map(
            lambda number: self._images_of(*self.draw(batch_size, seed, number)),
            num_parallel_calls=2,
        )
        return without_autotuning(batches.prefetch(4))

    def fixed(self, pairs: int, seed: int) -> tf.data.Dataset:
        """That many pairs, always the same, in batches as above."""
        drawn = tf.data.Dataset.from_tensor_slices(self.draw(pairs, seed, -1))
        return without_autotuning(drawn.batch(EVALUATION_BATCH).map(self._images_of))

    def draw(self, batch_size: int, seed: Any, number: Any) -> tuple[Any, Any, Any]:
        """Indices of the left and right images, and whether they are the same class."""
        left, positive, negative = self._drawn(batch_size, seed, number)
        odd = tf.cast(tf.cast(number, tf.int64) % 2, tf.int32)  # of odd sizes, by turns
        same = tf.range(batch_size) < (batch_size + odd) // 2
        return left, tf.where(same, positive, negative), same

    def triplets(self, batch_size: int, seed: int) -> tf.data.Dataset:
        """Batches of anchor, positive and negative, without end."""
        names = ("anchor", "positive", "negative")

        def batch(number: Any) -> Any:
            drawn = self._drawn(batch_size, seed, number)
            return {name: self._fetch(index) for name, index in zip(names, drawn, strict=True)}

        numbers = tf.data.Dataset.range(tf.int64.max)
        return without_autotuning(numbers.map(batch, num_parallel_calls=2).prefetch(4))

    def _drawn(self, batch_size: int, seed: Any, number: Any) -> tuple[Any, ...]:
        """Indices of images: one, another of its class, and one of another class."""
        base = tf.stack([tf.cast(seed, tf.int64), tf.cast(number, tf.int64)])

        def uniform(stream: int, limit: Any) -> Any:  # int32 (batch,) in [0, limit)
            key = tf.random.experimental.stateless_fold_in(base, stream)
            return tf.random.stateless_uniform([batch_size], key, 0, limit, tf.int32)

        left = uniform(0, tf.size(self._count))
        size, start = tf.gather(self._size, left), tf.gather(self._start, left)
        other = start + (left - start + 1 + _below(uniform, 1, size - 1)) % size
        count = tf.gather(self._count, left)
        i = _below(uniform, 2, count)
        j = (i + 1 + _below(uniform, 3, count - 1)) % count
        k = _below(uniform, 4, tf.gather(self._count, other))
        return tuple(
            tf.gather(self._order, tf.gather(self._first, classes) + numbers)
            for classes, numbers in ((left, i), (left, j), (other, k))
        )

    def _images_of(self, index_a: Any, index_b: Any, same: Any) -> Any:
        images = {
            "image_a": self._fetch(index_a),
            "image_b": self._fetch(index_b),
        }
        same = tf.cast(same, tf.float32)
        return images, {"distance": same, "probability": same}


def _below(uniform: Any, stream: int, limits: Any) -> Any:
    """Whole numbers in [0, limit), with a limit for each: the generator takes one for all."""
    fraction = tf.cast(uniform(stream, 2**30), tf.float64) / 2**30
    return tf.cast(tf.floor(fraction * tf.cast(limits, tf.float64)), tf.int32)
