import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from pydantic import PositiveInt

from keras_shared.zoo.class_names import checked_class_names
from keras_shared.zoo.image_classifier import ImageClassifier
from keras_shared.zoo.whole_numbers import IMAGE, whole_numbers

# as in the code of the paper: sin and cosine take multiples of pi
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda x: x,
    "step": lambda x: ops.cast(x > 0, x.dtype),
    "sin": lambda x: ops.sin(np.pi * x),
    "gaussian": lambda x: ops.exp(-ops.square(x) / 2),
    "tanh": ops.tanh,
    "sigmoid": lambda x: (ops.tanh(x / 2) + 1) / 2,
    "inverse": ops.negative,
    "absolute": ops.abs,
    "relu": lambda x: ops.maximum(x, 0),
    "cosine": lambda x: ops.cos(np.pi * x),
}


def levels_of(inputs: int, activations: Sequence[str], outputs: int, pairs: Any) -> list[Any]:
    """Which nodes can be computed at once: each reads nodes of earlier levels alone.

    Nodes are numbered: a bias that is 1, `inputs` inputs, the hidden nodes, the outputs.

    Args:
        inputs: number of the inputs.
        activations: of the hidden nodes.
        outputs: number of the outputs, which are linear.
        pairs: int (connections, 2), from a node to a later one.

    Returns:
        Arrays of numbers of nodes, of which each has those of one activation side by side; nodes
        that no connection leads to are among the first.
    """
    pairs = np.asarray(pairs, int).reshape(-1, 2)
    functions = [*activations, *["linear"] * outputs]
    first, count = 1 + inputs, len(functions)
    level = np.zeros(first + count, int)
    by_target = pairs[np.argsort(pairs[:, 1], kind="stable")]
    starts = np.searchsorted(by_target[:, 1], np.arange(first, first + count + 1))
    for node in range(first, first + count):
        sources = by_target[starts[node - first] : starts[node - first + 1], 0]
        level[node] = 1 + level[sources].max(initial=0)
    order = {name: number for number, name in enumerate(FUNCTIONS)}
    kinds = np.array([order[name] for name in functions])
    nodes = np.arange(first, first + count)
    found = []
    for number in range(1, level.max(initial=0) + 1):
        own = nodes[level[first:] == number]
        found.append(own[np.argsort(kinds[own - first], kind="stable")])
    return found


