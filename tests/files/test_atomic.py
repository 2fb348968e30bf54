"""Files and folders are whole at every moment, for readers and after kills."""

import errno
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import h5py
import pytest

from keras_shared.errors import KerasSharedError
from keras_shared.files import atomic
from keras_shared.files.atomic import FileError, flush, replace_text, replacing, replacing_folder

WRITER = """
import itertools, pathlib, sys
from keras_shared.files.atomic import replacing_folder
for number in itertools.count():
    with replacing_folder(sys.argv[1]) as new:
        new.mkdir()
        for name in "abc":
            (new / name).write_text(str(number))
        (new / "inner").mkdir()
"""


SWEEPER = """
import pathlib, sys
from keras_shared.files.atomic import _sweep
folder = pathlib.Path(sys.argv[1])
print("ready", flush=True)
while True:
    for leftover in folder.glob(".new-*"):
        _sweep(leftover, folder / "facts")
"""


def write(path: pathlib.Path, text: str) -> None:
    with replacing_folder(path) as new:
        new.mkdir()
        for name in "abc":
            (new / name).write_text(text)


def content(path: pathlib.Path) -> set[str]:
    """The texts of one folder, even if another takes its place meanwhile."""
    folder = os.open(path, os.O_RDONLY)
    try:
        texts = set()
        for name in "abc":
            with open(os.open(name, os.O_RDONLY, dir_fd=folder)) as file:
                texts.add(file.read())
        return texts
    finally:
        os.close(folder)


def test_a_folder_is_replaced_with_the_umask_of_the_user(tmp_path):
    target, plain = tmp_path / "not" / "there" / "yet", tmp_path / "plain"
    plain.mkdir()
    for text in ("old", "new"):
        write(target, text)
        assert content(target) == {text}
        assert [p.name for p in target.parent.iterdir()] == ["yet"]
    assert target.stat().st_mode == plain.stat().st_mode


def test_a_failed_writer_leaves_the_old_folder_and_nothing_else(tmp_path):
    write(tmp_path / "model", "old")
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "model") as new:
        new.mkdir()
        raise ZeroDivisionError
    assert content(tmp_path / "model") == {"old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_is_followed(tmp_path):
    write(tmp_path / "model", "old")
    (tmp_path / "link").symlink_to("model")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and content(tmp_path / "model") == {"new"}


def test_what_cannot_be_replaced_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    for path, reason in ((tmp_path / "file", "is a file, and a folder"), ("/", "is mounted")):
        with pytest.raises(KerasSharedError, match=reason), replacing_folder(path):
            pass
    with (
        pytest.raises(KerasSharedError, match="file is a file, and a folder is expected there"),
        replacing_folder(tmp_path / "file" / "model"),
    ):
        pass
    with (
        pytest.raises(KerasSharedError, match="cannot be replaced: No such file|FileNotFoundError"),
        replacing_folder(tmp_path / "model"),
    ):
        pass


def test_without_an_exchange_the_two_are_renamed_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_exchange", lambda *paths: errno.EINVAL)
    for text in ("old", "new"):
        write(tmp_path / "model", text)
    assert content(tmp_path / "model") == {"new"}
    assert len(list(tmp_path.iterdir())) == 1
    # killed between the two
    (tmp_path / ".new-model-0123abcd").mkdir()
    (tmp_path / "model").rename(tmp_path / ".new-model-0123abcd" / ".old")
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "model"):
        raise ZeroDivisionError
    assert content(tmp_path / "model") == {"new"}


def test_what_another_writer_still_uses_is_not_swept(tmp_path):
    with replacing_folder(tmp_path / "model") as first:
        first.mkdir()
        (first / "a").write_text("first")
        write(tmp_path / "model", "second")
        assert (first / "a").exists()
        for name in "bc":
            (first / name).write_text("first")
    assert content(tmp_path / "model") == {"first"}


