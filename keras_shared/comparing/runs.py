"""The same recipe several ways, on the same data in the same order: what does a choice bring?"""

import concurrent.futures
import functools
import itertools
import json
import math
import os
import pathlib
import statistics
import sys
from typing import Any

import keras
import numpy as np

from keras_shared.comparing.card import write_comparison_card
from keras_shared.comparing.peak_memory import peak_memory
from keras_shared.comparing.plots import plot_comparison
from keras_shared.comparing.statistics import summarise
from keras_shared.errors import KerasSharedError, attempt, boundary, shortened, whole_reason
from keras_shared.evaluation.entry import COMPARISON, METRICS
from keras_shared.evaluation.measuring import DivergedError, measure
from keras_shared.files.atomic import Lock, locked, replace_text, save_plots
from keras_shared.files.bounded import read_json
from keras_shared.files.paths import as_path
from keras_shared.recipes import Recipe, RecipeError, read_recipe
from keras_shared.recipes.recipe import expect_recipe
from keras_shared.recipes.schema import Arm, Comparison
from keras_shared.sharing import sharing_report
from keras_shared.terminal import progress, say
from keras_shared.training import Run, RunError, build_model, start_model, train, training_data
from keras_shared.training.build import (
    check_data,
    fingerprint,
    load_split,
    test_data,
    with_data_arguments,
)

RESULT = "result.json"
KEYS: dict[str, Any] = {  # of it, with the types of their values
    "seed": int, "parameters": int, "weights_bytes": int, "seconds_per_epoch": (int, float),
    "peak_memory_bytes": (int, type(None)), "test": dict, "history": dict,
}  # fmt: skip
SIZES = {"images_per_class", "images_per_epoch"}  # keys of [data] that sizes set


class CompareError(KerasSharedError, ValueError):
    """Nothing can be compared in this folder; the message says what to do."""


