"""Requests answered together, as TF Serving's batching parameters say."""

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_shared.serving.batching_parameters import Batching
from keras_shared.serving.embedded.refusal import Refused, invalid

Arrays = dict[str, np.ndarray]
FULL = "The batch scheduling queue to which this task was submitted is full"
LATE = "Run() timeout exceeded while waiting in batch"


@dataclasses.dataclass(eq=False)
class _Task:
    """The rows of one request, and what becomes of them."""

    inputs: Arrays
    rows: int
    deadline: float
    outputs: concurrent.futures.Future[Arrays] = dataclasses.field(
        default_factory=concurrent.futures.Future
    )


@dataclasses.dataclass
class _Batch:
    tasks: list[_Task] = dataclasses.field(default_factory=list)
    full: threading.Event = dataclasses.field(default_factory=threading.Event)

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
        if rows > largest:
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
        concurrent.futures.wait([task.outputs], max(0.0, deadline - time.monotonic()))
        if not task.outputs.done():
            raise Refused("DEADLINE_EXCEEDED", LATE)
        return task.outputs.result()

    def _lead(self, key: Any, batch: _Batch) -> None:
        batch.full.wait(self._batching.batch_timeout_micros / 1e6)
        waits = True
        while waits:
            latest = max(task.deadline for task in [*batch.tasks])
            free = self._slots.acquire(timeout=max(0.0, latest - time.monotonic()))
            with self._lock:
                # who joined meanwhile may have more time
                waits = not free and any(t.deadline > time.monotonic() for t in batch.tasks)
                if not waits:
                    self._waiting -= 1
                    if self._open.get(key) is batch:
                        del self._open[key]
        try:
            timely = [task for task in batch.tasks if free and task.deadline > time.monotonic()]
            for task in batch.tasks:
                if task not in timely:
                    task.outputs.set_exception(Refused("DEADLINE_EXCEEDED", LATE))
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
                own = {k: array[at : at + task.rows] for k, array in outputs.items()}
                task.outputs.set_result(own)
                at += task.rows
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].outputs.set_exception(error)
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
