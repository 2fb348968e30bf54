"""The user's own images: folders, arrays, sets of TFDS."""

import os
import shutil
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_shared.batching.pairs import (
    PairData,
    pair_test_batches,
    pair_training_data,
)
from keras_shared.batching.training_data import counts_in
from keras_shared.datasets import (
    DataError,
    from_arrays,
    from_folder,
    from_pairs,
    from_sentences,
    from_text,
)
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
        ({"x": x / 255, "y": y}, r"expected pixels from 0 to 255.*Use x \* 255"),
        ({"x": x, "y": y[:5]}, r"a label for each of 30 .*\(30,\). Received: y \(5,\)"),
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
    for numbers in (image / 255, image.astype("uint16") * 257, image.astype("int64")):
        for shape in ((6, 6, 1), (6, 6, 3), (7, 5, 3)):
            with pytest.raises(ValueError, match=f"as uint8. Received: {numbers.dtype} from"):
                fit_image(numbers, shape)


def recipe_on(path, **model):
    model = {"class_name": "LeNet5", "variant": "modern", **model}
    return recipe_from({"name": "mine", "model": model,
                        "data": {"name": "folder", "path": str(path)}})  # fmt: skip


def test_batches_of_a_folder_resume(photos):
    recipe = recipe_on(photos, num_classes=3)
    data = training_data(recipe)
    assert counts_in(data.sizes) == {"images": 18, "validation_images": 6}
    assert len(data.class_names) == 3
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


