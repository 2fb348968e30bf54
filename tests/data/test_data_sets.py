import dataclasses
import pathlib

import numpy as np
import pytest

from keras_shared.data import DataError, labelled_images, test_batches, training_data
from keras_shared.datasets.digits import load_digits
from keras_shared.datasets.fashion_mnist import load_fashion_mnist
from keras_shared.datasets.mnist import load_mnist
from keras_shared.datasets.omniglot import load_omniglot
from keras_shared.batching.shrink import shrink_images
from keras_shared.demo import RECIPE
from keras_shared.presets.names import entry_dir
from keras_shared.recipe import read_recipe

test_batches.__test__ = False  # a function of the library, not a test


def test_digits_are_split_without_overlap():
    train, test = load_digits("train"), load_digits("test")
    assert train.images.shape == (1200, 8, 8, 1) and test.images.shape == (597, 8, 8, 1)
    assert train.images.dtype == np.uint8 and train.images.max() == 255


def test_mnist(data_dir):
    train, test = load_mnist("train", data_dir), load_mnist("test", data_dir)
    assert train.images.shape == (60000, 28, 28, 1) and test.images.shape == (10000, 28, 28, 1)
    assert np.bincount(test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    ]  # fmt: skip
    assert round(float(train.images.mean() / 255), 4) == 0.1307


def test_fashion_mnist(data_dir):
    test = load_fashion_mnist("test", data_dir)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert test.class_names[9] == "Ankle boot"


def test_omniglot_and_its_recipe(data_dir):
    test = load_omniglot("test", data_dir)
    assert test.images.shape == (13180, 105, 105, 3) and len(test.class_names) == 659
    assert np.bincount(test.labels).tolist() == [20] * 659
    groups = {test.group_names[g] for g in test.groups}
    recipe = read_recipe(entry_dir("siamese_omniglot") / "recipe.toml")
    assert set(recipe.data.test_groups) == groups
    assert not groups & set(recipe.data.validation_groups)


def test_a_data_set_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="--data-dir or TFDS_DATA_DIR.*data.name = 'digits'") as e:
        load_mnist("train", str(tmp_path / "nothing"))
    assert str(tmp_path / "nothing") in str(e.value) and "'mnist'" in str(e.value)


def test_image_batches_resume_and_cover_each_epoch(tmp_path):
    text = (entry_dir("lenet5_mnist") / "recipe.toml").read_text()
    path = tmp_path / "recipe.toml"
    path.write_text(text.replace('"mnist"', '"digits"').replace("= 5000", "= 200"))
    recipe = read_recipe(path)
    data = training_data(recipe)
    epochs = [
        np.concatenate([x for x, _ in data.batches(i, i + 1).as_numpy_iterator()]) for i in range(2)
    ]
    assert len(epochs[0]) == 1000 and np.any(epochs[0] != epochs[1])
    flat = [np.sort(e.reshape(1000, -1).sum(1)) for e in epochs]
    np.testing.assert_array_equal(*flat)  # the same images, in another order
    both = np.concatenate([x for x, _ in data.batches(0, 2).as_numpy_iterator()])
    np.testing.assert_array_equal(both, np.concatenate(epochs))
    assert sum(1 for _ in data.batches(0, 1)) == data.steps_per_epoch
    assert sum(len(x) for x, _ in data.validation.as_numpy_iterator()) == 200
    assert (
        sum(
            len(x)
            for x, _ in test_batches(recipe, labelled_images(recipe, "test")).as_numpy_iterator()
        )
        == 597
    )


def test_too_little_to_train_on():
    recipe = read_recipe(RECIPE)
    images = read_recipe(entry_dir("lenet5_mnist") / "recipe.toml")
    small = dataclasses.replace(images.data, name="digits", validation_images=1200)
    with pytest.raises(DataError, match="leaves nothing to train on.*has 1200 images"):
        training_data(dataclasses.replace(images, data=small))
    groups = dataclasses.replace(
        recipe.data, test_groups=("2",), validation_groups=tuple("013456789")
    )
    with pytest.raises(DataError):
        training_data(dataclasses.replace(recipe, data=groups))


def test_a_misspelt_group_is_not_trained_on(tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE.read_text().replace('["2", ', '["two", '))
    with pytest.raises(DataError, match=r"'digits' has no group \['two'\]"):
        training_data(read_recipe(tmp_path / "r.toml"))


def test_vectors_are_fractions(tmp_path):
    text = (entry_dir("tied_autoencoder_mnist") / "recipe.toml").read_text()
    path = pathlib.Path(tmp_path, "recipe.toml")
    path.write_text(text.replace('"mnist"', '"digits"').replace("784", "64").replace("5000", "200"))
    x, y = next(iter(training_data(read_recipe(path)).batches(0, 1)))
    assert x.shape == (128, 64) and float(np.max(x)) == 1.0
    np.testing.assert_array_equal(x, y)


def small_recipe(tmp_path, **changes):
    """LeNet-5's recipe on the embedded digits."""
    path = entry_dir("lenet5_mnist") / "recipe.toml"
    return read_recipe(path, {"data.name": "digits", "data.validation_images": 200, **changes})


def test_some_images_of_each_class_again_and_again(tmp_path):
    changes = {"data.images_per_class": 3, "data.images_per_epoch": 100}
    recipe = small_recipe(tmp_path, **changes).with_seed(4)
    data = training_data(recipe)
    assert data.sizes["images"] == 30 and data.steps_per_epoch == 2
    x, y = (np.concatenate(c) for c in zip(*data.batches(0, 1).as_numpy_iterator(), strict=True))
    assert len(x) == 100
    different = {image.tobytes() for image in x}
    assert len(different) == 30  # three whole rounds, and 10 of a fourth
    assert set(np.bincount(y[:30])) == {3}
    for start in (0, 30, 60):
        assert len({image.tobytes() for image in x[start : start + 30]}) == 30
    other = training_data(recipe.with_seed(5))
    again = next(other.batches(0, 1).as_numpy_iterator())[0]
    assert not different.issuperset(image.tobytes() for image in again)
    with pytest.raises(DataError, match="images_per_class = 500, and 'digits' has 89"):
        training_data(small_recipe(tmp_path, **{"data.images_per_class": 500}))


def test_small_samples(data_dir):
    recipe = read_recipe(entry_dir("lecun_1989") / "recipe.toml")
    parts = []
    for seed in (1, 2):
        one = recipe.with_seed(seed)
        data = training_data(one, data_dir)
        test = test_batches(one, labelled_images(one, "test", data_dir))
        batches = data.batches(0, 1), data.validation, test
        parts += [np.concatenate([x for x, _ in b.as_numpy_iterator()]) for b in batches]
    assert [len(part) for part in parts] == [3200, 160, 160] * 2
    assert parts[0].shape[1:] == (16, 16, 1) and parts[0].max() > 200
    sets = [{image.tobytes() for image in part} for part in parts]
    assert len(sets[0]) == 320 and not sets[0] & sets[1] and sets[0] != sets[3]
    with pytest.raises(DataError, match="wants 60001"):
        changes = {"data.training_images": 60001}
        training_data(read_recipe(entry_dir("lecun_1989") / "recipe.toml", changes), data_dir)


def test_shrinking_by_hand():
    images = np.random.default_rng(0).integers(0, 256, (2, 10, 10, 1), dtype="uint8")
    means = images[:, 1:9, 1:9].reshape(2, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    assert np.abs(shrink_images(images, 1, 4) - means).max() <= 0.5
    with pytest.raises(ValueError, match="have 2 left between margins of 4. Received: side=3"):
        shrink_images(images, 4, 3)
