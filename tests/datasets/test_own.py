"""The user's own images: folders, arrays, sets of TFDS."""

import os
import shutil
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_shared.datasets import DataError, from_arrays, from_folder
from keras_shared.datasets.lazy_images import fit_image
from keras_shared.recipes import RecipeError, recipe_from
from keras_shared.training import training_data
from keras_shared.training.build import test_data

RANDOM = np.random.default_rng(5)
SHAPE = (12, 12, 1)


def draw(path, grey=None, size=(20, 14), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = RANDOM.integers(0, 256, (*size[::-1], 3), "uint8")
    pixels = noise if grey is None else np.full_like(noise, grey)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def photos(tmp_path):
    """Three classes with ten pictures each: colour and grey, of several sizes and formats."""
    folder = tmp_path / "photos"
    for name in ("ant", "bee", "cat"):
        for i in range(10):
            suffix = ("png", "jpg", "gif", "bmp", "webp")[i % 5]
            draw(folder / name / f"{i}.{suffix}", size=(20 + i, 14), mode=("RGB", "L")[i % 2])
    return folder


def names_of(images):
    return {os.path.basename(os.path.dirname(f)) + "/" + os.path.basename(f)
            for f in images.images.sources}  # fmt: skip


def test_a_seed_draws_the_splits(photos):
    train, test = (from_folder(photos, split, SHAPE) for split in ("train", "test"))
    assert train.class_names == ("ant", "bee", "cat")
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    assert np.bincount(train.labels[train.held_out]).tolist() == [2, 2, 2]
    assert not names_of(train) & names_of(test) and len(names_of(train) | names_of(test)) == 30
    assert names_of(from_folder(photos, "test", SHAPE)) == names_of(test)
    assert names_of(from_folder(photos, "test", SHAPE, seed=2)) != names_of(test)
    pixels = train.images.read()
    assert pixels.shape == (24, *SHAPE) and pixels.dtype == np.uint8 and pixels.std() > 5
    assert from_folder(photos, "test", (8, 9, 3)).images.read().shape == (6, 8, 9, 3)


def test_folders_are_the_splits_where_they_exist(photos, tmp_path):
    mine = tmp_path / "mine"
    for split, numbers in (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 10))):
        for name in ("ant", "bee", "cat"):
            for i in numbers:
                (file,) = (photos / name).glob(f"{i}.*")
                (mine / split / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, mine / split / name)
    train, test = (from_folder(mine, split, SHAPE) for split in ("train", "test"))
    assert len(train.labels) == 24 and len(test.labels) == 6
    held_out = {os.path.basename(f)[0] for f in train.images.sources[train.held_out]}
    assert held_out == {"6", "7"}
    shutil.rmtree(mine / "test" / "cat")
    with pytest.raises(DataError, match=r"differ in the classes \['cat'\]"):
        from_folder(mine, "train", SHAPE)
    shutil.rmtree(mine / "test")
    with pytest.raises(DataError, match=r"holds the split \['train', 'val'\]: expected"):
        from_folder(mine, "train", SHAPE)


def test_what_is_wrong_with_a_folder_is_named(photos, tmp_path):
    (photos / "ant" / "notes.txt").write_text("no picture")
    (photos / "ant" / "cut.png").write_bytes((photos / "bee" / "0.png").read_bytes()[:60])
    shutil.copy(photos / "bee" / "1.jpg", photos / "cat" / "copy.jpg")
    (photos / ".DS_Store").write_text("")
    with pytest.warns(UserWarning) as said:
        images = from_folder(photos, "train", SHAPE)
    text = " ".join(str(warning.message) for warning in said)
    assert "2 files are left out" in text and "notes.txt" in text and "cut.png" in text
    assert "1 files are copies of others" in text and "copy.jpg" in text
    assert len(images.labels) == 24
    for number in range(1, 10):
        for file in (photos / "cat").glob(f"{number}.*"):
            file.unlink()
    (photos / "cat" / "copy.jpg").unlink()
    with pytest.raises(DataError, match=r"at least 3 images. Fewer has: 'cat' \(1\)"):
        from_folder(photos, "train", SHAPE)
    with pytest.raises(DataError, match="There is no folder"):
        from_folder(tmp_path / "nothing", "train", SHAPE)
    with pytest.raises(DataError, match="has no sub-folders: expected one for each class"):
        from_folder(photos / "bee", "train", SHAPE)


