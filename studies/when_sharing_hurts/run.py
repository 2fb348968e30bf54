"""When does sharing hurt? One trunk for two tasks, like or unlike, with much data or little.

`python studies/when_sharing_hurts/run.py` writes sharing.json, sharing.png and README.md beside
itself, in about half an hour on one core; stopped, it goes on with what sharing.json lacks, and
within a run from its last epoch (in `runs/when_sharing_hurts`). No recipe expresses this: each task
is read by itself, and both data sets stand in one table.

Two tasks that are alike: two digits in one image, one task each (MultiMNIST). Two that are not: a
digit and an article of clothing in one image. For each, three nets: one trunk with two heads; two
single nets of the same size, which together have nearly twice the parameters; two single nets of
0.7 of the width, which together have as many parameters as the one. All are `MultiTaskNet`; single
nets are trained beside each other, by losses that have no weight in common.

Nothing is chosen: rate, epochs and sizes were fixed before the first run.
"""

import argparse
import itertools
import json
import pathlib
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_shared.evaluation.measuring import measure
from keras_shared.files.atomic import replace_text
from keras_shared.recipes import Recipe, recipe_from
from keras_shared.training import train, training_data
from keras_shared.training.build import test_data

HERE = pathlib.Path(__file__).parent
RUNS = pathlib.Path("runs") / "when_sharing_hurts"
DATA = {"multi_mnist": ("left", "right"), "mnist_and_fashion": ("digit", "clothing")}
SIZES = {2000: 10, 55_000: 6}  # training images -> epochs of `EPOCH` images, or of all if fewer
EPOCH = 20_000  # images of an epoch, of which a small set comes round several times
NETS: dict[str, dict[str, Any]] = {
    "one trunk": {"shared": True, "width": 10},
    "two nets, same size": {"shared": False, "width": 10},
    "two nets, half the size": {"shared": False, "width": 7},
}
SEEDS = (1, 2, 3)


def recipe(data: str, size: int, net: str, seed: int) -> Recipe:
    """Small samples are drawn anew for each seed, the same for all nets."""
    return recipe_from({
        "name": "when_sharing_hurts",
        "model": {"class_name": "MultiTaskNet", **NETS[net]},
        "data": {
            "name": data, "validation_images": 5000, "training_images": size,
            "images_per_epoch": max(size, EPOCH),
        },
        "training": {"epochs": SIZES[size], "batch_size": 128, "seeds": [seed]},
    })  # fmt: skip


def measured(data: str, size: int, net: str, seed: int, folder: pathlib.Path) -> dict[str, Any]:
    """One row: the error of each task on the test data, in percent."""
    keras.backend.clear_session()
    one = recipe(data, size, net, seed)
    name = f"{data}-{size}-{net.replace(',', '').replace(' ', '_')}-{seed}"
    model = train(one, training_data(one), folder / name, verbose=0)
    found, _ = measure(model, one, *test_data(one), verbose=0)
    errors = {task: found[f"{task}_error_percent"] for task in DATA[data]}
    return {"data": data, "images": size, "net": net, "seed": seed,
            "parameters": model.count_params(), "errors": errors}  # fmt: skip


def of(rows: list[dict[str, Any]], data: str, size: int, net: str, task: str) -> np.ndarray:
    """Errors over the seeds."""
    key = {"data": data, "images": size, "net": net}
    chosen = [row for row in rows if all(row[k] == v for k, v in key.items())]
    return np.array([row["errors"][task] for row in sorted(chosen, key=lambda row: row["seed"])])


def cases() -> list[tuple[str, int, str]]:
    return [(data, size, task) for data in DATA for size in SIZES for task in DATA[data]]


def plot(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, net in enumerate(NETS):
        values = [of(rows, data, size, net, task) for data, size, task in cases()]
        places = np.arange(len(values)) + 0.22 * (i - 1)
        spread = [v.std(ddof=1) if len(v) > 1 else 0 for v in values]
        axes.errorbar(places, [v.mean() for v in values], yerr=spread, fmt="o", capsize=4,
                      label=net)  # fmt: skip
    axes.set_xticks(
        range(len(cases())),
        ["\n".join([task, *data.rsplit("_", 1), f"{size:,}"]) for data, size, task in cases()],
        fontsize=8,
    )  # fmt: skip
    axes.set(yscale="log", ylabel="test error (%)", title="Mean and standard deviation over seeds")
    axes.set_yticks([2, 3, 5, 10, 20], [f"{percent}" for percent in (2, 3, 5, 10, 20)])
    axes.minorticks_off()
    axes.grid(alpha=0.3, axis="y")
    axes.legend()
    return figure


def card(rows: list[dict[str, Any]]) -> str:
    parameters = {row["net"]: row["parameters"] for row in rows}

    def cell(values: np.ndarray) -> str:
        spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        return f"{values.mean():.2f}{spread}"

    def gain(data: str, size: int, net: str, task: str) -> str:
        shared = of(rows, data, size, "one trunk", task)
        return cell(of(rows, data, size, net, task) - shared)

    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "# when_sharing_hurts",
        "",
        "<!-- Generated by `python studies/when_sharing_hurts/run.py` from sharing.json. -->",
        "",
        "One trunk for two tasks, against a net for each: test errors in percent, mean and "
        f"standard deviation over the seeds {seeds}. What two single nets lose to one trunk "
        "stands behind, by the seeds in pairs: below zero, sharing hurts.",
        "",
        "| task | data | training images | one trunk | two, same size | two, half the size "
        "| same size less one trunk | half the size less one trunk |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for data, size, task in cases():
        errors = [cell(of(rows, data, size, net, task)) for net in NETS]
        gains = [gain(data, size, net, task) for net in list(NETS)[1:]]
        lines.append(f"| {task} | {data} | {size:,} | " + " | ".join([*errors, *gains]) + " |")
    lines += [
        "",
        "Parameters: " + ", ".join(f"{net} {count:,}" for net, count in parameters.items()) + ". "
        "The same steps and the same images in the same order for all three nets.",
        "",
        "![Errors of all nets](sharing.png)",
        "",
        "Data: MNIST (LeCun & Cortes, CC BY-SA 3.0), Fashion-MNIST (Zalando SE, MIT).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="When does a shared trunk hurt?")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to")
    parser.add_argument("--runs", type=pathlib.Path, default=RUNS, help="folder of the trainings")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "sharing.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    done = {(row["data"], row["images"], row["net"], row["seed"]) for row in rows}
    for key in itertools.product(DATA, SIZES, NETS, SEEDS):
        if key not in done:
            rows.append(measured(*key, options.runs))
            replace_text(file, json.dumps(rows, indent=1) + "\n")
            print(rows[-1], flush=True)
    plot(rows).savefig(options.out / "sharing.png", dpi=120)
    replace_text(options.out / "README.md", card(rows))


if __name__ == "__main__":
    main()
