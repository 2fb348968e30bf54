"""Which layers run in one forward pass, and on what shapes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras

from keras_shared.tying.keras_private import flatten_layers
from keras_shared.tying.state_kept import state_kept

UNKNOWN_SIDE = 8  # stands for a side that the model leaves open


class Call(NamedTuple):
    """One call of a layer; of a cell inside of an RNN, all of its steps are one.

    Attributes:
        layer: what was called.
        inputs: shape of its first input, batch included.
        outputs: shape of its first output.
        steps: whether an RNN called it, at each of its steps.
    """

    layer: keras.Layer
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: bool = False


def calls_of(model: keras.Model) -> list[Call]:
    """The calls of one forward pass with one example, in order; no value is computed.

    Args:
        model: a built model.

    Raises:
        ValueError: if the model has no weights yet, or its inputs cannot be known.
    """
    inputs, named = keras.tree.map_structure(_one, _inputs(model))
    calls: list[Call] = []
    trial = _Trial()
    trial.model = model
    with state_kept(model), _watched(flatten_layers(model), calls):
        trial.compute_output_spec(*inputs, **named)
    return calls


def _inputs(model: keras.Model) -> tuple[list[Any], dict[str, Any]]:
    """What the model is called on: one argument, or several by name."""
    sequential = isinstance(model, keras.Sequential)
    if getattr(model, "inputs", None):
        return [model.inputs[0] if sequential else model.input], {}
    config = (model.get_build_config() or {}) if model.built else {}
    shapes = config.get("shapes_dict", {})
    if "input_shape" in config:
        return [keras.tree.map_shape_structure(keras.KerasTensor, config["input_shape"])], {}
    if not shapes:
        raise ValueError(
            f"'{model.name}' (of type {type(model).__name__}) was never built: its inputs are not "
            "known. Call it once on its input first, or give it a keras.Input. One that takes "
            "several arguments needs a `build` that takes a shape for each of them."
        )
    return [], {
        name.removesuffix("_shape"): keras.tree.map_shape_structure(keras.KerasTensor, shape)
        for name, shape in shapes.items()
    }


class _Trial(keras.Operation):
    """A call of a model that works out shapes and computes no value."""

    model: keras.Model

    def call(self, *inputs: Any, **named: Any) -> Any:
        return self.model(*inputs, **named, training=False)


def _one(spec: Any) -> keras.KerasTensor:
    """One example, of sides that are all known."""
    sides = [UNKNOWN_SIDE if side is None else side for side in spec.shape[1:]]
    return keras.KerasTensor((spec.shape[0] or 1, *sides), spec.dtype)


@contextmanager
def _watched(layers: list[keras.Layer], calls: list[Call]) -> Iterator[None]:
    """Note each call of these layers while the context is open."""
    watched: list[tuple[keras.Layer, str]] = []
    running: set[int] = set()  # a quantised layer may run its `call` inside of `quantized_call`
    in_time: list[set[int]] = []  # of each RNN that is running: the layers that it called already

    def watch(layer: keras.Layer, method: str) -> None:
        original = getattr(layer, method)

        def noted(*args: Any, **kwargs: Any) -> Any:
            if id(layer) in running:
                return original(*args, **kwargs)
            running.add(id(layer))
            rnn = isinstance(layer, keras.layers.RNN)
            if rnn:
                in_time.append(set())
            try:
                outputs = original(*args, **kwargs)
            finally:
                running.discard(id(layer))
                if rnn:
                    in_time.pop()
            steps = in_time[-1] if in_time else None
            if steps is None or id(layer) not in steps:
                shapes = _shape(args or tuple(kwargs.values())), _shape(outputs)
                calls.append(Call(layer, *shapes, steps is not None))
            if steps is not None:
                steps.add(id(layer))
            return outputs

        setattr(layer, method, noted)
        watched.append((layer, method))

    try:
        for layer in layers:
            watch(layer, "call")
            if hasattr(layer, "quantized_call"):
                watch(layer, "quantized_call")
        yield
    finally:
        for layer, method in watched:
            delattr(layer, method)


def _shape(values: Any) -> tuple[int, ...]:
    shapes = [tuple(v.shape) for v in keras.tree.flatten(values) if hasattr(v, "shape")]
    return shapes[0] if shapes else ()