@pytest.mark.parametrize("count", [5, 8, 9, 10, 11])
def test_pairs_of_few_images_of_a_class(tmp_path, count):
    """What is too few to validate or to test is told before a training, and how many are enough."""
    x = np.random.default_rng(0).integers(0, 256, (3 * count, 8, 8), "uint8")
    file = tmp_path / "mine.npz"
    np.savez(file, x=x, y=np.arange(3 * count) % 3)
    train, test = (from_arrays(file, split, (8, 8, 1)) for split in ("train", "test"))
    data = PairData(name="arrays", path=str(file))
    if count < 10:
        with pytest.raises(DataError, match="two images of each class that validate.*ten images"):
            pair_training_data(train, data, 8, 1)
        return
    pair_training_data(train, data, 8, 1)
    pair_test_batches(test, data)
    with pytest.raises(DataError, match="two images of each class that test.*ten images"):
        pair_test_batches(test.part(np.arange(len(test.labels) - 1)), data)


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_ink_that_a_model_does_not_read_is_told_before_training(tmp_path, kind):
    def recipe(pixel_range, centered=True):
        model = {"class_name": "SiameseNet", "image_shape": [24, 24, 1], "centered": centered}
        data = {"name": "arrays" if kind == "npz" else "folder", "path": str(path)}
        return recipe_from({
            "name": "mine", "model": {**model, "pixel_range": pixel_range},
            "data": {**data, "pairs_per_epoch": 64, "validation_pairs": 8, "test_pairs": 8},
        })  # fmt: skip

    pixels = np.zeros((24, 24, 24), "uint8")
    pixels[:, 8:16, 8:16] = np.random.default_rng(0).integers(100, 256, (24, 8, 8))
    path = tmp_path / ("mine.npz" if kind == "npz" else "mine")
    if kind == "npz":
        np.savez(path, x=pixels, y=np.arange(24) % 2)
    else:
        for number, image in enumerate(pixels):
            (path / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path / "ab"[number % 2] / f"{number}.png")
    with pytest.warns(UserWarning, match="100% of 20 .* dark ground, .*reads dark ink"):
        training_data(recipe([1.0, 0.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training_data(recipe([0.0, 1.0]))
        training_data(recipe([1.0, 0.0], centered=False))


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
    with pytest.raises(DataError, match=r"one image or more.*\(0, 8, 8, 1\)"):
        from_arrays(tmp_path / "mine.npz", "train", SHAPE)


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Test"),
        ("training_set", "test_set"),
        ("TRAIN", "testing set"),
        ("train_images", "test-images"),
        ("train_dataset", "dataset_test"),
        ("train", "Testing"),
        ("train imgs", "test_data_set"),
    ],
)
def test_splits_under_other_names(photos, tmp_path, names):
    for name, kept in zip(names, (range(7), range(7, 10)), strict=True):
        for klass in ("ant", "bee"):
            for i in kept:
                draw(tmp_path / "parted" / name / klass / f"{i}.png")
    train, test = (from_folder(tmp_path / "parted", split, SHAPE) for split in ("train", "test"))
    assert train.class_names == ("ant", "bee") and (len(train.images), len(test.images)) == (14, 6)
    for klass in ("ant", "bee"):
        draw(tmp_path / "parted" / "Val images" / klass / "0.png")
    train = from_folder(tmp_path / "parted", "train", SHAPE)
    assert (len(train.images), len(train.held_out)) == (16, 2)


@pytest.mark.parametrize("names", [("dev", "eval"), ("Train", "Val"), ("Eval", "Train")])
def test_folders_of_folders_that_are_named_as_splits_are_no_classes(tmp_path, names):
    for name, classes in zip(names, (("ant", "bee"), ("ant",)), strict=True):
        for klass in classes:
            for i in range(5):
                draw(tmp_path / "parted" / name / klass / f"{i}.png")
    with pytest.raises(DataError, match=r"look like splits, and .*\['ant'.*Name them 'train'"):
        from_folder(tmp_path / "parted", "train", SHAPE)


def test_classes_may_be_called_as_splits_are(tmp_path):
    for name in ("Holdout", "Test"):
        for i in range(5):
            draw(tmp_path / "terms" / name / f"{i}.png")
    assert from_folder(tmp_path / "terms", "train", SHAPE).class_names == ("Holdout", "Test")


def test_classes_may_hold_folders_or_be_called_train(photos, tmp_path):
    for name in ("Bus", "Car", "Train"):
        for i in range(5):
            draw(tmp_path / "vehicles" / name / "images" / f"{i}.png")
    assert from_folder(tmp_path / "vehicles", "train", SHAPE).class_names == ("Bus", "Car", "Train")
    for name, count in (("val", 1), ("validation", 2), ("train", 4), ("test", 2)):
        for klass in ("ant", "bee"):
            for i in range(count):
                draw(tmp_path / "parted" / name / klass / f"{i}.png")
    assert (
        len(from_folder(tmp_path / "parted", "train", SHAPE).held_out) == 4
    )  # those of `validation`, whose name comes first


def test_links_and_hidden_folders(photos):
    (photos / "ant" / "gone.png").symlink_to(photos / "nowhere.png")
    (photos / "ant" / "more").symlink_to(photos / "bee")
    (photos / "bee" / "linked.png").symlink_to(photos / "cat" / "0.png")
    shutil.copytree(photos / "cat", photos / "cat" / ".ipynb_checkpoints")
    with pytest.warns(UserWarning, match="2 files are left out: .*gone.png.*more"):
        train = from_folder(photos, "train", SHAPE)
    with pytest.warns(UserWarning, match="2 files are left out"):
        test = from_folder(photos, "test", SHAPE)
    assert len(train.images) + len(test.images) == 30  # the linked picture stands for cat's


@pytest.mark.parametrize("split", ["valid", "validation", "Train", None])
def test_there_are_two_splits(photos, tmp_path, split):
    file = tmp_path / "mine"
    np.savez(f"{file}.npz", x=np.zeros((20, 8, 8), "uint8"), y=np.arange(20) % 2)
    for read in (
        lambda: from_folder(photos, split, SHAPE),
        lambda: from_arrays(f"{file}.npz", split, SHAPE),
        lambda: from_pairs(file, split, SHAPE),
        lambda: from_sentences(file, split),
        lambda: from_text(file, split),
    ):
        with pytest.raises(DataError, match=f"'test'. Received: split={split!r}"):
            read()


@pytest.mark.parametrize("shape", [(8, 8, 4), (8, 8), (0, 8, 1)])
def test_shapes_that_no_image_has(photos, shape):
    with pytest.raises(DataError, match="height, width and 1 or 3 channels. Received"):
        from_folder(photos, "train", shape)


X = np.arange(20 * 64).reshape(20, 8, 8) % 251
Y = np.arange(20) % 2


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X, "y": np.eye(2, dtype=int)[Y]}, r"y \(20, 2\). Of labels that are one-hot take"),
        ({"x": X / 255, "y": Y}, r"from 0 to 0.98.*Use x \* 255"),
        ({"x": (X > 99).astype("uint8"), "y": Y}, r"uint8 from 0 to 1. Use x \* 255"),
        ({"x": X / 255 + 0.02, "y": Y}, r"Use x \* \(255 / 1.00039\)"),
        ({"x": X / 255 - 0.5, "y": Y}, r"Use \(x \+ 0.5\) \* 255"),
        ({"x": X - 128.0, "y": Y}, r"Use x \+ 128.0 if 0 is grey"),
        ({"x": (X - 125) / 72, "y": Y}, "They look standardised"),
        ({"x": X / 127.5 - 1, "y": Y}, r"Use \(x \+ 1\) \* 127.5"),
        ({"x": (X * 257).astype("uint16"), "y": Y}, r"to 64250. Use x \* \(255 / 64250\)"),
        ({"x": X * 2.0 - 250, "y": Y}, "Give the pixels as a picture file has them"),
        ({"x": np.where(X > 3, X, np.nan), "y": Y}, "Replace what is no number"),
        ({"x": X, "y": Y, "class_names": ["a", "a"]}, "a class_name of its own for each"),
    ],
)
def test_arrays_that_are_no_images_with_labels(tmp_path, arrays, said):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=said):
        from_arrays(tmp_path / "x.npz", "train", SHAPE)


