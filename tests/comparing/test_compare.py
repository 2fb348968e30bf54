import io
import itertools
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

import keras_shared
from keras_shared.cli import main
from keras_shared.cli.compare import print_tables
from keras_shared.comparing import compare
from keras_shared.comparing.card import write_comparison_card
from keras_shared.comparing.peak_memory import peak_memory
from keras_shared.comparing.plots import plot_comparison
from keras_shared.comparing.statistics import interval, summarise
from keras_shared.evaluation.comparison_lines import comparison_lines, comparison_plots
from keras_shared.presets.names import LoadError, entry_dir
from keras_shared.recipes import read_recipe
from keras_shared.recipes.schema import Arm, Comparison
from keras_shared.training import RunError, build_model, train
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


@pytest.mark.slow
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
    assert again == 2 and "each once" in capsys.readouterr().err
    victim = pathlib.Path("out/runs/unshared/5/seed-1/result.json")
    victim.unlink()  # one run is missing: it alone is done again, to the same figures
    written = pathlib.Path("out/recipe.toml")
    written.write_text("# why\n" + written.read_text())
    assert main(call) == 0
    assert written.read_text().startswith("# why\n")  # of the same recipe: kept as it is
    again = json.loads(pathlib.Path("out/comparison.json").read_text())
    assert [r["test"] for r in again["runs"]] == [r["test"] for r in result["runs"]]
    touched = {p for p, t in kept.items() if not p.exists() or p.stat().st_mtime_ns > t}
    assert all("unshared/5/seed-1" in str(p) for p in touched)
    pathlib.Path("small.toml").write_text(small_recipe.replace("0.005", "0.006"))
    assert main(call) == 1  # nothing stale passes for the new recipe
    assert "holds a run of another recipe" in capsys.readouterr().err
    assert main(["compare", "lenet5_mnist"]) == 1  # at once: no arm is left beside the first
    assert "'S2' has no local counterpart" in capsys.readouterr().err
    assert not pathlib.Path("runs/lenet5_mnist_compared").exists()
    assert main(["compare", "small.toml", "--vary", "model.units=3", "--seeds", "1"]) == 2
    assert "KEY=A,B with at least two values" in capsys.readouterr().err
    assert main(["compare", "siamese_omniglot", "--sizes", "5"]) == 1
    assert "images_per_class needs data of images with labels" in capsys.readouterr().err


@pytest.mark.slow
def test_an_arm_that_cannot_be_built_is_left_out(recipe, tmp_path, monkeypatch, capsys):
    """Its reason is kept, the others are compared, and the same call finds its folder again."""
    monkeypatch.chdir(tmp_path)
    arms = (
        Arm(name="as is"),
        Arm(name="wide", changes={"model.input_dim": 65}),  # the data have 64 pixels
        Arm(name="slow", changes={"training.learning_rate": 0.001}),
        Arm(name="tuned", start="nowhere"),
    )
    small = recipe("autoencoder", **{"training.epochs": 1})
    monkeypatch.setattr("keras_shared.comparing.runs.peak_memory", lambda *_: None)
    trained = []

    def train_seen(*given, **options):
        trained.append(capsys.readouterr().err)
        return train(*given, **options)

    monkeypatch.setattr("keras_shared.comparing.runs.train", train_seen)
    result = compare(small, Comparison(seeds=(1,), arms=arms), "out")
    assert [arm["name"] for arm in result["arms"]] == ["as is", "slow"]
    assert result == json.loads(pathlib.Path("out/comparison.json").read_text())
    assert list(result["left_out"]) == ["wide", "tuned"]
    reason = result["left_out"]["wide"]
    assert "gives inputs of shape (64,)" in reason and reason.endswith("so that they agree.")
    assert reason in trained[0] and result["left_out"]["tuned"] in trained[0]
    card = pathlib.Path("out/README.md").read_text()
    assert f"\n- wide was left out: {reason}\n" in card and "- tuned was left out: " in card
    assert compare(small, Comparison(seeds=(1,), arms=arms), "out") == result
    assert len(trained) == 2  # nothing is trained again
    with pytest.raises(ValueError, match="compares other arms: as is, slow, wide, tuned"):
        compare(small, Comparison(seeds=(1,), arms=arms[:3]), "out")
    with pytest.raises(RunError, match="gives inputs of shape"):
        compare(small, Comparison(seeds=(1,), arms=(arms[1], arms[0], arms[2])), "first")
    with pytest.raises(RunError, match="gives inputs of shape"):
        compare(small, Comparison(seeds=(1,), arms=arms[:2]), "none_left")
    assert len(trained) == 2 and not pathlib.Path("none_left").exists()
    monkeypatch.setattr("keras_shared.comparing.runs.start_model", wordless)
    kept = compare(small, Comparison(seeds=(1,), arms=arms), "out")["left_out"]
    assert kept["tuned"] == "MemoryError"


def wordless(*_):
    raise MemoryError


