"""A Keras model as plain TensorFlow fine-tunes it: the interface of reusable SavedModels."""

import warnings
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_shared.errors import attempt
from keras_shared.exporting.signatures import input_structure, sent
from keras_shared.tying.keras_private import flatten_layers


def functions_to_train(model: keras.Model) -> dict[str, Any]:
    """`__call__(inputs, training=False)`, and for TFSMLayer each of its two modes by itself.

    In training they drop out, and move the statistics of batch normalisation, as Keras does.

    Args:
        model: see `signatures_of`. One that has signatures, but no `inputs`, gets no function.

    Returns:
        Name -> traced `tf.function`: `__call__`, `serve` (as in Keras' own export), `train`.

    Reference: https://www.tensorflow.org/hub/reusable_saved_models
    """
    structure = input_structure(model)
    if structure is None:
        return {}
    specs = keras.tree.map_structure(lambda t: tf.TensorSpec(t.shape, sent(t.dtype)), structure)

    def call(inputs: Any, training: bool = False) -> Any:
        typed = keras.tree.map_structure(lambda t, x: tf.cast(x, t.dtype), structure, inputs)
        return model(typed, training=training)

    called = tf.function(call, autograph=False)
    # before `serve`: a first trace may create variables, such as a seed for all layers
    train, error = attempt(lambda: _mode(called, specs, training=True))
    if error:  # of a layer: what cannot be trained in a graph is served even so
        warnings.warn(
            f"'{model.name}' is written without its call in training mode, which cannot be traced "
            f"({type(error).__name__}: {' '.join(str(error).split())}). Fine-tune it through "
            "keras_shared.load.",
            stacklevel=2,
        )
        called = tf.function(call, autograph=False)  # without the trace that failed
        return {"__call__": called, "serve": _mode(called, specs, training=False)}
    _warn_of_losses_in_calls(model)
    _warn_of_what_follows_a_step(model)
    return {"__call__": called, "serve": _mode(called, specs, training=False), "train": train}


def _mode(called: Any, specs: Any, training: bool) -> Any:
    def mode(inputs: Any) -> Any:
        return called(inputs, training=training)

    function = tf.function(mode, input_signature=[specs], autograph=False)
    function.get_concrete_function()
    return function


def _warn_of_losses_in_calls(model: keras.Model) -> None:
    """Say that the interface has no place for a loss that depends on the inputs."""
    of_weights = sum(v.regularizer is not None for v in model.trainable_variables)
    if len(model.losses) > of_weights:
        warnings.warn(
            f"'{model.name}' adds a loss on what it computes (activity_regularizer or add_loss). "
            "A SavedModel holds no such loss: trained in plain TensorFlow, the model goes without "
            "it. keras_shared.load gives the model that has it.",
            stacklevel=2,
        )


def _warn_of_what_follows_a_step(model: keras.Model) -> None:
    """Say what Keras does to weights after each step, which a SavedModel does not hold."""
    kinds = {
        "a constraint": [v for v in model.trainable_variables if v.constraint is not None],
        "scales of float8, which are no weights": [
            v for v in model.trainable_variables if v.overwrite_with_gradient
        ],
    }
    for what, variables in kinds.items():
        if variables:
            warnings.warn(
                f"'{model.name}' has {what}: {[v.path for v in variables[:4]]}. Trained in plain "
                "TensorFlow, they change by their gradients alone. keras_shared.load gives the "
                "model that Keras trains as before.",
                stacklevel=2,
            )


def losses_of_weights(model: keras.Model) -> list[Any]:
    """The regularizers of the weights that are trained, as functions without arguments."""

    def loss(variable: keras.Variable) -> Any:
        return tf.function(
            lambda: variable.regularizer(variable), input_signature=(), autograph=False
        )

    return [loss(v) for v in model.trainable_variables if v.regularizer is not None]


def tables_of(model: keras.Model) -> Iterator[Any]:
    """The tables in which layers look strings up: Keras does not list them with the variables."""
    for layer in flatten_layers(model):
        for part in tf.train.TrackableView(layer).descendants():
            if isinstance(part, tf.saved_model.experimental.TrackableResource):
                yield part
