import math
from typing import Any

import keras
from keras import ops

from keras_shared.arguments import check_arguments


@keras.saving.register_keras_serializable("keras_shared")
class ContrastiveLoss(keras.losses.Loss):
    """Pulls the embeddings of a "same" pair together and pushes the others a margin apart.

    `L = y d^2 / 2 + (1 - y) max(0, margin - d)^2 / 2`, with `d` the distance of a pair and `y` 1
    for "same", 0 for "different".

    With weights the value is the sum of weight times loss, over the number of pairs.

    Args:
        margin: distance beyond which a "different" pair costs nothing.
        reduction: as in `keras.losses.Loss`.
        name: name of the loss.

    Raises:
        ValueError: if the margin is not positive.

    Example:
        >>> from keras_shared.losses import ContrastiveLoss
        >>> float(ContrastiveLoss(margin=1.0)([[1.0], [0.0]], [[1.0], [0.5]]))  # (.5 + .125) / 2
        0.3125

    Reference:
        Hadsell, Chopra, LeCun 2006, "Dimensionality Reduction by Learning an Invariant
        Mapping", equation 4 (where Y is 0 for a similar pair).
    """

    def __init__(
        self,
        margin: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str = "contrastive_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        check_arguments(ContrastiveLoss.__init__, margin=margin)
        if not margin > 0:
            raise ValueError(f"`margin` must be positive. Received: margin={margin}")
        self.margin = margin

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return contrastive_loss(y_true, y_pred, self.margin)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable("keras_shared")
def contrastive_loss(y_true: Any, y_pred: Any, margin: float = 1.0) -> Any:
    """The loss of each pair, as `ContrastiveLoss` takes the mean of."""
    y_pred = ops.convert_to_tensor(y_pred)
    shapes = [ops.convert_to_tensor(given).shape for given in (y_true, y_pred)]
    known = all(getattr(shape, "rank", 0) is not None for shape in shapes)
    if known and not _fit(*map(tuple, shapes)):
        raise ValueError(
            "Expected a distance for each pair, and a label for it, 1 for the same and 0 for "
            f"different. Received: labels of shape {tuple(shapes[0])}, distances of shape "
            f"{tuple(shapes[1])}"
        )
    y_true = ops.reshape(ops.cast(y_true, y_pred.dtype), ops.shape(y_pred))
    apart = ops.maximum(0.0, margin - y_pred)
    loss = y_true * ops.square(y_pred) / 2 + (1 - y_true) * ops.square(apart) / 2
    return ops.mean(loss, axis=-1)


def _fit(labels: tuple[int | None, ...], distances: tuple[int | None, ...]) -> bool:
    """Whether they are as many, as far as their shapes are known."""
    sizes = [side for side in (labels[:1], distances[:1]) if side and side[0] is not None]
    inner = [shape[1:] for shape in (labels, distances)]
    alike = any(None in shape for shape in inner) or math.prod(inner[0]) == math.prod(inner[1])  # type: ignore[arg-type]
    return alike and len({*sizes}) < 2
