import dataclasses
import json
import pathlib
import shutil
import warnings

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from keras_shared.batching.training_data import counts_in
from keras_shared.datasets import from_folder
from keras_shared.evaluation import evaluate
from keras_shared.evaluation.card import write_card
from keras_shared.evaluation.learning_curves import plot_learning_curves, show_the_end
from keras_shared.evaluation.measuring import EvaluationError
from keras_shared.files.pictures import png_bytes
from keras_shared.presets.headline import headline
from keras_shared.presets.names import entry_dir, entry_names
from keras_shared.recipes import read_recipe
from keras_shared.tasks import TASKS
from keras_shared.training import build_model, training_data

FACTS = {"epochs": 3, "seed": 1, "seconds": 9.5, "data": {"pairs_per_epoch": 128},
         "last_epoch": {"loss": 0.5}, "versions": {"keras": "3"}, "cpu_cores": 2}  # fmt: skip


@pytest.mark.slow
def test_evaluate_keeps_the_facts_of_training_and_repeats_itself(recipe, tmp_path):
    twins = recipe("pairs")
    model = build_model(twins)
    first = evaluate(model, twins, tmp_path, training=FACTS)
    assert evaluate(model, twins, tmp_path) == first
    assert json.loads((tmp_path / "metrics.json").read_text()) == first
    plots = {"roc.png", "embeddings.png", "mistakes.png"}
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.json", "README.md", *plots}
    card = (tmp_path / "README.md").read_text()
    assert all(f"({name})" in card for name in plots)
    assert "| threshold for 0.1 percent false accepts | " in card


@pytest.mark.slow
def test_seeds_of_an_earlier_version_lack_some_metrics(recipe, tmp_path):
    """Mean and table are of what all seeds have; nothing moves into another column."""
    twins = recipe("pairs")
    model, path = build_model(twins), tmp_path / "metrics.json"
    first = evaluate(model, twins, tmp_path, training=FACTS)
    old = {"pairs": 100, "accuracy_percent": 12.5, "auc": 0.25, "equal_error_rate_percent": 75.0}
    first["seeds"].append({**first["seeds"][0], "seed": 2, "test": old})
    path.write_text(json.dumps(first))
    again = evaluate(model, twins, tmp_path)
    assert set(again["over_seeds"]) == {"accuracy_percent", "auc", "equal_error_rate_percent"}
    assert "| 2 | 0.2 | 0.5 | 100 | 12.5 | 0.25 | 75.0 |" in (tmp_path / "README.md").read_text()
    assert evaluate(model, twins, tmp_path) == again


@pytest.mark.slow
def test_the_card_says_what_the_recipe_says(recipe, tmp_path):
    words = {"description": "Knows twins from strangers.", "limits": "Only of digits."}
    twins = recipe("pairs", **words)
    evaluate(build_model(twins), twins, tmp_path, training=FACTS)
    card = (tmp_path / "README.md").read_text()
    assert all(sentence in card for sentence in words.values())
    plain = recipe("pairs")
    evaluate(build_model(plain), plain, tmp_path, training=FACTS)
    card = (tmp_path / "README.md").read_text()
    assert plain.model_class.description in card and plain.model_class.limits in card


@pytest.fixture
def measuring(recipe, monkeypatch):
    """A recipe whose task measures this, besides or in place of its headline."""

    def make(measured, **changes):
        own = dataclasses.replace(
            TASKS["reconstruction"], name="own", measure=lambda test: measured,
            plots=lambda test: {"two_lines": Figure()}, captions={}, **changes,
        )  # fmt: skip
        monkeypatch.setitem(TASKS, "reconstruction", own)
        return recipe("autoencoder")

    return make


KEY = TASKS["reconstruction"].headline.key


def test_an_own_task_measures_what_it_likes(measuring, tmp_path):
    own = measuring(
        {KEY: np.float32(0.25), "images": np.int64(1234), "note": "a|b", "none": None,
         "of": {"a": tf.constant(1.5)}, "each": np.arange(3), "sure": np.bool_(True)},
        baselines=lambda model, train, test: ({"mean image": np.float32(2.5), "why": "so"}, {}),
    )  # fmt: skip
    seed = {"seed": 2, "epochs": 3, "seconds": 9.5, "last_epoch": {"loss": 0.25}}
    others = [(None, {**seed, "test": {KEY: 0.75, "note": "c", "of": {}, "none": 1}})]
    result = evaluate(build_model(own), own, tmp_path, training=FACTS, others=others)
    assert json.loads((tmp_path / "metrics.json").read_text()) == result
    assert result["test"] == {
        KEY: 0.25, "images": 1234, "note": "a|b", "none": None,
        "of": {"a": 1.5}, "each": [0, 1, 2], "sure": True,
    }  # fmt: skip
    assert result["over_seeds"] == {KEY: {"mean": 0.5, "std": 0.3536}}
    card = (tmp_path / "README.md").read_text()
    for line in ("| images | 1,234 |", "| note | a&#124;b |", "| none | None |",
                 "| of | {'a': 1.5} |", "| mean image | 2.5 |", "| why | so |",
                 "| sure | True |"):  # fmt: skip
        assert line in card
    assert "![two lines](two_lines.png)" in card and "| each |" not in card


