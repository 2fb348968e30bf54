"""What users do to models: each takes a model, its data and a folder, and gives a model."""

import copy
import pickle

import keras
import numpy as np

import keras_shared


def saved(model, x, folder):
    model.save(folder / "m.keras")
    return keras.models.load_model(folder / "m.keras")


def saved_unzipped(model, x, folder):
    model.save(folder / "m", zipped=False)
    return keras.models.load_model(folder / "m")


def from_config(model, x, folder):
    return type(model).from_config(model.get_config())


def from_json(model, x, folder):
    return keras.models.model_from_json(model.to_json())


def from_config_then_weights(model, x, folder):
    model.save_weights(folder / "m.weights.h5")
    other = type(model).from_config(model.get_config())
    other.load_weights(folder / "m.weights.h5")
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
    return other


def cloned(model, x, folder):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone.predict(x, verbose=0), model.predict(x, verbose=0))
    return clone


def cloned_recursively(model, x, folder):
    return keras.models.clone_model(model, recursive=True)


def deep_copied(model, x, folder):
    return copy.deepcopy(model)


def pickled(model, x, folder):
    return pickle.loads(pickle.dumps(model))


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
    other = type(model).from_config(model.get_config())
    other.load_weights(folder / "m.weights.json")
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
    return other


def published_and_loaded(model, x, folder):
    return keras_shared.load(keras_shared.publish(model, folder / "m"))


OPERATIONS = (
    saved, saved_unzipped, from_config, from_json, from_config_then_weights, cloned,
    cloned_recursively, deep_copied, pickled, trained, trained_eagerly, resumed,
    trained_with_xla, trained_accumulating, trained_averaging, sharded_weights,
    published_and_loaded,
)  # fmt: skip
