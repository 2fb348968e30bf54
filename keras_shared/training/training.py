"""From a recipe and its data to a trained model and its history."""

import csv
import hashlib
import json
import math
import os
import pathlib
import platform
import shutil
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared import losses, zoo
from keras_shared.data import TrainingData
from keras_shared.presets.loading import load
from keras_shared.recipe import PairData, Recipe, read_recipe, write_recipe
from keras_shared.atomic import replace_text, replacing
from keras_shared.sharing import sharing_report
from keras_shared.zoo.calibration import calibrate

CHECKPOINT = "checkpoint.keras"
HISTORY = "history.csv"
MODEL = "model.keras"
RECIPE = "recipe.toml"
START = "start.txt"
TRAINING = "training.json"


class TrainingError(RuntimeError):
    """A training cannot start; the message says what to do."""


def build_model(recipe: Recipe) -> keras.Model:
    """The untrained, uncompiled model of a recipe, unshared where the recipe says so.

    A model that has nothing but convolutions to unshare loses the sharing of their positions.
    """
    arguments = dict(vars(recipe.model))
    model = getattr(zoo, arguments.pop("class_name"))(**arguments)
    if recipe.training.sharing == "shared":
        return model
    from keras_shared.evaluation import unshare  # here, since comparisons alone need it

    once = all(weight.uses <= 1 for weight in sharing_report(model).weights)
    most = model.count_params() if recipe.training.sharing == "unshared_narrow" else None
    return unshare(model, copy_values=False, convolutions=once, parameters=most)


def start_model(recipe: Recipe, path_or_name: str | os.PathLike[str]) -> keras.Model:
    """A published model to fine-tune by a recipe; for the recipe's classes, if they are others.

    What is new in it is drawn by the recipe's first seed, so that a run can go on from its start.

    Args:
        recipe: the recipe of the fine-tuning.
        path_or_name: as of `keras_shared.load`.

    Raises:
        ValueError: as of `keras_shared.load`.
    """
    keras.utils.set_random_seed(recipe.training.seeds[0])
    model = load(path_or_name)
    names = getattr(recipe.model, "class_names", None)
    if hasattr(model, "with_classes") and names not in (None, model.class_names):
        model = model.with_classes(names)
    return model


def compile_model(model: keras.Model, recipe: Recipe, steps_per_epoch: int) -> None:
    """Give `model` the loss and the optimizer of a recipe."""
    loss: Any = recipe.training.loss
    if loss == "rbf":
        loss = losses.RBFLoss()
    elif loss == "sparse_categorical_crossentropy":
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate, averaging = recipe.training.learning_rate, recipe.training.averaging
    if averaging:
        optimizer = keras.optimizers.Adam(rate, use_ema=True, ema_momentum=averaging)
    else:
        steps = recipe.training.epochs * steps_per_epoch
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
    metrics: Any = [] if recipe.model.class_name == "TiedAutoencoder" else ["accuracy"]
    if isinstance(recipe.data, PairData):
        on = "distance" if loss == "contrastive" else "probability"
        loss = losses.ContrastiveLoss() if loss == "contrastive" else loss
        loss = {name: loss if name == on else None for name in ("distance", "probability")}
        metrics = {"probability": metrics}
    # XLA makes small convolutions slower on a CPU
    model.compile(optimizer, loss, metrics=metrics, jit_compile=False)


