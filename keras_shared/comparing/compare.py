"""The same recipe several ways, on the same data in the same order: what does a choice bring?"""

import itertools
import json
import os
import pathlib
import statistics
from typing import Any, NamedTuple

import keras
import numpy as np
import scipy.stats
from rich.progress import track

from keras_shared.comparison_card import write_comparison_card
from keras_shared.data import labelled_images, test_batches, training_data
from keras_shared.evaluation.comparison_plots import plot_comparison
from keras_shared.evaluation.evaluate import COMPARISON, METRICS, measure
from keras_shared.evaluation.peak_memory import peak_memory
from keras_shared.figures import FIGURES
from keras_shared.recipe import Arm, Comparison, ImageData, Recipe, RecipeError, read_recipe
from keras_shared.atomic import replace_text, save_plots
from keras_shared.sharing import sharing_report
from keras_shared.training import (
    CHECKPOINT,
    RECIPE,
    build_model,
    check_start,
    claim,
    read_facts,
    read_history,
    start_model,
    train,
)

RESULT = "result.json"


class Interval(NamedTuple):
    """A mean with half the width of its 95 % confidence interval.

    None for the width of a single value, and for both where a run diverged.
    """

    mean: float | None
    half: float | None


def compare(
    recipe: Recipe,
    comparison: Comparison,
    out_dir: str | os.PathLike[str],
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Train each arm of a comparison with each seed and set it beside the first arm.

    With the same seed, all arms see the same data in the same order (unless they differ in that).
    A run that is complete is kept and not repeated; one that was interrupted goes on from its last
    epoch.

    Args:
        recipe: what all arms have in common.
        comparison: arms, seeds, sizes of the training set.
        out_dir: folder for the runs (`runs/`), comparison.json, README.md (the card) and plots.
        data_dir: folder of prepared TFDS data sets.

    Returns:
        What comparison.json holds.

    Raises:
        RecipeError: if an arm changes what the recipe has not, or sizes are asked of pairs.
        DataError: if the data set cannot be had, or is too small.
        TrainingError: if `out_dir` holds runs of another recipe or from another start.
        ValueError: if an arm's model cannot be unshared, or `out_dir` is a published entry or
            holds a comparison of other arms.

    Peak memory is measured in a process of its own: a script that calls this needs the guard
    `if __name__ == "__main__":`.
    """
    out_dir = pathlib.Path(out_dir)
    if (out_dir / METRICS).exists():
        raise ValueError(f"{out_dir} holds a card that would be lost. Name another folder: --out")
    kept = out_dir / COMPARISON
    known = json.loads(kept.read_text())["arms"] if kept.exists() else ()
    if known and [arm["changes"] for arm in known] != [_changes(arm) for arm in comparison.arms]:
        names = ", ".join(arm["name"] for arm in known)
        raise ValueError(f"{out_dir} compares other arms: {names}. Name another folder: --out")
    if read_recipe(recipe.path) != recipe:
        raise RecipeError(
            f"The recipe is not that of {recipe.path}, from which each arm is read. Give compare "
            "a recipe as `read_recipe` reads it, and write changes into its file or into arms."
        )
    sizes = comparison.images_per_class or (0,)
    recipes = _recipes(recipe, comparison, data_dir)
    _check(comparison, recipes, max(sizes), data_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    runs = []
    jobs = list(itertools.product(sizes, comparison.seeds, comparison.arms))
    for size, seed, arm in track(jobs, f"comparing {recipe.name}"):
        folder = out_dir / "runs" / arm.slug / f"{size or 'all'}" / f"seed-{seed}"
        one = recipes[arm.name, size].with_seed(seed)
        weigh = size == max(sizes) and seed == comparison.seeds[0]
        run = _run(one, arm, folder, weigh, data_dir)
        runs.append({"arm": arm.name, "images_per_class": size, **run})
    result = {
        "name": recipe.name,
        "model": recipe.model.class_name,
        "data": recipe.data.name,
        "paper": recipe.paper,
        "arms": [
            {
                "name": arm.name,
                "changes": _changes(arm),
                "paper": arm.paper,
                "epochs": recipes[arm.name, max(sizes)].training.epochs,
                "peak_memory_bytes": next(
                    run["peak_memory_bytes"]
                    for run in runs
                    if run["arm"] == arm.name and run["images_per_class"] == max(sizes)
                ),
            }
            for arm in comparison.arms
        ],
        "seeds": list(comparison.seeds),
        "summary": summarise(runs, FIGURES[recipe.model.class_name].key),
        "runs": runs,
    }
    replace_text(out_dir / COMPARISON, json.dumps(result, indent=1) + "\n")
    plots = plot_comparison(result)
    save_plots(plots, out_dir)
    for old in out_dir.glob("comparison_*.png"):  # of sizes that are compared no more
        if old.stem not in plots:
            old.unlink()
    replace_text(out_dir / RECIPE, pathlib.Path(recipe.path).read_text("utf-8"))
    write_comparison_card(result, out_dir)
    return result


def summarise(runs: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """A row for each size and arm: mean and 95 % interval, and the difference to the first arm.

    The difference is paired: of the runs with the same seed.

    Args:
        runs: each with `arm`, `images_per_class`, `seed`, `parameters`, `weights_bytes`,
            `seconds_per_epoch` and `test`; the runs of the first arm come first.
        key: of the figure in `test`.

    Example:
        >>> from keras_shared.evaluation.comparison import summarise
        >>> runs = [
        ...     {"arm": arm, "images_per_class": 0, "seed": seed, "parameters": 9,
        ...      "weights_bytes": 36, "seconds_per_epoch": 1.0, "test": {"error": figure}}
        ...     for arm, figures in (("a", (2, 4, 6)), ("b", (3, 5, 7)))
        ...     for seed, figure in enumerate(figures)
        ... ]
        >>> rows = summarise(runs, "error")
        >>> rows[1]["figure"]["mean"], rows[1]["difference"], rows[1]["within_noise"]
        (5.0, {'mean': 1.0, 'half': 0.0}, False)
    """
    rows = []
    for size in dict.fromkeys(run["images_per_class"] for run in runs):
        of_size = [run for run in runs if run["images_per_class"] == size]
        first = {r["seed"]: r["test"][key] for r in of_size if r["arm"] == of_size[0]["arm"]}
        for arm in dict.fromkeys(run["arm"] for run in of_size):
            own = [run for run in of_size if run["arm"] == arm]
            row = {
                "images_per_class": size,
                "arm": arm,
                "parameters": own[0]["parameters"],
                "weights_bytes": own[0]["weights_bytes"],
                "seconds_per_epoch": round(
                    statistics.median(run["seconds_per_epoch"] for run in own), 3
                ),
                "figure": interval([run["test"][key] for run in own])._asdict(),
            }
            if arm != of_size[0]["arm"]:
                pairs = [(run["test"][key], first[run["seed"]]) for run in own]
                paired = interval([None if None in pair else pair[0] - pair[1] for pair in pairs])
                row["difference"] = paired._asdict()
                if paired.mean is not None and paired.half is not None:
                    row["within_noise"] = abs(paired.mean) <= paired.half
            rows.append(row)
    return rows


def interval(values: list[float | None]) -> Interval:
    """Mean and 95 % confidence interval by Student's t, of values from independent seeds.

    None stands for a run that diverged.

    Example:
        >>> from keras_shared.evaluation.comparison import interval
        >>> interval([1.0, 2.0, 3.0])
        Interval(mean=2.0, half=2.4841)
    """
    if None in values:
        return Interval(None, None)
    known = np.array(values, "float64")
    mean, n = round(float(known.mean()), 4), len(known)
    if n < 2:
        return Interval(mean, None)
    t = float(scipy.stats.t.ppf(0.975, n - 1))
    return Interval(mean, round(t * float(known.std(ddof=1)) / n**0.5, 4))


def _changes(arm: Arm) -> dict[str, Any]:
    """What an arm changes, as JSON holds it."""
    start = {"start": arm.start} if arm.start else {}
    return json.loads(json.dumps({**arm.changes, **start}))


def _recipes(
    recipe: Recipe, comparison: Comparison, data_dir: str | None
) -> dict[tuple[str, int], Recipe]:
    """The recipe of each arm and size; smaller sets come round until all took as many steps."""
    sizes = comparison.images_per_class
    if not sizes:
        return {(arm.name, 0): read_recipe(recipe.path, arm.changes) for arm in comparison.arms}
    if not isinstance(recipe.data, ImageData):
        raise RecipeError(
            f"{recipe.path}: images_per_class needs data of images with labels. Received: "
            f"images_per_class={list(sizes)} with pairs or samples."
        )
    classes = len(labelled_images(recipe, "train", data_dir).class_names)
    recipes = {}
    for arm, size in itertools.product(comparison.arms, sizes):
        of_size = {"data.images_per_class": size, "data.images_per_epoch": max(sizes) * classes}
        twice = sorted(set(of_size) & set(arm.changes))
        if twice:
            raise RecipeError(f"{recipe.path}: arm '{arm.name}' changes {twice}, as sizes do.")
        recipes[arm.name, size] = read_recipe(recipe.path, {**arm.changes, **of_size})
    return recipes


def _check(
    comparison: Comparison,
    recipes: dict[tuple[str, int], Recipe],
    largest: int,
    data_dir: str | None,
) -> None:
    """What cannot be built, loaded or drawn is known before hours of training."""
    for arm in comparison.arms:
        recipe = recipes[arm.name, largest]
        if arm.start:
            check_start(start_model(recipe, arm.start), recipe)
        else:
            build_model(recipe)
    for arm in comparison.arms:  # after the models: reading data takes longer
        training_data(recipes[arm.name, largest], data_dir)


def _run(
    recipe: Recipe, arm: Arm, folder: pathlib.Path, weigh: bool, data_dir: str | None
) -> dict[str, Any]:
    """One run, as it was found complete or to its end; `weigh` measures its memory too."""
    keras.backend.clear_session()
    start = start_model(recipe, arm.start) if arm.start else None
    claim(folder, recipe, start)
    kept = folder / RESULT
    result = json.loads(kept.read_text()) if kept.exists() else None
    if result is None:
        model = train(recipe, training_data(recipe, data_dir), folder, start=start, verbose=0)
        split = labelled_images(recipe, "test", data_dir)
        try:
            test, _ = measure(model, recipe, test_batches(recipe, split), verbose=0)
        except FloatingPointError:  # it diverged, which the table says
            test = {FIGURES[recipe.model.class_name].key: None}
        seconds = [row["seconds"] for row in read_history(folder)]
        result = {
            "seed": recipe.training.seeds[0],
            "parameters": model.count_params(),
            "weights_bytes": sharing_report(model).totals["bytes"],
            "seconds_per_epoch": statistics.median(seconds[1:] or seconds),  # the first traces
            "peak_memory_bytes": None,
            "test": {key: value for key, value in test.items() if not isinstance(value, list)},
            "history": {
                key: [value if np.isfinite(value) else None for value in values]
                for key, values in read_facts(folder)["history"].items()
                if key.startswith("val_")
            },
        }
        replace_text(kept, json.dumps(result))
        (folder / CHECKPOINT).unlink(missing_ok=True)
    if weigh and result["peak_memory_bytes"] is None:
        result["peak_memory_bytes"] = peak_memory(recipe, arm.start, data_dir)
        replace_text(kept, json.dumps(result))
    return result
