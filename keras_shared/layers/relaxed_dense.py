import math
import re
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_shared.layers.schedules import positive
from keras_shared.tying import TiedReader
from keras_shared.tying.keras_private import drop_layer
from keras_shared.tying.tied_reader import float_config


@keras.saving.register_keras_serializable("keras_shared")
class RelaxedDense(TiedReader):
    """A use of a Dense or an EinsumDense that another layer owns, with a low-rank difference.

    `y = activation(x W + x A B + b)`. Kernel `W`, bias `b` and activation belong to `source` and
    are read at every call, never copied. The factors `A` (inputs, rank) and `B` (rank, units) are
    this layer's own: `rank * (inputs + units)` parameters in place of `inputs * units`. `B` begins
    with zeros, so that at first the layer computes what its source does.

    Args:
        source: the Dense or EinsumDense that owns the kernel; built before this layer is called.
        rank: width of the factors; of a kernel that is narrower, the kernel's.
        a_initializer: initial values of `A`.
        b_initializer: initial values of `B`.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        What the source takes.

    Output shape:
        What the source returns.

    Raises:
        TieError: if `source` is no Dense or EinsumDense, was never built, or cannot be found in
            the model that is called.
        ValueError: if `rank` is no positive integer.

    Example:
        >>> import keras
        >>> from keras_shared.layers import RelaxedDense
        >>> inputs = keras.Input((64,))
        >>> first = keras.layers.Dense(64, name="first")
        >>> model = keras.Model(inputs, RelaxedDense(first, rank=2)(first(inputs)))
        >>> model.count_params()  # 64 * 64 + 64, and 2 * (64 + 64)
        4416

    Reference:
        Bae et al. 2025, "Relaxed Recursive Transformers: Effective Parameter Sharing with
        Layer-wise LoRA", section 2.3.
    """

    source_classes = (keras.layers.Dense, keras.layers.EinsumDense)
    source_attributes = ("equation",)
    form = "as is, and a low-rank difference"

    def __init__(
        self,
        source: keras.Layer | dict[str, Any],
        rank: int = 4,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        rank = positive("rank", rank)
        super().__init__(source, **kwargs)
        self.rank = rank
        self.a_initializer = keras.initializers.get(a_initializer)
        self.b_initializer = keras.initializers.get(b_initializer)

    def build(self, input_shape: Any) -> None:
        rows, columns = self._sides()
        rank = min(self.rank, rows, columns)
        self.lora_kernel_a = self.add_weight(
            name="lora_kernel_a", shape=(rows, rank), initializer=self.a_initializer
        )
        self.lora_kernel_b = self.add_weight(
            name="lora_kernel_b", shape=(rank, columns), initializer=self.b_initializer
        )
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        kernel, a, b = self.tied_weight(), self._a(), self._b()
        # x W + (x A) B, not x (W + A B): files of other formats would hold each sum for itself
        if self.describe_source()["equation"] is None:
            outputs = ops.matmul(inputs, kernel) + ops.matmul(ops.matmul(inputs, a), b)
        else:
            whole, first, second = self._equations()
            low_rank = ops.einsum(second, ops.einsum(first, inputs, a), b)
            outputs = ops.einsum(whole, inputs, kernel) + low_rank
        owner = self.own_layer or self._reference.layer
        if owner is None:  # while shapes are worked out
            return outputs
        if owner.bias is not None:
            outputs = ops.add(outputs, ops.cast(owner.bias, outputs.dtype))
        return outputs if owner.activation is None else owner.activation(outputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        inputs, kernel = keras.KerasTensor(input_shape), keras.KerasTensor(self.tied_weight_shape())
        shape: tuple[int | None, ...] = tuple(
            ops.einsum(self._equations()[0], inputs, kernel).shape
        )
        return shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rank": self.rank,
            "a_initializer": keras.initializers.serialize(self.a_initializer),
            "b_initializer": keras.initializers.serialize(self.b_initializer),
        }

    def set_difference(self, difference: Any) -> None:
        """Let `A B` be the best approximation of `difference`, of the kernel's shape, by its SVD.

        Args:
            difference: an array; both factors get the square roots of the singular values.
        """
        rows, columns = self._sides()
        kernel = _operands(self._equations()[0])[1]
        order = [kernel.index(axis) for axis in "".join(self._axes())]
        matrix = np.asarray(difference, "float64").transpose(order).reshape(rows, columns)
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        rank = self.lora_kernel_a.shape[1]
        root = np.sqrt(s[:rank])
        self.lora_kernel_a.assign(u[:, :rank] * root)
        self.lora_kernel_b.assign(root[:, None] * vt[:rank])

    def without_sharing(self, weight: keras.Variable) -> int:
        """None of the factors: a kernel of its own holds the difference."""
        return 0

    def read_variables(self) -> list[keras.Variable]:
        owner = self.own_layer or self.source()
        variables: list[keras.Variable] = owner.variables
        return variables

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        inputs: int = math.prod(input_shape[1:])
        outputs: int = math.prod(output_shape[1:])
        if weight is self.lora_kernel_a:
            return inputs * int(weight.shape[1])
        if weight is self.lora_kernel_b:
            return outputs * int(weight.shape[0])
        return outputs if weight.name == "bias" else inputs * self._sides()[1]

    def plain_counterpart(self) -> tuple[type[keras.Layer], dict[str, Any]]:
        source = self.source()
        config = float_config(source.get_config(), self.dtype_policy)
        return type(source), {key: value for key, value in config.items() if key != "name"}

    def plain_values(self) -> list[Any]:
        difference = ops.convert_to_numpy(self._difference())
        (kernel,), owner = super()._shared(self.source()), self.source()
        bias = [] if owner.bias is None else [ops.convert_to_numpy(owner.bias)]
        return [kernel + difference, *bias]

    def _difference(self) -> Any:
        """`A B` with the axes of the kernel."""
        _, kernel, _ = _operands(self._equations()[0])
        rows, columns = self._axes()
        return ops.einsum(f"{rows}Z,Z{columns}->{kernel}", self._a(), self._b())

    def _a(self) -> Any:
        shape = [self._side(axis) for axis in self._axes()[0]]
        return ops.cast(ops.reshape(self.lora_kernel_a, [*shape, -1]), self.compute_dtype)

    def _b(self) -> Any:
        shape = [self._side(axis) for axis in self._axes()[1]]
        return ops.cast(ops.reshape(self.lora_kernel_b, [-1, *shape]), self.compute_dtype)

    def _equations(self) -> tuple[str, str, str]:
        """Of the source, of `x A` and of that times `B`; `Z` is the axis of the rank."""
        whole = (self.describe_source()["equation"] or "...a,ab->...b").replace(" ", "")
        inputs, _, outputs = _operands(whole)
        rows, columns = self._axes()
        middle = "".join(axis for axis in outputs if axis not in columns) + "Z"
        return whole, f"{inputs},{rows}Z->{middle}", f"{middle},Z{columns}->{outputs}"

    def _axes(self) -> tuple[str, str]:
        """Axes of the kernel that the inputs have too, and those that they do not."""
        equation = (self.describe_source()["equation"] or "...a,ab->...b").replace(" ", "")
        inputs, kernel, _ = _operands(equation)
        rows = "".join(axis for axis in kernel if axis in inputs)
        return rows, "".join(axis for axis in kernel if axis not in rows)

    def _side(self, axis: str) -> int:
        _, kernel, _ = _operands(self._equations()[0])
        side: int = self.tied_weight_shape()[kernel.index(axis)]
        return side

    def _sides(self) -> tuple[int, int]:
        """Rows and columns of the kernel as a matrix."""
        rows, columns = (math.prod(map(self._side, axes)) for axes in self._axes())
        return rows, columns

    # an untied one owns a copy of its whole source, with bias and activation

    def _own(self, source: keras.Layer) -> None:
        config = source.get_config() | {"name": f"{source.name}_of_{self.name}"}
        copy = type(source).from_config(config)
        if not copy.built:
            copy.build_from_config(source.get_build_config())
        copy.set_weights(source.get_weights())
        if getattr(source, "lora_enabled", False):
            copy.lora_alpha = source.lora_alpha  # a rebuilt Keras layer forgets it
        self.own_layer = copy

    def _shared(self, source: keras.Layer) -> list[Any]:
        weights: list[Any] = source.get_weights()
        return weights

    def _disown(self, values: list[Any] | None, source: keras.Layer) -> None:
        if values is not None:
            source.set_weights(values)
        drop_layer(self, self.own_layer)
        self.own_layer = None


def _operands(equation: str) -> tuple[str, str, str]:
    """The axes of the inputs, of the kernel and of the outputs."""
    inputs, kernel, outputs = re.split(",|->", equation)
    return inputs, kernel, outputs
