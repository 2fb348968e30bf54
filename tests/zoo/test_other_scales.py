"""Images of another scale than 0 to 255 are not answered without a word."""

import warnings

import keras
import numpy as np
import pytest

from keras_shared.zoo import LeNet5, MultiTaskNet, SiameseNet, TimeDelayNet

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("scaled", "said"),
    [
        (lambda x: x / 255, r"between 0 and 1, .* Use images \* 255"),
        (lambda x: x > 127, r"between 0 and 1, .* Use images \* 255"),
        (lambda x: (x > 127).astype("uint8"), r"between 0 and 1, .* Use images \* 255"),
        (lambda x: x * 16 // 255, r"between 0 and 16, .* Use images \* \(255 / 16\) if 16 is"),
    ],
)
@pytest.mark.parametrize("kind", [LeNet5, MultiTaskNet, TimeDelayNet])
def test_darker_than_any_image_is(kind, scaled, said):
    model = kind()
    images = RANDOM.integers(0, 256, (2, *model.input_shape[1:]))
    images[0, 0, 0], images[0, 0, 1] = 255, 0
    for ask in (model.classify, lambda x: model.predict(x, verbose=0)):
        with pytest.warns(UserWarning, match=said) as warned:
            ask(scaled(images))
        assert len(warned) == 1


def test_a_trunk_of_ones_own_takes_what_it_takes():
    image = keras.Input((12, 12, 1))
    trunk = keras.Model(image, keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(image)))
    model = MultiTaskNet(trunk, {"a": keras.layers.Dense(2), "b": keras.layers.Dense(3)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sounds in (RANDOM.normal(size=(2, 12, 12, 1)), -80 * RANDOM.random((2, 12, 12, 1))):
            assert model.predict(sounds, verbose=0)["a"].shape == (2, 2)


def test_of_pairs():
    model = SiameseNet()
    images = RANDOM.integers(0, 17, (2, 28, 28, 1))
    with pytest.warns(UserWarning, match="`image_a` lies between 0 and 16"):
        model.verify(images, images)
