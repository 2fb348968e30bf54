"""TimeDelayNet against NumPy, and what happens to a sequence that is moved."""

import keras
import numpy as np
import pytest

from keras_shared import sharing_report
from keras_shared.zoo import TimeDelayNet

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (3, 4, 12, 2)).astype("float32")


def net(**arguments):
    keras.utils.set_random_seed(1)
    return TimeDelayNet(**{"filters": (5, 6), "windows": (3, 2, 2), "image_shape": (4, 12, 2),
                           "class_names": ("a", "b", "c"), **arguments})  # fmt: skip


def by_hand(model, images, strides=(1, 1, 1)):
    """(batch, steps, classes), one step after another."""
    h = images.transpose(0, 2, 1, 3).reshape(len(images), images.shape[2], -1) / 255
    for number, (stride, name) in enumerate(zip(strides, ("hidden_1", "hidden_2", "scores"),
                                                strict=True)):  # fmt: skip
        kernel, bias = model.get_layer(name).get_weights()
        window, steps = len(kernel), []
        for t in range(0, h.shape[1] - window + 1, stride):
            steps.append(sum(h[:, t + d] @ kernel[d] for d in range(window)) + bias)
        h = np.stack(steps, axis=1)
        h = h if number == 2 else np.maximum(h, 0)
    return h


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 1, 2)])
def test_by_hand(strides):
    model = net(strides=strides)
    for weight in model.weights:
        weight.assign(RANDOM.normal(size=weight.shape) / 2)
    wanted = by_hand(model, IMAGES, strides)
    np.testing.assert_allclose(model.at_each_step(IMAGES), wanted, atol=1e-4)
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), wanted.mean(1), atol=1e-4)


def test_each_kernel_is_read_at_every_step():
    report = sharing_report(net())
    read = {w.path.split("/")[-2]: w.multiply_adds for w in report.weights if "kernel" in w.path}
    assert read == {"hidden_1": 10 * 3 * 8 * 5, "hidden_2": 9 * 2 * 5 * 6, "scores": 8 * 2 * 6 * 3}
    assert report.totals["parameters"] == net().count_params()


def moved(images, frames, by):
    """The images as `frames` columns, with zeros around, from column `by` on."""
    wide = np.zeros((*images.shape[:2], frames, images.shape[3]), "float32")
    wide[:, :, by : by + images.shape[2]] = images
    return wide


@pytest.mark.slow
def test_a_moved_sequence_gives_moved_scores_but_not_by_part_of_a_stride_or_at_borders():
    for strides, padding in (((1, 1, 1), "valid"), ((2, 1, 1), "valid"), ((1, 1, 1), "same")):
        model = net(strides=strides, padding=padding).with_image_shape((4, 24, 2))
        for weight in model.weights:  # a bias that shows where zeros stand
            weight.assign(np.random.default_rng(3).normal(size=weight.shape) / 2)
        before, after = (model.at_each_step(moved(IMAGES, 24, by)) for by in (6, 8))
        step, border = 2 // strides[0], 3 if padding == "same" else 0
        end = before.shape[1] - step - border
        np.testing.assert_allclose(after[:, step:][:, border:end], before[:, border:end], atol=1e-4)
        one = model.at_each_step(moved(IMAGES, 24, 7))
        if strides[0] == 2:  # a move by half of a stride is none of the scores
            best = min(np.abs(one[:, k:] - before[:, : one.shape[1] - k]).max() for k in range(3))
            assert best > 0.1
        else:
            np.testing.assert_allclose(one[:, 4:-4], before[:, 3:-5], atol=1e-4)
        if padding == "same":
            assert np.abs(before[:, 0] - before[:, 4]).max() > 0.1  # both see zeros alone
            assert np.abs(before[:, 1:] - one[:, 1:]).max() > 0.1


def test_longer_sequences_by_the_same_weights(tmp_path):
    model = net()
    longer = model.with_image_shape((4, 30, 2))
    assert longer.count_params() == model.count_params() and longer.image_shape == (4, 30, 2)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.at_each_step(IMAGES), model.at_each_step(IMAGES))
    assert again.get_config() == model.get_config()
    for other in ((5, 30, 2), (4, 30), 30):
        with pytest.raises(ValueError, match=r"must be \(4, frames, 2\), with the frequencies"):
            model.with_image_shape(other)
    with pytest.raises(ValueError, match=r"Give it a batch axis: images\[None\]"):
        model.at_each_step(IMAGES[0])
    model.get_layer("hidden_1").trainable = False
    assert not model.with_image_shape((4, 30, 2)).get_layer("hidden_1").trainable


def test_refuses():
    with pytest.raises(ValueError, match="one number more than `filters`.*windows=\\(3,\\)"):
        net(windows=(3,))
    with pytest.raises(ValueError, match=r"read 5 frames. Received: image_shape=\(4, 4, 2\)"):
        net(image_shape=(4, 4, 2))
    with pytest.raises(ValueError, match=r"read 9 frames"):
        net(strides=(2, 2, 1), image_shape=(4, 7, 2))
    for given, message in (
        ({"filters": 16}, "`filters` must be whole numbers above 0. Received: filters=16"),
        ({"windows": (3, 0, 1)}, "`windows` must be whole numbers"),
        ({"strides": (1, 1, True + 0.5)}, "`strides` must be whole numbers"),
        ({"padding": "causal"}, "`padding` must be 'valid' or 'same'"),
    ):
        with pytest.raises(ValueError, match=message):
            net(**given)
    assert net(padding="same", image_shape=(4, 2, 2)).output_shape == (None, 3)
