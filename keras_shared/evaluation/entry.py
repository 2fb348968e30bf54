import json
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_shared.batching.training_data import counts_in, same_data
from keras_shared.errors import boundary
from keras_shared.evaluation.card import write_card
from keras_shared.evaluation.comparison_lines import comparison_lines
from keras_shared.evaluation.learning_curves import plot_learning_curves
from keras_shared.evaluation.measuring import EvaluationError, measure, plain
from keras_shared.files.atomic import make_folder, replace_text, save_plots
from keras_shared.files.bounded import read_json
from keras_shared.files.paths import as_path
from keras_shared.recipes import Recipe
from keras_shared.recipes.recipe import expect_recipe
from keras_shared.sharing import sharing_report
from keras_shared.training.build import (
    load_split,
    test_data,
    training_data,
    with_vocabulary_of,
)
from keras_shared.tying.keras_private import expect_layer

METRICS = "metrics.json"
COMPARISON = "comparison.json"


def evaluate(
    model: keras.Model,
    recipe: Recipe,
    out_dir: str | os.PathLike[str],
    data_dir: str | None = None,
    training: dict[str, Any] | None = None,
    others: Sequence[tuple[keras.Model | None, dict[str, Any]]] = (),
    from_nothing: keras.Model | None = None,
) -> dict[str, Any]:
    """Run `model` on the recipe's test data once; write metrics.json, plots and the card.

    Args:
        model: the trained model.
        recipe: names the data and the model, and with it the task.
        out_dir: folder for metrics.json, README.md (the card) and the PNG plots.
        data_dir: folder of prepared TFDS data sets.
        training: facts of the training; by default those that metrics.json holds already, and
            the metrics of its other seeds.
        others: models and facts of the other seeds, whose metrics enter mean and spread; in place
            of a model None, where the facts are those of a seed in metrics.json.
        from_nothing: of a fine-tuned model, the same net trained without its start; its headline
            metric stands beside the model's own.

    Returns:
        What metrics.json holds.

    Raises:
        DataError: if the data set cannot be had.
        DivergedError: if outputs are not finite.
        EvaluationError: if the recipe unshares the model, which has no card, if its task measures
            something else than it must, or if comparison.json or metrics.json in `out_dir` is of
            another recipe, or not what was written there.
    """
    expect_layer(model)
    expect_recipe(recipe)
    if recipe.training.sharing != "shared":
        raise EvaluationError(
            f"{recipe.path} says training.sharing = {recipe.training.sharing!r}. An entry shares; "
            "`keras-shared compare` evaluates what does not."
        )
    out_dir, task = as_path(out_dir, "out_dir"), recipe.task
    comparison = _comparison_in(out_dir, recipe)
    kept = out_dir / METRICS
    if training is None:
        training, others = known_runs(kept) if kept.exists() else ({}, ())
    recipe = with_vocabulary_of(recipe, model)
    own = recipe.with_seed(training.get("seed", recipe.training.seeds[0]))
    _warn_of_other_data(own, training.get("data"), data_dir)
    split, batches = test_data(own, data_dir)
    wanted = task.choose is not None or task.baselines is not None
    train = load_split(recipe, "train", data_dir) if wanted else None
    metrics, test = measure(model, own, split, batches, training_split=train)
    plots, baselines = task.plots(test), dict[str, float]()
    if task.baselines is not None:
        training_batches = task.test_batches(train, recipe.data, own.training.seeds[0])
        measured, more = task.baselines(model, training_batches, test)
        baselines, plots = plain(measured), plots | more
    if from_nothing is not None:
        key = task.headline.key
        baselines[f"from_nothing_{key}"] = measure(from_nothing, own, split, batches)[0][key]
    seeds = [_of_seed(training, metrics)] if training else []
    for other, facts in others:
        if other is None:
            seeds.append(facts)
            continue
        split, batches = test_data(recipe.with_seed(facts["seed"]), data_dir)
        measured, _ = measure(other, recipe, split, batches, training_split=train)
        seeds.append(_of_seed(facts, measured))
    plots |= plot_learning_curves(seeds)
    report = sharing_report(model)
    result = {
        "name": recipe.name,
        "model": recipe.model.class_name,
        "data": recipe.data.name,
        "headline": task.headline._asdict(),
        "parameters": {
            "trainable": report.totals["trainable_parameters"],
            "all": report.totals["parameters"],
            "without_sharing": report.totals["parameters_without_sharing"],
            "connections": report.totals["multiply_adds"],
        },
        "stored_bytes": report.stored_bytes,
        "test": metrics,
        "baselines": baselines,
        "over_seeds": _spread([s["test"] for s in seeds]),
        "seeds": sorted(seeds, key=lambda s: s["seed"]),
        **({} if task.samples is None else {"samples": task.samples(model, test)}),
        "training": {k: v for k, v in training.items() if k != "history"},
    }
    make_folder(out_dir)
    save_plots(plots, out_dir)
    replace_text(kept, json.dumps(result, indent=2) + "\n")
    write_card(result, recipe, sorted(plots), out_dir, comparison)
    return result


