"""Training resumes after a real SIGKILL to the result of an unbroken run."""

import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_shared import training
from keras_shared.data import training_data
from keras_shared.demo import RECIPE
from keras_shared.presets.names import entry_dir
from keras_shared.recipe import read_recipe
from keras_shared.training import (
    TrainingError,
    best_run,
    build_model,
    claim,
    read_history,
    run_dirs,
    train,
)  # fmt: skip
from keras_shared.zoo import TiedAutoencoder

TRAIN = """
import sys
from keras_shared.data import training_data
from keras_shared.recipe import read_recipe
from keras_shared.training import train
recipe = read_recipe(sys.argv[1])
train(recipe, training_data(recipe), sys.argv[2], verbose=0)
"""


@pytest.fixture
def recipe_file(tmp_path):
    """A small denoising autoencoder on the embedded digits: noise, so random state matters."""
    text = (entry_dir("tied_autoencoder_mnist") / "recipe.toml").read_text()
    for old, new in {
        '"tied_autoencoder_mnist"': '"small"',
        "[1000, 500, 250, 30]": "[32, 8]",
        "784\n": "64\n",
        "noise = 0.0": "noise = 0.2",
        '"mnist"': '"digits"',
        "5000": "200",
        "epochs = 40": "epochs = 12",
        "[3.0, 0.03, 0.03, 0.5]": "[0, 0, 0, 0]",
        "seeds = [1, 2, 3]": "seeds = [1]",
    }.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "small.toml"
    path.write_text(text)
    return path


def test_a_run_belongs_to_its_seed_and_the_best_is_no_diverged_one(recipe_file, tmp_path):
    recipe_file.write_text(recipe_file.read_text().replace("seeds = [1]", "seeds = [1, 2]"))
    recipe = read_recipe(recipe_file)
    claim(tmp_path / "run", recipe.with_seed(1), None)
    with pytest.raises(TrainingError, match="from another start or seed"):
        claim(tmp_path / "run", recipe.with_seed(2), None)
    for (seed, folder), loss in zip(run_dirs(recipe, tmp_path / "two").items(), ("NaN", "0.1")):
        claim(folder, recipe.with_seed(seed), None)
        (folder / "training.json").write_text(f'{{"last_epoch": {{"val_loss": {loss}}}}}')
    assert best_run(tmp_path / "two").name == "seed-2"
    recipe_file.write_text(recipe_file.read_text().replace("seeds = [1, 2]", "seeds = [1, 2, 3]"))
    third = run_dirs(read_recipe(recipe_file), tmp_path / "two")[3]
    claim(third, read_recipe(recipe_file).with_seed(3), None)
    with pytest.raises(TrainingError, match="Not trained to the end.*seed-3"):
        best_run(tmp_path / "two")
    (third / "training.json").write_text('{"last_epoch": {"val_loss": 0.05}}')
    assert best_run(tmp_path / "two").name == "seed-3"
    claim(tmp_path / "two", recipe.with_seed(1), None)
    with pytest.raises(TrainingError, match="one seed and runs of several"):
        best_run(tmp_path / "two")