def train(
    recipe: Recipe,
    data: TrainingData,
    run_dir: str | os.PathLike[str],
    start: keras.Model | None = None,
    verbose: int | str = "auto",
) -> keras.Model:
    """Train the model of a recipe; begun before in the same folder, go on where that stopped.

    Of several seeds it takes the first; `recipe.with_seed` names another.

    After each epoch `run_dir` holds a whole checkpoint (model and optimizer), written
    beside its place and renamed, so that a kill at any time loses at most an epoch. A resumed run
    ends as an unbroken one would, up to rounding. `run_dir` also gets history.csv, logs for
    TensorBoard, and at the end model.keras and training.json.

    Args:
        recipe: what to train.
        data: its batches, from `keras_shared.data.training_data`.
        run_dir: folder for all that the run writes.
        start: a trained model to fine-tune; by default one is built from the recipe.
        verbose: as in `keras.Model.fit`.

    Returns:
        The trained model.

    Raises:
        TrainingError: if `run_dir` holds a run of another recipe or from another start, if the
            data do not fit the model, or if `start` is not the model of the recipe.
    """
    run_dir = pathlib.Path(run_dir)
    claim(run_dir, recipe, start)
    seed = recipe.training.seeds[0]
    keras.utils.set_random_seed(seed)
    checkpoint = run_dir / CHECKPOINT
    if checkpoint.exists():
        model = load(checkpoint, compile=True)
        first = int(model.optimizer.iterations) // data.steps_per_epoch
    else:
        model, first = start or build_model(recipe), 0
        if start is not None:
            check_start(start, recipe)
        _check_data(model, recipe, data)
        compile_model(model, recipe, data.steps_per_epoch)
    _keep_rows(run_dir / HISTORY, first)
    if first < recipe.training.epochs:
        model.fit(
            data.batches(first, recipe.training.epochs),
            validation_data=data.validation,
            shuffle=False,  # the batches already are
            steps_per_epoch=data.steps_per_epoch,
            initial_epoch=first,
            epochs=recipe.training.epochs,
            callbacks=[
                *([keras.callbacks.SwapEMAWeights()] if recipe.training.averaging else []),
                _EpochSeeds(seed),
                _EpochSeconds(),
                keras.callbacks.CSVLogger(run_dir / HISTORY, append=True),
                keras.callbacks.TensorBoard(run_dir / "logs", write_graph=False),
                _Checkpoint(checkpoint),
            ],
            verbose=verbose,
        )
    model.optimizer.finalize_variable_values(model.trainable_weights)  # the average, if any
    if isinstance(recipe.data, PairData):
        _calibrate(model, data.validation)
    _save_atomically(model, run_dir / MODEL)
    _write_facts(run_dir, recipe, data)
    return model


def run_dirs(recipe: Recipe, run_dir: str | os.PathLike[str]) -> dict[int, pathlib.Path]:
    """The folder of each seed's run: `run_dir` itself for one seed, else `run_dir/seed-<n>`."""
    run_dir, seeds = pathlib.Path(run_dir), recipe.training.seeds
    if len(seeds) == 1:
        return {seeds[0]: run_dir}
    return {seed: run_dir / f"seed-{seed}" for seed in seeds}


