import warnings

import keras
from keras import ops

from keras_shared.tying.keras_private import flatten_layers

_FACTORS = (("lora_kernel_a", "lora_kernel_b"), ("lora_embeddings_a", "lora_embeddings_b"))


def revive_lora(model: keras.Layer) -> None:
    """Let LoRA train again in a model that Keras loaded, and say so in a `UserWarning`.

    Keras merges `alpha / rank * A B` into the kernel when it saves, and sets both factors to zero
    when it loads: their gradients are then zero for good. Here each such `A` is drawn anew. `B`
    stays zero, so no output changes, and training goes on from the merged kernel. `lora_alpha`,
    which Keras loses too, comes back with the reader that is tied to the layer.

    Args:
        model: a model from `keras.models.load_model`; `keras_shared.load` and `bind_ties` do this.
    """
    revived = []
    for layer in flatten_layers(model):
        for names in _FACTORS if getattr(layer, "lora_enabled", False) else ():
            a, b = (getattr(layer, name, None) for name in names)
            if a is None or b is None or ops.any(a != 0) or ops.any(b != 0):
                continue
            a.assign(keras.initializers.HeUniform()(a.shape, a.dtype))  # as enable_lora draws it
            revived.append(f"'{layer.name}' (lora_alpha {layer.lora_alpha:g})")
    if revived:
        warnings.warn(
            f"Keras saved the LoRA of {', '.join(revived)} merged into the kernel and loaded both "
            "factors as zero, which can never train. The first factor was drawn anew: outputs are "
            "the same, and training goes on from the merged kernel.",
            stacklevel=3,
        )
