"""Classification: which of several classes does an image show?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from keras_shared.batching import ImageData, TrainingData
from keras_shared.batching.images import image_test_batches, image_training_data
from keras_shared.datasets import LabelledImages
from keras_shared.tasks.task import Metric, Monitor, Task, Tested

WORST = 32  # mistakes that are shown


def classification_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How many images are put into the wrong class.

    Args:
        scores: (images, classes), the largest wins.
        labels: (images,) right classes.

    Returns:
        Number of images and of errors, error in percent, and the confusion matrix (row: right
        class, column: answer).

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.classification import classification_metrics
        >>> scores = np.array([[2.0, 1.0], [3.0, 0.0], [0.0, 1.0], [0.0, 4.0]])
        >>> classification_metrics(scores, np.array([0, 1, 1, 1]))["error_percent"]
        25.0
    """
    answers = scores.argmax(axis=-1)
    errors = int(np.sum(answers != labels))
    return {
        "images": len(labels),
        "errors": errors,
        "error_percent": round(100 * errors / len(labels), 3),
        "confusion": confusion_matrix(labels, answers, labels=range(scores.shape[1])).tolist(),
    }


def plot_classification(
    scores: np.ndarray, labels: np.ndarray, images: np.ndarray, names: tuple[str, ...]
) -> dict[str, Figure]:
    """The confusion matrix, and the mistakes that the model is surest of."""
    answers = scores.argmax(axis=-1)
    matrix = confusion_matrix(labels, answers, labels=range(len(names)))
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.subplots()
    mistakes = np.where(np.eye(len(names), dtype=bool), 0, matrix)
    axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=max(1, mistakes.max()))
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            dark = mistakes[row, column] > 0.6 * max(1, mistakes.max())
            axes.text(
                column, row, count, ha="center", va="center", color="white" if dark else "black"
            )
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(
        xlabel="answer",
        ylabel="right class",
        title=f"{mistakes.sum()} errors in {len(labels):,} test images",
    )

    margin = scores.max(axis=-1) - np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    worst = np.argsort(-margin, kind="stable")[: min(WORST, int(np.sum(margin > 0)))]
    sheet = Figure(figsize=(10, 6), layout="constrained")
    sheet.suptitle("The mistakes with the largest margin: right class, then answer")
    for axes, index in zip(sheet.subplots(4, 8).flat, worst, strict=False):
        axes.imshow(images[index, ..., 0], cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(f"{names[labels[index]]} → {names[answers[index]]}", fontsize=9)
    for axes in sheet.axes:
        axes.axis("off")
    return {"confusion": figure, "mistakes": sheet}


def _as_they_are(images: Any, labels: Any) -> tuple[Any, Any]:
    return images, labels


def _training_data(
    split: LabelledImages, data: ImageData, batch_size: int, seed: int
) -> TrainingData:
    return image_training_data(split, data, batch_size, seed, _as_they_are)


def _test_batches(split: LabelledImages, data: ImageData, seed: int) -> Any:
    return image_test_batches(split, data, seed, _as_they_are)


def _plots(test: Tested) -> dict[str, Figure]:
    images = np.concatenate([x.numpy() for x, _ in test.batches])
    return plot_classification(test.outputs, test.truth, images, test.split.class_names)


def _show(outputs: Mapping[str, np.ndarray]) -> str:
    label: bytes = outputs["label"].item()
    return label.decode()


CLASSIFICATION = Task(
    name="classification",
    takes=LabelledImages,
    data=ImageData,
    losses=("sparse_categorical_crossentropy", "rbf"),
    training_data=_training_data,
    test_batches=_test_batches,
    compile_arguments=lambda loss: {"loss": loss, "metrics": ["accuracy"]},
    measure=lambda test: classification_metrics(test.outputs, test.truth),
    headline=Metric("test error", "error_percent", " %", more_is_better=False),
    monitor=Monitor("val_accuracy", more_is_better=True),
    plots=_plots,
    captions={"confusion": "Confusion matrix", "mistakes": "Worst mistakes"},
    show=_show,
)
