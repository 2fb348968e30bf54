import copy
from typing import Any, Self

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_shared")
class MeanLoss(keras.metrics.Mean):
    """A loss as a metric: what it is by itself, where more is added to what is trained.

    The mean over all examples of weight times loss. Keras' own metrics divide by the sum of the
    weights instead, so that they do not add up to `loss`. Name it in `weighted_metrics`, or in
    `metrics` for the loss without weights.

    Args:
        loss: a loss of this library, or another that averages over the batch.
        name: name of the metric; that of the loss by default.
        dtype: as in `keras.metrics.Metric`.

    Example:
        >>> from keras_shared.losses import ContrastiveLoss, MeanLoss
        >>> labels, distances, weights = [[1.0], [0.0]], [[1.0], [0.5]], [3.0, 0.0]
        >>> float(MeanLoss(ContrastiveLoss())(labels, distances, weights))  # (3 * .5 + 0) / 2
        0.75
    """

    def __init__(self, loss: keras.losses.Loss, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name or loss.name, dtype=dtype)
        self.loss = loss
        self._mean = copy.copy(loss)
        self._mean.reduction = "sum_over_batch_size"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        # by the loss itself, which casts, looks at labels and masks, and shares out weights
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        value = ops.sum(self._mean(y_true, y_pred, sample_weight))  # of no rows no number
        rows = ops.cast(ops.shape(y_pred)[0], self.dtype)
        super().update_state(ops.where(rows > 0, value, 0.0), rows)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": keras.losses.serialize(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "loss": keras.losses.deserialize(config["loss"])})
