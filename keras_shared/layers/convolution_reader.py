import math
from typing import Any

import keras

from keras_shared.layers.reader_with_bias import ReaderWithBias
from keras_shared.tying import TieError


class ConvolutionReader(ReaderWithBias):
    """What readers of a convolution's kernel have in common, in one, two and three dimensions.

    The kernel of a convolution is `(*sides, channels / groups, filters)`, that of a depthwise one
    `(*sides, channels, depth multiplier)`; a separable one has a depthwise kernel and a pointwise
    one, `(1, ..., channels * depth multiplier, filters)`.
    """

    source_classes: tuple[type[keras.Layer], ...] = (
        keras.layers.Conv1D,
        keras.layers.Conv2D,
        keras.layers.Conv3D,
        keras.layers.DepthwiseConv1D,
        keras.layers.DepthwiseConv2D,
        keras.layers.SeparableConv1D,
        keras.layers.SeparableConv2D,
    )
    source_attributes = (
        "strides", "padding", "data_format", "dilation_rate", "groups", "depth_multiplier",
    )  # fmt: skip
    convolves = True
    keeps_positions = False
    once_for_each_input = (
        False  # whether the kernel is applied at positions of inputs or of outputs
    )

    def geometry(self) -> dict[str, Any]:
        """Strides, padding, data format and dilation."""
        source = self.describe_source()
        found = {
            "strides": source.get("strides") or 1,
            "padding": source.get("padding") or "valid",
            "data_format": source.get("data_format") or keras.config.image_data_format(),
            "dilation_rate": source.get("dilation_rate") or 1,
        }
        return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}

    def channels_first(self) -> bool:
        return bool(self.geometry()["data_format"] == "channels_first")

    def separable(self) -> bool:
        return isinstance(self.tied_weight_shape()[0], tuple)

    def depthwise(self) -> bool:
        return not self.separable() and bool(self.describe_source().get("depth_multiplier"))

    def groups(self) -> int:
        return self.describe_source().get("groups") or 1

    def channels_and_filters(self) -> tuple[int, int]:
        """How many channels the source takes, and how many it returns."""
        shape = self.tied_weight_shape()
        if self.separable():
            depthwise, pointwise = shape
            return depthwise[-2], pointwise[-1]
        *_, channels, filters = shape
        if self.depthwise():
            return channels, channels * filters
        return channels * self.groups(), filters

    def kernel_size(self) -> tuple[int, ...]:
        shape = self.tied_weight_shape()
        size: tuple[int, ...] = (shape[0] if self.separable() else shape)[:-2]
        return size

    def each(self, name: str) -> tuple[int, ...]:
        """Strides or dilation, a number for each dimension."""
        value, rank = self.geometry()[name], len(self.kernel_size())
        return (value,) * rank if isinstance(value, int) else tuple(value)

    def dilated(self) -> tuple[int, ...]:
        """The sides of the kernel, with the gaps that dilation leaves."""
        rates = self.each("dilation_rate")
        return tuple((n - 1) * rate + 1 for n, rate in zip(self.kernel_size(), rates, strict=True))

    def check_channels(self, input_shape: tuple[int | None, ...], wanted: int) -> None:
        if input_shape[1 if self.channels_first() else -1] != wanted:
            channels, filters = self.channels_and_filters()
            raise TieError(
                f"{type(self).__name__} '{self.name}' takes inputs with {wanted} channels: its "
                f"source has {channels} channels and {filters} filters, and "
                f"{self.geometry()['data_format']}. Received: input_shape={input_shape}"
            )

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        if weight is self.bias:
            return math.prod(output_shape[1:])
        shape = input_shape if self.once_for_each_input else output_shape
        positions = math.prod(shape[1:]) // shape[1 if self.channels_first() else -1]
        size: int = math.prod(weight.shape)
        return positions * size
