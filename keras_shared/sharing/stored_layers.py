"""The weights in a file of Keras, layer by layer, without a model."""

import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import h5py
import numpy as np

from keras_shared.errors import boundary
from keras_shared.files.archives import open_archive, open_hdf5, read_part
from keras_shared.files.bounded import read_json
from keras_shared.files.paths import as_path
from keras_shared.presets.names import INNER_MODEL, LoadError, version_dir

WEIGHTS = "model.weights.h5"  # inside of a .keras file
TOP_LEVEL = "top_level_model_weights"  # in an .h5 file: what belongs to the model itself
EXPECTED = "Expected what Keras writes: .keras, .weights.h5, .weights.json or .h5."
_FOR_TRAINING = ("optimizer", "metrics")  # groups that are no layers


class StoredLayer(NamedTuple):
    """What a file holds for one layer; nothing is read before it is needed.

    Attributes:
        path: where in the file, `layers/dense_1` or `encoder/enc_1`.
        name: names of the models and layers that lead to it; empty where the file has none.
        weights: its weights, in order.
    """

    path: str
    name: str
    weights: tuple[h5py.Dataset, ...]


class StoredLayers(NamedTuple):
    """What a file holds.

    Attributes:
        layers: the layers that have weights.
        in_order: whether they stand in the order of the model (an .h5 file); else `path` says
            which layer of its class each is.
    """

    layers: list[StoredLayer]
    in_order: bool


@contextmanager
def stored_layers(filepath: str | os.PathLike[str]) -> Iterator[StoredLayers]:
    """Open a file that Keras wrote, and list the layers in it.

    Args:
        filepath: a `.keras` file, `.weights.h5` or its shards' `.weights.json`, an `.h5` file as
            Keras 2 wrote them (a model or its weights), a published folder, or a preset's name.

    Raises:
        LoadError: if there is no such file, or it holds no weights that can be read.
    """
    path = as_path(filepath, "filepath")
    if path.suffix not in (".keras", ".h5", ".hdf5", ".json"):
        path = version_dir(filepath) / INNER_MODEL
    with ExitStack() as stack:
        with boundary(f"{path} holds no weights that can be read", LoadError, EXPECTED):
            stored = _read(path, stack)
        if not stored.layers:
            raise LoadError(f"{path} holds no weights of a Keras model. {EXPECTED}")
        yield stored


def stored_weights(path: pathlib.Path) -> bytes:
    """The HDF5 file inside of a `.keras` file, in memory: it jumps about, which a zip cannot.

    Raises:
        LoadError: as `keras_shared.files.archives.open_archive`, of which see what else is raised.
    """
    with open_archive(path, LoadError) as archive:
        return read_part(archive, WEIGHTS)


def values_of(dataset: h5py.Dataset) -> np.ndarray:
    """The values, read now; bfloat16, which NumPy and HDF5 have not, as float32.

    Raises:
        LoadError: if they cannot be read, or are no numbers.
    """
    what = f"'{dataset.name}' in {dataset.file.filename} cannot be read"
    with boundary(what, LoadError, EXPECTED):
        if dataset.dtype.kind not in "biufV" or dataset.dtype.hasobject:
            raise LoadError(f"{what}: it holds {dataset.dtype}, and numbers are expected.")
        values = np.asarray(dataset)
        if dtype_of(dataset) == "bfloat16":
            values = (values.view("uint16").astype("uint32") << 16).view("float32")
        if values.dtype.kind not in "biuf" or values.shape != dataset.shape:
            raise LoadError(f"{what}: it holds {dataset.dtype}, and numbers are expected.")
        return values


def dtype_of(dataset: h5py.Dataset) -> str:
    """Name of the dtype of the values."""
    return str(dataset.attrs.get("dtype", dataset.dtype.name))


