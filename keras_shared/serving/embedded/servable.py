"""One version of a model, loaded: what may not be loaded, warm-up, running its signatures."""

import contextlib
import pathlib
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from keras_shared.errors import KerasSharedError
from keras_shared.serving.batching_parameters import Batching
from keras_shared.serving.child_process import examine_in_child
from keras_shared.serving.effects import effects
from keras_shared.serving.embedded.batching import Arrays, Batcher
from keras_shared.serving.embedded.json_requests import SHORT
from keras_shared.serving.embedded.metrics import RUNTIME_LATENCY
from keras_shared.serving.embedded.refusal import Refused, invalid
from keras_shared.serving.examination import OF_SERVING, of_the_version, read_graph
from keras_shared.serving.finding import Finding
from keras_shared.serving.session import loaded, run
from keras_shared.serving.trial import WARMUP, mismatch, warmup_requests


class UnservableError(KerasSharedError, RuntimeError):
    """A version that is not served; the message says why."""


class Servable:
    """A loaded version, which ends when it was told to, and the last request to it has ended.

    Args:
        name: of the model.
        number: of the version.
        folder: what holds `saved_model.pb`.
        batching: how requests are answered together; None: they are not.
        slots: a place for each run of a batch, of the whole server.
        trusted: whether its graph may touch files, the network or Python.

    Raises:
        UnservableError: if it is incomplete, touches what lies outside, or its warm-up fails.
        Exception: whatever TensorFlow raises for a graph that it cannot load.
    """

    def __init__(
        self,
        name: str,
        number: int,
        folder: pathlib.Path,
        batching: Batching | None,
        slots: threading.Semaphore,
        trusted: bool,
    ) -> None:
        import tensorflow as tf

        self.name, self.number, self.folder = name, number, folder
        _refuse(folder, trusted)
        self._batching, self._slots = batching, slots
        self._batchers: dict[Any, Batcher] = {}
        self._lock = threading.Lock()
        self._users, self._ending = 0, False
        with contextlib.ExitStack() as stack:
            self._session, self.signatures = stack.enter_context(loaded(folder))
            self._dtypes = {
                name: {k: tf.as_dtype(info.dtype) for k, info in s.inputs.items() if info.name}
                for name, s in self.signatures.items()
            }
            self._warm_up(folder)
            self._stack = stack.pop_all()

    def __enter__(self) -> "Servable":
        with self._lock:
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            last = self._ending and not self._users
        if last:
            self._stack.close()

    def end(self) -> None:
        """Give its memory back, as soon as nobody uses it."""
        with self:
            self._ending = True

    def dtypes(self, signature: str) -> Mapping[str, Any]:
        """Of the inputs of a signature, by name."""
        return self._dtypes[signature]

    def run(
        self,
        signature: str,
        inputs: Arrays,
        deadline: float,
        outputs: Collection[str] = (),
        api: str = "Predict",
    ) -> dict[str, np.ndarray]:
        """The outputs of a signature until a deadline of `time.monotonic`.

        Raises:
            Refused: if the inputs do not fit, or there is no time left.
            Exception: as of `keras_shared.serving.session.run`, if the graph fails.
        """
        definition = self.signatures[signature]
        for position, (key, dtype) in enumerate(sorted(self._dtypes[signature].items())):
            sent = inputs[key].dtype if key in inputs else np.dtype(dtype.as_numpy_dtype)
            if sent != dtype.as_numpy_dtype:
                names = [
                    "string" if d in ("object", "string") else str(d) for d in (dtype.name, sent)
                ]
                wants, given = (SHORT.get(name, name) for name in names)
                raise invalid(f"Expects arg[{position}] to be {wants} but {given} is provided")
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise Refused("DEADLINE_EXCEEDED", "the time for this request is over")
        with RUNTIME_LATENCY.timed(model_name=self.name, API=api, runtime="TF1"):
            if self._batching is None:
                return run(self._session, definition, inputs, outputs, seconds)
            return self._batcher(self._batching, signature, frozenset(outputs))(inputs, deadline)

    def _batcher(self, batching: Batching, signature: str, wanted: frozenset[str]) -> Batcher:
        key = (signature, wanted)
        with self._lock:
            if key not in self._batchers:
                definition = self.signatures[signature]
                self._batchers[key] = Batcher(
                    batching,
                    self._slots,
                    lambda inputs, seconds: run(self._session, definition, inputs, wanted, seconds),
                )
            return self._batchers[key]

    def _warm_up(self, folder: pathlib.Path) -> None:
        records, findings = warmup_requests(folder / WARMUP)
        for finding in findings:
            if finding.severity == "error":
                raise UnservableError(f"{finding.what}: {finding.remedy}.")
        for number, (name, inputs) in enumerate(records, 1):
            wrong = mismatch(name, inputs, self.signatures)
            if wrong is not None:
                raise UnservableError(f"warm-up record {number}: {wrong}.")
            run(self._session, self.signatures[name], inputs)


def _refuse(folder: pathlib.Path, trusted: bool) -> None:
    """A version that is incomplete, or that does more than compute."""
    graph = read_graph(folder)
    found = [graph] if isinstance(graph, Finding) else of_the_version(graph, folder)
    for finding in found:
        if finding.severity == "error":
            raise UnservableError(f"{finding.what}: {finding.remedy}.")
    touched = {} if trusted else effects(graph, OF_SERVING)
    if python := touched.pop("Python", []):
        raise UnservableError(
            f"its graph calls back into Python ({', '.join(python)}), into the program that "
            "exported it: replace tf.py_function and tf.numpy_function by operations of TensorFlow."
        )
    if touched:
        named = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in touched.items())
        raise UnservableError(
            f"its graph does more than compute ({named}), and a SavedModel is a program. If you "
            "know where it comes from, start the server with --allow-file-operations."
        )
    # what crashes, never ends or takes all memory does so elsewhere, and the server goes on
    for finding in examine_in_child(folder, static=False, trusted=trusted):
        if finding.dangerous:
            raise UnservableError(f"{finding.what}: {finding.remedy}.")
