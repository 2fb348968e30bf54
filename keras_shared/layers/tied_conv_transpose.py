from typing import Any

import keras
from keras import ops

from keras_shared.layers.convolution_reader import ConvolutionReader

_TRANSPOSES = {
    1: keras.layers.Conv1DTranspose,
    2: keras.layers.Conv2DTranspose,
    3: keras.layers.Conv3DTranspose,
}
ANY = 64  # a side, to see how much larger than `stride * side` the output is


@keras.saving.register_keras_serializable("keras_shared")
class TiedConvTranspose(ConvolutionReader):
    """The adjoint of a convolution that is owned elsewhere: the same kernel, never copied.

    `y = activation(K^T x + b)`, where `K` is the linear map of the source convolution: without
    bias and activation, `<K u, v> = <u, K^T v>` for all inputs `u` and maps `v`. The kernel has
    one variable, the source's; strides, padding, dilation, groups and data format follow the
    source, which may be a Conv1D, Conv2D or Conv3D, or a depthwise or separable convolution. Only
    the bias, one number per channel, is this layer's own.

    Args:
        source: the convolution that owns the kernel; built before this layer is called.
        activation: as in `keras.layers.Conv2DTranspose`.
        use_bias: as in `keras.layers.Conv2DTranspose`.
        output_padding: as in `keras.layers.Conv2DTranspose`; needed where the stride does not
            divide, since several image sizes then lead to one map size.
        **kwargs: `bias_initializer`, `bias_regularizer`, `bias_constraint` as in
            `keras.layers.Conv2DTranspose`, and arguments of `keras.layers.Layer`.

    Input shape:
        The source's output shape: `(batch, rows, columns, filters)` of a Conv2D.

    Output shape:
        `(batch, rows, columns, channels)`, as of a `Conv2DTranspose` of the same geometry.

    Raises:
        TieError: if `source` is no convolution, was never built, cannot be found in the model
            that is called, or if the inputs have not as many channels as its outputs.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedConvTranspose
        >>> image = keras.Input((8, 8, 1))
        >>> conv = keras.layers.Conv2D(16, 3, strides=2, padding="same")
        >>> model = keras.Model(image, TiedConvTranspose(conv)(conv(image)))
        >>> model.output_shape, model.count_params()  # 9 * 16 + 16, and 1
        ((None, 8, 8, 1), 161)

    Reference:
        Masci et al. 2011, "Stacked Convolutional Auto-Encoders for Hierarchical Feature
        Extraction", section 3 (there with the kernel flipped, which is the adjoint).
    """

    form = "convolution adjoint"
    once_for_each_input = True

    def __init__(
        self,
        source: keras.Layer | dict[str, Any],
        activation: Any = None,
        use_bias: bool = True,
        output_padding: int | tuple[int, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(source, activation, use_bias, **kwargs)
        self.output_padding = output_padding

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels, filters = self.channels_and_filters()
        self.check_channels(input_shape, filters)
        self.add_bias((channels,))
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        weight = self.tied_weight()
        if self.separable():
            depthwise, pointwise = weight
            data_format = self.geometry()["data_format"]
            inputs = ops.conv_transpose(inputs, pointwise, strides=1, data_format=data_format)
            outputs = self._depthwise(inputs, depthwise)
        elif self.depthwise():
            outputs = self._depthwise(inputs, weight)
        else:
            outputs = self._grouped(inputs, weight)
        return self.finish(outputs, self.channels_first())

    def _grouped(self, inputs: Any, kernel: Any) -> Any:
        axis, groups = 1 if self.channels_first() else -1, self.groups()
        geometry = self.geometry() | {"output_padding": self.output_padding}
        causal = geometry["padding"] == "causal"
        geometry["padding"] = "valid" if causal else geometry["padding"]
        # ops.conv_transpose takes a kernel as (*sides, out, in): the source's, unchanged
        parts = [
            ops.conv_transpose(maps, part, **geometry)
            for maps, part in zip(
                [inputs] if groups == 1 else ops.split(inputs, groups, axis),
                [kernel] if groups == 1 else ops.split(kernel, groups, -1),
                strict=True,
            )
        ]
        outputs = parts[0] if groups == 1 else ops.concatenate(parts, axis)
        if causal:  # the source put zeros before its inputs
            before = self.dilated()[0] - 1
            outputs = outputs[..., before:] if self.channels_first() else outputs[:, before:]
        return outputs

    def _depthwise(self, inputs: Any, kernel: Any) -> Any:
        """Zeros between the inputs, and each channel convolved with its kernels turned around."""
        *sides, channels, multiplier = kernel.shape
        rank, dilated = len(sides), self.dilated()
        axes = tuple(range(rank))
        if self.channels_first():
            inputs = ops.moveaxis(inputs, 1, -1)
        _, *sizes, _ = self._last(self.compute_output_shape(self._first((1, *[ANY] * rank, -1))))
        cut: list[slice] = []
        for axis, stride in zip(axes, self.each("strides"), strict=True):
            more = sizes[axis] - ANY * stride
            same = self.geometry()["padding"] == "same"
            before = max(dilated[axis] - stride - more, 0) // 2 if same else 0  # the source's
            inputs = _zeros_between(inputs, axis + 1, stride)
            edges = [(0, 0)] * (rank + 2)
            edges[axis + 1] = (dilated[axis] - 1 - before, max(more + before, 0))
            inputs = ops.pad(inputs, edges)
            cut.append(slice(None, min(more + before, 0) or None))
        turned = ops.reshape(ops.flip(kernel, axes), (*sides, channels * multiplier, 1))
        maps = ops.depthwise_conv(
            inputs,
            turned,
            data_format="channels_last",
            dilation_rate=self.each("dilation_rate"),
        )[(slice(None), *cut)]
        each = ops.reshape(maps, (*ops.shape(maps)[:-1], channels, multiplier))
        outputs = ops.sum(each, axis=-1)
        return ops.moveaxis(outputs, -1, 1) if self.channels_first() else outputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        channels, _ = self.channels_and_filters()
        geometry = self.geometry()
        causal = geometry["padding"] == "causal"
        geometry["padding"] = "valid" if causal else geometry["padding"]
        sides = self.kernel_size()
        layer = _TRANSPOSES[len(sides)](
            channels, sides, output_padding=self.output_padding, **geometry
        )
        shape: tuple[int | None, ...] = tuple(layer.compute_output_shape(input_shape))
        if not causal:
            return shape
        batch, steps, last = self._last(shape)
        steps = None if steps is None else steps - self.dilated()[0] + 1
        return self._first((batch, steps, last))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_padding": self.output_padding}

    def plain_counterpart(self) -> tuple[type[keras.Layer], dict[str, Any]]:
        geometry = self.geometry()
        if self.separable() or self.depthwise() or self.groups() > 1:
            return super().plain_counterpart()  # Keras has no such layer
        if geometry["padding"] == "causal":
            return super().plain_counterpart()
        channels, _ = self.channels_and_filters()
        sides = self.kernel_size()
        config = {"filters": channels, "kernel_size": sides, "output_padding": self.output_padding}
        return _TRANSPOSES[len(sides)], config | geometry | self.plain_config()

    def _last(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """A shape in the order of `data_format`, with its channels last."""
        return (shape[0], *shape[2:], shape[1]) if self.channels_first() else shape

    def _first(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """The way back."""
        return (shape[0], shape[-1], *shape[1:-1]) if self.channels_first() else shape


@keras.saving.register_keras_serializable("keras_shared")
class TiedConv2DTranspose(TiedConvTranspose):
    """`TiedConvTranspose` of a Conv2D alone.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedConv2DTranspose
        >>> conv = keras.layers.Conv2D(4, 3)
        >>> TiedConv2DTranspose(conv)(conv(keras.ops.ones((1, 8, 8, 2)))).shape
        TensorShape([1, 8, 8, 2])
    """

    source_classes = (keras.layers.Conv2D,)


def _zeros_between(inputs: Any, axis: int, stride: int) -> Any:
    """`stride - 1` zeros after each element along `axis`."""
    if stride == 1:
        return inputs
    shape = list(ops.shape(inputs))
    edges = [(0, 0)] * (len(shape) + 1)
    edges[axis + 1] = (0, stride - 1)
    spread = ops.pad(ops.expand_dims(inputs, axis + 1), edges)
    shape[axis] *= stride
    return ops.reshape(spread, shape)
