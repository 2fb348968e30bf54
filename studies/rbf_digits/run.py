"""Whose are the centres of an RBF net, and whose the widths? On 8x8 digits.

`python studies/rbf_digits/run.py` writes rbf.json, rbf.png and README.md beside itself, in about
ten minutes on one core; stopped, it goes on with what rbf.json lacks. No recipe expresses this: the
centres begin at the means that k-means finds in the training images.

A net of `GaussianRBF` units, of which each class reads either all (the centres are shared by the
classes) or a tenth (each class has its own, found in its own images); one width for all units or
one for each; centres that stay, or are trained. Nearest is what the same centres answer by distance
alone, without any training. Rate, epochs and a first width of half the distance to the nearest
other centre were tried with seed 0 on images of the training split (`--choose`), and kept.
"""

import argparse
import itertools
import json
import pathlib
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.cluster import KMeans

from keras_shared.datasets import LabelledImages, load_digits
from keras_shared.files.atomic import make_folder, replace_text
from keras_shared.layers import GaussianRBF

HERE = pathlib.Path(__file__).parent
CLASSES = 10
UNITS = (20, 50, 100)  # of the whole net
EPOCHS, RATE, BATCH = 60, 0.01, 32
SEEDS = (1, 2, 3)
ARMS = {
    "centres of all classes, one width": ("shared", "shared", True),
    "centres of all classes, own widths": ("shared", "own", True),
    "centres of all classes, that stay": ("shared", "own", False),
    "centres of each class, one width": ("own", "shared", True),
    "centres of each class, own widths": ("own", "own", True),
    "centres of each class, that stay": ("own", "own", False),
}


def vectors(images: LabelledImages) -> np.ndarray:
    flat: np.ndarray = images.images.reshape(len(images.labels), -1).astype("float32") / 255
    return flat


def centres_of(train: LabelledImages, whose: str, units: int, seed: int) -> np.ndarray:
    """(units, 64): of all images, or of each class in turn."""
    x = vectors(train)
    parts = [x] if whose == "shared" else [x[train.labels == c] for c in range(CLASSES)]
    each = units // len(parts)
    found = [KMeans(each, n_init=1, random_state=seed).fit(p).cluster_centers_ for p in parts]
    centres: np.ndarray = np.concatenate(found)
    return centres


def net(whose: str, width: str, moves: bool, centres: np.ndarray) -> keras.Model:
    far = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + np.diag(
        [np.inf] * len(centres)
    )
    first = float(far.min(axis=1).mean() / 2)
    inputs = keras.Input((centres.shape[1],))
    rbf = GaussianRBF(len(centres), width, first, moves)
    units = rbf(inputs)  # (batch, units)
    rbf.centers.assign(centres)
    if whose == "shared":
        scores = keras.layers.Dense(CLASSES)(units)
    else:  # each class reads its own
        own = keras.layers.Reshape((CLASSES, -1))(units)
        scores = keras.layers.EinsumDense("bcu,cu->bc", (CLASSES,), bias_axes="c")(own)
    return keras.Model(inputs, scores)


def nearest(train: LabelledImages, test: LabelledImages, units: int, seed: int) -> float:
    """Percent of errors by the nearest centre of any class."""
    centres = centres_of(train, "own", units, seed)
    far = np.linalg.norm(vectors(test)[:, None] - centres[None], axis=-1)
    answers = far.argmin(axis=1) // (units // CLASSES)
    return round(float(100 * np.mean(answers != test.labels)), 2)


