import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_shared.recipes import read_recipe
from keras_shared.training import RunError, build_model
from keras_shared.training.adam import Adam
from keras_shared.training.build import compile_model
from keras_shared.training.muon import Muon


def numpy_muon(kernel, gradients, rate, beta):
    """Jordan et al. 2024, with Nesterov's momentum; size of a step: Liu et al. 2025, section 2.2"""
    mean, columns = np.zeros_like(kernel), kernel.shape[-1]
    for gradient in gradients:
        mean = beta * mean + (1 - beta) * gradient
        x = (beta * mean + (1 - beta) * gradient).reshape(-1, columns)
        x = x / np.linalg.norm(x)
        for _ in range(5):
            x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
        kernel = kernel - rate * 0.2 * np.sqrt(max(x.shape)) * x.reshape(kernel.shape)
    return kernel


@pytest.mark.parametrize("shape", [(2, 2, 3, 4), (1, 1, 3, 7), (3, 3, 1, 1), (2, 1, 2, 4)])
def test_by_hand(shape):
    draws = np.random.default_rng(1)
    start, gradients = draws.normal(size=shape), draws.normal(size=(4, *shape))
    kernel, optimizer = keras.Variable(start), Muon(0.1, beta_1=0.8)
    for gradient in gradients:
        optimizer.apply([keras.ops.cast(gradient, "float32")], [kernel])
    assert_allclose(kernel, numpy_muon(start, gradients, 0.1, 0.8), rtol=1e-3, atol=1e-4)


def test_a_kernel_that_had_no_gradient_stays():
    kernel = keras.Variable(np.ones((2, 2, 1, 3)))
    Muon(0.1).apply([keras.ops.zeros((2, 2, 1, 3))], [kernel])
    assert_allclose(kernel, np.ones((2, 2, 1, 3)))


def test_all_but_kernels_of_convolutions_go_by_adam():
    draws = np.random.default_rng(2)
    values = [draws.normal(size=shape) for shape in [(3,), (3, 2), (3, 2, 2)]]
    ends = []
    for kind in (Adam, Muon):
        weights, optimizer = [keras.Variable(v) for v in values], kind(0.1)
        for _ in range(3):
            optimizer.apply([keras.ops.sin(w) for w in weights], weights)
        ends.append([np.asarray(w) for w in weights])
    for adam, muon in zip(*ends, strict=True):
        assert_allclose(muon, adam, rtol=1e-6)


def image_model():
    keras.utils.set_random_seed(3)
    image = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    return keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(x)))


@pytest.mark.slow
def test_it_goes_on_from_a_file(tmp_path):
    x = np.random.default_rng(4).normal(size=(8, 6, 6, 2))
    model = image_model()
    model.compile(Muon(0.1), "mse")
    model.fit(x, np.ones((8, 1)), epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again.optimizer) is Muon
    for unbroken in (model, again):
        unbroken.fit(x, np.ones((8, 1)), epochs=2, verbose=0)
    for kept, loaded in zip(model.get_weights(), again.get_weights(), strict=True):
        assert_allclose(kept, loaded, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_strategy_has_its_own_variables():
    x, ends = np.random.default_rng(5).normal(size=(8, 6, 6, 2)), []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["cpu:0"])):
        with strategy.scope():
            model = image_model()
            model.compile(Muon(0.1), "mse")
        model.fit(x, np.ones((8, 1)), epochs=3, verbose=0, shuffle=False)
        ends.append(model.get_weights())
    for alone, mirrored in zip(*ends, strict=True):
        assert_allclose(alone, mirrored, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "compiled", [pytest.param({"jit_compile": True}, marks=pytest.mark.slow), {"run_eagerly": True}]
)
def test_it_steps_alike_however_it_is_compiled(compiled):
    x, ends = np.random.default_rng(6).normal(size=(8, 6, 6, 2)), []
    for how in ({"jit_compile": False}, compiled):
        model = image_model()
        model.compile(Muon(0.1), "mse", **how)
        model.fit(x, np.ones((8, 1)), epochs=3, verbose=0, shuffle=False)
        ends.append(model.get_weights())
    for graph, other in zip(*ends, strict=True):
        assert_allclose(graph, other, rtol=1e-3, atol=1e-4)


def test_a_recipe_names_it():
    recipe = read_recipe("zoo/lenet5_modern_mnist/recipe.toml")
    model = build_model(recipe)
    compile_model(model, recipe.with_changes({"training.optimizer": "muon"}), 10)
    assert type(model.optimizer) is Muon


def test_a_recipe_without_convolutions_cannot():
    recipe = read_recipe("zoo/tied_autoencoder_mnist/recipe.toml")
    recipe = recipe.with_changes({"training.optimizer": "muon"})
    with pytest.raises(RunError, match=r"'muon'.* of TiedAutoencoder none is trained"):
        compile_model(build_model(recipe), recipe, 10)
