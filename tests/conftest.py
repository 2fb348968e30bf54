import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest


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


@pytest.fixture
def small_recipe():
    """The text of a recipe that trains in a second, on the embedded digits."""
    return """
name = "small"
paper = ""
[model]
class_name = "TiedAutoencoder"
units = [16, 4]
input_dim = 64
activation = "gelu"
noise = 0.0
[data]
name = "digits"
validation_images = 100
images_per_class = 0
images_per_epoch = 0
distortion = [0, 0, 0, 0]
seed = 1
[training]
sharing = "shared"
loss = "binary_crossentropy"
optimizer = "adam"
learning_rate = 0.005
averaging = 0.0
epochs = 2
batch_size = 32
seeds = [1]
"""
