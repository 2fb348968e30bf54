import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_shared import TieError, sharing_report
from keras_shared.zoo import MultiTaskNet

XYZ = ("x", "y", "z")
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_one_head_of_two_tasks_stays_one(tmp_path):
    trunk, head = net().trunk, layers.Dense(3, name="both")
    model = MultiTaskNet(trunk, {"a": head, "b": layers.Dense(1), "c": head})
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.heads["a"] is loaded.heads["c"] and list(loaded.heads) == ["a", "b", "c"]
    assert loaded.count_params() == model.count_params() == 35 + 18 + 6
    for name, answer in model.predict(X, verbose=0).items():
        np.testing.assert_array_equal(loaded.predict(X, verbose=0)[name], answer)


def test_a_layer_in_two_heads_is_not_stored_as_two(tmp_path):
    both = layers.Dense(4, name="both")
    heads = {name: keras.Sequential([keras.Input((5,)), both, layers.Dense(1)]) for name in "ab"}
    with pytest.raises(TieError, match=r"'both' lies in .* come back as two. Put it into the trun"):
        MultiTaskNet(net().trunk, heads).save(tmp_path / "m.keras")
    trunk = keras.Sequential([net().trunk, both])
    model = MultiTaskNet(trunk, {name: layers.Dense(1) for name in "ab"})
    model.save(tmp_path / "m.keras")
    assert keras.models.load_model(tmp_path / "m.keras").count_params() == model.count_params()


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
    with pytest.raises(ValueError, match=r"targets by the names.*Received: \['kind'\]"):
        model.compute_loss(X, {"kind": Y["kind"]}, model(X))
    for loss in ([*LOSS.values()], {**LOSS, "age": "mse"}):
        model.compile("sgd", loss)
        with pytest.raises(ValueError, match=r"the losses by the names of the tasks, \['kind', 's"):
            model.compute_loss(X, Y, model(X))
    with pytest.raises(ValueError, match="learns the weights of its losses.*weighting='fixed'"):
        model.compile("sgd", LOSS, loss_weights={"kind": 1.0, "size": 0.25})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": [layers.Dense(2)]}, "`heads` must be a dict by the names"),
        ({"heads": {1: layers.Dense(2)}}, "`heads` must be a dict by the names"),
        ({"class_names": ["a", "b"]}, r"`class_names` must be a dict.*\['a', 'b'\]"),
        ({"class_names": {"a": 3}}, r"`class_names\['a'\]` must be a list of texts.*=3$"),
        ({"trunk": None, "width": 2.5}, r"`width` must be a positive integer.*=2.5"),
        (
            {"heads": {"a": layers.Dense(2)}, "class_names": {"a": tuple("xyz")}},
            "'a'.*each output.*3 nam",
        ),
    ],
)
def test_refuses_heads_and_classes_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiTaskNet(**{"trunk": net().trunk, **arguments})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((20, 20, 1)), r"Give it a batch axis: images\[None\]"),
        (np.zeros((0, 20, 20, 1)), "must be numbers of shape"),
        (np.full((1, 20, 20, 1), np.nan), "NaN or infinity"),
    ],
)
def test_classify_refuses_what_are_no_images(images, message):
    with pytest.raises(ValueError, match=message):
        MultiTaskNet(width=1, image_shape=(20, 20, 1)).classify(images)


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


def test_the_default_net_by_hand():
    model = MultiTaskNet(class_names={"a": XYZ, "b": XYZ[:2]}, width=2, image_shape=(20, 20, 1))
    x = np.random.default_rng(3).integers(0, 256, (2, 20, 20, 1)).astype("float32")
    h = x / 255
    for name in ("convolution_1", "convolution_2"):
        kernel, bias = model.trunk.get_layer(name).get_weights()
        windows = np.lib.stride_tricks.sliding_window_view(h, (5, 5), axis=(1, 2))
        h = np.einsum("nijcuv,uvco->nijo", windows, kernel) + bias
        n, side, _, maps = h.shape
        h = np.maximum(h.reshape(n, side // 2, 2, side // 2, 2, maps).max((2, 4)), 0)
    kernel, bias = model.trunk.get_layer("features").get_weights()
    h = np.maximum(h.reshape(2, -1) @ kernel + bias, 0)
    assert h.shape == (2, 10)
    for name, answer in model.predict(x, verbose=0).items():
        hidden, hidden_bias, out, out_bias = model.heads[name].get_weights()
        wanted = np.maximum(h @ hidden + hidden_bias, 0) @ out + out_bias
        np.testing.assert_allclose(answer, wanted, atol=1e-4)
    assert model.classify(x)["a"] == ["xyz"[i] for i in model(x)["a"].numpy().argmax(-1)]


@pytest.mark.slow
def test_two_trunks_are_two_single_nets(tmp_path):
    keras.utils.set_random_seed(2)
    apart = MultiTaskNet(width=2, shared=False, image_shape=(20, 20, 1))
    one = MultiTaskNet(width=2, image_shape=(20, 20, 1))
    heads = sum(head.count_params() for head in one.heads.values())
    assert apart.count_params() - one.count_params() == one.trunk.count_params()
    assert one.trunk.count_params() + heads == one.count_params()
    x = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 1)).astype("float32")
    with tf.GradientTape() as tape:
        right = tf.reduce_sum(apart(x)["right"] ** 2)
    assert all(g is None for g in tape.gradient(right, apart.trunk.trainable_variables))
    apart.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for task, answer in apart.predict(x, verbose=0).items():
        np.testing.assert_array_equal(again.predict(x, verbose=0)[task], answer)
    written = [{k: v for k, v in net.get_config().items() if k not in ("trunk", "heads")}
               for net in (apart, again)]  # fmt: skip
    assert written[0] == written[1] and not again.shared


