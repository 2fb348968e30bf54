import dataclasses
import math
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_shared.errors import attempt, boundary
from keras_shared.files.paths import as_path
from keras_shared.sharing.calls import Call, calls_of
from keras_shared.sharing.equal_values import Candidate, equal_values
from keras_shared.sharing.multiply_adds import multiply_adds
from keras_shared.tying import TiedReader, TieError, check_ties, readers_of
from keras_shared.tying.keras_private import children_of, flatten_layers
from keras_shared.tying.layer_names import short_names, weight_paths


@dataclasses.dataclass(frozen=True)
class Reading:
    """How one layer reads a weight.

    Attributes:
        form: "as is", "transposed", "convolution adjoint", or what another
            `keras_shared.tying.TiedReader` gives as its `form`. With ", at each of 12 steps" where
            an RNN reads it, one cell for all of them, or ", at each step" where the model leaves
            their number open.
        times: number of its calls in one forward pass; all steps of an RNN are one. Of a single
            number that stands at many places of a matrix: the number of these places.
    """

    form: str
    times: int


@dataclasses.dataclass(frozen=True)
class Weight:
    """One variable of a model.

    Attributes:
        path: its path as Keras has it; where several have one, its name after that of its owner.
        owner: name of the layer that holds it, as in `readers`.
        shape: shape of the variable.
        dtype: its dtype.
        bytes: what it takes in memory.
        trainable: whether training changes it.
        regularizer: name of its regulariser's class, or empty.
        readers: name of a layer -> how it reads the weight. The names of the models that hold the
            layer stand before it ("left/hidden") where another layer of the model has its name.
        uses: number of calls that read it in one forward pass; the sum of `times` of its readers.
        multiply_adds: how many read it for one example (the connections of LeCun et al. 1998);
            None where the arithmetic of a reader is not known.
        without_sharing: elements that as many weights would have without any sharing: one for each
            use, and one for each position of a matrix that a layer fills from few weights.
    """

    path: str
    owner: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    trainable: bool
    regularizer: str
    readers: dict[str, Reading]
    uses: int
    multiply_adds: int | None
    without_sharing: int = 0

    @property
    def size(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class SharingReport:
    """What a model shares.

    Attributes:
        name: name of the model.
        weights: every variable, once.
        totals: parameters (unique, and without sharing), their ratio, multiply-adds, bytes.
        stored_bytes: what the weights take in each file format, worked out from who reads them;
            None where a quantised weight is converted.
        warnings: what will surprise, in sentences.
    """

    name: str
    weights: tuple[Weight, ...]
    totals: dict[str, Any]
    stored_bytes: dict[str, int | None]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain lists and dicts, ready for JSON."""
        return dataclasses.asdict(self)


def sharing_report(model: keras.Model, check: bool = True) -> SharingReport:
    """Every weight of `model` once, with all that read it, and what sharing saved.

    The model is run once, eagerly, on one example of zeros; nothing in it changes. A reader says
    itself how it reads, see `keras_shared.tying.TiedReader`; so does a layer of your own whose
    multiply-adds are to be counted.

    Args:
        model: any built Keras model, ours or not; a subclassed one that was called.
        check: whether to look for what will surprise (`warnings`): a model that shares is rebuilt
            for it.

    Returns:
        The report; `to_dict()` gives it as JSON would hold it.

    Raises:
        ValueError: for a model without weights or known inputs.

    Example:
        >>> from keras_shared.sharing import sharing_report
        >>> from keras_shared.zoo import TiedAutoencoder
        >>> report = sharing_report(TiedAutoencoder(units=(4, 2), input_dim=6))
        >>> report.weights[0].readers
        {'encoder_1': Reading(form='as is', times=1),
         'decoder_1': Reading(form='transposed', times=1)}
        >>> report.totals["parameters"], report.totals["parameters_without_sharing"]
        (48, 80)

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, section II.B (connections and trainable parameters).
    """
    calls, owners = calls_of(model), owners_in(model)
    if not owners:
        raise ValueError(f"'{model.name}' has no weights to report.")
    uses = uses_in(model, owners, calls)
    names, paths = short_names(model), weight_paths(model, owners)
    weights = tuple(_weight(v, owner, uses[id(v)], paths[id(v)], names) for v, owner in owners)
    times = Counter(id(call.layer) for call in calls)
    warnings = tuple(_warnings(model, weights, names, paths, times)) if check else ()
    return SharingReport(model.name, weights, _totals(weights), _stored(weights), warnings)


def stored_report(path: str | os.PathLike[str]) -> SharingReport:
    """What can be seen of a SavedModel that holds no Keras model: its variables, once each.

    Args:
        path: the folder with saved_model.pb.

    Raises:
        ValueError: if it has no variables that can be read.
    """
    import tensorflow as tf  # for the checkpoint reader alone

    path = as_path(path, "path")
    with boundary(f"{path} holds no variables that can be read", ValueError):
        reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    # TensorFlow 1 writes variables under their names, with no graph of the objects beside them
    objects = "_CHECKPOINTABLE_OBJECT_GRAPH" in shapes
    weights = []
    for key in sorted(k for k in shapes if k.endswith(suffix) or not objects):
        size = math.prod(shapes[key]) * dtypes[key].size
        name, shape = key.removesuffix(suffix), tuple(shapes[key])
        weights.append(Weight(name, "", shape, dtypes[key].name, size, False, "", {}, 0, None))
    seen = "It holds a graph and no Keras model: what reads which weight cannot be seen."
    totals = {"parameters": sum(w.size for w in weights), "bytes": sum(w.bytes for w in weights)}
    return SharingReport(path.name, tuple(weights), totals, {}, (seen,))


def owners_in(model: keras.Model) -> list[tuple[keras.Variable, keras.Layer]]:
    """Each variable with the innermost layer that lists it, in the model's order."""
    innermost: dict[int, keras.Layer] = {}
    for layer in flatten_layers(model):
        deeper = {id(v) for child in children_of(layer) for v in child.variables}
        for variable in layer.variables:
            if id(variable) not in deeper:
                innermost.setdefault(id(variable), layer)
    owners = [(v, innermost[id(v)]) for v in model.variables]
    for reader in readers_of(model):  # of a decoder alone: owned elsewhere, and read here
        for variable in reader.source().variables:
            if id(variable) not in innermost:
                innermost[id(variable)] = reader.source()
                owners.append((variable, reader.source()))
    return [(v, owner) for v, owner in owners if not v.path.endswith("seed_generator_state")]


def uses_in(
    model: keras.Model, owners: list[tuple[keras.Variable, keras.Layer]], calls: list[Call]
) -> dict[int, list[tuple[Call, str]]]:
    """id of a variable -> the calls that read it, each with the form in which it does."""
    uses: dict[int, list[tuple[Call, str]]] = {id(variable): [] for variable, _ in owners}
    by_layer: dict[int, list[keras.Variable]] = {}
    for variable, owner in owners:
        by_layer.setdefault(id(owner), []).append(variable)
    readers = [layer for layer in flatten_layers(model) if isinstance(layer, TiedReader)]
    read = {id(reader): reader.read_variables() for reader in readers}  # untied ones read their own
    for call in calls:
        steps = "" if call.steps is None else f", at each of {call.steps} steps"
        steps = ", at each step" if call.open_steps else steps
        for variable in by_layer.get(id(call.layer), ()):
            form = "as is" if isinstance(call.layer, TiedReader) else _form(call.layer, variable)
            uses[id(variable)].append((call, f"{form}{steps}"))
        for variable in read.get(id(call.layer), ()):
            if id(variable) in uses:
                uses[id(variable)].append((call, f"{call.layer.form}{steps}"))
    return uses


def _form(layer: keras.Layer, variable: keras.Variable) -> str:
    """How a layer reads a weight of its own; `form` is that of those it shares inside, if any."""
    form = getattr(layer, "form", "as is")
    whole = hasattr(layer, "without_sharing") and apart_in(layer, variable) == _size(variable)
    return form if isinstance(form, str) and not whole else "as is"


def apart_in(layer: keras.Layer, variable: keras.Variable) -> int:
    """How many elements `layer` would own in the place of a weight, without sharing inside."""
    if callable(getattr(layer, "without_sharing", None)):
        return int(layer.without_sharing(variable))
    return _size(variable)


def _size(variable: keras.Variable) -> int:
    return math.prod(variable.shape)


def times_in(call: Call, variable: keras.Variable) -> int:
    """How often one call uses a weight: more than once if one number fills a whole matrix."""
    return call.uses * (apart_in(call.layer, variable) if _size(variable) == 1 else 1)


def _weight(
    variable: keras.Variable,
    owner: keras.Layer,
    uses: list[tuple[Call, str]],
    path: str,
    names: dict[int, str],
) -> Weight:
    readers: dict[str, Reading] = {}
    for call, form in uses:
        name = names.get(id(call.layer)) or call.layer.name
        before = readers.get(name, Reading(form, 0))
        times = before.times + times_in(call, variable)
        readers[name] = Reading(before.form, times)
    shape = tuple(variable.shape)
    size, apart = math.prod(shape), apart_in(owner, variable)
    counts = [multiply_adds(call, variable) for call, _ in uses]
    if apart != size:  # a reader counts one for each element: here it reads what the owner makes
        counts = [
            count * apart // size if count is not None and call.layer is not owner else count
            for count, (call, _) in zip(counts, uses, strict=True)
        ]
    regularizer = getattr(variable, "regularizer", None)
    return Weight(
        path=path,
        owner=names.get(id(owner)) or owner.name,
        shape=shape,
        dtype=str(variable.dtype),
        bytes=math.prod(shape) * np.dtype(_numpy_dtype(variable.dtype)).itemsize,
        trainable=bool(variable.trainable),
        regularizer=type(regularizer).__name__ if regularizer else "",
        readers=readers,
        uses=sum(times_in(call, variable) for call, _ in uses),
        multiply_adds=None if None in counts else sum(c for c in counts if c is not None),
        without_sharing=apart * sum(call.uses for call, _ in uses) if uses else size,
    )


def _numpy_dtype(dtype: str) -> str:
    return "float16" if dtype == "bfloat16" else dtype  # of the same size


def _totals(weights: tuple[Weight, ...]) -> dict[str, Any]:
    """Parameters are all weights, trainable or not; Adam keeps two numbers for each trained one."""
    unique = sum(w.size for w in weights)
    apart = sum(w.without_sharing for w in weights)
    known = [w.multiply_adds for w in weights if w.multiply_adds is not None]
    size = sum(w.bytes for w in weights)
    trained = sum(w.bytes for w in weights if w.trainable)
    return {
        "parameters": unique,
        "trainable_parameters": sum(w.size for w in weights if w.trainable),
        "parameters_without_sharing": apart,
        "ratio": round(apart / unique, 3) if unique else 1.0,
        "multiply_adds": sum(known) if len(known) == len(weights) else None,
        "bytes": size,
        "bytes_with_gradients": size + trained,
        "bytes_with_gradients_and_adam": size + 3 * trained,
    }


def _stored(weights: tuple[Weight, ...]) -> dict[str, int | None]:
    """Weights alone, in bytes: Keras' own export stores each variable twice (keras#23553).

    LiteRT keeps a kernel in each form that is read; a table is looked up and multiplied in one.
    """
    once = sum(w.bytes for w in weights)
    converted = any(w.dtype in ("int8", "uint8") for w in weights)
    again = sum(
        w.bytes * (len({reading.form for reading in w.readers.values()}) - 1)
        for w in weights
        if w.readers and not w.path.endswith("/embeddings")
    )
    return {
        "keras": once,
        "saved_model": once,
        "saved_model_by_keras": 2 * once,
        "onnx": None if converted else once,
        "litert": None if converted else once + again,
    }


def _warnings(
    model: keras.Model,
    weights: tuple[Weight, ...],
    names: dict[int, str],
    paths: dict[int, str],
    times: Mapping[int, int],
) -> list[str]:
    found = []
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization) and times[id(layer)] > 1:
            found.append(
                f"'{names.get(id(layer)) or layer.name}' is a BatchNormalization that is called "
                f"{times[id(layer)]} times: each "
                "call normalises with its own statistics and moves the averages. "
                "GroupNormalization has none."
            )
    shares = bool(readers_of(model)) or any(w.uses > 1 for w in weights)
    if shares:  # else there is nothing to lose, and a large model takes seconds to rebuild
        _, error = attempt(lambda: check_ties(model))  # whatever a foreign get_config raises
        tied = isinstance(error, TieError)
        lost = "A tie would not survive" if tied else "The model cannot be rebuilt from its config"
        found += [f"{lost}: {error}"] if error else []
    trained = [(v, owner) for v, owner in owners_in(model) if v.trainable]
    found += [
        f"'{pair.first}' and '{pair.second}' hold the same values and are two variables: equal, "
        "and not tied."
        for pair in equal_values(Candidate.of(v, owner, paths[id(v)]) for v, owner in trained)
    ]
    return found
