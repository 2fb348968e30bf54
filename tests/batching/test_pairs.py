import numpy as np
import pytest

from keras_shared.batching import class_batches, pair_batches, triplet_batches
from keras_shared.batching.pairs import Pairs
from keras_shared.datasets import DataError, LabelledImages, load_digits
from keras_shared.training import training_data

# 7 classes in 3 groups, each image holds its class and its number within the class
COUNTS = [2, 3, 5, 2, 4, 6, 3]
GROUPS = np.array([1, 0, 1, 2, 0, 1, 2])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(7), COUNTS))
IMAGES = np.arange(len(LABELS), dtype="uint8").reshape(-1, 1, 1, 1)
NAMES = ("x", "y", "z")
DATA = LabelledImages(IMAGES, LABELS, GROUPS, tuple("abcdefg"), NAMES)


def drawn(pairs, count=4000, seed=3):
    batches = list(pairs.fixed(count, seed).as_numpy_iterator())
    a = np.concatenate([b[0]["image_a"].ravel() for b in batches])
    b = np.concatenate([b[0]["image_b"].ravel() for b in batches])
    return a, b, np.concatenate([b[1]["probability"] for b in batches])


@pytest.mark.parametrize("negatives", ["any", "same_group"])
def test_the_rules(negatives):
    a, b, same = drawn(Pairs(DATA, ("x", "y", "z"), negatives))
    assert np.all(a != b)  # no image with itself
    np.testing.assert_array_equal(LABELS[a] == LABELS[b], same == 1)
    assert same.sum() == len(same) / 2  # balanced
    if negatives == "same_group":
        np.testing.assert_array_equal(GROUPS[LABELS[a]], GROUPS[LABELS[b]])
    else:
        crossing = GROUPS[LABELS[a]] != GROUPS[LABELS[b]]
        assert crossing.sum() > 500
    # classes are drawn uniformly, images uniformly within a class
    counts = np.bincount(LABELS[a], minlength=7)
    assert counts.min() > 0.8 * 4000 / 7 and counts.max() < 1.2 * 4000 / 7
    of_class = np.bincount(a, minlength=len(LABELS))[LABELS == 5]
    assert of_class.min() > 0.6 * of_class.mean()
    assert set(b) == set(range(len(LABELS)))


def test_only_the_named_groups():
    a, b, _ = drawn(Pairs(DATA, ("z",), "any"))
    assert set(LABELS[a]) | set(LABELS[b]) == {3, 6}


def test_numbers_decide_the_batch():
    pairs = Pairs(DATA, ("x", "y"), "any")
    whole = list(pairs.batches(0, 6, 8, seed=1).as_numpy_iterator())
    rest = list(pairs.batches(4, 6, 8, seed=1).as_numpy_iterator())
    for a, b in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(a[0]["image_a"], b[0]["image_a"])
        np.testing.assert_array_equal(a[0]["image_b"], b[0]["image_b"])
    first, second = whole[0][0]["image_a"], whole[1][0]["image_a"]
    assert np.any(first != second)
    other = next(iter(pairs.batches(0, 1, 8, seed=2).as_numpy_iterator()))
    assert np.any(other[0]["image_a"] != first)


def test_unknown_group_and_too_few():
    with pytest.raises(DataError, match=r"no group \['w'\]. It has: \['x', 'y', 'z'\]"):
        Pairs(DATA, ("w",), "any")
    digits = load_digits("train")
    with pytest.raises(DataError, match="two classes to differ"):
        Pairs(digits, ("3",), "any")
    with pytest.raises(DataError, match="two classes to differ"):
        Pairs(digits, ("3", "4"), "same_group")  # of digits, each class is a group


def test_a_misspelt_group_is_not_trained_on(recipe):
    with pytest.raises(DataError, match=r"'digits' has no group \['two'\]"):
        training_data(recipe("pairs", **{"data.test_groups": ["two"]}))


def test_pairs_of_odd_sizes_are_balanced_and_sizes_are_checked():
    digits = load_digits("train")
    for size in (1, 3):
        batches = pair_batches(digits, batch_size=size).take(40).as_numpy_iterator()
        assert np.mean(np.concatenate([same for _, same in batches])) == 0.5
    for wrong in (
        lambda: pair_batches(digits, negatives="same_groups"),
        lambda: triplet_batches(digits, negatives=True),
        lambda: pair_batches(digits, batch_size=0),
        lambda: triplet_batches(digits, batch_size=-1),
        lambda: class_batches(digits, batch_size=9, examples_per_class=5),
    ):
        with pytest.raises(ValueError, match="Received: (batch_size|negatives)="):
            wrong()
