"""Two processes on this machine that train one model, beside one process with the whole batches."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_shared.training import Run, RunError, train, training_data
from keras_shared.training.workers import Workers

TOGETHER = """
import sys
from keras_shared.cli import main
sys.exit(main(["train", sys.argv[1], "--out", sys.argv[2], "--strategy", "multi-worker"]))
"""


def start(recipe_file, out, addresses, number, chief=False):
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
    if chief:
        first, *others = addresses
        task = {"type": "worker", "index": number - 1} if number else {"type": "chief", "index": 0}
        cluster = {"cluster": {"chief": [first], "worker": others}, "task": task}
    return subprocess.Popen(
        [sys.executable, "-c", TOGETHER, recipe_file, out], text=True,
        env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def addresses():
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return found


def ended(processes):
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def together(recipe_file, outs):
    where = addresses()
    return ended([start(recipe_file, out, where, number) for number, out in enumerate(outs)])


def written(recipe, tmp_path, kind, **changes):
    made = recipe(kind, **{"training.batch_size": 64, "training.epochs": 2, **changes})
    file = tmp_path / "recipe.toml"
    made.write(file)
    return made, file


def see_the_same(one, two):
    """Up to the order in which floats are added."""
    for a, b in zip(one.history(), two.history(), strict=True):
        of_a, of_b = ([row[key] for key in sorted(row) if key != "seconds"] for row in (a, b))
        np.testing.assert_allclose(of_a, of_b, rtol=2e-3)
    for a, b in zip(one.model().weights, two.model().weights, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=2e-3, err_msg=a.path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("autoencoder", {"training.averaging": 0.9}),
        pytest.param("pairs", {}, marks=pytest.mark.thorough),
    ],
)
def test_two_workers_train_as_one(recipe, tmp_path, kind, changes):
    if kind == "pairs":
        changes = {**changes, "training.loss": "contrastive", "data.pairs_per_epoch": 320}
    made, file = written(recipe, tmp_path, kind, **changes)
    codes, outputs = together(file, [tmp_path / "two"] * 2)
    assert codes == [0, 0], outputs
    train(made, training_data(made), tmp_path / "one", verbose=0)
    see_the_same(Run(tmp_path / "one"), Run(tmp_path / "two"))
    assert not outputs[1].strip()  # the first alone tells


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_a_chief_or_one_alone(recipe, tmp_path, count):
    made, file = written(recipe, tmp_path, "autoencoder")
    where = addresses()[:count]
    processes = [start(file, tmp_path / "two", where, n, chief=count > 1) for n in range(count)]
    codes, outputs = ended(processes)
    assert codes == [0] * count, outputs
    train(made, training_data(made), tmp_path / "one", verbose=0)
    see_the_same(Run(tmp_path / "one"), Run(tmp_path / "two"))
    assert not any(said.strip() for said in outputs[1:])  # the chief alone tells


@pytest.mark.parametrize("said", ["{}", '{"task": {"type": "worker", "index": 0}}'])
def test_no_cluster_is_not_taken_for_one_worker(said, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", said)
    with pytest.raises(RunError, match="Expected a cluster, and a task"):
        Workers()


@pytest.mark.slow
def test_a_killed_worker_ends_the_others_and_all_go_on(recipe, tmp_path):
    made, file = written(recipe, tmp_path, "autoencoder", **{"training.epochs": 12})
    run, where = Run(tmp_path / "two"), addresses()
    processes = [start(file, tmp_path / "two", where, number) for number in range(2)]
    while run.epochs_done() < 2:
        assert all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    (code, _), (said, _) = ended(processes)
    assert code == 1, said
    assert "Start all workers again if one" in said.splitlines()[-1], said
    assert 2 <= run.epochs_done() < 12
    codes, outputs = together(file, [tmp_path / "two"] * 2)
    assert codes == [0, 0], outputs
    train(made, training_data(made), tmp_path / "one", verbose=0)
    see_the_same(Run(tmp_path / "one"), run)


@pytest.mark.slow
def test_a_folder_that_not_all_see_is_refused(recipe, tmp_path):
    _, file = written(recipe, tmp_path, "autoencoder", **{"training.epochs": 3})
    where = addresses()
    alone = subprocess.Popen(
        [sys.executable, "-m", "keras_shared.cli", "train", file, "--out", tmp_path / "a"]
    )
    while not (tmp_path / "a" / "checkpoint.keras").exists():
        time.sleep(0.05)
    alone.kill()
    alone.wait()
    codes, outputs = ended([start(file, tmp_path / out, where, n) for n, out in enumerate("ab")])
    assert codes == [1, 1]
    assert all("must be one folder that all of them see" in said for said in outputs), outputs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("autoencoder", {"training.batch_size": 33}, "multiple of the number of workers, 2"),
        ("pairs", {"training.loss": "n_pair", "data.examples_per_class": 2},
         "NPairLoss compares the examples of a batch"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_out_is_refused(recipe, tmp_path, kind, changes, message):
    _, file = written(recipe, tmp_path, kind, **changes)
    codes, outputs = together(file, [tmp_path / "two"] * 2)
    assert codes == [1, 1]
    assert all(message in said for said in outputs), outputs


def test_without_a_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(RunError, match="needs the environment variable TF_CONFIG.*none"):
        Workers()
