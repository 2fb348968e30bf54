from typing import Any

import keras
from keras import ops

from keras_shared.arguments import check_arguments


@keras.saving.register_keras_serializable("keras_shared")
class RBFLoss(keras.losses.Loss):
    """The maximum a posteriori criterion of LeNet-5, for outputs that are minus distances.

    `L = y_c + log(exp(-j) + sum_i exp(-y_i))`, with `y_i` the distance to class `i`, `c` the right
    class. `exp(-j)` is the share of a "rubbish" class that no image belongs to: it keeps the
    distance to the right class small, and its gradient alive, where softmax would be content
    with differences.

    Args:
        j: distance to the rubbish class. The smaller, the harder the right class is pulled; the
            larger, the more the others are pushed off. A recipe's "rbf" has 0.1, its "rbf_far" 4.
        reduction: as in `keras.losses.Loss`.
        name: name of the loss.

    A label that is none of the classes gives NaN, as no loss would reward it.

    Raises:
        ValueError: for a `j` that is no number; for one-hot classes, when it is called.

    Example:
        >>> from keras_shared.losses import RBFLoss
        >>> loss = RBFLoss(j=0.0)([0], [[0.0, -1e9]])  # 0 + log(1 + 1 + 0)
        >>> round(float(loss), 4)
        0.6931

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, section II.C, equation 9.
    """

    def __init__(
        self,
        j: float = 0.1,
        reduction: str = "sum_over_batch_size",
        name: str = "rbf_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        if not (isinstance(j, float) and j == float("inf")):  # which no class is as far from
            check_arguments(RBFLoss.__init__, j=j)
        self.j = j

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_pred = ops.convert_to_tensor(y_pred)
        labels = ops.convert_to_tensor(y_true)
        if getattr(labels.shape, "rank", 0) is None:  # of a generator that says nothing
            labels = ops.reshape(labels, (-1,))
        shape, given = tuple(labels.shape), tuple(y_pred.shape)
        rows = {shape[0], given[0]} - {None} if shape and given else set()
        if len(given) != 2 or len(rows) > 1 or len(shape) > 2:
            raise ValueError(
                "Expected outputs of shape (batch, classes), and a class for each row. Received: "
                f"outputs of shape {given}, classes of shape {shape}"
            )
        if len(shape) > 1 and shape[-1] not in (1, None):
            raise ValueError(
                "Expected classes of shape (batch,) or (batch, 1), whole numbers. Received: "
                f"classes of shape {shape}. Of one-hot classes take numpy.argmax(classes, axis=1)."
            )
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        width = y_pred.shape[-1]
        right = ops.sum(y_pred * ops.one_hot(labels, width, dtype=y_pred.dtype), axis=-1)
        right = ops.where((labels >= 0) & (labels < width), right, float("nan"))  # of no class
        rubbish = ops.full_like(y_pred[:, :1], -self.j)
        return ops.logsumexp(ops.concatenate([y_pred, rubbish], axis=-1), axis=-1) - right

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "j": self.j}
