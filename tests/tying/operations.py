"""What users do to models: each takes a model, its data and a folder, and gives a model."""

import copy
import pickle
import warnings

import keras
import numpy as np
from by_hand import array, weight_of
from topologies import owner_of

import keras_shared
from keras_shared.layers import RelaxedDense
from keras_shared.tying import bind_ties, readers_of


def saved(model, x, folder):
    model.save(folder / "m.keras")
    return same_answers(keras.models.load_model(folder / "m.keras"), model, x)


def saved_unzipped(model, x, folder):
    model.save(folder / "m", zipped=False)
    return same_answers(keras.models.load_model(folder / "m"), model, x)


def ready(model, x):
    """A subclassed model has no weights before its first call."""
    if not model.built:
        model(x)
    return model


def same_answers(model, other, x):
    wanted = other.predict(x, verbose=0)
    scale = 1e-5 * np.abs(wanted).max()
    np.testing.assert_allclose(model.predict(x, verbose=0), wanted, rtol=0, atol=scale)
    return model


def from_config(model, x, folder):
    return ready(type(model).from_config(model.get_config()), x)


def from_json(model, x, folder):
    return ready(keras.models.model_from_json(model.to_json()), x)


def from_config_then_weights(model, x, folder):
    model.save_weights(folder / "m.weights.h5")
    other = ready(type(model).from_config(model.get_config()), x)
    other.load_weights(folder / "m.weights.h5")
    return same_answers(other, model, x)


def cloned(model, x, folder):
    clone = ready(keras.models.clone_model(model), x)
    clone.set_weights(model.get_weights())
    return same_answers(clone, model, x)


def cloned_recursively(model, x, folder):
    return keras.models.clone_model(model, recursive=True)


def deep_copied(model, x, folder):
    return same_answers(copy.deepcopy(model), model, x)


def pickled(model, x, folder):
    return same_answers(pickle.loads(pickle.dumps(model)), model, x)


def trained(model, x, folder):
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(x, model.predict(x, verbose=0) * 0.5, epochs=2, verbose=0)
    return model


def trained_eagerly(model, x, folder):
    model.compile(keras.optimizers.Adam(), "mse", run_eagerly=True)
    model.fit(x, model.predict(x, verbose=0) * 0.5, verbose=0)
    return model


def resumed(model, x, folder):
    model = trained(model, x, folder)
    again = saved(model, x, folder)
    again.fit(x, model.predict(x, verbose=0), verbose=0)
    return again


def trained_with_xla(model, x, folder):
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=True)
    model.fit(x, model.predict(x, verbose=0) * 0.5, verbose=0)
    return model


def trained_accumulating(model, x, folder):
    model.compile(keras.optimizers.SGD(0.01, gradient_accumulation_steps=2), "mse")
    model.fit(x, model.predict(x, verbose=0) * 0.5, epochs=2, verbose=0)
    return model


def trained_averaging(model, x, folder):
    model.compile(keras.optimizers.SGD(0.01, use_ema=True, ema_overwrite_frequency=1), "mse")
    model.fit(x, model.predict(x, verbose=0) * 0.5, epochs=2, verbose=0)
    return model


def sharded_weights(model, x, folder):
    model.save_weights(folder / "m.weights.json", max_shard_size=0.0001)
    other = ready(type(model).from_config(model.get_config()), x)
    other.load_weights(folder / "m.weights.json")
    return same_answers(other, model, x)


def weights_as_safetensors(model, x, folder):
    path = keras_shared.export(model, folder / "m.safetensors")
    other = ready(type(model).from_config(model.get_config()), x)
    keras_shared.load_safetensors(other, path)
    return same_answers(other, model, x)


def published_and_loaded(model, x, folder):
    return same_answers(keras_shared.load(keras_shared.publish(model, folder / "m")), model, x)


def published_fine_tuned_published(model, x, folder):
    model = keras_shared.load(keras_shared.publish(model, folder / "m"))
    model = trained(model, x, folder)
    return published_and_loaded(model, x, folder)


def quantized(model, x, folder, mode, config=None):
    """Quantise, reload, publish (under TensorFlow), reload: the answers stay."""
    exact = model.predict(x, verbose=0)
    model.quantize(mode, config=config)
    error = np.abs(model.predict(x, verbose=0) - exact).max() / np.abs(exact).max()
    assert error < {"int8": 0.05, "float8": 0.1, "int4": 1}[mode]  # int4 in blocks of 2 is coarse
    loaded = saved(model, x, folder)
    if keras.backend.backend() != "tensorflow":
        return loaded
    return published_and_loaded(loaded, x, folder)


