"""A name stands for the same folder in `check`, `serve`, `write_manifests` and `answer`."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

import keras_shared
from keras_shared.presets.names import HOME, LoadError
from keras_shared.serving import EngineError, check, findings, serve, write_manifests
from keras_shared.serving.answering import AnswerError, answer

NAME = "lenet5_mnist"  # of a preset in the wheel: what has this name here must stand before it
SHIPPED = pathlib.Path(keras_shared.__file__).parents[1] / "saved_models" / NAME
RECORDER = """#!/bin/sh
for flag in "$@"; do
  case "$flag" in --model_config_file=*) cp "${flag#*=}" started.config;; esac
done
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working folder, a `tensorflow_model_server` that records its configuration."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv(HOME, raising=False)
    (tmp_path / "bin").mkdir()
    binary = tmp_path / "bin" / "tensorflow_model_server"
    binary.write_text(RECORDER)
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}:{os.environ['PATH']}")
    np.save("unfit.npy", np.zeros((1, 2, 3)))
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    return tmp_path / "home"


def write(folder):
    """A SavedModel as version 1 of `folder`."""
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}).get_concrete_function(
        tf.TensorSpec((None, 2), "float32", name="x")
    )
    tf.saved_model.save(module, str(folder / "1"), {"serving_default": module.double})
    return folder


def of_check(name, monkeypatch):
    versions = []
    monkeypatch.setattr(
        findings, "check_version", lambda folder, **_: versions.append(folder) or []
    )
    assert check(name) == []
    return versions[0].parent


def of_serve(name):
    with pytest.raises(EngineError, match="ended with status 0"):
        serve([name], rest_port=1, grpc_port=2)
    text = pathlib.Path("started.config").read_text()
    models = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return models.model_config_list.config[0].base_path


def of_write_manifests(name):
    [compose] = [f for f in write_manifests([name], "deploy") if f.name == "compose.yaml"]
    [service] = yaml.safe_load(compose.read_text())["services"].values()
    [source] = [v["source"] for v in service["volumes"] if v["target"].startswith("/models/")]
    return source


def of_answer(name):
    with pytest.raises(AnswerError, match="has no signature that takes") as caught:
        answer(name, [["unfit.npy"]])
    return pathlib.Path(str(caught.value).partition(" has no signature")[0]).parent


def a_folder_here(here, home):
    write(home / NAME)
    return NAME, write(here / NAME)


def a_path(here, home):
    write(here / NAME)
    return "deep/model", write(here / "deep" / "model")


def an_absolute_path(here, home):
    return str(home / NAME), write(home / NAME)


def a_model_of_ones_own(here, home):
    write(here / "saved_models" / NAME)
    return NAME, write(home / NAME)


def a_model_of_ones_own_behind_an_empty_folder(here, home):
    (here / NAME).mkdir()
    return NAME, write(home / NAME)


def a_preset(here, home):
    return NAME, SHIPPED


def a_preset_behind_an_empty_folder(here, home):
    (here / NAME).mkdir()
    (home / NAME).mkdir(parents=True)
    return NAME, SHIPPED


def a_preset_behind_a_folder_of_other_files(here, home):
    (here / NAME).mkdir()
    (here / NAME / "notes.txt").write_text("")
    return NAME, SHIPPED


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        a_folder_here,
        a_path,
        an_absolute_path,
        a_model_of_ones_own,
        a_model_of_ones_own_behind_an_empty_folder,
        a_preset,
        a_preset_behind_an_empty_folder,
        a_preset_behind_a_folder_of_other_files,
    ],
)
def test_every_name_is_one_folder_for_all(kind, here, home, monkeypatch):
    name, expected = kind(here, home)
    found = of_check(name, monkeypatch), of_serve(name), of_write_manifests(name), of_answer(name)
    assert [pathlib.Path(folder).resolve() for folder in found] == [expected.resolve()] * 4


def test_without_a_home_of_ones_own_it_is_saved_models_here(here, monkeypatch):
    expected = write(here / "saved_models" / NAME).resolve()
    found = of_check(NAME, monkeypatch), of_serve(NAME), of_write_manifests(NAME), of_answer(NAME)
    assert [pathlib.Path(folder).resolve() for folder in found] == [expected] * 4


CALLS = {
    "check": check,
    "serve": lambda name: serve([name]),
    "write_manifests": lambda name: write_manifests([name], "deploy"),
    "answer": lambda name: answer(name, [["unfit.npy"]]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_unknown_name_gets_the_same_advice_from_all(call):
    with pytest.raises(LoadError, match=f"'lenet5_mnst'. Did you mean '{NAME}'"):
        call("lenet5_mnst")
    with pytest.raises(LoadError, match="There is no file or folder deep/model"):
        call("deep/model")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_folder_without_a_version(call, here):
    (here / "mine").mkdir()
    if call is check:
        [finding] = check("mine")
        assert finding.severity == "error" and "finds no version" in finding.what
        return
    with pytest.raises(ValueError, match="mine, which has no version|mine holds no version"):
        call("mine")