def test_two_writers_of_a_file_do_not_mix(tmp_path):
    path = tmp_path / "facts"
    with replacing(path) as one:
        one.write_text("one")
        replace_text(path, "two")
        assert path.read_text() == "two"
    assert path.read_text() == "one" and len(list(tmp_path.iterdir())) == 1


def test_permissions_stay_and_nobody_reads_in_between(tmp_path):
    path = tmp_path / "facts"
    for mode in (0o600, 0o640, 0o444):
        path.unlink(missing_ok=True)
        path.write_text("old")
        path.chmod(mode)
        with replacing(path) as scratch:
            assert scratch.parent.stat().st_mode & 0o077 == 0
            scratch.write_text("new")
        assert path.read_text() == "new" and path.stat().st_mode & 0o7777 == mode


def test_errors_name_the_path_that_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").write_text("")
    for path, said in (
        ("nope/a.json", "No such file or directory"),
        ("file/a.json", "Not a directory"),
        (".", "Is a directory"),
        ("\x1b" + "a" * 256, "File name too long"),
        ("/proc/a.json", "No such file or directory"),
    ):
        with pytest.raises(FileError) as caught:
            replace_text(path, "{}")
        name = path.replace("\x1b", r"\x1b")
        assert str(caught.value) == f"{name} cannot be written: {said}."
    with pytest.raises(FileError) as caught, replacing("a.h5") as scratch:
        h5py.File(scratch / "inside", "w")
    assert str(caught.value).startswith("a.h5 cannot be written: ")
    assert ".new-" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("length", [199, 255])
def test_long_names(tmp_path, length):
    for name in ("a" * length, "é" * (length // 2)):
        replace_text(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"
        write(tmp_path / f"{name[:-1]}b", "text")


def test_what_only_looks_like_a_leftover_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").write_text("")
    (tmp_path / ".new-facts-01234567").symlink_to("mine")
    (tmp_path / ".new-facts-0123abcd").mkdir()
    if not os.getuid():
        os.chown(tmp_path / ".new-facts-0123abcd", 65534, -1)
    replace_text(tmp_path / "facts", "text")
    assert (tmp_path / "mine" / "kept").exists() and (tmp_path / ".new-facts-01234567").is_symlink()
    assert (tmp_path / ".new-facts-0123abcd").exists() is not bool(os.getuid())


def test_a_sweeper_that_never_rests(tmp_path):
    sweeper = subprocess.Popen([sys.executable, "-c", SWEEPER, tmp_path], stdout=subprocess.PIPE)
    try:
        assert sweeper.stdout.readline()
        for number in range(120):
            replace_text(tmp_path / "facts", f"{number}")
            assert (tmp_path / "facts").read_text() == f"{number}"
    finally:
        sweeper.kill()
        sweeper.communicate()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="/proc has no fsync")
def test_a_file_system_without_fsync_for_folders():
    with pytest.raises(OSError):
        os.fsync(descriptor := os.open("/proc/self", os.O_RDONLY))
    os.close(descriptor)
    flush(pathlib.Path("/proc/self"))
    with pytest.raises(OSError):
        flush(pathlib.Path("/proc/self/stat"))


@pytest.mark.slow
def test_readers_find_a_whole_folder_at_every_moment_through_kills(tmp_path):
    target, draw = tmp_path / "model", random.Random(1)
    write(target, "start")
    mixed, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                texts = content(target)
            except FileNotFoundError as error:  # removed while it was read, once replaced
                texts = set() if error.filename == os.fspath(target) else {""}
            if len(texts) != 1:
                mixed.append(texts)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(6):
            writer = subprocess.Popen([sys.executable, "-c", WRITER, target])
            time.sleep(0.3 + draw.random() / 5)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    finally:
        stop.set()
        reader.join()
    assert not mixed
    write(target, "end")
    assert content(target) == {"end"} and len(list(tmp_path.iterdir())) == 1
