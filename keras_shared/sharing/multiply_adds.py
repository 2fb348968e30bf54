"""Multiply-adds that read a weight: what LeCun et al. 1998 count as connections."""

import math

import keras

from keras_shared.sharing.calls import Call
from keras_shared.tying.effective_weight import weight_shape

_ONE_FOR_EACH_OUTPUT = (
    keras.layers.Embedding,  # a row for each index
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)
_ONCE_FOR_EACH_INPUT_POSITION = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_CELLS = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)
_ONCE_FOR_EACH_OUTPUT_POSITION = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)  # positions of outputs


def multiply_adds(call: Call, weight: keras.Variable) -> int | None:
    """How many multiply-adds of one example read `weight` in this call.

    A layer with a method `multiply_adds(weight, input_shape, output_shape)` is asked, see
    `keras_shared.tying.TiedReader`. Keras' own layers stand in a table here.

    Args:
        call: the call that reads it.
        weight: a variable of the layer, or of its source.

    Returns:
        The number, or None for a layer whose arithmetic is not known. Of the cell of an RNN it is
        that of all steps.
    """
    once = _in_one_call(call, weight)
    return (
        None if once is None else once * call.examples * (1 if call.steps is None else call.steps)
    )


def _in_one_call(call: Call, weight: keras.Variable) -> int | None:
    layer = call.layer
    shape: tuple[int, ...] = tuple(weight.shape)
    inputs, outputs = math.prod(call.inputs[1:]), math.prod(call.outputs[1:])
    if callable(getattr(layer, "multiply_adds", None)):
        count: int | None = layer.multiply_adds(weight, call.inputs, call.outputs)
        return count
    if isinstance(layer, _CELLS):
        return math.prod(shape)  # a vector of inputs, a vector of states
    reversible = isinstance(layer, keras.layers.ReversibleEmbedding)
    reverse = reversible and call.outputs[1:-1] != call.inputs[1:]  # back from vectors to words
    each = isinstance(layer, _ONE_FOR_EACH_OUTPUT) and not reverse
    if weight.name in ("bias", "beta") or each:
        return outputs
    if isinstance(layer, keras.layers.Dense) or reverse:
        times = inputs // call.inputs[-1]  # for each vector
    elif isinstance(layer, keras.layers.EinsumDense) and weight.name == "kernel":
        read, kernel = layer.equation.replace(" ", "").split("->")[0].split(",")
        sides = zip(kernel, weight_shape(layer) or (), strict=True)
        new: int = math.prod(side for axis, side in sides if axis not in read)
        return inputs * new  # each number of the inputs is multiplied once for each new axis
    elif isinstance(layer, _ONCE_FOR_EACH_INPUT_POSITION):
        times = inputs // shape[-1]  # shape: (..., filters, channels of the input)
    elif isinstance(layer, _DEPTHWISE):
        times = outputs // math.prod(shape[-2:])  # shape: (..., channels, depth multiplier)
    elif isinstance(layer, (*_ONCE_FOR_EACH_OUTPUT_POSITION, *_SEPARABLE)):
        times = outputs // layer.filters
    else:
        return None
    return math.prod(shape) * times
