import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_shared
from keras_shared.cli import main
from keras_shared.cli.command_line import COMMANDS, _parser
from keras_shared.evaluation import evaluate
from keras_shared.evaluation.entry import known_runs
from keras_shared.presets.names import entry_dir, entry_names
from keras_shared.recipes import read_recipe


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "keras_shared.cli", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, cwd=cwd,
    )  # fmt: skip


@pytest.mark.parametrize("command", [(), *((c.NAME,) for c in COMMANDS)])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "example" in printed and f"keras-shared {command[0] if command else 'demo'}" in printed


def test_help_waits_for_nothing_heavy(fresh_python):
    code = """
import sys
from keras_shared.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
heavy = {"keras", "tensorflow", "numpy", "sklearn", "matplotlib", "rich", "pydantic"}
print("\\nheavy:", sorted(heavy & set(sys.modules)))
"""
    assert fresh_python(code).endswith("heavy: []")


def test_the_bare_command_shows_help(capsys):
    assert main([]) == 0
    bare = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert bare == capsys.readouterr().out and "keras-shared demo" in bare


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not here")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [("keras-shared pu", "publish"), ("keras-shared predict --inv", "--invert")],
)
def test_bash_completes_commands_and_options(typed, offered, tmp_path):
    (tmp_path / "script").write_text(run("--print-completion", "bash").stdout)
    words = typed.split()
    line = f'COMP_WORDS=({typed}) COMP_CWORD={len(words) - 1} COMP_LINE="{typed}"'
    ask = f"source ./script; {line}; $(complete -p keras-shared | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    done = subprocess.run(
        ["bash", "-c", f'{ask} keras-shared {words[-1]}; echo "${{COMPREPLY[@]}}"'],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split() == [offered], done.stderr


@pytest.mark.parametrize("wrong", [("dance",), ("train",), ("verify", "a.png")])
def test_wrong_calls_exit_with_2(wrong):
    with pytest.raises(SystemExit) as stop:
        main(wrong)
    assert stop.value.code == 2


@pytest.mark.parametrize("call", [["evaluate", "lenet5_mnist"], ["compare", "lenet5_mnist"]])
def test_an_option_that_a_command_lacks_is_not_taken_for_another(call, capsys):
    """As argparse would take --data for --data-dir."""
    with pytest.raises(SystemExit) as ended:
        main([*call, "--data", "photos"])
    assert ended.value.code == 2 and "unrecognized arguments: --data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "taken"),
    [
        ("predict m --top 2 a.png", {"top": 2, "files": ["a.png"]}),
        ("predict m a.png --invert b.png --top 2 -", {"files": ["a.png", "b.png", "-"]}),
        ("predict m --top 2 -- -a.png", {"files": ["-a.png"]}),
        ("predict m --seed 5 -5", {"seed": 5, "files": ["-5"]}),
        ("predict -- m -a.png", {"files": ["-a.png"]}),
        ("enrol g.npz anna --invert a.png", {"name": "anna", "files": ["a.png"]}),
        ("fine-tune m --set a.b=1 own.toml", {"settings": ["a.b=1"], "recipe": "own.toml"}),
        ("--debug serve m --rest-port 1 dir", {"debug": True, "models": ["m", "dir"]}),
        ("manifests m --to d n --label m:l=1 o", {"models": ["m", "n", "o"], "to": "d"}),
    ],
)
def test_options_may_stand_between_a_commands_other_words(call, taken):
    given = vars(_parser().parse_args(call.split()))
    assert taken == {name: given[name] for name in taken}