def _warn_of_other_data(recipe: Recipe, trained: Any, data_dir: str | None) -> None:
    """The user's own data may be others than in the training, and the splits with them."""
    if trained is None or not getattr(recipe.data, "path", None):
        return
    sizes = training_data(recipe, data_dir).sizes
    if not same_data(sizes, trained):
        counts, now = counts_in(trained), counts_in(sizes)
        what = f"{counts}, and now {now}" if counts != now else f"{now}, of which some are others"
        warnings.warn(
            f"{recipe.data.path} has changed since the training: {what}. Where a seed draws the "
            "splits, images that trained may be among those that test.",
            stacklevel=3,
        )


def known_runs(
    file: pathlib.Path,
) -> tuple[dict[str, Any], list[tuple[keras.Model | None, dict[str, Any]]]]:
    """What metrics.json knows of the published run, and of the other seeds, for `evaluate`.

    Raises:
        EvaluationError: if it is not what `evaluate` writes.
    """
    advice = "Put the file back, or remove it and evaluate the folder of the run."
    metrics = read_json(file, EvaluationError, advice)
    with boundary(f"{file} is not what `evaluate` writes", EvaluationError, advice):
        training = metrics["training"]
        own = [s for s in metrics["seeds"] if s["seed"] == training.get("seed")]
        history = {"history": own[0]["history"]} if own and "history" in own[0] else {}
        return {**training, **history}, [(None, s) for s in metrics["seeds"] if s not in own]


def _comparison_in(out_dir: pathlib.Path, recipe: Recipe) -> dict[str, Any] | None:
    file, advice = out_dir / COMPARISON, "Remove it, or copy the one of the same recipe there."
    if not os.path.lexists(file):
        return None
    result = read_json(file, EvaluationError, advice)
    with boundary(f"{file} is not what `compare` writes", EvaluationError, advice):
        if result["name"] != recipe.name:
            raise EvaluationError(
                f"{file} compares '{result['name']}', and this is '{recipe.name}'. {advice}"
            )
        # an older one has no headline, and another word for the metric
        result.setdefault("headline", recipe.task.headline._asdict())
        for row in result["summary"]:
            row.setdefault("metric", row.get("figure"))
        comparison_lines(result)  # all that the card takes from it
    return result


def _of_seed(facts: dict[str, Any], test: dict[str, Any]) -> dict[str, Any]:
    """One seed in metrics.json: what it took, what it reached on validation and on test data."""
    numbers = {key: value for key, value in test.items() if not isinstance(value, list)}
    wanted = ("seed", "epochs", "seconds", "last_epoch", "history")
    return {**{key: facts[key] for key in wanted if key in facts}, "test": numbers}


def _spread(tests: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (n - 1) of each metric over the seeds; empty for one seed."""
    if len(tests) < 2:
        return {}
    shared = [key for key in tests[0] if all(key in test for test in tests)]
    columns = {key: [test[key] for test in tests] for key in shared}
    return {
        key: {"mean": round(float(np.mean(c)), 4), "std": round(float(np.std(c, ddof=1)), 4)}
        for key, c in columns.items()
        if all(isinstance(value, (int, float)) for value in c) and len(set(c)) > 1
    }
