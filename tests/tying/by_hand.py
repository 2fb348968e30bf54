"""What a layer's weight is, read from its variables in NumPy, without Keras' own arithmetic."""

import keras
import numpy as np


def array(variable):
    return keras.ops.convert_to_numpy(variable)


def weight_of(owner):
    """The weight in float64: LoRA added, int8 and int4 decoded."""
    is_table = isinstance(owner, keras.layers.Embedding)
    name = "embeddings" if is_table else "kernel"
    stored = array(stored_in(owner))
    mode = owner.quantization_mode
    if mode in ("int8", "int4"):
        scale = array(getattr(owner, f"{name}_scale")).astype("float64")
        codes = stored
        if mode == "int4":
            einsum = isinstance(owner, keras.layers.EinsumDense)
            width = owner._int4_unpacked_column_size if einsum else owner._orig_output_dim
            codes = nibbles(stored, width)
        zero = getattr(owner, f"{name}_zero", None)
        if zero is not None:  # a scale and a zero for each block along the inputs of the layer
            groups, zero = array(owner.g_idx).astype(int), array(zero).astype("float64")
            pick = (lambda a: a[:, groups]) if is_table else (lambda a: a[groups])
            stored = (codes - pick(zero)) * pick(scale)
        else:
            stored = codes / (scale[:, None] if is_table else scale)
    weight = stored.astype("float64")
    if getattr(owner, "lora_enabled", False):
        a, b = (array(getattr(owner, f"lora_{name}_{factor}")) for factor in "ab")
        weight = weight + owner.lora_alpha / owner.lora_rank * (a.astype("float64") @ b)
    return weight


def stored_in(owner):
    """The variable that holds the weight; not every layer of Keras has a private one."""
    name = "embeddings" if isinstance(owner, keras.layers.Embedding) else "kernel"
    return getattr(owner, f"_{name}" if hasattr(owner, f"_{name}") else name)


def nibbles(packed, width):
    """Two codes in each byte along the last axis: the low half first, each from -8 to 7."""
    halves = np.stack([packed & 15, (packed >> 4) & 15], axis=-1).astype("int8")
    codes = halves.reshape(*packed.shape[:-1], -1)[..., :width]
    return np.where(codes > 7, codes - 16, codes)


def perturb(owner, step):
    """Change the weight, in whichever variable it can be changed."""
    name = "embeddings" if isinstance(owner, keras.layers.Embedding) else "kernel"
    if getattr(owner, "lora_enabled", False):
        variable = getattr(owner, f"lora_{name}_b")
    elif owner.quantization_mode in ("int8", "int4"):
        variable = getattr(owner, f"{name}_scale")
        variable.assign(array(variable) * np.linspace(0.5, 2, variable.shape[-1], dtype="float32"))
        return
    else:
        variable = stored_in(owner)
    variable.assign(array(variable) * 1.5 + 0.1 * (step + 1))


def trains_as_float(owner):
    return (
        owner.trainable
        and owner.quantization_mode is None
        and not getattr(owner, "lora_enabled", False)
        and owner.compute_dtype == "float32"
    )


def gradient(model, x, towards, variable):
    """d sum(model(x) * towards) / d variable, on any backend."""
    towards = towards.astype("float32")
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(x) * towards)
        found = tape.gradient(total, variable.value, unconnected_gradients="zero")
        return tf.convert_to_tensor(found).numpy()
    if backend == "torch":
        model.zero_grad()
        keras.ops.sum(model(x) * keras.ops.convert_to_tensor(towards)).backward()
        return variable.value.grad.detach().cpu().numpy()
    import jax

    index = [id(v) for v in model.trainable_variables].index(id(variable))

    def total(values):
        outputs, _ = model.stateless_call(
            values, [v.value for v in model.non_trainable_variables], x
        )
        return (outputs * towards).sum()

    return np.asarray(jax.grad(total)([v.value for v in model.trainable_variables])[index])
