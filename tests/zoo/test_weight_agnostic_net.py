"""WeightAgnosticNet node by node in plain Python, and the search for its graph."""

import json
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_shared import export, find_ties, sharing_report, unshare
from keras_shared.sharing import Reading
from keras_shared.zoo import WeightAgnosticNet, search_topology
from keras_shared.zoo.topology_search import (
    NAMES,
    WEIGHTS,
    SearchError,
    Topology,
    answers,
    log_likelihoods,
    mutated,
    ranks,
)

FUNCTIONS = {
    "linear": lambda x: x,
    "step": lambda x: float(x > 0),
    "sin": lambda x: math.sin(math.pi * x),
    "gaussian": lambda x: math.exp(-x * x / 2),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "inverse": lambda x: -x,
    "absolute": abs,
    "relu": lambda x: max(x, 0.0),
    "cosine": lambda x: math.cos(math.pi * x),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 2, 3, 1)).astype("float32")


def drawn(seed, inputs=6, outputs=3, changes=60):
    """A graph that many mutations made."""
    random = np.random.default_rng(seed)
    first = [(a, 1 + inputs + k) for k in range(outputs) for a in range(1 + inputs)]
    topology = Topology((), tuple(first[i] for i in random.choice(len(first), 6, replace=False)))
    for _ in range(changes):
        topology = mutated(topology, inputs, outputs, random)
    return topology


def by_hand(topology, inputs, outputs, weight):
    """One example, one node after another, in the order of their numbers."""
    values = [1.0, *map(float, inputs)]
    for number, name in enumerate([*topology.activations, *["linear"] * outputs]):
        node = 1 + len(inputs) + number
        total = sum(values[a] for a, b in topology.connections if b == node)
        values.append(FUNCTIONS[name](weight * total))
    return values[len(values) - outputs :]


