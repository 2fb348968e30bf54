"""One forward and one backward pass of a model, with what each use of each layer gives and gets."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.eager import is_compiled
from keras_shared.errors import KerasSharedError
from keras_shared.sharing.report import owners_in
from keras_shared.tying import TiedReader
from keras_shared.tying.keras_private import flatten_layers, shapes_alone_matter
from keras_shared.tying.state_kept import state_kept
from keras_shared.tying.watching import WatchedCall, watched

ACTIVATIONS = (
    keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.PReLU,
    keras.layers.ELU, keras.layers.Softmax,
)  # fmt: skip


class SignalError(KerasSharedError, ValueError):
    """The signals of a model cannot be measured; the message says what to do."""


@dataclasses.dataclass
class Use:
    """One use of a layer, of all steps if an RNN makes it.

    Attributes:
        layer: the layer.
        number: of the use, from 1.
        calls: its calls; more than one where an RNN makes them.
        gradients: of the loss of one example, summed over the batch, for each call by its outputs,
            flat, as far as what comes behind reads them.
        before: the same by what goes into the activation; None without one.
    """

    layer: keras.Layer
    number: int
    calls: list[WatchedCall] = dataclasses.field(default_factory=list)
    gradients: list[list[Any]] = dataclasses.field(default_factory=list)
    before: list[Any] = dataclasses.field(default_factory=list)


def collect(model: keras.Model, x: Any, loss_of: Callable[[Any], Any], examples: int) -> list[Use]:
    """Run a model on a batch, forward and back.

    Args:
        model: a built model; its state stays.
        x: a batch.
        loss_of: takes the outputs and gives the mean loss over the examples.
        examples: their number.

    Returns:
        The uses of its layers, in order.

    Raises:
        SignalError: if it calls none, or only inside of a loop that TensorFlow compiles.
    """
    layers = reported(model)
    uses: list[Use] = []
    current: dict[int, Use] = {}
    compiled: dict[int, keras.Layer] = {}
    with state_kept(model), tf.GradientTape() as tape:

        def seen(value: Any) -> None:
            if value.dtype.is_floating:
                tape.watch(value)

        def note(call: WatchedCall) -> Any:
            if id(call.layer) not in layers or not isinstance(first(call.outputs), tf.Tensor):
                return None
            if is_compiled(first(call.outputs)):
                if not shapes_alone_matter():
                    compiled[id(call.layer)] = call.layer
                return None
            call = call._replace(outputs=_copied(call.outputs))
            for output in outputs_of(call):
                seen(output)
            use = current.get(id(call.layer))
            if use is None or not call.step:
                use = Use(call.layer, 1 if use is None else use.number + 1)
                uses.append(use)
                current[id(call.layer)] = use
            use.calls.append(call)
            return call.outputs

        with watched(flatten_layers(model), note, seen):
            outputs = model(x, training=False)
        if lost := [layer.path for layer in compiled.values()]:
            raise SignalError(
                f"The layers {lost} run inside of a loop that TensorFlow compiles, as "
                "keras.ops.vectorized_map does: what they give cannot be seen. Measure a model "
                "that calls them by themselves."
            )
        if not uses:
            raise SignalError(f"'{model.name}' calls none of its layers: nothing can be measured.")
        loss = tf.convert_to_tensor(loss_of(outputs)) * float(examples)
    sources = [[*outputs_of(c), *_before(c)] for use in uses for c in use.calls]
    flat = iter(tape.gradient(loss, [tensor for of_call in sources for tensor in of_call]))
    for use in uses:
        for call in use.calls:
            use.gradients.append([next(flat) for _ in outputs_of(call)])
            use.before += [next(flat) for _ in _before(call)] or [None]
        _drop_trial(use)
    return uses


def _copied(outputs: Any) -> Any:
    """The same tensors by other names, so that what a call computes of another is not counted.

    Of an LSTM's cell the output is made of the state, and both go on.
    """
    copies: dict[int, Any] = {}

    def copy(value: Any) -> Any:
        if not isinstance(value, tf.Tensor):
            return value
        if id(value) not in copies:
            copies[id(value)] = tf.identity(value)
            for name in ("_keras_logits", "_keras_mask"):
                if hasattr(value, name):
                    setattr(copies[id(value)], name, getattr(value, name))
        return copies[id(value)]

    return keras.tree.map_structure(copy, outputs)


def outputs_of(call: WatchedCall) -> list[Any]:
    """The outputs of a call that have gradients, each once."""
    flat = [v for v in keras.tree.flatten(call.outputs) if isinstance(v, tf.Tensor)]
    return list({id(v): v for v in flat if v.dtype.is_floating}.values())


def _before(call: WatchedCall) -> list[Any]:
    return [] if call.before is None else [call.before]


def _drop_trial(use: Use) -> None:
    """An RNN calls its cell once more, for the shapes of what it gives; nothing reads that."""
    kept = [i for i, of_call in enumerate(use.gradients) if any(g is not None for g in of_call)]
    if use.calls[0].step is not None and kept:
        use.calls = [use.calls[i] for i in kept]
        use.gradients = [use.gradients[i] for i in kept]
        use.before = [use.before[i] for i in kept]


def reported(model: keras.Model) -> dict[int, keras.Layer]:
    """The layers that have or read weights, or are activations, by their id."""
    owners = {id(owner) for _, owner in owners_in(model)}
    return {
        id(layer): layer
        for layer in flatten_layers(model)
        if id(layer) in owners
        or isinstance(layer, ACTIVATIONS)
        or (isinstance(layer, TiedReader) and layer.read_variables())
    }


def first(values: Any) -> Any:
    """The first of nested tensors."""
    return next(iter(keras.tree.flatten(values)), None)


def as_numpy(tensors: list[Any]) -> np.ndarray:
    """Tensors of several steps, each (batch, ..., units), as one array (rows, units)."""
    arrays = [tf.cast(tensor, tf.float32).numpy() for tensor in tensors if tensor is not None]
    if not arrays:
        return np.zeros((0, 1), "float32")
    return np.concatenate([a.reshape(-1, a.shape[-1] if a.ndim else 1) for a in arrays])
