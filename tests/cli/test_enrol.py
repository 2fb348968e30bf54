import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_shared.cli import main


@pytest.fixture
def drawings(tmp_path):
    """Signs, twice each, the second time one pixel further."""
    files = {}
    shapes = {"bar": (50, 20, 55, 85), "dash": (20, 50, 85, 55), "box": (30, 30, 75, 75)}
    for name, box in shapes.items():
        for i in range(2):
            paper = np.full((105, 105), 255, "uint8")
            paper[box[1] + i : box[3] + i, box[0] + i : box[2] + i] = 0
            files[f"{name}_{i}"] = str(tmp_path / f"{name}_{i}.png")
            Image.fromarray(paper).save(files[f"{name}_{i}"])
    return files


@pytest.mark.slow
def test_enrol_identify_remove(drawings, tmp_path, capsys):
    gallery = str(tmp_path / "signs.npz")
    for name in ("bar", "dash"):
        assert main(["enrol", gallery, f"[red]{name}", drawings[f"{name}_0"]]) == 0
    assert "2 names, 2 embeddings" in capsys.readouterr().out
    assert main(["identify", gallery, drawings["bar_1"], drawings["dash_1"], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found] == ["[red]bar", "[red]dash"]
    assert [len(one["matches"]) for one in found] == [2, 2]
    assert main(["identify", gallery, drawings["box_1"], "--threshold", "0.9"]) == 0
    assert "unknown" in (table := capsys.readouterr().out)
    assert "[red]bar" in table
    assert max(map(len, table.splitlines())) <= 80
    assert main(["enrol", gallery, "[red]bar", "--remove"]) == 0
    assert "1 names, 1 embeddings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["enrol", "{}/b/a.npz", "anna", "x.png"], "There is no folder"),
        (["enrol", "{}/a.npz", "anna", "{}/x.png"], "There is no file"),
        (["enrol", "{}/a.npz", "anna", "--remove"], "There is no file"),
        (["identify", "{}/a.npz", "{}/x.png"], "There is no file"),
        (["enrol", "{}/a.npz", "anna", "x.png", "--model", "lenet5_mnist"], "Received: LeNet5"),
    ],
)
def test_wrong_calls(arguments, words, tmp_path, capsys):
    assert main([argument.format(tmp_path) for argument in arguments]) == 1
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_at_once_lose_nothing(drawings, tmp_path):
    gallery = str(tmp_path / "signs.npz")
    command = [sys.executable, "-m", "keras_shared.cli", "enrol", gallery]
    processes = [
        subprocess.Popen([*command, name, drawings[f"{name}_0"]]) for name in ("bar", "dash")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    with np.load(gallery) as kept:
        assert sorted(json.loads(kept["head"].tobytes())["names"]) == ["bar", "dash"]
