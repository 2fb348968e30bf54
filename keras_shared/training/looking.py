"""The signals of a recipe's model, as training would begin with it, and over its first epochs."""

from typing import Any

import keras
import tensorflow as tf

from keras_shared.batching import TrainingData
from keras_shared.errors import boundary
from keras_shared.recipes import Recipe
from keras_shared.signals import SignalLog, SignalReport, signal_report
from keras_shared.training.build import (
    build_model,
    check_data,
    compile_model,
    trained_part,
    with_arguments_from,
)
from keras_shared.training.callbacks import EpochSeeds
from keras_shared.training.run import RunError


def signals_of(
    recipe: Recipe,
    data: TrainingData,
    examples: int = 256,
    epochs: int = 0,
    model: keras.Model | None = None,
) -> list[SignalReport]:
    """How signals pass through the model of a recipe, on training data and by its loss.

    Args:
        recipe: its first seed draws the weights, as in training.
        data: from `keras_shared.training.training_data`.
        examples: how many are looked at, the same each time.
        epochs: how many to train and look at besides; nothing is written.
        model: a model of the recipe, trained or not; by default one is built.

    Returns:
        A report of the start (with singular values, if there are no epochs), and of each epoch.

    Raises:
        RunError: if the data do not fit the model, or if it cannot be built.
        SignalError: as of `keras_shared.signal_report`.

    Example:
        >>> from keras_shared.recipes import recipe_from
        >>> from keras_shared.training import training_data
        >>> from keras_shared.training.looking import signals_of
        >>> table = {"name": "small", "data": {"name": "digits", "validation_images": 100}}
        >>> model = {"class_name": "TiedAutoencoder", "units": [8, 4], "input_dim": 64}
        >>> recipe = recipe_from({**table, "model": model})
        >>> report, = signals_of(recipe, training_data(recipe), examples=8)
        >>> report.layers[0].layer, report.examples
        ('encoder_1', 8)
    """
    recipe, seed = with_arguments_from(recipe, data), recipe.training.seeds[0]
    keras.utils.set_random_seed(seed)
    with boundary(f"The model of {recipe.path} cannot be built", RunError):
        whole = model or build_model(recipe)
    check_data(whole, recipe, data)
    part, batches = trained_part(whole, recipe, data)
    if model is None and recipe.task.prepare is not None:
        recipe.task.prepare(whole, data)
    compile_model(part, recipe, data.steps_per_epoch)
    looked_at = _first(batches.batches(0, 1), examples)
    if not epochs:
        return [signal_report(part, looked_at)]
    log = SignalLog(looked_at)
    part.fit(
        batches.batches(0, epochs),
        shuffle=False,
        steps_per_epoch=data.steps_per_epoch,
        epochs=epochs,
        callbacks=[EpochSeeds(seed), log],
        verbose=0,
    )
    return log.reports


def _first(batches: tf.data.Dataset, examples: int) -> Any:
    """So many of the first examples as one batch: inputs, targets, perhaps weights."""
    batches = batches.unbatch().padded_batch(examples)  # texts of two batches differ in length
    batch = next(iter(batches.take(1)))
    return tuple(_as_list(part) for part in batch)


def _as_list(part: Any) -> Any:
    return list(part) if isinstance(part, tuple) else part
