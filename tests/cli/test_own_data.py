"""The newcomer's path: a folder of pictures, fine-tune, evaluate, publish, predict, list."""

import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

import keras_shared
from keras_shared.cli import main


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


def test_train_from_nothing_on_a_folder(shapes):
    train = ["train", "lenet5_modern_mnist", "--data", "photos", "--set", "training.epochs=1"]
    assert main(train) == 0
    kept = pathlib.Path("runs/lenet5_modern_mnist_photos/recipe.toml").read_text()
    assert 'class_names = [\n    "bar",' in kept and '/photos"' in kept


@pytest.mark.slow
def test_fine_tune_a_siamese_net(shapes):
    few = ["--set", "training.epochs=1", "--set", "data.pairs_per_epoch=64",
           "--set", "data.validation_pairs=30", "--set", "data.test_pairs=30"]  # fmt: skip
    assert main(["fine-tune", "siamese_omniglot", "--data", "photos", *few]) == 0
    assert main(["evaluate", "runs/siamese_omniglot_photos"]) == 0


def test_what_goes_wrong(shapes, capsys):
    for call, said in (
        (["fine-tune", "lenet5_modern_mnist"], "needs --data FOLDER"),
        (["fine-tune", "lenet5_modern_mnist", "--data", "nothing"], "--data takes a folder"),
        (["fine-tune", "lenet5_mnist", "--data", "photos"], "ten classes for variant '1998'"),
        (["train", "lenet5_modern_mnist", "--data", "photos/bar"], "has no sub-folders"),
    ):
        assert main(call) == 1
        assert said in capsys.readouterr().err
    assert not pathlib.Path("runs").exists()  # nothing half-written
