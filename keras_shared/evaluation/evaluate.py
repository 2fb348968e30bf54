import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from keras_shared.card import write_card
from keras_shared.data import LabelledImages, labelled_images, test_batches
from keras_shared.tasks.classification import classification_metrics, plot_classification
from keras_shared.evaluation.learning_curves import plot_learning_curves
from keras_shared.tasks.reconstruction import (
    MAPPED,
    pca_error,
    plot_code,
    plot_reconstruction,
    reconstruction_metrics,
)
from keras_shared.tasks.verification import plot_verification, verification_metrics
from keras_shared.recipe import Recipe
from keras_shared.atomic import replace_text, save_plots
from keras_shared.sharing import sharing_report

METRICS = "metrics.json"
COMPARISON = "comparison.json"


def evaluate(
    model: keras.Model,
    recipe: Recipe,
    out_dir: str | os.PathLike[str],
    data_dir: str | None = None,
    training: dict[str, Any] | None = None,
    others: Sequence[tuple[keras.Model | None, dict[str, Any]]] = (),
) -> dict[str, Any]:
    """Run `model` on the recipe's test data once; write metrics.json, plots and the card.

    Args:
        model: the trained model.
        recipe: names the data and the kind of model.
        out_dir: folder for metrics.json, README.md (the card) and the PNG plots.
        data_dir: folder of prepared TFDS data sets.
        training: facts of the training; by default those that metrics.json holds already, and
            the figures of its other seeds.
        others: models and facts of the other seeds, whose figures enter mean and spread; in place
            of a model None, where the facts are those of a seed in metrics.json.

    Returns:
        What metrics.json holds.

    Raises:
        DataError: if the data set cannot be had.
        FloatingPointError: if outputs are not finite.
        ValueError: if the recipe unshares the model, which has no card, or if comparison.json in
            `out_dir` is of another recipe.
    """
    if recipe.training.sharing != "shared":
        raise ValueError(
            f"{recipe.path} says training.sharing = {recipe.training.sharing!r}. An entry shares; "
            "`keras-shared compare` evaluates what does not."
        )
    out_dir = pathlib.Path(out_dir)
    compared = out_dir / COMPARISON
    comparison = json.loads(compared.read_text()) if compared.exists() else None
    if comparison and comparison["name"] != recipe.name:
        raise ValueError(
            f"{compared} compares '{comparison['name']}', and this is '{recipe.name}'. Remove it, "
            "or copy the one of the same recipe there."
        )
    kept = out_dir / METRICS
    if training is None:
        training, others = known_runs(json.loads(kept.read_text())) if kept.exists() else ({}, ())
    split = labelled_images(recipe, "test", data_dir)
    seed = training.get("seed", recipe.training.seeds[0])
    test, seen = measure(model, recipe, test_batches(recipe.with_seed(seed), split))
    plots = _plots(split.class_names, recipe, seen)
    baselines: dict[str, float] = {}
    if recipe.model.class_name == "TiedAutoencoder":
        train = labelled_images(recipe, "train", data_dir)
        baselines, figures = _about_the_code(model, recipe, train, split)
        plots |= figures
    seeds = [_of_seed(training, test)] if training else []
    for other, facts in others:
        if other is None:
            seeds.append(facts)
            continue
        batches = test_batches(recipe.with_seed(facts["seed"]), split)
        seeds.append(_of_seed(facts, measure(other, recipe, batches)[0]))
    plots |= plot_learning_curves(seeds)
    report = sharing_report(model)
    metrics = {
        "name": recipe.name,
        "model": recipe.model.class_name,
        "data": recipe.data.name,
        "parameters": {
            "trainable": report.totals["trainable_parameters"],
            "all": report.totals["parameters"],
            "connections": report.totals["links"],
        },
        "stored_bytes": report.stored_bytes,
        "test": test,
        "baselines": baselines,
        "over_seeds": _spread([s["test"] for s in seeds]),
        "seeds": sorted(seeds, key=lambda s: s["seed"]),
        "training": {k: v for k, v in training.items() if k != "history"},
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    save_plots(plots, out_dir)
    replace_text(kept, json.dumps(metrics, indent=2) + "\n")
    write_card(metrics, recipe, sorted(plots), out_dir, comparison)
    return metrics


def known_runs(
    metrics: dict[str, Any],
) -> tuple[dict[str, Any], list[tuple[keras.Model | None, dict[str, Any]]]]:
    """What metrics.json knows of the published run, and of the other seeds, for `evaluate`."""
    training = metrics["training"]
    own = [s for s in metrics["seeds"] if s["seed"] == training.get("seed")]
    history = {"history": own[0]["history"]} if own and "history" in own[0] else {}
    return {**training, **history}, [(None, s) for s in metrics["seeds"] if s not in own]


def _of_seed(facts: dict[str, Any], test: dict[str, Any]) -> dict[str, Any]:
    """One seed in metrics.json: what it took, what it reached on validation and on test data."""
    figures = {key: value for key, value in test.items() if not isinstance(value, list)}
    wanted = ("seed", "epochs", "seconds", "last_epoch", "history")
    return {**{key: facts[key] for key in wanted if key in facts}, "test": figures}


def _spread(tests: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (n - 1) of each figure over the seeds; empty for one seed."""
    if len(tests) < 2:
        return {}
    columns = {key: [test[key] for test in tests] for key in tests[0]}
    return {
        key: {"mean": round(float(np.mean(c)), 4), "std": round(float(np.std(c, ddof=1)), 4)}
        for key, c in columns.items()
        if len(set(c)) > 1
    }


def measure(
    model: keras.Model, recipe: Recipe, batches: tf.data.Dataset, verbose: int | str = "auto"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The test figures of a model, and what they come from.

    Args:
        model: a trained model of the recipe's kind, shared or not.
        recipe: names the kind of model.
        batches: from `keras_shared.data.test_batches`.
        verbose: as in `keras.Model.predict`.

    Returns:
        The figures, and a dict of arrays: `inputs` (but of pairs), `outputs`, `truth`.

    Raises:
        FloatingPointError: if outputs are not finite.
    """
    inputs = batches.map(lambda x, y: x)
    outputs = model.predict(inputs, verbose=verbose)
    if not all(np.isfinite(part).all() for part in keras.tree.flatten(outputs)):
        raise FloatingPointError(
            f"'{recipe.name}' answers with numbers that are not finite: its training diverged. "
            "Lower training.learning_rate, and train it again."
        )
    targets = [y["probability"] if isinstance(y, dict) else y for _, y in batches]
    truth = np.concatenate([y.numpy() for y in targets])
    kind = recipe.model.class_name
    if kind == "SiameseNet":
        probability = outputs["probability"][:, 0]
        return verification_metrics(probability, truth), {"outputs": probability, "truth": truth}
    seen = {
        "inputs": np.concatenate([x.numpy() for x in inputs]),
        "outputs": outputs,
        "truth": truth,
    }
    if kind == "TiedAutoencoder":
        return reconstruction_metrics(outputs, truth), seen
    return classification_metrics(outputs, truth), seen


def _plots(names: tuple[str, ...], recipe: Recipe, seen: dict[str, Any]) -> dict[str, Figure]:
    outputs, truth = seen["outputs"], seen["truth"]
    if recipe.model.class_name == "SiameseNet":
        return plot_verification(outputs, truth)
    if recipe.model.class_name == "TiedAutoencoder":
        return plot_reconstruction(outputs, truth)
    return plot_classification(outputs, truth, seen["inputs"], names)


def _about_the_code(
    model: keras.Model, recipe: Recipe, train: LabelledImages, test: LabelledImages
) -> tuple[dict[str, float], dict[str, Figure]]:
    """What principal components of the same number reach, and the code of the test images."""
    units = recipe.model.units[-1]  # type: ignore[union-attr]
    known, new = (split.images.reshape(len(split.images), -1) / 255.0 for split in (train, test))
    error = pca_error(known, new, components=units)
    baseline = {f"pca_{units}_squared_error_per_image": error}
    return baseline, plot_code(model.encode(new[:MAPPED]), test.labels[:MAPPED])
