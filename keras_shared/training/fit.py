"""From a recipe and its data to a trained model and its history."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import tensorflow as tf

from keras_shared.batching import TrainingData
from keras_shared.errors import attempt, boundary, shortened
from keras_shared.files.atomic import replace_text
from keras_shared.presets.loading import load
from keras_shared.recipes import Recipe
from keras_shared.recipes.recipe import expect_recipe
from keras_shared.training.build import (
    averaging_of,
    build_model,
    check_data,
    compile_model,
    fingerprint,
    loss_of,
    trained_part,
    with_arguments_from,
)
from keras_shared.training.callbacks import Checkpoint, EpochSeconds, EpochSeeds, TimeToGo
from keras_shared.training.normalization import fused_normalization
from keras_shared.training.run import Record, Run, RunError, in_short, start_text
from keras_shared.training.workers import Workers
from keras_shared.tying.keras_private import make_variables

MOST_AT_ONCE = 20  # steps between two looks of Python, in which it shows progress and can be ended
GONE = "Start all workers again if one of them ended: they go on from the last whole epoch."
TOO_LARGE = "If memory ran out, lower training.batch_size, or choose a smaller model."


def train(
    recipe: Recipe,
    data: TrainingData,
    run_dir: str | os.PathLike[str],
    start: keras.Model | None = None,
    verbose: int | str = "auto",
    base: dict[str, str] | None = None,
    workers: Workers | None = None,
) -> keras.Model:
    """Train the model of a recipe; begun before in the same folder, go on where that stopped.

    Of several seeds it takes the first; `recipe.with_seed` names another.

    After each epoch `run_dir` holds a whole checkpoint (model, optimizer and history), written
    beside its place, flushed and renamed, so that a kill or a power cut at any time loses at most
    an epoch. A resumed run ends as an unbroken one would, up to rounding. `run_dir` also gets the
    resolved recipe, history.csv, logs for TensorBoard, and at the end model.keras and
    training.json.

    Args:
        recipe: what to train.
        data: its batches, from `keras_shared.training.training_data`.
        run_dir: folder for all that the run writes.
        start: a trained model to fine-tune, from `start_model`; by default one is built from the
            recipe.
        verbose: as in `keras.Model.fit`.
        base: what the card says of `start`: its `name`, and its `data` with their licence.
        workers: the processes, each of which calls this, that train one model together; None for
            this one alone.

    Returns:
        The trained model.

    Raises:
        RunError: if another process trains in `run_dir`, if it holds a run of another recipe, on
            other data or from another start, if its files do not agree, if the data do not fit the
            model, if its class is not registered with Keras, if TensorFlow fails: it runs out of
            memory, or another worker is gone, for two.

    Example:
        >>> import tempfile
        >>> from keras_shared.demo import RECIPE
        >>> from keras_shared.recipes import read_recipe
        >>> from keras_shared.training import Run, train, training_data
        >>> short = {"training.epochs": 1, "data.pairs_per_epoch": 64}
        >>> recipe, run = read_recipe(RECIPE).with_changes(short), Run(tempfile.mkdtemp())
        >>> model = train(recipe, training_data(recipe), run, verbose=0)
        >>> run.epochs_done(), run.facts()["data"]["pairs_per_epoch"]
        (1, 64)
    """
    expect_recipe(recipe)
    if not isinstance(data, TrainingData):
        raise TypeError(
            "`data` are what keras_shared.training.training_data gives. Received: "
            f"{shortened(repr(data))}"
        )
    recipe = with_arguments_from(recipe, data)
    seed, begins = recipe.training.seeds[0], fingerprint(start)
    model = checked_start(recipe, data, start)
    folder = workers.folder(Run(run_dir)) if workers else nullcontext(Run(run_dir))
    with folder as run, run.claimed(recipe, begins):
        if workers:
            workers.see_that_all_begin_with(run.epochs_done())
        run.see_same_data(data.sizes)
        record = Record(recipe.with_seed(seed), start_text(recipe, begins), [], data.sizes)
        part, batches = trained_part(model, recipe, data)
        trained = part
        if run.checkpoint.exists():
            with keras.saving.custom_object_scope(_with_its_name(loss_of(recipe))):
                trained = (workers.load if workers else load)(run.checkpoint)
            _see_that_same_model(run, trained, part)
            if recipe.training.averaging:
                trained.optimizer.ema_momentum = averaging_of(recipe, data.steps_per_epoch)
            steps = int(trained.optimizer.iterations.numpy())
            record.history.extend(run.history_of_checkpoint(steps // data.steps_per_epoch))
            if part is model and workers is None:
                model = part = trained
        else:
            if recipe.task.prepare is not None:
                with boundary(f"The training of {recipe.path} failed", RunError, TOO_LARGE):
                    recipe.task.prepare(model, data)
            if workers:
                trained = workers.copy(part)
            with workers.strategy.scope() if workers else nullcontext():
                compile_model(trained, recipe, data.steps_per_epoch)
        run.write_history(record.history)
        first = len(record.history)
        if first < recipe.training.epochs:
            with (
                boundary(
                    f"The training of {recipe.path} failed",
                    RunError,
                    GONE if workers else TOO_LARGE,
                ),
                # workers exchange gradients after each step, outside of a loop
                several_steps_at_once(trained, 1 if workers else data.steps_per_epoch),
                fused_normalization(trained),
                _together(workers, trained, batches, recipe, first) as (training, validation),
            ):
                trained.fit(
                    training,
                    validation_data=validation,
                    shuffle=False,  # the batches already are
                    steps_per_epoch=data.steps_per_epoch,
                    initial_epoch=first,
                    epochs=recipe.training.epochs,
                    callbacks=[
                        *([keras.callbacks.SwapEMAWeights()] if recipe.training.averaging else []),
                        EpochSeeds(seed),
                        EpochSeconds(),
                        keras.callbacks.TensorBoard(run.logs, write_graph=False),
                        Checkpoint(run, record),
                        *([TimeToGo(recipe.training.epochs)] if verbose else []),
                    ],
                    verbose=verbose,
                )
        if recipe.training.averaging:
            trained.optimizer.finalize_variable_values(trained.trainable_weights)
        if trained is not part:  # it went on from a checkpoint
            part.set_weights(trained.get_weights())
        if recipe.task.finish is not None:
            with boundary(f"The training of {recipe.path} failed", RunError, TOO_LARGE):
                recipe.task.finish(model, data)
        run.save(model, run.model_file, record)
        _write_facts(run, record, data, base)
    return model


def checked_start(
    recipe: Recipe, data: TrainingData, start: keras.Model | None = None
) -> keras.Model:
    """The model that a training begins with; refused before anything is written.

    Args:
        recipe: what is to be trained; a model is drawn by its first seed.
        data: its batches.
        start: a trained model to fine-tune.

    Raises:
        RunError: if it cannot be built, its class is not registered with Keras, or it does not
            take the data.
        RecipeError: if there is no loss of the recipe's name.
    """
    keras.utils.set_random_seed(recipe.training.seeds[0])
    loss_of(recipe)
    model = start or _built(recipe)
    _check_class(type(model), recipe)
    check_data(model, recipe, data)
    return model


def _built(recipe: Recipe) -> keras.Model:
    failed = f"The model of {recipe.path} cannot be built"
    with boundary(failed, RunError, TOO_LARGE):
        model, wrong = attempt(lambda: build_model(recipe), ValueError)
    with boundary(failed, RunError):  # arguments that do not go together
        if wrong:
            raise wrong
    return model


def _check_class(cls: type, recipe: Recipe) -> None:
    """See that Keras finds the class again by the name that the run's files will hold."""
    name = keras.saving.get_registered_name(cls)
    found = keras.saving.get_registered_object(name)
    if cls.__module__.partition(".")[0] == "keras" or _place(found) == _place(cls):
        return
    line = "@keras.saving.register_keras_serializable"
    raise RunError(
        f"{recipe.path}: the class '{cls.__name__}' of {cls.__module__} "
        + ("is not registered with Keras, and its trained model could not be loaded. Write "
           f'{line}("my_package") above the class.' if found is None
           else f"is registered with Keras as '{name}', and so is another, of {found.__module__}, "
           f"which would be loaded in its place. Name another package in {line}(...) above one.")
    )  # fmt: skip


