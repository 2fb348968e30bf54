"""What is one weight, and what only looks like it: in a model, and in a file beside it."""

import dataclasses
import functools
import math
import os
import pathlib
from collections import Counter
from collections.abc import Iterator

import h5py
import keras

from keras_shared.errors import attempt, whole_reason
from keras_shared.layers import TiedLayer
from keras_shared.sharing.calls import Call, calls_of
from keras_shared.sharing.equal_values import Candidate, Equal, equal_values
from keras_shared.sharing.matching import Matched, match
from keras_shared.sharing.report import Reading, apart_in, owners_in, times_in, uses_in
from keras_shared.sharing.stored_layers import dtype_of, stored_layers, values_of
from keras_shared.sharing.table import Row, as_form, as_read, as_shape, as_text
from keras_shared.tying import TiedReader, TieError, readers_of
from keras_shared.tying.bind_ties import sources_inside
from keras_shared.tying.check_ties import held_twice
from keras_shared.tying.keras_private import children_of, flatten_layers
from keras_shared.tying.layer_names import held_paths, short_names

_Owner = tuple[keras.Variable, keras.Layer]


@dataclasses.dataclass(frozen=True)
class SharedWeight:
    """One variable that is read more than once, or by several positions of one matrix.

    Attributes:
        path: names of the sub-models and the layer that own it, and its own.
        shape: its shape.
        readers: layer -> how it reads the weight, and how often in one forward pass; 0 where that
            cannot be seen.
        holders: the models, wrappers or layers that hold it, where more than one does.
    """

    path: str
    shape: tuple[int, ...]
    readers: dict[str, Reading]
    holders: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """What a file holds of a weight that the model shares, or for which the two differ.

    Attributes:
        path: its path in the model; of a layer that only the file has, the path there.
        state: "once" (it is tied in the file too), "equal" (once for each layer, tied or copied),
            "different" (once for each layer, trained apart), "missing", "other shape", or "extra"
            (in the file alone).
        said: the same as a sentence, with the layers.
    """

    path: str
    state: str
    said: str