def quantized_int8(model, x, folder):
    return quantized(model, x, folder, "int8")


def quantized_int4(model, x, folder):
    config = keras.quantizers.Int4QuantizationConfig(block_size=-1)
    return quantized(model, x, folder, "int4", config)


def quantized_int4_blocked(model, x, folder):
    config = keras.quantizers.Int4QuantizationConfig(block_size=2)
    return quantized(model, x, folder, "int4", config)


def quantized_float8(model, x, folder):
    return quantized(model, x, folder, "float8")


def lora_on_the_source(model, x, folder):
    """Train the factors, reload, and they train on: Keras alone loads them as zeros."""
    owner = owner_of(model)
    owner.enable_lora(2, lora_alpha=3)
    b = owner.lora_embeddings_b if hasattr(owner, "embeddings") else owner.lora_kernel_b
    b.assign(np.random.default_rng(2).normal(size=b.shape) * 0.1)
    model.save(folder / "m.keras")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loaded = keras_shared.load(folder / "m.keras")
    assert any("LoRA of 'code'" in str(w.message) for w in said)
    same_answers(loaded, model, x)
    clone = bind_ties(ready(keras.models.clone_model(model), x))
    clone.set_weights(model.get_weights())
    if not all(isinstance(r, RelaxedDense) for r in readers_of(clone)):  # brings lora_alpha back
        same_answers(clone, model, x)
    before = weight_of(owner_of(loaded))
    trained(loaded, x, folder)
    assert np.abs(weight_of(owner_of(loaded)) - before).max() > 0
    return loaded


def with_policy(model, x, folder, policy):
    """The same model under a mixed policy, saved and loaded."""
    config = model.to_json().replace('"name": "float32"', f'"name": "{policy}"')
    mixed = ready(keras.models.model_from_json(config), x)
    mixed.set_weights(model.get_weights())
    loaded = saved(mixed, x, folder)
    assert owner_of(loaded).variable_dtype == "float32"
    return loaded


def mixed_float16(model, x, folder):
    return with_policy(model, x, folder, "mixed_float16")


def mixed_bfloat16(model, x, folder):
    return with_policy(model, x, folder, "mixed_bfloat16")


def source_frozen(model, x, folder):
    owner = owner_of(model)
    owner.trainable = False
    before = weight_of(owner)
    trained(model, x, folder)
    np.testing.assert_array_equal(weight_of(owner), before)
    return model


def readers_frozen(model, x, folder):
    """The source goes on training, through the reader's use too."""
    before = weight_of(owner_of(model))
    readers = readers_of(model)
    biases = [array(v) for reader in readers for v in reader.variables]
    for reader in readers:
        reader.trainable = False
    trained(model, x, folder)
    for v, bias in zip([v for r in readers for v in r.variables], biases, strict=True):
        np.testing.assert_array_equal(array(v), bias)
    assert owner_of(model).trainable and np.abs(weight_of(owner_of(model)) - before).max() > 0
    return model


def sub_models_frozen(model, x, folder):
    """Each in turn: what it owns stays, and nothing else does."""
    for sub in [layer for layer in model.layers if isinstance(layer, keras.Model)]:
        before = [array(v) for v in model.variables]
        inside = {id(v) for v in sub.variables}
        sub.trainable = False
        trained(model, x, folder)
        for v, old in zip(model.variables, before, strict=True):
            assert (np.abs(array(v) - old).max() > 0) == (id(v) not in inside)
        sub.trainable = True
    return trained(model, x, folder)


OPERATIONS = (
    saved, saved_unzipped, from_config, from_json, from_config_then_weights, cloned,
    cloned_recursively, deep_copied, pickled, sharded_weights, trained, trained_eagerly,
    trained_with_xla, trained_accumulating, trained_averaging, resumed, source_frozen,
    readers_frozen, sub_models_frozen, mixed_float16, mixed_bfloat16, lora_on_the_source,
    quantized_int8, quantized_int4, quantized_int4_blocked, quantized_float8,
    published_and_loaded, published_fine_tuned_published, weights_as_safetensors,
)  # fmt: skip
