"""The folder of a run: who may write there, and the best of several seeds."""

import json
import subprocess
import sys
import zipfile

import pytest
import tomli_w

from keras_shared.recipes import read_recipe
from keras_shared.training import Run, RunError, train, training_data
from keras_shared.training.run import RECORD, in_short

HOLD = """
import sys, time
from keras_shared.recipes import read_recipe
from keras_shared.training import Run
run = Run(sys.argv[2])
with run.claimed(read_recipe(sys.argv[1]), "recipe"):
    print("claimed", flush=True)
    time.sleep(600)
"""


def finished(run, recipe, last):
    """The files of a finished run, as an older version wrote them, without a model."""
    run.claim(recipe, "recipe")
    with zipfile.ZipFile(run.model_file, "w"):
        pass
    rows = [{"epoch": float(n), **last} for n in range(recipe.training.epochs)]
    run.write_history(rows)
    run.facts_file.write_text(json.dumps(in_short(rows)))


def test_a_run_belongs_to_its_recipe_seed_and_start(recipe, tmp_path):
    small, run = recipe("autoencoder"), Run(tmp_path / "run")
    train(small, training_data(small), run, verbose=0)
    for other, start, said in (
        (small.with_seed(2), "recipe", "from another start or seed"),
        (small, "abc", "from another start or seed"),
        (small.with_changes({"training.epochs": 9}), "recipe", "of another recipe"),
    ):
        with pytest.raises(RunError, match=f"holds a run {said}.*--out"):
            run.claim(other, start)
    run.claim(small.with_changes({"description": "said in other words"}), "recipe")


def test_what_failed_before_its_first_epoch_blocks_nobody(recipe, tmp_path):
    run = Run(tmp_path / "run")
    wide = recipe("autoencoder", **{"model.input_dim": 65})
    with pytest.raises(RunError, match="gives inputs of shape"):
        train(wide, training_data(wide), run, verbose=0)
    small = recipe("autoencoder", **{"training.epochs": 1})
    train(small, training_data(small), run, verbose=0)
    assert run.recipe() == small and len(run.history()) == 1


@pytest.mark.slow
def test_a_second_trainer_is_refused_at_once(recipe, tmp_path):
    small, run = recipe("autoencoder"), Run(tmp_path / "run")
    small.write(tmp_path / "small.toml")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "small.toml"), str(run.path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline().strip() == "claimed"
        with pytest.raises(RunError, match="run is in use by process [0-9]+. .*--out"):
            train(small, training_data(small), run, verbose=0)
    finally:
        holder.kill()
        holder.wait()
    train(small, training_data(small), run, verbose=0)  # the lock died with its holder


def test_the_best_of_several_seeds(recipe, tmp_path):
    two = recipe("autoencoder", **{"training.seeds": [1, 2]})
    run = Run(tmp_path / "two")
    for (seed, folder), loss in zip(run.of_seeds(two).items(), ("NaN", "0.1"), strict=True):
        finished(folder, two.with_seed(seed), {"val_loss": float(loss)})
    assert run.best().path.name == "seed-2"  # the first diverged
    three = two.with_changes({"training.seeds": [1, 2, 3]})
    run.expect(three)
    with pytest.raises(RunError, match=r"Not trained to the end.*seed-3\. To go on: keras-sh"):
        run.best()
    finished(run.of_seeds(three)[3], three.with_seed(3), {"val_loss": 0.05})
    assert run.best().path.name == "seed-3"
    run.claim(two.with_seed(1), "recipe")
    with pytest.raises(RunError, match="one seed and runs of several"):
        run.best()


def test_the_best_by_accuracy_where_the_task_says_so(recipe, tmp_path):
    two = recipe("pairs", **{"training.seeds": [1, 2]})
    run = Run(tmp_path / "two")
    for (seed, folder), accuracy in zip(run.of_seeds(two).items(), (0.9, 0.8), strict=True):
        last = {"val_loss": 1.0 - seed, "val_probability_accuracy": accuracy}
        finished(folder, two.with_seed(seed), last)
    assert run.best().path.name == "seed-1"


def test_nothing_there(tmp_path):
    with pytest.raises(RunError, match="There is no folder .*nothing. Expected that of a run"):
        Run(tmp_path / "nothing").best()
    with pytest.raises(RunError, match="holds no run. Expected that of a run, as `keras-shared tr"):
        Run(tmp_path).best()


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_what_is_not_of_a_run_stays(recipe, tmp_path, seeds):
    own = recipe("autoencoder", **{"training.seeds": seeds})
    (tmp_path / "recipe.toml").write_text("# mine\n" + tomli_w.dumps(own.to_dict()))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("mine")
    before = (tmp_path / "recipe.toml").read_text()
    read = read_recipe(tmp_path / "recipe.toml")

    def begin(folder):
        if len(seeds) > 1:
            Run(folder).expect(read)
        else:
            Run(folder).claim(read, "recipe")

    with pytest.raises(RunError, match="is the recipe that was read.*--out"):
        begin(tmp_path)
    with pytest.raises(RunError, match="README.md is not of a run.*--out"):
        begin(tmp_path / "other")
    assert (tmp_path / "recipe.toml").read_text() == before
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["README.md"]
    begin(tmp_path / "run")
    begin(tmp_path / "run")  # a run that was begun goes on


def without_record(file, comment=b""):
    """The file of a model as an older version wrote it."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != RECORD}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = comment


@pytest.mark.slow
@pytest.mark.parametrize("comment", [b"", b"2"])
def test_a_run_of_an_older_version_goes_on_too(recipe, tmp_path, comment):
    small, run = recipe("autoencoder"), Run(tmp_path / "run")
    train(small, training_data(small), run, verbose=0)
    for file in (run.checkpoint, run.model_file):
        without_record(file, comment)
    assert run.epochs_done() == int(comment or 0)
    assert run.best().path == run.path
    kept = run.history_file.read_text()
    # killed between the row of a third epoch and its checkpoint
    run.history_file.write_text(kept + kept.splitlines()[-1][:9])
    train(small, training_data(small), run, verbose=0)
    assert run.history_file.read_text() == kept


def test_one_seed_and_several_do_not_mix(recipe, tmp_path):
    one, run = recipe("autoencoder", **{"training.epochs": 1}), Run(tmp_path / "run")
    train(one, training_data(one), run, verbose=0)
    two = one.with_changes({"training.seeds": [1, 2]})
    with pytest.raises(RunError, match="holds a run of one seed, and the recipe has several"):
        run.expect(two)
    assert run.best().path == run.path
    run.checkpoint.unlink()
    run.model_file.unlink()  # what training found out is still kept
    with pytest.raises(RunError, match="of another recipe"):
        run.claim(one.with_changes({"training.epochs": 2}), "recipe")


@pytest.mark.slow
def test_the_recipe_of_several_seeds_is_kept_while_one_trains(recipe, tmp_path):
    two, run = recipe("autoencoder", **{"training.seeds": [1, 2]}), Run(tmp_path / "run")
    run.expect(two)
    two.write(tmp_path / "two.toml")
    first = run.of_seeds(two)[1]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "two.toml"), str(first.path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline().strip() == "claimed"
        with pytest.raises(RunError, match="seed-1 is in use by process"):
            run.expect(two.with_changes({"training.epochs": 9}))
    finally:
        holder.kill()
        holder.wait()
    assert run.recipe() == two
