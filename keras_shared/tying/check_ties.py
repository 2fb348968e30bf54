"""A dry run of loading and cloning."""

import keras

from keras_shared.errors import boundary
from keras_shared.tying.bind_ties import bind_ties, readers_of, sources_inside
from keras_shared.tying.keras_private import children_of, flatten_layers
from keras_shared.tying.tie_error import TieError

ADVICE = (
    "Of a class of your own let `__init__` take **kwargs for super().__init__(**kwargs), and "
    "`get_config` return {**super().get_config(), ...} with its other arguments."
)


def check_ties(model: keras.Model) -> None:
    """Rebuild `model` as loading and cloning would, and see that every reader finds its source.

    A dry run before a long training: what it lets pass comes back tied from a `.keras` file,
    `from_config`, JSON and `clone_model`. Weights are neither copied nor changed. Sharing of plain
    Keras is looked at too: one layer in two sub-models would come back as two.

    Args:
        model: a functional or Sequential model, or a subclass with `get_config`.

    Raises:
        TieError: if the model cannot be rebuilt, if a source lies outside of it, if several layers
            of it match its description, or if a layer that is shared comes back as several; the
            message names the layers and says what to do.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedDense
        >>> from keras_shared.tying import TieError, check_ties
        >>> inputs = keras.Input((4,))
        >>> code = keras.layers.Dense(2, name="code")
        >>> whole = keras.Model(inputs, TiedDense(code)(code(inputs)))
        >>> check_ties(whole)
        >>> alone = keras.Model(code.output, whole.output)
        >>> try:
        ...     check_ties(alone)
        ... except TieError as error:
        ...     print("not part of the model" in str(error))
        True
    """
    sources_inside(model)
    graph = isinstance(model, keras.Sequential) or getattr(model, "inputs", None)
    with boundary(f"'{model.name}' cannot be rebuilt from its config", TieError, ADVICE):
        again = [type(model).from_config(model.get_config())]
        if graph and (readers_of(model) or held_twice(model)):  # else a clone can lose nothing
            again.append(keras.models.clone_model(model))
    for rebuilt in again:
        bind_ties(rebuilt)
        now, then = len(rebuilt.variables), len(model.variables)
        if now > then or (now < then and rebuilt.built):  # a subclass may still be building
            raise TieError(
                f"'{model.name}' has {then} variables, but {now} after it is rebuilt from its "
                f"config. {_culprits(model)}"
            )


def held_twice(model: keras.Model) -> list[tuple[keras.Layer, list[keras.Layer]]]:
    """Layers with weights that more than one model, wrapper or block contains, and which."""
    holders: dict[int, list[keras.Layer]] = {}
    inside = flatten_layers(model)
    for holder in inside:
        for child in {id(child): child for child in children_of(holder)}.values():
            if child.weights:
                holders.setdefault(id(child), []).append(holder)
    return [(x, by) for x in inside if len(by := holders.get(id(x), [])) > 1]


def _culprits(model: keras.Model) -> str:
    """What to do about the layers that more than one model, wrapper or block contains."""
    twice = [
        f"'{layer.path or layer.name}' (in {' and '.join(holder.name for holder in holders)})"
        for layer, holders in held_twice(model)
    ]
    if not twice:
        return (
            "A layer that it uses more than once comes back as several. Run `check_ties` on its "
            "sub-models to find out which, and call the first one again through "
            "`keras_shared.layers.TiedLayer` instead of keeping it in a second attribute."
        )
    return (
        f"More than one model or layer contains {', '.join(twice)}, and Keras rebuilds a separate "
        "layer for each. Use the layer itself in one of them, and call it through "
        "`keras_shared.layers.TiedLayer` in the others."
    )