def _place(cls: type | None) -> tuple[str, str] | None:
    return None if cls is None else (cls.__module__, cls.__qualname__)


def _with_its_name(loss: Any) -> dict[str, Any]:
    """A loss as a checkpoint names it, whether it is registered or not."""
    kind = type(loss) if isinstance(loss, keras.losses.Loss) else loss
    return {getattr(kind, "__name__", type(kind).__name__): kind}


@contextmanager
def _together(
    workers: Workers | None, model: keras.Model, data: TrainingData, recipe: Recipe, first: int
) -> Iterator[tuple[tf.data.Dataset, tf.data.Dataset | None]]:
    """The batches to train on and to validate: this worker's part, where there are several."""
    training = data.batches(first, recipe.training.epochs)
    if workers is None:
        make_variables(model, training.element_spec)
        yield training, data.validation
        return
    with workers.fitting(model, recipe.training.batch_size, next(iter(training))):
        yield (
            workers.shared_out(training),
            None if data.validation is None else workers.shared_out(data.validation),
        )


@contextmanager
def several_steps_at_once(model: keras.Model, steps_per_epoch: int) -> Iterator[None]:
    """Run steps without Python between them: as many as fill an epoch without a rest.

    With a rest, Keras would take batches of the next epoch into this one. Afterwards, and in the
    files of the model, it is one step again, as `keras.Model.compile` has it.
    """
    most = range(1, min(steps_per_epoch, MOST_AT_ONCE) + 1)
    model.steps_per_execution = max(n for n in most if steps_per_epoch % n == 0)
    try:
        yield
    finally:
        model.steps_per_execution = 1
        model.train_function = model.test_function = model.predict_function = None


def _see_that_same_model(run: Run, kept: keras.Model, expected: keras.Model) -> None:
    """As the checkpoints of older versions do not say what they are of."""
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in (kept, expected)]
    if type(kept) is not type(expected) or shapes[0] != shapes[1]:
        raise RunError(
            f"{run.checkpoint} holds a {type(kept).__name__} with {kept.count_params():,} "
            f"parameters, and the recipe is of a {type(expected).__name__} with "
            f"{expected.count_params():,}. Name another folder with --out, or remove the "
            "checkpoint: the run begins again then."
        )


def _write_facts(run: Run, record: Record, data: TrainingData, base: dict[str, str] | None) -> None:
    training, history = record.recipe.training, record.history
    facts = {
        "epochs": training.epochs,
        "seed": training.seeds[0],
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "data": data.sizes,
        **in_short(history),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "cpu_cores": os.cpu_count(),
    } | ({"base": base} if base else {})
    replace_text(run.facts_file, json.dumps(facts, indent=2) + "\n")
