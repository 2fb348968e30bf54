import json
import pathlib

import numpy as np
import pytest
import scipy.stats

import keras_shared
from keras_shared.cli import main
from keras_shared.comparing import compare
from keras_shared.comparing.card import write_comparison_card
from keras_shared.comparing.statistics import interval, summarise
from keras_shared.evaluation.comparison_lines import comparison_plots
from keras_shared.presets.names import entry_dir
from keras_shared.recipes import read_recipe
from keras_shared.recipes.schema import Arm, Comparison
from keras_shared.training import build_model
from keras_shared.zoo import LeNet5, TiedAutoencoder

STUDIES = pathlib.Path(__file__).parents[2] / "studies"
RANDOM = np.random.default_rng(6)


def test_interval_is_students():
    values = RANDOM.normal(3, 2, 7).tolist()
    known = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = interval(values)
    assert found.mean - found.half == pytest.approx(known.low, abs=1e-3)
    assert found.mean + found.half == pytest.approx(known.high, abs=1e-3)
    assert interval([2.0]).half is None


def test_differences_are_paired():
    """Seeds differ by much, arms by little and always the same way: the pairs show it."""

    def runs(arm, shift):
        return [
            {"arm": arm, "images_per_class": 0, "seed": s, "parameters": 1, "weights_bytes": 4,
             "seconds_per_epoch": 1.0, "test": {"error": base + shift + 0.01 * s}}
            for s, base in enumerate((1.0, 5.0, 9.0))
        ]  # fmt: skip

    rows = summarise(runs("a", 0.0) + runs("b", 0.1), "error")
    assert "difference" not in rows[0] and rows[0]["metric"]["half"] > 5
    assert rows[1]["difference"]["mean"] == pytest.approx(0.1) and not rows[1]["within_noise"]
    mixed = runs("a", 0.0) + runs("b", 0.1)
    mixed[3]["test"]["error"] -= 1
    assert summarise(mixed, "error")[1]["within_noise"]
    mixed[4]["test"]["error"] = None
    diverged = summarise(mixed, "error")[1]
    assert diverged["metric"]["mean"] is None and "within_noise" not in diverged


def test_compare(small_recipe, tmp_path, monkeypatch, capsys):
    """Shared, unshared and narrow: tables, plots, and a second call that trains nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    pathlib.Path("small.toml").write_text(small_recipe)
    call = ["compare", "small.toml", "--seeds", "1", "--sizes", "20,5", "--out", "out"]
    assert main(call) == 0
    assert "one seed" in capsys.readouterr().out
    result = json.loads(pathlib.Path("out/comparison.json").read_text())
    assert len(result["runs"]) == 3 * 2
    rows = [row for row in result["summary"] if row["images_per_class"] == 20]
    shared, unshared, narrow = rows
    model = TiedAutoencoder(units=(16, 4), input_dim=64)
    assert shared["parameters"] == model.count_params()
    assert unshared["parameters"] == shared["parameters"] + 64 * 16 + 16 * 4
    assert narrow["parameters"] <= shared["parameters"]
    assert unshared["weights_bytes"] > shared["weights_bytes"]
    assert all(arm["peak_memory_bytes"] > 1e5 for arm in result["arms"])
    figures = [r["test"]["squared_error_per_image"] for r in result["runs"]]
    assert len(set(figures)) == len(figures)
    pictures = {p.stem for p in pathlib.Path("out").glob("*.png")}
    assert pictures == {f"comparison_{what}" for what in ("curves", "parameters", "sizes")}
    card = pathlib.Path("out/README.md").read_text()
    assert "`training.sharing` = 'unshared_narrow'" in card and "![" in card
    kept = {p: p.stat().st_mtime_ns for p in pathlib.Path("out/runs").rglob("*")}
    again = main(["compare", "small.toml", "--vary", "training.epochs=1,1"])
    assert again == 1 and "each once" in capsys.readouterr().err
    victim = pathlib.Path("out/runs/unshared/5/seed-1/result.json")
    victim.unlink()  # one run is missing: it alone is done again, to the same figures
    assert main(call) == 0
    again = json.loads(pathlib.Path("out/comparison.json").read_text())
    assert [r["test"] for r in again["runs"]] == [r["test"] for r in result["runs"]]
    touched = {p for p, t in kept.items() if not p.exists() or p.stat().st_mtime_ns > t}
    assert all("unshared/5/seed-1" in str(p) for p in touched)
    pathlib.Path("small.toml").write_text(small_recipe.replace("0.005", "0.006"))
    assert main(call) == 1  # nothing stale passes for the new recipe
    assert "holds a run of another recipe" in capsys.readouterr().err
    assert main(["compare", "lenet5_mnist"]) == 1  # at once, and not after the first arm
    assert "'S2' has no local counterpart" in capsys.readouterr().err
    assert main(["compare", "small.toml", "--vary", "model.units=3", "--seeds", "1"]) == 1
    assert "KEY=A,B with at least two values" in capsys.readouterr().err
    assert main(["compare", "siamese_omniglot", "--sizes", "5"]) == 1
    assert "images_per_class needs data of images with labels" in capsys.readouterr().err


def test_fine_tuning_for_other_classes(tmp_path, monkeypatch):
    """The body's weights are the start; the logits are new. The command does it by the recipe."""
    names = ["even", "odd", "neither"]
    model = LeNet5("modern")
    other = model.with_classes(names)
    assert other.class_names == tuple(names) and other.output_shape == (None, 3)
    for layer in model.layers:
        for mine, theirs in zip(layer.weights, other.get_layer(layer.name).weights, strict=True):
            if layer.name == "logits":
                assert mine.shape[-1] == 10 and theirs.shape[-1] == 3
            else:
                np.testing.assert_array_equal(mine, theirs)
    assert model.class_names == tuple("0123456789")
    with pytest.raises(ValueError, match="ten classes for variant '1998'"):
        LeNet5().with_classes(names)
    monkeypatch.chdir(tmp_path)
    keras_shared.publish(LeNet5("modern"), "digits")
    again = LeNet5.from_preset("digits", class_names=names)
    assert again.class_names == tuple(names)


