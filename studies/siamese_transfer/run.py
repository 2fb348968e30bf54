"""What siamese_omniglot is worth on other images: digits of MNIST, by few examples of each.

`python studies/siamese_transfer/run.py` writes transfer.json, transfer.png and README.md beside
itself, in about ten minutes on two cores; stopped, it goes on with what transfer.json lacks. No
recipe expresses this: the known images are those that were trained on.

- One-shot, without training: a trial takes one image of each digit and a query of each, all of the
  test split, at random; each query is put to the nearest. As Koch, Zemel, Salakhutdinov 2015,
  section 4.4, who report 70.3 %, and 26.5 % for the nearest neighbour by pixels.
- By k examples of each digit, drawn from the training split by the seed: a test image is put to the
  nearest mean of embeddings. The net as published, fine-tuned on these examples, and trained on
  them from nothing, as long; and the means of the centred pixels themselves.

Rates were chosen with seed 0 and images of the training split; seeds 1 to 3 are reported.
"""

import argparse
import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_shared.batching.classes import Classes
from keras_shared.batching.one_shot import OneShotTasks
from keras_shared.datasets import LabelledImages, load_mnist
from keras_shared.files.atomic import replace_text
from keras_shared.losses import NPairLoss
from keras_shared.tasks.one_shot import one_shot_answers
from keras_shared.zoo import SiameseNet

HERE = pathlib.Path(__file__).parent
PRESET = "siamese_omniglot"
EXAMPLES = (1, 5, 20, 100)  # of each digit
SEEDS = (1, 2, 3)
TRIALS = 1000
STEPS, EXAMPLES_PER_CLASS = 120, 4  # 40 images a step
TEST_IMAGES = 3000  # of the test split, for the second measure
RATES = {"fine-tuned": 0.0005, "from nothing": 0.001}
DISTORTION = (10.0, 0.2, 0.15, 1.5)  # as published; digits are not turned into others
PAPER = {"one_shot_percent": 70.3, "pixels_one_shot_percent": 26.5}


def on_paper(split: str) -> LabelledImages:
    """MNIST as ink on paper, which the net reads: MNIST's own pixels are light on dark."""
    digits = load_mnist(split)
    return digits._replace(images=255 - digits.images)


def fresh(published: SiameseNet, seed: int) -> SiameseNet:
    """The same net with weights of its own start."""
    keras.utils.set_random_seed(seed)
    config = published.get_config()
    return SiameseNet.from_config({**config, "tower": SiameseNet().get_config()["tower"]})


def copied(model: SiameseNet) -> SiameseNet:
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def trained(model: SiameseNet, known: LabelledImages, arm: str, seed: int) -> keras.Model:
    """The part of a net behind the centring, trained on a few centred images."""
    _, trunk = model.halves()
    digits = tuple(known.group_names)
    classes = Classes(known, digits, EXAMPLES_PER_CLASS, distortion=DISTORTION)
    batches = classes.batches(0, STEPS, 10 * EXAMPLES_PER_CLASS, seed)
    rate = keras.optimizers.schedules.CosineDecay(RATES[arm], STEPS)
    trunk.compile(keras.optimizers.Adam(rate), NPairLoss(), jit_compile=False)
    trunk.fit(batches, shuffle=False, verbose=0)
    return trunk


def percent_right(
    known: np.ndarray, labels: np.ndarray, asked: np.ndarray, truth: np.ndarray
) -> float:
    """Of images that are put to the nearest mean of a class, by embeddings or pixels."""
    means = np.stack([known[labels == c].mean(0) for c in range(10)])
    far = np.sum(means**2, 1) - 2 * asked @ means.T  # squared distance, less what all have
    return round(100 * float(np.mean(far.argmin(1) == truth)), 2)


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


def one_shot(values: np.ndarray, tasks: OneShotTasks) -> dict[str, float]:
    """Percent right over the trials, and its standard error."""
    right = [np.mean(a == np.arange(10)) for a in one_shot_answers(values, tasks.tasks)]
    error = float(np.std(right, ddof=1)) / len(right) ** 0.5
    return {"mean": round(100 * float(np.mean(right)), 2), "error": round(100 * error, 2)}


def measure(
    seeds: tuple[int, ...],
    train: LabelledImages,
    test: LabelledImages,
    keep: Callable[[dict[str, Any]], None],
    result: dict[str, Any],
) -> None:
    """Fill `result` with what it lacks: examples are drawn from `train`, asked is for `test`."""
    published = SiameseNet.from_preset(PRESET, image_shape=(28, 28, 1))
    before, trunk = published.halves()
    if "one_shot" not in result:
        centred = before.predict(test.images, verbose=0, batch_size=500)
        tasks = OneShotTasks.drawn(test, None, 10, TRIALS, seed=1)
        embedded = trunk.predict(centred, verbose=0, batch_size=500)
        result["one_shot"] = {
            "trials": TRIALS,
            "published": one_shot(embedded, tasks),
            "centred pixels": one_shot(unit(flat(centred)), tasks),
            "pixels": one_shot(unit(flat(255.0 - test.images)), tasks),
        }
        keep(result)
    some = test.part(np.random.default_rng(1).permutation(len(test.labels))[:TEST_IMAGES])
    asked = before.predict(some.images, verbose=0, batch_size=500)
    done = {(row["seed"], row["examples"]) for row in result["runs"]}
    for seed, k in itertools.product(seeds, EXAMPLES):  # those of fewer are among those of more
        if (seed, k) in done:
            continue
        order = np.random.default_rng(seed).permutation(len(train.labels))
        of_class = [order[train.labels[order] == c][:k] for c in range(10)]
        part = train.part(np.concatenate(of_class))
        known = part._replace(images=before.predict(part.images, verbose=0))
        nets = {
            "published": trunk,
            "fine-tuned": trained(copied(published), known, "fine-tuned", seed),
            "from nothing": trained(fresh(published, seed), known, "from nothing", seed),
        }
        row: dict[str, Any] = {"seed": seed, "examples": k}
        for arm, net in nets.items():
            sides = [net.predict(x, verbose=0, batch_size=500) for x in (known.images, asked)]
            row[arm] = percent_right(sides[0], part.labels, sides[1], some.labels)
        pixels = flat(known.images), part.labels, flat(asked), some.labels
        row["centred pixels"] = percent_right(*pixels)
        result["runs"].append(row)
        keep(result)
        print(row, flush=True)