def test_a_comparison_from_before_arms_were_left_out():
    result = made_up()
    lines = comparison_lines(result)
    assert not any("left out" in line for line in lines)
    assert comparison_lines({**result, "left_out": {}, "changes_left_out": []}) == lines


def made_up(errors=((5, 6, 7), (6, 7.1, 8)), names=None, counts=None, sizes=(0,), epochs=20):
    """A comparison of arms with the errors of each seed."""
    names = names or [f"net {i}" for i in range(len(errors))]
    counts = counts or [1000 + 10 * i for i in range(len(errors))]
    curves = {"val_loss": [3 * 0.3**epoch + 0.5 for epoch in range(epochs)]}
    runs = [
        {"arm": name, "images_per_class": size, "seed": seed, "parameters": count,
         "weights_bytes": 4 * count, "seconds_per_epoch": 1.0, "test": {"error": error},
         "history": curves}
        for size in sizes
        for name, count, values in zip(names, counts, errors)
        for seed, error in enumerate(values)
    ]  # fmt: skip
    return {
        "name": "made_up",
        "headline": {"title": "test error", "key": "error", "unit": " %", "more_is_better": False},
        "monitor": {"key": "val_loss", "more_is_better": False},
        "arms": [
            {"name": name, "changes": {}, "paper": "", "epochs": epochs, "peak_memory_bytes": None}
            for name in names
        ],
        "seeds": list(range(len(errors[0]))),
        "summary": summarise(runs, "error"),
        "runs": runs,
    }


FIRST = (5.0, 6.0, 7.0)


@pytest.mark.parametrize(
    ("others", "sizes", "said"),
    [
        ([(4, 5.1, 6)], (0,), "'net 1' is better than 'net 0'."),
        (
            [(6, 7.1, 8), (3, 6, 9), (6, 7, 8.1), (4, 5, 6.1), (5, None, 6)],
            (0,),
            "'net 4' is better than 'net 0'; 'net 1' and 'net 3' are worse than 'net 0'; "
            "'net 2' is within noise of 'net 0'; 'net 5' diverged.",
        ),
        (
            [(3, 6, 9)],
            (10, 1000),
            "With 1,000 training images of each class, 'net 1' is within noise of 'net 0'.",
        ),
    ],
)
def test_only_what_is_known_is_ranked(others, sizes, said):
    lines = comparison_lines(made_up([FIRST, *others], sizes=sizes))
    assert said in lines and "compared with the first alone" in " ".join(lines)


def test_nothing_is_ranked_that_cannot_be():
    assert "One seed: nothing can be ranked." in comparison_lines(made_up([(5,), (9,)]))
    lines = comparison_lines(made_up([(5,), (None,), (1,)]))
    assert "One seed: nothing can be ranked; 'net 1' diverged." in lines
    lines = comparison_lines(made_up([(5, None), (1, 2)]))
    assert "'net 0' diverged: nothing can be compared with it." in lines


def test_tables_fit_80_columns():
    names = ["fine-tuned_from_digit", "unshared, narrow nets", "c"]
    errors = [(15.6, 29.1, 11.2), (100, 61.2, 98), (8, 9, 8)]
    result = made_up(errors, names, [1_420_814, 22_837_314, 7], sizes=(10, 1000))
    result["headline"]["title"] = "verification accuracy"
    result["arms"][0]["paper"] = "test error 0.95 %"
    result["arms"][1]["peak_memory_bytes"] = 12_345_678_901
    page = io.StringIO()
    print_tables(result, Console(file=page, width=80))
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in page.getvalue()
    for row in result["summary"]:
        shown = [f"{row['parameters']:,}", f"{row['metric']['mean']:.2f} ± "]
        assert any(all(text in line for text in shown) for line in lines)
    for whole in ("91,349", "12,346", "1,000 images a class", "fine-tuned_from_digi"):
        assert whole in page.getvalue()
    assert "KB" in comparison_lines(result)[4]


def test_plots_say_which_training_set_they_show():
    plots = plot_comparison(made_up(sizes=(10, 100)))
    for name in ("comparison_curves", "comparison_parameters"):
        title = plots[name].axes[0].get_title()
        assert "100 training images of each class" in title
        assert max(map(len, title.split("\n"))) < 65
    assert "images" not in plot_comparison(made_up())["comparison_curves"].axes[0].get_title()


