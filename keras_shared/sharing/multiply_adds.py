"""Multiply-adds that read a weight: what LeCun et al. 1998 count as connections."""

import math

import keras

from keras_shared.layers import (
    ConnectionTableConv2D,
    EuclideanRBF,
    TiedConv2DTranspose,
    TiedDense,
    TrainableSubsampling,
)
from keras_shared.sharing.calls import Call

_ONE_FOR_EACH_OUTPUT = (
    keras.layers.Embedding,  # a row for each index
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)
_ONCE_FOR_EACH_VECTOR = (keras.layers.Dense, TiedDense, EuclideanRBF)
_ONCE_FOR_EACH_INPUT_POSITION = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    TiedConv2DTranspose,
)
_ONCE_FOR_EACH_OUTPUT_POSITION = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    ConnectionTableConv2D,
)


def links(call: Call, shape: tuple[int, ...], is_bias: bool) -> int | None:
    """How many multiply-adds of one example read a weight of this shape in this call.

    Args:
        call: the call that reads it.
        shape: shape of the weight.
        is_bias: whether it is added to the outputs.

    Returns:
        The number, or None for a layer whose arithmetic is not known here.
    """
    layer, inputs, outputs = call.layer, math.prod(call.inputs[1:]), math.prod(call.outputs[1:])
    if hasattr(layer, "count_links"):  # a layer that counts for itself
        return layer.count_links(shape)
    if is_bias or isinstance(layer, _ONE_FOR_EACH_OUTPUT):
        return outputs
    if isinstance(layer, TrainableSubsampling):
        return inputs  # each output sums its own field
    if isinstance(layer, _ONCE_FOR_EACH_VECTOR):
        times = inputs // call.inputs[-1]
    elif isinstance(layer, _ONCE_FOR_EACH_INPUT_POSITION):
        times = inputs // shape[-1]  # (..., outputs, inputs), also of the adjoint's source
    elif isinstance(layer, _ONCE_FOR_EACH_OUTPUT_POSITION):
        times = outputs // getattr(layer, "filters", call.outputs[-1])
    else:
        return None
    return math.prod(shape) * times
