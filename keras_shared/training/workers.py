"""One training on several machines: each worker reads a part of every batch, the gradients of all
are summed, and so their weights stay the same.

Keras 3 does not take `tf.distribute.MultiWorkerMirroredStrategy` in `fit` by itself: it wants to
average scalars along an axis, and one example of a batch that lies on other machines
(https://github.com/keras-team/keras/issues/20585). `Workers.fitting` does these two for it.
"""

import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from keras_shared.errors import boundary
from keras_shared.losses import EmbeddingLoss
from keras_shared.presets.loading import load
from keras_shared.processes import scratch_folder
from keras_shared.quiet import nothing_on_stderr
from keras_shared.text import log_line
from keras_shared.training.run import Run, RunError
from keras_shared.tying.keras_private import make_variables


class Workers:
    """The processes that train one model together, as the environment variable TF_CONFIG says.

    A weight that layers share is one variable, and its gradient is summed over its uses in each
    worker before it is sent: each step sends every shared weight once. Worker 0 alone writes the
    folder of the run, which all must see: they begin with its checkpoint.

    Make it before anything else of TensorFlow's runs.

    Raises:
        RunError: without TF_CONFIG, or if TensorFlow cannot start its server.

    Example:
        >>> from keras_shared.training import RunError
        >>> from keras_shared.training.workers import Workers
        >>> try:
        ...     Workers()
        ... except RunError as error:
        ...     print(str(error).partition(",")[0])
        Training on several machines needs the environment variable TF_CONFIG

    Reference:
        "Multi-worker training with Keras", tensorflow.org, for TF_CONFIG.
    """

    def __init__(self) -> None:
        if "TF_CONFIG" not in os.environ:
            raise RunError(
                "Training on several machines needs the environment variable TF_CONFIG, which says "
                "who takes part, as the platform sets it in each of them. Received: none. Expected "
                'something like {"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": '
                '"worker", "index": 0}}'
            )
        said = f"The workers of TF_CONFIG={os.environ['TF_CONFIG']} cannot meet"
        with boundary(said, RunError):
            resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
            self.number = _number(resolver)
            if self.number == 0:
                names = [*itertools.chain(*resolver.cluster_spec().as_dict().values())]
                log_line(f"keras-shared: waiting until all workers have started: {names}")
        with boundary(said, RunError), nothing_on_stderr():
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
            self.count = self.strategy.num_replicas_in_sync

    @contextmanager
    def folder(self, run: Run) -> Iterator[Run]:
        """Where this worker writes: the run itself, or a copy of what it holds until now."""
        if self.number == 0:
            yield run
            return
        with scratch_folder("keras_shared_worker_") as path:
            copy = pathlib.Path(path) / "run"
            if run.holds_an_epoch():
                shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("logs"))
            yield Run(copy)

    def see_that_all_begin_with(self, epoch: int) -> None:
        """The folder of the run is one that all see.

        Raises:
            RunError: if workers go on from different epochs.
        """
        context = self.strategy.run(lambda: tf.constant([epoch]))
        begun = [int(number) for number in self.strategy.gather(context, axis=0)]
        if len(set(begun)) > 1:
            raise RunError(
                f"The workers go on from epochs {begun}, each by its own --out. It must be one "
                "folder that all of them see, such as a network file system."
            )

    def copy(self, model: keras.Model) -> keras.Model:
        """The same model, uncompiled, with variables that all workers hold."""
        with scratch_folder("keras_shared_worker_") as path, self.strategy.scope():
            file = pathlib.Path(path) / "model.keras"
            model.save(file)
            return load(file, compile=False)

    def load(self, file: pathlib.Path) -> keras.Model:
        """A checkpoint, with variables that all workers hold."""
        with self.strategy.scope():
            return load(file)

    def shared_out(self, batches: tf.data.Dataset) -> Any:
        """Each batch among the workers: every so many-th example is one's own."""
        own = batches.map(
            lambda *batch: tf.nest.map_structure(lambda x: x[self.number :: self.count], batch)
        )
        return self.strategy.distribute_datasets_from_function(lambda _: own)

    @contextmanager
    def fitting(self, model: keras.Model, batch_size: int, example: Any) -> Iterator[None]:
        """Let `fit` run on all workers.

        Args:
            model: a compiled model from `copy` or `load`.
            batch_size: of all workers together.
            example: a batch, for the shapes.

        Raises:
            RunError: if the batch cannot be shared out, or the loss compares its examples.
        """
        expect_parts(batch_size, model.loss, self.count)
        with self.strategy.scope():
            make_variables(model, example)
        steps = ("train_step", "test_step") if self.count > 1 else ()  # one alone averages nothing
        model._maybe_symbolic_build = lambda **_: None
        for name in steps:
            setattr(model, name, _with_an_axis(getattr(model, name)))
        try:
            yield
        finally:
            for name in ("_maybe_symbolic_build", *steps):
                delattr(model, name)


def expect_parts(batch_size: int, loss: Any, workers: int) -> None:
    """A batch can be shared out among so many workers.

    Raises:
        RunError: if it cannot, or the loss compares its examples.
    """
    if batch_size % workers:
        raise RunError(
            f"training.batch_size must be a multiple of the number of workers, {workers}, "
            f"each of which takes a part. Received: {batch_size}"
        )
    if isinstance(loss, EmbeddingLoss):
        raise RunError(
            f"{type(loss).__name__} compares the examples of a batch, of which each worker has a "
            "part. Train on one machine, or by a loss of single examples or pairs."
        )


def _number(resolver: Any) -> int:
    """Of this process among those that train: the chief is the first, if there is one."""
    kind, cluster = resolver.task_type, resolver.cluster_spec().as_dict()
    if not cluster or kind not in ("worker", "chief"):
        raise ValueError(
            "Expected a cluster, and a task whose type is worker or chief. Received: "
            f"cluster={cluster}, type={kind!r}"
        )
    return int(resolver.task_id) + (kind == "worker" and "chief" in cluster)


def _with_an_axis(step: Any) -> Any:
    """The values of a step as arrays of one, which Keras averages over the workers."""
    return lambda data: {name: value[None] for name, value in step(data).items()}
