import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.errors import KerasSharedError, attempt, shortened
from keras_shared.recipes import Recipe
from keras_shared.tasks import Task, Tested


class EvaluationError(KerasSharedError, ValueError):
    """A model cannot be evaluated so; the message says what to do."""


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
        EvaluationError: if the task measures something else than it must.
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
    return _metrics(recipe.task, test), test


def plain(value: Any) -> Any:
    """The same as JSON holds it: numbers and arrays of NumPy or TensorFlow as Python's own.

    Example:
        >>> import numpy as np
        >>> from keras_shared.evaluation.measuring import plain
        >>> plain({"right": np.float64(0.5), "of": (np.int64(3), np.arange(2))})
        {'right': 0.5, 'of': [3, [0, 1]]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if tf.is_tensor(value):
        value = value.numpy()
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _metrics(task: Task, test: Tested) -> dict[str, Any]:
    """What a task measures, ready for JSON; of an own one it may be anything."""
    measured, key = plain(task.measure(test)), task.headline.key
    if not isinstance(measured, dict):
        received = repr(measured)
    elif key not in measured:
        received = f"the keys {list(measured)}"
    elif type(measured[key]) not in (int, float):
        received = f"{key} = {measured[key]!r}"
    elif error := attempt(lambda: json.dumps(measured), TypeError, ValueError)[1]:
        received = f"{measured}: {error}"
    else:
        return measured
    raise EvaluationError(
        f"`measure` of the task '{task.name}' must give a dict of what JSON holds, and in it a "
        f"number for '{key}', the key of its `headline`. Received: {shortened(received)}"
    )
