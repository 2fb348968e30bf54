import keras
import numpy as np
import pytest

from keras_shared.layers import scaled_tanh
from keras_shared.losses import RBFLoss
from keras_shared.zoo import LeNet5
from keras_shared.zoo.digit_bitmaps import digit_bitmaps

X = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1))


def trainable(model):
    return {
        la.name: sum(int(np.prod(v.shape)) for v in la.trainable_variables) for la in model.layers
    }


def test_layer_by_layer():
    counts = {k: v for k, v in trainable(LeNet5()).items() if v}
    assert counts == {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48120, "F6": 10164}
    assert sum(counts.values()) == 60_000
    shapes = {la.name: la.output.shape[1:] for la in LeNet5().layers}
    assert shapes["C1"] == (28, 28, 6) and shapes["S2"] == (14, 14, 6)
    assert shapes["C3"] == (10, 10, 16) and shapes["S4"] == (5, 5, 16) and shapes["F6"] == (84,)
    assert LeNet5("modern").count_params() == 58_986


def test_connections_as_lecun_counts_them():
    """340,908 of the paper: multiply-adds that read a weight, biases counted as connections."""
    links = 28 * 28 * 6 * 26 + 14 * 14 * 6 * 5 + 100 * (60 * 25 + 16) + 25 * 16 * 5
    assert links + 48120 + 10164 + 10 * 84 == 340_908


def test_input_scaling_and_outputs():
    model = LeNet5()
    scaled = keras.Model(model.input, model.get_layer("rescale").output)
    image = np.zeros((1, 28, 28, 1))
    image[0, 0, 0] = 255
    pixels = scaled.predict(image, verbose=0)[0, ..., 0]
    assert pixels.shape == (32, 32)
    np.testing.assert_allclose(
        [pixels[2, 2], pixels[0, 0], pixels[2, 3]], [1.175, -0.1, -0.1], atol=1e-6
    )
    f6 = keras.Model(model.input, model.get_layer("F6").output).predict(X, verbose=0)
    expected = -((f6[:, None] - digit_bitmaps()) ** 2).sum(-1)
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-5)
    assert model.get_layer("F6").activation is scaled_tanh


def test_bitmaps_are_seven_by_twelve_and_differ():
    bitmaps = digit_bitmaps()
    assert bitmaps.shape == (10, 84) and set(np.unique(bitmaps)) == {-1.0, 1.0}
    seven = bitmaps[7].reshape(12, 7)
    np.testing.assert_array_equal(seven[0], np.ones(7))
    np.testing.assert_array_equal(seven[10:], -np.ones((2, 7)))
    assert len({b.tobytes() for b in bitmaps}) == 10


def test_rbf_loss_by_hand():
    y = np.array([[-1.0, -3.0, -0.5], [-2.0, -0.1, -9.0]])
    labels = np.array([2, 0])
    expected = [
        -row[c] + np.log(np.exp(-0.1) + np.exp(row).sum()) for row, c in zip(y, labels, strict=True)
    ]
    np.testing.assert_allclose(float(RBFLoss(j=0.1)(labels, y)), np.mean(expected), rtol=1e-6)
    without = [-row[c] + np.log(np.exp(row).sum()) for row, c in zip(y, labels, strict=True)]
    loss = RBFLoss(j=float("inf"))  # no class but these
    np.testing.assert_allclose(float(loss(labels, y)), np.mean(without), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["1998", "modern"])
def test_ordinary_keras_model(variant, tmp_path):
    model = LeNet5(variant)
    loss = RBFLoss() if variant == "1998" else keras.losses.SparseCategoricalCrossentropy(True)
    model.compile("adam", loss, metrics=["accuracy"])
    before = [v.numpy() for v in model.trainable_variables]
    model.fit(X, np.array([1, 2, 3]), verbose=0)
    after = [v.numpy() for v in model.trainable_variables]
    moved = [np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True)]
    assert all(moved)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert isinstance(loaded, LeNet5) and loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert loaded.evaluate(X, np.array([1, 2, 3]), verbose=0)


def test_bad_input():
    with pytest.raises(ValueError, match="variant='2000'"):
        LeNet5("2000")
    with pytest.raises(ValueError, match="ten classes for variant '1998'"):
        LeNet5(class_names=("a", "b"))
    assert LeNet5("modern", class_names=("a", "b", "c")).output_shape == (None, 3)