@pytest.mark.slow
def test_one_loss_and_one_metric_are_each_tasks():
    model = MultiTaskNet(width=2, image_shape=(20, 20, 1))
    model.compile()
    x, y = np.zeros((3, 20, 20, 1)), np.zeros(3, int)
    found = model.evaluate(x, {"left": y, "right": y}, verbose=0, return_dict=True)
    assert {"left_accuracy", "right_accuracy"} <= set(found)
    uniform = MultiTaskNet(width=2, image_shape=(20, 20, 1), kernel_initializer="zeros")
    uniform.compile()
    loss = uniform.evaluate(x, {"left": y, "right": y}, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(2 * np.log(10), rel=1e-5)
    weighted = MultiTaskNet(None, None, "uncertainty", width=2, image_shape=(20, 20, 1),
                            kernel_initializer="zeros")  # fmt: skip
    weighted.compile()
    weighted.log_variances.assign([0.4, -0.3])
    loss = weighted.evaluate(x, {"left": y, "right": y}, verbose=0, return_dict=True)["loss"]
    wanted = (np.exp(-0.4) + np.exp(0.3)) * np.log(10) + 0.05
    assert loss == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(ValueError, match="names the classes of all of its tasks has a loss"):
        net().compile()
    with pytest.raises(
        ValueError, match=r"tasks in `heads`, \['kind', 'size'\]. Received: \['c'\]"
    ):
        net(class_names={"c": ("x", "y")})


@pytest.mark.slow
def test_two_devices_train_as_one():
    program = (
        "import keras, numpy as np, tensorflow as tf; from keras_shared.zoo import MultiTaskNet\n"
        "cpu, L = tf.config.list_physical_devices('CPU')[0], keras.layers\n"
        "parts = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, parts)\n"
        "def net():\n"
        "    trunk = [keras.Input((6,)), L.Dense(5, kernel_regularizer='l2')]\n"
        "    heads = {'a': L.Dense(1), 'b': L.Dense(1)}\n"
        "    made = MultiTaskNet(keras.Sequential(trunk), heads, 'uncertainty')\n"
        "    made.compile(keras.optimizers.SGD(0.1), 'mse')\n"
        "    return made\n"
        "with tf.distribute.MirroredStrategy(['cpu:0', 'cpu:1']).scope():\n"
        "    two = net()\n"
        "one, x = net(), np.random.default_rng(1).normal(size=(8, 6)).astype('float32')\n"
        "one.set_weights(two.get_weights())\n"
        "for model in (one, two):\n"
        "    model.fit(x, {'a': x[:, :1], 'b': 3 * x[:, 1:2]}, batch_size=4, epochs=3,\n"
        "              shuffle=False, verbose=0)\n"
        "for a, b in zip(one.get_weights(), two.get_weights(), strict=True):\n"
        "    np.testing.assert_allclose(a, b, atol=1e-4)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_metric_by_its_name_is_each_tasks():
    inputs = keras.Input((3,))
    trunk = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    net = MultiTaskNet(trunk, {"a": keras.layers.Dense(1), "b": keras.layers.Dense(1)})
    net.compile("sgd", "mse", metrics="mae")
    y = np.zeros((4, 1))
    found = net.evaluate(np.ones((4, 3)), {"a": y, "b": y}, verbose=0, return_dict=True)
    assert {"a_mae", "b_mae"} < {*found}


def test_one_of_two_trunks_frozen(tmp_path):
    """The other one is drawn anew, and so it is trained; a file does not freeze it either."""
    net = MultiTaskNet(width=2, shared=False, image_shape=(20, 20, 1))
    net.trunk.trainable = False
    trained = len(net.trainable_weights)
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert trained == len(loaded.trainable_weights) == len(net.weights) - len(net.trunk.weights)
    frozen = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)], name="t")
    frozen.trainable = False
    heads = {"a": keras.layers.Dense(2), "b": keras.layers.Dense(2)}
    assert len(MultiTaskNet(frozen, heads, shared=False).trainable_weights) == 6
