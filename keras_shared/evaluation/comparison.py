"""The same recipe several ways, on the same data in the same order: what does a choice bring?"""

import itertools
import json
import multiprocessing
import os
import pathlib
import resource
import statistics
import sys
from typing import Any, NamedTuple

import keras
import scipy.stats
from rich.progress import track

from keras_shared.comparison_card import write_comparison_card
from keras_shared.data import labelled_images, test_batches, training_data
from keras_shared.evaluation.comparison_plots import plot_comparison
from keras_shared.evaluation.evaluate import COMPARISON, measure
from keras_shared.figures import FIGURES
from keras_shared.recipe import Arm, Comparison, ImageData, Recipe, RecipeError, read_recipe
from keras_shared.training import (
    CHECKPOINT,
    build_model,
    claim,
    compile_model,
    read_facts,
    start_model,
    train,
)

RESULT = "result.json"
STEPS_FOR_MEMORY = 10


class Interval(NamedTuple):
    """A mean with half the width of its 95 % confidence interval (None for a single value)."""

    mean: float
    half: float | None


def compare(
    recipe: Recipe,
    comparison: Comparison,
    out_dir: str | os.PathLike[str],
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Train each arm of a comparison with each seed and set it beside the first arm.

    With the same seed, all arms see the same data in the same order, for as many steps. A run that
    is complete is kept and not repeated; one that was interrupted goes on from its last epoch.

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
        ValueError: if an arm's model cannot be unshared.
    """
    out_dir = pathlib.Path(out_dir)
    sizes = comparison.images_per_class
    if sizes and not isinstance(recipe.data, ImageData):
        raise RecipeError(
            f"{recipe.path}: images_per_class needs data of images with labels. Received: "
            f"images_per_class={list(sizes)} with pairs or samples."
        )
    recipes = {
        (arm.name, size): read_recipe(
            recipe.path, {**arm.changes, **_of_size(recipe, size, sizes, data_dir)}
        )
        for arm in comparison.arms
        for size in sizes or (0,)
    }
    for arm_recipe in recipes.values():  # what cannot be built is known before hours of training
        build_model(arm_recipe)
    jobs = list(itertools.product(sizes or (0,), comparison.seeds, comparison.arms))
    runs = []
    for size, seed, arm in track(jobs, f"comparing {recipe.name}"):
        folder = out_dir / "runs" / _slug(arm.name) / f"{size or 'all'}" / f"seed-{seed}"
        one = recipes[arm.name, size].with_seed(seed)
        runs.append({"arm": arm.name, "images_per_class": size, **_run(one, arm, folder, data_dir)})
    largest = max(sizes or (0,))
    result = {
        "name": recipe.name,
        "model": recipe.model.class_name,
        "data": recipe.data.name,
        "paper": recipe.paper,
        "arms": [
            {
                "name": arm.name,
                "changes": {**arm.changes, **({"start": arm.start} if arm.start else {})},
                "paper": arm.paper,
                "peak_memory_bytes": _peak_memory(
                    recipes[arm.name, largest], arm, out_dir / "runs" / _slug(arm.name), data_dir
                ),
            }
            for arm in comparison.arms
        ],
        "epochs": recipe.training.epochs,
        "seeds": list(comparison.seeds),
        "summary": summarise(runs, FIGURES[recipe.model.class_name].key),
        "runs": runs,
    }
    scratch = out_dir / f".new-{COMPARISON}"
    scratch.write_text(json.dumps(result, indent=1) + "\n")
    scratch.replace(out_dir / COMPARISON)
    for name, figure in plot_comparison(result).items():
        figure.savefig(out_dir / f"{name}.png", dpi=120, metadata={"Software": None})
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
                paired = interval([run["test"][key] - first[run["seed"]] for run in own])
                row["difference"] = paired._asdict()
                row["within_noise"] = paired.half is None or abs(paired.mean) <= paired.half
            rows.append(row)
    return rows


def interval(values: list[float]) -> Interval:
    """Mean and 95 % confidence interval by Student's t, of values from independent seeds.

    Example:
        >>> from keras_shared.evaluation.comparison import interval
        >>> interval([1.0, 2.0, 3.0])
        Interval(mean=2.0, half=2.4841)
    """
    mean, n = statistics.mean(values), len(values)
    if n < 2:
        return Interval(round(float(mean), 4), None)
    t = float(scipy.stats.t.ppf(0.975, n - 1))
    return Interval(round(float(mean), 4), round(t * statistics.stdev(values) / n**0.5, 4))


def _of_size(
    recipe: Recipe, size: int, sizes: tuple[int, ...], data_dir: str | None
) -> dict[str, int]:
    """Changes for a training set of `size` images a class: as many steps as the largest takes."""
    if not size:
        return {}
    classes = len(labelled_images(recipe, "train", data_dir).class_names)
    per_epoch = max(sizes) * classes
    return {"data.images_per_class": size, "data.images_per_epoch": per_epoch}


def _run(recipe: Recipe, arm: Arm, folder: pathlib.Path, data_dir: str | None) -> dict[str, Any]:
    kept = folder / RESULT
    keras.backend.clear_session()
    keras.utils.set_random_seed(recipe.training.seeds[0])
    start = start_model(recipe, arm.start) if arm.start else None
    claim(folder, recipe, start)
    if kept.exists():
        return json.loads(kept.read_text())
    data = training_data(recipe, data_dir)
    model = train(recipe, data, folder, start=start, verbose=0)
    split = labelled_images(recipe, "test", data_dir)
    test, _ = measure(model, recipe, test_batches(recipe, split), verbose=0)
    facts = read_facts(folder)
    weights = folder / "only.weights.h5"
    model.save_weights(weights)
    result = {
        "seed": recipe.training.seeds[0],
        "parameters": model.count_params(),
        "weights_bytes": weights.stat().st_size,
        "seconds_per_epoch": round(facts["seconds"] / facts["epochs"], 3),
        "test": {key: value for key, value in test.items() if not isinstance(value, list)},
        "last_epoch": facts["last_epoch"],
        "history": {k: v for k, v in facts["history"].items() if k.startswith("val_")},
    }
    weights.unlink()
    (folder / CHECKPOINT).unlink()
    scratch = folder / f".new-{RESULT}"
    scratch.write_text(json.dumps(result))
    scratch.replace(kept)
    return result


def _peak_memory(recipe: Recipe, arm: Arm, folder: pathlib.Path, data_dir: str | None) -> int:
    """Bytes that building and training the model adds, in a process of its own."""
    kept = folder / "peak_memory.txt"
    if not kept.exists():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            kept.write_text(str(pool.apply(_memory_of_steps, (recipe, arm, data_dir))))
    return int(kept.read_text())


def _memory_of_steps(recipe: Recipe, arm: Arm, data_dir: str | None) -> int:
    data = training_data(recipe, data_dir)
    batches = data.batches(0, 1)
    next(iter(batches))
    before = _peak(reset=True)
    model = start_model(recipe, arm.start) if arm.start else build_model(recipe)
    compile_model(model, recipe, data.steps_per_epoch)
    steps = min(STEPS_FOR_MEMORY, data.steps_per_epoch)
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return _peak() - before


def _peak(reset: bool = False) -> int:
    """The most memory that this process had at a time, in bytes; on Linux since the reset."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    if reset:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    [line] = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
