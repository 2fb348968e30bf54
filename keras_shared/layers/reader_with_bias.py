from typing import Any

import keras
from keras import ops

from keras_shared.tying import TiedReader


class ReaderWithBias(TiedReader):
    """What readers of one kernel have in common: `y = activation(read(x, kernel) + b)`.

    The kernel belongs to the source. Only the bias `b` is a reader's own.

    Args:
        source: the layer that owns the kernel.
        activation: as in `keras.layers.Dense`.
        use_bias: as in `keras.layers.Dense`.
        bias_initializer: as in `keras.layers.Dense`.
        bias_regularizer: as in `keras.layers.Dense`.
        bias_constraint: as in `keras.layers.Dense`.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        source: keras.Layer | dict[str, Any],
        activation: Any = None,
        use_bias: bool = True,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(source, **kwargs)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.bias: keras.Variable | None = None

    def add_bias(self, shape: tuple[int, ...]) -> None:
        """For `build`: the bias, if there is one."""
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=shape,
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def finish(self, outputs: Any, channels_first: bool = False) -> Any:
        """For `call`: the bias added, and the activation."""
        if self.bias is not None:
            ones = (1,) * (len(outputs.shape) - 2) if channels_first else ()
            bias = ops.reshape(self.bias, (*self.bias.shape, *ones))
            # keras.ops.add would add a bias (n, 1) along a last axis that is as long
            outputs = ops.add(outputs, bias) if len(bias.shape) == 1 else outputs + bias
        return self.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.bias_config()}

    def bias_config(self) -> dict[str, Any]:
        """The arguments that Keras' layers have too, as they stand in a config."""
        return {
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
        }

    def plain_config(self) -> dict[str, Any]:
        """What a plain counterpart takes over, its kernel drawn as the source's was."""
        regularizer = keras.regularizers.serialize(self.activity_regularizer)
        return self.bias_config() | {
            "activity_regularizer": regularizer,
            "trainable": self.trainable,
            "dtype": self.dtype_policy,
            "kernel_initializer": self.source_initializer(),
        }
