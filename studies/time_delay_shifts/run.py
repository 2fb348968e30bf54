"""A sequence that is moved: where do units that are shared over time give moved answers?

`python studies/time_delay_shifts/run.py` writes shifts.json, shifts.png and README.md beside
itself, in about four minutes on one core; stopped, it goes on with what shifts.json lacks. No
recipe expresses this: the images are moved.

Digits of 8 x 8 pixels stand in the middle of 24 columns, of which a `TimeDelayNet` reads one after
another, and are learnt there; test digits stand at every place. Four nets: one as published, one
whose first layer takes every second frame, one with zeros at the borders (`padding="same"`), and a
perceptron that shares nothing, with as many parameters. Reported are the errors by the place, and
how far the scores of a moved digit are from the moved scores, as a share of the spread of scores:
0 is equivariance.

Nothing is chosen: rate and epochs are those of the entry time_delay_digits.
"""

import argparse
import itertools
import json
import pathlib
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_shared.datasets import load_digits
from keras_shared.files.atomic import make_folder, replace_text
from keras_shared.zoo import MLP, TimeDelayNet

HERE = pathlib.Path(__file__).parent
FRAMES, MIDDLE = 24, 8  # columns, and the first of a digit in the middle
SHAPE = (8, FRAMES, 1)
EPOCHS, RATE, BATCH = 60, 0.005, 32
SEEDS = (1, 2, 3)
NETS: dict[str, dict[str, Any]] = {
    "time delays": {},
    "every second frame": {"strides": (2, 1, 1)},
    "zeros at the borders": {"padding": "same"},
}
PERCEPTRON = "perceptron"


def moved(images: np.ndarray, place: int) -> np.ndarray:
    """(n, 8, 8, 1) as (n, 8, 24, 1), from a column on."""
    wide = np.zeros((len(images), *SHAPE), "float32")
    wide[:, :, place : place + images.shape[2]] = images
    return wide


def net(name: str) -> Any:
    if name == PERCEPTRON:  # 192 inputs, 10 classes: 203 numbers for each unit
        return MLP(1, 23, "relu", image_shape=SHAPE)
    return TimeDelayNet((32, 32), (3, 3, 1), image_shape=SHAPE, **NETS[name])


def trained(name: str, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    train = load_digits("train")
    model = net(name)
    rate = keras.optimizers.schedules.CosineDecay(RATE, EPOCHS * -(-len(train.labels) // BATCH))
    model.compile(
        keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )  # fmt: skip
    x = moved(train.images, MIDDLE)
    model.fit(x, train.labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return model


def apart(model: TimeDelayNet, images: np.ndarray, by: int) -> float:
    """How far scores of digits that were moved by some frames are from the scores, moved.

    Moved by half of a stride, they are compared with the nearer of the two steps.
    """
    stride = int(np.prod(model.strides))
    before, after = (model.at_each_step(moved(images, p)) for p in (MIDDLE, MIDDLE + by))
    found = []
    for steps in {by // stride, -(-by // stride)}:
        same = before[:, : before.shape[1] - steps], after[:, steps:]
        found.append(float(np.sqrt(np.mean((same[0] - same[1]) ** 2)) / before.std()))
    return round(min(found), 4)


def measured(name: str, seed: int) -> dict[str, Any]:
    model, test = trained(name, seed), load_digits("test")
    places = range(FRAMES - test.images.shape[2] + 1)
    wrong = [model.predict(moved(test.images, p), verbose=0).argmax(-1) != test.labels
             for p in places]  # fmt: skip
    row = {"net": name, "seed": seed, "parameters": model.count_params(),
           "errors": [round(float(100 * w.mean()), 2) for w in wrong]}  # fmt: skip
    if name != PERCEPTRON:
        row["apart"] = {str(by): apart(model, test.images, by) for by in (1, 2, 8)}
    return row


def errors_of(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """(seeds, places)."""
    return np.array([row["errors"] for row in rows if row["net"] == name])


def plot(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in (*NETS, PERCEPTRON):
        errors = errors_of(rows, name)
        axes.plot(np.arange(errors.shape[1]) - MIDDLE, errors.mean(0), "o-", label=name)
    axes.set(
        xlabel="frames that test digits are moved by", ylabel="test error (%)",
        title="Learnt in the middle of 24 columns, asked elsewhere",
    )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def card(rows: list[dict[str, Any]]) -> str:
    def cell(values: np.ndarray) -> str:
        spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        return f"{values.mean():.2f}{spread}"

    def distances(name: str) -> list[str]:
        own = [row["apart"] for row in rows if row["net"] == name and "apart" in row]
        return [f"{np.mean([one[by] for one in own]):.2f}" if own else "" for by in "128"]

    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "# time_delay_shifts",
        "",
        "<!-- Generated by `python studies/time_delay_shifts/run.py` from shifts.json. -->",
        "",
        "Digits of 8 x 8 pixels, learnt in the middle of 24 columns and asked elsewhere: test "
        f"errors in percent, mean and standard deviation over the seeds {seeds}; and the distance "
        "of a moved digit's scores from the moved scores, as a share of their spread (0 is "
        "equivariance), for 1, 2 and 8 frames.",
        "",
        "| net | parameters | in the middle | moved by 1 | by 4 | by 8, to the border "
        "| apart by 1 | by 2 | by 8 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (*NETS, PERCEPTRON):
        errors = errors_of(rows, name)
        cells = [cell(errors[:, MIDDLE + by]) for by in (0, 1, 4, 8)]
        parameters = next(row["parameters"] for row in rows if row["net"] == name)
        lines.append(
            f"| {name} | {parameters:,} | " + " | ".join([*cells, *distances(name)]) + " |"
        )
    lines += [
        "",
        "Scores move with the digit where every step reads frames by the same rule. A stride of 2 "
        "breaks that for odd numbers of frames. Without padding, the windows that would see the "
        "digit's end are missing at the border; with zeros there they are not, and instead empty "
        "frames near a border get other scores than empty frames elsewhere, which a mean over time "
        "hardly shows. The perceptron has learnt one place alone.",
        "",
        "![Errors by the place](shifts.png)",
        "",
        "Data: scikit-learn's handwritten digits (Alpaydin & Kaynak 1998, CC BY 4.0).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Where a time-delay net is equivariant.")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to")
    out = parser.parse_args().out
    make_folder(out)
    file = out / "shifts.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    done = {(row["net"], row["seed"]) for row in rows}
    for name, seed in itertools.product((*NETS, PERCEPTRON), SEEDS):
        if (name, seed) not in done:
            rows.append(measured(name, seed))
            replace_text(file, json.dumps(rows, indent=1) + "\n")
            print(rows[-1], flush=True)
    plot(rows).savefig(out / "shifts.png", dpi=120)
    replace_text(out / "README.md", card(rows))


if __name__ == "__main__":
    main()
