"""Names and paths that the system refuses, and folders that belong to another."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from keras_shared.errors import KerasSharedError
from keras_shared.presets.names import LoadError, list_presets, locate, version_dir

LOOK = """
import os, pathlib, sys
from keras_shared.errors import KerasSharedError
from keras_shared.presets import names
from keras_shared.presets.names import list_presets, locate, version_dir, version_numbers
names._root = lambda: pathlib.Path(sys.argv[1])
if not os.getuid():
    os.setuid(65534)
os.environ["KERAS_SHARED_HOME"] = sys.argv[1]
found = list_presets()
print("closed" in found, "open" in found, locate("open").name)
for look in (version_numbers, version_dir, lambda path: version_dir(path + "/1")):
    try:
        print(look(sys.argv[1] + "/closed"))
    except KerasSharedError as error:
        print(error)
"""


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + "/1", "a" * 300 + ".keras", "x\0y"])
def test_a_name_that_the_system_refuses(name):
    for look in (locate, version_dir):
        with pytest.raises(LoadError):
            look(name)


@pytest.mark.parametrize("name", [None, 3, b"lenet5_mnist", ["lenet5_mnist"]])
def test_what_is_no_name(name):
    for look in (locate, version_dir):
        with pytest.raises(TypeError, match="is a path, as str or pathlib.Path. Received: "):
            look(name)


@pytest.mark.parametrize("name", ["\x1b[31m", "\x1b[31m/a", "\udcff"])
def test_control_characters_are_shown(name, tmp_path):
    for path in (name, tmp_path / name):
        with pytest.raises(KerasSharedError) as caught:
            version_dir(path)
        assert str(caught.value).isprintable()


@pytest.fixture
def home():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are for this user alone
        pathlib.Path(folder).chmod(0o755)
        yield pathlib.Path(folder)


def test_a_folder_of_another_user_hides_nothing(home):
    for name in ("open", "closed"):
        (home / name / "1").mkdir(parents=True)
    (home / "closed").chmod(0)
    looked = subprocess.run(
        [sys.executable, "-c", LOOK, home], capture_output=True, text=True, check=False
    )
    (home / "closed").chmod(0o700)
    assert not looked.stderr
    first, *others = looked.stdout.splitlines()
    assert first == "False True open"
    assert len(others) == 3 and all("closed" in said and "denied" in said for said in others)


def test_damaged_metrics_of_the_zoo_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_shared.presets.names._root", lambda: tmp_path)
    (tmp_path / "saved_models" / "a" / "1").mkdir(parents=True)
    (tmp_path / "zoo" / "a").mkdir(parents=True)
    (tmp_path / "zoo" / "a" / "metrics.json").write_text("{")
    monkeypatch.setenv("KERAS_SHARED_HOME", os.fspath(tmp_path / "none"))
    with pytest.raises(LoadError, match=r"metrics.json is no JSON"):
        list_presets()
