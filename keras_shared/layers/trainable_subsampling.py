import math
from typing import Any

import keras
from keras import ops

from keras_shared.layers.schedules import positive


@keras.saving.register_keras_serializable("keras_shared")
class TrainableSubsampling(keras.layers.Layer):
    """Subsampling as in LeNet-5: one coefficient and one bias per map, shared by all positions.

    `y = activation(c * sum(x over a 2x2 field) + b)`, fields side by side. It costs two
    parameters per map.

    Args:
        pool_size: side of the square field, in pixels; also the stride.
        activation: as in `keras.layers.Dense`.
        coefficient_initializer: initial coefficients; by default the sum becomes a mean for the
            2x2 fields of LeNet-5.
        bias_initializer: initial biases.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, rows, columns, maps)`.

    Output shape:
        `(batch, rows // pool_size, columns // pool_size, maps)`.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TrainableSubsampling
        >>> TrainableSubsampling()(keras.ops.ones((1, 4, 4, 6))).shape
        TensorShape([1, 2, 2, 6])

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, section II.B (layers S2 and S4).
    """

    convolves = True

    def __init__(
        self,
        pool_size: int = 2,
        activation: Any = None,
        coefficient_initializer: Any = None,
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size = positive("pool_size", pool_size)
        self.activation = keras.activations.get(activation)
        self.coefficient_initializer = keras.initializers.get(
            coefficient_initializer or keras.initializers.Constant(0.25)
        )
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        maps = (input_shape[-1],)
        self.coefficient = self.add_weight(
            name="coefficient", shape=maps, initializer=self.coefficient_initializer
        )
        self.bias = self.add_weight(name="bias", shape=maps, initializer=self.bias_initializer)

    def call(self, inputs: Any) -> Any:
        mean = ops.average_pool(inputs, self.pool_size, data_format="channels_last")
        return self.activation(self.coefficient * (self.pool_size**2 * mean) + self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, *sides, maps = input_shape
        return (batch, *(None if s is None else s // self.pool_size for s in sides), maps)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "activation": keras.activations.serialize(self.activation),
            "coefficient_initializer": keras.initializers.serialize(self.coefficient_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod((output_shape if weight is self.bias else input_shape)[1:])
