import keras
import numpy as np
import pytest

from keras_shared.layers import LocallyConnected2D, PositionBias
from keras_shared.sharing import sharing_report
from keras_shared.zoo import LeCun1989

RANDOM = np.random.default_rng(2)
PAPER = {  # net: links, weights, as the paper counts them
    1: (2570, 2570),
    2: (3214, 3214),
    3: (1226, 1226),
    4: (2266, 1132),
    5: (5194, 1060),
}


@pytest.mark.parametrize("net", PAPER)
def test_weights_and_links_are_the_papers(net):
    totals = sharing_report(LeCun1989(net)).totals
    assert (totals["multiply_adds"], totals["parameters"]) == PAPER[net]


def test_unknown_net():
    with pytest.raises(ValueError, match="must be 1, 2, 3, 4 or 5. Received: net=6"):
        LeCun1989(6)


def test_comes_back_from_its_file(tmp_path):
    model = LeCun1989(4)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    x = RANDOM.integers(0, 256, (2, 16, 16, 1))
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))
    assert again.net == 4


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_local_connections_by_hand(padding):
    layer = LocallyConnected2D(4, (3, 2), strides=2, padding=padding, bias_initializer="normal")
    x = RANDOM.normal(size=(2, 7, 6, 3)).astype("float32")
    outputs = np.asarray(layer(x))
    assert outputs.shape == layer.compute_output_shape(x.shape)
    if padding == "same":  # 7 rows in 4 fields of 3, two apart: 9, so one more on each side
        x = np.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    kernel, bias = (np.asarray(v) for v in layer.variables)
    for row in range(outputs.shape[1]):
        for column in range(outputs.shape[2]):
            field = x[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 2].reshape(2, -1)
            wanted = field @ kernel[:, row, column] + bias[row, column]
            np.testing.assert_allclose(outputs[:, row, column], wanted, atol=1e-5)
    config = layer.get_config()
    assert LocallyConnected2D.from_config(config).get_config() == config


def test_local_connections_refuse_what_they_cannot_see():
    with pytest.raises(ValueError, match="all but the batch known"):
        LocallyConnected2D(1, 3)(keras.Input((None, 8, 1)))


def test_initial_kernels_look_at_one_field():
    layer = LocallyConnected2D(8, 5, padding="same")
    layer.build((None, 16, 16, 4))
    kernel = np.asarray(layer.kernel)
    assert kernel.std() == pytest.approx(100**-0.5, rel=0.02)  # LeCun: variance 1 / inputs
    assert np.abs(kernel[:, 0, 0] - kernel[:, 0, 1]).max() > 0.01


def test_position_bias_by_hand():
    layer = PositionBias("tanh", bias_initializer="normal")
    x = RANDOM.normal(size=(2, 3, 4, 5)).astype("float32")
    np.testing.assert_allclose(layer(x), np.tanh(x + np.asarray(layer.bias)), atol=1e-6)
    config = layer.get_config()
    assert PositionBias.from_config(config).get_config() == config
