import numpy as np
import pytest
import tensorflow as tf

from keras_shared.batching.classes import Classes
from keras_shared.batching.distort import distort_images
from keras_shared.batching.one_shot import OneShotTasks
from keras_shared.datasets import DataError, LabelledImages
from keras_shared.datasets.lazy_images import LazyImages
from keras_shared.training import training_data

# 9 classes in 3 groups of 5, 3 and 1; four drawers drew each; an image holds its number
GROUPS = np.array([1, 0, 1, 2, 1, 0, 1, 0, 1])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(9), 4))
DRAWERS = np.zeros(36, int)
for _c in range(9):
    DRAWERS[_c == LABELS] = np.random.default_rng(_c).permutation(4)
IMAGES = np.arange(36, dtype="uint8").reshape(-1, 1, 1, 1) * np.ones((1, 3, 3, 1), "uint8")
DATA = LabelledImages(IMAGES, LABELS, GROUPS, tuple("abcdefghi"), ("x", "y", "z"), None, DRAWERS)
ALL = ("x", "y", "z")


def numbers(images):
    return np.round(np.asarray(images)[:, 1, 1, 0]).astype(int)


def test_classes_and_different_images_of_each():
    drawn = Classes(DATA, ALL, 3).batches(0, 200, 15, seed=1)
    seen = np.zeros(9)
    for images, labels in drawn.as_numpy_iterator():
        chosen = numbers(images)
        assert len(chosen) == 15 == len(set(chosen))
        same = LABELS[chosen][:, None] == LABELS[chosen][None]
        np.testing.assert_array_equal(same, labels[:, None] == labels[None])
        assert set(np.unique(labels, return_counts=True)[1]) == {3}
        seen[LABELS[chosen][::3]] += 1
    assert seen.min() > 80  # of 1000 / 9, uniformly


def test_few_images_come_again_and_are_distorted():
    """A class of one image gives it twice, and differently; all others are used before."""
    some = DATA.part(np.flatnonzero((LABELS != 4) | (np.cumsum(LABELS == 4) == 1)))
    with pytest.raises(DataError, match=r"these classes have fewer images: \['e'\].*distortion"):
        Classes(some, ALL, 2)
    drawn = Classes(some, ALL, 3, distortion=(0.0, 0.0, 0.0, 0.4))
    labels = np.array(some.labels)
    for number in range(20):
        chosen, classes, _, _ = (x.numpy() for x in drawn.draw(27, 1, number))
        assert (
            len(chosen) == 27
            and (chosen[labels[chosen] == 4] == chosen[labels[chosen] == 4][0]).all()
        )
        for c in set(classes):
            assert len(set(chosen[classes == c])) == (
                1 if labels[chosen[classes == c][0]] == 4 else 3
            )
    images, classes = next(iter(drawn.batches(0, 1, 27, seed=1).as_numpy_iterator()))
    alone = drawn.draw(27, 1, 0)[0].numpy()
    copies = images[labels[alone] == 4]
    assert len(copies) == 3 and np.ptp(copies, axis=0).max() > 0.1


def test_groups_take_part_in_proportion():
    drawn = Classes(DATA, ("x", "y"), 2, groups_per_batch=1)
    counts = {"x": 0, "y": 0}
    for images, _ in drawn.batches(0, 400, 8, seed=1).as_numpy_iterator():
        groups = set(GROUPS[LABELS[numbers(images)]])
        assert len(groups) == 1
        # four classes are wanted; x has three, y five
        assert len(images) == (6 if groups == {0} else 8)
        counts["x" if groups == {0} else "y"] += 1
    share = np.sqrt(3) / (np.sqrt(3) + np.sqrt(5))
    assert abs(counts["x"] / 400 - share) < 0.08


def test_numbers_decide_the_batch():
    classes = Classes(DATA, ALL, 2, 2, True, (5.0, 0.1, 0.1, 0.3))
    whole = list(classes.batches(0, 5, 8, seed=3).as_numpy_iterator())
    rest = list(classes.batches(3, 5, 8, seed=3).as_numpy_iterator())
    for a, b in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert not np.array_equal(whole[0][0], whole[1][0])
    other = next(iter(classes.batches(0, 1, 8, seed=4).as_numpy_iterator()))
    assert other[0].shape != whole[0][0].shape or not np.array_equal(other[0], whole[0][0])


