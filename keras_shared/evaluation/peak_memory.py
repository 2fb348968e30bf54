"""What a training adds to the memory of a process, measured in a process of its own."""

import concurrent.futures
import gc
import multiprocessing
import pathlib
import resource
import sys

from keras_shared.data import training_data
from keras_shared.recipe import Recipe
from keras_shared.training import build_model, compile_model, start_model

STEPS = 10  # of training that are run


def peak_memory(recipe: Recipe, start: str, data_dir: str | None) -> int:
    """Bytes that a model and ten steps of its training add to a process that holds the data.

    Args:
        recipe: what to train.
        start: name or path of a model to fine-tune, or empty.
        data_dir: folder of prepared TFDS data sets.

    Raises:
        concurrent.futures.BrokenExecutor: if the process was killed (memory, most likely).
    """
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_measure, recipe, start, data_dir).result()


def _measure(recipe: Recipe, start: str, data_dir: str | None) -> int:
    data = training_data(recipe, data_dir)
    batches = data.batches(0, 1)
    next(iter(batches))
    before = _resident()
    model = start_model(recipe, start) if start else build_model(recipe)
    gc.collect()  # what the search for narrow layers tried
    _forget_peak()
    compile_model(model, recipe, data.steps_per_epoch)
    steps = min(STEPS, data.steps_per_epoch)
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return max(_resident(peak=True) - before, 0)


def _resident(peak: bool = False) -> int:
    """Resident bytes now, or the most since `_forget_peak`; without /proc the most ever."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    key = "VmHWM:" if peak else "VmRSS:"
    [line] = [x for x in status.read_text().splitlines() if x.startswith(key)]
    return int(line.split()[1]) * 1024


def _forget_peak() -> None:
    forget = pathlib.Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5")
