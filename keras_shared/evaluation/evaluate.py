import json
import os
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from keras_shared.card import write_card
from keras_shared.data import test_data
from keras_shared.evaluation.classification import classification_metrics, plot_classification
from keras_shared.evaluation.reconstruction import plot_reconstruction, reconstruction_metrics
from keras_shared.evaluation.verification import plot_verification, verification_metrics
from keras_shared.recipe import Recipe

METRICS = "metrics.json"


def evaluate(
    model: keras.Model,
    recipe: Recipe,
    out_dir: str | os.PathLike[str],
    data_dir: str | None = None,
    training: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run `model` on the recipe's test data once; write metrics.json, plots and the card.

    Args:
        model: the trained model.
        recipe: names the data and the kind of model.
        out_dir: folder for metrics.json, README.md (the card) and the PNG plots.
        data_dir: folder of prepared TFDS data sets.
        training: facts of the training; by default those that metrics.json holds already.

    Returns:
        What metrics.json holds.

    Raises:
        DataError: if the data set cannot be had.
    """
    out_dir = pathlib.Path(out_dir)
    kept = out_dir / METRICS
    if training is None:
        training = json.loads(kept.read_text())["training"] if kept.exists() else {}
    test, plots = _measure(model, recipe, data_dir)
    metrics = {
        "name": recipe.name,
        "model": recipe.model.class_name,
        "data": recipe.data.name,
        "parameters": {
            "trainable": _count(model.trainable_variables),
            "all": _count(model.variables),
        },
        "test": test,
        "training": training,
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, figure in plots.items():
        figure.savefig(out_dir / f"{name}.png", dpi=120, metadata={"Software": None})
    scratch = out_dir / f".new-{METRICS}"
    scratch.write_text(json.dumps(metrics, indent=2) + "\n")
    scratch.replace(kept)
    write_card(metrics, recipe, sorted(plots), out_dir)
    return metrics


def _measure(
    model: keras.Model, recipe: Recipe, data_dir: str | None
) -> tuple[dict[str, Any], dict[str, Figure]]:
    batches = test_data(recipe, data_dir)
    inputs, targets = _column(batches, 0), _column(batches, 1)
    outputs = model.predict(inputs, verbose="auto")
    truth = np.concatenate(list(targets.as_numpy_iterator()))
    if recipe.model.class_name == "SiameseNet":
        probability = outputs["probability"][:, 0]
        return verification_metrics(probability, truth), plot_verification(probability, truth)
    if recipe.model.class_name == "TiedAutoencoder":
        return reconstruction_metrics(outputs, truth), plot_reconstruction(outputs, truth)
    images = np.concatenate(list(inputs.as_numpy_iterator()))
    return (
        classification_metrics(outputs, truth),
        plot_classification(outputs, truth, images, model.class_names),
    )


def _count(variables: list[keras.Variable]) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def _column(batches: tf.data.Dataset, index: int) -> tf.data.Dataset:
    return batches.map(lambda *columns: columns[index])