@pytest.mark.parametrize(
    ("call", "left"),
    [
        ("predict m --foo 3 a.png", "--foo 3 a.png"),
        ("predict m a.png --top 2 -b.png", "-b.png"),
        ("fine-tune m own.toml --set a.b=1 other.toml", "other.toml"),
        ("list --debug x", "x"),
    ],
)
def test_words_that_a_command_does_not_take_are_refused_with_its_usage(call, left, capsys):
    with pytest.raises(SystemExit) as ended:
        main(call.split())
    said, command = capsys.readouterr().err, f"keras-shared {call.split()[0]}"
    assert ended.value.code == 2 and said.startswith(f"usage: {command} [-h]")
    assert said.endswith(f"{command}: error: unrecognized arguments: {left}\n")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("predict lenet5_mnist", "predict takes files, or texts with --text: one of the two"),
        ("predict lenet5_mnist a.png --text t", "predict takes files, or texts with --text"),
        ("predict lenet5_mnist a.png --csv b.png", "b.png follows --json or --csv"),
        ("predict lenet5_mnist - -", "the standard input, which can be read once alone"),
        ("verify - -", "the standard input, which can be read once alone"),
        ("train lenet5_mnist --set training.epochs", "--set takes KEY=VALUE"),
        ("compare lenet5_mnist --seeds 0", "--seeds: received 0, expected 1 to 1000"),
        ("compare lenet5_mnist --sizes 10,x", "--sizes: received '10,x', expected whole numbers"),
        ("compare lenet5_mnist --vary model.variant=1998", "with at least two values"),
        ("enrol g.npz anna", "Name pictures to enrol, or --remove"),
        ("enrol g.npz anna a.png --remove", "Name pictures to enrol, or --remove"),
        ("fine-tune lenet5_modern_mnist", "fine-tune needs --data FOLDER"),
        ("inspect lenet5_mnist --picture a.gif", "`--picture` takes a .png or .svg file"),
        ("inspect lenet5_mnist --html a.htm", "`--html` takes a .html file. Received: a.htm"),
        ("signals lenet5_mnist --png a.jpg", "`--png` takes a .png or .svg file"),
        ("manifests", "Expected models to serve, or --train with a recipe"),
        ("manifests --train lenet5_mnist", "--train takes --image"),
        ("serve", "Name models to serve, or a model config file"),
        ("signals lenet5_mnist --examples 0", "--examples: expected a whole number from 1"),
        ("signals lenet5_mnist --epochs -1", "--epochs: expected a whole number from 0"),
        ("identify g.npz a.png --top 0", "--top: expected a whole number from 1"),
        ("manifests lenet5_mnist --latest 0", "--latest: expected a whole number from 1"),
    ],
)
def test_what_is_wrong_in_the_call_alone_exits_with_2(call, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(call.split())
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    printed = capsys.readouterr().err
    assert said in printed and "--debug shows" not in printed
    assert list(tmp_path.iterdir()) == []


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == keras_shared.__version__


@pytest.mark.slow
def test_errors_are_one_line_and_exit_with_1(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    for arguments, message in {
        ("train", "lenet"): "Did you mean 'lenet5_mnist'",
        ("train", "missing.toml"): "There is no file missing.toml",
        ("predict", "lenet5_mnist", "text.png"): "text.png is not a picture that can be read: exp",
        ("predict", "lenet5_mnist", "missing.png"): "There is no file missing.png",
        ("predict", "empty", "text.png"): "empty holds no version",
        ("predict", "tied_autoencoder_mnist", "text.png"): "is not a picture",
        ("publish", "nothing"): "There is no folder nothing",
    }.items():
        assert main(arguments) == 1
        said = capfd.readouterr().err
        assert said.startswith("keras-shared: ") and message in said
        assert len(said.strip().splitlines()) == 1
    fresh = run("predict", "lenet5_mnist", "text.png", cwd=tmp_path)  # nor notes of TensorFlow
    assert fresh.returncode == 1 and len(fresh.stderr.strip().splitlines()) == 1
    debugged = run("train", "lenet", "--debug", cwd=tmp_path)
    assert debugged.returncode == 1 and "Traceback" in debugged.stderr


def test_list(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in entry_names():
        assert name in printed


@pytest.fixture
def images(tmp_path):
    """A bright 1 on dark ground, as MNIST has it, and noise."""
    one = np.zeros((28, 28, 1), "uint8")
    one[4:24, 13:15] = 255
    noise = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype="uint8")
    for name, image in {"one": one, "noise": noise}.items():
        (tmp_path / f"{name}.png").write_bytes(tf.io.encode_png(image).numpy())
    return str(tmp_path / "one.png"), str(tmp_path / "noise.png")


def test_predict(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["predict", "lenet5_mnist", images[0]]) == 0
    label = next(line for line in capsys.readouterr().out.splitlines() if "label" in line)
    assert label.split("│")[-2].strip().startswith("1 (")
    np.save(tmp_path / "v.npy", np.zeros(784))
    assert main(["predict", "tied_autoencoder_mnist", str(tmp_path / "v.npy")]) == 0
    assert "(1 x 784)" in capsys.readouterr().out.replace("\n", " ")
    assert main(["predict", "siamese_omniglot", images[0]]) == 0
    assert "embedding" in capsys.readouterr().out
    np.save(tmp_path / "w.npy", np.zeros(5))
    assert main(["predict", "tied_autoencoder_mnist", str(tmp_path / "w.npy")]) == 1
    error = capsys.readouterr().err
    assert "numbers of shape (5,)" in error and "numbers of shape (None, 784)" in error
    assert main(["predict", "tied_autoencoder_mnist", images[0], "--out", str(tmp_path)]) == 0
    assert (tmp_path / "one_reconstruction.png").exists()
    np.save(tmp_path / "code.npy", np.zeros(30))
    assert main(["predict", "tied_autoencoder_mnist", str(tmp_path / "code.npy")]) == 0
    assert "reconstruction" in capsys.readouterr().out


@pytest.mark.slow
def test_verify(tmp_path, capsys):
    bar, ring = np.full((2, 105, 105, 1), 255, "uint8")  # ink on paper, as Omniglot has it
    bar[20:85, 50:54] = 0
    y, x = np.mgrid[:105, :105]
    ring[np.abs(np.hypot(x - 52, y - 52) - 30) < 2] = 0
    images = [str(tmp_path / name) for name in ("bar.png", "ring.png")]
    for path, image in zip(images, (bar, ring), strict=True):
        pathlib.Path(path).write_bytes(tf.io.encode_png(image).numpy())
    assert main(["verify", images[0], images[0]]) == 0
    assert capsys.readouterr().out.startswith("same: probability ")
    assert main(["verify", *images, "--model", "siamese_omniglot"]) == 0
    assert capsys.readouterr().out.startswith("different: probability")


@pytest.mark.slow
def test_train_evaluate_publish_fine_tune(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe("pairs").write("twins.toml")
    assert main(["train", "twins.toml", "--set", "training.epochs=1"]) == 0
    assert main(["evaluate", "runs/twins"]) == 0
    metrics = json.loads(pathlib.Path("runs/twins/metrics.json").read_text())
    assert metrics["test"]["pairs"] == 100 and metrics["training"]["epochs"] == 1
    assert "![ROC" in pathlib.Path("runs/twins/README.md").read_text()
    assert pathlib.Path("runs/twins/roc.png").stat().st_size > 10_000
    assert main(["publish", "runs/twins"]) == 0
    assert "published: saved_models/twins/1" in capsys.readouterr().out
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert "twins" in listed and "your own" in listed and "lenet5_mnist" in listed
    tuned = ["fine-tune", "twins", "twins.toml", "--out", "runs/tuned"]  # found by its name
    assert main([*tuned, "--set", "training.learning_rate=0.01"]) == 0
    before = keras_shared.load("twins").get_weights()
    after = keras_shared.load("runs/tuned/model.keras").get_weights()
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))
    assert "learning_rate = 0.01" in pathlib.Path("runs/tuned/recipe.toml").read_text()
    assert main(["fine-tune", "lenet5_mnist", "twins.toml"]) == 1
    assert (
        "`model.class_name` is 'SiameseNet', and the model to start from has 'LeNet5'"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_own_models_lie_where_the_variable_says(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_SHARED_HOME", str(tmp_path / "mine"))
    recipe("autoencoder", **{"training.epochs": 1}).write("small.toml")
    assert main(["train", "small.toml"]) == 0 and main(["publish", "runs/small"]) == 0
    assert f"published: {tmp_path}/mine/small/1" in capsys.readouterr().out
    assert keras_shared.list_presets()["small"]["class_name"] == "TiedAutoencoder"
    assert keras_shared.zoo.TiedAutoencoder.from_preset("small").units == (16, 4)
    assert "small" in keras_shared.zoo.TiedAutoencoder.presets
    assert "small" not in keras_shared.zoo.LeNet5.presets


def test_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", "lenet5_mnist"]) == 0
    printed = capsys.readouterr().out
    assert printed == (entry_dir("lenet5_mnist") / "recipe.toml").read_text()
    pathlib.Path("mine.toml").write_text(printed)
    assert read_recipe("mine.toml") == read_recipe(entry_dir("lenet5_mnist") / "recipe.toml")
    assert main(["recipe", "mine.toml", "--schema"]) == 0
    assert (
        "variant" in json.loads(capsys.readouterr().out)["$defs"]["LeNet5Arguments"]["properties"]
    )
    assert main(["recipe", "lenet5"]) == 1
    assert "Did you mean 'lenet5_mnist'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "entry", ["lenet5_mnist", pytest.param("siamese_omniglot", marks=pytest.mark.thorough)]
)
def test_evaluate_rewrites_the_figures_of_a_published_entry(data_dir, tmp_path, entry):
    """From the published weights alone, the committed metrics.json comes out again."""
    assert main(["evaluate", entry, "--out", str(tmp_path), "--data-dir", data_dir]) == 0
    for name in ("metrics.json", "README.md"):
        assert (tmp_path / name).read_text() == (entry_dir(entry) / name).read_text()
    assert sorted(p.name for p in tmp_path.glob("*.png")) == sorted(
        p.name for p in entry_dir(entry).glob("*.png") if not p.name.startswith("comparison")
    )


@pytest.mark.slow
def test_demo(tmp_path):
    done = run("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in (
        "Fine-tune siamese_omniglot",
        "106,960",
        "equal error",
        "identified",
        "still holds",
        "next: ",
    ):
        assert part in done.stdout
    assert (tmp_path / "demo" / "run" / "roc.png").exists()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            "evaluate runs/nope",
            "There is no file or folder runs/nope. Expected the name of an entr",
        ),
        ("evaluate here.txt", "such as 'lenet5_mnist', or the folder of a run. Received: here.txt"),
        (
            "signals /nowhere",
            "no file or folder /nowhere. .* ends in .toml, or the folder of a run",
        ),
        ("train digits.tml", "There is no file or folder digits.tml. .* a file that ends in .toml"),
        ("train folder", "or a recipe, a file that ends in .toml. Received: folder"),
        ("train lenet5_mnist --set training.epoch=5", ".toml with training.epoch = 5: .*'epochs'?"),
        (
            "compare tied_autoencoder_mnist --vary training.epoch=5,6",
            "recipe.toml with training.epoch = 5: `training.epoch` is an unknown key",
        ),
    ],
)
def test_errors_name_what_was_given(call, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").touch()
    (tmp_path / "folder").mkdir()
    assert main(call.split()) == 1
    assert re.search(said, capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "here.txt"]


def test_a_start_that_is_refused_leaves_no_folder(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seeds in ([1], [1, 2]):
        small = recipe("autoencoder", **{"training.seeds": seeds})
        small.write("small.toml")
        for setting, said in (
            ("data.name=digit", "no data set named"),
            ("data.validation_images=1000000", "validation"),
            ("model.input_dim=7", "gives inputs of shape"),
            ("training.loss=os:nothing", "cannot be imported"),
        ):
            call = ["train", "small.toml", "--out", "run", "--set", setting]
            assert main(call) == 1, setting
            assert re.search(said, capsys.readouterr().err), setting
            assert sorted(path.name for path in tmp_path.iterdir()) == ["small.toml"], setting


@pytest.mark.slow
def test_several_seeds(recipe, tmp_path, monkeypatch, capsys):
    """Each has a run; validation picks the published one; mean and spread come from all."""
    monkeypatch.chdir(tmp_path)
    recipe("autoencoder", **{"training.epochs": 1, "training.seeds": [4, 7]}).write("small.toml")
    assert main(["train", "small.toml", "--seed", "5"]) == 1
    assert "has the seeds [4, 7]. Received: 5" in capsys.readouterr().err
    assert main(["train", "small.toml", "--seed", "7"]) == 0
    assert main(["evaluate", "runs/small"]) == 1
    unfinished, _, advice = capsys.readouterr().err.partition(". To go on: keras-shared ")
    assert unfinished.endswith("Not trained to the end: runs/small/seed-4")
    assert main(advice.partition(" (")[0].split()) == 0
    said = capsys.readouterr().out
    assert "seed 1 of 2: 4\n" in said and "seed 2 of 2: 7, about " in said
    assert main(["evaluate", "runs/small"]) == 0
    metrics = json.loads(pathlib.Path("runs/small/metrics.json").read_text())
    seeds = {s["seed"]: s for s in metrics["seeds"]}
    assert list(seeds) == [4, 7]
    best = min(seeds, key=lambda s: seeds[s]["last_epoch"]["val_loss"])
    assert metrics["training"]["seed"] == best
    key = "squared_error_per_image"
    errors = [s["test"][key] for s in seeds.values()]
    assert metrics["test"][key] == seeds[best]["test"][key] and errors[0] != errors[1]
    assert metrics["over_seeds"][key]["mean"] == pytest.approx(np.mean(errors), abs=1e-3)
    assert metrics["over_seeds"][key]["std"] == pytest.approx(np.std(errors, ddof=1), abs=1e-3)
    again = known_runs(pathlib.Path("runs/small/metrics.json"))
    assert again[0]["history"] == seeds[best]["history"] and len(again[1]) == 1
    assert evaluate(keras_shared.load(f"runs/small/seed-{best}/model.keras"),
                    read_recipe("small.toml"), "runs/small") == metrics  # fmt: skip
    assert "(2 seeds; published" in pathlib.Path("runs/small/README.md").read_text()
    assert main(["publish", "runs/small"]) == 0
    published = keras_shared.load("saved_models/small")
    chosen = keras_shared.load(f"runs/small/seed-{best}/model.keras")
    np.testing.assert_array_equal(published.get_weights()[0], chosen.get_weights()[0])


@pytest.mark.slow
def test_evaluate_of_an_entry_is_of_the_zoos_model(tmp_path, monkeypatch, data_dir, capsys):
    """A model of one's own by the same name changes nothing of it."""
    monkeypatch.chdir(tmp_path)
    keras_shared.publish(keras_shared.zoo.LeNet5(), "saved_models/lenet5_mnist")
    assert main(["evaluate", "lenet5_mnist", "--out", "out"]) == 0
    written = pathlib.Path("out/metrics.json").read_text()
    assert written == (entry_dir("lenet5_mnist") / "metrics.json").read_text()


def test_a_warning_is_a_line_without_python(monkeypatch, capsys):
    import warnings

    from keras_shared.cli import command_line, list_

    as_before = warnings.formatwarning
    monkeypatch.setattr(
        list_, "run", lambda options: warnings.warn("two\x1b[31m tables", stacklevel=1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *given, **_: sys.stderr.write(
            warnings.formatwarning(*given[:4])
        )
        assert command_line.main(["list"]) == 0
    assert capsys.readouterr().err == "keras-shared: warning: two\\x1b[31m tables\n"
    assert warnings.formatwarning is as_before


@pytest.mark.parametrize("command", ["serve", "manifests"])
def test_parameters_of_batching_and_none_exclude_each_other(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "a_model", "--no-batching", "--batching-parameters-file", "batching.txt"])
    assert "not allowed with argument --no-batching" in capsys.readouterr().err
