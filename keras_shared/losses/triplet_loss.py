from typing import Any, Literal

import keras
from keras import ops

from keras_shared.arguments import check_arguments
from keras_shared.losses.embedding_loss import EmbeddingLoss, distances, other_examples

Mining = Literal["semi_hard", "hard", "all"]


@keras.saving.register_keras_serializable("keras_shared")
class TripletLoss(EmbeddingLoss):
    """Another example of the class must be nearer than one of another class, by a margin.

    `L = max(0, d_ap - d_an + margin)`, or `log(1 + exp(d_ap - d_an))` with a soft margin; `d` is
    the Euclidean distance of two embeddings, `a` and `p` are of one class, `n` is of another. The
    triplets come from the batch itself:

    - "semi_hard": for each pair `(a, p)` the nearest `n` that is further away than `p`; where there
      is none, the furthest. The mean over all pairs.
    - "hard": for each `a` its furthest `p` and its nearest `n`. The mean over all `a`.
    - "all": for each pair `(a, p)` the mean over all `n`. The mean over all pairs.

    Args:
        margin: None for a soft margin.
        mining: which triplets, as above.
        reduction: as in `keras.losses.Loss`.
        name: name of the loss.

    Raises:
        ValueError: if the margin is not positive, or for an unknown `mining`.

    Example:
        >>> from keras_shared.losses import TripletLoss
        >>> loss = TripletLoss(margin=1.0, mining="hard")
        >>> float(loss([0, 0, 1], [[0.0], [1.0], [3.0]]))  # max(0, 1 - 3 + 1), max(0, 1 - 2 + 1)
        0.0

    Reference:
        Schroff, Kalenichenko, Philbin 2015, "FaceNet", section 3.2 (of squared distances); Hermans,
        Beyer, Leibe 2017, "In Defense of the Triplet Loss for Person Re-Identification", section 2.
    """

    def __init__(
        self,
        margin: float | None = 0.2,
        mining: Mining = "semi_hard",
        reduction: str = "sum_over_batch_size",
        name: str = "triplet_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        check_arguments(TripletLoss.__init__, margin=margin)
        if margin is not None and not margin > 0:
            raise ValueError(
                f"`margin` must be positive, or None for a soft one. Received: margin={margin}"
            )
        if mining not in ("semi_hard", "hard", "all"):
            raise ValueError(
                f"`mining` must be 'semi_hard', 'hard' or 'all'. Received: mining={mining!r}"
            )
        self.margin = margin
        self.mining = mining

    def compare(self, same: Any, embeddings: Any) -> tuple[Any, Any]:
        d = distances(embeddings)
        positive = other_examples(same)
        counted = ops.logical_and(positive, ops.any(ops.logical_not(same), axis=1, keepdims=True))
        if self.mining == "hard":
            furthest = ops.max(ops.where(positive, d, -1.0), axis=1, keepdims=True)
            nearest = ops.min(ops.where(same, 1e9, d), axis=1, keepdims=True)
            return self._wrong(furthest - nearest), ops.any(counted, axis=1, keepdims=True)
        gaps = d[:, :, None] - d[:, None, :]  # (a, p, n): d_ap - d_an
        other = ops.logical_not(same)[:, None, :]
        if self.mining == "all":
            wrong = ops.where(other, self._wrong(gaps), 0.0)
            others = ops.sum(ops.cast(other, d.dtype), axis=2)
            return ops.sum(wrong, axis=2) / ops.maximum(others, 1.0), counted
        further = ops.logical_and(other, gaps < 0)
        next_one = ops.max(ops.where(further, gaps, -1e9), axis=2)
        furthest = ops.min(ops.where(other, gaps, 1e9), axis=2)
        gap = ops.where(ops.any(further, axis=2), next_one, furthest)
        return self._wrong(gap), counted

    def _wrong(self, gap: Any) -> Any:
        return ops.softplus(gap) if self.margin is None else ops.relu(gap + self.margin)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "mining": self.mining}