@pytest.mark.parametrize(
    ("measured", "received"),
    [
        (None, "None"),
        (0.5, "0.5"),
        ({}, r"the keys \[\]"),
        ({"right": 0.5}, r"the keys \['right'\]"),
        ({KEY: None}, f"{KEY} = None"),
        ({KEY: "0.5"}, f"{KEY} = '0.5'"),
        ({KEY: np.ones(2)}, rf"{KEY} = \[1.0, 1.0\]"),
        ({KEY: 0.5, "seen": {1, 2}}, "Object of type set is not JSON serializable"),
    ],
)
def test_an_own_task_that_measures_too_little(measuring, tmp_path, measured, received):
    own = measuring(measured)
    said = f"`measure` of the task 'own' must give .* a number for '{KEY}'.* Received: .*{received}"
    with pytest.raises(EvaluationError, match=said):
        evaluate(build_model(own), own, tmp_path, training=FACTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_class_without_sentences_has_a_card(measuring, tmp_path, monkeypatch):
    own = measuring({KEY: 0.5})
    for name in ("description", "limits"):
        monkeypatch.delattr(own.model_class, name)
    evaluate(build_model(own), own, tmp_path, training=FACTS)
    card = (tmp_path / "README.md").read_text()
    assert "metrics.json. -->\n\n```python\n" in card
    assert "and as a start for fine-tuning.\n" in card


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_learning_curves_show_where_they_end(metric):
    """The first epochs do not stretch the axis; the last half is whole, and fills enough of it."""
    curves = [[8 * 0.4**epoch + 0.5 + 0.01 * seed for epoch in range(20)] for seed in range(3)]
    history = [{"history": {metric: c, f"val_{metric}": [None, *c[1:]]}} for c in curves]
    [axes] = plot_learning_curves(history)["learning_curves"].axes
    bottom, top = axes.get_ylim()
    last = [value for curve in curves for value in curve[10:]]
    assert bottom < min(last) and max(last) < top < curves[0][2]
    assert max(last) - min(last) > 0.2 * (top - bottom)
    assert axes.get_xlabel() == "epoch (the first ones lie partly outside)"
    assert axes.get_yscale() == ("log" if metric == "loss" else "linear")


def test_short_and_even_learning_curves_show_everything():
    for curve in ([9, 3, 2, 1], [5, 4.5, 5, 4, 5, 4.5], [2.0] * 6, [None] * 6):
        history = {"accuracy": curve, "val_accuracy": curve}
        [axes] = plot_learning_curves([{"history": history}])["learning_curves"].axes
        bottom, top = axes.get_ylim()
        assert all(bottom < value < top for value in curve if value is not None)
        assert axes.get_xlabel() == "epoch"


def test_curves_of_several_lengths_all_show_their_end():
    axes = Figure().subplots()
    short, long = [0.6, 0.85, 0.9, 0.91], [0.2, *[0.65] * 19, *[0.66] * 20]
    show_the_end(axes, [short, long])
    bottom, top = axes.get_ylim()
    assert bottom < 0.65 and top > 0.91


@pytest.mark.parametrize("name", entry_names())
def test_cards_are_generated_from_metrics(name, tmp_path):
    entry = entry_dir(name)
    metrics = json.loads((entry / "metrics.json").read_text())
    plots = sorted(p.stem for p in entry.glob("*.png") if not p.stem.startswith("comparison"))
    compared = entry / "comparison.json"
    comparison = json.loads(compared.read_text()) if compared.exists() else None
    write_card(metrics, read_recipe(entry / "recipe.toml"), plots, tmp_path, comparison)
    assert (tmp_path / "README.md").read_text() == (entry / "README.md").read_text()
    assert any(character.isdigit() for character in headline(metrics))


@pytest.mark.slow
def test_own_data_that_changed_since_are_told(recipe, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (120, 8, 8), "uint8")
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(120) % 2)
    own = {"data.name": "arrays", "data.path": str(tmp_path / "mine.npz")}
    mine = recipe("autoencoder", **own, **{"data.validation_images": None})
    model, sizes = build_model(mine), {"images": 76, "validation_images": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(model, mine, tmp_path / "out", training={**FACTS, "data": sizes})
    np.savez(tmp_path / "mine.npz", x=x[:100], y=np.arange(100) % 2)
    with pytest.warns(UserWarning, match="has changed since the training: .*76.* and now .*64"):
        evaluate(model, mine, tmp_path / "out", training={**FACTS, "data": sizes})


@pytest.mark.slow
def test_other_files_of_the_same_number_are_told(recipe, tmp_path):
    """Two images that tested are gone: the seed draws all splits anew, each as large as before."""
    for name in ("a", "b"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(18):
            pixels = np.full((8, 8, 1), 10 * number + ord(name) % 2, "uint8")
            (tmp_path / "mine" / name / f"{number}.png").write_bytes(png_bytes(pixels))
    own = {"data.name": "folder", "data.path": str(tmp_path / "mine")}
    mine = recipe("autoencoder", **own, **{"data.validation_images": None})
    trained, model = training_data(mine).sizes, build_model(mine)
    evaluate(model, mine, tmp_path / "out", training={**FACTS, "data": trained})
    assert "digest" not in (tmp_path / "out" / "README.md").read_text()
    tested = from_folder(tmp_path / "mine", "test", (8, 8, 1)).images.sources
    for file in tested[[0, -1]]:
        pathlib.Path(file).unlink()
    now = training_data(mine).sizes
    assert counts_in(now) == counts_in(trained) and now != trained
    with pytest.warns(UserWarning, match="since the training: .*of which some are others"):
        evaluate(model, mine, tmp_path / "out", training={**FACTS, "data": trained})
    shutil.copytree(tmp_path / "mine", tmp_path / "copy")  # elsewhere, the same files
    own["data.path"] = str(tmp_path / "copy")
    copied = recipe("autoencoder", **own, **{"data.validation_images": None})
    assert training_data(copied).sizes == now
