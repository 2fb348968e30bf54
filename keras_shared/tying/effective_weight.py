"""What a source's weight is, whatever form the source stores it in."""

from typing import Any

import keras
from keras import ops

from keras_shared.tying.keras_private import dequantized_dense, dequantized_embedding
from keras_shared.tying.tie_error import TieError


def weight_shape(source: keras.Layer) -> tuple[int, ...] | None:
    """The shape of the weight that readers see; None while the source is not built.

    A quantised kernel is stored packed, so its variable's shape says nothing.
    """
    if isinstance(source, keras.layers.Embedding):
        return (source.input_dim, source.output_dim)
    if not source.built:
        return None
    if isinstance(source, keras.layers.Dense):
        return (source.input_spec.axes[-1], source.units)
    kernel = getattr(source, "kernel", None)  # of a convolution, or of any layer that has one
    return None if kernel is None else tuple(kernel.shape)


def effective_weight(source: keras.Layer, dtype: str) -> Any:
    """The weight that `source` multiplies by: LoRA merged, int8 and int4 dequantised.

    Args:
        source: a built Dense, Embedding, Conv2D, or another layer with a `kernel`.
        dtype: dtype of the tensor that comes back.

    Returns:
        A tensor: (inputs, units) of a Dense, (input_dim, output_dim) of an Embedding,
        (rows, columns, channels, filters) of a Conv2D; in general the shape of the `kernel`.

    Raises:
        TieError: for a source quantised in a way that cannot be read (gptq, awq), or quantised
            and neither a Dense nor an Embedding.

    Example:
        >>> import keras
        >>> from keras_shared.tying import effective_weight
        >>> dense = keras.layers.Dense(3)
        >>> dense.build((None, 2))
        >>> dense.quantize("int8")
        >>> effective_weight(dense, "float32").shape
        TensorShape([2, 3])
    """
    is_embedding = isinstance(source, keras.layers.Embedding)
    mode = source.quantization_mode
    if mode in ("gptq", "awq") and not getattr(source, f"is_{mode}_calibrated", True):
        mode = None  # begun, and the kernel is still what it was
    if mode in (None, "float8"):  # float8 keeps a float kernel; Keras merges LoRA itself
        return ops.cast(source.embeddings if is_embedding else source.kernel, dtype)
    if mode not in ("int8", "int4") or not (is_embedding or isinstance(source, keras.layers.Dense)):
        raise TieError(
            f"A reader cannot dequantise the weight of the {type(source).__name__} "
            f"'{source.name}', which is quantised as {mode!r}. Quantise a Dense or an Embedding as "
            "'int8', 'int4' or 'float8', or call `keras_shared.tying.untie` on the model before "
            "you quantise it."
        )
    if is_embedding:
        weight = dequantized_embedding(source, dtype)
        factors = "lora_embeddings_a", "lora_embeddings_b"
    else:
        weight = dequantized_dense(source, dtype)
        factors = "lora_kernel_a", "lora_kernel_b"
    if source.lora_enabled:
        low_rank = ops.matmul(*(getattr(source, name) for name in factors))
        weight += ops.cast(source.lora_alpha / source.lora_rank * low_rank, dtype)
    return weight
