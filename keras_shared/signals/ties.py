"""What each use of a shared weight adds to its gradient."""

import dataclasses
import itertools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.sharing.report import owners_in
from keras_shared.signals.collecting import Use, outputs_of
from keras_shared.tying import TiedReader
from keras_shared.tying.keras_private import flatten_layers
from keras_shared.tying.layer_names import short_names, weight_paths
from keras_shared.tying.watching import WatchedCall, watched


@dataclasses.dataclass(frozen=True)
class Tie:
    """A weight that is read more than once.

    Attributes:
        weight: its path.
        shape: its shape.
        uses: what reads it: the layer and the number of its use.
        norms: of the gradient that each use adds, of the mean loss over the examples.
        norm: of their sum, the gradient that training sees, unless its loss is a sum.
        cosine: the smallest between two uses: 1 where they agree, -1 where they cancel; None
            where a gradient is 0.
    """

    weight: str
    shape: tuple[int, ...]
    uses: tuple[str, ...]
    norms: tuple[float, ...]
    norm: float
    cosine: float | None


def ties_of(model: keras.Model, uses: list[Use], examples: int) -> list[Tie]:
    """The shared weights of a model, by the uses of one pass of some examples."""
    names, paths = short_names(model), weight_paths(model, owners_in(model))
    found: dict[int, list[tuple[str, Any]]] = {}
    weights: dict[int, keras.Variable] = {}
    read = weights_by_layer(model)
    for use in uses:
        for variable in read.get(id(use.layer), ()):
            weights[id(variable)] = variable
            found.setdefault(id(variable), []).append((_named(use, names), use))
    ties = []
    for key, of_weight in found.items():
        if sum(len(use.calls) for _, use in of_weight) > 1 and len(of_weight) > 1:
            weight = weights[key]
            gradients = [(name, weight_gradient(use, weight) / examples) for name, use in of_weight]
            ties.append(_tie(paths[key], gradients))
    return ties


def weights_by_layer(model: keras.Model) -> dict[int, list[keras.Variable]]:
    """id of a layer -> the weights with a gradient that it has, and those that it reads."""
    found: dict[int, list[keras.Variable]] = {}
    owners = owners_in(model)
    for variable, owner in owners:
        if keras.backend.is_float_dtype(variable.dtype):
            found.setdefault(id(owner), []).append(variable)
    owned = {id(v) for of_layer in found.values() for v in of_layer}
    for layer in flatten_layers(model):
        if isinstance(layer, TiedReader):
            read = [v for v in layer.read_variables() if id(v) in owned]
            found[id(layer)] = read + found.get(id(layer), [])
    return found


def weight_gradient(use: Use, variable: keras.Variable) -> np.ndarray:
    """What one use adds to the gradient of a weight, of the loss summed over the examples."""
    total: np.ndarray = np.zeros(tuple(variable.shape), "float64")
    for call, along, before in zip(use.calls, use.gradients, use.before, strict=True):
        again: list[WatchedCall] = []
        with tf.GradientTape() as tape, watched([call.layer], again.append, lambda _: None):
            tape.watch(variable.value)
            call.layer(*call.args, **call.kwargs)
        outputs = outputs_of(again[0])
        if before is not None and hasattr(outputs[0], "_keras_logits"):  # a loss reads these
            outputs, along = [again[0].before], [before]  # noqa: PLW2901
        pairs = [(o, g) for o, g in zip(outputs, along, strict=True) if g is not None]
        if not pairs:
            continue
        gradient = tape.gradient([o for o, _ in pairs], variable.value, [g for _, g in pairs])
        if gradient is not None:
            total += tf.cast(tf.convert_to_tensor(gradient), tf.float64).numpy()
    return total


def _tie(weight: str, gradients: list[tuple[str, np.ndarray]]) -> Tie:
    flat = [gradient.ravel() for _, gradient in gradients]
    norms = [float(np.linalg.norm(one)) for one in flat]
    cosines = [
        float(flat[a] @ flat[b]) / (norms[a] * norms[b])
        for a, b in itertools.combinations(range(len(flat)), 2)
        if norms[a] and norms[b]
    ]
    return Tie(
        weight,
        gradients[0][1].shape,
        tuple(name for name, _ in gradients),
        tuple(norms),
        float(np.linalg.norm(sum(flat))),
        min(cosines) if cosines else None,
    )


def _named(use: Use, names: dict[int, str]) -> str:
    name = names.get(id(use.layer)) or use.layer.name
    return name if use.number == 1 else f"{name} ({use.number})"
