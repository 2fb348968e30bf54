"""Requests answered together, as TF Serving's batching parameters say."""

import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_shared.errors import KerasSharedError
from keras_shared.serving.embedded.refusal import Refused, invalid

Arrays = dict[str, np.ndarray]
FULL = "The batch scheduling queue to which this task was submitted is full"
LATE = "Run() timeout exceeded while waiting in batch"
# one parameter in the text format of protocol buffers: `name: 1`, `name { value: 1 }`, a list
PARAMETER = re.compile(r"\s*(\w+)\s*:?\s*(?:\{\s*value\s*:\s*([^\s{}]+)\s*\}|(\[[^]]*\]|[^\s{}]+))")


class BatchingError(KerasSharedError, ValueError):
    """Batching parameters that cannot be; the message says which."""


@dataclasses.dataclass(frozen=True)
class Batching:
    """TF Serving's BatchingParameters, with its defaults."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0
    thread_pool_name: str = ""

    @property
    def rows(self) -> int:
        """That are run at once, at most."""
        most = self.max_execution_batch_size if self.enable_large_batch_splitting else 0
        return most or self.max_batch_size


def batching_of(text: str) -> Batching:
    """Read a file of batching parameters.

    Raises:
        BatchingError: for a parameter that does not exist, or a size that cannot be.

    Example:
        >>> from keras_shared.serving.embedded.batching import batching_of
        >>> batching_of("max_batch_size { value: 8 } allowed_batch_sizes: [4, 8]").rows
        8
    """
    left, given = re.sub(r"#.*", "", text).rstrip(), dict[str, Any]()
    kinds: dict[str, Any] = {
        field.name: type(field.default) for field in dataclasses.fields(Batching)
    }
    while left:
        found = PARAMETER.match(left)
        if not found or found[1] not in kinds:
            raise BatchingError(
                f"Expected batching parameters among {[*kinds]}. Received: {left.strip()[:80]!r}"
            )
        value, left = (found[2] or found[3]).strip('"'), left[found.end() :].lstrip(",;")
        kind = kinds[found[1]]
        try:
            if kind is tuple:
                sizes = [int(size) for size in value.strip("[]").split(",")]
                given[found[1]] = (*given.get(found[1], ()), *sizes)
            else:
                given[found[1]] = value == "true" if kind is bool else kind(value)
        except ValueError:
            raise BatchingError(f"{found[1]} is a number. Received: {value!r}") from None
    read = Batching(**given)
    sizes = [*read.allowed_batch_sizes]
    if sizes and (sizes != sorted({*sizes}) or sizes[-1] != read.rows or sizes[0] < 1):
        raise BatchingError(
            f"allowed_batch_sizes ascend, and the last is {read.rows}, the largest that is run. "
            f"Received: {sizes}"
        )
    least = {"max_batch_size": 1, "num_batch_threads": 1, "max_enqueued_batches": 1}
    low = {k: v for k, v in given.items() if kinds[k] is int and v < least.get(k, 0)}
    if low:
        raise BatchingError(f"Batching parameters that are too small: {low}")
    return read


class _Task:
    """The rows of one request, and what becomes of them."""

    def __init__(self, inputs: Arrays, rows: int, deadline: float) -> None:
        self.inputs, self.rows, self.deadline = inputs, rows, deadline
        self.done, self.outputs = threading.Event(), Arrays()
        self.error: Exception | None = None

    def end(self, error: Exception | None = None) -> None:
        self.error = error
        self.done.set()


class _Batch:
    def __init__(self) -> None:
        self.tasks: list[_Task] = []
        self.full = threading.Event()

    def rows(self) -> int:
        return sum(task.rows for task in self.tasks)


class Batcher:
    """Answers requests to one signature together; the first of a batch runs it.

    A batch that fails is run again one request at a time, so that nobody pays for another's input.
    Unlike TF Serving's, requests of different shapes are not put into one batch, which fails there.

    Args:
        batching: the parameters.
        slots: a place for each batch that may run at once, of all batchers of the server.
        run: `(inputs, seconds) -> outputs`.
    """

    def __init__(
        self, batching: Batching, slots: threading.Semaphore, run: Callable[[Arrays, float], Arrays]
    ) -> None:
        self._batching, self._slots, self._run = batching, slots, run
        self._lock, self._waiting = threading.Lock(), 0
        self._open: dict[Any, _Batch] = {}

    def __call__(self, inputs: Arrays, deadline: float) -> Arrays:
        """The outputs for some rows; `deadline` is of `time.monotonic`."""
        if not inputs or not all(array.ndim for array in inputs.values()):
            raise invalid("Batching session Run() input tensors must have at least one dimension")
        rows, *others = {len(array) for array in inputs.values()}
        if others:
            raise invalid("Batching session Run() input tensors must have equal 0th-dimension size")
        most, largest = self._batching.rows, self._batching.max_batch_size
        if rows > largest and not self._batching.enable_large_batch_splitting:
            raise invalid(f"Task size {rows} is larger than maximum input batch size {largest}")
        pieces = [
            self._together({key: array[at : at + most] for key, array in inputs.items()}, deadline)
            for at in range(0, max(rows, 1), most)
        ]
        if len(pieces) == 1:
            return pieces[0]
        return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}

    def _together(self, inputs: Arrays, deadline: float) -> Arrays:
        task = _Task(inputs, len(next(iter(inputs.values()))), deadline)
        free = self._batching.pad_variable_length_inputs  # what requests of one batch share:
        key = tuple(
            (k, a.dtype, a.ndim if free else a.shape[1:]) for k, a in sorted(inputs.items())
        )
        with self._lock:
            batch = self._open.get(key)
            if batch is None or batch.rows() + task.rows > self._batching.rows:
                if self._waiting >= self._batching.max_enqueued_batches:
                    raise Refused("UNAVAILABLE", FULL)
                batch = self._open[key] = _Batch()
                self._waiting += 1
            batch.tasks.append(task)
            leads = len(batch.tasks) == 1
            if batch.rows() >= self._batching.rows:
                batch.full.set()
        if leads:
            self._lead(key, batch)
        if not task.done.wait(max(0.0, deadline - time.monotonic())):
            raise Refused("DEADLINE_EXCEEDED", LATE)
        if task.error is not None:
            raise task.error
        return task.outputs

    def _lead(self, key: Any, batch: _Batch) -> None:
        batch.full.wait(self._batching.batch_timeout_micros / 1e6)
        latest = max(task.deadline for task in [*batch.tasks])
        free = self._slots.acquire(timeout=max(0.0, latest - time.monotonic()))
        try:
            with self._lock:
                self._waiting -= 1
                if self._open.get(key) is batch:
                    del self._open[key]
            timely = [task for task in batch.tasks if free and task.deadline > time.monotonic()]
            for task in batch.tasks:
                if task not in timely:
                    task.end(Refused("DEADLINE_EXCEEDED", LATE))
            if timely:
                self._process(timely)
        finally:
            if free:
                self._slots.release()

    def _process(self, tasks: list[_Task]) -> None:
        try:
            total, at = sum(task.rows for task in tasks), 0
            padded = next((n for n in self._batching.allowed_batch_sizes if n >= total), total)
            seconds = max(task.deadline for task in tasks) - time.monotonic()
            outputs = self._run(self._merged(tasks, padded - total), max(0.001, seconds))
            if not all(array.ndim for array in outputs.values()):
                raise Refused("FAILED_PRECONDITION", "Batched output tensor has 0 dimensions")
            if {len(array) for array in outputs.values()} - {padded}:
                raise Refused(
                    "FAILED_PRECONDITION",
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th "
                    "dimension sizes of the input tensors",
                )
            for task in tasks:
                task.outputs = {k: array[at : at + task.rows] for k, array in outputs.items()}
                at += task.rows
                task.end()
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].end(error)
                return
            for task in tasks:
                self._process([task])

    def _merged(self, tasks: list[_Task], fill: int) -> Arrays:
        if len(tasks) == 1 and not fill:
            return tasks[0].inputs
        merged = {}
        for key in tasks[0].inputs:
            arrays = [task.inputs[key] for task in tasks]
            if len({array.shape[1:] for array in arrays}) > 1:
                largest = np.max([array.shape[1:] for array in arrays], axis=0)
                arrays = [_padded(array, largest) for array in arrays]
            merged[key] = np.concatenate([*arrays, np.repeat(arrays[-1][:1], fill, axis=0)])
        return merged


def _padded(array: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """An array with rows of these sizes, filled up with its first value."""
    value = array.flat[0] if array.size else np.zeros(1, array.dtype)[0]
    full = np.full((len(array), *sizes), value, array.dtype)
    full[tuple(map(slice, array.shape))] = array
    return full
