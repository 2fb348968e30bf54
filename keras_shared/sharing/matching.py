"""Which layer of a file is which of a model, whether the file's net was tied or not."""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np

from keras_shared.layers import TiedLayer
from keras_shared.sharing.stored_layers import (
    TOP_LEVEL,
    StoredLayer,
    StoredLayers,
    in_file_order,
    values_of,
)
from keras_shared.tying import TiedReader
from keras_shared.tying.effective_weight import weight_names
from keras_shared.tying.keras_private import children_of, saved_layers, snake_case


class Stored(NamedTuple):
    """A weight as a file has it.

    Attributes:
        dataset: the values, not read yet.
        axes: the order of its axes in which they are the model's.
        reader: the layer that only reads the weight in the model, while the file's net had it once
            more for that layer; empty for the owner's own.
    """

    dataset: h5py.Dataset
    axes: tuple[int, ...] | None
    reader: str

    def values(self) -> np.ndarray:
        """The values, read now, as the model has them."""
        values = values_of(self.dataset)
        return values if self.axes is None else values.transpose(self.axes)


class Place:
    """A weight of a model, and what a file holds for it.

    Attributes:
        path: names of the sub-models and the layer above it, and its own.
        value: the variable; of a layer with LoRA, the tensor that Keras would save.
        stored: the owner's, then what the file's net had for readers.
    """

    def __init__(self, path: str, value: Any) -> None:
        self.path, self.value = path, value
        self.stored: list[Stored] = []

    def differences(self, first: int = 0) -> dict[str, float]:
        """How far the values of each reader are from the first ones, at most; 0 if they are equal.

        Args:
            first: number in `stored` of those that the ones behind it are compared with.
        """
        found: dict[str, float] = {}
        for other in self.stored[first + 1 :]:
            one, its = self.stored[first].values(), other.values()
            found[other.reader] = 0.0
            if not np.array_equal(one, its):
                apart = np.abs(np.subtract(one, its, dtype="float64")).max()
                found[other.reader] = float(apart)
        return found


class Matched(NamedTuple):
    """A model, found in a file.

    Attributes:
        places: every weight of the model, once.
        other_shapes: layers whose weights have other shapes in the file, and a sentence on each.
        left: layers of the file that are none of the model.
    """

    places: list[Place]
    other_shapes: dict[str, str]
    left: list[StoredLayer]

    @property
    def missing(self) -> list[Place]:
        """Weights that the file does not hold for their owner, in any shape."""
        gone = [place for place in self.places if not place.stored or place.stored[0].reader]
        return [place for place in gone if place.path.rpartition("/")[0] not in self.other_shapes]


class _Layer(NamedTuple):
    """A layer, as often as a file may hold it: for each TiedLayer that reads it once more.

    Attributes:
        layer: the layer.
        above: the model, sub-models and wrappers down to it, itself included.
        reads: whether it stands here for what another place owns.
        paths: in a file of Keras 3: if each reader were the plain layer in its place; as it is.
    """

    layer: keras.Layer
    above: list[keras.Layer]
    reads: bool
    paths: tuple[str, str]

    @property
    def name(self) -> str:
        return "/".join(layer.name for layer in self.above[1:])


_Form = list[tuple[Any, tuple[int, ...] | None, str]]  # value, axes, reader: as in `Stored`
_State = Callable[[keras.Layer], list[tuple[str, Any]]]  # see `_state`
_Declared = tuple[_Layer, list[_Form]]  # see `_forms`
_Others = tuple[dict[str, str], dict[str, str]]  # of a plain net, as it is: path -> the first one


