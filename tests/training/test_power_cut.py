"""Files after the power was cut for real: an ext4 that loses all it had not flushed."""

import fcntl
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import time

import pytest

from keras_shared.training import Run, train, training_data

SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
WRITE = """
import itertools, pathlib, sys
from keras_shared.files.atomic import make_folder, replace_text, replacing_folder
folder = pathlib.Path(sys.argv[1]) / "made" / "here"
make_folder(folder)
for number in itertools.count():
    replace_text(folder / "file", f"{number}" * 5000)
    with replacing_folder(folder / "folder") as new:
        (new / "inner").mkdir(parents=True)
        (new / "inner" / "file").write_text(f"{number}" * 5000)
    print(number, flush=True)
"""
TRAIN = """
import sys
from keras_shared.recipes import read_recipe
from keras_shared.training import train, training_data
recipe = read_recipe(sys.argv[1])
train(recipe, training_data(recipe), sys.argv[2], verbose=0)
"""


class Disk:
    """An ext4 in a file, which is mounted."""

    def __init__(self, folder):
        self.image, self.path = folder / "disk.img", folder / "disk"
        self.path.mkdir()
        with self.image.open("wb") as file:
            file.truncate(100_000_000)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True, capture_output=True)

    def mount(self):
        done = subprocess.run(
            ["mount", "-o", "loop", self.image, self.path], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no loop device can be mounted here: {done.stderr.strip()}")

    def cut(self):
        """As if the power went: what was not flushed is lost, also from the page cache."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self):
        for _ in range(50):
            if subprocess.run(["umount", self.path], capture_output=True).returncode == 0:
                return
            time.sleep(0.1)


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    if shutil.which("mkfs.ext4") is None or not pathlib.Path("/dev/loop-control").exists():
        pytest.skip("no mkfs.ext4, or no loop devices")
    made = Disk(tmp_path)
    made.mount()
    yield made
    made.unmount()


def cut_while(disk, code, arguments, seconds):
    """Cut the power of a disk while a process writes there; give back what it said was written."""
    writer = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        said = seconds(writer)
        disk.cut()
    finally:
        writer.kill()
        said = [*said, *writer.communicate()[0].split()]
    disk.unmount()
    disk.mount()
    return said


def test_what_was_written_is_whole(disk):
    draw, folder = random.Random(1), disk.path / "made" / "here"

    def wait(writer):
        first = writer.stdout.readline()
        time.sleep(draw.random() / 2)
        return [first.strip()]

    for _ in range(4):
        last = int(cut_while(disk, WRITE, [disk.path], wait)[-1])
        for file in (folder / "file", folder / "folder" / "inner" / "file"):
            text = file.read_text()
            number = text[: len(text) // 5000]
            assert text == number * 5000 and int(number) >= last


@pytest.mark.slow
def test_a_run_goes_on_after_power_cuts(disk, recipe, tmp_path):
    small, draw = recipe("autoencoder", **{"training.epochs": 40}), random.Random(2)
    small.write(tmp_path / "small.toml")
    run = Run(disk.path / "runs" / "small")
    seen = 0

    def wait(writer):
        while run.epochs_done() <= seen:
            assert writer.poll() is None
            time.sleep(0.01)
        time.sleep(draw.random() / 2)
        return [run.epochs_done()]  # renamed, and perhaps not yet flushed

    for _ in range(4):
        done = int(cut_while(disk, TRAIN, [tmp_path / "small.toml", run.path], wait)[0])
        seen = run.epochs_done()
        assert seen >= done - 1 and seen <= len(run.history()) <= seen + 1
        run.claim(small, "recipe")
    train(small, training_data(small), run, verbose=0)
    assert len(run.best().history()) == 40


@pytest.mark.thorough  # test_train.py kills once
def test_a_run_goes_on_after_kills_at_random_moments(recipe, tmp_path):
    small, draw = recipe("autoencoder", **{"training.epochs": 12}), random.Random(3)
    small.write(tmp_path / "small.toml")
    whole = train(small, training_data(small), tmp_path / "whole", verbose=0)
    run = Run(tmp_path / "broken")
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", TRAIN, tmp_path / "small.toml", run.path],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        before = run.epochs_done()
        while writer.poll() is None and run.epochs_done() <= before:
            time.sleep(0.01)
        time.sleep(draw.random() / 3)
        writer.kill()
        writer.wait()
    resumed = train(small, training_data(small), run, verbose=0)
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        assert abs(a - b).max() < 1e-4
    assert run.best().path == run.path
