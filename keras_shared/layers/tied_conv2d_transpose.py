import math
from typing import Any

import keras
from keras import ops

from keras_shared.tying import TiedReader, TieError

_OF_CONV2D_TRANSPOSE = {  # what Conv2DTranspose has too
    "activation", "use_bias", "bias_initializer", "bias_regularizer", "bias_constraint",
    "activity_regularizer", "trainable", "dtype",
}  # fmt: skip


@keras.saving.register_keras_serializable("keras_shared")
class TiedConv2DTranspose(TiedReader):
    """The adjoint of a Conv2D that is owned elsewhere: the same kernel, read and never copied.

    `y = activation(K^T x + b)`, where `K` is the linear map of the source convolution: without
    bias and activation, `<K u, v> = <u, K^T v>` for all images `u` and maps `v`. The kernel
    `(height, width, channels, filters)` has one variable, the source's; strides, padding and
    data format follow the source. Only the bias, one number per channel, is this layer's own.

    Args:
        source: the Conv2D that owns the kernel; built before this layer is called.
        activation: as in `keras.layers.Conv2DTranspose`.
        use_bias: as in `keras.layers.Conv2DTranspose`.
        output_padding: as in `keras.layers.Conv2DTranspose`; needed where the stride does not
            divide, since several image sizes then lead to one map size.
        bias_initializer: as in `keras.layers.Conv2DTranspose`.
        bias_regularizer: as in `keras.layers.Conv2DTranspose`.
        bias_constraint: as in `keras.layers.Conv2DTranspose`.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        The source's output shape, `(batch, rows, columns, filters)` with channels last.

    Output shape:
        `(batch, rows, columns, channels)`, as of a `Conv2DTranspose` of the same geometry.

    Raises:
        TieError: if `source` is no Conv2D, has groups or dilation, was never built, cannot be
            found, or if the inputs have not as many channels as its outputs.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedConv2DTranspose
        >>> image = keras.Input((8, 8, 1))
        >>> conv = keras.layers.Conv2D(16, 3, strides=2, padding="same")
        >>> model = keras.Model(image, TiedConv2DTranspose(conv)(conv(image)))
        >>> model.output_shape, model.count_params()  # 9 * 16 + 16, and 1
        ((None, 8, 8, 1), 161)

    Reference:
        Masci et al. 2011, "Stacked Convolutional Auto-Encoders for Hierarchical Feature
        Extraction", section 3 (there with the kernel flipped, which is the adjoint).
    """

    source_classes = (keras.layers.Conv2D,)
    source_attributes = ("strides", "padding", "data_format")
    form = "convolution adjoint"
    convolves = True

    def __init__(
        self,
        source: keras.Layer | dict[str, Any],
        activation: Any = None,
        use_bias: bool = True,
        output_padding: int | tuple[int, int] | None = None,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(source, **kwargs)
        if isinstance(source, keras.Layer) and (
            source.groups != 1 or tuple(source.dilation_rate) != (1, 1)
        ):
            raise TieError(
                "TiedConv2DTranspose reads a Conv2D without groups and without dilation. Received: "
                f"'{source.name}' with groups={source.groups}, dilation_rate={source.dilation_rate}"
            )
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.output_padding = output_padding
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        *_, channels, filters = self.tied_weight_shape()
        axis = -1 if self.geometry()["data_format"] == "channels_last" else 1
        if input_shape[axis] != filters:
            raise TieError(
                f"TiedConv2DTranspose '{self.name}' takes maps with {filters} channels, as its "
                f"source returns them. Received: input_shape={input_shape}"
            )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(channels,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        geometry = self.geometry()
        # ops.conv_transpose takes the kernel as (height, width, out, in): the source's, unchanged
        outputs = ops.conv_transpose(inputs, self.tied_weight(), **geometry)
        if self.bias is not None:
            last = geometry["data_format"] == "channels_last"
            outputs += self.bias if last else ops.reshape(self.bias, (-1, 1, 1))
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        *kernel_size, channels, _ = self.tied_weight_shape()
        layer = keras.layers.Conv2DTranspose(channels, kernel_size, **self.geometry())
        shape: tuple[int | None, ...] = tuple(layer.compute_output_shape(input_shape))
        return shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "output_padding": self.output_padding,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
        }

    def geometry(self) -> dict[str, Any]:
        """Strides, padding and data format of the source, and the output padding."""
        source = self.describe_source()
        return {k: source[k] for k in self.source_attributes} | {
            "output_padding": self.output_padding
        }

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        if weight is self.bias:
            return math.prod(output_shape[1:])
        size: int = math.prod(weight.shape)
        *_, filters = self.tied_weight_shape()
        return math.prod(input_shape[1:]) // filters * size  # once at each position

    def plain_counterpart(self) -> tuple[type[keras.Layer], dict[str, Any]]:
        config = {k: v for k, v in self.get_config().items() if k in _OF_CONV2D_TRANSPOSE}
        rows, columns, channels, _ = self.tied_weight_shape()
        config |= {"filters": channels, "kernel_size": (rows, columns), **self.geometry()}
        config["kernel_initializer"] = self.source_initializer()
        return keras.layers.Conv2DTranspose, config
