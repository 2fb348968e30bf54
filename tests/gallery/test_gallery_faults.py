"""The file of a gallery with readers beside it, killed writers, and no place left."""

import multiprocessing
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from vectors import Vectors

from keras_shared.files.atomic import FileError
from keras_shared.gallery import Gallery

FORK = multiprocessing.get_context("fork")  # what is forked here asks no framework
ROWS = 20_000


def numbered(number, rows=ROWS):
    """A gallery whose every embedding says which one it is."""
    gallery = Gallery(Vectors())
    gallery.enrol(f"n{number}", np.full((rows, 64), [1.0] + 63 * [number + 1]))
    return gallery


def number_of(path):
    """The number of the gallery in a file, which is whole."""
    gallery = Gallery.load(path, Vectors())
    [name], rows = gallery.names, gallery._rows()[0]
    number = int(name[1:])
    assert rows.shape == (ROWS, 64)
    np.testing.assert_allclose(rows[:, 1] / rows[:, 0], number + 1, rtol=1e-5)
    return number


def write(path, said, first):
    number = first
    while True:
        numbered(number).save(path)
        os.write(said, number.to_bytes(4, "big"))
        number += 1


def read(path, seconds, seen):
    end, last = time.monotonic() + seconds, -1
    numbers = []
    while time.monotonic() < end:
        numbers.append(number_of(path))
        assert numbers[-1] >= last  # no former one comes back
        last = numbers[-1]
    seen.put(len(set(numbers)))


def writer(path, first=0):
    """A process that saves one gallery after the other, and a pipe with those that it has saved."""
    said, says = os.pipe()
    process = FORK.Process(target=write, args=(path, says, first))
    process.start()
    os.close(says)
    return process, said


def saved(said):
    """The last number that a writer, which has ended, said."""
    content = b""
    while more := os.read(said, 65536):
        content += more
    os.close(said)
    return int.from_bytes(content[-4:], "big")


@pytest.mark.slow
def test_readers_beside_a_writer_see_whole_files_in_order(tmp_path):
    path = tmp_path / "people.npz"
    numbered(0).save(path)
    process, said = writer(path, 1)
    seen = FORK.Queue()
    readers = [FORK.Process(target=read, args=(path, 4, seen)) for _ in range(3)]
    for reader in readers:
        reader.start()
    numbers = [seen.get(timeout=120) for _ in readers]
    for reader in readers:
        reader.join()
    process.kill()
    process.join()
    os.close(said)
    assert [reader.exitcode for reader in readers] == [0, 0, 0]
    assert max(numbers) > 1  # the file did change beside them


@pytest.mark.slow
def test_killed_at_any_moment_the_file_is_the_old_or_the_new_one(tmp_path):
    path, random = tmp_path / "people.npz", np.random.default_rng(1)
    start = time.monotonic()
    numbered(0).save(path)
    once = time.monotonic() - start
    last, first = 0, 1
    for _ in range(25):
        process, said = writer(path, first)
        time.sleep(random.uniform(0, 6 * once))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        acknowledged = saved(said) or last
        last = number_of(path)
        assert last in (acknowledged, acknowledged + 1)
        first = last + 1
    assert last > 0  # some were saved
    numbered(first).save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["people.npz"]  # no leftovers


@pytest.mark.slow
def test_a_full_file_system_leaves_the_former_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system needs the right to mount one")
    try:
        path = disk / "people.npz"
        numbered(1).save(path)  # 5 MB
        before = path.read_bytes()
        for rows in (ROWS + 10_000, 4 * ROWS):  # beside the former one, and by itself
            with pytest.raises(FileError, match=r"people.npz cannot be written: No space left"):
                numbered(2, rows).save(path)
            assert path.read_bytes() == before and [p.name for p in disk.iterdir()] == [path.name]
        numbered(2).save(path)
        assert number_of(path) == 2
    finally:
        subprocess.run(["umount", disk], check=True)
