"""The weights of a model by name, and under which other names they are read."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from keras_shared.tying import TiedReader
from keras_shared.tying.keras_private import children_of, flatten_layers


class Reading(NamedTuple):
    """A second name for a weight.

    Attributes:
        source: the name of the weight itself.
        form: how it is read, see `keras_shared.sharing.Reading`.
        axes: the order of axes in which a layer without the tie would store it; None for the same.
    """

    source: str
    form: str = "as is"
    axes: tuple[int, ...] | None = None


def named_weights(
    model: keras.Model,
) -> tuple[dict[str, keras.Variable], dict[str, Reading]]:
    """Every weight of `model` under one name, and the names under which it is read besides.

    A name is the shortest way from the model down to the weight: names of layers, then that of
    the variable, with dots between (one in a name becomes `_`). A name that comes twice in one
    place gets a number. States of random seeds, no `keras.Model.weights` either, have none.

    Args:
        model: a built model whose readers are bound.

    Returns:
        Name -> variable, and name -> reading: of a layer that is found in several places, and of
        each `TiedReader`. An untied reader of its own weight is its own source.

    Raises:
        ValueError: if the model has no weights.
    """
    names: dict[int, list[str]] = {}  # id of a variable -> where it is found
    variables, readers = [], []
    for path, part in _inside(model):
        if isinstance(part, TiedReader):
            readers.append((path, part))
        if not isinstance(part, keras.Layer):
            if id(part) not in names:
                variables.append(part)
            names.setdefault(id(part), []).append(path)
    if not variables:
        raise ValueError(
            f"'{model.name}' (of type {type(model).__name__}) has no weights. Call it once on its "
            "inputs, so that its layers are built."
        )
    owners = {key: min(found, key=lambda name: name.count(".")) for key, found in names.items()}
    weights = {owners[id(variable)]: variable for variable in variables}
    readings = {
        name: Reading(owners[key])
        for key, found in names.items()
        for name in found
        if name != owners[key]
    }
    for name, reader in readers:
        for inner, variable, form, axes in _read_by(reader):
            own = weights.get(f"{name}.{inner}", variable) is not variable  # one of the same name
            second = f"{name}.{'tied_' if own else ''}{inner}"
            readings[second] = Reading(owners[id(variable)], form, axes)
    return weights, readings


def layers_with_lora(
    model: keras.Model, weights: dict[str, keras.Variable]
) -> dict[str, keras.Layer]:
    """The layers with LoRA, each by the name of the first of its two factors."""
    names = {id(variable): name for name, variable in weights.items()}
    found = {}
    for layer in flatten_layers(model):
        if getattr(layer, "lora_enabled", False):
            factor = getattr(layer, "lora_kernel_a", None)
            factor = layer.lora_embeddings_a if factor is None else factor
            found[names[id(factor)]] = layer
    return found


def _inside(
    layer: keras.Layer, path: str = "", above: tuple[int, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """The variables and layers inside of `layer` with their paths, at each of their places."""
    above = (*above, id(layer))
    children = list({id(child): child for child in children_of(layer)}.values())
    deeper = {id(v) for child in children for v in child.weights}
    taken: set[str] = set()
    for part in [*(v for v in layer.weights if id(v) not in deeper), *children]:
        if id(part) in above:  # a layer that holds the one it lies in
            continue
        if isinstance(layer, TiedReader) and part is layer.own_layer and not _whole(layer):
            for name, inner in _inside(part, path, above):  # named as the reader's own
                yield _as_kernel(name), inner
            continue
        plain = part.name.replace(".", "_")
        name, number = plain, 1
        while name in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name)
        yield path + name, part
        if isinstance(part, keras.Layer):
            yield from _inside(part, f"{path}{name}.", above)


def _read_by(
    reader: TiedReader,
) -> Iterator[tuple[str, keras.Variable, str, tuple[int, ...] | None]]:
    """What a reader would hold if it were untied: name inside of it, variable, form, axes."""
    if reader.untied:
        if reader.form != "as is":
            for variable in reader.read_variables():
                yield _as_kernel(variable.name), variable, reader.form, None
        return
    if _whole(reader):
        for path, part in _inside(reader.source()):
            if not isinstance(part, keras.Layer):
                yield path, part, "as is", None
        return
    for variable in reader.read_variables():
        weight = variable.name in ("kernel", "embeddings")
        yield (
            _as_kernel(variable.name),
            variable,
            reader.form,
            reader.plain_axes if weight else None,
        )


def _as_kernel(name: str) -> str:
    """A table is the kernel of a layer that multiplies by it."""
    before, dot, last = name.rpartition(".")
    return f"{before}{dot}{'kernel' if last == 'embeddings' else last}"


def _whole(reader: TiedReader) -> bool:
    """Whether it reads a whole layer or tower."""
    return hasattr(reader, "as_calls")
