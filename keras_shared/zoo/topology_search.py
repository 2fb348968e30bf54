"""The graph of a `WeightAgnosticNet`, found by mutation and selection (Gaier & Ha 2019)."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_shared.errors import KerasSharedError, boundary
from keras_shared.files.atomic import replace_text
from keras_shared.files.bounded import read_json
from keras_shared.terminal import progress
from keras_shared.zoo.weight_agnostic_net import FUNCTIONS, levels_of

WEIGHTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)  # which a net must answer well with
MUTATIONS = {"activation": 0.5, "node": 0.25, "connection": 0.2, "enable": 0.05}
BY_CONNECTIONS = 0.8  # how often the number of connections counts, and not the best weight
FIRST = 0.05  # share of the connections from inputs to outputs that the first nets have
ELITE, CULLED = 0.2, 0.2
TOURNAMENT = 0.125  # of the nets; a thirtieth in the paper, of a population of 960
KEEP_EVERY = 25  # generations
NAMES = tuple(FUNCTIONS)
NUMPY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "step": lambda x: (x > 0).astype(x.dtype),
    "sin": lambda x: np.sin(np.float32(np.pi) * x),
    "gaussian": lambda x: np.exp(-np.square(x) / 2),
    "tanh": np.tanh,
    "sigmoid": lambda x: (np.tanh(x / 2) + 1) / 2,
    "inverse": np.negative,
    "absolute": np.abs,
    "relu": lambda x: np.maximum(x, 0),
    "cosine": lambda x: np.cos(np.float32(np.pi) * x),
}


class SearchError(KerasSharedError, ValueError):
    """A search cannot go on from a file; the message says what to do."""


class Topology(NamedTuple):
    """A graph, as `WeightAgnosticNet` takes it.

    Attributes:
        activations: of the hidden nodes.
        connections: pairs of numbers of nodes: bias, inputs, hidden nodes, outputs.
        disabled: connections that were split by a node, and may come back.
    """

    activations: tuple[str, ...]
    connections: tuple[tuple[int, int], ...]
    disabled: tuple[tuple[int, int], ...] = ()


def answers(topology: Topology, x: np.ndarray, outputs: int, weights: Any = WEIGHTS) -> np.ndarray:
    """What a net says with each of some values of its weight.

    Args:
        topology: the graph.
        x: (examples, inputs).
        outputs: number of the outputs.
        weights: values of the one weight.

    Returns:
        (weights, examples, outputs).

    Example:
        >>> import numpy as np
        >>> from keras_shared.zoo.topology_search import Topology, answers
        >>> one = Topology(("relu",), ((1, 3), (3, 4)))  # bias 0, inputs 1 and 2, hidden 3
        >>> answers(one, np.array([[3.0, 9.0]]), 1, [-1.0, 2.0]).ravel().tolist()
        [-0.0, 12.0]
    """
    count, inputs = x.shape
    pairs = np.asarray(topology.connections, int).reshape(-1, 2)
    functions = [*topology.activations, *["linear"] * outputs]
    first = 1 + inputs
    total = first + len(functions)
    reads = np.zeros((total, total - first), "float32")  # from each node to each that is computed
    reads[pairs[:, 0], pairs[:, 1] - first] = 1
    given = np.concatenate([np.ones((1, count)), x.T]).astype("float32")
    scale = np.asarray(weights, "float32")[None, :, None]
    of_inputs = reads[:first].T @ given  # the same for all weights
    values = np.zeros((total - first, len(weights), count), "float32")
    flat = values.reshape(total - first, -1)
    known = np.zeros(0, int)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for nodes in levels_of(inputs, topology.activations, outputs, pairs):
            own = nodes - first
            sums = np.repeat(of_inputs[own][:, None], len(weights), axis=1)
            if len(known):
                sums += (reads[first + known][:, own].T @ flat[known]).reshape(sums.shape)
            sums *= scale
            kinds = np.array([functions[i] for i in own])
            for name in dict.fromkeys(kinds):
                values[own[kinds == name]] = NUMPY[name](sums[kinds == name])
            known = np.concatenate([known, own])
    return values[total - first - outputs :].transpose(1, 2, 0)


def log_likelihoods(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean logarithm of the probability of the right class, for each weight.

    Args:
        scores: (weights, examples, classes) logits.
        labels: (examples,).

    Returns:
        (weights,), -1e9 for one whose logits are no numbers.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = scores - scores.max(axis=-1, keepdims=True)
        total = np.log(np.exp(shifted).sum(axis=-1))
        right = np.take_along_axis(shifted, labels[None, :, None], axis=-1)[..., 0] - total
        found: np.ndarray = np.nan_to_num(right.mean(axis=-1), nan=-1e9, neginf=-1e9)
    return found


def ranks(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Places by two goals, more being better: by fronts, and within one the most isolated first.

    Args:
        first: (nets,).
        second: (nets,).

    Returns:
        (nets,), 0 for the best.

    Example:
        >>> import numpy as np
        >>> from keras_shared.zoo.topology_search import ranks
        >>> ranks(np.array([1.0, 2.0, 0.0]), np.array([1.0, 2.0, 0.0])).tolist()
        [1, 0, 2]

    Reference:
        Deb et al. 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", section 3.
    """
    goals = np.stack([first, second], axis=1)
    beats = (goals[:, None] >= goals[None]).all(-1) & (goals[:, None] > goals[None]).any(-1)
    front, left = np.zeros(len(first), int), np.ones(len(first), bool)
    number = 0
    while left.any():
        best = left & ~(beats & left[:, None]).any(axis=0)
        front[best] = number
        left &= ~best
        number += 1
    crowding = np.zeros(len(first))
    for own in (np.flatnonzero(front == f) for f in range(number)):
        for goal in goals.T:
            order = own[np.argsort(goal[own], kind="stable")]
            spread = max(float(goal[order[-1]] - goal[order[0]]), 1e-12)
            crowding[order[[0, -1]]] = np.inf
            crowding[order[1:-1]] += (goal[order[2:]] - goal[order[:-2]]) / spread
    places = np.empty(len(first), int)
    places[np.lexsort((-crowding, front))] = np.arange(len(first))
    return places


