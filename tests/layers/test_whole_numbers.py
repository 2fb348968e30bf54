"""Arguments that are whole numbers: NumPy's are taken as Python's, and others are refused."""

import json

import keras
import numpy as np
import pytest

import keras_shared
from keras_shared import zoo
from keras_shared.initializers import SVD, TiedScaling
from keras_shared.layers import (
    CenterInk,
    ConnectionTableConv2D,
    LocallyConnected2D,
    TrainableSubsampling,
    TransformerBlock,
)

N = np.int64
IMAGE = (8, 8, 1)
LAYERS = [
    (lambda: CenterInk(N(8), N(6)), IMAGE),
    (lambda: LocallyConnected2D(N(2), N(3), N(2)), IMAGE),
    (lambda: LocallyConnected2D(2, np.array([3, 2]), (N(1), 2)), IMAGE),
    (lambda: ConnectionTableConv2D(np.array([[0], [0]]), N(3)), IMAGE),
    (lambda: TrainableSubsampling(N(2)), IMAGE),
    (lambda: TransformerBlock(N(2), N(4)), (5, 8)),
    (lambda: keras.layers.Dense(3, kernel_initializer=SVD(seed=N(3))), (4,)),
    (lambda: keras.layers.Dense(3, kernel_initializer=TiedScaling(seed=N(3))), (4,)),
]
MODELS = [
    lambda: zoo.MLP(N(2), N(3), image_shape=(N(4), N(4), 1)),
    lambda: zoo.ImageRNN(N(3), image_shape=(N(4), N(4), 1)),
    lambda: zoo.TiedLanguageModel(["a", "b"], units=N(3), num_layers=N(1)),
    lambda: zoo.SharedTransformer(
        ["a", "b"], num_layers=N(2), distinct=N(1), num_heads=N(2), hidden_dim=N(4),
        intermediate_dim=N(5), max_sequence_length=N(6),
    ),
    lambda: zoo.MultiTaskNet(width=N(2)),
]  # fmt: skip


def loaded(model, path):
    model.save(path / "m.keras")
    return keras_shared.load(path / "m.keras")


@pytest.mark.parametrize(("made", "shape"), LAYERS)
def test_layers_take_those_of_numpy(made, shape, tmp_path):
    layer = made()
    json.dumps(layer.get_config())  # as no number of NumPy's can be
    model = keras.Sequential([keras.Input(shape), layer])
    x = np.random.default_rng(0).random((2, *shape), "float32")
    np.testing.assert_array_equal(loaded(model, tmp_path)(x), model(x))


@pytest.mark.parametrize("made", MODELS)
def test_models_take_those_of_numpy(made, tmp_path):
    model = made()
    for name, value in model.get_config().items():
        assert not isinstance(value, np.generic), name
    assert loaded(model, tmp_path).count_params() == model.count_params()


@pytest.mark.parametrize("wrong", [0, -1, 2.5, None, "x", True, [], float("nan")])
@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("height", lambda n: CenterInk(n, 8)),
        ("width", lambda n: CenterInk(8, n)),
        ("filters", lambda n: LocallyConnected2D(n, 3)),
        ("kernel_size", lambda n: LocallyConnected2D(2, n)),
        ("kernel_size", lambda n: LocallyConnected2D(2, (3, n))),
        ("strides", lambda n: LocallyConnected2D(2, 3, n)),
        ("kernel_size", lambda n: ConnectionTableConv2D([[0]], n)),
        ("pool_size", lambda n: TrainableSubsampling(n)),
        ("num_heads", lambda n: TransformerBlock(n, 4)),
        ("intermediate_dim", lambda n: TransformerBlock(2, n)),
        ("units", lambda n: zoo.MLP(2, n)),
        ("depth", lambda n: zoo.MLP(n, 2)),
        ("units", lambda n: zoo.ImageRNN(n)),
        ("units", lambda n: zoo.TiedLanguageModel(["a", "b"], units=n)),
        ("num_layers", lambda n: zoo.SharedTransformer(["a", "b"], num_layers=n)),
        (
            "hidden_dim",
            lambda n: zoo.SharedTransformerClassifier(["a", "b"], ("x", "y"), hidden_dim=n),
        ),
        ("width", lambda n: zoo.MultiTaskNet(width=n)),
    ],
)
def test_others_are_refused(name, made, wrong):
    with pytest.raises(ValueError, match=f"`{name}` must be .*positive integer.*Received: {name}="):
        made(wrong)


def test_tables_that_are_none():
    for wrong in (None, 3, [], [[]], [3], [[0, 0]], ["ab"], [[1.5]]):
        with pytest.raises(ValueError, match="Each filter must read at least one map, and none tw"):
            ConnectionTableConv2D(wrong, 3)
