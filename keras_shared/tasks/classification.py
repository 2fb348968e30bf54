"""Classification: which of several classes does an image show?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from keras_shared.batching import ImageData, TrainingData
from keras_shared.batching.images import image_test_batches, image_training_data
from keras_shared.datasets import LabelledImages
from keras_shared.datasets.lazy_images import LazyImages
from keras_shared.tasks.confusion import plot_confusion
from keras_shared.tasks.task import Metric, Monitor, Shown, Task, Tested
from keras_shared.text import plot_label

WORST = 32  # mistakes that are shown
SHOWN = 24  # examples that are shown
FAR = 5.0  # squared distance of the rubbish class in an answer


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
    figure = plot_confusion(labels, answers, names, "images")
    names = tuple(map(plot_label, names))

    margin = scores.max(axis=-1) - np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    worst = np.argsort(-margin, kind="stable")[: min(WORST, int(np.sum(margin > 0)))]
    sheet = Figure(figsize=(10, 6), layout="constrained")
    sheet.suptitle("The mistakes with the largest margin: right class, then answer")
    for axes, index in zip(sheet.subplots(4, 8).flat, worst, strict=False):
        axes.imshow(images[index, ..., 0], cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(f"{names[labels[index]]} → {names[answers[index]]}", fontsize=9)
    for axes in sheet.axes:
        axes.axis("off")
    return {"confusion": figure, "mistakes": sheet} if len(worst) else {"confusion": figure}


def plot_examples(
    scores: np.ndarray, labels: np.ndarray, images: np.ndarray, names: tuple[str, ...]
) -> dict[str, Figure]:
    """Test images of all classes, with the right class and the answer; wrong ones in red."""
    names = tuple(map(plot_label, names))
    answers = scores.argmax(axis=-1)
    rank = np.zeros(len(labels), int)  # number of each image within its class
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        rank[own] = np.arange(len(own))
    chosen = np.lexsort((labels, rank))[:SHOWN]
    rows = -(-len(chosen) // 6)
    sheet = Figure(figsize=(10, 1.9 * rows), layout="constrained")
    for axes, index in zip(sheet.subplots(rows, 6, squeeze=False).flat, chosen, strict=False):
        image = images[index].astype("uint8")
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        right, answer = names[labels[index]], names[answers[index]]
        title = right if right == answer else f"{right} → {answer}"
        axes.set_title(title, fontsize=9, color="black" if right == answer else "C3")
    for axes in sheet.axes:
        axes.axis("off")
    return {"examples": sheet}


def _as_they_are(images: Any, labels: Any) -> tuple[Any, Any]:
    return images, labels


def _training_data(
    split: LabelledImages, data: ImageData, batch_size: int, seed: int
) -> TrainingData:
    batches = image_training_data(split, data, batch_size, seed, _as_they_are)
    return batches._replace(class_names=split.class_names)


def _test_batches(split: LabelledImages, data: ImageData, seed: int) -> Any:
    return image_test_batches(split, data, seed, _as_they_are)


def _plots(test: Tested) -> dict[str, Figure]:
    images = np.concatenate([x.numpy() for x, _ in test.batches])
    names = test.split.class_names
    plots = plot_classification(test.outputs, test.truth, images, names)
    if isinstance(test.split.images, LazyImages):  # the user's own, who will want to see them
        plots |= plot_examples(test.outputs, test.truth, images, names)
    return plots


def class_probabilities(scores: np.ndarray, loss: str) -> np.ndarray | None:
    """Probabilities of the classes, as the loss that made the scores defines them.

    Cross-entropy: the softmax. RBF: `exp(-y_i) / (exp(-5) + sum_k exp(-y_k))`, with distances
    `y = -scores`; what is missing to 1 is the rubbish class, "none of them". A training puts it
    nearer, to pull at all examples; an answer puts it where few digits are: of the 60,000 that
    lenet5_mnist was trained on, 99 of 100 that it names rightly are nearer than 4.3 to their class
    (lenet5_mnist_distorted, of 6,000: 8.4), and half of 3,000 pictures of clothes are further than
    9.8 (8.5).

    Args:
        scores: (images, classes).
        loss: its name.

    Returns:
        (images, classes); None for a loss that defines none.

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.classification import class_probabilities
        >>> class_probabilities(np.zeros((1, 4)), "sparse_categorical_crossentropy").tolist()
        [[0.25, 0.25, 0.25, 0.25]]
        >>> class_probabilities(np.array([[0.0, -50.0]]), "rbf").round(3).tolist()
        [[0.993, 0.0]]

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, section II.C, equation 9.
    """
    distances = ("rbf", "rbf_far")
    if loss not in ("sparse_categorical_crossentropy", *distances):
        return None
    known = scores.astype("float64")
    if loss in distances:
        known = np.column_stack([known, np.full(len(known), -FAR)])
    odds = np.exp(known - known.max(axis=1, keepdims=True))
    return np.asarray((odds / odds.sum(axis=1, keepdims=True))[:, : scores.shape[1]])


def show_classes(outputs: Mapping[str, np.ndarray], top: int) -> Shown:
    """The best classes, with their probabilities where `outputs` has these."""
    scores = outputs["scores"][0]
    names = [name.decode() for name in outputs["classes"][0]]
    best = np.argsort(-scores, kind="stable")[: max(1, top)]
    label = names[best[0]]
    if "probabilities" not in outputs:
        return Shown(", ".join(names[i] for i in best), {"label": label})
    shares = outputs["probabilities"][0]
    text = ", ".join(f"{names[i]} ({100 * shares[i]:.1f} %)" for i in best)
    none = 1 - shares.sum()
    if none > 1e-6:  # a rubbish class
        text = f"{text}, none of the classes ({100 * none:.1f} %)"
    facts: dict[str, Any] = {"label": label, "probability": float(shares[best[0]])}
    return Shown(text, facts | {"top": {names[i]: float(shares[i]) for i in best}})


CLASSIFICATION = Task(
    name="classification",
    takes=LabelledImages,
    data=ImageData,
    losses=("sparse_categorical_crossentropy", "rbf", "rbf_far"),
    training_data=_training_data,
    test_batches=_test_batches,
    compile_arguments=lambda loss: {"loss": loss, "metrics": ["accuracy"]},
    measure=lambda test: classification_metrics(test.outputs, test.truth),
    headline=Metric("test error", "error_percent", " %", more_is_better=False),
    monitor=Monitor("val_accuracy", more_is_better=True),
    plots=_plots,
    captions={
        "confusion": "Confusion matrix",
        "examples": "Test images and answers",
        "mistakes": "Worst mistakes",
    },
    show=show_classes,
)
