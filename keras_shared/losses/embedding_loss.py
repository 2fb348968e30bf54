from typing import Any

import keras
from keras import ops


class EmbeddingLoss(keras.losses.Loss):
    """A loss of embeddings and their classes, for which each example is compared with its batch.

    A batch holds several examples of several classes, as `keras_shared.batching.class_batches`
    draws them. A subclass computes a table, how wrong each comparison of an example (row) is, and
    which comparisons count. The value of an example is the sum of its row, scaled so that the mean
    over the batch is the mean over all comparisons that count; `sample_weight` and `class_weight`
    multiply these values. A weight of 0 leaves the comparisons of an example out; others are still
    compared with it.

    Where weights are regularised, the `loss` of a training is the sum of both; see `MeanLoss` for
    a metric of the loss by itself.

    Call:
        Classes (batch,) or (batch, 1), whole numbers of any size, and embeddings (batch, features).

    Raises:
        ValueError: for one-hot classes, or other than one class for each embedding.
    """

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        labels = _one_class_each(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred))
        # Keras casts to floating point, in which large numbers of classes would become one
        first = ops.argmax(ops.cast(labels[:, None] == labels[None], "int32"), axis=1)
        return super().__call__(first, y_pred, sample_weight)

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


def _one_class_each(labels: Any, embeddings: Any) -> Any:
    shape, of_embeddings = tuple(labels.shape), tuple(embeddings.shape)
    one = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    if not one or len(of_embeddings) != 2 or not _may_be_equal(shape[0], of_embeddings[0]):
        raise ValueError(
            "Expected classes of shape (batch,) or (batch, 1), whole numbers, and embeddings of "
            f"shape (batch, features). Received: classes of shape {shape}, embeddings of shape "
            f"{of_embeddings}. Of one-hot classes take numpy.argmax(classes, axis=1)."
        )
    return ops.reshape(labels, (-1,))


def _may_be_equal(a: int | None, b: int | None) -> bool:
    return a is None or b is None or a == b


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
    centre = ops.stop_gradient(ops.mean(b, axis=0))  # small differences of large numbers are lost
    a, b = a - centre, b - centre
    lengths = [ops.sum(ops.square(x), axis=-1) for x in (a, b)]
    return lengths[0][:, None] + lengths[1][None] - 2 * ops.matmul(a, ops.transpose(b))