def test_quarter_turns_are_exact_and_one_for_a_group():
    image = np.random.default_rng(1).random((4, 5, 5, 1)).astype("float32")
    turned = distort_images(image, (0.0, 0.0, 0.0, 0.0), tf.constant([1, 2], tf.int64),
                            tf.range(4))  # fmt: skip
    for i in range(4):
        ways = [np.allclose(turned[i], np.rot90(image[i], k), atol=1e-4) for k in (i, -i)]
        assert any(ways)
    corner = np.zeros((36, 3, 3, 1), "uint8")
    corner[:, 0, 0, 0] = 200  # top left, until it is turned
    drawn = Classes(DATA._replace(images=corner), ("x", "y"), 2, 2, rotated_classes=True)
    together = set()
    for images, labels in drawn.batches(0, 40, 12, seed=1).as_numpy_iterator():
        where = images[..., 0].reshape(len(images), 9).argmax(1)
        assert set(where) <= {0, 2, 6, 8}
        of_group = [set(where[GROUPS[CLASSES[labels]] == g]) for g in (0, 1)]
        assert all(len(one) == 1 for one in of_group)
        together.add((of_group[0].pop(), of_group[1].pop()))
    assert len(together) > 8  # of 16, each group by itself


CLASSES = np.flatnonzero(np.isin(GROUPS, (0, 1)))  # those of x and y


def test_images_are_prepared_once_before_they_are_distorted():
    calls = []

    def halved(images):
        calls.append(len(images))
        return images / 2

    for source in (IMAGES, LazyImages(IMAGES, (3, 3, 1))):
        classes = Classes(DATA._replace(images=source), ALL, 2)
        images, _ = next(iter(classes.through(halved).batches(0, 1, 8, 1)))
        plain, _ = next(iter(classes.batches(0, 1, 8, 1)))
        np.testing.assert_array_equal(images, np.asarray(plain) / 2)
    assert sum(calls) == 72


def test_one_shot_tasks():
    tasks = OneShotTasks.drawn(DATA, ("x", "y"), 4, 30, seed=1)
    sizes = [task.shape[1] for task in tasks.tasks]
    assert sizes == [3, 4] * 15  # x has three classes; the groups take turns
    for known, queries in tasks.tasks:
        np.testing.assert_array_equal(LABELS[known], LABELS[queries])
        assert len(set(LABELS[known])) == len(known) and len(set(GROUPS[LABELS[known]])) == 1
        assert len(set(DRAWERS[known])) == len(set(DRAWERS[queries])) == 1
        assert DRAWERS[known][0] != DRAWERS[queries][0]
    batches = list(tasks.batches().as_numpy_iterator())
    for (known, queries), (images, labels) in zip(tasks.tasks, batches, strict=True):
        np.testing.assert_array_equal(numbers(images), [*known, *queries])
        np.testing.assert_array_equal(labels, [*range(len(known))] * 2)
    halved = tasks.through(lambda images: images / 2)
    for (images, _), (prepared, _) in zip(batches, halved.batches().as_numpy_iterator()):
        np.testing.assert_array_equal(images / 2, prepared)
    unknown = OneShotTasks.drawn(DATA._replace(drawers=None), None, 9, 5, seed=1)
    for known, queries in unknown.tasks:
        assert len(known) == 9 and not np.any(known == queries)
        np.testing.assert_array_equal(LABELS[known], LABELS[queries])
    again = OneShotTasks.drawn(DATA, ("x", "y"), 4, 30, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(tasks.tasks, again.tasks))


def test_too_few():
    with pytest.raises(DataError, match=r"examples_per_class = 5, .* fewer images: \['a', 'b'"):
        Classes(DATA, ALL, 5)
    with pytest.raises(DataError, match=r"groups_per_batch = 4 groups. Received: 9 classes in 3"):
        Classes(DATA, ALL, 2, 4)
    with pytest.raises(DataError, match="two classes"):
        Classes(DATA, ("z",), 2)
    with pytest.raises(DataError, match=r"two classes of two images each. Received: \['z'\]"):
        OneShotTasks.drawn(DATA, ("z",), 5, 3, seed=1)


def test_classes_without_groups(recipe):
    """Of digits each class is a group: tasks are of all that validate."""
    changes = {
        "training.loss": "n_pair", "data.examples_per_class": 4, "training.batch_size": 20,
        "data.validation_tasks": 7, "data.images_per_epoch": 100,
    }  # fmt: skip
    data = training_data(recipe("pairs", **changes))
    assert data.steps_per_epoch == 5 and data.sizes["groups"] == 5
    for images, labels in data.validation.as_numpy_iterator():
        assert images.shape == (4, 8, 8, 1) and labels.tolist() == [0, 1, 0, 1]
    [(images, labels)] = data.batches(0, 1).take(1).as_numpy_iterator()
    assert images.shape == (20, 8, 8, 1) and len(set(labels)) == 5