def compare(
    recipe: Recipe,
    comparison: Comparison,
    out_dir: str | os.PathLike[str],
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Train each arm of a comparison with each seed and set it beside the first arm.

    With the same seed, all arms see the same data in the same order (unless they differ in that).
    A run that is complete is kept and not repeated; one that was interrupted goes on from its last
    epoch. An arm that cannot be built is left out, which is printed before training begins; if it
    is the first, or none is left beside the first, its error is raised.

    Args:
        recipe: what all arms have in common.
        comparison: arms, seeds, sizes of the training set.
        out_dir: folder for the runs (`runs/`), comparison.json, README.md (the card) and plots.
        data_dir: folder of prepared TFDS data sets.

    Returns:
        What comparison.json holds.

    Raises:
        RecipeError: if an arm changes what the recipe has not, or sizes are asked of data that
            have none.
        DataError: if the first arm's data set cannot be had, or is too small.
        RunError: if `out_dir` holds runs of another recipe or from another start, or another
            process trains there.
        CompareError: if `out_dir` is a published entry, holds a comparison of other arms, or
            files that are not what `compare` writes.
        ValueError: if the first arm's model cannot be unshared.

    Peak memory is measured in a process of its own: a script that calls this needs the guard
    `if __name__ == "__main__":`.
    """
    expect_recipe(recipe)
    if not isinstance(comparison, Comparison):
        raise TypeError(
            "`comparison` is what keras_shared.recipes.changes.comparison_of gives. Received: "
            f"{shortened(repr(comparison))}"
        )
    out_dir = as_path(out_dir, "out_dir")
    _check_folder(out_dir, comparison)
    sizes = comparison.images_per_class or (0,)
    recipes, left_out = _try_all(
        comparison, _recipes(recipe, comparison, data_dir), max(sizes), data_dir
    )
    advice = "Wait for it, or name another folder with --out."
    with locked(out_dir, RunError, advice) as lock:
        _check_folder(out_dir, comparison)  # another process may have compared there meanwhile
        return _run_all(recipe, comparison, recipes, left_out, out_dir, data_dir, lock)


def _run_all(
    recipe: Recipe,
    comparison: Comparison,
    recipes: dict[tuple[str, int], Recipe],
    left_out: dict[str, str],
    out_dir: pathlib.Path,
    data_dir: str | None,
    lock: Lock,
) -> dict[str, Any]:
    sizes = comparison.images_per_class or (0,)
    arms = [arm for arm in comparison.arms if arm.name not in left_out]
    runs = []
    jobs = list(itertools.product(sizes, comparison.seeds, arms))
    for size, seed, arm in progress(jobs, f"comparing {recipe.name}"):
        run = Run(out_dir / "runs" / arm.slug / f"{size or 'all'}" / f"seed-{seed}")
        one = recipes[arm.name, size].with_seed(seed)
        with_memory = size == max(sizes) and seed == comparison.seeds[0]
        result = _result(one, arm, run, with_memory, data_dir)
        runs.append({"arm": arm.name, "images_per_class": size, **result})
    task = recipe.task
    result = {
        "name": recipe.name,
        "model": recipe.model.class_name,
        "data": recipe.data.name,
        "paper": recipe.paper,
        "headline": task.headline._asdict(),
        "monitor": task.monitored(recipe.data)._asdict(),
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
            for arm in arms
        ],
        "left_out": left_out,
        "changes_left_out": [_changes(a) for a in comparison.arms if a.name in left_out],
        "seeds": list(comparison.seeds),
        "summary": summarise(runs, task.headline.key),
        "runs": runs,
    }
    lock.check()
    replace_text(out_dir / COMPARISON, json.dumps(result, indent=1) + "\n")
    plots = plot_comparison(result)
    save_plots(plots, out_dir)
    for old in out_dir.glob("comparison_*.png"):  # of sizes that are compared no more
        if old.stem not in plots:
            old.unlink()
    written = Run(out_dir).recipe_file
    # whoever compares in the folder of the recipe itself keeps its comments
    if not (written.exists() and read_recipe(written) == recipe):
        recipe.write(written)
    write_comparison_card(result, recipe, out_dir)
    return result


def _check_folder(out_dir: pathlib.Path, comparison: Comparison) -> None:
    if (out_dir / METRICS).exists():
        raise CompareError(f"{out_dir} holds a card that would be lost. Name another folder: --out")
    kept = out_dir / COMPARISON
    if not os.path.lexists(kept):
        return
    advice = "Remove it: it is written again from the runs, which stay. Or name another folder."
    known = read_json(kept, CompareError, advice)
    with boundary(f"{kept} is not what `compare` writes", CompareError, advice):
        first, *others = [arm["changes"] for arm in known["arms"]]
        others += known.get("changes_left_out", [])  # an older file has none
        asked, *more = [_changes(arm) for arm in comparison.arms]
        if first != asked or _in_any_order(others) != _in_any_order(more):
            names = ", ".join([*(arm["name"] for arm in known["arms"]), *known.get("left_out", {})])
            raise CompareError(
                f"{out_dir} compares other arms: {names}. Name another folder: --out"
            )


def _in_any_order(changes: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(one, sort_keys=True) for one in changes)


def _changes(arm: Arm) -> dict[str, Any]:
    """What an arm changes, as JSON holds it."""
    start = {"start": arm.start} if arm.start else {}
    changes: dict[str, Any] = json.loads(json.dumps({**arm.changes, **start}))
    return changes


def _recipes(
    recipe: Recipe, comparison: Comparison, data_dir: str | None
) -> dict[tuple[str, int], Recipe]:
    """The recipe of each arm and size; smaller sets come round until all took as many steps."""
    sizes = comparison.images_per_class
    if not sizes:
        return {(arm.name, 0): recipe.with_changes(arm.changes) for arm in comparison.arms}
    if not set(type(recipe.data).model_fields) >= SIZES:
        raise RecipeError(
            f"{recipe.path}: images_per_class needs data of images with labels. Received: "
            f"images_per_class={list(sizes)} with {recipe.task.name}."
        )
    classes = len(load_split(recipe, "train", data_dir).class_names)
    recipes = {}
    for arm, size in itertools.product(comparison.arms, sizes):
        of_size = {"data.images_per_class": size, "data.images_per_epoch": max(sizes) * classes}
        twice = sorted(set(of_size) & set(arm.changes))
        if twice:
            raise RecipeError(f"{recipe.path}: arm '{arm.name}' changes {twice}, as sizes do.")
        recipes[arm.name, size] = recipe.with_changes({**arm.changes, **of_size})
    return recipes


def _try_all(
    comparison: Comparison,
    recipes: dict[tuple[str, int], Recipe],
    largest: int,
    data_dir: str | None,
) -> tuple[dict[tuple[str, int], Recipe], dict[str, str]]:
    """What cannot be built, loaded or drawn is known before hours of training.

    Returns the recipes with the names of their classes, and why arms are left out.
    """
    first, *others = comparison.arms
    named, models, errors = dict(recipes), dict[str, keras.Model](), dict[str, Exception]()

    def build(arm: Arm) -> None:
        for (name, size), recipe in recipes.items():
            if name == arm.name:
                named[name, size] = with_data_arguments(recipe, data_dir)
        whole = named[arm.name, largest]
        models[arm.name] = start_model(whole, arm.start) if arm.start else build_model(whole)

    def read(arm: Arm) -> None:
        whole = named[arm.name, largest]
        check_data(models[arm.name], whole, training_data(whole, data_dir))

    for step, arm in itertools.product((build, read), comparison.arms):  # reading takes longer
        if arm.name in errors:
            continue
        _, error = attempt(functools.partial(step, arm))
        if error is None:
            continue
        if arm is first:
            raise error
        errors[arm.name] = error
        if len(errors) == len(others):
            raise next(iter(errors.values())) from None
    left_out = {
        arm.name: str(errors[arm.name]).strip() or type(errors[arm.name]).__name__
        for arm in others
        if arm.name in errors
    }
    for name, reason in left_out.items():
        say(f"'{name}' is left out: {reason}", sys.stderr)
    return named, left_out


def _result(
    recipe: Recipe, arm: Arm, run: Run, with_memory: bool, data_dir: str | None
) -> dict[str, Any]:
    """What one run came to, as it was found complete or after training it to its end."""
    keras.backend.clear_session()
    start = start_model(recipe, arm.start) if arm.start else None
    kept = run.path / RESULT
    result: dict[str, Any] | None = None
    if os.path.lexists(kept):
        run.claim(recipe, fingerprint(start))  # is it this recipe's?
        result = _kept_result(kept, recipe)
        if result is not None and with_memory:  # one run of each arm is enough to see it
            run.see_same_data(training_data(recipe, data_dir).sizes)
    if result is None:
        data = training_data(recipe, data_dir)
        if data.validation is None:
            raise RunError(
                f"{recipe.path}: arms are compared over the epochs by examples that validate, and "
                "data.validation_images is 0."
            )
        model = train(recipe, data, run, start=start, verbose=0)
        data_of_test = test_data(recipe, data_dir)
        measured, diverged = attempt(
            lambda: measure(model, recipe, *data_of_test, verbose=0), DivergedError
        )
        test = {recipe.task.headline.key: None} if diverged else measured[0]  # the table says it
        seconds = [row["seconds"] for row in run.history()]
        result = {
            "seed": recipe.training.seeds[0],
            "parameters": model.count_params(),
            "weights_bytes": sharing_report(model).totals["bytes"],
            "seconds_per_epoch": statistics.median(seconds[1:] or seconds),  # the first traces
            "peak_memory_bytes": None,
            "test": {key: value for key, value in test.items() if not isinstance(value, list)},
            "history": {
                key: [value if np.isfinite(value) else None for value in values]
                for key, values in run.facts()["history"].items()
                if key.startswith("val_")
            },
        }
        replace_text(kept, json.dumps(result))
        run.checkpoint.unlink(missing_ok=True)
    if with_memory and result["peak_memory_bytes"] is None:
        result["peak_memory_bytes"], error = attempt(
            lambda: peak_memory(recipe, arm.start, data_dir), concurrent.futures.BrokenExecutor
        )
        if error:  # hours of training are worth more
            say(
                f"{recipe.path}: the memory that '{arm.name}' takes is not known, since the "
                f"process that measures it ended: {whole_reason(error)}. Run the same command "
                "again where more memory is free; what is trained is kept.",
                sys.stderr,
            )
        replace_text(kept, json.dumps(result))
    return result


def _kept_result(file: pathlib.Path, recipe: Recipe) -> dict[str, Any]:
    """What result.json says of a run that is complete."""
    advice = f"Remove the folder {file.parent}: the run is trained again then."
    result = read_json(file, CompareError, advice)
    with boundary(f"{file} is not what `compare` writes", CompareError, advice):
        wrong = [key for key, kind in KEYS.items() if not isinstance(result.get(key), kind)]
        if wrong:
            raise CompareError(f"{file}: wrong or missing are {wrong}. {advice}")
        value = result["test"][recipe.task.headline.key]
        numbers = [*([] if value is None else [value]), result["seconds_per_epoch"]]
        for values in result["history"].values():
            numbers += [value for value in values if value is not None]
        if not all(math.isfinite(number) for number in numbers):
            raise CompareError(f"{file} holds numbers that are not finite. {advice}")
        if result["seed"] != recipe.training.seeds[0]:
            raise CompareError(f"{file} is of seed {result['seed']}. {advice}")
    return result
