"""Which layers run in one forward pass, and on what shapes."""

import functools
from typing import Any, NamedTuple

import keras

from keras_shared.errors import attempt
from keras_shared.layers import Shared
from keras_shared.tying.keras_private import expect_layer, flatten_layers
from keras_shared.tying.state_kept import state_kept
from keras_shared.tying.watching import WatchedCall, watched

UNKNOWN_SIDES = (8, 32, 128, 512)  # for a side that the model leaves open


class Call(NamedTuple):
    """One call of a layer; of a cell inside of an RNN, all of its steps are one.

    Attributes:
        layer: what was called.
        inputs: shape of its first input, batch included.
        outputs: shape of its first output.
        steps: how often an RNN or a TimeDistributed called it, once at each step; None outside.
        open_steps: whether the model leaves that number open, and `steps` stands for it.
        examples: how many of its examples are of one of the model's, where positions were moved to
            the batch axis.
        uses: how many inputs of a `Shared` it answers at once, with mode="joined".
    """

    layer: keras.Layer
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: int | None = None
    open_steps: bool = False
    examples: int = 1
    uses: int = 1


def calls_of(model: keras.Model) -> list[Call]:
    """The calls of one forward pass with one example, in order; no value is computed.

    Args:
        model: a built model.

    Raises:
        ValueError: if the model has no weights yet, or its inputs cannot be known.
    """
    expect_layer(model)
    given = _inputs(model)
    for side in UNKNOWN_SIDES:
        found, wrong = attempt(functools.partial(_calls_with, model, given, side), ValueError)
        if not wrong:
            return found  # type: ignore[no-any-return]
        if not any(None in t.shape[1:] for t in keras.tree.flatten(given)):
            break
    raise wrong


def _calls_with(model: keras.Model, given: Any, side: int) -> list[Call]:
    inputs, named = keras.tree.map_structure(functools.partial(_one, unknown=side), given)
    return _calls_on(model, inputs, named)


def _calls_on(model: keras.Model, inputs: list[Any], named: dict[str, Any]) -> list[Call]:
    batch = keras.tree.flatten((inputs, named))[0].shape[0]
    calls: list[Call] = []
    trial = _Trial()
    trial.model = model

    def note(call: WatchedCall) -> None:
        if not call.step:  # all steps of an RNN are one
            given = call.args or tuple(call.kwargs.values())
            shapes = _shape(given), _shape(call.outputs)
            steps = None if call.step is None else 0
            # a lookup of texts does not say how many it gives
            examples = max(1, (shapes[0][0] or batch) // batch) if shapes[0] else 1
            calls.append(Call(call.layer, *shapes, steps, examples=examples))
            if isinstance(call.layer, keras.layers.RNN):  # noted after what it called
                number, is_open = shapes[0][1], _is_open_in_time(call.layer)
                calls[:] = [
                    c._replace(steps=number, open_steps=is_open) if c.steps == 0 else c
                    for c in calls
                ]
            if isinstance(call.layer, keras.layers.TimeDistributed):
                _in_time(calls, call.layer, shapes[0][1])
            if isinstance(call.layer, Shared) and call.layer.mode == "joined":
                _joined(calls, call.layer, len(given[0]))

    with state_kept(model), watched(flatten_layers(model), note):
        trial.compute_output_spec(*inputs, **named)
    return calls


def _joined(calls: list[Call], shared: Shared, uses: int) -> None:
    """Mark the calls that one call of a joined `Shared` made: they end the list, before its own."""
    inside = {id(layer) for layer in flatten_layers(shared.layer)}
    tower = 0
    for place in range(len(calls) - 2, -1, -1):
        tower += calls[place].layer is shared.layer  # noted after what it called
        if id(calls[place].layer) not in inside or tower > 1:
            break
        calls[place] = calls[place]._replace(uses=uses * calls[place].uses)


def _in_time(calls: list[Call], layer: keras.layers.TimeDistributed, steps: int) -> None:
    """Make one call of those that are alike at each step; they end the list, before its own."""
    inside = {id(part) for part in flatten_layers(layer.layer)}
    last = len(calls) - 2  # of what lies inside, which is noted after what it calls
    begins = last
    while begins and id(calls[begins - 1].layer) in inside - {id(layer.layer)}:
        begins -= 1
    of_a_step = calls[begins : last + 1]
    first = last + 1 - steps * len(of_a_step)
    is_open = _is_open_in_time(layer)
    calls[first:-1] = [
        # an RNN at each step has steps of its own
        c._replace(steps=steps * (c.steps or 1), open_steps=is_open or c.open_steps)
        for c in of_a_step
    ]


def _is_open_in_time(rnn: keras.Layer) -> bool:
    config = rnn.get_build_config() or {}
    shapes = [config.get("input_shape"), *config.get("shapes_dict", {}).values()]
    known = [shape for shape in shapes if shape is not None]
    return not known or known[0][1] is None


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


def _one(spec: Any, unknown: int) -> keras.KerasTensor:
    """One example, of sides that are all known."""
    sides = [unknown if side is None else side for side in spec.shape[1:]]
    return keras.KerasTensor((spec.shape[0] or 1, *sides), spec.dtype)


def _shape(values: Any) -> tuple[int, ...]:
    shapes = [tuple(v.shape) for v in keras.tree.flatten(values) if hasattr(v, "shape")]
    return shapes[0] if shapes else ()