@keras.saving.register_keras_serializable("keras_shared")
class WeightedGraph(keras.layers.Layer):
    """A graph of nodes, each with an activation, and a weight for each of its connections.

    `v_j = f_j(sum_{i -> j} w_ij v_i)`, with `v_0 = 1`, the inputs as the next nodes, and linear
    outputs as the last ones. See `OneWeightGraph`, which shares one weight.

    Args:
        activations: of the hidden nodes, names of `FUNCTIONS`.
        outputs: number of the outputs.
        connections: pairs of numbers of nodes, from a node to a later one.
        weight: initial value of each weight.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, inputs)`.

    Output shape:
        `(batch, outputs)`.

    Raises:
        ValueError: for an unknown activation, a connection twice, or one that leads to an input, to
            an earlier node or to none.
    """

    def __init__(
        self,
        activations: Sequence[str],
        outputs: int,
        connections: Sequence[Sequence[int]],
        weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (
            isinstance(activations, str)
            or not isinstance(activations, Sequence)
            or not all(isinstance(name, str) and name in FUNCTIONS for name in activations)
        ):
            raise ValueError(
                f"`activations` must be a list of names among {list(FUNCTIONS)}. Received: "
                f"{activations!r}"
            )
        if not isinstance(weight, (int, float, np.number)) or not math.isfinite(weight):
            raise ValueError(f"`weight` must be a finite number. Received: weight={weight!r}")
        self.activations = tuple(activations)
        self.outputs = outputs
        self.connections = _pairs(connections)
        self.weight_value = float(weight)
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        inputs = input_shape[-1]
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: inputs} if inputs else None)
        if inputs is None:
            raise ValueError(
                f"{type(self).__name__} '{self.name}' takes inputs of a known width. "
                f"Received: input_shape={input_shape}"
            )
        pairs = np.array(self.connections, int).reshape(-1, 2)
        _check(pairs, inputs, len(self.activations), self.outputs)
        functions = [*self.activations, *["linear"] * self.outputs]
        place = np.zeros(1 + inputs + len(functions), int)  # of each node among those computed
        place[: 1 + inputs] = np.arange(1 + inputs)
        done = 1 + inputs
        self._steps: list[tuple[np.ndarray, list[tuple[str, int, int]]]] = []
        for nodes in levels_of(inputs, self.activations, self.outputs, pairs):
            # which connection leads from each known node to each of these; 0 for none
            table = np.zeros((done, len(nodes)), "int32")
            for column, node in enumerate(nodes):
                numbers = np.flatnonzero(pairs[:, 1] == node)
                table[place[pairs[numbers, 0]], column] = numbers + 1
            kinds = [functions[node - 1 - inputs] for node in nodes]
            runs = [(name, kinds.index(name), kinds.count(name)) for name in dict.fromkeys(kinds)]
            self._steps.append((table, runs))
            place[nodes] = done + np.arange(len(nodes))
            done += len(nodes)
        self._last = place[1 + inputs + len(self.activations) :]
        self.weight = self.add_weight(
            name="weight", shape=self._shape(), initializer=keras.initializers.Constant(
                self.weight_value
            ),
        )  # fmt: skip

    def _shape(self) -> tuple[int, ...]:
        return (len(self.connections),)

    def _sums(self, known: Any, table: np.ndarray) -> Any:
        """What leads to some nodes: (batch, nodes so far), (nodes so far, nodes)."""
        weight = ops.cast(self.weight, self.compute_dtype)
        padded = ops.concatenate([ops.zeros((1,), weight.dtype), weight])
        return ops.matmul(known, ops.take(padded, table))

    def call(self, inputs: Any) -> Any:
        known = ops.concatenate([ops.ones_like(inputs[:, :1]), inputs], axis=-1)
        for table, runs in self._steps:
            sums = self._sums(known, table)
            values = [FUNCTIONS[name](sums[:, at : at + count]) for name, at, count in runs]
            known = ops.concatenate([known, *values], axis=-1)  # (batch, nodes so far)
        return ops.take(known, self._last, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activations": self.activations,
            "outputs": self.outputs,
            "connections": self.connections,
            "weight": self.weight_value,
        }

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        return len(self.connections)


@keras.saving.register_keras_serializable("keras_shared")
class OneWeightGraph(WeightedGraph):
    """A `WeightedGraph` whose connections all read one weight: `v_j = f_j(w sum_{i -> j} v_i)`."""

    form = "by each connection"  # of the report

    def _shape(self) -> tuple[int, ...]:
        return ()

    def _sums(self, known: Any, table: np.ndarray) -> Any:
        read = ops.cast(table > 0, self.compute_dtype)
        return ops.cast(self.weight, self.compute_dtype) * ops.matmul(known, read)

    def without_sharing(self, weight: keras.Variable) -> int:
        return len(self.connections)

    def as_calls(self, call: Callable[..., Any], inputs: Any) -> Any:
        apart = WeightedGraph.from_config(self.get_config())
        apart.build(inputs.shape)
        value = ops.convert_to_numpy(self.weight)
        apart.set_weights([np.broadcast_to(value, (len(self.connections),))])
        return call(apart, inputs)


