from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_shared.layers.convolution_reader import ConvolutionReader

_SAME_KIND = {  # number of dimensions -> Keras' layer
    "conv": {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D},
    "depthwise": {1: keras.layers.DepthwiseConv1D, 2: keras.layers.DepthwiseConv2D},
    "separable": {1: keras.layers.SeparableConv1D, 2: keras.layers.SeparableConv2D},
}


@keras.saving.register_keras_serializable("keras_shared")
class TiedConv(ConvolutionReader):
    """A convolution that reads the kernel of another: one kernel at two scales or strides.

    `y = activation(K * x + b)` with the kernel `K` of `source`, read at every call and never
    copied, and with strides, padding and dilation of its own. A kernel of 3x3 applied with
    dilations 1, 2 and 4 costs the parameters of one. `source` may be a Conv1D, Conv2D or Conv3D
    (with groups too), a depthwise or separable convolution, or a Dense, whose kernel is then
    applied at every position as a convolution of side 1. Only the bias `b` is this layer's own.

    Args:
        source: the layer that owns the kernel; built before this layer is called.
        strides: as in `keras.layers.Conv2D`; those of the source by default.
        padding: `"valid"`, `"same"`, for sequences also `"causal"`; the source's by default.
        dilation_rate: as in `keras.layers.Conv2D`; that of the source by default.
        activation: as in `keras.layers.Conv2D`.
        use_bias: as in `keras.layers.Conv2D`.
        **kwargs: `bias_initializer`, `bias_regularizer`, `bias_constraint` as in
            `keras.layers.Conv2D`, and arguments of `keras.layers.Layer`.

    Input shape:
        What the source takes, of any size: `(batch, rows, columns, channels)` of a Conv2D.

    Output shape:
        As of a plain layer with this kernel: `(batch, new rows, new columns, filters)`.

    Raises:
        TieError: if `source` is no convolution and no Dense, was never built, cannot be found in
            the model that is called, or if the inputs have not as many channels as its inputs.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedConv
        >>> image = keras.Input((32, 32, 3))
        >>> near = keras.layers.Conv2D(8, 3, padding="same")
        >>> maps = [near(image), TiedConv(near, dilation_rate=4)(image)]
        >>> model = keras.Model(image, keras.layers.Concatenate()(maps))
        >>> model.count_params()  # 9 * 3 * 8, and two biases of 8
        232

    Reference:
        Li, Chen, Wang, Zhang 2019, "Scale-Aware Trident Networks for Object Detection" (branches
        of different dilation share their parameters).
    """

    source_classes = (*ConvolutionReader.source_classes, keras.layers.Dense)

    def __init__(
        self,
        source: keras.Layer | dict[str, Any],
        strides: int | tuple[int, ...] | None = None,
        padding: str | None = None,
        dilation_rate: int | tuple[int, ...] | None = None,
        activation: Any = None,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(source, activation, use_bias, **kwargs)
        # lists, as JSON gives them back, Keras would wrap, and its operations want tuples
        self.strides = tuple(strides) if isinstance(strides, Sequence) else strides
        self.padding = padding.lower() if isinstance(padding, str) else padding
        self.dilation_rate = (
            tuple(dilation_rate) if isinstance(dilation_rate, Sequence) else dilation_rate
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels, filters = self.channels_and_filters()
        self.check_channels(input_shape, channels)
        self.compute_output_shape(input_shape)  # Keras refuses strides beside dilation, and more
        self.add_bias((filters,))
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        rank = len(inputs.shape) - 2
        weight = self.tied_weight()
        geometry = self.geometry()
        if geometry["padding"] == "causal":
            edges = [(0, 0)] * 3
            edges[2 if self.channels_first() else 1] = (self.dilated()[0] - 1, 0)
            inputs, geometry["padding"] = ops.pad(inputs, edges), "valid"
        if self.separable():
            outputs = ops.separable_conv(inputs, *weight, **geometry)
        elif self.depthwise():
            outputs = ops.depthwise_conv(inputs, weight, **geometry)
        else:
            kernel = ops.reshape(weight, self._sides(rank) + tuple(weight.shape[-2:]))
            outputs = ops.conv(inputs, kernel, **geometry)
        return self.finish(outputs, self.channels_first())

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        kind, config = self._plain(len(input_shape) - 2)
        if config["padding"] == "causal":
            config["padding"] = "same"  # of the same size, and Keras' other layers have it
        shape: tuple[int | None, ...] = tuple(kind(**config).compute_output_shape(input_shape))
        return shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
        }

    def geometry(self) -> dict[str, Any]:
        own = {
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
        }
        return super().geometry() | {k: v for k, v in own.items() if v is not None}

    def plain_counterpart(self) -> tuple[type[keras.Layer], dict[str, Any]]:
        kind, config = self._plain(len(self.get_build_config()["input_shape"]) - 2)
        if config["padding"] == "causal" and kind is not keras.layers.Conv1D:
            return super().plain_counterpart()  # Keras has no such layer
        config |= self.plain_config()
        if self.separable() or self.depthwise():
            config["depthwise_initializer"] = config.pop("kernel_initializer")
        if self.separable():
            drawn_by = keras.initializers.serialize(self.source().pointwise_initializer)
            config["pointwise_initializer"] = drawn_by
        return kind, config

    def plain_values(self) -> list[Any]:
        sides = self._sides(len(self.get_build_config()["input_shape"]) - 2)
        weights = self._shared(self.source())
        if not self.kernel_size():  # of a Dense
            weights = [weights[0].reshape(sides + weights[0].shape)]
        return [*weights, *self.get_weights()]

    def _sides(self, rank: int) -> tuple[int, ...]:
        return self.kernel_size() or (1,) * rank  # a Dense has none

    def _plain(self, rank: int) -> tuple[type[keras.Layer], dict[str, Any]]:
        """The layer of Keras with these shapes."""
        _, filters = self.channels_and_filters()
        config: dict[str, Any] = {"kernel_size": self._sides(rank), **self.geometry()}
        multiplier = self.describe_source().get("depth_multiplier")
        if self.depthwise():
            return _SAME_KIND["depthwise"][rank], config | {"depth_multiplier": multiplier}
        config["filters"] = filters
        if self.separable():
            return _SAME_KIND["separable"][rank], config | {"depth_multiplier": multiplier}
        return _SAME_KIND["conv"][rank], config | {"groups": self.groups()}
