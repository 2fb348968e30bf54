from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.errors import KerasSharedError
from keras_shared.recipes import Recipe
from keras_shared.tasks import Tested


class DivergedError(KerasSharedError, FloatingPointError):
    """A model gives outputs that are not finite."""


def measure(
    model: keras.Model,
    recipe: Recipe,
    split: Any,
    batches: tf.data.Dataset,
    verbose: int | str = "auto",
    training_split: Any = None,
) -> tuple[dict[str, Any], Tested]:
    """The test metrics of a model, and what they come from.

    Args:
        model: a trained model of the recipe, shared or not.
        recipe: names the model, and with it the task.
        split: the test split, from `keras_shared.training.test_data`.
        batches: its batches, from there too.
        verbose: as in `keras.Model.predict`.
        training_split: with what validates, for what the task chooses there; None to choose
            nothing.

    Raises:
        DivergedError: if outputs are not finite.
    """
    if recipe.task.outputs is None:
        outputs = model.predict(batches.map(lambda x, y: x), verbose=verbose)
    else:
        outputs = recipe.task.outputs(model, batches)
    if not all(np.isfinite(part).all() for part in keras.tree.flatten(outputs)):
        raise DivergedError(
            f"'{recipe.name}' gives outputs that are not finite: its training diverged. Lower "
            "training.learning_rate, and train it again."
        )
    targets = [y for _, y in batches.as_numpy_iterator()]
    truth = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *targets)
    ask, choose = recipe.task.ask, recipe.task.choose
    chosen = None
    if choose is not None and training_split is not None:
        chosen = choose(model, training_split, recipe.data)
    more = None if ask is None else ask(model, split, recipe.data)
    test = Tested(outputs, truth, batches, split, more, chosen)
    return recipe.task.measure(test), test