def measured(
    arm: str, units: int, seed: int, train: LabelledImages, test: LabelledImages
) -> dict[str, Any]:
    whose, width, moves = ARMS[arm]
    keras.utils.set_random_seed(seed)
    model = net(whose, width, moves, centres_of(train, whose, units, seed))
    steps = EPOCHS * -(-len(train.labels) // BATCH)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False,
    )  # fmt: skip
    model.fit(vectors(train), train.labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    answers = model.predict(vectors(test), verbose=0).argmax(-1)
    return {"arm": arm, "units": units, "seed": seed, "parameters": model.count_params(),
            "error_percent": round(float(100 * np.mean(answers != test.labels)), 2),
            "nearest_percent": nearest(train, test, units, seed)}  # fmt: skip


def of(rows: list[dict[str, Any]], arm: str, units: int, key: str) -> np.ndarray:
    return np.array([r[key] for r in rows if r["arm"] == arm and r["units"] == units], float)


def plot(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, arm in enumerate(ARMS):
        errors = [of(rows, arm, units, "error_percent") for units in UNITS]
        spread = [e.std(ddof=1) if len(e) > 1 else 0 for e in errors]
        places = np.array(UNITS) * 1.02 ** (i - 2.5)  # bars beside one another
        axes.errorbar(places, [e.mean() for e in errors], yerr=spread, fmt="o-", capsize=3,
                      label=arm)  # fmt: skip
    alone = [of(rows, next(iter(ARMS)), units, "nearest_percent").mean() for units in UNITS]
    axes.plot(UNITS, alone, "k--", label="the nearest centre of each class, untrained")
    axes.set(xscale="log", ylim=(0, None), xlabel="units", ylabel="test error (%)",
             title="RBF nets on 8x8 digits: mean and standard deviation over seeds")  # fmt: skip
    axes.set_xticks(UNITS, [str(units) for units in UNITS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def card(rows: list[dict[str, Any]]) -> str:
    def cell(values: np.ndarray) -> str:
        spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        return f"{values.mean():.2f}{spread}"

    seeds = sorted({row["seed"] for row in rows})
    some = next(iter(ARMS))
    lines = [
        "# rbf_digits",
        "",
        "<!-- Generated by `python studies/rbf_digits/run.py` from rbf.json. -->",
        "",
        "RBF nets on the 8x8 digits that come with scikit-learn, by their number of units: errors "
        "in percent on the 597 test images, mean and standard deviation over the seeds "
        f"{seeds}, and the parameters of the largest.",
        "",
        "| net | " + " | ".join(f"{units} units" for units in UNITS) + " | parameters |",
        "|---" * (len(UNITS) + 2) + "|",
        *(
            f"| {arm} | "
            + " | ".join(cell(of(rows, arm, units, "error_percent")) for units in UNITS)
            + f" | {of(rows, arm, UNITS[-1], 'parameters').mean():,.0f} |"
            for arm in ARMS
        ),
        "| the nearest centre of each class, untrained | "
        + " | ".join(cell(of(rows, some, units, "nearest_percent")) for units in UNITS)
        + " | |",
        "",
        "![Errors by the number of units](rbf.png)",
        "",
        "Broomhead & Lowe 1988; Moody & Darken 1989 (centres by k-means). Data: scikit-learn's "
        "handwritten digits (Alpaydin & Kaynak 1998, CC BY 4.0).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Whose are the centres of an RBF net?")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to")
    parser.add_argument("--choose", action="store_true", help="seed 0, of the training split alone")
    options = parser.parse_args()
    train = load_digits("train")
    if options.choose:
        parts = train.part(np.arange(1000)), train.part(np.arange(1000, 1200))
        for arm in ARMS:
            print(measured(arm, UNITS[-1], 0, *parts), flush=True)
        return
    make_folder(options.out)
    file = options.out / "rbf.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    done = {(row["arm"], row["units"], row["seed"]) for row in rows}
    for key in itertools.product(ARMS, UNITS, SEEDS):
        if key not in done:
            rows.append(measured(*key, train, load_digits("test")))
            replace_text(file, json.dumps(rows, indent=1) + "\n")
            print(rows[-1], flush=True)
    plot(rows).savefig(options.out / "rbf.png", dpi=120)
    replace_text(options.out / "README.md", card(rows))


if __name__ == "__main__":
    main()
