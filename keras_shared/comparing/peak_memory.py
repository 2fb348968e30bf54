"""What a training adds to the memory of a process, measured in a process of its own."""

import concurrent.futures
import ctypes
import gc
import multiprocessing
import os
import pathlib
import tempfile
from typing import Any

from keras_shared.processes import end_with
from keras_shared.quiet import stderr_to
from keras_shared.recipes import Recipe, recipe_from
from keras_shared.training import build_model, start_model, training_data
from keras_shared.training.build import compile_model, trained_part

STEPS = 10  # of training that are run
_STATUS = pathlib.Path("/proc/self/status")


def peak_memory(recipe: Recipe, start: str, data_dir: str | None) -> int | None:
    """Bytes that a model and ten steps of its training add to a process that holds the data.

    Args:
        recipe: what to train.
        start: name or path of a model to fine-tune, or empty.
        data_dir: folder of prepared TFDS data sets.

    Returns:
        The bytes; None where no /proc tells (all but Linux).

    Raises:
        concurrent.futures.BrokenExecutor: if the process was killed (memory, most likely), with
            the end of what it wrote to stderr.
    """
    if not _STATUS.exists():
        return None
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryFile() as written,
        concurrent.futures.ProcessPoolExecutor(1, spawn, end_with, (os.getpid(),)) as pool,
    ):
        with stderr_to(written):  # the process keeps it, and TensorFlow's notes go there
            waiting = pool.submit(_measure, recipe.to_dict(), start, data_dir)
        error = waiting.exception()
        if isinstance(error, concurrent.futures.BrokenExecutor):
            written.seek(0)
            said = written.read().decode(errors="replace").strip()
            raise type(error)(f"{error}\n{said[-2000:]}".strip()) from error
        return waiting.result()


def _measure(table: dict[str, Any], start: str, data_dir: str | None) -> int:
    recipe = recipe_from(table)
    data = training_data(recipe, data_dir)
    batches = data.batches(0, 1)
    next(iter(batches))
    _give_back()  # what reading the data freed, which would be used again unseen
    before = _resident("VmRSS")
    model = start_model(recipe, start) if start else build_model(recipe)
    _give_back()  # what the search for narrow layers tried
    _STATUS.with_name("clear_refs").write_text("5")  # the peak is from now on
    part, data = trained_part(model, recipe, data)
    batches = data.batches(0, 1)
    compile_model(part, recipe, data.steps_per_epoch)
    steps = min(STEPS, data.steps_per_epoch)
    part.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return max(_resident("VmHWM") - before, 0)


def _give_back() -> None:
    """Let the allocator return what is free to the system; glibc alone keeps much."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _resident(key: str) -> int:
    """Resident bytes now (VmRSS), or the most since the last reset (VmHWM)."""
    [line] = [x for x in _STATUS.read_text().splitlines() if x.startswith(key)]
    return int(line.split()[1]) * 1024