@pytest.mark.parametrize("averaging", [0.0, 0.98])
def test_resumes_after_sigkill_to_the_unbroken_result(recipe_file, tmp_path, averaging):
    text = recipe_file.read_text().replace("averaging = 0.0", f"averaging = {averaging}")
    recipe_file.write_text(text)
    recipe = read_recipe(recipe_file)
    unbroken = train(recipe, training_data(recipe), tmp_path / "whole", verbose=0)

    broken = tmp_path / "broken"
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(recipe_file), str(broken)])
    deadline = time.monotonic() + 120
    while not (broken / "checkpoint.keras").exists():  # killed in the middle of a later epoch
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(read_history(broken))
    assert 1 <= done < 12 and not (broken / "model.keras").exists()

    resumed = train(recipe, training_data(recipe), broken, verbose=0)
    for a, b in zip(resumed.weights, unbroken.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    rows, whole = read_history(broken), read_history(tmp_path / "whole")
    assert [r["epoch"] for r in rows] == list(range(12))
    np.testing.assert_allclose(
        [r["val_loss"] for r in rows], [r["val_loss"] for r in whole], rtol=1e-4
    )
    facts = json.loads((broken / "training.json").read_text())
    assert facts["epochs"] == 12 and facts["versions"]["keras"] == keras.__version__
    assert any((broken / "logs").rglob("events.out.tfevents.*"))
    assert not [p for p in broken.iterdir() if p.name.startswith(".new")]


def test_a_row_without_checkpoint_is_written_again(recipe_file, tmp_path):
    recipe = read_recipe(recipe_file)
    train(recipe, training_data(recipe), tmp_path / "run", verbose=0)
    history = tmp_path / "run" / "history.csv"
    whole = history.read_text()
    history.write_text(whole + whole.splitlines()[-1] + "\n")  # killed between row and checkpoint
    train(recipe, training_data(recipe), tmp_path / "run", verbose=0)  # nothing left to train
    assert history.read_text() == whole


def test_averaging_by_hand(recipe_file, tmp_path):
    """What is kept is a (w_1 a^(n-1) + (1 - a) sum of w_i a^(n-i)) of the weights of all steps."""
    recipe_file.write_text(recipe_file.read_text().replace("epochs = 12", "epochs = 1"))
    recipe = read_recipe(recipe_file, {"training.averaging": 0.9})
    data = training_data(recipe)
    kept = train(recipe, data, tmp_path / "run", verbose=0).trainable_weights[0].numpy()
    keras.utils.set_random_seed(recipe.training.seeds[0])
    model = build_model(recipe)
    model.compile(keras.optimizers.Adam(recipe.training.learning_rate), "binary_crossentropy")
    for state in model.non_trainable_variables:  # the noise of epoch 0
        state.assign([recipe.training.seeds[0], 0])
    average = None
    for x, y in data.batches(0, 1):
        model.train_on_batch(x, y)
        weight = model.trainable_weights[0].numpy()
        average = weight if average is None else 0.9 * average + 0.1 * weight
    np.testing.assert_allclose(kept, average, atol=1e-5)
    assert np.abs(kept - weight).max() > 1e-3


def test_ctrl_c_loses_at_most_an_epoch(recipe_file, tmp_path):
    run = tmp_path / "run"
    text = recipe_file.read_text().replace("epochs = 12", "epochs = 3000")
    recipe_file.write_text(text)
    command = [
        sys.executable,
        "-m",
        "keras_shared.cli",
        "train",
        str(recipe_file),
        "--out",
        str(run),
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        # a shell starts background jobs, and all that they start, with interrupts ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not (run / "checkpoint.keras").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.strip().splitlines()[-1].startswith("stopped; the same command goes on")
    model = keras.models.load_model(run / "checkpoint.keras")
    epochs = (
        int(model.optimizer.iterations) / training_data(read_recipe(recipe_file)).steps_per_epoch
    )
    assert epochs >= 1 and epochs == int(epochs)


@pytest.mark.slow
def test_pairs_resume_too(tmp_path, monkeypatch):
    text = RECIPE.read_text()
    for old, new in (("epochs = 2", "epochs = 3"), ("3200", "192"), ("1000", "200")):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "r.toml").write_text(text)
    recipe = read_recipe(tmp_path / "r.toml")
    data = training_data(recipe)
    unbroken = train(recipe, data, tmp_path / "whole", verbose=0)

    class Stopping(training._EpochSeconds):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt
            super().on_epoch_begin(epoch, logs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "_EpochSeconds", Stopping)
        train(recipe, data, tmp_path / "run", verbose=0)
    resumed = train(recipe, data, tmp_path / "run", verbose=0)
    for a, b in zip(resumed.weights, unbroken.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-4)


def test_another_recipe_in_the_same_folder(recipe_file, tmp_path):
    recipe = read_recipe(recipe_file)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "start.txt").write_text("recipe")
    (tmp_path / "run" / "recipe.toml").write_text(
        recipe_file.read_text().replace("epochs = 12", "epochs = 13")
    )
    with pytest.raises(TrainingError, match="holds a run of another recipe.*--out"):
        train(recipe, training_data(recipe), tmp_path / "run", verbose=0)


def test_killed_before_the_first_checkpoint(recipe_file, tmp_path):
    """The history is then an empty file."""
    recipe = read_recipe(recipe_file)
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(recipe_file), str(run)])
    while not (run / "history.csv").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(recipe, training_data(recipe), run, verbose=0)
    assert [row["epoch"] for row in read_history(run)] == list(range(12))


def test_fine_tuning_goes_on_from_its_own_start_only(recipe_file, tmp_path):
    recipe = read_recipe(recipe_file)
    data = training_data(recipe)
    start = training.build_model(recipe)
    weights = start.get_weights()
    tuned = train(recipe, data, tmp_path / "run", start=start, verbose=0).get_weights()
    start.set_weights(weights)
    again = train(recipe, data, tmp_path / "run", start=start, verbose=0)
    np.testing.assert_array_equal(again.get_weights()[0], tuned[0])
    for other in (None, training.build_model(recipe)):
        with pytest.raises(TrainingError, match="a run from another start.*--out"):
            train(recipe, data, tmp_path / "run", start=other, verbose=0)


def test_a_start_that_is_not_the_recipes_model(recipe_file, tmp_path):
    recipe = read_recipe(recipe_file)
    other = TiedAutoencoder(units=(16, 8), input_dim=64, noise=0.2)
    with pytest.raises(TrainingError, match=r"`model.units` is \(32, 8\), and .* has \(16, 8\)"):
        train(recipe, training_data(recipe), tmp_path / "run", start=other, verbose=0)
    recipe_file.write_text(recipe_file.read_text().replace("input_dim = 64", "input_dim = 65"))
    wide = read_recipe(recipe_file)
    with pytest.raises(TrainingError, match=r"'digits' gives inputs of shape \(64,\).*\(65,\)"):
        train(wide, training_data(wide), tmp_path / "wide", verbose=0)


def test_calibration_uses_validation_pairs(tmp_path):
    """The probability of a contrastive net is fitted to pairs that were not trained on."""
    text = RECIPE.read_text().replace("binary_crossentropy", "contrastive")
    for old, new in (("epochs = 2", "epochs = 1"), ("3200", "320"), ("1000", "200")):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "r.toml").write_text(text)
    recipe = read_recipe(tmp_path / "r.toml")
    data = training_data(recipe)
    model = train(recipe, data, tmp_path / "run", verbose=0)
    outputs = model.predict(data.validation.map(lambda x, y: x), verbose=0)
    same = np.concatenate([y["probability"] for _, y in data.validation.as_numpy_iterator()])
    # the maximum likelihood fit has the right share of "same" on the pairs it was fitted to
    assert abs(float(outputs["probability"].mean()) - same.mean()) < 0.01
