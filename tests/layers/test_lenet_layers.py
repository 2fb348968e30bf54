import keras
import numpy as np
import pytest

from keras_shared.layers import (
    ConnectionTableConv2D,
    EuclideanRBF,
    Scale,
    Shared,
    TrainableSubsampling,
    scaled_tanh,
)

RANDOM = np.random.default_rng(3)


def check_save(layer, x, tmp_path):
    """Values and configuration survive a `.keras` file."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    return loaded.predict(x, verbose=0)


def test_scaled_tanh():
    x = np.linspace(-5, 5, 11).astype("float32")
    np.testing.assert_allclose(scaled_tanh(x), 1.7159 * np.tanh(2 * x / 3), atol=1e-6)
    np.testing.assert_allclose(scaled_tanh(np.float32([1, -1])), [1, -1], atol=1e-3)


def test_trainable_subsampling(tmp_path):
    x = RANDOM.normal(size=(2, 5, 4, 3)).astype("float32")
    layer = TrainableSubsampling(
        activation=scaled_tanh, coefficient_initializer="glorot_uniform",
        bias_initializer=keras.initializers.Constant(0.3),
    )  # fmt: skip
    layer.build(x.shape)
    c = layer.coefficient.numpy()
    sums = x[:, :4].reshape(2, 2, 2, 2, 2, 3).sum(axis=(2, 4))
    expected = 1.7159 * np.tanh((c * sums + 0.3) * 2 / 3)
    np.testing.assert_allclose(check_save(layer, x, tmp_path), expected, atol=1e-5)
    assert layer.compute_output_shape((None, 5, 4, 3)) == (None, 2, 2, 3)
    assert layer.count_params() == 6


def test_connection_table(tmp_path):
    x = RANDOM.normal(size=(2, 6, 7, 3)).astype("float32")
    table = [[0, 2], [1], [0, 1, 2]]
    layer = ConnectionTableConv2D(table, 3, bias_initializer="ones")
    out = check_save(layer, x, tmp_path)
    kernel = layer.kernel.numpy()  # (3, 3, pairs)
    expected = np.ones((2, 4, 5, 3))
    pair = 0
    for j, reads in enumerate(table):
        for i in reads:
            for r in range(4):
                for c in range(5):
                    window = x[:, r : r + 3, c : c + 3, i]
                    expected[:, r, c, j] += np.sum(window * kernel[..., pair], axis=(1, 2))
            pair += 1
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert layer.count_params() == 6 * 9 + 3


def test_connection_table_refuses():
    for table in ([[]], [[0, 0]]):
        with pytest.raises(ValueError, match="at least one map, and none twice"):
            ConnectionTableConv2D(table, 3)
    with pytest.raises(ValueError, match="maps 0 to 1 of the input"):
        ConnectionTableConv2D([[0, 2]], 3)(np.ones((1, 5, 5, 2), "float32"))


def test_euclidean_rbf(tmp_path):
    x = RANDOM.normal(size=(4, 5)).astype("float32")
    centers = RANDOM.normal(size=(3, 5)).astype("float32")
    layer = EuclideanRBF(centers)
    expected = ((x[:, None] - centers) ** 2).sum(-1)
    np.testing.assert_allclose(check_save(layer, x, tmp_path), expected, atol=1e-5)
    assert not layer.trainable_variables and layer.count_params() == 15
    for wrong, received in {
        (1.0, 2.0): r"shape \(2,\)",
        ((1.0, 2.0), (3.0,)): r"centers=\(\(1.0, 2.0\), \(3.0,\)\)",
        "abc": "centers='abc'",
        (): r"shape \(0,\)",
        ((1.0, float("nan")),): "1 that are none",
    }.items():
        with pytest.raises(
            ValueError, match=f"a matrix .* of finite numbers. Received: .*{received}"
        ):
            EuclideanRBF(wrong)
    many = np.stack([x, 2 * x], axis=1)  # as many rows as centers, or not: (batch, 2, features)
    inputs = keras.Input((None, 5))
    answered = keras.Model(inputs, layer(inputs))
    assert answered.output_shape == (None, None, 3)
    twice = ((many[:, :, None] - centers) ** 2).sum(-1)
    np.testing.assert_allclose(answered(many), twice, atol=1e-4)
    repeated = np.stack([x, x, x], axis=1)
    np.testing.assert_allclose(answered(repeated), np.stack([expected] * 3, axis=1), atol=1e-5)
    with pytest.raises(ValueError, match=r"5 features. Received: input_shape=\(1, 4\)"):
        EuclideanRBF(centers)(x[:1, :4])


def test_scale_is_shared_by_its_uses(tmp_path):
    x = RANDOM.normal(size=(4, 5)).astype("float32")
    layer = Scale(scale_initializer="glorot_uniform")
    np.testing.assert_allclose(check_save(layer, x, tmp_path), x * layer.scale.numpy(), atol=1e-6)
    twin = Shared(Scale(scale_regularizer=keras.regularizers.L2(1.0)))
    twin([x, x])
    assert twin.count_params() == 5
    np.testing.assert_allclose(sum(twin.losses), 5.0)  # regularised once
