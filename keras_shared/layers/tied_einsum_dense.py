import math
import re
from typing import Any

import keras
from keras import ops

from keras_shared.layers.reader_with_bias import ReaderWithBias
from keras_shared.tying import TieError


@keras.saving.register_keras_serializable("keras_shared")
class TiedEinsumDense(ReaderWithBias):
    """An EinsumDense that reads the kernel of another layer: its adjoint, or in any other form.

    `y = activation(einsum(equation, x, W) + b)` with the kernel `W` of `source`, read at every
    call and never copied. Without an `equation` it is the adjoint of an EinsumDense, its inputs
    and outputs exchanged: `"abc,cd->abd"` is read as `"abd,cd->abc"`. With one, the kernel of a
    Dense, an Embedding or an EinsumDense is read in any form, as it is too: `"ab,bc->ac"`. Only
    the bias `b` is this layer's own.

    Args:
        source: the layer that owns the kernel; built before this layer is called.
        equation: as in `keras.layers.EinsumDense`.
        activation: as in `keras.layers.EinsumDense`.
        bias_axes: as in `keras.layers.EinsumDense`; no bias by default.
        **kwargs: `bias_initializer`, `bias_regularizer`, `bias_constraint` as in
            `keras.layers.EinsumDense`, and arguments of `keras.layers.Layer`.

    Input shape:
        As the equation says.

    Output shape:
        As the equation says.

    Raises:
        TieError: if `source` is of another kind, was never built, or cannot be found in the model
            that is called; if its equation has no adjoint, or its inputs do not fit the equation.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedEinsumDense
        >>> tokens = keras.Input((10, 6))
        >>> heads = keras.layers.EinsumDense("bti,ihd->bthd", (10, 2, 3))
        >>> model = keras.Model(tokens, TiedEinsumDense(heads)(heads(tokens)))
        >>> model.output_shape, model.count_params()  # one kernel of 6 x 2 x 3
        ((None, 10, 6), 36)
    """

    source_classes = (keras.layers.EinsumDense, keras.layers.Dense, keras.layers.Embedding)
    source_attributes = ("equation",)
    keeps_positions = False  # as keras.layers.EinsumDense, whose equation may move them

    def __init__(
        self,
        source: keras.Layer | dict[str, Any],
        equation: str | None = None,
        activation: Any = None,
        bias_axes: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(source, activation, use_bias=bias_axes is not None, **kwargs)
        self.equation = equation or _adjoint(self.describe_source()["equation"], self.name)
        self.bias_axes = bias_axes
        self.form = "adjoint" if equation is None else f"by {equation}"

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = self.compute_output_shape(input_shape)
        if self.bias_axes is not None:
            letters = self.equation.split("->")[1].replace("...", "").replace(" ", "")
            missing = [axis for axis in self.bias_axes if axis not in letters]
            if missing:
                raise TieError(
                    f"TiedEinsumDense '{self.name}' has no axes {missing} in its outputs. "
                    f"Received: equation={self.equation!r}, bias_axes={self.bias_axes!r}"
                )
            before, _, after = self.equation.split("->")[1].replace(" ", "").partition("...")
            axes = [*before, *[""] * (len(shape) - len(letters)), *after]  # "": one of the dots
            sides = dict(zip(axes, shape, strict=True))
            first = min(axes.index(axis) for axis in self.bias_axes)
            kept: list[Any] = [
                sides[axis] if axis and axis in self.bias_axes else 1 for axis in axes[first:]
            ]
            self.add_bias(tuple(kept))
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return self.finish(ops.einsum(self.equation, inputs, self.tied_weight()))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        inputs, kernel = _operands(self.equation)
        kernel_sides = dict(zip(kernel, self.tied_weight_shape(), strict=False))
        before, dots, after = inputs.partition("...")
        fits = len(kernel) == len(self.tied_weight_shape()) and (
            len(input_shape) >= len(before + after) if dots else len(input_shape) == len(inputs)
        )
        named = [*zip(before, input_shape, strict=False)]
        named += [*zip(after[::-1], input_shape[::-1], strict=False)]
        if not fits or any(n is not None and kernel_sides.get(a, n) != n for a, n in named):
            raise TieError(
                f"TiedEinsumDense '{self.name}' reads a kernel of shape "
                f"{self.tied_weight_shape()} by {self.equation!r}, which does not fit. "
                f"Received: input_shape={input_shape}"
            )
        # not by keras.ops.einsum, which takes dots at the end for dots at the beginning
        sides = dict(named) | kernel_sides
        among_dots = input_shape[len(before) : len(input_shape) - len(after)] if dots else ()
        first, kept, last = self.equation.split("->")[1].replace(" ", "").partition("...")
        if unknown := sorted({*first, *last} - {*sides}):
            raise TieError(
                f"TiedEinsumDense '{self.name}' gives axes {unknown} that neither its inputs nor "
                f"the kernel have. Received: equation={self.equation!r}"
            )
        return (
            *(sides[axis] for axis in first),
            *(among_dots if kept else ()),
            *(sides[axis] for axis in last),
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["use_bias"]  # said by `bias_axes`
        given = None if self.form == "adjoint" else self.equation
        return {**config, "equation": given, "bias_axes": self.bias_axes}

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        if weight is self.bias:
            return math.prod(output_shape[1:])
        inputs, kernel = _operands(self.equation)
        sides = zip(kernel, self.tied_weight_shape(), strict=True)
        new: int = math.prod(side for axis, side in sides if axis not in inputs)
        return math.prod(input_shape[1:]) * new

    def plain_counterpart(self) -> tuple[type[keras.Layer], dict[str, Any]]:
        if self.equation.rstrip().endswith("..."):  # which Keras' EinsumDense reads otherwise
            return super().plain_counterpart()
        config = self.plain_config()
        del config["use_bias"]
        _, *shape = self.compute_output_shape(self.get_build_config()["input_shape"])
        form = {"equation": self.equation, "output_shape": shape, "bias_axes": self.bias_axes}
        return keras.layers.EinsumDense, config | form


def _operands(equation: str) -> tuple[str, str]:
    """The axes of the inputs and of the kernel."""
    inputs, kernel = equation.replace(" ", "").split("->")[0].split(",")
    return inputs, kernel


def _adjoint(equation: str | None, name: str) -> str:
    """`equation` with its inputs and outputs exchanged."""
    if equation is None:
        raise TieError(
            f"TiedEinsumDense '{name}' needs an `equation`: its source is no EinsumDense, which "
            "would have one to turn around. Received: equation=None"
        )
    inputs, kernel, outputs = re.split(",|->", equation.replace(" ", ""))
    lost = set(inputs) - set(kernel) - set(outputs)
    if lost:
        raise TieError(
            f"TiedEinsumDense '{name}' cannot turn {equation!r} around: it sums over "
            f"{sorted(lost)}, which is in neither the kernel nor the outputs. Pass an `equation`."
        )
    return f"{outputs},{kernel}->{inputs}"
