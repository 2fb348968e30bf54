import numpy as np
import pytest

from keras_shared.batching.shrink import shrink_images
from keras_shared.datasets import DataError
from keras_shared.recipes import RecipeError
from keras_shared.training import training_data
from keras_shared.training.build import test_data


def images_of(batches):
    return np.concatenate([x for x, _ in batches.as_numpy_iterator()])


@pytest.mark.slow
def test_batches_resume_and_cover_each_epoch(recipe):
    read = recipe("classifier")
    data = training_data(read)
    epochs = [images_of(data.batches(i, i + 1)) for i in range(2)]
    assert len(epochs[0]) == 1000 and np.any(epochs[0] != epochs[1])
    flat = [np.sort(e.reshape(1000, -1).sum(1)) for e in epochs]
    np.testing.assert_array_equal(*flat)  # the same images, in another order
    np.testing.assert_array_equal(images_of(data.batches(0, 2)), np.concatenate(epochs))
    assert sum(1 for _ in data.batches(0, 1)) == data.steps_per_epoch
    assert len(images_of(data.validation)) == 200
    assert len(images_of(test_data(read)[1])) == 597


def test_too_little_to_train_on(recipe):
    with pytest.raises(DataError, match="leaves nothing to train on.*has 1200 images"):
        training_data(recipe("classifier", **{"data.validation_images": 1200}))
    every_group = {"data.test_groups": ["2"], "data.validation_groups": [*"013456789"]}
    with pytest.raises(DataError, match="two classes to differ"):
        training_data(recipe("pairs", **every_group))


def test_a_tenth_validates_where_nothing_is_said(recipe):
    table = recipe("classifier").to_dict()
    del table["data"]["validation_images"]
    from keras_shared.recipes import recipe_from

    assert training_data(recipe_from(table)).sizes == {"images": 1080, "validation_images": 120}


@pytest.mark.slow
def test_all_may_train(recipe):
    data = training_data(recipe("classifier", **{"data.validation_images": 0}))
    assert data.sizes == {"images": 1200, "validation_images": 0} and data.validation is None
    assert len(images_of(data.batches(0, 1))) == 1200


def test_vectors_are_fractions(recipe):
    x, y = next(iter(training_data(recipe("autoencoder")).batches(0, 1)))
    assert x.shape == (32, 64) and float(np.max(x)) == 1.0
    np.testing.assert_array_equal(x, y)


def test_some_images_of_each_class_again_and_again(recipe):
    few = recipe("classifier", **{"data.images_per_class": 3, "data.images_per_epoch": 100})
    data = training_data(few.with_seed(4))
    assert data.sizes["images"] == 30 and data.steps_per_epoch == 2
    x, y = (np.concatenate(c) for c in zip(*data.batches(0, 1).as_numpy_iterator(), strict=True))
    assert len(x) == 100
    different = {image.tobytes() for image in x}
    assert len(different) == 30  # three whole rounds, and 10 of a fourth
    assert set(np.bincount(y[:30])) == {3}
    for start in (0, 30, 60):
        assert len({image.tobytes() for image in x[start : start + 30]}) == 30
    other = training_data(few.with_seed(5))
    again = next(other.batches(0, 1).as_numpy_iterator())[0]
    assert not different.issuperset(image.tobytes() for image in again)
    with pytest.raises(DataError, match="images_per_class = 500, and 'digits' has 89"):
        training_data(recipe("classifier", **{"data.images_per_class": 500}))


def test_small_samples_are_drawn_anew_for_each_seed(recipe):
    sample = {"data.training_images": 320, "data.validation_images": 160, "data.test_images": 150,
              "data.margin": 1, "data.side": 6, "data.images_per_epoch": 960}  # fmt: skip
    small, parts = recipe("classifier", **sample), []
    for seed in (1, 2):
        one = small.with_seed(seed)
        data = training_data(one)
        for batches in (data.batches(0, 1), data.validation, test_data(one)[1]):
            parts.append(images_of(batches))
    assert [len(part) for part in parts] == [960, 160, 150] * 2
    assert parts[0].shape[1:] == (6, 6, 1) and parts[0].max() > 200
    sets = [{image.tobytes() for image in part} for part in parts]
    assert len(sets[0]) == 320 and not sets[0] & sets[1] and sets[0] != sets[3]
    assert sets[2] != sets[5]
    with pytest.raises(DataError, match="has 1200 images in this split, and the recipe wants 1360"):
        training_data(recipe("classifier", **{**sample, "data.training_images": 1200}))
    with pytest.raises(RecipeError, match="`training_images` and `images_per_class` cannot both"):
        recipe("classifier", **{**sample, "data.images_per_class": 3})


def test_shrinking_by_hand():
    images = np.random.default_rng(0).integers(0, 256, (2, 10, 10, 1), dtype="uint8")
    means = images[:, 1:9, 1:9].reshape(2, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    assert np.abs(shrink_images(images, 1, 4) - means).max() <= 0.5
    with pytest.raises(ValueError, match="have 2 left between margins of 4. Received: side=3"):
        shrink_images(images, 4, 3)
