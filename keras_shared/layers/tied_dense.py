import math
from typing import Any

import keras
from keras import ops

from keras_shared.layers.reader_with_bias import ReaderWithBias
from keras_shared.tying import TieError

# From this number of kernel elements on, a CPU is faster where the other factor is transposed, and
# the gradient needs no transpose of the kernel's size: benchmarks/cost_of_ties.py. Below, slower.
LARGE = 2**22


@keras.saving.register_keras_serializable("keras_shared")
class TiedDense(ReaderWithBias):
    """A dense layer that reads the kernel of a Dense, or the table of an Embedding, transposed.

    `y = activation(x W^T + b)`. `W` (inputs, units) belongs to `source` and is read at every
    call, never copied: there is one variable, and the gradients of both uses add up in it. Only
    the bias `b` is this layer's own. A decoder of 1000 -> 784 units then costs 784 parameters
    instead of 784,784.

    The layer follows its source: LoRA is merged, an int8 or int4 kernel is dequantised. Freezing
    it freezes its bias; to freeze the kernel, freeze the source. How the source is found again
    after loading stands in `keras_shared.tying.TiedReader`.

    Args:
        source: the Dense or Embedding that owns the kernel; built before this layer is called.
        activation: as in `keras.layers.Dense`.
        use_bias: as in `keras.layers.Dense`.
        bias_initializer: as in `keras.layers.Dense`.
        bias_regularizer: as in `keras.layers.Dense`.
        bias_constraint: as in `keras.layers.Dense`.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., units of the source)`; for an Embedding `(batch, ..., output_dim)`.

    Output shape:
        `(batch, ..., inputs of the source)`; for an Embedding `(batch, ..., input_dim)`.

    Raises:
        TieError: if `source` is no Dense or Embedding, was never built, cannot be found in the
            model that is called, or if the inputs are not as wide as its outputs.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedDense
        >>> pixels = keras.Input((784,))
        >>> encoder = keras.layers.Dense(30, name="encoder")
        >>> model = keras.Model(pixels, TiedDense(encoder)(encoder(pixels)))
        >>> model.count_params()  # 784 * 30 + 30, and 784 for the bias of TiedDense
        24334

    Reference:
        Hinton & Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural
        Networks", figure 1 (unrolling); Press & Wolf 2017, "Using the Output Embedding to
        Improve Language Models", section 2 (embeddings).
    """

    source_classes = (keras.layers.Dense, keras.layers.Embedding)
    form = "transposed"
    plain_axes = (1, 0)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        inputs, units = self.tied_weight_shape()
        if input_shape[-1] != units:
            raise TieError(
                f"TiedDense '{self.name}' takes inputs (..., {units}), the outputs of its source, "
                f"whose kernel is ({inputs}, {units}). Received: input_shape={input_shape}"
            )
        self.add_bias((inputs,))
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        kernel = self.tied_weight()  # (inputs of the source, units of the source)
        if len(inputs.shape) == 2 and math.prod(kernel.shape) >= LARGE:
            outputs = ops.transpose(ops.matmul(kernel, ops.transpose(inputs)))  # (W x^T)^T
        else:
            outputs = ops.matmul(inputs, ops.transpose(kernel))  # the transpose is folded away
        return self.finish(outputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.tied_weight_shape()[0])

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        size: int = math.prod(weight.shape)
        return math.prod(input_shape[1:-1]) * size  # once for each vector

    def plain_counterpart(self) -> tuple[type[keras.Layer], dict[str, Any]]:
        units, _ = self.tied_weight_shape()
        return keras.layers.Dense, {"units": units, **self.plain_config()}
