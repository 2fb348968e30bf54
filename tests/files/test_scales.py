"""The advice on a scale, followed, gives the pixels."""

import numpy as np
import pytest

from keras_shared.files.scales import rescaling

PIXELS = np.arange(0.0, 256.0)


@pytest.mark.parametrize(
    "scaled",
    [
        lambda x: x / 255,
        lambda x: x / 127.5 - 1,
        lambda x: x / 255 - 0.5,
        lambda x: x - 128,
        lambda x: x * 257,
        lambda x: x * 16 / 255,
        lambda x: np.concatenate([x / 255, [-0.01, 1.01]]),
        lambda x: np.concatenate([x, [-5.0]]),
        lambda x: (x - 128).astype("int8"),
        lambda x: (x > 127).astype("int8"),
        lambda x: x > 127,
    ],
)
def test_followed_it_gives_the_pixels(scaled):
    x = scaled(PIXELS)
    said = rescaling("x", float(x.min()), float(x.max()))
    assert said.startswith("Use ")
    formula = said.removeprefix("Use ").partition(" if ")[0].rstrip(".")
    back = eval(formula, {"np": np, "x": x})
    two = len(np.unique(x)) == 2
    expected = 255.0 * (PIXELS > 127) if two else PIXELS
    np.testing.assert_allclose(back[:256], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("scaled", "said"),
    [
        (lambda x: (x - 33.3) / 78.6, "standardised"),
        (lambda x: np.clip(x / 127.5 - 1, -0.4, 0.4), "standardised"),
        (lambda x: x - 255, "as a picture file has them"),
        (lambda x: np.append(x, np.nan), "Replace what is no number"),
    ],
)
def test_where_the_scale_is_not_known_it_says_no_formula(scaled, said):
    x = scaled(PIXELS)
    assert said in rescaling("x", float(x.min()), float(x.max()))
