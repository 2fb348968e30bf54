import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_shared.layers.schedules import positive


@keras.saving.register_keras_serializable("keras_shared")
class LocallyConnected2D(keras.layers.Layer):
    """A convolution that shares nothing: each position has kernels and biases of its own.

    `y[p, j] = activation(sum over the field of p of k[p, :, :, i, j] x[.., i] + b[p, j])`. With
    `P` output positions it costs `P` times the parameters of `Conv2D`, for as many multiply-adds.

    Args:
        filters: number of maps that come out.
        kernel_size: (rows, columns) of a field, in pixels; or a side.
        strides: (rows, columns) between fields; or a number.
        padding: `"valid"` or `"same"`, as in `keras.layers.Conv2D`.
        activation: as in `keras.layers.Conv2D`.
        use_bias: whether each position and map has a bias.
        kernel_initializer: initial kernels, drawn as one matrix (inputs of a field, positions *
            filters): choose one that looks at the inputs alone, as the default does.
        bias_initializer: initial biases.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, rows, columns, maps)`, rows and columns known.

    Output shape:
        `(batch, new rows, new columns, filters)`, as of `keras.layers.Conv2D`.

    Raises:
        ValueError: for numbers that are not positive integers, or if rows, columns or maps of the
            input are not known.

    Example:
        >>> import keras
        >>> from keras_shared.layers import LocallyConnected2D
        >>> layer = LocallyConnected2D(1, 3, strides=2, padding="same")
        >>> layer(keras.ops.ones((1, 16, 16, 1))).shape, layer.count_params()  # 64 * (9 + 1)
        (TensorShape([1, 8, 8, 1]), 640)

    Reference:
        LeCun 1989, "Generalization and Network Design Strategies", net 3.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "lecun_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = positive("filters", filters)
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        self.padding = padding.lower() if isinstance(padding, str) else padding
        if self.padding not in ("valid", "same"):
            raise ValueError(f"`padding` must be 'valid' or 'same'. Received: padding={padding!r}")
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                f"LocallyConnected2D '{self.name}' takes (batch, rows, columns, maps), all but the "
                f"batch known. Received: input_shape={input_shape}"
            )
        self.input_spec = keras.layers.InputSpec(shape=(None, *input_shape[1:]))
        positions: list[Any] = list(self.compute_output_shape(input_shape)[1:3])
        inputs = math.prod(self.kernel_size) * input_shape[-1]  # type: ignore[operator]
        matrix = (inputs, math.prod(positions) * self.filters)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(inputs, *positions, self.filters),
            initializer=lambda shape, dtype: ops.reshape(
                self.kernel_initializer(matrix, dtype), shape
            ),
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(*positions, self.filters), initializer=self.bias_initializer
            )

    def call(self, inputs: Any) -> Any:
        positions: list[Any] = list(self.compute_output_shape(inputs.shape)[1:3])
        if self.padding == "same":  # as TensorFlow pads: the odd pixel at the end
            missing = [
                max((new - 1) * stride + side - old, 0)
                for new, stride, side, old in zip(
                    positions, self.strides, self.kernel_size, inputs.shape[1:3], strict=True
                )
            ]
            around = [(lost // 2, lost - lost // 2) for lost in missing]
            inputs = ops.pad(inputs, [(0, 0), *around, (0, 0)])
        down, right = self.strides
        height, width = (positions[0] - 1) * down + 1, (positions[1] - 1) * right + 1
        fields = [  # each pixel of a field, for all positions: (batch, rows, columns, maps)
            inputs[:, i : i + height : down, j : j + width : right]
            for i in range(self.kernel_size[0])
            for j in range(self.kernel_size[1])
        ]
        outputs = ops.einsum("brci,irco->brco", ops.concatenate(fields, axis=-1), self.kernel)
        return self.activation(outputs if self.bias is None else outputs + self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, *sides, _ = input_shape
        lost = (0, 0) if self.padding == "same" else (k - 1 for k in self.kernel_size)
        new = [
            None if side is None else -((side - less) // -stride)
            for side, less, stride in zip(sides, lost, self.strides, strict=True)
        ]
        return (batch, *new, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(weight.shape)  # each number is read once


def _pair(name: str, given: Any) -> tuple[int, int]:
    both = tuple(given) if isinstance(given, Iterable) else (given, given)
    expected = "(rows, columns), or one positive integer for both"
    if len(both) != 2:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={given!r}")
    return positive(name, both[0], expected), positive(name, both[1], expected)
