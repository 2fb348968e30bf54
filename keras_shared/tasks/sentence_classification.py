"""Sentence classification: which of several classes is a sentence of?"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from keras_shared.batching.sentences import (
    SentenceData,
    sentence_test_batches,
    sentence_training_data,
)
from keras_shared.datasets import LabelledSentences
from keras_shared.tasks.classification import show_classes
from keras_shared.tasks.confusion import plot_confusion
from keras_shared.tasks.task import Metric, Monitor, Task, Tested


def sentence_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How many sentences are put into the right class.

    Args:
        scores: (sentences, classes), the largest wins.
        labels: (sentences,) right classes.

    Returns:
        Number of sentences and of errors, accuracy in percent, and the confusion matrix (row: right
        class, column: answer).

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.sentence_classification import sentence_metrics
        >>> scores = np.array([[2.0, 1.0], [3.0, 0.0], [0.0, 1.0], [0.0, 4.0]])
        >>> sentence_metrics(scores, np.array([0, 1, 1, 1]))["accuracy_percent"]
        75.0
    """
    answers = scores.argmax(axis=-1)
    right = int(np.sum(answers == labels))
    return {
        "sentences": len(labels),
        "errors": len(labels) - right,
        "accuracy_percent": round(100 * right / len(labels), 3),
        "confusion": confusion_matrix(labels, answers, labels=range(scores.shape[1])).tolist(),
    }


def _plots(test: Tested) -> dict[str, Figure]:
    answers, names = test.outputs.argmax(axis=-1), test.split.class_names
    return {"confusion": plot_confusion(test.truth, answers, names, "sentences")}


SENTENCE_CLASSIFICATION = Task(
    name="sentence_classification",
    takes=LabelledSentences,
    data=SentenceData,
    losses=("sparse_categorical_crossentropy",),
    training_data=sentence_training_data,
    test_batches=sentence_test_batches,
    compile_arguments=lambda loss: {"loss": loss, "metrics": ["accuracy"]},
    measure=lambda test: sentence_metrics(test.outputs, test.truth),
    headline=Metric("test accuracy", "accuracy_percent", " %", more_is_better=True),
    monitor=Monitor("val_accuracy", more_is_better=True),
    plots=_plots,
    captions={"confusion": "Confusion matrix"},
    show=show_classes,
)
