"""What is given in the place of a path, to whatever takes one."""

import pathlib

import keras
import numpy as np
import pytest

import keras_shared
from keras_shared import datasets, initializers, recipes, serving, training
from keras_shared.comparing import compare
from keras_shared.demo import RECIPE
from keras_shared.errors import UsageError
from keras_shared.evaluation import evaluate
from keras_shared.sharing import draw_sharing, sharing_report, stored_report, write_tree
from keras_shared.signals import draw_signals
from keras_shared.tying import TieError
from keras_shared.zoo import SiameseNet


def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


TAKING = {
    "load": keras_shared.load,
    "publish": lambda path: keras_shared.publish(model(), path),
    "export": lambda path: keras_shared.export(model(), path),
    "load_weights": lambda path: keras_shared.load_weights(model(), path),
    "load_safetensors": lambda path: keras_shared.load_safetensors(model(), path),
    "find_ties": lambda path: keras_shared.find_ties(model(), path if path is not None else 3),
    "from_folder": lambda path: datasets.from_folder(path, "train", (8, 8, 1)),
    "from_arrays": lambda path: datasets.from_arrays(path, "train", (8, 8, 1)),
    "from_pairs": lambda path: datasets.from_pairs(path, "train", (8, 8, 1)),
    "from_sentences": lambda path: datasets.from_sentences(path, "train"),
    "from_text": lambda path: datasets.from_text(path, "train"),
    "read_one_shot_runs": datasets.read_one_shot_runs,
    "Gallery.save": lambda path: keras_shared.Gallery(SiameseNet()).save(path),
    "Gallery.load": lambda path: keras_shared.Gallery.load(path, SiameseNet()),
    "draw_sharing": lambda path: draw_sharing(sharing_report(model()), path),
    "write_tree": lambda path: write_tree(sharing_report(model()), path),
    "draw_signals": lambda path: draw_signals([], path),
    "stored_report": stored_report,
    "read_recipe": recipes.read_recipe,
    "Run": training.Run,
    "check": serving.check,
    "serve": lambda path: serving.serve([path]),
    "write_manifests": lambda path: serving.write_manifests(["lenet5_mnist"], path),
}


@pytest.mark.parametrize("name", TAKING)
def test_what_is_no_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in (None, 3, b"x", ["x"]):
        with pytest.raises(TypeError, match="` is a path, as str or pathlib.Path. Received: "):
            TAKING[name](given)
    with pytest.raises(UsageError, match=r"` is empty. Expected a path; '\.' is the current"):
        TAKING[name]("")  # which pathlib takes for the current folder
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_no_folder_with_the_name_of_a_file(tmp_path):
    for name in ("m.onx", "m.tflit", "m.ONX"):
        with pytest.raises(ValueError, match=r"end in one of \['\.onnx'.* or the folder of a Save"):
            keras_shared.export(model(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    folder = keras_shared.export(model(), tmp_path / "m.onx", format="tf_saved_model")
    assert keras_shared.export(model(), folder) == folder  # it is one already
    for name in ("v1.2", "net.final", "my.model"):  # as keras.Model.export takes them
        assert keras_shared.export(model(), tmp_path / name).is_dir()


@pytest.mark.parametrize(
    "call",
    [
        lambda given: keras_shared.load_weights(given, "x.keras"),
        lambda given: keras_shared.load_safetensors(given, "x.safetensors"),
        lambda given: initializers.LSUV(given, np.ones((4, 6))),
        lambda given: initializers.rescale(given, np.ones((4, 6))),
        lambda given: evaluate(given, recipes.read_recipe(RECIPE), "out"),
    ],
)
def test_what_is_no_model(call):
    for given in (None, "lenet5_mnist", pathlib.Path("m.keras"), 3):
        with pytest.raises(TieError, match="A Keras model or layer is expected. Received: "):
            call(given)


@pytest.mark.parametrize(
    "call",
    [
        training.build_model,
        training.training_data,
        lambda given: training.start_model(given, "lenet5_mnist"),
        lambda given: training.train(given, None, "run"),
        lambda given: evaluate(model(), given, "out"),
        lambda given: compare(given, None, "out"),
    ],
)
def test_what_is_no_recipe(call):
    for given in (None, "lenet5_mnist", {}):
        with pytest.raises(TypeError, match="A recipe is expected, as .*read_recipe gives it"):
            call(given)


def test_what_is_no_table_and_no_data():
    for given in (None, 3, "x", []):
        with pytest.raises(recipes.RecipeError, match="expected a dict of its sections"):
            recipes.recipe_from(given)
        with pytest.raises(TypeError, match="`data` are what .*training_data gives"):
            training.train(recipes.read_recipe(RECIPE), given, "run")
        with pytest.raises(TypeError, match="`comparison` is what .*comparison_of gives"):
            compare(recipes.read_recipe(RECIPE), given, "out")
