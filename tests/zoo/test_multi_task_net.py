import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_shared import sharing_report
from keras_shared.zoo import MultiTaskNet

RANDOM = np.random.default_rng(2)
X = RANDOM.normal(size=(12, 6)).astype("float32")
Y = {"kind": RANDOM.integers(0, 3, 12), "size": X[:, :1] * 5}
LOSS = {
    "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "size": "mean_squared_error",
}


def net(**arguments):
    keras.utils.set_random_seed(1)
    trunk = keras.Sequential([keras.Input((6,)), layers.Dense(5, "tanh", kernel_regularizer="l2")])
    heads = {"kind": layers.Dense(3), "size": layers.Dense(1)}
    return MultiTaskNet(trunk, heads, **arguments)


def by_hand(model):
    """The two losses and the regulariser, in NumPy."""
    kernel, bias = (np.asarray(w, "float64") for w in model.trunk.get_weights())
    hidden = np.tanh(X @ kernel + bias)
    kind, size = (hidden @ head.get_weights()[0] + head.get_weights()[1]
                  for head in model.heads.values())  # fmt: skip
    powers = np.exp(kind)
    right = powers[np.arange(12), Y["kind"]] / powers.sum(-1)
    return -np.log(right).mean(), np.square(size - Y["size"]).mean(), 0.01 * np.sum(kernel**2)


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_the_loss_by_hand(weighting):
    model = net(weighting=weighting)
    kind, size, regularizer = by_hand(model)
    if weighting == "fixed":
        model.compile("sgd", LOSS, loss_weights={"kind": 1.0, "size": 0.25})
        wanted = kind + 0.25 * size + regularizer
    else:
        model.log_variances.assign([0.4, -0.3])
        model.compile("sgd", LOSS)
        wanted = np.exp(-0.4) * kind + 0.2 + np.exp(0.3) * size - 0.15 + regularizer
    found = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(wanted, rel=1e-5)


def test_the_gradient_of_the_trunk_is_the_sum_over_tasks():
    model = net(weighting="uncertainty")
    model.compile("sgd", LOSS)
    model.log_variances.assign([0.4, -0.3])
    trunk = model.trunk.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        answers = model(X)
        whole = model.compute_loss(X, Y, answers)
        kind = LOSS["kind"](Y["kind"], answers["kind"])
        size = keras.ops.mean(keras.ops.square(answers["size"] - Y["size"]))
        held = model.losses[0]
    parts = [tape.gradient(part, trunk) for part in (kind, size, held)]
    weights = np.exp([-0.4, 0.3, 0.0])
    for number, found in enumerate(tape.gradient(whole, trunk)):
        wanted = sum(
            w * np.asarray(part[number]) for w, part in zip(weights, parts, strict=True)
            if part[number] is not None
        )  # fmt: skip
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.slow
def test_uncertainty_finds_the_weights_at_which_each_term_is_a_half():
    model = net(weighting="uncertainty")
    model.trunk.trainable = False
    for head in model.heads.values():
        head.trainable = False
    kind, size, _ = by_hand(model)
    model.compile(keras.optimizers.SGD(0.5), LOSS)
    model.fit(X, Y, batch_size=12, epochs=60, verbose=0)
    np.testing.assert_allclose(model.log_variances, np.log([2 * kind, 2 * size]), atol=1e-3)


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_saved_and_trained_on(weighting, tmp_path):
    model = net(weighting=weighting)
    model.compile("adam", LOSS)
    model.fit(X, Y, epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for name, answer in model.predict(X, verbose=0).items():
        np.testing.assert_array_equal(loaded.predict(X, verbose=0)[name], answer)
    losses = [m.evaluate(X, Y, verbose=0, return_dict=True)["loss"] for m in (model, loaded)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert loaded.weighting == weighting and list(loaded.heads) == ["kind", "size"]
    if weighting == "uncertainty":
        assert np.abs(loaded.log_variances).max() > 0
        np.testing.assert_array_equal(loaded.log_variances, model.log_variances)


def test_a_frozen_trunk_serves_a_new_head():
    model = net()
    model.compile("adam", LOSS)
    model.fit(X, Y, verbose=0)
    model.trunk.trainable = False
    new = MultiTaskNet(model.trunk, {"sign": layers.Dense(1, "sigmoid")})
    before = model.predict(X, verbose=0)
    new.compile("adam", "binary_crossentropy")
    new.fit(X, {"sign": X[:, :1] > 0}, epochs=2, verbose=0)
    assert new.trunk is model.trunk and len(new.trainable_variables) == 2
    for name, answer in model.predict(X, verbose=0).items():
        np.testing.assert_array_equal(answer, before[name])


def test_the_trunk_is_one_and_called_once():
    model = net()
    report = sharing_report(model)
    assert report.totals["parameters"] == model.count_params() == 6 * 5 + 5 + 5 * 4 + 4
    assert {w.uses for w in report.weights} == {1} and report.warnings == ()
    assert sum(w.multiply_adds for w in report.weights) == report.totals["parameters"]


def test_refuses():
    with pytest.raises(ValueError, match="`trunk` must be a functional model"):
        MultiTaskNet(layers.Dense(2), {"a": layers.Dense(1)})
    trunk = net().trunk
    with pytest.raises(ValueError, match="a layer for each task"):
        MultiTaskNet(trunk, {})
    with pytest.raises(ValueError, match="'fixed' or 'uncertainty'. Received: weighting='even'"):
        net(weighting="even")
    model = net(weighting="uncertainty")
    model.compile("sgd", {"kind": LOSS["kind"]})
    with pytest.raises(ValueError, match=r"a loss for each task.*none for \['size'\]"):
        model.compute_loss(X, Y, model(X))
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"names of the tasks, \['kind', 'size'\].*type list"):
        model.compute_loss(X, [*Y.values()], model(X))


@pytest.mark.backends
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_uncertainty_is_trained_there_too(backend):
    pytest.importorskip(backend)
    program = (
        "import keras, numpy as np; from keras_shared.zoo import MultiTaskNet; L = keras.layers\n"
        "trunk = keras.Sequential([keras.Input((6,)), L.Dense(5)])\n"
        "net = MultiTaskNet(trunk, {'a': L.Dense(1), 'b': L.Dense(1)}, 'uncertainty')\n"
        "net.compile(keras.optimizers.SGD(0.1), 'mse'); x = np.ones((4, 6), 'float32')\n"
        "net.fit(x, {'a': x[:, :1], 'b': 9 * x[:, :1]}, epochs=2, verbose=0)\n"
        "assert np.abs(keras.ops.convert_to_numpy(net.log_variances)).min() > 0"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
