import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_shared.errors import boundary


@keras.saving.register_keras_serializable("keras_shared")
class EuclideanRBF(keras.layers.Layer):
    """Squared Euclidean distance of the input to fixed centers, shared by all examples.

    `y_j = sum_i (x_i - w_ij)^2`. In LeNet-5 the centers are the pixels of stylised characters,
    chosen by hand and kept fixed: they count as non-trainable weights.

    Args:
        centers: one vector per output, (outputs, features).
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., features)`.

    Output shape:
        `(batch, ..., outputs)`, each at least zero.

    Raises:
        ValueError: if `centers` is no matrix of finite numbers, or not as wide as the input.

    Example:
        >>> import keras
        >>> from keras_shared.layers import EuclideanRBF
        >>> layer = EuclideanRBF([[1.0, 1.0], [-1.0, 1.0]])
        >>> layer(keras.ops.convert_to_tensor([[1.0, 0.0]])).numpy().tolist()
        [[1.0, 5.0]]

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, section II.B, equation 7.
    """

    def __init__(self, centers: Sequence[Sequence[float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        expected = "`centers` must be a matrix (outputs, features) of finite numbers. Received: "
        with boundary(f"{expected}centers={centers!r}", ValueError):
            array = np.asarray(centers, dtype="float32")
        if array.ndim != 2 or not array.size:
            raise ValueError(f"{expected}centers of shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{expected}{(~np.isfinite(array)).sum()} that are none")
        self.centers = array.tolist()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        array = np.asarray(self.centers, dtype="float32")
        if input_shape[-1] != array.shape[1]:
            raise ValueError(
                f"EuclideanRBF '{self.name}' has centers of {array.shape[1]} features. "
                f"Received: input_shape={input_shape}"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: array.shape[1]})
        self.center_weights = self.add_weight(
            name="centers",
            shape=array.shape,
            initializer=lambda shape, dtype: ops.cast(array, dtype),
            trainable=False,
        )

    def call(self, inputs: Any) -> Any:
        difference = ops.expand_dims(inputs, -2) - self.center_weights  # (..., outputs, features)
        return ops.sum(ops.square(difference), axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], len(self.centers))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "centers": self.centers}

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod((*input_shape[1:-1], *weight.shape))
