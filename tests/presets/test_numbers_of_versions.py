"""Which number a version gets, whatever lies in the folder, and who may publish there."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import pytest

import keras_shared
from keras_shared.presets import publishing
from keras_shared.presets.names import version_numbers
from keras_shared.presets.publishing import PublishError, _next_number

HOLD = """
import pathlib, sys, time
from keras_shared.files.atomic import locked
from keras_shared.errors import KerasSharedError
with locked(pathlib.Path(sys.argv[1]), KerasSharedError, ""):
    print("locked", flush=True)
    time.sleep(600)
"""


def line():
    inputs = keras.Input((3,), name="x")
    return keras.Model(inputs, keras.layers.Dense(1, name="y")(inputs), name="line")


@pytest.fixture
def holder(tmp_path):
    """A process that has the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "line"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == "locked"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    "content", [b"", b"\0\0", b"two\n", b"9" * 1000, b"-1", b"\xff", "٣".encode()]
)
def test_a_torn_last_number_lets_no_number_be_used_twice(tmp_path, content):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    (tmp_path / ".last_version").write_bytes(content)
    with pytest.warns(UserWarning, match="next version is 102.*write the highest number") as seen:
        assert _next_number(tmp_path) == 102
    advised = re.search(r"into (\S+) before", str(seen[0].message))[1]
    with open(advised, "w") as file:
        file.write("5\n")
    assert _next_number(tmp_path) == 6


def test_what_is_no_file_in_the_place_of_the_last_number(tmp_path):
    (tmp_path / ".last_version").symlink_to("nowhere")
    with pytest.warns(UserWarning, match="next version is 100"):
        assert _next_number(tmp_path) == 100
    (tmp_path / ".last_version").unlink()
    os.mkfifo(tmp_path / ".last_version")
    with pytest.warns(UserWarning, match="is no regular file"):
        assert _next_number(tmp_path) == 100


def test_files_and_links_of_a_number_are_taken_and_other_digits_are_none(tmp_path):
    (tmp_path / "1").write_text("")
    (tmp_path / "3").symlink_to("nowhere")
    for name in ("٣٣", "²", "9" * 20, "9" * 250, "v9"):
        (tmp_path / name).mkdir()
    assert version_numbers(tmp_path) == []
    assert _next_number(tmp_path) == 4
    assert keras_shared.publish(line(), tmp_path).name == "4"


def test_after_the_largest_number_there_is_none(tmp_path):
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(PublishError, match="TF Serving knows none above it.*another folder"):
        keras_shared.publish(line(), tmp_path)


@pytest.mark.parametrize("name", ["*?{y}", "a b,c", "ü"])
def test_a_folder_with_a_name_of_special_characters(tmp_path, name):
    version = keras_shared.publish(line(), tmp_path / name)
    assert keras_shared.load(version).count_params() == 4


@pytest.mark.parametrize("name", ["[x]*?{y}", "a\\b"])
def test_a_folder_that_tensorflow_takes_for_a_pattern(tmp_path, name):
    with pytest.raises(ValueError, match="for a pattern.*Name another folder"):
        keras_shared.publish(line(), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_weights_that_are_no_numbers_are_not_published(tmp_path):
    model = line()
    model.get_layer("y").kernel.assign([[float("nan")]] * 3)
    with pytest.raises(PublishError, match=r"'y/kernel' \(NaN in 3 of 3\).*lower learning rate"):
        keras_shared.publish(model, tmp_path / "line")
    assert version_numbers(tmp_path / "line") == []


@pytest.mark.slow
def test_a_stopped_publisher_is_named_and_not_waited_for_for_ever(
    tmp_path, holder, monkeypatch, capsys
):
    monkeypatch.setattr(publishing, "WAIT", 4.0)
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(PublishError, match=f"in use by process {holder.pid} after 4 seconds"):
        keras_shared.publish(line(), tmp_path / "line")
    assert f"waiting for process {holder.pid}" in capsys.readouterr().err


def test_a_folder_replaced_while_waiting_is_locked_itself(tmp_path, holder, monkeypatch):
    publisher = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace('""):', '"", 60):'), tmp_path / "line"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1)
    shutil.move(tmp_path / "line", tmp_path / "moved")
    (tmp_path / "line").mkdir()
    try:
        assert publisher.stdout.readline().strip() == "locked"
        with pytest.raises(PublishError, match=f"by process {publisher.pid}"):
            monkeypatch.setattr(publishing, "WAIT", 0.0)
            keras_shared.publish(line(), tmp_path / "line")
    finally:
        publisher.kill()
        publisher.wait()
