"""One-shot classification: of each class one image is known, and queries are put into a class."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_shared.losses.embedding_loss import mean_of_counted


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
