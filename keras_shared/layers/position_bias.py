import math
from typing import Any

import keras


@keras.saving.register_keras_serializable("keras_shared")
class PositionBias(keras.layers.Layer):
    """A bias for each position and map: what the nets of 1989 do not share.

    `y[p, j] = activation(x[p, j] + b[p, j])`.

    Args:
        activation: as in `keras.layers.Dense`.
        bias_initializer: initial biases.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, rows, columns, maps)`, all but the batch known.

    Output shape:
        The same.

    Example:
        >>> import keras
        >>> from keras_shared.layers import PositionBias
        >>> layer = PositionBias()
        >>> layer(keras.ops.ones((1, 8, 8, 2))).shape, layer.count_params()
        (TensorShape([1, 8, 8, 2]), 128)

    Reference:
        LeCun 1989, "Generalization and Network Design Strategies", nets 4 and 5.
    """

    def __init__(
        self, activation: Any = None, bias_initializer: Any = "zeros", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.bias = self.add_weight(
            name="bias", shape=input_shape[1:], initializer=self.bias_initializer
        )

    def call(self, inputs: Any) -> Any:
        return self.activation(inputs + self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(weight.shape)