def net(topology, weight=1.0):
    return WeightAgnosticNet(
        topology.connections, topology.activations, weight, (2, 3, 1), ("a", "b", "c")
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_by_hand(seed):
    topology = drawn(seed)
    assert len(set(topology.activations)) > 5 and topology.disabled
    x = PIXELS.reshape(5, 6) / 255
    both = answers(topology, x, 3, [-0.7, 1.5])
    for weight, found in zip((-0.7, 1.5), both, strict=True):
        wanted = np.array([by_hand(topology, row, 3, weight) for row in x])
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        np.testing.assert_allclose(net(topology, weight)(PIXELS), wanted, atol=1e-4)


def test_each_activation_by_hand():
    for name in NAMES:
        one = Topology((name,), ((0, 3), (1, 3), (2, 3), (3, 4), (1, 5)))
        x = np.random.default_rng(1).normal(size=(20, 2))
        wanted = [by_hand(one, row, 2, -1.3) for row in x]
        np.testing.assert_allclose(answers(one, x, 2, [-1.3])[0], wanted, atol=1e-4, err_msg=name)


def test_one_weight_and_as_many_when_apart():
    model = net(drawn(1), weight=0.5)
    count = len(model.connections)
    report = sharing_report(model)
    assert model.count_params() == report.totals["parameters"] == 1
    assert report.totals["parameters_without_sharing"] == report.totals["multiply_adds"] == count
    assert report.weights[0].uses == count
    assert report.weights[0].readers == {"graph": Reading("by each connection", count)}
    assert find_ties(model).shared[0].readers == report.weights[0].readers
    apart = unshare(model)
    assert apart.count_params() == count
    np.testing.assert_allclose(apart(PIXELS), model(PIXELS), atol=1e-5)
    with tf.GradientTape(persistent=True) as tape:
        sums = [tf.reduce_sum(tf.square(m(PIXELS))) for m in (model, apart)]
    shared, each = (tape.gradient(s, m.weights)[0] for s, m in zip(sums, (model, apart),
                                                                   strict=True))  # fmt: skip
    assert shared.shape == () and each.shape == (count,) and np.count_nonzero(each) > count / 4
    np.testing.assert_allclose(shared, np.sum(each), rtol=1e-3)


@pytest.mark.slow
def test_saved_exported_and_trained(tmp_path):
    model = net(drawn(2), weight=0.8)
    wanted = model.predict(PIXELS, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(PIXELS, verbose=0), wanted)
    assert again.get_config() == model.get_config()
    model.export(tmp_path / "folder")
    served = tf.saved_model.load(tmp_path / "folder").signatures["classify"](tf.constant(PIXELS))
    np.testing.assert_allclose(served["scores"], wanted, atol=1e-5)
    assert [name.decode() for name in served["label"].numpy()] == model.classify(PIXELS)
    model.compile(keras.optimizers.SGD(0.01))
    model.fit(PIXELS, np.arange(5) % 3, verbose=0)
    assert float(model.weights[0]) != pytest.approx(0.8, abs=1e-6)


@pytest.mark.slow
def test_as_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    model = net(drawn(3), weight=0.8)
    export(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (name,) = (one.name for one in session.get_inputs())
    found = session.run(None, {name: PIXELS})[0]
    np.testing.assert_allclose(found, model.predict(PIXELS, verbose=0), atol=1e-4)


@pytest.mark.parametrize("pairs", [[(1, 0)], [(7, 3)], [(1, 99)], [(8, 9)], []])
def test_refuses_connections_that_lead_nowhere(pairs):
    with pytest.raises(ValueError, match="must lead from one of the nodes 0 to 7 to a later one"):
        WeightAgnosticNet(pairs, ("relu",), 1.0, (2, 3, 1), ("a", "b"))


def test_refuses():
    with pytest.raises(ValueError, match="each once. Received some twice"):
        WeightAgnosticNet([(1, 7), (1, 7)], (), 1.0, (2, 3, 1))
    with pytest.raises(ValueError, match=r"names among \['linear'.*Received: .'gelu'"):
        WeightAgnosticNet(activations=("gelu",))


def test_mutations_make_graphs_that_run():
    random = np.random.default_rng(5)
    topology = Topology((), ((1, 7),))
    seen = set()
    for _ in range(300):
        new = mutated(topology, 6, 3, random)
        change = (len(new.activations) - len(topology.activations),
                  len(new.connections) - len(topology.connections),
                  len(new.disabled) - len(topology.disabled))  # fmt: skip
        assert change in {(0, 0, 0), (1, 1, 1), (0, 1, 0), (0, 1, -1)}
        seen.add(change if change != (0, 0, 0) else new.activations != topology.activations)
        pairs = [*new.connections, *new.disabled]
        assert len({*pairs}) == len(pairs) and all(a < b and b > 6 for a, b in pairs)
        assert max(b for _, b in pairs) < 7 + len(new.activations) + 3
        assert max(a for a, _ in pairs) < 7 + len(new.activations)
        topology = new
    assert {(1, 1, 1), (0, 1, 0), (0, 1, -1), True} <= seen
    assert np.isfinite(answers(topology, np.ones((1, 6)), 3, [0.1])).all()


def test_ranks_by_hand():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 6, (2, 40)).astype(float)
    places = ranks(a, b)
    assert sorted(places) == list(range(40))

    def dominates(i, j):
        return a[i] >= a[j] and b[i] >= b[j] and (a[i], b[i]) != (a[j], b[j])

    for i in range(40):
        for j in range(40):
            if dominates(i, j):
                assert places[i] < places[j]


def test_likelihoods_by_hand():
    random = np.random.default_rng(1)
    scores, labels = random.normal(size=(6, 9, 4)) * 3, random.integers(0, 4, 9)
    powers = np.exp(scores)
    wanted = np.log(powers[:, np.arange(9), labels] / powers.sum(-1)).mean(-1)
    np.testing.assert_allclose(log_likelihoods(scores, labels), wanted, rtol=1e-6)
    scores[0, 0] = np.inf
    assert log_likelihoods(scores, labels)[0] == -1e9


def test_a_search_goes_on_where_it_stopped_and_never_gets_worse(tmp_path):
    random = np.random.default_rng(2)
    centres = random.random((3, 5))
    labels = np.arange(60) % 3
    x = np.clip(centres[labels] + random.normal(size=(60, 5)) / 8, 0, 1)
    best, file = [], tmp_path / "state.json"
    for generations in (1, 4, 25):
        nets, scores = search_topology(x, labels, generations, 24, state=file)
        best.append(scores.mean(1).max())
    assert best == sorted(best) and best[-1] > best[0] + 0.02
    unbroken, _ = search_topology(x, labels, 25, 24)
    assert nets == unbroken
    assert json.loads(file.read_text())["generation"] == 25
    np.testing.assert_allclose(
        scores[0], log_likelihoods(answers(nets[0], x, 3, WEIGHTS), labels), rtol=1e-5
    )
    numbers = {"population": np.int64(24), "seed": np.int64(1)}
    search_topology(x, labels, np.int64(25), **numbers, state=tmp_path / "other.json")
    assert json.loads((tmp_path / "other.json").read_text()) == json.loads(file.read_text())
    for others in ({"seed": 2}, {"population": 25}, {"generations": 24}):
        with pytest.raises(SearchError, match=f"is of a search with other {next(iter(others))}"):
            search_topology(
                x, labels, **{"generations": 25, "population": 24, **others}, state=file
            )
    with pytest.raises(SearchError, match="other data"):
        search_topology(x / 2, labels, 25, 24, state=file)
    file.write_text('{"data": 1}')
    with pytest.raises(SearchError, match="Remove it to begin again"):
        search_topology(x, labels, 25, 24, state=file)


@pytest.mark.parametrize("name", ["sin", "cosine", "gaussian", "sigmoid", "step"])
def test_bad_numbers_end_nothing(name):
    far = Topology((name,), ((1, 2), (2, 3), (1, 3)))
    found = answers(far, np.array([[3e38]]), 1, WEIGHTS)
    assert log_likelihoods(np.repeat(found, 2, -1), np.array([0])).shape == (6,)


@pytest.mark.backends
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_answers_and_is_trained_there_too(backend, tmp_path):
    pytest.importorskip(backend)
    topology = drawn(2)
    np.savez(tmp_path / "asked.npz", x=PIXELS, wanted=net(topology, 0.8).predict(PIXELS, verbose=0))
    program = (
        "import sys, keras, numpy as np\n"
        "from keras_shared.zoo import RBFNet, TimeDelayNet, WeightAgnosticNet\n"
        f"pairs, names = {topology.connections!r}, {topology.activations!r}\n"
        "net = WeightAgnosticNet(pairs, names, 0.8, (2, 3, 1), ('a', 'b', 'c'))\n"
        "kept = np.load(sys.argv[1]); x = kept['x']\n"
        "np.testing.assert_allclose(net.predict(x, verbose=0), kept['wanted'], atol=1e-4)\n"
        "net.compile(keras.optimizers.SGD(0.01)); net.fit(x, np.arange(5) % 3, verbose=0)\n"
        "assert abs(float(net.weights[0].value) - 0.8) > 1e-6\n"
        "delays = TimeDelayNet((3, 4)); delays.compile()\n"
        "delays.fit(np.ones((4, 8, 8, 1)), np.arange(4), verbose=0)\n"
        "assert delays.at_each_step(np.ones((2, 8, 8, 1))).shape == (2, 4, 10)\n"
        "for whose in ('shared', 'own'):\n"
        "    centers = RBFNet(20, whose, whose); before = centers.get_layer('rbf').get_weights()\n"
        "    centers.compile(); centers.fit(np.ones((4, 8, 8, 1)), np.arange(4), verbose=0)\n"
        "    after = centers.get_layer('rbf').get_weights()\n"
        "    assert all(np.abs(a - b).max() > 1e-7 for a, b in zip(after, before, strict=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "asked.npz")],
        env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"connections": [(1.7, 65)]}, r"pairs of numbers of nodes.*\[\(1.7, 65\)\]"),
        ({"connections": [(1, 2, 65)]}, "pairs of numbers of nodes"),
        ({"connections": [(1, 65), (2,)]}, "pairs of numbers of nodes"),
        ({"connections": "abc"}, "list of pairs of numbers of nodes.*'abc'"),
        ({"connections": 5}, "a list of pairs of numbers of nodes.*Received: 5"),
        ({"connections": {(1, 65)}}, r"a list of pairs.*Received: {\(1, 65\)}"),
        ({"activations": "relu"}, "a list of names among .*'relu'"),
        ({"activations": 3}, "a list of names among .*Received: 3"),
        ({"activations": [["relu"]]}, r"a list of names among .*Received: \[\['relu'\]\]"),
        ({"weight": "1"}, "`weight` must be a finite number. Received: weight='1'"),
        ({"weight": float("nan")}, "`weight` must be a finite number. Received: weight=nan"),
    ],
)
def test_what_is_no_graph_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WeightAgnosticNet(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((4, 2, 2, 1))}, r"\(examples, inputs\).*x of shape \(4, 2, 2, 1\)"),
        ({"x": np.full((4, 2), 255.0)}, "numbers from 0 to 1.*up to 255"),
        ({"x": np.full((4, 2), np.nan)}, "numbers from 0 to 1.*up to nan"),
        ({"labels": np.array([-1, 0, 1, 0])}, r"`labels`.*from -1 to 1"),
        ({"labels": np.array([0.5, 0, 1, 0])}, "`labels` must be.*dtype float64"),
        ({"labels": np.eye(4, dtype=int)}, r"`labels` must be.*shape \(4, 4\)"),
        ({"labels": np.array([0, 1])}, r"`labels` must be 4 .*shape \(2,\)"),
        ({"x": np.full((4, 2), "a")}, "`x` must be numbers.*dtype <U1"),
        ({"population": 1}, "`population` must be a whole number from 2. Received: population=1"),
        ({"population": 2.5}, "`population` must be a whole number from 2.*=2.5"),
        ({"generations": -1}, "`generations` must be a whole number from 0.*=-1"),
        ({"generations": "1"}, "`generations` must be a whole number from 0.*='1'"),
        ({"seed": None}, "`seed` must be a whole number from 0.*=None"),
        ({"state": 3}, "`state` must be the path of a file.*Received: state=3"),
    ],
)
def test_a_search_of_other_data_is_refused(changes, message):
    given = {"x": np.eye(4, 2), "labels": np.array([0, 1, 1, 0]), "population": 4,
             "generations": 1, **changes}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        search_topology(**given, verbose=False)