def test_the_same_picture_in_two_splits(photos, tmp_path):
    mine = tmp_path / "mine"
    for split in ("train", "test"):
        shutil.copytree(photos, mine / split)
    with pytest.warns(UserWarning, match="30 pictures are in two splits"):
        from_folder(mine, "train", SHAPE)


def test_imbalance(tmp_path):
    for name, count in (("many", 45), ("few", 4)):
        for i in range(count):
            draw(tmp_path / "p" / name / f"{i}.png")
    with pytest.warns(UserWarning, match="'many' has 45 images and 'few' 4"):
        from_folder(tmp_path / "p", "train", SHAPE)


def test_many_classes_take_time_in_proportion(tmp_path):
    for i in range(400):
        draw(tmp_path / "few" / f"c{i}" / "0.bmp", size=(2, 2))
    shutil.copytree(tmp_path / "few", tmp_path / "train" / "train")
    shutil.copytree(tmp_path / "few", tmp_path / "train" / "test")

    def seconds():
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from_folder(tmp_path / "train", "train", SHAPE)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(2)) < 10  # 800 files; no class looks at all others


def test_arrays(tmp_path):
    file = tmp_path / "mine.npz"
    x, y = RANDOM.integers(0, 256, (30, 12, 12), "uint8"), np.arange(30) % 3
    np.savez(file, x=x, y=y, class_names=["ant", "bee", "cat"])
    train, test = (from_arrays(file, split, SHAPE) for split in ("train", "test"))
    assert train.class_names == ("ant", "bee", "cat")
    assert len(train.labels) == 24 and np.bincount(test.labels).tolist() == [2, 2, 2]
    np.savez(file, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    np.testing.assert_array_equal(from_arrays(file, "test", SHAPE).images[..., 0], x[20:])
    for arrays, said in (
        ({"a": x}, r"holds \['a'\]: expected x and y"),
        ({"x": x / 255, "y": y}, "expected pixels from 0 to 255.*Multiply fractions by 255"),
        ({"x": x, "y": y[:5]}, r"x \(30, 12, 12, 1\), y \(5,\)"),
        ({"x": x, "y": y / 2}, "labels as whole numbers"),
        ({"x": x, "y": y, "class_names": ["one"]}, "1 class_names for labels up to 2"),
    ):
        np.savez(file, **arrays)
        with pytest.raises(DataError, match=said):
            from_arrays(file, "train", SHAPE)
    file.write_text("no arrays")
    with pytest.raises(DataError, match="not a .npz file"):
        from_arrays(file, "train", SHAPE)


def test_fitting_by_hand():
    image = RANDOM.integers(0, 256, (6, 6, 3), "uint8")
    grey = np.round(image @ [0.299, 0.587, 0.114])
    np.testing.assert_array_equal(fit_image(image, (6, 6, 1))[..., 0], grey)
    np.testing.assert_array_equal(fit_image(image[..., :1], (6, 6, 3)), image[..., [0, 0, 0]])
    flat = fit_image(np.full((40, 30, 1), 77, "uint8"), (7, 5, 1))
    assert flat.shape == (7, 5, 1) and np.all(flat == 77)


def recipe_on(path, **model):
    model = {"class_name": "LeNet5", "variant": "modern", **model}
    return recipe_from({"name": "mine", "model": model,
                        "data": {"name": "folder", "path": str(path)}})  # fmt: skip


def test_batches_of_a_folder_resume(photos):
    recipe = recipe_on(photos, num_classes=3)
    data = training_data(recipe)
    assert data.sizes == {"images": 18, "validation_images": 6} and len(data.class_names) == 3
    first, again = (
        np.concatenate([x for x, _ in data.batches(0, 1).as_numpy_iterator()]) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == (18, 28, 28, 1)
    second = np.concatenate([x for x, _ in data.batches(1, 2).as_numpy_iterator()])
    assert np.any(first != second)
    both = np.concatenate([x for x, _ in data.batches(0, 2).as_numpy_iterator()])
    np.testing.assert_array_equal(both, np.concatenate([first, second]))
    assert sum(len(x) for x, _ in test_data(recipe)[1].as_numpy_iterator()) == 6


def test_pairs_of_a_folder(photos):
    recipe = recipe_from({
        "name": "mine", "model": {"class_name": "SiameseNet", "image_shape": [16, 16, 1]},
        "data": {"name": "folder", "path": str(photos), "pairs_per_epoch": 64,
                 "validation_pairs": 20, "test_pairs": 20},
    })  # fmt: skip
    data = training_data(recipe)
    images, same = next(data.batches(0, 1).as_numpy_iterator())
    assert images["image_a"].shape == (64, 16, 16, 1) and same["distance"].mean() == 0.5
    assert data.sizes["groups"] == 3
    test = next(test_data(recipe)[1].as_numpy_iterator())
    assert test[1]["distance"].mean() == 0.5


def test_recipes_of_own_data(photos):
    for data, said in (
        ({"name": "folder"}, "`data.path` is missing"),
        ({"name": "foldr", "path": "x"}, "no data set named 'foldr'. Did you mean 'folder'"),
    ):
        with pytest.raises(RecipeError, match=said):
            recipe_from({"name": "mine", "model": {"class_name": "LeNet5"}, "data": data})
    odd = recipe_from({
        "name": "mine", "model": {"class_name": "TiedAutoencoder", "input_dim": 65},
        "data": {"name": "folder", "path": str(photos)},
    })  # fmt: skip
    with pytest.raises(RecipeError, match="takes none of a known size"):
        training_data(odd)


def test_any_set_of_tfds(data_dir):
    recipe = recipe_from({
        "name": "mine", "model": {"class_name": "LeNet5", "variant": "modern"},
        "data": {"name": "tfds", "path": "fashion_mnist", "validation_images": 100},
    })  # fmt: skip
    split, _ = test_data(recipe, data_dir)
    assert split.class_names[9] == "Ankle boot" and split.images.shape == (10000, 28, 28, 1)


def test_images_that_validate_never_train(photos):
    recipe = recipe_on(photos, num_classes=3).with_changes({"data.validation_images": 5})
    with pytest.raises(DataError, match="says by itself which images validate.*Leave it out"):
        training_data(recipe)


def test_pipes_and_control_characters_in_a_folder(photos):
    os.mkfifo(photos / "ant" / "pipe.png")
    draw(photos / "bee" / "ok\x1b[31m.png")
    (photos / "cat" / "no\x1b[31m.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"1 files are left out: .*no\\x1b\[31m.png is not"):
        train, test = (from_folder(photos, split, SHAPE) for split in ("train", "test"))
    assert len(train.images) + len(test.images) == 31


def test_labels_without_end(tmp_path):
    x, many = np.zeros((20, 8, 8), "uint8"), np.arange(20) % 2
    many[0] = 10**12
    for y, said in ((many, "labels go up to 1,000,000,000,000"), (np.array(["a"] * 20), "labels"),
                    (np.array(5), "a label for each"), (many[:0], "a label for each")):  # fmt: skip
        np.savez(tmp_path / "mine.npz", x=x, y=y)
        with pytest.raises(DataError, match=said):
            from_arrays(tmp_path / "mine.npz", "train", SHAPE)
    np.savez(tmp_path / "mine.npz", x=x[:0], y=many[:0])
    with pytest.raises(DataError, match="a label for each"):
        from_arrays(tmp_path / "mine.npz", "train", SHAPE)
