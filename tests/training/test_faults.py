"""The folder of a run after faults: mended from its checkpoint, or refused with what to do."""

import dataclasses
import json
import os
import re
import shutil
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import given
from mutations import fuzzed, mutated

from keras_shared.errors import KerasSharedError
from keras_shared.recipes import read_recipe, recipe_from
from keras_shared.tasks import TASKS, Monitor
from keras_shared.training import Run, RunError, train, training_data
from keras_shared.training.run import RECORD

RECIPE = {
    "name": "small",
    "model": {"class_name": "TiedAutoencoder", "units": [8], "input_dim": 64},
    "data": {"name": "digits", "validation_images": 100},
    "training": {"epochs": 2, "batch_size": 256},
}
FAULTS = {
    "removed": None, "empty": b"", "NUL bytes": b"\0" * 300, "garbage": b"\x93\xffab,c\n",
    "a folder": "folder", "a pipe": "pipe", "another kind": b"[1, 2]\n", "half": 0.5,
    "cut": 0.9,
}  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return recipe_from(RECIPE)


@pytest.fixture(scope="module")
def data(small):
    return training_data(small)


@pytest.fixture(scope="module")
def trained(small, data, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("trained") / "run")
    train(small, data, run, verbose=0)
    return run


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run", ignore=shutil.ignore_patterns("logs"))
    return Run(tmp_path / "run")


def harm(file, fault):
    content = file.read_bytes()
    file.unlink()
    if fault == "folder":
        file.mkdir()
    elif fault == "pipe":
        os.mkfifo(file)
    elif fault is not None:
        file.write_bytes(content[: int(len(content) * fault)] if type(fault) is float else fault)


