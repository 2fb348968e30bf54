from typing import Any

import keras
from keras import ops


class EmbeddingLoss(keras.losses.Loss):
    """A loss of embeddings and their classes, for which each example is compared with its batch.

    A batch holds several examples of several classes, as `keras_shared.batching.class_batches`
    draws them. A subclass computes a table, how wrong each comparison of an example (row) is, and
    which comparisons count. The value of an example is the sum of its row, scaled so that the mean
    over the batch is the mean over all comparisons that count; `sample_weight` and `class_weight`
    act on the examples.

    Call:
        Classes (batch,) or (batch, 1), and embeddings (batch, features).
    """

    def compare(self, same: Any, embeddings: Any) -> tuple[Any, Any]:
        """The table of losses, and which of them count.

        Args:
            same: bool (batch, batch), whether two examples are of one class.
            embeddings: (batch, features).
        """
        raise NotImplementedError

    def call(self, y_true: Any, y_pred: Any) -> Any:
        embeddings = ops.convert_to_tensor(y_pred)
        labels = ops.reshape(y_true, (-1,))
        losses, counted = self.compare(labels[:, None] == labels[None], embeddings)
        return mean_of_counted(losses, counted)


def mean_of_counted(values: Any, counted: Any) -> Any:
    """A value for each row, of which the mean is the mean over all that counts.

    Args:
        values: (rows, columns).
        counted: bool (rows, columns).

    Example:
        >>> from keras import ops
        >>> from keras_shared.losses.embedding_loss import mean_of_counted
        >>> rows = mean_of_counted(ops.array([[1.0, 2.0], [3.0, 9.0]]),
        ...                        ops.array([[True, True], [True, False]]))
        >>> float(ops.mean(rows))  # (1 + 2 + 3) / 3
        2.0
    """
    counted = ops.cast(counted, values.dtype)
    share = ops.cast(ops.shape(values)[0], values.dtype) / ops.maximum(ops.sum(counted), 1.0)
    return ops.sum(ops.where(counted > 0, values, 0.0), axis=1) * share


def other_examples(same: Any) -> Any:
    """Pairs of two examples of one class: `same` without its diagonal."""
    return ops.logical_and(same, ops.logical_not(ops.eye(ops.shape(same)[0], dtype="bool")))


def distances(embeddings: Any) -> Any:
    """Euclidean distances of all pairs, (batch, batch)."""
    squared = squared_distances(embeddings, embeddings)
    return ops.sqrt(ops.maximum(squared, 1e-12))  # sqrt has no gradient at 0


def squared_distances(a: Any, b: Any) -> Any:
    """Squared Euclidean distances of each row of `a` to each of `b`."""
    lengths = [ops.sum(ops.square(x), axis=-1) for x in (a, b)]
    return lengths[0][:, None] + lengths[1][None] - 2 * ops.matmul(a, ops.transpose(b))
