"""Names that tell the layers and weights of a model apart, where two of them have one name."""

from collections import Counter
from collections.abc import Iterable

import keras

from keras_shared.tying.keras_private import children_of, flatten_layers


def held_paths(model: keras.Model) -> dict[int, str]:
    """id of each layer inside of `model` -> its name after those of what holds it."""
    paths = {id(model): ""}

    def down(layer: keras.Layer) -> None:
        for child in children_of(layer):
            if id(child) not in paths:
                paths[id(child)] = f"{paths[id(layer)]}/{child.name}".lstrip("/")
                down(child)

    down(model)
    return paths


def short_names(model: keras.Model) -> dict[int, str]:
    """id of each layer inside of `model` -> its name, alone where no other layer has it."""
    paths = held_paths(model)
    layers = [layer for layer in flatten_layers(model) if id(layer) in paths and layer is not model]
    times = Counter(layer.name for layer in layers)
    return paths | {id(la): la.name for la in layers if times[la.name] == 1}


def in_python(model: keras.Model, layer: keras.Layer) -> str:
    """How Python gets at a layer inside of `model`, for messages.

    Example:
        >>> import keras
        >>> from keras_shared.tying.layer_names import in_python
        >>> x, y = keras.Input((2,)), keras.Input((2,))
        >>> layer = keras.layers.Dense(1, name="y")
        >>> block = keras.Model(x, layer(x), name="block")
        >>> in_python(keras.Model(y, block(y)), layer)
        "model.get_layer('block').get_layer('y')"
    """
    path = held_paths(model)[id(layer)]
    found: keras.Layer | None = model
    for name in path.split("/"):
        inside = found.layers if isinstance(found, keras.Model) else []
        found = next((one for one in inside if one.name == name), None)
    if found is not layer:  # it lies in a wrapper, or in a block that is no model
        return f"the layer '{path}' itself"
    return "model" + "".join(f".get_layer({name!r})" for name in path.split("/"))


def weight_paths(
    model: keras.Model, weights: Iterable[tuple[keras.Variable, keras.Layer]]
) -> dict[int, str]:
    """id of each weight -> its path as Keras has it; where several have one, after its owner's.

    Args:
        model: what holds the layers.
        weights: variables and their owners.
    """
    weights = [*weights]
    times, held = Counter(v.path for v, _ in weights), held_paths(model)
    return {
        id(v): v.path if times[v.path] == 1 else f"{held.get(id(owner)) or owner.name}/{v.name}"
        for v, owner in weights
    }
