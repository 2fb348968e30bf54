"""From a recipe to the model, its data and its loss: all that a training begins with."""

import hashlib
import os
from typing import Any

import keras
import tensorflow as tf

from keras_shared.batching import TrainingData
from keras_shared.lookup import find
from keras_shared.losses import LOSSES
from keras_shared.presets.loading import load
from keras_shared.recipes import Recipe
from keras_shared.sharing import sharing_report, unshare
from keras_shared.training.run import RunError


def build_model(recipe: Recipe) -> keras.Model:
    """The untrained, uncompiled model of a recipe, unshared where the recipe says so.

    A model that has nothing but convolutions to unshare loses the sharing of their positions.

    Example:
        >>> from keras_shared.demo import RECIPE
        >>> from keras_shared.recipes import read_recipe
        >>> from keras_shared.training import build_model
        >>> build_model(read_recipe(RECIPE)).count_params()
        111682
    """
    model = recipe.model_class(**recipe.model.model_dump(exclude={"class_name"}))
    if recipe.training.sharing == "shared":
        return model
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
        RunError: if it is not the recipe's model, or the recipe asks for an unshared one.
    """
    keras.utils.set_random_seed(recipe.training.seeds[0])
    model = load(path_or_name, compile=False)
    names = getattr(recipe.model, "class_names", None)
    if hasattr(model, "with_classes") and names not in (None, model.class_names):
        model = model.with_classes(names)
    _check_start(model, recipe)
    return model


def fingerprint(start: keras.Model | None) -> str:
    """Stands for the weights that a training starts from: the recipe's own, or a model's."""
    if start is None:
        return "recipe"
    digest = hashlib.sha256()
    for weight in start.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def training_data(recipe: Recipe, data_dir: str | None = None) -> TrainingData:
    """The training and validation batches of a recipe. The test split is not opened.

    Args:
        recipe: its sections [data] and [training], and the task of its model.
        data_dir: folder of prepared TFDS data sets.

    Raises:
        DataError: if the data set cannot be had, or is too small for the recipe.

    Example:
        >>> from keras_shared.demo import RECIPE
        >>> from keras_shared.recipes import read_recipe
        >>> from keras_shared.training import training_data
        >>> training_data(read_recipe(RECIPE)).sizes
        {'groups': 5, 'pairs_per_epoch': 3200, 'validation_pairs': 1000}
    """
    split = recipe.dataset.load("train", data_dir)
    training = recipe.training
    return recipe.task.training_data(split, recipe.data, training.batch_size, training.seeds[0])


def test_data(recipe: Recipe, data_dir: str | None = None) -> tuple[Any, tf.data.Dataset]:
    """The test split of a recipe and its batches, in a fixed order; for evaluation alone.

    Args:
        recipe: its section [data] and the task of its model; its first seed where that draws.
        data_dir: folder of prepared TFDS data sets.

    Raises:
        DataError: if the data set cannot be had, or is too small for the recipe.
    """
    split = recipe.dataset.load("test", data_dir)
    return split, recipe.task.test_batches(split, recipe.data, recipe.training.seeds[0])


test_data.__test__ = False  # type: ignore[attr-defined]  # no test, whatever pytest thinks


def compile_model(model: keras.Model, recipe: Recipe, steps_per_epoch: int) -> None:
    """Give `model` the loss, the metrics and the optimizer of a recipe."""
    training = recipe.training
    assert training.loss is not None  # a recipe that was read has one
    loss = find(training.loss, LOSSES, "loss")()
    if training.averaging:
        optimizer = keras.optimizers.Adam(
            training.learning_rate, use_ema=True, ema_momentum=training.averaging
        )
    else:
        steps = training.epochs * steps_per_epoch
        rate = keras.optimizers.schedules.CosineDecay(training.learning_rate, steps)
        optimizer = keras.optimizers.Adam(rate)
    # XLA makes small convolutions slower on a CPU
    model.compile(optimizer, **recipe.task.compile_arguments(loss), jit_compile=False)


def check_data(model: keras.Model, recipe: Recipe, data: TrainingData) -> None:
    """See that the model takes the data.

    Raises:
        RunError: if the shapes of its inputs are others.
    """
    specs = keras.tree.flatten(data.validation.element_spec[0])
    for given, tensor in zip(specs, model.inputs, strict=True):
        if not given.shape[1:].is_compatible_with(tensor.shape[1:]):
            raise RunError(
                f"{recipe.path}: the data set '{recipe.data.name}' gives inputs of shape "
                f"{tuple(given.shape[1:])}, and the model takes {tuple(tensor.shape[1:])}. Set "
                "[model] or data.name so that they agree."
            )


def _check_start(model: keras.Model, recipe: Recipe) -> None:
    if recipe.training.sharing != "shared":
        raise RunError(
            f"{recipe.path}: `training.sharing` is '{recipe.training.sharing}', and a model to "
            "start from is trained as it is. Set it to 'shared'."
        )
    if not isinstance(model, recipe.model_class):
        raise RunError(
            f"{recipe.path}: `model.class_name` is '{recipe.model.class_name}', and the model to "
            f"start from has '{type(model).__name__}'. Set the recipe to the model's own."
        )
    config = model.get_config()
    for key, wanted in recipe.model.model_dump(exclude={"class_name"}).items():
        if wanted is not None and config.get(key) != wanted:
            raise RunError(
                f"{recipe.path}: `model.{key}` is {wanted!r}, and the model to start from has "
                f"{config.get(key)!r}. Set the recipe to the model's own."
            )
