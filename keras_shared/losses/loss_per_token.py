from typing import Any

import keras
from keras import ops

from keras_shared.tokenizing import PADDING


@keras.saving.register_keras_serializable("keras_shared")
class LossPerToken(keras.metrics.Mean):
    """The mean of `-ln p(token)` over all tokens that are asked for: targets that are not padding.

    What a model adds to its loss (a regularizer) is not in it, and a batch counts by its tokens.

    Args:
        name: of the metric.
        dtype: as of `keras.metrics.Metric`.

    Example:
        >>> import numpy as np
        >>> from keras_shared.losses import LossPerToken
        >>> metric = LossPerToken()
        >>> metric.update_state(np.array([[1, 0]]), np.zeros((1, 2, 4)))  # one token of four
        >>> round(float(metric.result()), 4)
        1.3863
    """

    def __init__(self, name: str = "loss_per_token", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        # as the loss computes it, so that a graph computes it once for both
        self._losses = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=PADDING, reduction="none"
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        asked = ops.cast(ops.not_equal(y_true, PADDING), self.dtype)
        if sample_weight is not None:
            weights = ops.cast(sample_weight, self.dtype)
            if len(weights.shape) == 1:  # one for each row
                weights = weights[:, None]
            asked = asked * weights
        return super().update_state(self._losses(y_true, y_pred), asked)
