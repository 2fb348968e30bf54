"""MLP against NumPy: separate hidden layers, and one that is applied again."""

import numpy as np
import pytest

from keras_shared.signals import signal_report
from keras_shared.zoo import MLP

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1)).astype("float32")
OF = {
    "tanh": np.tanh,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
}


@pytest.mark.parametrize(
    ("activation", "shared"),
    [("tanh", False), ("relu", True)]
    + [pytest.param(f, s, marks=pytest.mark.slow) for f in OF for s in (False, True)],
)
def test_by_hand(activation, shared):
    names = ("a", "b", "c")
    model = MLP(3, 6, activation, shared, image_shape=(4, 4, 1), class_names=names)
    x = IMAGES.reshape(5, 16) * 2 / 255 - 1
    hidden = ["stack", "stack"] if shared else ["hidden_2", "hidden_3"]
    for name in ("hidden_1", *hidden):
        kernel, bias = model.get_layer(name).get_weights()
        x = OF[activation](x @ kernel + bias)
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), x @ kernel + bias, atol=1e-4)
    assert model.classify(IMAGES) == [names[i] for i in (x @ kernel + bias).argmax(-1)]
    uses = 16 * 6 + 6 + (1 if shared else 2) * (6 * 6 + 6) + 6 * 3 + 3
    assert model.count_params() == uses
    assert bool(signal_report(model, IMAGES, jacobians=False).ties) is shared


def test_bad_arguments():
    for arguments in ({"depth": 0}, {"units": 0}):
        with pytest.raises(ValueError, match="must be a positive integer"):
            MLP(**{"depth": 1, "units": 2, **arguments})
    with pytest.raises(ValueError, match="no argument `width`"):
        MLP(1, 2, width=3)
