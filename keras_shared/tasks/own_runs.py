"""What a model answers in the user's own one-shot runs."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_shared.batching.fetching import prepared
from keras_shared.datasets.lazy_images import LazyImages, Shape
from keras_shared.datasets.one_shot_runs import OneShotRun
from keras_shared.tasks.one_shot import one_shot_grid
from keras_shared.text import plot_label

SHOWN = 5  # runs that are drawn


def answer_runs(
    model: keras.Model, runs: Sequence[OneShotRun], shape: Shape
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Put each query into the class of the known image that is nearest.

    Args:
        model: has `embed`, which gives unit vectors.
        runs: from `read_one_shot_runs`.
        shape: height, width and channels to which images are brought.

    Returns:
        The mean error of the runs in percent, and each run with its answers; a plot of those with
        most errors.

    Raises:
        ValueError: for a model without `embed`.
    """
    if not hasattr(model, "embed"):
        raise ValueError(
            f"One-shot runs need a model that embeds images, such as a SiameseNet. Received: "
            f"{type(model).__name__}"
        )
    files = list(dict.fromkeys(file for run in runs for file in (*run.known, *run.queries)))
    number = {file: i for i, file in enumerate(files)}
    images = LazyImages(files, shape)
    embeddings = prepared(images, model.embed, "float32")
    facts, rows = [], []
    for run in runs:
        known, queries = ([number[f] for f in part] for part in (run.known, run.queries))
        nearest = (embeddings[queries] @ embeddings[known].T).argmax(1)
        wrong = run.known_classes[nearest] != run.query_classes
        rows.append((run, known, queries, nearest, wrong))
        answers = [
            {"file": file, "class": run.classes[right], "answer": run.classes[answer]}
            for file, right, answer in zip(
                run.queries, run.query_classes, run.known_classes[nearest], strict=True
            )
        ]
        error = round(100 * float(np.mean(wrong)), 3)
        facts.append(
            {"name": run.name, "ways": len(run.classes), "error_percent": error, "answers": answers}
        )
    mean = float(np.mean([np.mean(row[-1]) for row in rows]))
    metrics = {"one_shot_error_percent": round(100 * mean, 3), "runs": facts}
    rows.sort(key=lambda row: -np.mean(row[-1]))
    shown = []
    for run, known, queries, nearest, wrong in rows[:SHOWN]:
        right = [known[int(np.argmax(run.known_classes == c))] for c in run.query_classes]
        taken = [known[n] if bad else None for n, bad in zip(nearest, wrong, strict=True)]
        shown.append((plot_label(run.name), list(zip(right, queries, taken, strict=True))))
    return metrics, {"one_shot": one_shot_grid(images, shown, len(runs))}
