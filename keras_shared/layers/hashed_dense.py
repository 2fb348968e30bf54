import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_shared.layers.schedules import positive

_ODD = np.int32(0x2C1B3C6D)  # mixes the bits of a sum over all of them


@keras.saving.register_keras_serializable("keras_shared")
class HashedDense(keras.layers.Layer):
    """A dense layer whose matrix is filled from a short vector, shared by positions at random.

    `y = activation(x V + b)` with `V_ij = sign(i, j) w[bucket(i, j)]`. A hash of the position and
    a seed says which weight stands there and with which sign, so that nothing is stored but the
    vector `w`, with `1 / compression` of the elements of `V` (inputs, units). The gradient of a
    weight is the sum over all positions of its bucket. A layer of 784 inputs and 1000 units
    costs 99,000 parameters at `compression=8` instead of 785,000, and as many multiply-adds.

    The matrix itself is made at every call: memory at run time is that of a Dense, and a step
    takes longer. ONNX and LiteRT files hold the bucket of every position as well.

    Args:
        units: as in `keras.layers.Dense`.
        compression: positions of the matrix for each weight, at least 1. Also at 1 some positions
            share one, since they meet in a bucket by chance.
        activation: as in `keras.layers.Dense`.
        use_bias: as in `keras.layers.Dense`; the biases are not shared.
        seed: chooses the hash. Layers of one shape and seed have the same buckets.
        kernel_initializer: draws a matrix (inputs, units), whose first elements become the
            vector: as in `keras.layers.Dense`, its range follows the inputs and the units.
        bias_initializer: as in `keras.layers.Dense`.
        kernel_regularizer: of the vector, so that each weight counts once.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., inputs)`.

    Output shape:
        `(batch, ..., units)`.

    Raises:
        ValueError: for units or a compression below 1, another seed, or inputs of unknown width.

    Example:
        >>> import keras
        >>> from keras_shared.layers import HashedDense
        >>> layer = HashedDense(1000, compression=8)
        >>> layer(keras.ops.ones((2, 784))).shape, layer.count_params()  # 784 * 1000 / 8 + 1000
        (TensorShape([2, 1000]), 99000)

    Reference:
        Chen, Wilson, Tyree, Weinberger, Chen 2015, "Compressing Neural Networks with the Hashing
        Trick", section 4 (there the biases are hashed too).
    """

    form = "hashed"

    def __init__(
        self,
        units: int,
        compression: float = 8,
        activation: Any = None,
        use_bias: bool = True,
        seed: int = 0,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(compression, (int, float, np.number)) or not 1 <= compression < math.inf:
            raise ValueError(
                f"`compression` must be a number from 1. Received: compression={compression!r}"
            )
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
            raise ValueError(
                "`seed` must be a whole number from 0 to 4,294,967,295: it chooses the hash. "
                f"Received: seed={seed!r}"
            )
        self.units = positive("units", units)
        self.compression = compression
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.seed = int(seed)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        inputs = input_shape[-1] if input_shape else None
        if inputs is None:
            raise ValueError(
                f"HashedDense '{self.name}' takes inputs of a known width. "
                f"Received: input_shape={input_shape}"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: inputs})
        # RandomState, since NumPy keeps its stream the same for ever
        codes = np.random.RandomState(self.seed).randint(0, 2**31, inputs + self.units)
        self._codes = np.split(codes.astype("int32"), [inputs])
        size = math.ceil(inputs * self.units / self.compression)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size,),
            initializer=lambda shape, dtype: ops.reshape(
                self.kernel_initializer((inputs, self.units), dtype), (-1,)
            )[:size],
            regularizer=self.kernel_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer=self.bias_initializer
            )

    def buckets(self) -> tuple[Any, Any]:
        """Which weight stands at each position of the matrix, and with which sign.

        Returns:
            (inputs, units) numbers from 0 to the weights less one, and (inputs, units) of 1, -1.
        """
        rows, columns = self._codes
        mixed = ops.bitwise_xor(rows[:, None], columns[None]) * _ODD  # overflows, as it should
        numbers = ops.bitwise_xor(mixed, ops.right_shift(mixed, 15))  # never negative
        return ops.mod(numbers, self.kernel.shape[0]), 1 - 2 * ops.cast(mixed < 0, "int32")

    def matrix(self) -> Any:
        """The matrix (inputs, units) that the inputs are multiplied by."""
        numbers, signs = self.buckets()
        return ops.take(self.kernel, numbers) * ops.cast(signs, self.kernel.dtype)

    def call(self, inputs: Any) -> Any:
        outputs = ops.matmul(inputs, ops.cast(self.matrix(), self.compute_dtype))
        return self.activation(outputs if self.bias is None else outputs + self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "compression": self.compression,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "seed": self.seed,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(input_shape[1:-1]) * self.without_sharing(weight)

    def without_sharing(self, weight: keras.Variable) -> int:
        inputs = len(self._codes[0])
        return self.units if weight is self.bias else inputs * self.units

    def as_calls(self, call: Callable[..., Any], inputs: Any) -> Any:
        dense = keras.layers.Dense(
            self.units, self.activation, self.use_bias, self.kernel_initializer,
            self.bias_initializer, self.kernel_regularizer, name=self.name,
            trainable=self.trainable, dtype=self.dtype_policy,
        )  # fmt: skip
        dense.build((None, len(self._codes[0])))
        biases = [] if self.bias is None else [self.bias]
        dense.set_weights([ops.convert_to_numpy(w) for w in (self.matrix(), *biases)])
        return call(dense, inputs)