@pytest.mark.parametrize(
    "counts",
    [
        (2570, 2580),
        (103_456, 205_856, 103_328),
        (1000, 1000, 1000, 1003, 1010, 1060),
        (1000, 1000, 1003, 1010, 9000, 1_000_000),
    ],
)
def test_markers_and_ticks_do_not_lie_on_one_another(counts):
    errors = RANDOM.normal(5, 1, (len(counts), 3)).tolist()
    plots = plot_comparison(made_up(errors, counts=counts, sizes=(10, 15, 1000)))
    for name in ("comparison_parameters", "comparison_sizes"):
        figure = plots[name]
        figure.canvas.draw()
        [axes] = figure.axes
        box, to_display = axes.get_window_extent(), axes.transData.transform
        drawn = [bars.lines[0].get_xydata() for bars in axes.containers]
        assert len(drawn) == len(counts)
        places = np.sort([[x for x, _ in to_display(points)] for points in drawn], axis=0)
        assert np.diff(places, axis=0).min() > 4 and np.diff(places.T, axis=0).min(initial=9) > 4
        assert box.x0 < places.min() and places.max() < box.x1
        labels = [label.get_window_extent() for label in axes.get_xticklabels()]
        inside = [one for one in labels if box.x0 <= (one.x0 + one.x1) / 2 <= box.x1]
        assert 2 <= len(inside) <= 8
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(inside))
    said = [text.get_text() for text in plots["comparison_parameters"].legends[0].get_texts()]
    assert said[0] == f"net 0 ({counts[0]:,} parameters)"


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="no /proc")
def test_the_process_that_measures_memory_is_silent(recipe, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"""
from keras_shared.cli.quiet import import_quietly

if __name__ == "__main__":
    import_quietly()
    from keras_shared.comparing import compare
    from keras_shared.recipes import recipe_from
    from keras_shared.recipes.schema import Arm, Comparison

    recipe = recipe_from({recipe("autoencoder", **{"training.epochs": 1}).to_dict()!r})
    result = compare(recipe, Comparison(seeds=(1,), arms=(Arm(name="one"),)), "out")
    print(result["arms"][0]["peak_memory_bytes"])
""")
    plain = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=plain
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 0
    assert not [x for x in ("oneDNN", "cudart", "absl") if x in done.stderr], done.stderr


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.slow
def test_errors_of_the_process_that_measures_memory_arrive(recipe, capfd):
    with pytest.raises(LoadError, match="nowhere"):
        peak_memory(recipe("autoencoder"), "nowhere", None)
    assert capfd.readouterr().err == ""
    os.write(2, b"ours")  # is itself again
    assert capfd.readouterr().err == "ours"


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.parametrize("started", ["import", "model"])
def test_what_measures_memory_ends_with_what_is_killed(recipe, tmp_path, started):
    script = tmp_path / "measure.py"
    script.write_text(f"""
if __name__ == "__main__":
    from keras_shared.comparing.peak_memory import peak_memory
    from keras_shared.recipes import recipe_from
    print("measures", flush=True)
    peak_memory(recipe_from({recipe("autoencoder").to_dict()!r}), "slow", None)
else:
    import keras_shared.comparing.peak_memory as inside
    inside.start_model = lambda *_: (open("model", "w").close(), inside._give_back(), hang())
    def hang():
        import time
        time.sleep(600)
""")
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout.readline() == b"measures\n"
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 120
        while not (tmp_path / "model").exists() if started == "model" else not children.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        below = [int(pid) for pid in children.read_text().split()]
        process.kill()
    while left := [pid for pid in below if _runs(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="no /proc")
def test_a_comparison_outlives_what_measures_memory(recipe, tmp_path, capsys):
    def kill():
        while not (measuring := multiprocessing.active_children()):
            time.sleep(0.01)
        measuring[0].kill()

    threading.Thread(target=kill, daemon=True).start()
    small = recipe("autoencoder", **{"training.epochs": 1})
    result = compare(small, Comparison(seeds=(1,), arms=(Arm(name="one"),)), tmp_path / "out")
    assert result["arms"][0]["peak_memory_bytes"] is None
    assert (tmp_path / "out" / "README.md").exists()
    said = capsys.readouterr().err
    assert f"{small.path}: the memory that 'one' takes is not known" in said
    assert "Run the same command again" in said


def _runs(pid):
    stat = pathlib.Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(") ")[2][0] != "Z"


@pytest.mark.slow
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
    monkeypatch.setattr("keras_shared.comparing.runs.peak_memory", lambda *_: None)
    pathlib.Path("wild.toml").write_text(small_recipe)
    model = build_model(read_recipe("wild.toml"))
    model.set_weights([np.full_like(w, 1e30) for w in model.get_weights()])
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


def test_arms_are_compared_where_something_validates(small_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("all.toml").write_text(small_recipe)
    recipe = read_recipe("all.toml").with_changes({"data.validation_images": 0})
    with pytest.raises(RunError, match="data.validation_images is 0"):
        compare(recipe, Comparison(seeds=(1,), arms=(Arm(name="one"),)), "out")


@pytest.mark.slow
def test_towers_apart(recipe, tmp_path, monkeypatch):
    """A SiameseNet with two towers of its own trains on pairs and is compared."""
    monkeypatch.setattr("keras_shared.comparing.runs.peak_memory", lambda *_: None)
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


def test_each_of_many_arms_has_a_colour():
    from matplotlib.colors import to_hex

    from keras_shared.comparing.plots import _colour

    assert len({to_hex(_colour(arm)) for arm in range(20)}) == 20
