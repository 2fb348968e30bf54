import keras
import numpy as np
import pytest

from keras_shared.training.normalization import fused_normalization


def model(shape=(6, 5, 3), nested=False, **arguments):
    keras.utils.set_random_seed(1)
    images = keras.Input(shape)
    x = keras.layers.Conv2D(4, 3)(images) if len(shape) == 3 else images
    inner = keras.Sequential([keras.layers.BatchNormalization(momentum=0.8, **arguments)])
    x = inner(x) if nested else inner.layers[0](x)
    return keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


@pytest.mark.parametrize("arguments", [{}, {"nested": True}, {"epsilon": 0.1}])
@pytest.mark.parametrize(
    "compiled",
    [
        {},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param({"run_eagerly": True}, marks=pytest.mark.slow),
    ],
)
def test_a_fit_ends_as_with_keras_own(arguments, compiled):
    draws = np.random.default_rng(2)
    x, y = 3 + 2 * draws.normal(size=(24, 6, 5, 3)), draws.normal(size=(24, 2))
    ends = []
    for fused in (True, False):
        made = model(**arguments)
        made.compile(keras.optimizers.SGD(0.01), "mse", **compiled)
        settings = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0}
        if fused:
            with fused_normalization(made):
                made.fit(x, y, **settings)
        else:
            made.fit(x, y, **settings)
        ends.append([*made.get_weights(), made.predict(x, verbose=0)])
    for own, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-4, atol=1e-5)


def test_by_hand():
    layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=0.01)
    images = keras.Input((2, 3, 4))
    made = keras.Model(images, layer(images))
    draws = np.random.default_rng(3)
    x = draws.normal(1, 3, size=(5, 2, 3, 4)).astype("float32")
    gamma, beta = draws.normal(size=(2, 4))
    layer.set_weights([gamma, beta, np.zeros(4), np.ones(4)])
    with fused_normalization(made):
        outputs = made(x, training=True)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    by_hand = (x - mean) / np.sqrt(variance + 0.01) * gamma + beta
    np.testing.assert_allclose(outputs, by_hand, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-4)


class Own(keras.layers.BatchNormalization):
    pass


@pytest.mark.parametrize(
    ("kind", "shape", "arguments"),
    [
        (keras.layers.BatchNormalization, (7,), {}),
        (keras.layers.BatchNormalization, (4, 4, 2), {"axis": 1}),
        (keras.layers.BatchNormalization, (4, 4, 2), {"scale": False}),
        (keras.layers.BatchNormalization, (4, 4, 2), {"center": False}),
        (keras.layers.BatchNormalization, (4, 4, 2), {"renorm": True}),
        (keras.layers.BatchNormalization, (4, 4, 2), {"synchronized": True}),
        (Own, (4, 4, 2), {}),
    ],
)
def test_others_are_left_alone(kind, shape, arguments):
    inputs = keras.Input(shape)
    layer = kind(**arguments)
    made = keras.Model(inputs, layer(inputs))
    with fused_normalization(made):
        assert "call" not in vars(layer)


def test_frozen_and_at_inference_the_moving_statistics_count():
    made = model()
    layer = made.layers[2]
    x = np.random.default_rng(4).normal(5, 1, size=(4, 6, 5, 3))
    with fused_normalization(made):
        assert "call" in vars(layer)
        np.testing.assert_array_equal(
            layer(made.layers[1](x)), layer(made.layers[1](x), training=False)
        )
        layer.trainable = False
        made(x, training=True)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(4))
    assert "call" not in vars(layer)


def test_what_is_saved_meanwhile_is_keras_own(tmp_path):
    made = model(dtype="mixed_float16")
    x = np.ones((2, 6, 5, 3))
    with fused_normalization(made):
        made(x, training=True)
        made.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again.layers[2]) is keras.layers.BatchNormalization
    np.testing.assert_allclose(again(x), made(x), rtol=1e-3, atol=1e-3)
