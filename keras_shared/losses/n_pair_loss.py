from typing import Any

import keras
from keras import ops

from keras_shared.arguments import check_arguments
from keras_shared.losses.embedding_loss import EmbeddingLoss, other_examples


@keras.saving.register_keras_serializable("keras_shared")
class NPairLoss(EmbeddingLoss):
    """Each pair of one class must be more alike than its first half is to any other class.

    `L = log(1 + sum_n exp((s_an - s_ap) / t))`, with `s` the cosine of two embeddings, `a` and `p`
    two examples of one class, `n` each example of the others, `t` the temperature; the mean over
    all pairs `(a, p)` of a batch. This is the multi-class N-pair loss of unit vectors; with two
    views of each image as its class, others call it NT-Xent or InfoNCE.

    Args:
        temperature: the smaller, the more the nearest of the others count.
        reduction: as in `keras.losses.Loss`.
        name: name of the loss.

    Raises:
        ValueError: if the temperature is not positive.

    Example:
        >>> from keras_shared.losses import NPairLoss
        >>> loss = NPairLoss(temperature=1.0)([0, 0, 1], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(float(loss), 4)  # log(1 + exp(0 - 1))
        0.3133

    Reference:
        Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", equation
        6; cosine and temperature: Chen, Kornblith, Norouzi, Hinton 2020, "A Simple Framework for
        Contrastive Learning of Visual Representations", equation 1.
    """

    def __init__(
        self,
        temperature: float = 0.05,
        reduction: str = "sum_over_batch_size",
        name: str = "n_pair_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        check_arguments(NPairLoss.__init__, temperature=temperature)
        if not temperature > 0:
            raise ValueError(f"`temperature` must be positive. Received: temperature={temperature}")
        self.temperature = temperature

    def compare(self, same: Any, embeddings: Any) -> tuple[Any, Any]:
        unit = ops.normalize(embeddings, axis=-1)
        alike = ops.matmul(unit, ops.transpose(unit)) / self.temperature
        others = ops.logsumexp(ops.where(same, -1e9, alike), axis=1, keepdims=True)
        return ops.softplus(others - alike), other_examples(same)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}
