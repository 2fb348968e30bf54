from typing import Any

import keras
from keras import ops

from keras_shared.arguments import check_arguments
from keras_shared.losses.embedding_loss import EmbeddingLoss, squared_distances


@keras.saving.register_keras_serializable("keras_shared")
class PrototypicalLoss(EmbeddingLoss):
    """Each query is to be nearest to the prototype of its class: the mean of its supports.

    `L = -log(exp(-d_c / t) / sum_k exp(-d_k / t))`, with `d_k` the squared Euclidean distance of a
    query to the prototype of class `k`, `c` its own class; the mean over all queries. A batch is an
    episode: of each class the first `shots` examples are supports, the others queries.

    Args:
        shots: supports of each class.
        temperature: `t`; 1 as in the paper. Unit vectors, whose distances are at most 4, want less.
        reduction: as in `keras.losses.Loss`.
        name: name of the loss.

    Raises:
        ValueError: if `shots` is less than 1, or the temperature not positive.

    Example:
        >>> from keras_shared.losses import PrototypicalLoss
        >>> loss = PrototypicalLoss(temperature=1.0)
        >>> value = loss([0, 1, 0, 1], [[0.0], [1.0], [0.0], [1.0]])
        >>> round(float(value), 4)  # log(1 + exp(-1))
        0.3133

    Reference:
        Snell, Swersky, Zemel 2017, "Prototypical Networks for Few-shot Learning", equations 1, 2.
    """

    def __init__(
        self,
        shots: int = 1,
        temperature: float = 0.1,
        reduction: str = "sum_over_batch_size",
        name: str = "prototypical_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        check_arguments(PrototypicalLoss.__init__, shots=shots, temperature=temperature)
        if shots < 1 or not temperature > 0:
            raise ValueError(
                "`shots` must be at least 1, and `temperature` positive. Received: "
                f"shots={shots}, temperature={temperature}"
            )
        self.shots = shots
        self.temperature = temperature

    def compare(self, same: Any, embeddings: Any) -> tuple[Any, Any]:
        number = number_in_class(same)
        support = number < self.shots
        mine = ops.cast(ops.logical_and(same, support[None]), embeddings.dtype)
        prototypes = ops.matmul(mine, embeddings) / ops.sum(mine, axis=1, keepdims=True)
        scores = -squared_distances(embeddings, prototypes) / self.temperature
        scores = ops.where(number[None] == 0, scores, -1e9)  # each class once
        every = ops.logsumexp(scores, axis=1, keepdims=True)
        own = ops.logical_and(same, number[None] == 0)
        return every - scores, ops.logical_and(own, ops.logical_not(support)[:, None])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shots": self.shots, "temperature": self.temperature}


def number_in_class(same: Any) -> Any:
    """How many examples of its class stand before each one, int32 (batch,).

    Example:
        >>> from keras import ops
        >>> from keras_shared.losses.prototypical_loss import number_in_class
        >>> labels = ops.array([5, 7, 5, 5])
        >>> ops.convert_to_numpy(number_in_class(labels[:, None] == labels[None])).tolist()
        [0, 0, 1, 2]
    """
    return ops.sum(ops.tril(ops.cast(same, "int32"), -1), axis=1)