def mutated(topology: Topology, inputs: int, outputs: int, random: np.random.Generator) -> Topology:
    """A graph with one change: an activation, a node, a connection, or one that comes back.

    A node splits a connection, which is disabled. A graph in which the change that was drawn is not
    possible comes back as it is.
    """
    kind = random.choice(list(MUTATIONS), p=list(MUTATIONS.values()))
    hidden, pairs = list(topology.activations), list(topology.connections)
    disabled = list(topology.disabled)
    first = 1 + inputs
    if kind == "activation" and hidden:
        at = int(random.integers(len(hidden)))
        hidden[at] = str(random.choice([name for name in NAMES if name != hidden[at]]))
    elif kind == "node":
        a, b = pairs.pop(int(random.integers(len(pairs))))
        new = int(random.integers(max(a + 1, first), min(b, first + len(hidden)) + 1))
        hidden.insert(new - first, str(random.choice(NAMES)))

        def moved(pair: tuple[int, int]) -> tuple[int, int]:
            return (pair[0] + (pair[0] >= new), pair[1] + (pair[1] >= new))

        (a, b), pairs = moved((a, b)), [*map(moved, pairs)]
        disabled = [*map(moved, disabled), (a, b)]
        pairs += [(a, new), (new, b)]
    elif kind == "connection":
        taken, end = {*pairs, *disabled}, first + len(hidden)
        for _ in range(20):  # nearly all are free
            b = int(random.integers(first, end + outputs))
            a = int(random.integers(0, min(b, end)))
            if (a, b) not in taken:
                pairs.append((a, b))
                break
    elif kind == "enable" and disabled:
        pairs.append(disabled.pop(int(random.integers(len(disabled)))))
    return Topology(tuple(hidden), tuple(pairs), tuple(disabled))


