"""The mixture of soft weight sharing against NumPy, and what becomes of a model."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_shared import KerasSharedError, TieError, cluster
from keras_shared.sharing import MixtureRegularizer, SoftSharing
from keras_shared.zoo import MultiTaskNet

RANDOM = np.random.default_rng(4)
X = RANDOM.normal(size=(64, 6)).astype("float32")
Y = (X @ np.diag([1.0, 0, 0, 0.5, 0, 0]))[:, :4].astype("float32")


def changed(mixture):
    """Mixture with other values than at its start."""
    for variable in mixture.variables:
        variable.assign(variable + RANDOM.normal(size=variable.shape) / 5)
    return mixture


def values_of(mixture):
    """Shares, means and precisions, worked out from the variables."""
    means, precisions, shares = (np.asarray(v, "float64") for v in mixture.variables)
    odds = np.exp(6 * shares)
    rest = (1 - mixture.zero_share) * odds / odds.sum()
    return (np.array([mixture.zero_share, *rest]), np.array([0, *(means / 5)]),
            np.exp(6 * precisions))  # fmt: skip


def by_hand(mixture, weights):
    total = 0.0
    for w in np.ravel(weights):
        total -= np.log(sum(
            share * np.sqrt(precision / (2 * np.pi)) * np.exp(-precision * (w - mean) ** 2 / 2)
            for share, mean, precision in zip(*values_of(mixture), strict=True)
        ))  # fmt: skip
    return total


def net():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "tanh"),
                             keras.layers.Dense(4)])  # fmt: skip


def test_it_begins_as_published():
    shares, means, precisions = values_of(MixtureRegularizer(16, 0.99))
    np.testing.assert_allclose(shares, [0.99, *[0.01 / 15] * 15])
    np.testing.assert_allclose(means, [0, *np.linspace(-0.6, 0.6, 15)], atol=1e-7)
    np.testing.assert_allclose(precisions, 16, rtol=1e-6)


def test_the_penalty_by_hand():
    mixture = changed(MixtureRegularizer(5, 0.9))
    weights = RANDOM.normal(size=(3, 7)).astype("float32")
    assert float(mixture(weights)) == pytest.approx(by_hand(mixture, weights), rel=1e-5)
    shares, _, precisions = values_of(mixture)
    assert shares.sum() == pytest.approx(1) and shares[0] == 0.9
    prior = (
        (1 - 5e3) * np.log(precisions[0])
        + 2 * precisions[0]
        + sum((1 - 250) * np.log(p) + 0.1 * p for p in precisions[1:])
    )
    assert float(mixture.of_precisions()) == pytest.approx(prior, rel=1e-5)


def test_the_loss_by_hand_and_the_gradient_of_the_mixture_is_the_sum_over_layers():
    soft = SoftSharing(net(), examples=64, components=4, strength=0.5)
    changed(soft.mixture)
    soft.compile("sgd", "mse")
    kernels = [layer.kernel for layer in soft.model.layers]
    penalty = sum(by_hand(soft.mixture, k) for k in kernels) + float(soft.mixture.of_precisions())
    mse = np.mean((soft.model.predict(X, verbose=0) - Y) ** 2)
    found = soft.evaluate(X, Y, batch_size=64, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(mse + 0.5 / 64 * penalty, rel=1e-4)
    with tf.GradientTape(persistent=True) as tape:
        whole = soft.mixture(tf.concat([tf.reshape(k, [-1]) for k in kernels], 0))
        parts = [soft.mixture(k) for k in kernels]
    for variable in soft.mixture.variables:
        sums = sum(tape.gradient(part, variable) for part in parts)
        np.testing.assert_allclose(tape.gradient(whole, variable), sums, rtol=1e-4, atol=1e-3)
        assert np.abs(sums).max() > 1e-3


@pytest.mark.slow
def test_one_mixture_is_trained_with_the_weights():
    soft = SoftSharing(net(), examples=64, components=4)
    soft.compile("adam", "mse")
    soft.build((None, 6))
    before = [np.array(v) for v in soft.mixture.variables]
    trained = {id(v) for v in soft.trainable_variables}
    assert trained >= {id(v) for v in (*soft.mixture.variables, *soft.model.trainable_variables)}
    assert len(trained) == 3 + 4
    soft.fit(X, Y, epochs=2, verbose=0)
    for old, new in zip(before, soft.mixture.variables, strict=True):
        assert np.abs(old - new).max() > 1e-4
    assert np.array(soft.mixture.means())[0] == 0


def test_collapsed_and_clustered_without_further_loss():
    soft = SoftSharing(net(), examples=64, components=4)
    changed(soft.mixture)
    small = soft.collapsed()
    shares, means, precisions = values_of(soft.mixture)
    for old, new in zip(soft.model.layers, small.layers, strict=True):
        far = np.asarray(old.kernel)[..., None] - means
        likely = shares * np.sqrt(precisions) * np.exp(-precisions * far**2 / 2)
        np.testing.assert_allclose(new.kernel, means[likely.argmax(-1)], atol=1e-6)
        np.testing.assert_array_equal(new.bias, old.bias)
        assert new.kernel is not old.kernel
    coded = cluster(small, codes=4)
    np.testing.assert_allclose(coded.predict(X, verbose=0), small.predict(X, verbose=0), atol=1e-5)


@pytest.mark.slow
def test_weights_gather_and_the_task_is_learnt():
    soft = SoftSharing(net(), examples=64, components=4, zero_share=0.6, strength=0.02)
    soft.compile(keras.optimizers.Adam(0.01), "mse")

    def distance():
        return np.mean([np.abs(np.asarray(k) - soft.mixture.nearest(k)).mean()
                        for k in (layer.kernel for layer in soft.model.layers)])  # fmt: skip

    before, start = distance(), soft.evaluate(X, Y, verbose=0)
    soft.fit(X, Y, epochs=150, verbose=0)
    assert distance() < before / 2 and soft.evaluate(X, Y, verbose=0) < start


def test_saved_with_its_mixture_and_trained_on(tmp_path):
    soft = SoftSharing(net(), examples=64, components=4, zero_share=0.7, strength=0.01)
    soft.compile("sgd", "mse")
    soft.fit(X, Y, verbose=0)
    changed(soft.mixture)
    soft.save(tmp_path / "soft.keras")
    loaded = keras.models.load_model(tmp_path / "soft.keras")
    np.testing.assert_array_equal(loaded.mixture.means(), soft.mixture.means())
    assert loaded.evaluate(X, Y, verbose=0) == pytest.approx(soft.evaluate(X, Y, verbose=0))
    assert (loaded.examples, loaded.strength, loaded.mixture.zero_share) == (64, 0.01, 0.7)


def test_collapsed_is_of_the_same_class():
    trunk = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model = MultiTaskNet(trunk, {"a": keras.layers.Dense(2)}, "fixed", {"a": ("x", "y")})
    small = SoftSharing(model, examples=64, components=4).collapsed()
    assert type(small) is MultiTaskNet and small.class_names == {"a": ("x", "y")}
    assert len(np.unique(small.trunk.layers[0].kernel)) <= 4


def test_losses_by_the_names_of_outputs():
    x, y = np.ones((8, 6), "float32"), {"k": np.ones((8, 3)), "s": np.ones((8, 1))}
    a, b = keras.Input((6,)), keras.Input((6,))
    both = keras.layers.Add()([a, b])
    outputs = [keras.layers.Dense(n, name=name)(both) for n, name in ((3, "k"), (1, "s"))]
    soft = SoftSharing(keras.Model([a, b], outputs), examples=8, components=4)
    soft.compile("sgd", {"k": "mse", "s": "mae"})
    k, s = soft([x, x])
    loss = soft.compute_loss(y=y, y_pred=[k, s]) - soft.weight_of_penalty * soft.penalty()
    wanted = np.mean((k - 1) ** 2) + np.mean(np.abs(s - 1))
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)
    soft.fit([x, x], y, verbose=0)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def test_refuses():
    subclassed = Subclassed()
    subclassed(np.ones((2, 6)))
    with pytest.raises(TieError, match="has no graph of layers to copy"):
        SoftSharing(subclassed, examples=3)
    for wrong in ({"components": 1}, {"components": 2.5}, {"zero_share": 1.0}, {"zero_share": "a"}):
        (given,) = wrong.values()
        with pytest.raises(ValueError, match=f"from 2, and `zero_share`.*={given!r}"):
            MixtureRegularizer(**wrong)
    for wrong in ({"examples": 0}, {"examples": "8"}, {"strength": float("inf")}):
        ((name, given),) = wrong.items()
        with pytest.raises(ValueError, match=f"`{name}` must be a positive number.*{given!r}"):
            SoftSharing(net(), **{"examples": 3, **wrong})
    with pytest.raises(ValueError, match="must be a trained Keras model. Received: 'net'"):
        SoftSharing("net", examples=3)
    with pytest.raises(TieError, match="has no graph of layers to copy"):
        SoftSharing(keras.Sequential([keras.layers.Dense(2)]), examples=3)
    with pytest.raises(KerasSharedError, match="no kernel whose values could be shared"):
        SoftSharing(cluster(net(), 4), examples=3)
    with pytest.raises(KerasSharedError, match=r"own, which trains its \['log_variances'\]"):
        SoftSharing(MultiTaskNet(width=2, weighting="uncertainty"), examples=3)


def test_frozen_after_training_it_is_loaded_but_not_trained(tmp_path):
    soft = SoftSharing(net(), examples=64, components=3)
    soft.compile("sgd", "mse")
    soft.fit(X, Y, verbose=0)
    soft.model.trainable = False
    soft.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), soft.predict(X, verbose=0))
    for refused in (loaded.penalty, loaded.collapsed):
        with pytest.raises(KerasSharedError, match="no trainable kernel. Set `trainable`"):
            refused()
    for layer in loaded.model.layers:
        layer.trainable = True
    loaded.penalty()
    assert len(np.unique(loaded.collapsed().layers[0].kernel)) <= 3


@pytest.mark.parametrize("change", [lambda d: d.enable_lora(2), lambda d: d.quantize("int8")])
def test_kernels_that_are_not_what_is_trained_are_refused(change):
    model = net()
    change(model.layers[0])
    soft = SoftSharing(model, examples=3)
    for refused in (soft.penalty, soft.collapsed):
        with pytest.raises(KerasSharedError, match="Dense 'dense.*' is quantised or has LoRA"):
            refused()


@pytest.mark.backends
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_trained_there_too(backend):
    pytest.importorskip(backend)
    program = (
        "import keras, numpy as np; from keras_shared.sharing import SoftSharing\n"
        "model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])\n"
        "soft = SoftSharing(model, 8, 4); soft.compile('adam', 'mse')\n"
        "before = keras.ops.convert_to_numpy(soft.mixture.means())\n"
        "soft.fit(np.ones((8, 6)), np.ones((8, 5)), epochs=2, verbose=0)\n"
        "assert np.abs(before - keras.ops.convert_to_numpy(soft.mixture.means())).max() > 0\n"
        "assert len(np.unique(keras.ops.convert_to_numpy(soft.collapsed().layers[0].kernel))) <= 4"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_layers_with_a_mixture_are_not_stored_as_if_each_had_its_own(tmp_path):
    mixture = MixtureRegularizer(4)
    model = keras.Sequential([
        keras.Input((4,)),
        keras.layers.Dense(3, kernel_regularizer=mixture),
        keras.layers.Dense(3, kernel_regularizer=mixture),
    ])  # fmt: skip
    for way in (model.get_config, lambda: keras.models.clone_model(model),
                lambda: model.save(tmp_path / "m.keras")):  # fmt: skip
        with pytest.raises(TieError, match="mixture of its own, untrained. Use .*SoftSharing"):
            way()
    for layer in model.layers:
        layer.kernel_regularizer = None
    model.save(tmp_path / "m.keras")
    back = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(back(np.ones((2, 4))), model(np.ones((2, 4))))