def _read(path: pathlib.Path, stack: ExitStack) -> StoredLayers:
    if path.suffix == ".json":  # shards
        names = read_json(path, LoadError)["weight_map"].values()
        each = {part for name in names for part in (name if isinstance(name, list) else [name])}
        parts = [path.with_name(part) for part in sorted(each)]
    elif path.is_dir():
        parts = [path / WEIGHTS]
    else:
        parts = [path]
    files = []
    for part in parts:
        content = stored_weights(part) if part.suffix == ".keras" else None
        files.append(stack.enter_context(open_hdf5(part, LoadError, content)))
    whole = files[0].get("model_weights", files[0])
    in_order = "layer_names" in whole.attrs or "layer_names0" in whole.attrs
    layers = list(_of_keras_2(whole)) if in_order else _of_keras_3(files)
    for weight in (weight for layer in layers for weight in layer.weights):
        if not isinstance(weight, h5py.Dataset) or weight.shape is None:
            raise LoadError(
                f"{path} is damaged: '{weight.name}' in it holds no numbers. {EXPECTED}"
            )
    return StoredLayers(layers, in_order)


def _of_keras_2(whole: h5py.Group) -> Iterator[StoredLayer]:
    """Layers of the top level, in order; a sub-model is parted by the names of its weights."""
    for top in [*_listed(whole, "layer_names"), TOP_LEVEL]:
        group, parts = whole.get(top), dict[str, list[h5py.Dataset]]()
        for weight in _listed(group, "weight_names") if group is not None else ():
            layer = weight.rpartition("/")[0]  # 'enc_1' of 'enc_1/kernel:0'
            copied_for = re.fullmatch(r"(?:.+/)?.+_of_([^/]+)", layer)  # of an untied reader
            readers = [p for p in (top, *parts) if copied_for and p.endswith(copied_for[1])]
            parts.setdefault(readers[0] if readers else layer, []).append(group[weight])
        for layer, weights in parts.items():
            within = layer == top or layer.startswith(f"{top}/") or not layer
            name = (layer or top) if within else f"{top}/{layer}"
            yield StoredLayer(name, "" if top == TOP_LEVEL else name, tuple(weights))


def _listed(group: h5py.Group, name: str) -> list[str]:
    """A list of names among the attributes; a long one is cut into numbered parts."""
    numbered = (f"{name}{number}" for number in itertools.count())
    parts = itertools.takewhile(lambda key: key in group.attrs, numbered)
    keys = [name] if name in group.attrs else parts
    found = [item for key in keys for item in group.attrs[key]]
    return [item.decode() if isinstance(item, bytes) else str(item) for item in found]


def _of_keras_3(files: list[h5py.File]) -> list[StoredLayer]:
    weights: dict[str, dict[str, h5py.Dataset]] = {}
    names: dict[str, str] = {}

    def visit(place: str, found: Any) -> None:
        if place.rpartition("/")[2] == "vars" and isinstance(found, h5py.Group):
            path = place.rpartition("/")[0]
            names[path] = str(found.attrs.get("name", ""))
            weights.setdefault(path, {}).update(found.items())

    for file in files:
        file.visititems(visit)
    layers: dict[str, StoredLayer] = {}
    # a reader that was untied keeps a copy of its source as `own_layer`: behind its own weights
    for path in sorted(weights, key=lambda path: path.endswith("/own_layer")):
        parts, variables = path.split("/"), weights[path]
        if not variables or parts[0] in _FOR_TRAINING:
            continue
        above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        chain = [names[p] for p in above if p in names and p and not p.endswith("/own_layer")]
        name = "/".join(chain) if all(chain) else ""
        ordered = [
            variables[key] for key in sorted(variables, key=in_file_order) if key != "untied"
        ]
        place = path.replace("/own_layer", "")
        if place in layers:
            ordered = [*layers[place].weights, *ordered]
        if ordered:
            layers[place] = StoredLayer(place, name, tuple(ordered))
    return list(layers.values())


def in_file_order(key: str) -> tuple[int, str]:
    """How the keys of a layer's variables are sorted."""
    return (int(key), "") if key.isdecimal() else (-1, key)
