"""What a source's weight is, whatever form the source stores it in."""

from typing import Any

import keras
from keras import ops

from keras_shared.tying.keras_private import (
    calibrated_kernel,
    dequantized_dense,
    dequantized_einsum_dense,
    dequantized_embedding,
)
from keras_shared.tying.tie_error import TieError

_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_DEQUANTIZED = {  # the layers that Keras quantises
    keras.layers.Dense: dequantized_dense,
    keras.layers.EinsumDense: dequantized_einsum_dense,
    keras.layers.Embedding: dequantized_embedding,
}


def weight_names(source: keras.Layer) -> tuple[str, ...]:
    """The attributes of `source` that hold what readers read."""
    if isinstance(source, _SEPARABLE):
        return "depthwise_kernel", "pointwise_kernel"
    return ("embeddings",) if isinstance(source, keras.layers.Embedding) else ("kernel",)


def weight_shape(source: keras.Layer) -> tuple[Any, ...] | None:
    """The shape of the weight that readers see, two of a SeparableConv; None if it is not built.

    A quantised kernel is stored packed, so its variable's shape says nothing.
    """
    if isinstance(source, keras.layers.Embedding):
        return (source.input_dim, source.output_dim)
    if not source.built:
        return None
    if isinstance(source, keras.layers.Dense):
        return (source.input_spec.axes[-1], source.units)
    if isinstance(source, keras.layers.EinsumDense) and source.quantization_mode is not None:
        shape = getattr(source, "original_kernel_shape", None)
        kernel = source.kernel  # None of one rebuilt for GPTQ, before it is calibrated
        return tuple(shape or kernel.shape) if shape or kernel is not None else None
    shapes = [
        tuple(kernel.shape)
        for name in weight_names(source)
        if (kernel := getattr(source, name, None)) is not None
    ]
    if not shapes:
        return None
    return shapes[0] if len(shapes) == 1 else tuple(shapes)


def is_derived(source: keras.Layer) -> bool:
    """Whether readers see a weight that is computed: clustered, quantised, or with LoRA."""
    return weight_shape(source) is not None and (
        source.quantization_mode is not None
        or getattr(source, "lora_enabled", False)
        or hasattr(source, "plain_class")  # clustered
    )


def effective_weight(source: keras.Layer, dtype: str) -> Any:
    """The weight that `source` multiplies by: LoRA merged, quantised codes as floats.

    Args:
        source: a built Dense, EinsumDense, Embedding, a convolution, or another layer with a
            `kernel`.
        dtype: dtype of the tensor that comes back.

    Returns:
        A tensor: (inputs, units) of a Dense, (input_dim, output_dim) of an Embedding,
        (rows, columns, channels, filters) of a Conv2D; in general the shape of the `kernel`. Of
        a SeparableConv a tuple of two: the depthwise and the pointwise kernel.

    Raises:
        TieError: for a source that is quantised and none of Dense, EinsumDense and Embedding.

    Example:
        >>> import keras
        >>> from keras_shared.tying import effective_weight
        >>> dense = keras.layers.Dense(3)
        >>> dense.build((None, 2))
        >>> dense.quantize("int8")
        >>> effective_weight(dense, "float32").shape
        TensorShape([2, 3])
    """
    mode = source.quantization_mode
    if mode in ("gptq", "awq") and not getattr(source, f"is_{mode}_calibrated", True):
        mode = None  # begun, and the kernel is still what it was
    if mode in (None, "float8"):  # float8 keeps a float kernel; Keras merges LoRA itself
        weights = [ops.cast(getattr(source, name), dtype) for name in weight_names(source)]
        return weights[0] if len(weights) == 1 else tuple(weights)
    if mode in ("gptq", "awq") and isinstance(
        source, (keras.layers.Dense, keras.layers.EinsumDense)
    ):
        return calibrated_kernel(source, dtype)
    dequantized = next((f for kind, f in _DEQUANTIZED.items() if isinstance(source, kind)), None)
    if mode not in ("int8", "int4") or dequantized is None:
        raise TieError(
            f"A reader cannot dequantise the weight of the {type(source).__name__} "
            f"'{source.name}', which is quantised as {mode!r}. Quantise a Dense, an EinsumDense "
            "or an Embedding, or call `keras_shared.tying.untie` on the model before you quantise "
            "it."
        )
    weight = dequantized(source, dtype)
    if source.lora_enabled:
        name = f"lora_{weight_names(source)[0]}"
        low_rank = ops.matmul(getattr(source, f"{name}_a"), getattr(source, f"{name}_b"))
        weight += ops.cast(source.lora_alpha / source.lora_rank * low_rank, dtype)
    return weight