def read_facts(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """What a finished run knows of itself: epochs, seed, seconds, data, last epoch, versions."""
    return json.loads((pathlib.Path(run_dir) / TRAINING).read_text())


def best_run(run_dir: str | os.PathLike[str]) -> pathlib.Path:
    """The finished run with the best validation figure: accuracy, or else the lowest loss.

    Args:
        run_dir: folder of one run, or of the runs of several seeds.

    Raises:
        TrainingError: if a run is not finished.
    """
    run_dir = pathlib.Path(run_dir)
    begun = sorted(run_dir.glob(f"seed-*/{RECIPE}"))
    alone = (run_dir / RECIPE).exists()
    if alone and begun:
        raise TrainingError(
            f"{run_dir} holds a run of one seed and runs of several. Name one of its folders "
            "seed-<n>, or move them to another place."
        )
    wanted = {} if alone else {seed: run for r in begun for seed, run in
                               run_dirs(read_recipe(r), run_dir).items()}  # fmt: skip
    runs = [*wanted.values()] or [run_dir]
    unfinished = [str(run) for run in runs if not (run / TRAINING).exists()]
    if unfinished:
        raise TrainingError(f"Not trained to the end: {', '.join(unfinished)}")

    def rank(run: pathlib.Path) -> float:
        last = read_facts(run)["last_epoch"]
        accuracy = [k for k in last if k.startswith("val_") and k.endswith("accuracy")]
        figure = last[accuracy[0]] if accuracy else -last["val_loss"]
        return float("-inf") if math.isnan(figure) else figure  # a run that diverged

    return max(runs, key=rank)


def read_history(run_dir: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of a run's history, one for each epoch."""
    path = pathlib.Path(run_dir) / HISTORY
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


class _EpochSeeds(keras.callbacks.Callback):
    """Lets noise and dropout depend on seed and epoch: Keras saves no state of its generators."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        states = (
            variable
            for variable in self.model.non_trainable_variables
            if variable.path.endswith("seed_generator_state")
        )
        for number, state in enumerate(states):
            state.assign([self._seed + number, epoch << 20])  # the second counts the draws


class _EpochSeconds(keras.callbacks.Callback):
    """Adds the wall-clock time of each epoch, in seconds, to its logs."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["seconds"] = round(time.monotonic() - self._start, 2)


class _Checkpoint(keras.callbacks.Callback):
    """Saves the whole model after each epoch; after the history, which may then be one row long."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self._path = path

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        _save_atomically(self.model, self._path)


def _save_atomically(model: keras.Model, path: pathlib.Path) -> None:
    with replacing(path) as scratch:
        model.save(scratch)


def claim(run_dir: pathlib.Path, recipe: Recipe, start: keras.Model | None) -> None:
    """Make `run_dir` the folder of this recipe from this start, or see that it is.

    Args:
        run_dir: folder of one run.
        recipe: the recipe, for its first seed.
        start: the model to fine-tune, or None.

    Raises:
        TrainingError: if it holds a run of another recipe, seed or start.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    kept, kept_start = run_dir / RECIPE, run_dir / START
    seed = recipe.training.seeds[0]
    fingerprint = f"{_fingerprint(start)}, seed {seed}"
    if not kept.exists():
        kept_start.write_text(fingerprint)
        with replacing(kept) as scratch:
            if read_recipe(recipe.path).with_seed(seed) == recipe.with_seed(seed):
                shutil.copyfile(recipe.path, scratch)  # with its comments
            else:
                write_recipe(recipe, scratch)
    same_start = kept_start.exists() and kept_start.read_text() == fingerprint
    same_recipe = read_recipe(kept).with_seed(seed) == recipe.with_seed(seed)
    if not same_recipe or not same_start:
        other = "from another start or seed" if same_recipe else "of another recipe"
        raise TrainingError(
            f"{run_dir} holds a run {other}. Name another folder with --out, or remove this one."
        )


def _fingerprint(start: keras.Model | None) -> str:
    """Stands for the weights that a fine-tuning starts from."""
    if start is None:
        return "recipe"
    digest = hashlib.sha256()
    for weight in start.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def check_start(model: keras.Model, recipe: Recipe) -> None:
    """See that a model to start from is the recipe's.

    Raises:
        TrainingError: if it is another, or the recipe asks for an unshared one.
    """
    if recipe.training.sharing != "shared":
        raise TrainingError(
            f"{recipe.path}: `training.sharing` is '{recipe.training.sharing}', and a model to "
            "start from is trained as it is. Set it to 'shared'."
        )
    config = model.get_config()
    for key, wanted in vars(recipe.model).items():
        found = type(model).__name__ if key == "class_name" else config[key]
        if found != wanted:
            raise TrainingError(
                f"{recipe.path}: `model.{key}` is {wanted!r}, and the model to start from has "
                f"{found!r}. Set the recipe to the model's own."
            )


def _check_data(model: keras.Model, recipe: Recipe, data: TrainingData) -> None:
    """The model takes the data."""
    specs = keras.tree.flatten(data.validation.element_spec[0])
    for given, tensor in zip(specs, model.inputs, strict=True):
        if not given.shape[1:].is_compatible_with(tensor.shape[1:]):
            raise TrainingError(
                f"{recipe.path}: the data set '{recipe.data.name}' gives inputs of shape "
                f"{tuple(given.shape[1:])}, and the model takes {tuple(tensor.shape[1:])}. Set "
                "[model] or data.name so that they agree."
            )


def _keep_rows(path: pathlib.Path, epochs: int) -> None:
    """Drop the row of an epoch whose checkpoint was never finished."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)  # none after a kill in the first epoch
    replace_text(path, "".join(lines[: epochs + 1] if epochs else []))


def _calibrate(model: keras.Model, pairs: tf.data.Dataset) -> None:
    distances = model.predict(pairs.map(lambda images, same: images), verbose=0)["distance"]
    if not np.isfinite(distances).all():
        return  # diverged: the history says so
    same = [float(s) for _, batch in pairs for s in batch["distance"].numpy()]
    calibrate(model.get_layer("probability"), distances, same)


def _write_facts(run_dir: pathlib.Path, recipe: Recipe, data: TrainingData) -> None:
    history = read_history(run_dir)
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
    }
    replace_text(run_dir / TRAINING, json.dumps(facts, indent=2) + "\n")
