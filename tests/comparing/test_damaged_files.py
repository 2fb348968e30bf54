"""comparison.json, result.json and metrics.json of any content end in our error, or are right."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from mutations import fuzzed, mutated

from keras_shared.comparing.runs import RESULT, CompareError, _check_folder, _kept_result, compare
from keras_shared.errors import KerasSharedError
from keras_shared.evaluation.entry import (
    COMPARISON,
    METRICS,
    EvaluationError,
    _comparison_in,
    known_runs,
)
from keras_shared.presets.names import entry_dir
from keras_shared.recipes import read_recipe
from keras_shared.recipes.schema import Arm, Comparison
from keras_shared.training import RunError

KEPT = {
    "seed": 1, "parameters": 10, "weights_bytes": 40, "seconds_per_epoch": 0.5,
    "peak_memory_bytes": None, "test": {"loss": 0.5}, "history": {"val_loss": [0.5, None]},
}  # fmt: skip
FAULTS = [b"", b"\0" * 50, b"{", b"[]", b"null", b"{}", b'{"name": 1}', b"[" * 100_000]
HOLD = """
import pathlib, sys, time
from keras_shared.files.atomic import locked
from keras_shared.errors import KerasSharedError
with locked(pathlib.Path(sys.argv[1]), KerasSharedError, ""):
    print("locked", flush=True)
    time.sleep(600)
"""


def compared():
    for path in (entry_dir("lenet5_mnist").parent).glob(f"*/{COMPARISON}"):
        return path.read_bytes(), read_recipe(path.parent / "recipe.toml")
    raise FileNotFoundError


def readers(folder):
    """Each file with what reads it."""
    content, recipe = compared()
    table = read_recipe(entry_dir("tied_autoencoder_mnist") / "recipe.toml")
    kept = {**KEPT, "test": {table.task.headline.key: 0.5}}
    metrics = (entry_dir("lenet5_mnist") / METRICS).read_bytes()
    return [
        (folder / COMPARISON, content, lambda: _comparison_in(folder, recipe)),
        (folder / COMPARISON, content, lambda: _check_folder(folder, Comparison())),
        (folder / RESULT, json.dumps(kept).encode(), lambda: _kept_result(folder / RESULT, table)),
        (folder / METRICS, metrics, lambda: known_runs(folder / METRICS)),
    ]


@pytest.mark.parametrize("number", range(4))
def test_faults_name_the_file_and_what_to_do(tmp_path, number):
    file, whole, read = readers(tmp_path)[number]
    for content in FAULTS:
        file.write_bytes(content)
        with pytest.raises((CompareError, EvaluationError), match=r"(?s)emove|Put the file"):
            read()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises((CompareError, EvaluationError), match=f"{file.name} is no regular file"):
        read()
    file.unlink()
    file.write_bytes(whole)
    if number != 1:  # arms of another comparison
        read()


@pytest.mark.parametrize("number", range(4))
def test_nothing_else_comes_out(tmp_path, number):
    file, whole, read = readers(tmp_path)[number]

    @fuzzed
    @given(mutated(whole))
    def check(content):
        file.write_bytes(content)
        try:
            read()
        except KerasSharedError as error:
            assert str(tmp_path) in str(error)

    check()


def test_a_result_of_another_seed_or_that_is_not_finite(tmp_path, recipe):
    small = recipe("autoencoder")
    right = {**KEPT, "test": {small.task.headline.key: 0.5}}
    for changes, said in (
        ({"seed": 2}, "is of seed 2"),
        ({"seconds_per_epoch": float("nan")}, "not finite"),
        ({"test": {}}, "is not what `compare` writes"),
        ({"parameters": "10"}, r"wrong or missing are \['parameters'\]"),
    ):
        (tmp_path / RESULT).write_text(json.dumps({**right, **changes}))
        with pytest.raises(CompareError, match=f"{said}.*trained again"):
            _kept_result(tmp_path / RESULT, small)


def test_one_comparison_at_a_time_in_a_folder(tmp_path, recipe):
    one = Comparison(seeds=(1,), arms=(Arm(name="as is"),))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline().strip() == "locked"
        with pytest.raises(RunError, match=f"in use by process {holder.pid}.*--out"):
            compare(recipe("autoencoder"), one, tmp_path)
    finally:
        holder.kill()
        holder.wait()
