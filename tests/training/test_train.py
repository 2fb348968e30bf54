"""Training resumes after a real SIGKILL to the result of an unbroken run."""

import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_shared.recipes import read_recipe
from keras_shared.training import Run, RunError, build_model, start_model, train, training_data
from keras_shared.training.callbacks import EpochSeconds
from keras_shared.zoo import TiedAutoencoder

TRAIN = """
import sys
from keras_shared.recipes import read_recipe
from keras_shared.training import train, training_data
recipe = read_recipe(sys.argv[1])
train(recipe, training_data(recipe), sys.argv[2], verbose=0)
"""
# a small denoising autoencoder: noise, so random state matters
NOISY = {"model.units": [32, 8], "model.noise": 0.2, "data.validation_images": 200,
         "training.epochs": 12, "training.batch_size": 128,
         "training.learning_rate": 0.003}  # fmt: skip


@pytest.fixture
def noisy(recipe, tmp_path):
    """Makes that recipe with changes, and writes it to its path, for other processes."""

    def make(**changes):
        read = recipe("autoencoder", **{**NOISY, **changes})
        read.write(tmp_path / "small.toml")
        return read_recipe(tmp_path / "small.toml")

    return make


@pytest.mark.slow
@pytest.mark.parametrize("averaging", [0.0, 0.98])
def test_resumes_after_sigkill_to_the_unbroken_result(noisy, tmp_path, averaging):
    epochs = 60  # of 0.04 s, so that none of them is over before the kill
    recipe = noisy(**{"training.averaging": averaging, "training.epochs": epochs})
    unbroken = train(recipe, training_data(recipe), tmp_path / "whole", verbose=0)

    broken = Run(tmp_path / "broken")
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(recipe.path), str(broken.path)])
    deadline = time.monotonic() + 120
    while not broken.checkpoint.exists():  # killed in the middle of a later epoch
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= broken.epochs_done() <= len(broken.history()) < epochs
    assert not broken.model_file.exists()

    resumed = train(recipe, training_data(recipe), broken, verbose=0)
    for a, b in zip(resumed.weights, unbroken.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    rows, whole = broken.history(), Run(tmp_path / "whole").history()
    assert [r["epoch"] for r in rows] == list(range(epochs))
    np.testing.assert_allclose(
        [r["val_loss"] for r in rows], [r["val_loss"] for r in whole], rtol=1e-4
    )
    facts = broken.facts()
    assert facts["epochs"] == epochs and facts["versions"]["keras"] == keras.__version__
    assert any(broken.logs.rglob("events.out.tfevents.*"))
    assert not [p for p in broken.path.iterdir() if p.name.startswith(".new")]


def test_a_row_without_checkpoint_is_written_again(noisy, tmp_path):
    recipe, run = noisy(**{"training.epochs": 3}), Run(tmp_path / "run")
    train(recipe, training_data(recipe), run, verbose=0)
    whole = run.history_file.read_text()
    # killed between row and checkpoint
    run.history_file.write_text(whole + whole.splitlines()[-1] + "\n")
    train(recipe, training_data(recipe), run, verbose=0)  # nothing left to train
    assert run.history_file.read_text() == whole


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_data_alone(noisy, tmp_path):
    """The recipe is the same, and the files that it names have changed."""
    x, y = np.random.default_rng(0).integers(0, 256, (120, 8, 8), "uint8"), np.arange(120) % 2
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    own = {"data.name": "arrays", "data.path": str(tmp_path / "mine.npz")}
    recipe = noisy(**own, **{"training.epochs": 2, "data.validation_images": None})
    run = tmp_path / "run"
    for _ in range(2):  # the second time nothing is left to train
        train(recipe, training_data(recipe), run, verbose=0)
    np.savez(tmp_path / "mine.npz", x=x[:100], y=y[:100])
    for file in ("checkpoint.keras", "model.keras"):
        with pytest.raises(RunError, match="on other data: 76 images, 20 .* there are 64 images"):
            train(recipe, training_data(recipe), run, verbose=0)
        (run / file).rename(run / f"{file}.old")
    for file in ("checkpoint.keras", "model.keras"):
        (run / f"{file}.old").rename(run / file)
    np.savez(tmp_path / "mine.npz", x=x, y=y)  # as it says
    train(recipe, training_data(recipe), run, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("averaging", [0.5, 0.9999])
def test_averaging_by_hand(noisy, tmp_path, averaging):
    """What is kept is a (w_1 a^(n-1) + (1 - a) sum of w_i a^(n-i)) of the weights of all steps.

    In a short training, a lets a tenth of it count, and not how it began.
    """
    recipe = noisy(
        **{"training.averaging": averaging, "training.epochs": 1, "training.batch_size": 16}
    )
    data = training_data(recipe)
    assert data.steps_per_epoch > 20
    a = min(averaging, 1 - 10 / data.steps_per_epoch)
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
        average = weight if average is None else a * average + (1 - a) * weight
    np.testing.assert_allclose(kept, average, atol=1e-5)
    assert np.abs(kept - weight).max() > 1e-4


@pytest.mark.slow
def test_ctrl_c_loses_at_most_an_epoch(noisy, tmp_path):
    recipe, run = noisy(**{"training.epochs": 3000}), Run(tmp_path / "run")
    command = [sys.executable, "-m", "keras_shared.cli", "train", str(recipe.path)]
    process = subprocess.Popen(
        [*command, "--out", str(run.path)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        # a shell starts background jobs, and all that they start, with interrupts ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not run.checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().splitlines()[-1].startswith("stopped; the same command goes on")
    model = keras.models.load_model(run.checkpoint)
    epochs = int(model.optimizer.iterations) / training_data(recipe).steps_per_epoch
    assert epochs >= 1 and epochs == run.epochs_done()


@pytest.mark.slow
def test_pairs_resume_too(recipe, tmp_path, monkeypatch):
    twins = recipe("pairs", **{"training.epochs": 3, "data.pairs_per_epoch": 192})
    data = training_data(twins)
    unbroken = train(twins, data, tmp_path / "whole", verbose=0)

    class Stopping(EpochSeconds):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt
            super().on_epoch_begin(epoch, logs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("keras_shared.training.fit.EpochSeconds", Stopping)
        train(twins, data, tmp_path / "run", verbose=0)
    resumed = train(twins, data, tmp_path / "run", verbose=0)
    for a, b in zip(resumed.weights, unbroken.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_killed_before_the_first_checkpoint(noisy, tmp_path):
    """The history is then an empty file."""
    recipe, run = noisy(), Run(tmp_path / "run")
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(recipe.path), str(run.path)])
    while not run.history_file.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(recipe, training_data(recipe), run, verbose=0)
    assert [row["epoch"] for row in run.history()] == list(range(12))


@pytest.mark.slow
def test_fine_tuning_goes_on_from_its_own_start_only(noisy, tmp_path):
    recipe = noisy(**{"training.epochs": 2})
    data = training_data(recipe)
    start = build_model(recipe)
    weights = start.get_weights()
    tuned = train(recipe, data, tmp_path / "run", start=start, verbose=0).get_weights()
    start.set_weights(weights)
    again = train(recipe, data, tmp_path / "run", start=start, verbose=0)
    np.testing.assert_array_equal(again.get_weights()[0], tuned[0])
    for other in (None, build_model(recipe)):
        with pytest.raises(RunError, match="a run from another start.*--out"):
            train(recipe, data, tmp_path / "run", start=other, verbose=0)


def test_a_start_that_is_not_the_recipes_model(noisy, tmp_path):
    TiedAutoencoder(units=(16, 8), input_dim=64, noise=0.2).save(tmp_path / "other.keras")
    both = r"`model.units` is \(32, 8\), and .* has \(16, 8\).*`model.activation` is 'gelu', and"
    with pytest.raises(RunError, match=both):
        start_model(noisy(), tmp_path / "other.keras")
    wide = noisy(**{"model.input_dim": 65})
    with pytest.raises(RunError, match=r"'digits' gives inputs of shape \(64,\).*\(65,\)"):
        train(wide, training_data(wide), tmp_path / "wide", verbose=0)


@pytest.mark.slow
def test_calibration_uses_validation_pairs(recipe, tmp_path):
    """The probability of a contrastive net is fitted to pairs that were not trained on."""
    twins = recipe("pairs", **{"training.loss": "contrastive", "data.pairs_per_epoch": 320,
                               "data.validation_pairs": 200})  # fmt: skip
    data = training_data(twins)
    model = train(twins, data, tmp_path / "run", verbose=0)
    outputs = model.predict(data.validation.map(lambda x, y: x), verbose=0)
    same = np.concatenate([y["probability"] for _, y in data.validation.as_numpy_iterator()])
    # the maximum likelihood fit has the right share of "same" on the pairs it was fitted to
    assert abs(float(outputs["probability"].mean()) - same.mean()) < 0.01


@pytest.mark.slow
def test_a_batch_loss_trains_the_tower_and_resumes(recipe, tmp_path, monkeypatch):
    """The checkpoint holds the part that is trained; the model gets its weights, and is fitted."""
    episodes = recipe("pairs", **{
        "training.loss": "n_pair", "training.epochs": 3, "training.batch_size": 20,
        "data.examples_per_class": 4, "data.rotated_classes": True, "data.images_per_epoch": 60,
        "data.distortion": [5.0, 0.1, 0.1, 1.0], "data.validation_tasks": 5,
        "data.validation_pairs": 200,
    })  # fmt: skip
    data = training_data(episodes)
    whole = train(episodes, data, tmp_path / "whole", verbose=0)

    broken, save = Run(tmp_path / "broken"), Run.save

    def stop(run, model, file, record):
        save(run, model, file, record)
        if len(record.history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(episodes, data, broken, verbose=0)
    monkeypatch.setattr(Run, "save", save)
    assert broken.epochs_done() == 2
    resumed = train(episodes, data, broken, verbose=0)
    for a, b in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    assert isinstance(keras.models.load_model(broken.model_file), type(whole))
    last = broken.facts()["last_epoch"]
    assert {"loss", "one_shot_accuracy", "val_loss", "val_one_shot_accuracy"} == set(last)
    assert broken.best().path == broken.path
    # the pairs to calibrate by are of classes that were not trained on
    outputs = whole.predict(data.pairs.map(lambda x, y: x), verbose=0)
    same = np.concatenate([y["probability"] for _, y in data.pairs.as_numpy_iterator()])
    assert abs(float(outputs["probability"].mean()) - same.mean()) < 0.01


@pytest.mark.slow
def test_steps_at_once_are_of_the_training_alone(recipe, tmp_path):
    """Several steps fill an epoch without a rest; the model and its file have one, as Keras has."""
    read = recipe(
        "classifier",
        **{"data.images_per_epoch": 24 * 32, "training.batch_size": 32, "training.epochs": 1},
    )
    data, run = training_data(read), Run(tmp_path / "run")
    assert data.steps_per_epoch == 24
    calls = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: calls.append(step))
    original = keras.Model.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            keras.Model, "fit",
            lambda self, *args, callbacks, **kwargs: original(
                self, *args, callbacks=[*callbacks, watch], **kwargs
            ),
        )  # fmt: skip
        model = train(read, data, run, verbose=0)
    assert calls == [11, 23]  # 12 is the largest part of 24 up to 20
    assert int(model.optimizer.iterations) == 24
    loaded = keras.models.load_model(run.model_file)
    assert model.steps_per_execution == loaded.steps_per_execution == 1
    assert loaded.get_compile_config()["steps_per_execution"] == 1