@pytest.mark.slow
def test_a_run_that_diverged(small_recipe, tmp_path, monkeypatch, capsys):
    """The table says so, and the other runs go on."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("wild.toml").write_text(small_recipe)
    model = build_model(read_recipe("wild.toml"))
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    model.save("lost.keras")
    arms = [Arm(name="as is"), Arm(name="lost", start="lost.keras")]
    comparison = Comparison(seeds=(1, 2), images_per_class=(), arms=tuple(arms))
    result = compare(read_recipe("wild.toml"), comparison, "out")
    fine, lost = result["summary"]
    assert fine["metric"]["mean"] > 0 and lost["metric"] == {"mean": None, "half": None}
    assert "diverged" in pathlib.Path("out/README.md").read_text()
    json.loads(pathlib.Path("out/comparison.json").read_text(), parse_constant=pytest.fail)
    with pytest.raises(ValueError, match="compares other arms: as is, lost"):
        compare(read_recipe("wild.toml"), Comparison(seeds=(1,), arms=tuple(arms[:1])), "out")
    changed = read_recipe("wild.toml").with_changes({"training.epochs": 1})  # as it is given
    alone = Comparison(seeds=(1,), arms=(Arm(name="one"),))
    assert compare(changed, alone, "elsewhere")["arms"][0]["epochs"] == 1


@pytest.mark.slow
def test_towers_apart(recipe, tmp_path):
    """A SiameseNet with two towers of its own trains on pairs and is compared."""
    arms = (Arm(name="one"), Arm(name="two", changes={"training.sharing": "unshared"}))
    comparison = Comparison(seeds=(1,), arms=arms)
    one, two = compare(recipe("pairs"), comparison, tmp_path / "out")["summary"]
    w_and_v = 2
    assert two["parameters"] - w_and_v == 2 * (one["parameters"] - w_and_v)
    assert 0 < two["metric"]["mean"] < 100


@pytest.mark.parametrize("folder", sorted(p.parent for p in STUDIES.glob("*/comparison.json")))
def test_cards_of_studies_are_generated(folder, tmp_path):
    result = json.loads((folder / "comparison.json").read_text())
    write_comparison_card(result, read_recipe(folder / "recipe.toml"), tmp_path)
    assert (tmp_path / "README.md").read_text() == (folder / "README.md").read_text()
    assert {p.stem for p in folder.glob("*.png")} == set(comparison_plots(result))


@pytest.mark.slow
def test_the_command_fine_tunes_for_other_classes(data_dir, tmp_path, monkeypatch, capsys):
    """Said again, it finds its own runs: the new logits come from the seed."""
    monkeypatch.chdir(tmp_path)
    changes = {
        "model.class_names": list("abcdefghij"), "data.name": "fashion_mnist",
        "data.validation_images": 59_000, "data.images_per_class": 5, "training.epochs": 1,
        "training.batch_size": 16, "training.seeds": [1, 2],
    }  # fmt: skip
    recipe, clothes = entry_dir("lenet5_modern_mnist") / "recipe.toml", pathlib.Path("clothes.toml")
    read_recipe(recipe).with_changes(changes).write(clothes)
    call = ["fine-tune", "lenet5_modern_mnist", "clothes.toml", "--out", "runs/clothes"]
    assert main(call) == 0
    before = pathlib.Path("runs/clothes/seed-2/start.txt").read_text()
    assert main(call) == 0
    assert pathlib.Path("runs/clothes/seed-2/start.txt").read_text() == before
    model = keras_shared.load("runs/clothes/seed-1/model.keras")
    assert model.class_names == tuple("abcdefghij")
    clothes.write_text(clothes.read_text().replace('"shared"', '"unshared"'))
    assert main([*call[:-1], "runs/other"]) == 1
    assert "a model to start from is trained as it is" in capsys.readouterr().err
