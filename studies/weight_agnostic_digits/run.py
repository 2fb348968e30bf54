"""What a net knows by its graph alone: a weight-agnostic net for 8x8 digits.

`python studies/weight_agnostic_digits/run.py` writes digits.json, digits.png and README.md beside
itself, in about three quarters of an hour on one core; stopped, it goes on from the generation that
was kept last (`runs/weight_agnostic_digits/state.json`). No recipe expresses this: what is trained
is the graph.

Gaier & Ha 2019, section 5, on the digits that come with scikit-learn: a search over graphs whose
connections share one weight, scored with the weights -2, -1, -0.5, 0.5, 1 and 2. 600 of the 1,200
training images score the nets, the others choose one of the last generation and the best value of
its weight. Reported on the 597 test images, of other writers: a random value (1,000 drawn from -2
to 2), the best one, the vote of ten values from -2 to 2, and a weight for each connection, trained
on the 1,200 images by Adam. Their net reads MNIST, 16 x 16 pixels, after 4,096 generations of 960
nets.
"""

import argparse
import json
import pathlib
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_shared import sharing_report, unshare
from keras_shared.datasets import load_digits
from keras_shared.files.atomic import make_folder, replace_text
from keras_shared.zoo import WeightAgnosticNet, search_topology
from keras_shared.zoo.topology_search import Topology, answers, log_likelihoods

HERE = pathlib.Path(__file__).parent
STATE = pathlib.Path("runs") / "weight_agnostic_digits" / "state.json"
GENERATIONS, POPULATION, SEED = 4000, 64, 1
SCORED = 600  # of the training images
DRAWS = 1000  # random values of the weight
VOTES = tuple(np.linspace(-2, 2, 10).tolist())
VALUES = tuple(np.linspace(-4, 4, 81).tolist())  # of the plot, and of the choice of the best one
EPOCHS, RATE, BATCH = 150, 0.01, 32  # of the training apart
PAPER = {"random": 82.0, "best": 91.9, "ensemble": 91.6, "trained": 94.2}
NAMES = {
    "random": "a random weight",
    "best": "the best weight",
    "ensemble": "the vote of ten weights",
    "trained": "each connection trained apart",
}


def vectors(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    digits = load_digits(split)
    return digits.images, digits.images.reshape(len(digits.labels), -1) / 255, digits.labels


def percent_right(net: Topology, x: np.ndarray, labels: np.ndarray, weights: Any) -> np.ndarray:
    """For each of the weights; a few at a time, since each makes an answer of its own."""
    parts = [answers(net, x, 10, weights[i : i + 20]).argmax(-1) == labels
             for i in range(0, len(weights), 20)]  # fmt: skip
    right: np.ndarray = 100 * np.concatenate(parts).mean(axis=1)
    return right


def voted(net: Topology, x: np.ndarray, labels: np.ndarray) -> float:
    votes = answers(net, x, 10, VOTES).argmax(-1)  # (weights, examples)
    counts = (votes[..., None] == np.arange(10)).sum(axis=0)
    return float(100 * np.mean(counts.argmax(-1) == labels))


def trained(net: Topology, weight: float) -> float:
    """Percent right on the test images after a training of all connections by themselves."""
    images, _, labels = vectors("train")
    keras.utils.set_random_seed(SEED)
    apart = unshare(WeightAgnosticNet(net.connections, net.activations, weight))
    rate = keras.optimizers.schedules.CosineDecay(RATE, EPOCHS * -(-len(labels) // BATCH))
    apart.compile(
        keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )  # fmt: skip
    apart.fit(images.astype("float32"), labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    images, _, labels = vectors("test")
    return float(100 * np.mean(apart.predict(images, verbose=0).argmax(-1) == labels))


def measure(state: pathlib.Path) -> dict[str, Any]:
    _, x, labels = vectors("train")
    make_folder(state.parent)
    nets, _ = search_topology(x[:SCORED], labels[:SCORED], GENERATIONS, POPULATION, SEED, state)
    others = x[SCORED:], labels[SCORED:]
    scores = [log_likelihoods(answers(net, others[0], 10), others[1]).mean() for net in nets]
    net = nets[int(np.argmax(scores))]
    best = VALUES[int(percent_right(net, *others, VALUES).argmax())]
    report = sharing_report(WeightAgnosticNet(net.connections, net.activations, best))
    _, x, labels = vectors("test")
    random = percent_right(net, x, labels, np.random.default_rng(SEED).uniform(-2, 2, DRAWS))
    return {
        "generations": GENERATIONS, "population": POPULATION, "seed": SEED,
        "parameters": report.totals["parameters"], "connections": report.totals["multiply_adds"],
        "hidden": len(net.activations), "best_weight": round(best, 3),
        "percent": {
            "random": round(float(random.mean()), 1),
            "best": round(float(percent_right(net, x, labels, [best])[0]), 1),
            "ensemble": round(voted(net, x, labels), 1),
            "trained": round(trained(net, best), 1),
        },
        "random_spread": round(float(random.std(ddof=1)), 1),
        "values": np.round(VALUES, 2).tolist(),
        "percent_by_value": np.round(percent_right(net, x, labels, VALUES), 1).tolist(),
        "topology": net._asdict(),
    }  # fmt: skip


def plot(result: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(result["values"], result["percent_by_value"])
    axes.axvspan(-2, 2, alpha=0.1)
    axes.set(
        xlabel="the one weight", ylabel="test images right (%)",
        title=f"{result['connections']:,} connections, one weight (searched from -2 to 2)",
    )  # fmt: skip
    axes.grid(alpha=0.3)
    return figure


def card(result: dict[str, Any]) -> str:
    found = result["percent"]
    spread = {"random": f" ± {result['random_spread']}"}
    paper_spread = {"random": " ± 18.7"}
    lines = [
        "# weight_agnostic_digits",
        "",
        "<!-- Generated by `python studies/weight_agnostic_digits/run.py` from digits.json. -->",
        "",
        f"A graph of {result['connections']:,} connections and {result['hidden']} hidden nodes, "
        f"found in {result['generations']:,} generations of {result['population']} nets, reads 8x8 "
        f"digits with {result['parameters']} weight, which all connections share. Test images that "
        "are right, in percent:",
        "",
        "| weight | digits, 8x8 | Gaier & Ha 2019: MNIST, 16x16, 1,849 connections |",
        "|---|---|---|",
        *(
            f"| {NAMES[key]} | {found[key]:.1f}{spread.get(key, '')} | "
            f"{PAPER[key]}{paper_spread.get(key, '')} |"
            for key in NAMES
        ),
        "",
        f"The best weight, chosen on training images, is {result['best_weight']}. The two columns "
        "are of other images and other searches, and stand beside each other for the order of "
        "their rows.",
        "",
        "![Right answers by the weight](digits.png)",
        "",
        "Data: scikit-learn's handwritten digits (Alpaydin & Kaynak 1998, CC BY 4.0).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="A weight-agnostic net for digits.")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to")
    parser.add_argument("--state", type=pathlib.Path, default=STATE, help="file of the search")
    options = parser.parse_args()
    result = measure(options.state)
    make_folder(options.out)
    replace_text(options.out / "digits.json", json.dumps(result) + "\n")
    plot(result).savefig(options.out / "digits.png", dpi=120)
    replace_text(options.out / "README.md", card(result))
    print(result["percent"])


if __name__ == "__main__":
    main()
