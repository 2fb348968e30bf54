import math
import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_shared.errors import attempt
from keras_shared.initializers.svd import refuse_delta
from keras_shared.layers.schedules import positive


@keras.saving.register_keras_serializable("keras_shared")
class ConnectionTableConv2D(keras.layers.Layer):
    """A convolution whose filters each read only some maps; a kernel is shared by all positions.

    `y_j = activation(sum over i in connections[j] of k_ij * x_i + b_j)`. One small kernel per
    pair of a map and a filter that reads it: C3 of LeNet-5 has 60 kernels of 5x5 and 16 biases,
    1,516 parameters, where a dense convolution has 2,416.

    Args:
        connections: for each filter, the indices of the input maps that it reads.
        kernel_size: side of the square kernels, in pixels.
        activation: as in `keras.layers.Conv2D`.
        kernel_initializer: initial kernels, as one tensor `(rows, columns, pairs)`.
        bias_initializer: as in `keras.layers.Conv2D`.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, rows, columns, maps)`.

    Output shape:
        `(batch, rows - kernel_size + 1, columns - kernel_size + 1, len(connections))`.

    Raises:
        ValueError: if a filter reads no map, a map twice, or a map that the input lacks.

    Example:
        >>> import keras
        >>> from keras_shared.layers import ConnectionTableConv2D
        >>> layer = ConnectionTableConv2D([[0, 1], [1, 2]], kernel_size=5)
        >>> layer(keras.ops.ones((1, 14, 14, 3))).shape, layer.count_params()  # 4 * 25 + 2
        (TensorShape([1, 10, 10, 2]), 102)

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, table I (layer C3).
    """

    convolves = True

    def __init__(
        self,
        connections: Sequence[Sequence[int]],
        kernel_size: int,
        activation: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        found, wrong = attempt(
            lambda: [[operator.index(i) for i in maps] for maps in connections], TypeError
        )
        if wrong or not found or not all(maps and len({*maps}) == len(maps) for maps in found):
            raise ValueError(
                "Each filter must read at least one map, and none twice: a list of their indices "
                f"for each is expected. Received: connections={connections!r}"
            )
        self.connections: list[list[int]] = found
        self.kernel_size = positive("kernel_size", kernel_size)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        refuse_delta(self.kernel_initializer, self)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: tuple[int, ...]) -> None:
        maps, filters = input_shape[-1], len(self.connections)
        pairs = [(i, j) for j, reads in enumerate(self.connections) for i in reads]
        if not all(0 <= i < maps for i, _ in pairs):
            raise ValueError(
                f"`connections` must name maps 0 to {maps - 1} of the input. Received: "
                f"connections={self.connections}, input_shape={input_shape}"
            )
        # (pairs, maps * filters): a one where the kernel of a pair goes in the dense kernel
        self._placement = np.zeros((len(pairs), maps * filters), "float32")
        for pair, (i, j) in enumerate(pairs):
            self._placement[pair, i * filters + j] = 1
        side = self.kernel_size
        self._dense_shape = (side, side, maps, filters)
        self.kernel = self.add_weight(
            name="kernel", shape=(side, side, len(pairs)), initializer=self.kernel_initializer
        )
        self.bias = self.add_weight(
            name="bias", shape=(filters,), initializer=self.bias_initializer
        )

    def call(self, inputs: Any) -> Any:
        placement = ops.cast(self._placement, self.compute_dtype)
        dense = ops.reshape(ops.matmul(self.kernel, placement), self._dense_shape)
        outputs = ops.conv(inputs, dense, padding="valid", data_format="channels_last")
        return self.activation(outputs + self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, *sides, _ = input_shape
        lost = self.kernel_size - 1
        return (batch, *(None if s is None else s - lost for s in sides), len(self.connections))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "connections": self.connections,
            "kernel_size": self.kernel_size,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        size: int = math.prod(weight.shape)
        return math.prod(output_shape[1:-1]) * size  # once at each position
