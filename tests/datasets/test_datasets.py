import os

import numpy as np
import pytest

from keras_shared.datasets import (
    DATASETS,
    OWN,
    DataError,
    LabelledImages,
    SeveralLabels,
    TextStream,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    load_omniglot,
)
from keras_shared.presets.names import entry_dir
from keras_shared.recipes import read_recipe


def load_tfds_set(split, data_dir):
    return OWN["tfds"].dataset("mnist", (28, 28, 1), 1).load(split, data_dir)


def test_digits_are_split_without_overlap():
    train, test = load_digits("train"), load_digits("test")
    assert train.images.shape == (1200, 8, 8, 1) and test.images.shape == (597, 8, 8, 1)
    assert train.images.dtype == np.uint8 and train.images.max() == 255


@pytest.mark.slow
def test_mnist(data_dir):
    train, test = load_mnist("train", data_dir), load_mnist("test", data_dir)
    assert train.images.shape == (60000, 28, 28, 1) and test.images.shape == (10000, 28, 28, 1)
    assert np.bincount(test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    ]  # fmt: skip
    assert round(float(train.images.mean() / 255), 4) == 0.1307


@pytest.mark.slow
def test_fashion_mnist(data_dir):
    test = load_fashion_mnist("test", data_dir)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert test.class_names[9] == "Ankle boot"


@pytest.mark.slow
def test_omniglot_and_its_recipe(data_dir):
    test = load_omniglot("test", data_dir)
    assert test.images.shape == (13180, 105, 105, 3) and len(test.class_names) == 659
    assert np.bincount(test.labels).tolist() == [20] * 659
    groups = {test.group_names[g] for g in test.groups}
    recipe = read_recipe(entry_dir("siamese_omniglot") / "recipe.toml")
    assert set(recipe.data.test_groups) == groups
    assert not groups & set(recipe.data.validation_groups)


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_each_says_where_it_comes_from_and_loads_what_it_says(name):
    dataset = DATASETS[name]
    assert dataset.title and dataset.source
    assert dataset.licence or name in ("sst2", "trec")  # whose authors state none
    if name != "digits" and not os.path.isdir(os.environ.get("TFDS_DATA_DIR", "")):
        pytest.skip("real data sets: TFDS_DATA_DIR names no folder")
    split = dataset.load("test", None)
    assert isinstance(split, dataset.kind)
    if isinstance(split, TextStream):
        assert len(split.text) > 10_000
        return
    if isinstance(split, SeveralLabels):
        assert split.labels.shape == (len(split.images), len(split.class_names))
        for labels, names in zip(split.labels.T, split.class_names.values(), strict=True):
            assert len(names) > labels.max()
        return
    of_images = isinstance(split, LabelledImages)
    assert len(split.images if of_images else split.sentences) == len(split.labels) > 100
    assert len(split.class_names) > max(split.labels)
    assert not of_images or len(split.groups) == len(split.class_names)


def test_a_data_set_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="--data-dir or TFDS_DATA_DIR.*data.name = 'digits'") as e:
        load_mnist("train", str(tmp_path / "nothing"))
    assert str(tmp_path / "nothing") in str(e.value) and "'mnist'" in str(e.value)


@pytest.mark.parametrize("split", ["tests", "Train", "validation", "small1", None, ["train"]])
@pytest.mark.parametrize("load", [*(set.load for set in DATASETS.values()), load_tfds_set])
def test_there_are_two_splits_of_each(load, split, tmp_path):
    with pytest.raises(DataError, match="`split` must be 'train'.*'test'. Received: split=") as e:
        load(split, str(tmp_path / "nothing"))
    assert str(e.value).endswith(f"split={split!r}")


def test_backgrounds_of_omniglot(tmp_path):
    with pytest.raises(DataError, match="'small1' or 'small2'. Received: background='small3'"):
        load_omniglot("train", str(tmp_path), background="small3")
