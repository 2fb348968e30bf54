"""The newcomer's path: a folder of pictures, fine-tune, evaluate, publish, predict, list."""

import argparse
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

import keras_shared
from keras_shared.cli import main
from keras_shared.cli.options import recipe_of
from keras_shared.errors import KerasSharedError
from keras_shared.evaluation.card import _entry_trains
from keras_shared.presets.names import entry_dir
from keras_shared.recipes import read_recipe
from keras_shared.recipes.changes import changed
from keras_shared.recipes.own_data import fine_tuning
from keras_shared.training.build import base_of, start_model


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """Three classes of 20 pictures each, bright on dark, colour, of several sizes."""
    random = np.random.default_rng(4)
    monkeypatch.chdir(tmp_path)
    for name in ("bar", "disc", "frame"):
        folder = pathlib.Path("photos", name)
        folder.mkdir(parents=True)
        for i in range(20):
            side = int(random.integers(40, 80))
            picture = Image.new("RGB", (side, side))
            draw, (x, y) = ImageDraw.Draw(picture), random.integers(4, side // 3, 2)
            box = [int(x), int(y), int(x + side // 2), int(y + side // 2)]
            if name == "bar":
                draw.rectangle([box[0], box[1], box[0] + side // 8, box[3]], fill="white")
            elif name == "disc":
                draw.ellipse(box, fill="white")
            else:
                draw.rectangle(box, outline="white", width=side // 12)
            picture.save(folder / f"{i}.{('png', 'jpg')[i % 2]}")
    return pathlib.Path("photos")


@pytest.mark.slow
def test_fine_tune_on_a_folder(shapes, capsys):
    few = ["--set", "training.epochs=6"]
    assert main(["fine-tune", "lenet5_modern_mnist", "--data", "photos", *few]) == 0
    said = capsys.readouterr().out
    run = "runs/lenet5_modern_mnist_photos"
    assert f"next: keras-shared evaluate {run}" in said
    assert main(["evaluate", run]) == 0
    metrics = json.loads(pathlib.Path(run, "metrics.json").read_text())
    assert metrics["test"]["images"] == 12 and "from_nothing_error_percent" in metrics["baselines"]
    card = pathlib.Path(run, "README.md").read_text()
    assert "fine-tuned from | lenet5_modern_mnist, trained on MNIST (LeCun & Cortes, CC BY" in card
    assert "from nothing error percent" in card and "![Test images and answers]" in card
    assert pathlib.Path(run, "examples.png").stat().st_size > 5_000
    assert "own images, the folder 'photos' |" in card
    (command,) = re.findall(r"`keras-shared (.*?)` repeats it", card)
    again = [*command.split()[:-1], f"{run}/recipe.toml", "--out", run]
    assert main(again) == 0  # nothing is left to train
    assert main(["publish", run]) == 0
    model = keras_shared.load("lenet5_modern_mnist_photos")
    assert model.class_names == ("bar", "disc", "frame")
    capsys.readouterr()
    assert main(["list"]) == 0
    assert "lenet5_modern_mnist_photos" in capsys.readouterr().out.replace("\n", "")


def test_train_from_nothing_on_a_folder(shapes, capsys):
    train = ["train", "lenet5_modern_mnist", "--data", "photos", "--set", "training.epochs=1"]
    assert main(train) == 0
    said = capsys.readouterr().out  # to a file, a line for each epoch, and no bar
    assert "\x1b" not in said and "val_loss" in said
    kept = pathlib.Path("runs/lenet5_modern_mnist_photos/recipe.toml").read_text()
    assert 'class_names = [\n    "bar",' in kept and '/photos"' in kept


def test_pairs_follow_the_number_of_images(shapes):
    recipe = fine_tuning(
        "siamese_omniglot", keras_shared.zoo.SiameseNet(image_shape=(28, 28, 1)), "photos"
    )
    images = sum(path.is_file() for path in pathlib.Path("photos").rglob("*"))
    assert 64 <= recipe.data.pairs_per_epoch <= 32_000 * images / 640
    assert recipe.data.pairs_per_epoch > recipe.data.test_pairs > recipe.data.validation_pairs


@pytest.mark.slow
def test_a_base_that_is_a_folder_is_named_for_any_place(shapes):
    keras_shared.publish(keras_shared.zoo.LeNet5(), "mine")
    assert base_of("lenet5_mnist")["name"] == "lenet5_mnist"
    assert base_of("mine")["name"] == str(pathlib.Path("mine").resolve())


def test_the_card_of_a_changed_entry_names_its_own_recipe():
    entry = read_recipe(entry_dir("lecun_1989") / "recipe.toml")
    assert _entry_trains("lecun_1989", entry)
    assert not _entry_trains("lecun_1989", changed(entry, ["training.epochs=1"]))
    words = read_recipe(entry_dir("tied_lm_wikitext2") / "recipe.toml")
    filled = words.with_changes({"model.vocabulary": ["a", "b"]})
    assert _entry_trains("tied_lm_wikitext2", filled)


@pytest.mark.parametrize(
    ("shape", "tuned"), [((None, None, 1), (None, None, 1)), ((None, 60, 3), (28, 60, 3))]
)
def test_fine_tune_a_net_for_images_of_any_size(shapes, shape, tuned):
    """The size that the tower reads stands for what TOML cannot write."""
    model = keras_shared.zoo.SiameseNet(image_shape=shape)
    recipe = fine_tuning("mine", model, "photos")
    recipe.write("recipe.toml")
    data = read_recipe("recipe.toml").dataset.load("train", None)
    model.save("mine.keras")
    start = start_model(recipe, "mine.keras")
    assert start.image_shape == tuned
    assert start.embedder(data.images.read(slice(2))).shape == (2, 576)


@pytest.mark.slow
def test_fine_tune_a_siamese_net(shapes):
    few = ["--set", "training.epochs=1", "--set", "data.pairs_per_epoch=64",
           "--set", "data.validation_pairs=30", "--set", "data.test_pairs=30"]  # fmt: skip
    assert main(["fine-tune", "siamese_omniglot", "--data", "photos", *few]) == 0
    assert main(["evaluate", "runs/siamese_omniglot_photos"]) == 0


def test_what_goes_wrong(shapes, capsys):
    pathlib.Path("mine.zip").touch()
    for call, said in (
        (["fine-tune", "lenet5_modern_mnist", "--data", "mine.zip"], "--data takes a folder"),
        (["fine-tune", "lenet5_mnist", "--data", "photos"], "such as lenet5_modern_mnist"),
        (
            ["fine-tune", "rbf_net_digits", "--data", "photos"],
            "cannot be trained on 3 others, ['bar', 'disc', 'frame']",
        ),
        (["train", "lenet5_modern_mnist", "--data", "photos/bar"], "has no sub-folders"),
    ):
        assert main(call) == 1
        assert said in capsys.readouterr().err
    assert not pathlib.Path("runs").exists()  # nothing half-written


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fine-tune", "lenet5_modern_mnist", "--data", "nowhere"], "no file or folder .*nowhere"),
        (["train", "lenet5_mnist", "--data=~/photos"], "A ~ is expanded by the shell at the begin"),
        (["train", "lecun_1989", "--data", "photos"], "LeCun1989 always has 10. Choose another"),
        (["publish", "nowhere"], "There is no folder nowhere. Expected that of a run"),
        (["pictures", "--to", "a_file"], "a_file is a file, and a folder is expected there"),
        (["manifests", "lenet5_mnist", "--to", "a_file"], "a_file is a file, and a folder is"),
        (["train", "lenet5_modern_mnist", "--data", "photos", "--out", "a_file"], "a_file is a"),
        (["predict", "tied_lm_wikitext2", "photos/disc/0.png"], "reads texts, .*--text 'a text'"),
        (["predict", "tied_lm_wikitext2", "a_file"], "reads texts, .*--text 'a text'"),
    ],
)
def test_each_says_what_to_do(shapes, capsys, arguments, said):
    pathlib.Path("a_file").write_text("some text")
    assert main(arguments) == 1
    out, error = capsys.readouterr()
    assert re.search(said, error), error
    assert not out and len(error.strip().splitlines()) == 1


def test_no_time_to_check(capsys):
    with pytest.raises(SystemExit):
        main(["check", "lenet5_mnist", "--timeout", "0"])
    assert "expected a number from 0.1 to 1000000. Received: '0'" in capsys.readouterr().err


def test_a_loss_of_ones_own_for_listed_pairs(shapes):
    """The recipe's own is of batches of classes."""
    names = sorted(str(p) for p in shapes.rglob("*.png"))
    rows = [f"{a},{b},{int(a.split('/')[1] == b.split('/')[1])}"
            for a in names for b in names if a < b]  # fmt: skip
    pathlib.Path("pairs.csv").write_text("\n".join(rows))
    options = argparse.Namespace(recipe="siamese_omniglot", data="pairs.csv", settings=[])
    assert recipe_of(options).training.loss == "binary_crossentropy"
    options.settings = ["training.loss=contrastive"]
    assert recipe_of(options).training.loss == "contrastive"
    options.settings = ["training.loss=n_pair"]
    with pytest.raises(KerasSharedError, match="Set it to 'binary_crossentropy'"):
        recipe_of(options)


def test_a_recipe_of_an_editor_that_begins_with_a_mark(tmp_path):
    text = (entry_dir("lenet5_mnist") / "recipe.toml").read_text()
    (tmp_path / "mine.toml").write_text("\ufeff" + text)
    assert read_recipe(tmp_path / "mine.toml").training.epochs == 40


@pytest.mark.slow
def test_a_runs_own_model_is_loaded_with_its_optimizer(small_recipe, tmp_path, fresh_python):
    (tmp_path / "small.toml").write_text(small_recipe)
    assert main(["train", str(tmp_path / "small.toml"), "--out", str(tmp_path / "run")]) == 0
    said = fresh_python(
        "import sys, keras_shared; print(type(keras_shared.load(sys.argv[1]).optimizer).__name__)",
        tmp_path / "run" / "model.keras",
    )
    assert said.strip() == "Adam"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x / 127.5 - 1, r"-1 to 1. Use \(images \+ 1\) \* 127.5"),
        (lambda x: x.astype("int16") - 128, r"-128 to 127. Use images \+ 128"),
        (lambda x: x.astype("uint16") * 257, r"0 to 65535. Use images \* \(255 / 65"),
        (lambda x: (x - 33.3) / 78.6, "look standardised"),
        (lambda x: x / 255 - 0.5, r"Use \(images \+ 0.5\) \* 255"),
        (lambda x: x - 255.0, "Give the pixels as a picture file has them"),
        (lambda x: x / 255 - 0.01, r"np.clip\(images, 0, 1\) \* 255"),
    ],
)
def test_pixels_of_another_scale_are_not_answered(change, said):
    images = np.zeros((2, 28, 28, 1), "uint8")
    images[:, 8:20, 12:16] = 255
    model = keras_shared.load("lenet5_modern_mnist")
    with pytest.raises(ValueError, match=said):
        model.classify(change(images))
    assert len(model.classify(images.astype("float32") - 20.0)) == 2  # as bicubic resizing leaves
    assert len(model.classify(np.full((1, 28, 28, 1), -1e-7))) == 1