def test_arrays_that_validate(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 8), "uint8")
    y, file = np.arange(30) % 3, tmp_path / "mine.npz"
    parts = {"train": slice(0, 18), "val": slice(18, 24), "test": slice(24, 30)}
    arrays = {
        f"{key}_{name}": (x, y)[key == "y"][own] for name, own in parts.items() for key in "xy"
    }
    np.savez(file, **arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, test = (from_arrays(file, split, (4, 4, 1)) for split in ("train", "test"))
    assert train.held_out.tolist() == list(range(18, 24)) and train.images.shape == (24, 4, 4, 1)
    np.testing.assert_array_equal(train.images.sources[..., 0], x[:24])
    np.testing.assert_array_equal(train.labels, y[:24])
    np.testing.assert_array_equal(test.images.sources[..., 0], x[24:])
    np.savez(file, **arrays, x_more=x, y_val_old=y)
    with pytest.warns(UserWarning, match=r"\['x_more', 'y_val_old'\] are not read"):
        from_arrays(file, "train", (8, 8, 1))
    np.savez(file, x=x, y=y, x_train=x)
    with pytest.warns(UserWarning, match=r"\['x_train'\] are not read.*Read: \['x', 'y'\]"):
        from_arrays(file, "train", (8, 8, 1))
    np.savez(file, x=x, y=y, y_val=np.array(["a", "b"]))
    with pytest.warns(UserWarning, match=r"\['y_val'\] are not read"):
        assert from_arrays(file, "train", (8, 8, 1)).class_names == ("0", "1", "2")
    np.savez(file, **arrays | {"x_val": x[:6]})
    with pytest.warns(UserWarning, match="6 validation images are among those that train too"):
        from_arrays(file, "train", (8, 8, 1))
    np.savez(file, **arrays | {"x_val": x[18:24, :7]})
    with pytest.raises(DataError, match="of one size"):
        from_arrays(file, "train", (8, 8, 1))


def test_arrays_that_are_odd(tmp_path):
    more = {
        "years": np.array(["1998"] * 20),
        "y_note": np.array([500]),
        "class_names": [b"a", b"b"],
    }
    np.savez(tmp_path / "x.npz", x=X % 16, y=Y, **more)
    with pytest.warns(UserWarning, match="go up to 15, of 255: the images are almost black"):
        assert from_arrays(tmp_path / "x.npz", "train", SHAPE).class_names == ("a", "b")
    np.savez(tmp_path / "y.npz", x_train=X, y_train=Y, x_test=X[:4], y_test=Y[:4])
    with pytest.warns(UserWarning, match="4 test images are among those that train too"):
        from_arrays(tmp_path / "y.npz", "train", SHAPE)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": X.astype("uint8"), "x_test": X[:4].astype("float32")},
        {"x_train": np.asfortranarray(X), "x_test": X[:4]},
        {"x_train": X[..., None], "x_test": X[:4]},
        {"x": np.repeat(X[:5], 4, axis=0)},
    ],
)
def test_copies_among_train_and_test_in_any_form(tmp_path, arrays):
    labels = {"y_train": Y, "y_test": Y[:4]} if "x_test" in arrays else {"y": Y}
    np.savez(tmp_path / "x.npz", **arrays, **labels)
    with pytest.warns(UserWarning, match="4 test images are among those that train too"):
        from_arrays(tmp_path / "x.npz", "train", SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        assert len(from_arrays(tmp_path / "x.npz", "test", SHAPE).images) == 4
