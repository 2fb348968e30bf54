"""A functional model, copied layer by layer, with something else in the place of some."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_shared.tying import TieError
from keras_shared.tying.keras_private import (
    calls_as_built,
    children_of,
    flatten_layers,
    run_graph,
)
from keras_shared.tying.layer_names import held_paths
from keras_shared.tying.take_values import take_values


class Copies:
    """New layers with the values of the old ones. A subclass puts others in the place of some.

    Args:
        touched: layers that a subclass replaces, or asks for: models that contain them are built
            anew from their graph, other layers from their config.
    """

    def __init__(self, touched: Iterable[keras.Layer]) -> None:
        self._touched = {id(layer) for layer in touched}
        self._copies: dict[int, keras.Layer] = {}

    def of_model(self, model: keras.Model) -> keras.Model:
        """A copy of a functional model or a Sequential."""
        if isinstance(model, keras.Sequential):
            head = keras.Input(batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype)
            layers = [self.of(layer) for layer in model.layers]
            return keras.Sequential([head, *layers], name=model.name)
        inputs = keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name), model.input
        )
        return keras.Model(inputs, run_graph(model, inputs, self.call), name=model.name)

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """What the copy of a layer, or an operation, gives."""
        if not isinstance(layer, keras.Layer):  # an operation such as keras.ops.negative
            return layer(*args, **kwargs)
        return self.of(layer)(*args, **kwargs)

    def of(self, layer: keras.Layer) -> keras.Layer:
        """The one copy of a layer."""
        if id(layer) not in self._copies:
            self._copies[id(layer)] = self.new(layer)
        return self._copies[id(layer)]

    def new(self, layer: keras.Layer) -> keras.Layer:
        """A copy of a layer that has none yet."""
        within = [inner for inner in flatten_layers(layer) if id(inner) in self._touched]
        if within and within != [layer]:
            if not calls_as_built(layer):
                raise TieError(
                    f"'{within[0].name}' lies inside of {type(layer).__name__} '{layer.name}', "
                    "which has no graph to build anew, or a `call` that does more than its graph. "
                    "Change it where you build the model."
                )
            return self.of_model(layer)
        copy = type(layer).from_config(layer.get_config())
        take_values(copy, layer)
        return copy


def refuse_without_graph(model: Any, otherwise: str = "") -> None:
    """See that a model can be copied layer by layer.

    Args:
        model: what a user gave.
        otherwise: more advice, the end of the message.

    Raises:
        TieError: for anything but a functional model or a Sequential that was built, and for one
            with weights besides those of its layers.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        name = f"'{model.name}'" if isinstance(model, keras.Layer) else repr(model)
        raise TieError(
            f"{name} (of type {type(model).__name__}) has no graph of layers to copy. Pass a "
            f"functional model, or a Sequential that was built{otherwise}."
        )
    if not calls_as_built(model):
        raise TieError(
            f"'{model.name}' (of type {type(model).__name__}) has a `call` of its own, which a "
            "copy of its graph would leave out. Pass a model that computes what its graph says."
        )
    held = {id(weight) for layer in model.layers for weight in layer.weights}
    if own := [weight.name for weight in model.weights if id(weight) not in held]:
        raise TieError(
            f"'{model.name}' (of type {type(model).__name__}) has weights {own} besides those of "
            "its layers, which a copy of its graph would leave out. To leave them out, pass "
            "keras.Model(model.input, model.output)."
        )


def names_in(model: keras.Model) -> list[tuple[keras.Layer, set[str]]]:
    """The layers inside of `model`, and what each can be named by."""
    paths = held_paths(model)
    layers = [layer for layer in flatten_layers(model) if layer is not model]
    return [(la, {la.name, la.path or la.name, paths.get(id(la), la.name)}) for la in layers]


def expect_name(name: Any) -> None:
    """Refuse what is no name of a layer.

    Raises:
        TieError: if it is none.
    """
    if not isinstance(name, str):
        own = f" Pass its name, {name.name!r}." if isinstance(name, keras.Layer) else ""
        raise TieError(
            f"Expected a layer's name or path, as text. Received: {repr(name)[:80]} (of type "
            f"{type(name).__name__}).{own}"
        )


def layer_named(model: keras.Model, name: str) -> keras.Layer:
    """The one layer inside of `model` that has this name or path.

    Raises:
        TieError: if there is none, or several, or for what is no name.
    """
    expect_name(name)
    layers, paths = names_in(model), held_paths(model)
    fits = [layer for layer, names in layers if name in names]
    if len(fits) != 1:
        # those that hold weights, and not what holds them alone
        leaves = [la for la, _ in layers if la.weights and not children_of(la)]
        owners = [paths.get(id(la), la.name) for la in fits or leaves[:12]]
        raise TieError(
            f"'{model.name}' has {len(fits)} layers named '{name}'; expected one, by its name or "
            f"its path. It has: {owners}"
        )
    return fits[0]