@keras.saving.register_keras_serializable("keras_shared")
class WeightAgnosticNet(ImageClassifier):
    """A net whose connections all have one weight: what it knows is in its graph.

    `v_j = f_j(w sum_{i -> j} v_i)`: a node sums the nodes that lead to it, `w` is the same for all,
    and each node has an activation of its own. A net of 1,849 connections has one parameter, and
    should answer well whatever the value of it; `keras_shared.zoo.search_topology` finds its graph.
    `keras_shared.unshare` gives each connection a weight of its own, to be trained apart.

    Args:
        connections: pairs of numbers of nodes, from a node to a later one. Node 0 is a bias, which
            is 1; the pixels follow, row by row, then the hidden nodes, then the classes. None for a
            connection from each pixel to each class.
        activations: of the hidden nodes: "linear", "step", "sin", "gaussian", "tanh", "sigmoid",
            "inverse", "absolute", "relu" or "cosine".
        weight: initial `w`.
        image_shape: (height, width, channels) of one image.
        class_names: names of the classes, in the order of the outputs; the digits by default.
        dtype: dtype policy; the outputs are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        Images (batch, height, width, channels) with values 0 to 255, which become 0 to 1.

    Returns:
        (batch, classes) logits: train with a cross-entropy from logits.

    Raises:
        ValueError: for fewer than two classes, an unknown activation, a connection twice, or one
            that leads to an input, to an earlier node or to none.

    Example:
        >>> from keras_shared.sharing import sharing_report
        >>> from keras_shared.zoo import WeightAgnosticNet
        >>> model = WeightAgnosticNet()
        >>> report = sharing_report(model)
        >>> model.count_params(), report.totals["multiply_adds"]
        (1, 640)
        >>> report.weights[0].readers
        {'graph': Reading(form='by each connection', times=640)}

    Reference:
        Gaier & Ha 2019, "Weight Agnostic Neural Networks", sections 3 and 5.
    """

    description = "Names what an image shows by the graph of its connections: all have one weight."
    limits = "It knows its classes alone, centred as in its training images."

    bright_on_dark = True

    def __init__(
        self,
        connections: Sequence[tuple[int, int]] | None = None,
        activations: Sequence[str] = (),
        weight: float = 1.0,
        image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (8, 8, 1),
        class_names: Sequence[str] | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        class_names = checked_class_names(class_names)
        pixels = math.prod(whole_numbers(image_shape, "image_shape", IMAGE))
        if connections is None:
            first = 1 + pixels + len(activations if isinstance(activations, Sequence) else ())
            connections = [
                (i, first + k) for k in range(len(class_names)) for i in range(1, 1 + pixels)
            ]
        base = self._policy(dtype)

        # === Graph ===
        image = keras.Input(image_shape, name="image")
        x = layers.Rescaling(1 / 255, dtype=base, name="rescale")(image)
        x = layers.Flatten(dtype=base, name="flatten")(x)
        graph = OneWeightGraph(
            activations, len(class_names), connections, weight,
            dtype=self._policy(dtype, "graph", otherwise="float32"), name="graph",
        )  # fmt: skip
        super().__init__(image, graph(x), **kwargs)

        # === Config ===
        self.connections = graph.connections
        self.activations = graph.activations
        self.weight = graph.weight_value
        self.image_shape = tuple(image_shape)
        self.class_names = class_names
        self.base_policy = base

    @classmethod
    def image_shape_of(cls, image_shape: Any = (8, 8, 1), **arguments: Any) -> tuple[int, int, int]:
        height, width, channels = image_shape
        return (height, width, channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "connections": self.connections,
            "activations": self.activations,
            "weight": self.weight,
            "image_shape": self.image_shape,
            "class_names": self.class_names,
        }


def _pairs(connections: Any) -> tuple[tuple[int, int], ...]:
    listed = isinstance(connections, (Sequence, np.ndarray))
    if not listed or not all(
        isinstance(pair, (Sequence, np.ndarray))
        and len(pair) == 2
        and all(isinstance(n, Integral) for n in pair)
        for pair in connections
    ):
        raise ValueError(
            "`connections` must be a list of pairs of numbers of nodes, from one to a later one. "
            f"Received: {(connections[:5] if listed else connections)!r}"
        )
    return tuple((int(a), int(b)) for a, b in connections)


def _check(pairs: np.ndarray, inputs: int, hidden: int, outputs: int) -> None:
    first_output = 1 + inputs + hidden
    good = (
        (pairs[:, 0] >= 0) & (pairs[:, 0] < first_output) & (pairs[:, 0] < pairs[:, 1])
        & (pairs[:, 1] > inputs) & (pairs[:, 1] < first_output + outputs)
    )  # fmt: skip
    if len(pairs) == 0 or not good.all():
        raise ValueError(
            f"`connections` must lead from one of the nodes 0 to {first_output - 1} to a later one "
            f"of {inputs + 1} to {first_output + outputs - 1}. Received: "
            f"{pairs[~good][:5].tolist() or 'none'}"
        )
    if len(np.unique(pairs, axis=0)) < len(pairs):
        raise ValueError("`connections` must name each once. Received some twice.")
