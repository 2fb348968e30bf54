"""Pairs of one's own pictures, listed in a CSV file."""

import contextlib
import json
import os
import shutil
import warnings

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from mutations import fuzzed, mutated

from keras_shared.batching import pair_batches, triplet_batches
from keras_shared.batching.training_data import counts_in
from keras_shared.cli import main
from keras_shared.datasets import DataError, LabelledImages, from_pairs
from keras_shared.errors import KerasSharedError
from keras_shared.recipes import RecipeError, read_recipe
from keras_shared.training import training_data

SHAPE = (8, 8, 1)


def picture(path, grey):
    path.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(np.full((10, 12), grey, "uint8")).save(path)


@pytest.fixture
def listed(tmp_path):
    """Forty pictures of their own grey, each in one pair; every second pair is the same."""
    rows = ["left,right,same"]
    for i in range(20):
        picture(tmp_path / "a" / f"{i}.png", 4 * i)
        picture(tmp_path / "b" / f"{i}.png", 4 * i + 2)
        rows.append(f"a/{i}.png, b/{i}.png, {'same' if i % 2 else 'different'}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n\n")
    return tmp_path / "pairs.csv"


def greys(split, side):
    return split.images.read(getattr(split, side))[:, 0, 0, 0]


def test_a_list_of_pairs(listed):
    train, test = (from_pairs(listed, split, SHAPE) for split in ("train", "test"))
    assert len(train.same) == 16 and len(test.same) == 4 and len(train.held_out) == 4
    for split in (train, test):
        np.testing.assert_array_equal(greys(split, "right"), greys(split, "left") + 2)
        np.testing.assert_array_equal(split.same, greys(split, "left") // 4 % 2 == 1)
    assert test.same.mean() == train.same.mean() == train.same[train.held_out].mean() == 0.5
    assert not set(greys(train, "left")) & set(greys(test, "left"))
    again = from_pairs(listed, "train", SHAPE)
    np.testing.assert_array_equal(greys(again, "left"), greys(train, "left"))
    other = from_pairs(listed, "train", SHAPE, seed=2)
    assert not np.array_equal(greys(other, "left"), greys(train, "left"))


def test_splits_that_the_list_names(listed):
    rows = listed.read_text().strip().split("\n")[1:]
    names = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4
    listed.write_text("\n".join(f"{row},{name}" for row, name in zip(rows, names, strict=True)))
    train, test = (from_pairs(listed, split, SHAPE) for split in ("train", "test"))
    assert greys(test, "left").tolist() == [64, 68, 72, 76]
    assert greys(train.part(train.held_out), "left").tolist() == [48, 52, 56, 60]


def test_each_pair_comes_once_in_each_epoch(listed):
    recipe = read_recipe(written(listed))
    data = training_data(recipe)
    assert counts_in(data.sizes) == {"images": 32, "pairs_per_epoch": 12, "validation_pairs": 4}
    epochs = []
    for number in (0, 1):
        rows = [
            (int(a[0, 0, 0]), int(b[0, 0, 0]), float(same))
            for images, truth in data.batches(number, number + 1)
            for a, b, same in zip(
                images["image_a"].numpy(), images["image_b"].numpy(), truth["distance"].numpy()
            )
        ]
        assert len(rows) == len(set(rows)) == 12
        assert all(b == a + 2 and same == a // 4 % 2 for a, b, same in rows)
        epochs.append(rows)
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1])
    both = [int(a[0, 0, 0]) for images, _ in data.batches(0, 2) for a in images["image_a"].numpy()]
    assert both == [row[0] for row in epochs[0] + epochs[1]]  # a resumed run sees the same


def written(listed, more=""):
    recipe = listed.parent / "recipe.toml"
    recipe.write_text(
        f"""name = "own"
[model]
class_name = "SiameseNet"
image_shape = [8, 8, 1]
[data]
name = "pairs"
path = "{listed}"
{more}
[training]
epochs = 1
batch_size = 5
"""
    )
    return recipe


def test_keys_that_draw_pairs_are_refused(listed):
    with pytest.raises(RecipeError, match="'pairs_per_epoch'.* draw pairs, and 'pairs' lists them"):
        read_recipe(written(listed, "pairs_per_epoch = 10"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a/1.png,b/1.png", "line 2 has 2 columns"),
        ("a/1.png,b/1.png,maybe", "line 2: same is 'maybe', expected 1 or 0"),
        ("a/1.png,b/none.png,1", "line 2: there is no file .*none.png"),
        ("a/1.png,b/1.png,1,later", "line 2: the split is 'later'"),
        ("a/1.png,b/1.png,1,train", "name the split in each row, or in none"),
    ],
)
def test_a_wrong_row_is_named(listed, row, said):
    lines = listed.read_text().split("\n")
    listed.write_text("\n".join([lines[0], row, *lines[1:]]))
    with pytest.raises(DataError, match=said):
        from_pairs(listed, "train", SHAPE)


