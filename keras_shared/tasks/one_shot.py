"""One-shot classification: of each class one image is known, and queries are put into a class."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure

from keras_shared.batching.fetching import prepared
from keras_shared.datasets.lazy_images import LazyImages
from keras_shared.losses.embedding_loss import mean_of_counted

MOST_COLUMNS = 20  # queries of a run that are drawn


@keras.saving.register_keras_serializable("keras_shared")
def one_shot_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Share of the queries that are nearest to the image of their own class: a metric of batches.

    The first image of each class in a batch is known, the others are queries.

    Args:
        y_true: (batch,) or (batch, 1), classes.
        y_pred: (batch, features), embeddings of length 1.

    Returns:
        (batch,), of which the mean is the share.

    Example:
        >>> from keras import ops
        >>> from keras_shared.tasks.one_shot import one_shot_accuracy
        >>> images = ops.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [1.0, 0.0]])
        >>> float(ops.mean(one_shot_accuracy([0, 1, 0, 1], images)))
        0.5
    """
    embeddings, labels = ops.convert_to_tensor(y_pred), ops.reshape(y_true, (-1,))
    same = labels[:, None] == labels[None]
    query = ops.any(ops.tril(ops.cast(same, "int32"), -1) > 0, axis=1)  # one came before
    alike = ops.matmul(embeddings, ops.transpose(embeddings))
    nearest = ops.argmax(ops.where(query[None], -2.0, alike), axis=1)
    right = ops.cast(ops.take(labels, nearest) == labels, embeddings.dtype)
    return mean_of_counted(right[:, None], query[:, None])


def one_shot_answers(embeddings: np.ndarray, tasks: Any) -> list[np.ndarray]:
    """For each query of each task, the place of the known image that is nearest.

    Args:
        embeddings: (images, features), of length 1.
        tasks: int (2, ways) each, numbers of images: those that are known, and a query of each.

    Returns:
        int (ways,) for each task; the right answers are 0, 1, 2 and so on.

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.one_shot import one_shot_answers
        >>> one_shot_answers(np.eye(3)[[0, 1, 1, 0]], [np.array([[0, 1], [2, 3]])])
        [array([1, 0])]
    """
    return [(embeddings[queries] @ embeddings[known].T).argmax(1) for known, queries in tasks]


def one_shot_error(embeddings: np.ndarray, tasks: Any) -> float:
    """Percent of the queries that are put into a wrong class, the mean over the tasks.

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.one_shot import one_shot_error
        >>> one_shot_error(np.eye(3)[[0, 1, 0, 0]], [np.array([[0, 1], [2, 3]])])
        50.0
    """
    answers = one_shot_answers(embeddings, tasks)
    return round(100 * float(np.mean([np.mean(a != np.arange(len(a))) for a in answers])), 3)


def one_shot_grid(
    images: np.ndarray | LazyImages,
    runs: Sequence[tuple[str, Sequence[tuple[int, int, int | None]]]],
    of: int,
) -> Figure:
    """Runs as a picture: what is known, below it the query, and what it was taken for, if wrong.

    Args:
        images: that the numbers are of.
        runs: the name of each, and for each query the numbers of an image of its class that is
            known, of itself, and of the one that it was taken for; None if that is right.
        of: how many runs there are in all.
    """
    columns = min(MOST_COLUMNS, max(len(run) for _, run in runs))
    figure = Figure(figsize=(0.55 * columns + 1.2, 1.9 * len(runs) + 0.5), layout="constrained")
    figure.suptitle(
        f"The {len(runs)} of {of} runs with most errors" if of > len(runs) else "One-shot runs",
        fontsize=11,
    )
    grid = figure.subplots(3 * len(runs), columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        for side in axes.spines.values():
            side.set_visible(False)
    for row, (name, run) in enumerate(runs):
        errors = sum(taken is not None for _, _, taken in run)
        for line, said in enumerate((f"{name}: known", "query", f"{errors} wrong, for")):
            grid[3 * row + line, 0].set_ylabel(said, rotation=0, ha="right", va="center", size=8)
        # a long run shows its errors first
        ordered = run if len(run) <= columns else sorted(run, key=lambda one: one[2] is None)
        for column, numbers in enumerate(ordered[:columns]):
            for line, number in enumerate(numbers):
                if number is None:
                    continue
                axes = grid[3 * row + line, column]
                for side in axes.spines.values():
                    side.set(visible=True, color="C3" if numbers[2] is not None else "0.8")
                pixels = prepared(images[np.array([number])], lambda image: image, "uint8")[0]
                shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
                axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
    return figure
