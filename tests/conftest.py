import os
import signal
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# tests run side by side: scikit-learn's threads would wait for a processor that another test has
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import pytest

# under nohup, or in the background of a shell, these are ignored, and so by all that tests start
for number, handler in {
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}.items():
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(7)


@pytest.fixture
def data_dir():
    """The folder of real data sets, or a skip that says so."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder or not os.path.isdir(folder):
        pytest.skip("real data sets: TFDS_DATA_DIR names no folder")
    return folder


@pytest.fixture
def fresh_python():
    """Run Python code in a new process, fail with its errors, and give back what it prints."""

    def run(code, *arguments):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    return run


# Recipes of the tests' own, on data that need no network: no test depends on an entry's values.
RECIPES = {
    "autoencoder": {
        "name": "small",
        "model": {"class_name": "TiedAutoencoder", "units": [16, 4], "input_dim": 64,
                  "activation": "gelu"},
        "data": {"name": "digits", "validation_images": 100},
        "training": {"learning_rate": 0.005, "epochs": 2, "batch_size": 32},
    },
    "classifier": {  # of 8x8 pixels where LeNet-5 takes 28x28: for what never builds the model
        "name": "letters",
        "model": {"class_name": "LeNet5"},
        "data": {"name": "digits", "validation_images": 200},
    },
    "pairs": {
        "name": "twins",
        "model": {"class_name": "SiameseNet", "image_shape": [8, 8, 1]},
        "data": {"name": "digits", "validation_groups": ["1", "4"], "test_groups": ["2", "5", "8"],
                 "pairs_per_epoch": 128, "validation_pairs": 100, "test_pairs": 100},
        "training": {"learning_rate": 0.0003, "epochs": 1},
    },
}  # fmt: skip


@pytest.fixture
def recipe():
    """Makes one of the recipes above, with changes: `recipe("pairs", **{"training.epochs": 2})`."""
    from keras_shared.recipes import recipe_from

    def make(kind, **changes):
        return recipe_from(RECIPES[kind], f"{kind}.toml").with_changes(changes)

    return make


@pytest.fixture
def small_recipe(recipe):
    """The text of a recipe that trains in a second."""
    import tomli_w

    return tomli_w.dumps(recipe("autoencoder").to_dict())
