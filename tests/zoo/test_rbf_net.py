"""RBFNet against NumPy, and what its classes and units share."""

import keras
import numpy as np
import pytest

from keras_shared import sharing_report
from keras_shared.zoo import RBFNet

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (5, 3, 4, 2)).astype("float32")
LABELS = np.array([0, 1, 2, 1, 0])


def net(**arguments):
    keras.utils.set_random_seed(1)
    model = RBFNet(**{"units": 6, "image_shape": (3, 4, 2), "class_names": ("a", "b", "c"),
                      **arguments})  # fmt: skip
    model.get_layer("logits").bias.assign(RANDOM.normal(size=3))
    return model


def by_hand(model, images):
    """The answers of the units and the logits, one centre and one class after another."""
    centers, log_width, kernel, bias = (np.asarray(w, "float64") for w in model.weights)
    x = images.reshape(len(images), -1) / 255
    units = np.stack(
        [np.exp(-((x - c) ** 2).sum(1) / (2 * np.exp(s) ** 2))
         for c, s in zip(centers, np.broadcast_to(log_width, len(centers)), strict=True)], axis=1
    )  # fmt: skip
    if model.centers == "shared":
        return units, units @ kernel + bias
    each = len(centers) // 3
    return units, np.stack(
        [units[:, k * each : (k + 1) * each] @ kernel[k] + bias[k] for k in range(3)], axis=1
    )


@pytest.mark.parametrize("centers", ["shared", "own"])
@pytest.mark.parametrize("width", ["shared", "own"])
def test_by_hand(centers, width):
    model = net(centers=centers, width=width)
    log_width = model.get_layer("rbf").log_width
    log_width.assign(RANDOM.normal(size=log_width.shape) / 4 + 0.5)
    np.testing.assert_allclose(
        model.predict(IMAGES, verbose=0), by_hand(model, IMAGES)[1], atol=1e-5
    )


def test_a_centre_learns_from_all_classes_or_from_its_own():
    """d loss / d h_j is the sum over the classes of W_jk (p_k - t_k), and dh_j/dc_j is alike."""
    import tensorflow as tf

    for centers in ("shared", "own"):
        model = net(centers=centers)
        with tf.GradientTape() as tape:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
                LABELS, model(IMAGES)
            )
        gradient = tape.gradient(loss, model.get_layer("rbf").centers)
        units, logits = by_hand(model, IMAGES)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = (p - np.eye(3)[LABELS]) / len(LABELS)  # (batch, classes)
        kernel = np.asarray(model.get_layer("logits").kernel)
        by_class = (
            np.einsum("bk,jk->kbj", error, kernel) if centers == "shared"
            else np.einsum("bk,kju->kbju", error, np.eye(3)[:, :, None] * kernel[:, None])
            .reshape(3, len(LABELS), 6)
        )  # fmt: skip
        x = IMAGES.reshape(len(IMAGES), -1) / 255
        c, log_width = np.asarray(model.weights[0]), np.asarray(model.weights[1])
        wanted = np.einsum(
            "kbj,bj,bji->ji", by_class, units, (x[:, None] - c) / np.exp(log_width) ** 2
        )
        np.testing.assert_allclose(gradient, wanted, atol=1e-6)
        used = (np.abs(by_class).max(1) > 1e-9).sum(0)  # classes that move each centre
        assert set(used) == {3 if centers == "shared" else 1}


def test_one_width_is_read_by_all_units():
    shared = {w.path.rpartition("/")[2]: w for w in sharing_report(net()).weights}
    assert shared["log_width"].size == 1
    assert shared["log_width"].without_sharing == 6
    own = {w.path.rpartition("/")[2]: w for w in sharing_report(net(width="own")).weights}
    assert own["log_width"].without_sharing == own["log_width"].size == 6


@pytest.mark.slow
def test_it_learns():
    """Bright left or right: a few centres settle it."""
    images = np.zeros((40, 4, 4, 1), "float32")
    images[:20, :, :2] = images[20:, :, 2:] = 255
    images = np.clip(images + RANDOM.normal(0, 20, images.shape), 0, 255).astype("float32")
    labels = np.repeat([0, 1], 20)
    keras.utils.set_random_seed(1)
    model = RBFNet(4, image_shape=(4, 4, 1), class_names=("left", "right"))
    model.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    model.fit(images, labels, epochs=20, verbose=0)
    assert model.classify(images) == ["left"] * 20 + ["right"] * 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"centers": "mine"}, "`centers` must be 'shared' or 'own'"),
        ({"centers": "own", "units": 7}, "a multiple of the 3 classes"),
        ({"width": "mine"}, "`width` must be 'own' or 'shared'"),
        ({"initial_width": 0}, "`initial_width` must be a positive number"),
        ({"units": 0}, "`units` must be"),
        ({"class_names": ("a",)}, "two classes or more"),
    ],
)
def test_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        net(**arguments)


def test_kept_by_a_file(tmp_path):
    model = net(centers="own", width="own", kernel_initializer="svd")
    model.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    assert again.get_config() == model.get_config()
    np.testing.assert_allclose(
        again.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0), atol=1e-6
    )