@dataclasses.dataclass(frozen=True)
class Ties:
    """What a model shares, and what looks like it. Printed, it is a table.

    Attributes:
        name: name of the model.
        shared: variables that are read more than once, or by several positions of one matrix.
        equal: variables of different layers that hold equal values now, and are not tied.
        file: name of the file, if any.
        stored: what it holds for shared weights, what it lacks, and what it has beyond the model.
        equal_in_file: weights with equal values in the file, which the model does not tie.
        notes: what could not be seen, in sentences.
    """

    name: str
    shared: tuple[SharedWeight, ...]
    equal: tuple[Equal, ...]
    file: str = ""
    stored: tuple[StoredWeight, ...] = ()
    equal_in_file: tuple[Equal, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A table in 80 columns."""
        counted = f"{len(self.shared) or 'no'} weight{'s' if len(self.shared) != 1 else ''}"
        sections: list[tuple[str, list[Row]]]
        sections = [(f"'{self.name}' shares {counted}", [_row(w) for w in self.shared])]
        for title, pairs in (
            ("equal values now, and not tied", self.equal),
            (f"equal values in {self.file}, and not tied", self.equal_in_file),
        ):
            rows: list[Row]
            rows = [(p.first, as_shape(p.shape), p.second + as_form(p.form)) for p in pairs]
            sections.append((title, rows))
        sections.insert(2, (f"in {self.file}", [(w.path, w.said) for w in self.stored]))
        printed = [sections[0], *(section for section in sections[1:] if section[1])]
        return as_text([*printed, *((note, []) for note in self.notes)])


def find_ties(model: keras.Model, filepath: str | os.PathLike[str] | None = None) -> Ties:
    """What is shared in `model`, and what only looks tied; and what a file holds of it.

    Shared is a variable that several layers read, or one layer in several calls, or at several
    positions of its matrix (`keras_shared.layers.HashedDense`), or that several models, wrappers or
    layers hold. Only looking tied are variables of different layers with equal values, as they are
    or with their axes in another order, as a copied kernel and its transpose have. A constant, and
    what has fewer than 8 elements or 4 different values, is no evidence.

    With a file, no second model is built: for each weight the file may hold one set of values for
    each layer that reads it, equal or trained apart, which `keras_shared.load_weights` can load.

    Args:
        model: any Keras model that was built; nothing in it changes.
        filepath: a `.keras` file, `.weights.h5`, `.weights.json` with shards, an `.h5` file as
            Keras 2 wrote them, a published folder, or the name of a preset. One weight, or two
            that are compared, is in memory at a time.

    Returns:
        What was found; `print` shows it as a table.

    Raises:
        LoadError: if there is no such file, or it holds no weights of a Keras model.
        TieError: if the source of a reader cannot be found.
        ValueError: for a model without weights.

    Example:
        >>> import keras
        >>> from keras_shared import find_ties, untie
        >>> from keras_shared.zoo import TiedAutoencoder
        >>> model = TiedAutoencoder(units=(4, 2), input_dim=6, name="net")
        >>> find_ties(model).shared[0].readers
        {'encoder_1': Reading(form='as is', times=1),
         'decoder_1': Reading(form='transposed', times=1)}
        >>> print(find_ties(untie(model)))
        'net' shares no weights
        equal values now, and not tied
        encoder_1/kernel  6x4  decoder_1/kernel
        encoder_2/kernel  4x2  decoder_2/kernel
    """
    owners = owners_in(model)
    if not owners:
        raise ValueError(f"'{model.name}' has no weights. Call it once on its inputs first.")
    whole, names, notes = held_paths(model), short_names(model), list[str]()
    for layer in flatten_layers(model):
        if isinstance(layer, TiedReader) and layer.own_layer is not None:  # shown as the reader's
            names[id(layer.own_layer)] = names.get(id(layer), str(layer.name))
    calls, error = attempt(lambda: calls_of(model))  # whatever a foreign `call` raises
    if isinstance(error, TieError):
        raise error
    if error:
        calls = []
        notes.append(f"How often each layer is called cannot be seen: {whole_reason(error)}")
    _, outside = attempt(lambda: sources_inside(model), TieError)
    if outside:
        notes.append(str(outside))
    paths = {id(v): f"{names.get(id(o), o.name)}/{v.name}".lstrip("/") for v, o in owners}
    reading = _readings(model, owners, calls, names)
    holders = _holders(model, names)
    shared = {
        id(v): SharedWeight(paths[id(v)], tuple(v.shape), reading[id(v)], holders.get(id(v), ()))
        for v, owner in owners
        if sum(max(1, read.times) for read in reading[id(v)].values()) > 1
        or id(v) in holders
        or apart_in(owner, v) > math.prod(v.shape)
    }
    equal = equal_values(Candidate.of(v, owner, paths[id(v)]) for v, owner in owners)
    ties = Ties(model.name, tuple(shared.values()), tuple(equal), notes=tuple(notes))
    if filepath is None:
        return ties
    with stored_layers(filepath) as stored:
        found, short = match(model, stored), {whole[key]: names[key] for key in whole}
        return dataclasses.replace(
            ties,
            file=pathlib.Path(filepath).name,
            stored=tuple(_in_file(found, paths, set(shared), short)),
            equal_in_file=tuple(equal_values(_candidates(found))),
        )


def _row(weight: SharedWeight) -> Row:
    lines = [as_read(name, reading) for name, reading in weight.readers.items()]
    if weight.holders:
        lines.append(f"in {' and '.join(weight.holders)}")
    return weight.path, as_shape(weight.shape), lines


def _readings(
    model: keras.Model, owners: list[_Owner], calls: list[Call], names: dict[int, str]
) -> dict[int, dict[str, Reading]]:
    """id of a variable -> name of a layer -> how it reads it, called or not."""
    found: dict[int, dict[str, Reading]] = {id(variable): {} for variable, _ in owners}

    def note(variable: keras.Variable, layer: keras.Layer, form: str, times: int) -> None:
        if id(variable) in found:
            name = names.get(id(layer), layer.name)
            before = found[id(variable)].get(name, Reading(form, 0))
            form = before.form if before.times else form
            found[id(variable)][name] = Reading(form, before.times + times)

    inner = {id(la.own_layer) for la in flatten_layers(model) if isinstance(la, TiedReader)}
    for variable, owner in owners:
        if id(owner) not in inner:  # what an untied reader owns is read by the reader alone
            note(variable, owner, "as is", 0)
    times = Counter(id(call.layer) for call in calls)
    for reader in readers_of(model):
        whole = isinstance(reader, TiedLayer)  # the calls of its source are counted as well
        for variable in reader.source().variables if whole else reader.read_variables():
            note(variable, reader, reader.form, times[id(reader)] if whole else 0)
    uses = uses_in(model, owners, calls)
    for variable, _ in owners:
        for call, form in uses[id(variable)]:
            note(variable, call.layer, form, times_in(call, variable))
    return found


def _holders(model: keras.Model, names: dict[int, str]) -> dict[int, tuple[str, ...]]:
    """id of a variable -> names of what holds it, if that is more than one."""
    found: dict[int, tuple[str, ...]] = {}
    lists: dict[int, list[str]] = {}
    for layer in flatten_layers(model)[1:]:
        deeper = {id(v) for child in children_of(layer) for v in child.variables}
        for variable in layer.variables:
            if id(variable) not in deeper:
                lists.setdefault(id(variable), []).append(names[id(layer)])
    found |= {key: tuple(layers) for key, layers in lists.items() if len(layers) > 1}
    for layer, holders in held_twice(model):
        within = tuple(names[id(one)] for one in holders if one is not model)
        found |= {id(v): within for v in layer.variables if len(within) > 1}
    return found


def _in_file(
    found: Matched, paths: dict[int, str], shared: set[int], short: dict[str, str]
) -> Iterator[StoredWeight]:
    missing = {id(place) for place in found.missing}
    for place in found.places:
        path = paths.get(id(place.value), place.path)
        others = {} if id(place) in missing else place.differences()
        apart = {reader: value for reader, value in others.items() if value}
        if id(place) in missing:
            yield StoredWeight(path, "missing", "missing")
        elif apart:
            each = [
                f"{short.get(name, name)} by up to {value:.2g}" for name, value in apart.items()
            ]
            yield StoredWeight(path, "different", f"once for each layer, apart: {', '.join(each)}")
        elif others:
            said = ", ".join(short.get(name, name) for name in others)
            yield StoredWeight(path, "equal", f"once for each layer, equal: {said}")
        elif id(place.value) in shared and place.stored:
            yield StoredWeight(path, "once", "once, as the model has it")
    for name, said in found.other_shapes.items():
        yield StoredWeight(short.get(name, name), "other shape", said)
    for layer in found.left:
        shapes = [tuple(dataset.shape) for dataset in layer.weights]
        yield StoredWeight(layer.name or layer.path, "extra", f"not in the model: {shapes}")


def _candidates(found: Matched) -> Iterator[Candidate]:
    for place in found.places:
        if place.stored and not place.stored[0].reader:
            yield _candidate(place.path, place.path.rpartition("/")[0], place.stored[0].dataset)
    for layer in found.left:
        for number, dataset in enumerate(layer.weights):
            yield _candidate(f"{layer.name or layer.path}/{number}", layer.path, dataset)


def _candidate(name: str, owner: str, dataset: h5py.Dataset) -> Candidate:
    read = functools.partial(values_of, dataset)
    return Candidate(name, owner, tuple(dataset.shape), dtype_of(dataset), read)
