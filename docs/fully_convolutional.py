"""A net trained on single digits reads strings of them: `python docs/fully_convolutional.py`.

`to_convolutional` applies lenet5_modern_mnist at every position of a wider image, by the weights
that it has: the space displacement neural network of Matan 1992 and LeCun 1998, section VII.
Strings are made of MNIST's test digits, which lie side by side. It needs MNIST (TFDS_DATA_DIR), and
draws docs/fully_convolutional.png.
"""

import pathlib

import numpy as np
from matplotlib.figure import Figure

from keras_shared import to_convolutional
from keras_shared.datasets.mnist import load_mnist
from keras_shared.sharing import window_of
from keras_shared.zoo import LeNet5

SIDE, MARGIN = 28, 2  # pixels: of a digit, and around it in a window of 32


def string_of(digits: np.ndarray) -> np.ndarray:
    """An image (1, 32, 28 * n + 4, 1) of digits (n, 28, 28, 1), side by side."""
    line = np.concatenate(list(digits), axis=1)
    return np.pad(line, [(MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)])[None].astype("float32")


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def draw(image: np.ndarray, scores: np.ndarray, step: int) -> Figure:
    """The string, and below it the probability of each digit by the middle of the window."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    above.imshow(255 - image[0, :, :, 0], cmap="gray", aspect="auto")
    above.set_yticks([])
    first = SIDE // 2 + MARGIN  # the middle of the first window
    positions = scores.shape[2]
    edges = (first - step / 2, first + (positions - 0.5) * step, 9.5, -0.5)
    below.imshow(softmax(scores[0, 0]).T, cmap="Greys", aspect="auto", extent=edges)
    below.set(
        yticks=range(10), ylabel="read as", xlabel="middle of the window, pixels",
        xlim=(0, image.shape[2]),
    )  # fmt: skip
    return figure


def main(picture: pathlib.Path) -> None:
    model = LeNet5.from_preset("lenet5_modern_mnist")
    converted = to_convolutional(model)
    (_, width), (_, step) = window_of(converted)
    test = load_mnist("test")
    images, labels = test.images[:500], test.labels[:500]

    # === A string of five: at its middle, each digit is read; between two, anything ===
    image = string_of(images[:5])
    scores = converted.predict(image, verbose=0)  # (1, 1, positions, 10)
    print(f"an image of {image.shape[1:3]} gives scores at {scores.shape[2]} positions")
    middles = range(0, scores.shape[2], SIDE // step)
    print("written", labels[:5].tolist(), "read", scores[0, 0, middles].argmax(-1).tolist())
    draw(image, scores, step).savefig(picture, dpi=100)

    # === The scores are those of each window alone: here with the neighbours that it sees ===
    alone = converted.predict(
        np.concatenate([image[:, :, j * step :][:, :, :width] for j in range(scores.shape[2])]),
        verbose=0,
    )
    print(
        f"largest difference from windows alone: {np.abs(alone[:, 0, 0] - scores[0, 0]).max():.1g}"
    )

    # === What neighbours cost: digits alone, and in strings of ten, at their middles ===
    apart = model.predict(images, verbose=0).argmax(-1) == labels
    lines = np.concatenate([string_of(images[i : i + 10]) for i in range(0, len(images), 10)])
    read = converted.predict(lines, verbose=0)[:, 0, :: SIDE // step].argmax(-1).ravel()
    print(
        f"right of {len(images)} digits: {apart.sum()} alone, {(read == labels).sum()} in strings"
    )

    # === Shifted by a whole step, the scores are shifted; by less, they are others ===
    for shift in (1, 2, 3, 4):
        moved = converted.predict(image[:, :, shift:], verbose=0)[0, 0]
        same = scores[0, 0, 1:] if shift == step else scores[0, 0, : len(moved)]
        gap = np.abs(moved[: len(same)] - same[: len(moved)]).max()
        print(f"moved by {shift} of {step} pixels, scores differ by up to {gap:.2g}")


if __name__ == "__main__":
    main(pathlib.Path(__file__).with_suffix(".png"))