def search_topology(
    x: np.ndarray,
    labels: np.ndarray,
    generations: int = 1000,
    population: int = 64,
    seed: int = 1,
    state: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> tuple[list[Topology], np.ndarray]:
    """Graphs that classify well whatever the one weight of their connections is.

    In each generation a net is scored by the mean logarithm of the probability of the right class
    with each of the weights -2, -1, -0.5, 0.5, 1 and 2. Nets are ranked by the mean of the six
    scores and, of five generations four, by fewer connections, else by the best of the six
    scores. The best fifth stays as it is, the worst fifth has no children; a child is the best of
    an eighth of the nets, drawn at random, with one change. Resumed, it ends as an unbroken search
    does.

    Args:
        x: (examples, inputs), from 0 to 1.
        labels: (examples,) classes, from 0.
        generations: number of rounds.
        population: number of nets.
        seed: of all draws.
        state: file that keeps the nets, written every 25 generations; a search of the same
            arguments goes on from there. None for none.
        verbose: whether to show progress.

    Returns:
        The nets of the last generation, the best mean score first, and their scores
        (nets, weights).

    Raises:
        SearchError: if `state` is of other arguments, or no such file.
        ValueError: for other shapes or numbers, or fewer than two nets.

    Example:
        >>> import numpy as np
        >>> from keras_shared.zoo import search_topology
        >>> x = np.eye(3, dtype="float32").repeat(5, axis=0)
        >>> nets, scores = search_topology(x, x.argmax(1), 2, population=8, verbose=False)
        >>> len(nets), scores.shape
        (8, (8, 6))

    Reference:
        Gaier & Ha 2019, "Weight Agnostic Neural Networks", section 3 and its published code.
    """
    _check(np.asarray(x), np.asarray(labels))
    for name, number, least in (
        ("generations", generations, 0), ("population", population, 2), ("seed", seed, 0)
    ):  # fmt: skip
        if not isinstance(number, (int, np.integer)) or number < least:
            raise ValueError(
                f"`{name}` must be a whole number from {least}. Received: {name}={number!r}"
            )
    if state is not None and not isinstance(state, (str, os.PathLike)):
        raise ValueError(f"`state` must be the path of a file, or None. Received: state={state!r}")
    x, labels = np.asarray(x, "float32"), np.asarray(labels, int)
    generations, population, seed = int(generations), int(population), int(seed)
    inputs, outputs = x.shape[1], int(labels.max()) + 1
    digest = hashlib.sha256(x.tobytes() + labels.tobytes()).hexdigest()[:16]
    key = {"data": digest, "population": population, "seed": seed}

    def scored(nets: list[Topology]) -> np.ndarray:
        found = [log_likelihoods(answers(net, x, outputs), labels) for net in nets]
        return np.array(found).reshape(-1, len(WEIGHTS))

    done, nets = 0, list[Topology]()
    if state is not None and os.path.lexists(state):
        done, nets = _read(pathlib.Path(state), key, generations)
    else:
        random = np.random.default_rng([seed, 0])
        every = [(a, 1 + inputs + k) for k in range(outputs) for a in range(1 + inputs)]
        for _ in range(population):
            chosen = np.flatnonzero(random.random(len(every)) < FIRST)
            chosen = chosen if len(chosen) else random.integers(0, len(every), 1)
            nets.append(Topology((), tuple(every[i] for i in chosen)))
    scores = scored(nets)
    left = range(done + 1, generations + 1)
    for generation in progress(left, f"{population} nets") if verbose else left:
        random = np.random.default_rng([seed, generation])
        places = _places(nets, scores, random)
        order = np.argsort(places)
        elite = order[: max(1, round(ELITE * population))]
        parents = order[: population - round(CULLED * population)]
        children = []
        for _ in range(population - len(elite)):
            drawn = random.choice(parents, max(2, round(TOURNAMENT * population)))
            children.append(mutated(nets[drawn[places[drawn].argmin()]], inputs, outputs, random))
        nets = [*(nets[i] for i in elite), *children]
        scores = np.concatenate([scores[elite], scored(children)])
        if state is not None and (generation % KEEP_EVERY == 0 or generation == generations):
            kept = {**key, "generation": generation, "nets": nets}
            replace_text(state, json.dumps(kept, separators=(",", ":")))
    order = np.argsort(-scores.mean(axis=1), kind="stable")
    return [nets[i] for i in order], scores[order]


def _check(x: np.ndarray, labels: np.ndarray) -> None:
    if x.ndim != 2 or not x.size:
        raise ValueError(
            f"`x` must be (examples, inputs): flatten images. Received: x of shape {x.shape}"
        )
    if x.dtype.kind not in "fiub":
        raise ValueError(f"`x` must be numbers from 0 to 1. Received: dtype {x.dtype}")
    if not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"`x` must be numbers from 0 to 1. Received: numbers from {x.min():g} up to "
            f"{x.max():g}. Divide pixels by 255"
        )
    if labels.shape != x.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"`labels` must be {len(x)} whole numbers, the class of each example. Received: shape "
            f"{labels.shape}, dtype {labels.dtype}"
        )
    if labels.min() < 0:
        raise ValueError(
            f"`labels` must be classes from 0. Received: from {labels.min()} to {labels.max()}"
        )


def _places(nets: list[Topology], scores: np.ndarray, random: np.random.Generator) -> np.ndarray:
    mean = scores.mean(axis=1)
    if random.random() < BY_CONNECTIONS:
        return ranks(mean, -np.array([float(len(net.connections)) for net in nets]))
    return ranks(mean, scores.max(axis=1))


def _read(file: pathlib.Path, key: dict[str, Any], most: int) -> tuple[int, list[Topology]]:
    advice = "Remove it to begin again, or name another file."
    kept = read_json(file, SearchError, advice)
    with boundary(f"{file} is not what a search writes", SearchError, advice):
        differing = [name for name in key if kept[name] != key[name]]
        if differing or kept["generation"] > most:
            raise SearchError(
                f"{file} is of a search with other {', '.join(differing) or 'generations'}. "
                f"{advice}"
            )
        nets = [
            Topology(tuple(a), tuple(map(tuple, pairs)), tuple(map(tuple, disabled)))
            for a, pairs, disabled in kept["nets"]
        ]
        return kept["generation"], nets
