"""Several outputs through recipe, train, evaluate, publish, load, predict."""

import importlib
import json
import sys

import numpy as np
import pytest

from keras_shared import load
from keras_shared.cli import main
from keras_shared.datasets import DATASETS, load_multi_mnist
from keras_shared.datasets.multi_mnist import overlaid
from keras_shared.recipes import RecipeError, read_recipe, recipe_from
from keras_shared.recipes.own_data import on_own_data
from keras_shared.tasks import TASKS
from keras_shared.tasks.multitask_classification import multitask_metrics
from keras_shared.training import Run, RunError, train, training_data
from keras_shared.zoo import MultiTaskNet

RECIPE = """
name = "parity_and_digit"
[model]
class_name = "MultiTaskNet"
width = 3
image_shape = [16, 16, 1]
[data]
name = "parities:PARITIES"
validation_images = 50
training_images = 200
[training]
epochs = 2
seeds = [1, 2]
"""
NAMES = {"digit": tuple("0123456789"), "parity": ("even", "odd")}


PARITIES = """
import numpy as np
from keras_shared.datasets import Dataset, SeveralLabels, load_digits

NAMES = {"digit": tuple("0123456789"), "parity": ("even", "odd")}


def load_parities(split, data_dir=None):
    digits = load_digits(split)
    images = np.repeat(np.repeat(digits.images, 2, axis=1), 2, axis=2)  # 16 x 16
    labels = np.stack([digits.labels, digits.labels % 2], axis=1)
    return SeveralLabels(images, labels, NAMES)


PARITIES = Dataset("Digits, and their parity", "scikit-learn", "", SeveralLabels, load_parities)
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    (tmp_path / "parities.py").write_text(PARITIES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "parities", raising=False)
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    return file


def test_two_images_in_one_by_hand():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 256, (2, 3, 28, 28, 1), "uint8")
    wanted = np.zeros((3, 36, 36, 1), "uint8")
    for i in range(36):
        for j in range(36):
            left = a[:, i, j] if i < 28 and j < 28 else 0
            right = b[:, i - 8, j - 8] if i >= 8 and j >= 8 else 0
            wanted[:, i, j] = np.maximum(left, right)
    np.testing.assert_array_equal(overlaid(a, b), wanted)
    assert (overlaid(a, b) != overlaid(b, a)).any()


@pytest.mark.slow
def test_multi_mnist_shows_each_digit_once_on_each_side(data_dir):
    test, digits = load_multi_mnist("test", data_dir), DATASETS["mnist"].load("test", data_dir)
    assert test.images.shape == (10000, 36, 36, 1) and test.labels.shape == (10000, 2)
    np.testing.assert_array_equal(test.labels[:, 0], digits.labels)
    assert np.array_equal(np.bincount(test.labels[:, 1]), np.bincount(digits.labels))
    assert 0.85 < np.mean(test.labels[:, 0] != test.labels[:, 1]) < 0.95
    # outside of where both lie, the corners are the digits themselves
    np.testing.assert_array_equal(test.images[:, :8, :28], digits.images[:, :8])
    np.testing.assert_array_equal(test.images[:, :28, :8], digits.images[:, :, :8])


def test_metrics_by_hand():
    random = np.random.default_rng(1)
    scores = {task: random.normal(size=(40, len(names))) for task, names in NAMES.items()}
    labels = {task: random.integers(0, len(names), 40) for task, names in NAMES.items()}
    found = multitask_metrics(scores, labels)
    wrong = {
        task: sum(int(np.argmax(row)) != label for row, label in zip(s, labels[task], strict=True))
        for task, s in scores.items()
    }
    for task, count in wrong.items():
        assert found[f"{task}_errors"] == count > 0
        assert found[f"{task}_error_percent"] == pytest.approx(100 * count / 40)
    assert found["error_percent"] == pytest.approx(100 * sum(wrong.values()) / 80)


def test_a_recipe_takes_names_of_classes_for_each_task(recipe):
    read = read_recipe(recipe)
    assert read.model.class_names is None and read.task is TASKS["multitask_classification"]
    named = read.with_changes({"model.class_names": {"left": ["a", "b"], "right": ["x", "y"]}})
    assert named.model.class_names == {"left": ("a", "b"), "right": ("x", "y")}
    assert recipe_from(named.to_dict()) == named
    with pytest.raises(RecipeError, match="`model.class_names"):
        read.with_changes({"model.class_names": {"left": [1, 2]}})
    with pytest.raises(RecipeError, match="several labels: use `training_images`"):
        read.with_changes({"data.training_images": 0, "data.images_per_class": 3})
    with pytest.raises(RecipeError, match="'mnist' holds LabelledImages.*takes SeveralLabels"):
        read.with_changes({"data.name": "mnist"})


def test_other_tasks_than_the_data_has_are_refused(recipe, tmp_path):
    read = read_recipe(recipe).with_changes({"model.class_names": {"digit": NAMES["digit"]}})
    with pytest.raises(RunError, match=r"has \{'digit': 10, 'parity': 2\} classes, and"):
        train(read, training_data(read), tmp_path / "run", verbose=0)


@pytest.mark.slow
def test_from_recipe_to_answers(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train", "recipe.toml", "--out", "run"])
    main(["evaluate", "run", "--out", "card"])
    metrics = json.loads((tmp_path / "card" / "metrics.json").read_text())
    assert {"digit_errors", "parity_error_percent", "error_percent"} <= set(metrics["test"])
    assert len(metrics["seeds"]) == 2 and metrics["headline"]["key"] == "error_percent"
    card = (tmp_path / "card" / "README.md").read_text()
    assert "digit error percent" in card and "(confusion.png)" in card and "(mistakes.png)" in card
    main(["publish", "run", "--to", "models"])
    model = load(tmp_path / "models" / "parity_and_digit")
    assert isinstance(model, MultiTaskNet) and model.class_names == NAMES
    images = importlib.import_module("parities").load_parities("test").images[:4].astype("float32")
    wanted = model.classify(images)
    np.save(tmp_path / "four.npy", images)
    capsys.readouterr()
    main(["predict", "models/parity_and_digit", "four.npy", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["digit"] for row in rows] == wanted["digit"]
    assert [row["parity_label"] for row in rows] == wanted["parity"]
    assert all(0.5 <= row["parity_probability"] <= 1 for row in rows)
    main(["predict", "models/parity_and_digit", "four.npy", "--top", "2"])
    assert "digit: " in capsys.readouterr().out
    main(["predict", "models/parity_and_digit", "four.npy", "--csv"])
    assert "classes" not in capsys.readouterr().out.splitlines()[0]
    main(["compare", "recipe.toml", "--vary", "model.shared=true,false", "--seeds", "2",
          "--out", "compared"])  # fmt: skip
    arms = json.loads((tmp_path / "compared" / "comparison.json").read_text())["arms"]
    assert [arm["name"] for arm in arms] == ["shared True", "shared False"]


def test_own_files_have_no_labels_for_several_tasks(recipe, tmp_path):
    with pytest.raises(RecipeError, match="no files for multitask_classification.*module:NAME"):
        on_own_data(read_recipe(recipe), str(tmp_path))


@pytest.mark.slow
def test_a_plain_copy_without_sharing_is_trained_as_well(recipe, tmp_path):
    read = read_recipe(recipe).with_changes({"training.sharing": "unshared", "training.epochs": 1})
    data = training_data(read)
    model = train(read.with_changes({"model.class_names": data.class_names}), data,
                  tmp_path / "run", verbose=0)  # fmt: skip
    assert not isinstance(model, MultiTaskNet)
    assert {"val_digit_accuracy", "val_parity_accuracy"} <= set(Run(tmp_path / "run").history()[0])