def without_record(file):
    """The file of a model as an older version wrote it."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != RECORD}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = b"2"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["history_file", "facts_file", "model_file", "recipe_file"])
def test_a_finished_run_with_a_fault_is_refused_by_name(run, name, fault):
    file = getattr(run, name)
    harm(file, FAULTS[fault])
    with pytest.raises(KerasSharedError) as caught:
        run.best().model()
    if name != "recipe_file":
        assert file.name in str(caught.value) or "Not trained to the end" in str(caught.value)
        assert re.search(r"Train its recipe|Remove it|Not trained", str(caught.value))
    assert str(run.path) in str(caught.value)


@pytest.mark.parametrize("name", ["history_file", "facts_file", "model_file", "recipe_file"])
@pytest.mark.parametrize(
    "fault",
    [
        "empty",
        *(
            pytest.param(f, marks=pytest.mark.slow)
            for f in ("removed", "NUL bytes", "garbage", "half")
        ),
    ],
)
def test_the_advice_to_train_again_mends_it(run, trained, small, data, name, fault):
    whole = trained.model().get_weights()
    harm(getattr(run, name), FAULTS[fault])
    if name == "model_file" and fault != "removed":
        run.model_file.unlink()
    train(small, data, run, verbose=0)
    for a, b in zip(run.best().model().get_weights(), whole, strict=True):
        np.testing.assert_array_equal(a, b)
    for file in ("history_file", "recipe_file"):
        assert getattr(run, file).read_bytes() == getattr(trained, file).read_bytes()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda rows: rows[:2], "history.csv has 1 epochs, and the recipe 2"),
        (lambda rows: [rows[0], rows[2]], "row 1 is of epoch 1.0, not 0"),
        (lambda rows: [*rows, rows[1]], "row 3 is of epoch 0.0, not 2"),
        (lambda rows: [*rows[:2], rows[2][:7]], "a row has 2 values, and . are expected"),
        (lambda rows: [rows[0], rows[1], rows[2].replace("1,", "1,7", 1)], "do not agree"),
        (lambda rows: rows[:1], "history.csv has 0 epochs"),
        (lambda rows: [row.replace(",", ";") for row in rows], "history.csv cannot be read"),
    ],
)
def test_a_history_that_is_another_is_refused(run, edit, said):
    rows = run.history_file.read_text().splitlines(keepends=True)
    run.history_file.write_text("".join(edit(rows)))
    for file in (None, run.checkpoint, run.model_file):  # then as an older version wrote them
        if file is not None:
            without_record(file)
        with pytest.raises(RunError, match=said):
            run.best()


def test_facts_of_another_run(run):
    facts = json.loads(run.facts_file.read_text())
    for key, value in (("seed", 9), ("epochs", 1), ("last_epoch", {"val_loss": 0.0})):
        run.facts_file.write_text(json.dumps({**facts, key: value}))
        with pytest.raises(RunError, match=f"'{key}' in training.json is another than by"):
            run.best()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_is_not_whole(run, small, data, fault):
    harm(run.checkpoint, FAULTS[fault])
    if fault == "removed":
        train(small, data, run, verbose=0)  # from the beginning
        assert run.epochs_done() == 2
        return
    with pytest.raises(KerasSharedError, match=r"checkpoint.keras.*Remove it"):
        train(small, data, run, verbose=0)


def test_a_record_of_another_size_than_it_declares(run):
    with zipfile.ZipFile(run.checkpoint, "a") as archive:
        archive.getinfo(RECORD).file_size = 30
        archive.writestr("more", b"")  # the list is written again
    with pytest.raises(RunError, match=r"'run.json' declares 30 bytes and holds more.*Remove it"):
        run.record(run.checkpoint)


def test_a_checkpoint_of_another_recipe_or_model(run, small, data, tmp_path):
    other = small.with_changes({"model.units": [4]})
    another = Run(tmp_path / "other")
    train(other, data, another, verbose=0)
    shutil.copy(another.checkpoint, run.checkpoint)
    with pytest.raises(RunError, match=r"checkpoint.keras is of another recipe.*remove it"):
        train(small, data, run, verbose=0)
    without_record(run.checkpoint)
    with pytest.raises(RunError, match=r"TiedAutoencoder with .* and the recipe is of.*remove"):
        train(small, data, run, verbose=0)
    inputs = keras.Input((64,))
    model = keras.Model(inputs, keras.layers.Dense(64)(inputs))
    model.compile("adam", "mse")
    model.save(run.checkpoint)
    with pytest.raises(RunError, match="holds a Functional with 4,160 parameters"):
        train(small, data, run, verbose=0)
    run.checkpoint.unlink()  # as advised
    shutil.copy(another.model_file, run.model_file)
    with pytest.raises(RunError, match="model.keras was trained by another recipe"):
        run.best()


def test_an_older_run_with_files_of_no_bytes(run, small, data):
    """As a power cut left them before they were flushed: what cannot be known is asked for."""
    for file in (run.checkpoint, run.model_file):
        without_record(file)
    start, rows = run.path / "start.txt", run.history_file.read_bytes()
    kept = run.recipe_file.read_bytes()
    start.write_bytes(b"")
    with pytest.raises(RunError, match=r"start.txt is empty. If it began") as caught:
        train(small, data, run, verbose=0)
    start.write_text(re.search(r"one line: (.*?)\. Otherwise", str(caught.value))[1])
    run.history_file.write_bytes(b"")
    with pytest.raises(RunError, match=r"history.csv has 0 epochs, and checkpoint.keras 2. Put"):
        train(small, data, run, verbose=0)
    run.history_file.write_bytes(rows)
    run.recipe_file.write_bytes(b"")
    with pytest.raises(KerasSharedError, match=r"(?s)recipe.toml.*missing.*Put the recipe"):
        train(small, data, run, verbose=0)
    run.recipe_file.write_bytes(kept)
    train(small, data, run, verbose=0)
    assert run.best().path == run.path


def test_a_run_that_diverged_is_not_the_best(run, small):
    rows = [{**row, "loss": float("nan"), "val_loss": float("nan")} for row in run.history()]
    run.write_history(rows)
    facts = json.loads(run.facts_file.read_text())
    facts["last_epoch"] = dict.fromkeys(facts["last_epoch"], float("nan"))
    facts["history"] = {key: [float("nan")] * 2 for key in facts["history"]}
    run.facts_file.write_text(json.dumps(facts))
    without_record(run.model_file)
    with pytest.raises(RunError, match="no run is the best, since all diverged"):
        run.best()


@pytest.mark.slow
def test_where_nothing_validates_the_first_run_is_taken(small, tmp_path):
    whole = small.with_changes({"data.validation_images": 0, "training.epochs": 1})
    for seed in (1, 2):
        run = Run(tmp_path / f"seed-{seed}")
        train(whole.with_seed(seed), training_data(whole), run, verbose=0)
    assert not any(key.startswith("val_") for key in run.facts()["history"])
    assert Run(tmp_path).best().path.name == "seed-1"


def test_a_monitor_of_another_name_is_said_after_an_epoch(small, tmp_path, monkeypatch):
    run, one = Run(tmp_path / "run"), small.with_changes({"training.epochs": 2})
    right = TASKS["reconstruction"]
    wrong = dataclasses.replace(right, monitor=Monitor("val_lost", more_is_better=False))
    monkeypatch.setitem(TASKS, "reconstruction", wrong)
    with pytest.raises(RunError, match=r"no 'val_lost', by which .* has: \[.*'val_loss'.*Name one"):
        train(one, training_data(one), run, verbose=0)
    assert run.epochs_done() == 1
    monkeypatch.setitem(TASKS, "reconstruction", right)
    train(one, training_data(one), run, verbose=0)  # the advice
    assert run.best().path == run.path and run.epochs_done() == 2


def test_a_folder_that_is_replaced_while_it_is_trained_in(small, tmp_path):
    run = Run(tmp_path / "run")
    with run.claimed(small, "recipe"):
        run.path.rename(tmp_path / "moved")
        with pytest.raises(RunError, match="was removed, moved or replaced"):
            run.write_history([{"epoch": 0.0}])
        run.path.mkdir()
        with pytest.raises(RunError, match="was removed, moved or replaced"):
            run.write_history([{"epoch": 0.0}])
        with Run(run.path).claimed(small, "recipe"):  # the new one is free
            pass


@pytest.mark.slow
def test_what_tensorflow_cannot_do_is_said_in_a_sentence(small, tmp_path):
    wide = small.with_changes({"model.units": [2**31 - 1]})
    with pytest.raises(RunError, match=r"(?s)small|recipe.*lower training.batch_size") as caught:
        train(wide, training_data(wide), tmp_path / "run", verbose=0)
    assert "\n" not in str(caught.value) and "Graph execution" not in str(caught.value)


@fuzzed
@given(mutated(b"epoch,loss,seconds,val_loss\n0,0.5,1.25,0.25\n1,0.4,1.5,nan\n"))
def test_any_history(tmp_path_factory, content):
    run = Run(tmp_path_factory.getbasetemp())
    run.history_file.write_bytes(content)
    try:
        rows = run.history()
    except RunError as error:
        assert "history.csv" in str(error)
    else:
        assert all(row["epoch"] == number for number, row in enumerate(rows))


@pytest.mark.slow
def test_any_other_file(trained, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("any") / "run")
    shutil.copytree(trained.path, run.path, ignore=shutil.ignore_patterns("logs"))

    for file in (run.facts_file, run.model_file, run.recipe_file):
        whole = file.read_bytes()

        @fuzzed
        @given(mutated(whole))
        def check(content):
            file.write_bytes(content)  # noqa: B023
            try:
                run.best()
            except KerasSharedError as error:
                assert str(run.path) in str(error)

        check()
        file.write_bytes(whole)
    run.best()
    whole = run.checkpoint.read_bytes()

    @fuzzed
    @given(mutated(whole))
    def check(content):
        run.checkpoint.write_bytes(content)
        try:
            run.epochs_done()
            run.claim(read_recipe(run.recipe_file), "recipe")
        except KerasSharedError as error:
            assert str(run.path) in str(error)

    check()