def match(model: keras.Model, stored: StoredLayers) -> Matched:
    """Find each weight of `model` in a file.

    Layers that were named by hand are found by their names, with those of the sub-models above or
    without. Of others the order counts, as in Keras: the number among the layers of one class, or,
    in an .h5 file, among all. A reader may stand in the file as a plain layer, untied, or as it is.

    Args:
        model: a built model, every reader bound to its source.
        stored: what `stored_layers` gives.
    """
    state: _State = functools.cache(_state)  # with LoRA, each call gives other tensors
    others: _Others = ({}, {})
    found_in = _in_order(model) if stored.in_order else _by_path(model, others)
    layers = [(one, forms) for one in found_in if (forms := _forms(one, state))]
    places: dict[int, Place] = {}
    for one, _ in layers:
        for name, value in () if one.reads else state(one.layer):
            places.setdefault(id(value), Place(f"{one.name}/{name}".lstrip("/"), value))
    left, other_shapes = list(stored.layers), {}
    for (one, forms), found in _pairs(layers, stored, others):
        left.remove(found)
        shapes = [tuple(dataset.shape) for dataset in found.weights]
        kind = re.sub(r"_\d+$", "", found.path.rpartition("/")[2])
        a_reader_too = kind == snake_case(type(one.layer).__name__)  # else a plain layer
        fits = [form for form in forms[:: -1 if a_reader_too else 1] if _shapes(form) == shapes]
        if not fits:
            wanted = " or ".join(str(_shapes(form)) for form in forms)
            other_shapes[one.name] = f"the model takes {wanted}, '{found.path}' has {shapes}"
            continue
        for dataset, (value, axes, reader) in zip(found.weights, fits[0], strict=True):
            place = places.get(id(value))
            if place is not None:
                owned = any(not item.reader for item in place.stored)  # a variable of two layers
                place.stored.append(Stored(dataset, axes, reader or (one.name if owned else "")))
    for place in places.values():
        place.stored.sort(key=lambda item: bool(item.reader))
    return Matched(list(places.values()), other_shapes, left)


def _pairs(
    layers: list[_Declared], stored: StoredLayers, others: _Others
) -> Iterator[tuple[_Declared, StoredLayer]]:
    left = stored.layers
    for first in (0, -1):  # all names down to it; then the last, of a net with other sub-models
        here = [tuple(one.name.split("/")[first:]) for one, _ in layers]
        there = {tuple(found.name.split("/")[first:]): found for found in left}
        times = Counter(here), Counter(tuple(f.name.split("/")[first:]) for f in left)
        named = [
            (row, there[name])
            for row, name in zip(layers, here, strict=True)
            if times[0][name] == times[1][name] == 1
            and not any(map(_named_by_keras, row[0].above[1:][first:]))
        ]
        yield from named
        taken = {id(item) for pair in named for item in pair}
        layers = [row for row in layers if id(row) not in taken]
        left = [found for found in left if id(found) not in taken]
    if stored.in_order:
        owners = [row for row in layers if any(not reader for *_, reader in row[1][0])]
        fits = [rows for rows in (layers, owners) if len(rows) == len(left)]
        yield from zip(fits[0], left, strict=True) if fits else ()
    else:
        choices = []
        for i in (0, 1):  # as a plain net, or as one with readers: which has more layers of it
            by_path = {_first_path(found.path, others[i]): found for found in left}
            rows = [row for row in layers if row[0].paths[i] in by_path]
            choices.append([(row, by_path[row[0].paths[i]]) for row in rows])
        yield from max(choices, key=len)


def _first_path(path: str, others: dict[str, str]) -> str:
    """Where Keras 3 would have written a layer that earlier versions wrote at another attribute."""
    first = ""
    for part in path.split("/"):
        first = f"{first}/{part}".lstrip("/")
        first = others.get(first, first)
    return first


def _named_by_keras(layer: keras.Layer) -> bool:
    """Such names say nothing: they count what was built before."""
    kind = snake_case(type(layer).__name__)
    return re.fullmatch(rf"{kind}(_\d+)?", layer.name) is not None


def _by_path(model: keras.Model, others: _Others) -> Iterator[_Layer]:
    """As a file of Keras 3 holds them; into `others` go paths by which it finds them too."""
    plain = saved_layers(model, lambda layer: (_content(layer), _plain_class(layer)))
    as_is = saved_layers(model, lambda layer: (_content(layer), type(layer).__name__))
    seen: set[int] = set()
    for (path, (*above, layer), first), (own_path, _, own_first) in zip(plain, as_is, strict=True):
        if any(_reads_kernels(one) for one in above[:-1]):
            continue
        if first is None:
            yield _Layer(layer, above, _reads(above, layer, seen), (path, own_path))
        elif path != first:
            others[0][path], others[1][own_path] = first, str(own_first)


