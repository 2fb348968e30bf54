import keras
import numpy as np

from keras_shared.layers import CenterInk


def by_hand(image, height, width):
    """One image (rows, columns), paper 0 and ink 1, pixel by pixel."""
    rows, columns = np.nonzero(image > 0.5)
    middle = [(x.min() + x.max()) / 2 for x in (rows, columns)]
    box = max((x.max() - x.min() + 1) / n for x, n in zip((rows, columns), image.shape))
    zoom = min(1.6, max(0.7, np.sqrt(0.72 / box)))
    out = np.zeros((height, width))
    for i, j in np.ndindex(out.shape):
        for r, c in np.ndindex(image.shape):
            share = 1.0
            for place, wanted, size, at, m in (
                (i, height, image.shape[0], r, middle[0]),
                (j, width, image.shape[1], c, middle[1]),
            ):
                step = size / wanted / zoom
                reach = max(1.0, step)
                source = m + (place - (wanted - 1) / 2) * step
                share *= max(0.0, 1 - abs(source - at) / reach) / reach
            out[i, j] += share * image[r, c]
    return out


def test_by_hand():
    images = np.zeros((4, 12, 9, 1), "float32")
    images[0, 1:4, 5:8] = 1  # small, in a corner
    images[1, :, :, 0] = np.random.default_rng(0).random((12, 9))  # grey, all over
    images[2, 11, 0] = 1  # a dot: at most 1.6 times as large
    images[3, 2:11, 4] = 0.8
    for height, width in ((12, 9), (5, 6), (20, 20)):
        out = np.array(CenterInk(height, width)(images))
        for i in range(4):
            expected = by_hand(images[i, :, :, 0].astype(float), height, width)
            np.testing.assert_allclose(out[i, :, :, 0], expected, atol=1e-5)


def test_the_place_of_a_drawing_does_not_matter():
    one, other = np.zeros((2, 1, 30, 30, 1), "float32")
    stroke = np.random.default_rng(1).random((8, 11)) + 0.6
    one[0, 0:8, 0:11, 0], other[0, 17:25, 12:23, 0] = stroke, stroke
    np.testing.assert_allclose(CenterInk(14, 14)(one), CenterInk(14, 14)(other), atol=1e-5)


def test_no_ink_and_several_channels():
    grey = np.full((1, 6, 6, 1), 0.3, "float32")
    inner = np.array(CenterInk(6, 6)(grey))
    np.testing.assert_allclose(inner, grey, atol=1e-6)  # left as it is
    colour = np.zeros((1, 6, 6, 3), "float32")
    colour[0, 1, 2, 1] = 1  # ink in one channel moves all
    colour[0, 0, 0, 0] = 0.4
    out = np.array(CenterInk(6, 6)(colour))
    assert out[..., 1].sum() > 0.5 and np.unravel_index(out[0, ..., 1].argmax(), (6, 6)) in [
        (2, 2), (2, 3), (3, 2), (3, 3),
    ]  # fmt: skip


def test_open_sizes_config_and_policy(tmp_path):
    image = keras.Input((None, None, 1))
    model = keras.Model(image, CenterInk(8, 7)(image))
    assert model.output.shape == (None, 8, 7, 1)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for size in (11, 40):
        x = (np.random.default_rng(size).random((2, size, size + 3, 1)) > 0.8).astype("float32")
        np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert CenterInk(4, 4, dtype="mixed_bfloat16")(np.zeros((1, 5, 5, 1))).dtype == "bfloat16"