@pytest.mark.parametrize(
    "title",
    ["same", "Same?", "is_same", "same person", "label", "Match", "isMatch", "matches", "y_true"],
)
def test_a_header_names_the_answer(listed, title):
    plain = from_pairs(listed, "train", SHAPE)
    listed.write_text(listed.read_text().replace("left,right,same", f"left, right, {title}"))
    np.testing.assert_array_equal(from_pairs(listed, "train", SHAPE).same, plain.same)


@pytest.mark.parametrize(
    "title",
    [
        "distance",
        "different",
        "Dissimilar",
        "not_same",
        "same=0",
        "sameness_distance",
        "same_or_not",
    ],
)
def test_a_header_that_may_mean_the_reverse_is_refused(listed, title):
    for rest in ("", ",split"):
        listed.write_text(f"img1,img2,{title}{rest}\na/1.png,b/1.png,1")
        said = f"line 1 names the third column '{title}', expected 'same', 'match' or 'label', with"
        with pytest.raises(DataError, match=said):
            from_pairs(listed, "train", SHAPE)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a/xx,b/yy,1", "line 1: there is no file .*xx"),
        ("xx,yy,1", "line 1: there is no file .*xx"),
        ("xx,yy,No", "line 1: there is no file .*xx"),
        ("a/xx,b/yy,same", "line 1: there is no file .*xx"),
        ("xx.png,yy.png,different", "line 1: there is no file .*xx"),
        ("a/1.png,b/1.png,maybe", "line 1: same is 'maybe', expected 1 or 0"),
        ("a/1.png;b/1.png;1", "line 1 has 1 columns"),
    ],
)
def test_a_wrong_first_row_is_no_header(listed, row, said):
    listed.write_text(listed.read_text().replace("left,right,same", row))
    with pytest.raises(DataError, match=said):
        from_pairs(listed, "train", SHAPE)


def test_files_that_are_no_lists(tmp_path, listed):
    with pytest.raises(DataError, match="There is no file .*none.csv"):
        from_pairs(tmp_path / "none.csv", "train", SHAPE)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="binary.csv is no text: it holds NUL bytes"):
        from_pairs(tmp_path / "binary.csv", "train", SHAPE)
    (tmp_path / "open.csv").write_text('a.png,b.png,1\n"c.png,d.png,0\ne.png,f.png,1\n')
    with pytest.raises(DataError, match="pairs, image_a,image_b,same: the row from line 2 on"):
        from_pairs(tmp_path / "open.csv", "train", SHAPE)
    (tmp_path / "long.csv").write_text("a" * 200_000)
    with pytest.raises(DataError, match="is not a CSV file of pairs.* field larger than"):
        from_pairs(tmp_path / "long.csv", "train", SHAPE)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="is no regular file"):
        from_pairs(tmp_path / "pipe.csv", "train", SHAPE)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="0 pairs and needs some that show the same"):
        from_pairs(tmp_path / "empty.csv", "train", SHAPE)
    listed.write_text(listed.read_text().replace("different", "same"))
    with pytest.raises(DataError, match="some that show the same and some that do not"):
        from_pairs(listed, "train", SHAPE)


def test_pictures_that_cannot_be_read_or_that_train_and_test(listed):
    (listed.parent / "a" / "3.png").write_text("no picture")
    with pytest.warns(UserWarning, match="pairs with 1 files are left out: .*3.png is not a pict"):
        train = from_pairs(listed, "train", SHAPE)
    assert len(train.same) + len(from_pairs(listed, "test", SHAPE).same) == 19
    lines = listed.read_text().split("\n")
    listed.write_text("\n".join([*lines, *(f"a/{i}.png,a/0.png,{i % 2}" for i in range(5, 15))]))
    with pytest.warns(UserWarning, match="pictures train and test, which flatters the test"):
        from_pairs(listed, "train", SHAPE)


def split_named(listed):
    """The same pairs, with their split: those from number 16 on test."""
    rows = listed.read_text().strip().split("\n")[1:]
    return [f"{row},{'train' if i < 16 else 'test'}" for i, row in enumerate(rows)]


