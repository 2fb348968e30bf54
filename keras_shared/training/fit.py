"""From a recipe and its data to a trained model and its history."""

import json
import os
import platform

import keras
import tensorflow as tf

from keras_shared.atomic import replace_text, replacing
from keras_shared.batching import TrainingData
from keras_shared.presets.loading import load
from keras_shared.recipes import Recipe
from keras_shared.training.build import (
    build_model,
    check_data,
    compile_model,
    fingerprint,
    named_classes,
    trained_part,
)
from keras_shared.training.callbacks import Checkpoint, EpochSeconds, EpochSeeds, TimeToGo
from keras_shared.training.run import Run


def train(
    recipe: Recipe,
    data: TrainingData,
    run_dir: str | os.PathLike[str],
    start: keras.Model | None = None,
    verbose: int | str = "auto",
    base: dict[str, str] | None = None,
) -> keras.Model:
    """Train the model of a recipe; begun before in the same folder, go on where that stopped.

    Of several seeds it takes the first; `recipe.with_seed` names another.

    After each epoch `run_dir` holds a whole checkpoint (model and optimizer), written
    beside its place and renamed, so that a kill at any time loses at most an epoch. A resumed run
    ends as an unbroken one would, up to rounding. `run_dir` also gets the resolved recipe,
    history.csv, logs for TensorBoard, and at the end model.keras and training.json.

    Args:
        recipe: what to train.
        data: its batches, from `keras_shared.training.training_data`.
        run_dir: folder for all that the run writes.
        start: a trained model to fine-tune, from `start_model`; by default one is built from the
            recipe.
        verbose: as in `keras.Model.fit`.
        base: what the card says of `start`: its `name`, and its `data` with their licence.

    Returns:
        The trained model.

    Raises:
        RunError: if another process trains in `run_dir`, if it holds a run of another recipe or
            from another start, or if the data do not fit the model.

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
    run, recipe = Run(run_dir), named_classes(recipe, data.class_names)
    with run.claimed(recipe, fingerprint(start)):
        seed = recipe.training.seeds[0]
        keras.utils.set_random_seed(seed)
        first, stopped = 0, load(run.checkpoint) if run.checkpoint.exists() else None
        if stopped is None or data.through is not None:
            model = start or build_model(recipe)
            check_data(model, recipe, data)
        else:
            model = stopped
        part, batches = trained_part(model, recipe, data)
        trained = part if stopped is None else stopped
        if stopped is not None:
            # an older checkpoint does not say how many epochs it has seen
            first = run.epochs_done() or int(trained.optimizer.iterations) // data.steps_per_epoch
        else:
            if recipe.task.prepare is not None:
                recipe.task.prepare(model, data)
            compile_model(trained, recipe, data.steps_per_epoch)
        run.keep_history(first)
        if first < recipe.training.epochs:
            trained.fit(
                batches.batches(first, recipe.training.epochs),
                validation_data=batches.validation,
                shuffle=False,  # the batches already are
                steps_per_epoch=data.steps_per_epoch,
                initial_epoch=first,
                epochs=recipe.training.epochs,
                callbacks=[
                    *([keras.callbacks.SwapEMAWeights()] if recipe.training.averaging else []),
                    EpochSeeds(seed),
                    EpochSeconds(),
                    keras.callbacks.CSVLogger(run.history_file, append=True),
                    keras.callbacks.TensorBoard(run.logs, write_graph=False),
                    Checkpoint(run),
                    *([TimeToGo(recipe.training.epochs)] if verbose else []),
                ],
                verbose=verbose,
            )
        if recipe.training.averaging:
            trained.optimizer.finalize_variable_values(trained.trainable_weights)
        if trained is not part:  # it went on from a checkpoint
            part.set_weights(trained.get_weights())
        if recipe.task.finish is not None:
            recipe.task.finish(model, data)
        with replacing(run.model_file) as scratch:
            model.save(scratch)
        _write_facts(run, recipe, data, base)
    return model


def _write_facts(run: Run, recipe: Recipe, data: TrainingData, base: dict[str, str] | None) -> None:
    history = run.history()
    names = [key for key in history[-1] if key not in ("epoch", "seconds")]
    facts = {
        "epochs": recipe.training.epochs,
        "seed": recipe.training.seeds[0],
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "data": data.sizes,
        "last_epoch": {key: history[-1][key] for key in names},
        "history": {key: [float(f"{row[key]:.5g}") for row in history] for key in names},
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "cpu_cores": os.cpu_count(),
    } | ({"base": base} if base else {})
    replace_text(run.facts_file, json.dumps(facts, indent=2) + "\n")
