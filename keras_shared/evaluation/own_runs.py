import json
import os
import pathlib
from typing import Any

import keras

from keras_shared.datasets import read_one_shot_runs
from keras_shared.errors import boundary
from keras_shared.evaluation.measuring import EvaluationError
from keras_shared.files.atomic import make_folder, replace_text, save_plots
from keras_shared.recipes import Recipe

ANSWERS = "one_shot.json"


def evaluate_runs(
    model: keras.Model,
    recipe: Recipe,
    runs: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
) -> dict[str, Any]:
    """Run `model` on one-shot runs of your own; write one_shot.json and one_shot.png.

    Args:
        model: the trained model.
        recipe: that it was trained by; its data are not read.
        runs: a folder, see `keras_shared.datasets.read_one_shot_runs`.
        out_dir: folder for what is written.

    Returns:
        What one_shot.json holds: the mean error of the runs in percent, and of each run its number
        of classes, its error, and the answer to each query.

    Raises:
        DataError: if the folder holds no such runs.
        EvaluationError: for a model that is of another task.
    """
    answer, name = recipe.task.answer_runs, type(model).__name__
    if answer is None:
        raise EvaluationError(
            f"One-shot runs need a model that compares images, such as siamese_omniglot. Received: "
            f"{name}, for {recipe.task.name}"
        )
    read, shape = read_one_shot_runs(runs), recipe.image_shape
    assert shape is not None  # a task that answers runs takes images
    with boundary(f"{os.fspath(runs)} cannot be answered by {name}", EvaluationError):
        metrics, plots = answer(model, read, shape)
    result = {"name": recipe.name, **metrics}
    out = pathlib.Path(out_dir)
    make_folder(out)
    save_plots(plots, out)
    replace_text(out / ANSWERS, json.dumps(result, indent=2) + "\n")
    return result