@pytest.mark.parametrize("way", ["copied", "by another path", "linked", "absolute"])
def test_one_picture_under_two_names_is_one(listed, way):
    folder, rows = listed.parent, split_named(listed)
    listed.write_text("\n".join(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_pairs(listed, "train", SHAPE)
    name = {"by another path": "b/../a/1.png", "absolute": str(folder / "a" / "1.png")}.get(way)
    if way == "copied":
        shutil.copy(folder / "a" / "1.png", folder / "copy.png")
    elif way == "linked":
        (folder / "copy.png").symlink_to("a/1.png")
    rows[17] = rows[17].replace("a/17.png", name or "copy.png")
    listed.write_text("\n".join(rows))
    both = "1 pictures train and test.*a/1.png" + ("" if way == "absolute" else " = ")
    with pytest.warns(UserWarning, match=both):
        train = from_pairs(listed, "train", SHAPE)
    assert len(train.images) == 39
    assert greys(from_pairs(listed, "test", SHAPE), "left").tolist() == [64, 4, 72, 76]
    listed.write_text("\n".join(row for i, row in enumerate(rows) if i != 17))  # as it advises
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_pairs(listed, "train", SHAPE)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a/1.png,b/1.png,0", "lines 3 and 22 answer the same pair with yes and no"),
        ("b/1.png,a/1.png,0", "lines 3 and 22 answer the same pair with yes and no"),
        ("b/../b/2.png,copy.png,1", "lines 4 and 22 answer the same pair with yes and no"),
        ("a/3.png,a/3.png,no", "line 22 calls a picture different from itself"),
        ("a/2.png,copy.png,different", "line 22 calls a picture different from itself, or from"),
    ],
)
def test_answers_that_contradict_each_other(listed, row, said):
    shutil.copy(listed.parent / "a" / "2.png", listed.parent / "copy.png")
    right = ["b/1.png,a/1.png,1", "a/2.png,copy.png,1", "a/1.png,b/1.png,same"]
    rows = listed.read_text().strip().split("\n")
    listed.write_text("\n".join([*rows, row, *right]))
    with pytest.raises(DataError, match=f"{said}.*Correct these rows, or leave them out"):
        from_pairs(listed, "test", SHAPE)
    listed.write_text("\n".join([*rows, *right]))
    from_pairs(listed, "test", SHAPE)


@pytest.mark.slow
def test_fine_tune_on_listed_pairs(listed, monkeypatch, capsys):
    monkeypatch.chdir(listed.parent)
    call = ["fine-tune", "siamese_omniglot", "--data", "pairs.csv", "--set", "training.epochs=1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(call) == 0, capsys.readouterr().err
        assert main(["evaluate", "runs/siamese_omniglot_pairs"]) == 0, capsys.readouterr().err
    metrics = json.loads((listed.parent / "runs/siamese_omniglot_pairs/metrics.json").read_text())
    assert metrics["seeds"][0]["test"]["pairs"] == 4
    assert (
        "own pairs of images, the file 'pairs.csv'"
        in (listed.parent / "runs/siamese_omniglot_pairs/README.md").read_text()
    )
    assert main(["fine-tune", "lenet5_modern_mnist", "--data", "pairs.csv"]) == 1
    assert "for classification. Received: pairs.csv" in capsys.readouterr().err


def labelled(per_class):
    """Images that hold their own number."""
    labels = np.repeat(np.arange(len(per_class)), per_class)
    images = np.arange(len(labels), dtype="uint8")[:, None, None, None] * np.ones(SHAPE, "uint8")
    names = tuple("abcdefgh"[: len(per_class)])
    groups = np.arange(len(per_class)) // 2
    return LabelledImages(images, labels, groups, names, tuple("wxyz")[: max(groups) + 1])


@pytest.mark.parametrize("negatives", ["any", "same_group"])
def test_pairs_and_triplets_for_a_loop_of_ones_own(negatives):
    data = labelled([4, 3, 5, 2])
    number = lambda images: images.numpy()[:, 0, 0, 0]  # noqa: E731
    seen = set()
    for batch in triplet_batches(data, 16, negatives, seed=3).take(30):
        a, p, n = (number(batch[key]) for key in ("anchor", "positive", "negative"))
        assert (a != p).all() and (data.labels[a] == data.labels[p]).all()
        assert (data.labels[a] != data.labels[n]).all()
        if negatives == "same_group":
            assert (data.groups[data.labels[a]] == data.groups[data.labels[n]]).all()
        seen |= set(a) & set(p) | set(n)
    assert seen == set(range(14))
    for images, same in pair_batches(data, 10, negatives).take(3):
        a, b = number(images["image_a"]), number(images["image_b"])
        np.testing.assert_array_equal(data.labels[a] == data.labels[b], same.numpy() == 1)
        assert (a != b).all() and same.numpy().mean() == 0.5
    first, again = (next(iter(triplet_batches(data, 4, seed=5))) for _ in range(2))
    np.testing.assert_array_equal(first["negative"], again["negative"])
    with pytest.raises(DataError, match=r"two images of each class. These have one: \['b'\]"):
        triplet_batches(labelled([2, 1]))


def test_images_that_validate_are_not_drawn():
    data = labelled([6, 6])._replace(held_out=np.array([0, 1, 7, 11]))
    seen = set()
    for batch in triplet_batches(data, 16).take(20):
        seen |= {int(n) for images in batch.values() for n in images.numpy()[:, 0, 0, 0]}
    for images, _ in pair_batches(data, 16).take(20):
        seen |= {int(n) for side in images.values() for n in side.numpy()[:, 0, 0, 0]}
    assert seen == set(range(12)) - {0, 1, 7, 11}


def test_whatever_the_list_is(listed):
    content = listed.read_bytes()

    @fuzzed
    @given(mutated(content))
    def pairs_or_an_error_of_ours(broken):
        listed.write_bytes(broken)
        with contextlib.suppress(KerasSharedError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert from_pairs(listed, "test", SHAPE).images.read().dtype == "uint8"

    pairs_or_an_error_of_ours()
