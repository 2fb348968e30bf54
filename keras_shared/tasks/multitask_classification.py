"""Multi-task classification: one image, a question for each task, a class for each answer."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from pydantic import model_validator

from keras_shared.batching import ImageData, TrainingData
from keras_shared.batching.images import image_test_batches, image_training_data
from keras_shared.datasets import SeveralLabels
from keras_shared.tasks.classification import class_probabilities, classification_metrics
from keras_shared.tasks.confusion import draw_confusion
from keras_shared.tasks.task import Metric, Monitor, Shown, Task, Tested
from keras_shared.text import plot_label

SHOWN = 24  # mistakes that are shown
LOSS = "sparse_categorical_crossentropy"


class SeveralLabelsData(ImageData):
    """Images with a label for each task, of a data set that says them; else as `ImageData`."""

    @model_validator(mode="after")
    def _no_classes(self) -> Self:
        if self.images_per_class:
            raise ValueError(
                "`images_per_class` means nothing where each image has several labels: use "
                "`training_images`"
            )
        return self


def multitask_metrics(
    scores: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """How often each task is answered wrongly.

    Args:
        scores: name of a task -> (images, classes), the largest wins.
        labels: name of a task -> (images,) right classes.

    Returns:
        Number of images, the error in percent as the mean over the tasks, and of each task errors,
        error in percent and confusion matrix.

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.multitask_classification import multitask_metrics
        >>> scores = {"left": np.eye(2)[[0, 1]], "right": np.eye(2)[[0, 0]]}
        >>> labels = {"left": np.array([0, 1]), "right": np.array([0, 1])}
        >>> found = multitask_metrics(scores, labels)
        >>> found["error_percent"], found["left_error_percent"], found["right_error_percent"]
        (25.0, 0.0, 50.0)
    """
    each = {task: classification_metrics(scores[task], labels[task]) for task in labels}
    errors = [found["error_percent"] for found in each.values()]
    result: dict[str, Any] = {
        "images": len(next(iter(labels.values()))),
        "error_percent": round(float(np.mean(errors)), 3),
    }
    for task, found in each.items():
        result |= {f"{task}_{key}": found[key] for key in ("errors", "error_percent", "confusion")}
    return result


def plot_multitask(
    scores: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    images: np.ndarray,
    names: Mapping[str, tuple[str, ...]],
) -> dict[str, Figure]:
    """The confusion matrix of each task, and the first images with a wrong answer."""
    answers = {task: scores[task].argmax(axis=-1) for task in names}
    figure = Figure(figsize=(6.5 * len(names), 6), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        wrong = draw_confusion(axes, labels[task], answers[task], names[task])
        axes.set_title(f"{plot_label(task)}: {wrong} errors in {len(images):,} test images")
    mistaken = np.any([answers[task] != labels[task] for task in names], axis=0)
    chosen = np.flatnonzero(mistaken)[:SHOWN]
    if not len(chosen):
        return {"confusion": figure}
    sheet = Figure(figsize=(10, 7), layout="constrained")
    sheet.suptitle(f"Wrong answers: right classes, then answers, of {', '.join(names)}")
    for axes, index in zip(sheet.subplots(4, 6).flat, chosen, strict=False):
        axes.imshow(images[index, ..., 0], cmap="gray_r", vmin=0, vmax=255)
        sides = [", ".join(plot_label(names[task][side[task][index]]) for task in names)
                 for side in (labels, answers)]  # fmt: skip
        axes.set_title(" → ".join(sides), fontsize=8)
    for axes in sheet.axes:
        axes.axis("off")
    return {"confusion": figure, "mistakes": sheet}


def _training_data(
    split: SeveralLabels, data: SeveralLabelsData, batch_size: int, seed: int
) -> TrainingData:
    batches = image_training_data(split, data, batch_size, seed, _by_name(split))
    return batches._replace(class_names=split.class_names)


def _test_batches(split: SeveralLabels, data: SeveralLabelsData, seed: int) -> tf.data.Dataset:
    return image_test_batches(split, data, seed, _by_name(split))


def _by_name(split: SeveralLabels) -> Any:
    """Labels (batch, tasks) as a dict of (batch,)."""
    tasks = list(split.class_names)
    return lambda images, labels: (images, {task: labels[:, i] for i, task in enumerate(tasks)})


def _plots(test: Tested) -> dict[str, Figure]:
    images = np.concatenate([x.numpy() for x, _ in test.batches])
    return plot_multitask(test.outputs, test.truth, images, test.split.class_names)


def _show(outputs: Mapping[str, np.ndarray], top: int) -> Shown:
    """The best classes of each task, with their probabilities."""
    texts, facts = [], dict[str, Any]()
    for task in (key.removesuffix("_label") for key in outputs if key.endswith("_label")):
        names = [name.decode() for name in outputs[f"{task}_classes"][0]]
        shares = class_probabilities(outputs[f"{task}_scores"][:1], LOSS)
        assert shares is not None  # of this loss it knows them
        best = np.argsort(-shares[0], kind="stable")[: max(1, top)]
        shown = ", ".join(f"{names[i]} ({100 * shares[0, i]:.1f} %)" for i in best)
        texts.append(f"{task}: {shown}")
        facts |= {task: names[best[0]], f"{task}_probability": float(shares[0, best[0]])}
    return Shown("; ".join(texts), facts)


MULTITASK_CLASSIFICATION = Task(
    name="multitask_classification",
    takes=SeveralLabels,
    data=SeveralLabelsData,
    losses=(LOSS,),
    training_data=_training_data,
    test_batches=_test_batches,
    compile_arguments=lambda loss: {"loss": loss, "metrics": ["accuracy"]},
    measure=lambda test: multitask_metrics(test.outputs, test.truth),
    headline=Metric("mean error of the tasks", "error_percent", " %", more_is_better=False),
    monitor=Monitor("val_loss", more_is_better=False),
    plots=_plots,
    captions={"confusion": "Confusion matrix of each task", "mistakes": "Wrong answers"},
    show=_show,
)
