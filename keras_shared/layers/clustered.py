import math
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

_BITS = (1, 2, 4, 8)  # of one code, so that a byte holds a whole number of them


class Clustered(keras.layers.Layer):
    """What layers have in common whose kernel is few values, each shared by many positions.

    `K_p = codebook[code_p]`: one trainable vector of `codes` floats, and for each position `p` of
    the kernel the number of its code, packed into 1, 2, 4 or 8 bits and not trained. The gradient
    of a value is the sum over all positions of its code. With 16 codes a kernel takes an eighth of
    its bytes as float32; the kernel itself is made at every call. `keras_shared.cluster` puts
    these layers in the place of trained ones.

    A regulariser or constraint of the kernel is one of the codebook: each value counts once.
    """

    form = "by codes"
    plain_class: ClassVar[type[keras.Layer]]

    def __init__(self, *args: Any, codes: int = 16, **kwargs: Any) -> None:
        if not isinstance(codes, (int, np.integer)) or not 2 <= codes <= 256:
            raise ValueError(
                f"`codes` must be a whole number from 2 to 256. Received: codes={codes!r}"
            )
        super().__init__(*args, **kwargs)
        self.codes = int(codes)
        self._bits = next(bits for bits in _BITS if 2**bits >= codes)

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        if name != "kernel":
            return super().add_weight(*args, name=name, **kwargs)
        self._kernel_shape = tuple(kwargs["shape"])
        draw, size = kwargs["initializer"], self._kernel_shape

        def values(shape: Any, dtype: Any) -> Any:
            drawn = draw(size)
            return ops.cast(ops.linspace(ops.min(drawn), ops.max(drawn), *shape), dtype)

        codes = self._packed(np.random.default_rng(0).integers(0, self.codes, size))
        self.codebook = super().add_weight(
            name="codebook", **kwargs | {"shape": (self.codes,), "initializer": values}
        )
        self.packed = super().add_weight(
            name="packed_codes",
            shape=codes.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(codes, dtype),
            dtype="uint8",
            trainable=False,
        )
        return None

    def assign_codes(self, values: Any, numbers: Any) -> None:
        """Set the codebook, and the code of each position.

        Args:
            values: (codes,).
            numbers: from 0 to codes - 1, of the kernel's shape.
        """
        self.codebook.assign(values)
        self.packed.assign(self._packed(numbers))

    def _packed(self, numbers: Any) -> np.ndarray:
        """Codes of a kernel as bytes, each of which holds several."""
        in_byte = 8 // self._bits
        flat = np.ravel(numbers).astype("uint8")
        flat = np.pad(flat, (0, -len(flat) % in_byte)).reshape(-1, in_byte)
        shifted = flat << (self._bits * np.arange(in_byte, dtype="uint8"))
        packed: np.ndarray = np.bitwise_or.reduce(shifted, axis=1)
        return packed

    def numbers(self) -> Any:
        """The code of each position, of the kernel's shape."""
        shifts = np.arange(0, 8, self._bits, dtype="int32")
        whole = ops.right_shift(ops.cast(self.packed, "int32")[:, None], shifts)
        flat = ops.reshape(ops.bitwise_and(whole, np.int32(2**self._bits - 1)), (-1,))
        return ops.reshape(flat[: math.prod(self._kernel_shape)], self._kernel_shape)

    @property
    def kernel(self) -> Any:
        return ops.take(self.codebook, self.numbers())

    def save_own_variables(self, store: Any) -> None:
        keras.layers.Layer.save_own_variables(self, store)  # those of a Dense would write a kernel

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError(
            f"{type(self).__name__} '{self.name}' has no kernel of its own to adapt. Train its "
            "codebook, or adapt the layer before `keras_shared.cluster`, which merges LoRA."
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "codes": self.codes}

    def plain_config(self) -> dict[str, Any]:
        """The config of the layer of `plain_class` that does the same."""
        return {key: value for key, value in self.get_config().items() if key != "codes"}

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        outputs = math.prod(output_shape[1:])
        if weight is self.codebook:  # the last axis of a kernel is that of units or filters
            fields: int = math.prod(self._kernel_shape[:-1])
            return outputs * fields
        return 0 if weight is self.packed else outputs

    def without_sharing(self, weight: keras.Variable) -> int:
        if weight is self.packed:
            return 0
        size: int = math.prod(self._kernel_shape if weight is self.codebook else weight.shape)
        return size

    def as_calls(self, call: Callable[..., Any], inputs: Any) -> Any:
        plain = self.plain_class.from_config(self.plain_config())
        plain.build_from_config(self.get_build_config())
        biases = [] if self.bias is None else [self.bias]
        plain.set_weights([ops.convert_to_numpy(w) for w in (self.kernel, *biases)])
        return call(plain, inputs)


@keras.saving.register_keras_serializable("keras_shared")
class ClusteredDense(Clustered, keras.layers.Dense):
    """A `keras.layers.Dense` whose kernel is read from a codebook by all of its positions.

    Args:
        *args: as of `keras.layers.Dense`.
        codes: number of values in the codebook, 2 to 256.
        **kwargs: as of `keras.layers.Dense`.

    Input shape:
        As of `keras.layers.Dense`.

    Output shape:
        As of `keras.layers.Dense`.

    Raises:
        ValueError: for another number of codes.

    Example:
        >>> import keras
        >>> from keras_shared.layers import ClusteredDense
        >>> layer = ClusteredDense(100, codes=16)
        >>> layer(keras.ops.ones((2, 300))).shape
        TensorShape([2, 100])
        >>> [(w.name, tuple(w.shape), w.dtype) for w in layer.weights]
        [('codebook', (16,), 'float32'), ('bias', (100,), 'float32'),
         ('packed_codes', (15000,), 'uint8')]

    Reference:
        Han, Mao, Dally 2016, "Deep Compression", section 3.
    """

    plain_class = keras.layers.Dense


@keras.saving.register_keras_serializable("keras_shared")
class ClusteredConv1D(Clustered, keras.layers.Conv1D):
    """A `keras.layers.Conv1D` whose kernel is read from a codebook: see `ClusteredDense`."""

    plain_class = keras.layers.Conv1D


@keras.saving.register_keras_serializable("keras_shared")
class ClusteredConv2D(Clustered, keras.layers.Conv2D):
    """A `keras.layers.Conv2D` whose kernel is read from a codebook: see `ClusteredDense`."""

    plain_class = keras.layers.Conv2D


@keras.saving.register_keras_serializable("keras_shared")
class ClusteredConv3D(Clustered, keras.layers.Conv3D):
    """A `keras.layers.Conv3D` whose kernel is read from a codebook: see `ClusteredDense`."""

    plain_class = keras.layers.Conv3D
