"""Pairs that a model is most wrong about."""

from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

SHOWN = 8  # pairs of each kind


def plot_pair_mistakes(
    probability: np.ndarray, same: np.ndarray, batches: tf.data.Dataset
) -> dict[str, Figure]:
    """Different pairs that are most surely called the same, and same pairs called different.

    Args:
        probability: (pairs,) of "same".
        same: (pairs,) 1 for "same", 0 for "different".
        batches: of the pairs, in the same order.
    """
    kinds = []
    for value, title in (
        (0, "different, and called the same"), (1, "the same, and called different"),
    ):  # fmt: skip
        surest = probability if value == 0 else 1 - probability
        wrong = np.flatnonzero((same == value) & ((probability >= 0.5) != value))
        worst = wrong[np.argsort(-surest[wrong], kind="stable")][:SHOWN]
        kinds.append((f"{len(wrong):,} of {np.sum(same == value):,} pairs are {title}", worst))
    wanted = {int(number) for _, worst in kinds for number in worst}
    if not wanted:
        return {}
    images = _pick(batches, wanted)
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1)
    for part, (title, worst) in zip(parts, kinds, strict=True):
        part.suptitle(f"{title}; the {len(worst)} worst:" if len(worst) else title, fontsize=11)
        grid = part.subplots(2, SHOWN, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for column, number in zip(grid.T, worst, strict=False):
            column[0].set_title(f"p = {probability[number]:.3g}", fontsize=9)
            for axes, image in zip(column, images[int(number)], strict=True):
                axes.imshow(
                    image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255
                )
                axes.axis("on")
                axes.set(xticks=[], yticks=[])
    return {"mistakes": figure}


def _pick(batches: tf.data.Dataset, wanted: set[int]) -> dict[int, list[np.ndarray]]:
    """Both images of the pairs of these numbers."""
    found, first = {}, 0
    for images, same in batches:
        for number in range(first, first + len(same["distance"])):
            if number in wanted:
                sides = (images[side][number - first] for side in ("image_a", "image_b"))
                found[number] = [side.numpy() for side in sides]
        first += len(same["distance"])
    return found