ARMS = ("fine-tuned", "published", "from nothing", "centred pixels")
NAMES = {
    "fine-tuned": "siamese_omniglot, fine-tuned on the examples",
    "published": "siamese_omniglot, as published",
    "from nothing": "the same net, trained on the examples alone",
    "centred pixels": "centred pixels",
}


def of(result: dict[str, Any], arm: str, k: int) -> np.ndarray:
    return np.array([row[arm] for row in result["runs"] if row["examples"] == k])


def sizes(result: dict[str, Any]) -> list[int]:
    return sorted({row["examples"] for row in result["runs"]})


def plot(result: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for i, arm in enumerate(ARMS):
        means = [of(result, arm, k).mean() for k in sizes(result)]
        spread = [of(result, arm, k).std(ddof=1) for k in sizes(result)]
        places = np.array(sizes(result)) * 1.04 ** (i - 1.5)  # bars beside one another
        axes.errorbar(places, means, yerr=spread, fmt="o-", capsize=4, label=NAMES[arm])
    axes.set(
        xscale="log", xlabel="examples of each digit", ylabel="test images right (%)",
        title="MNIST by few examples: mean and standard deviation of "
        f"{len({row['seed'] for row in result['runs']})} seeds",
    )  # fmt: skip
    axes.set_xticks(sizes(result), [str(k) for k in sizes(result)])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def card(result: dict[str, Any]) -> str:
    shot = result["one_shot"]

    def cell(arm: str, k: int) -> str:
        values = of(result, arm, k)
        return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"

    def trial(name: str) -> str:
        return f"{shot[name]['mean']:.1f} ± {shot[name]['error']:.1f}"

    paper, nearest = PAPER["one_shot_percent"], PAPER["pixels_one_shot_percent"]
    lines = [
        "# siamese_transfer",
        "",
        "<!-- Generated by `python studies/siamese_transfer/run.py` from transfer.json. -->",
        "",
        f"What `{PRESET}`, trained on alphabets alone, is worth on the digits of MNIST.",
        "",
        f"10-way one-shot on the test split without training on digits, {shot['trials']:,} trials "
        "of ten queries, mean and standard error:",
        "",
        "| | right % | Koch 2015, % |",
        "|---|---|---|",
        f"| {PRESET} | {trial('published')} | {paper} |",
        f"| nearest by centred pixels | {trial('centred pixels')} | |",
        f"| nearest by pixels | {trial('pixels')} | {nearest} |",
        "",
        "By few examples of each digit: percent of the "
        f"{TEST_IMAGES:,} test images that are put right, to the nearest mean; mean and "
        "standard deviation over seeds, each of which draws its own examples.",
        "",
        "| | " + " | ".join(f"{k}" for k in sizes(result)) + " |",
        "|---" * (1 + len(sizes(result))) + "|",
        *(
            f"| {NAMES[arm]} | " + " | ".join(cell(arm, k) for k in sizes(result)) + " |"
            for arm in ARMS
        ),
        "",
        f"Both trainings take {result['steps']} steps of {10 * EXAMPLES_PER_CLASS} distorted "
        "images by the N-pair loss.",
        "",
        "![Accuracy against examples of each digit](transfer.png)",
        "",
        "Data: MNIST (LeCun & Cortes, CC BY-SA 3.0), Omniglot (Lake 2015, MIT).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What siamese_omniglot is worth on digits.")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to")
    parser.add_argument("--choose", action="store_true", help="seed 0, of the training split alone")
    options = parser.parse_args()
    train = on_paper("train")
    file = options.out / "transfer.json"
    result: dict[str, Any] = {"preset": PRESET, "paper": PAPER, "steps": STEPS, "runs": []}
    if options.choose:
        numbers = np.arange(len(train.labels))
        parts = train.part(numbers[:-5000]), train.part(numbers[-5000:])
        measure((0,), *parts, lambda result: None, result)
        return
    if file.exists():
        result = json.loads(file.read_text())
    options.out.mkdir(parents=True, exist_ok=True)
    measure(
        SEEDS, train, on_paper("test"),
        lambda result: replace_text(file, json.dumps(result, indent=1) + "\n"), result,
    )  # fmt: skip
    plot(result).savefig(options.out / "transfer.png", dpi=120)
    replace_text(options.out / "README.md", card(result))


if __name__ == "__main__":
    main()