def _in_order(model: keras.Model) -> Iterator[_Layer]:
    """As an .h5 file holds them: a layer of two sub-models in both."""
    seen: set[int] = set()

    def down(above: list[keras.Layer], here: set[int]) -> Iterator[_Layer]:
        layer = _content(above[-1])
        if id(layer) not in here:
            here.add(id(layer))
            yield _Layer(layer, above, _reads(above, layer, seen), ("", ""))
            inside = layer.layers if isinstance(layer, keras.Model) else children_of(layer)
            for child in [] if _reads_kernels(layer) else inside:
                yield from down([*above, child], here)

    for top in model.layers:
        yield from down([model, top], set())
    yield _Layer(model, [model], False, (TOP_LEVEL, TOP_LEVEL))


def _reads(above: list[keras.Layer], layer: keras.Layer, seen: set[int]) -> bool:
    """Whether a layer is below a TiedLayer, or stood at another place before."""
    if any(isinstance(one, TiedLayer) and not one.untied for one in above):
        return True
    again = id(layer) in seen
    seen.add(id(layer))
    return again


def _reads_kernels(layer: keras.Layer) -> bool:
    """Whether it is a reader whose own layer, once it is untied, counts as part of it."""
    return isinstance(layer, TiedReader) and not isinstance(layer, TiedLayer)


def _content(layer: keras.Layer) -> keras.Layer:
    return (layer.own_layer or layer.source()) if isinstance(layer, TiedLayer) else layer


def _plain_class(layer: keras.Layer) -> str:
    if isinstance(layer, TiedReader) and _reads_kernels(layer) and not layer.untied:
        plain = layer.has_plain_counterpart()
        return layer.plain_counterpart()[0].__name__ if plain else type(layer).__name__
    return type(_content(layer)).__name__


def _state(layer: keras.Layer) -> list[tuple[str, Any]]:
    """What Keras saves of a layer itself, in order: variables, or what LoRA adds up to."""
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    saved = [(key, store[key]) for key in sorted(store, key=in_file_order)]
    own = [(getattr(value, "name", key), value) for key, value in saved if hasattr(value, "shape")]
    if _reads_kernels(layer) and layer.own_layer is not None:
        return [*own, *_state(layer.own_layer)]
    return own


def _forms(one: _Layer, state: _State) -> list[_Form]:
    """The weights that a file may hold for a layer, if any.

    For a reader: as a plain layer has them, as one untied, or as one tied.
    """
    layer, whose = one.layer, one.name if one.reads else ""
    if not isinstance(layer, TiedReader):
        form: _Form = [(value, None, whose) for _, value in state(layer)]
        return [form] if form else []
    weights, reader = _read_by(layer, state), whose if layer.untied else one.name
    own: _Form = [
        (value, None, whose)
        for _, value in state(layer)
        if all(value is not weight for weight in weights)
    ]
    axes = None if layer.plain_axes is None else tuple(map(int, np.argsort(layer.plain_axes)))
    plain: _Form = [(weight, axes, reader) for weight in weights]
    forms = [[*plain, *own], [*own, *((weight, None, reader) for weight in weights)]]
    return forms if layer.untied else [*forms, own]


def _read_by(reader: TiedReader, state: _State) -> list[Any]:
    """The weights that a reader reads, as its source saves them."""
    source = reader.own_layer or reader.source()
    weights = [getattr(source, name, None) for name in weight_names(source)]
    saved = [value for _, value in state(source)]
    return [w for w in saved if any(w is weight for weight in weights)] or saved[:1]


def _shapes(form: _Form) -> list[tuple[int, ...]]:
    """The shapes in the file, whose axes are in the reader's order."""
    back = [(value.shape, None if axes is None else np.argsort(axes)) for value, axes, _ in form]
    return [tuple(shape if axes is None else (shape[a] for a in axes)) for shape, axes in back]
