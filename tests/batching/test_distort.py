import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import affine_transform

from keras_shared.batching.distort import distort_images

IMAGES = np.random.default_rng(3).integers(0, 256, (4, 9, 11, 1)).astype("uint8")
KEY = tf.constant([3, 4], tf.int64)


def test_against_scipy():
    degrees, shear, scale, shift = 20.0, 0.3, 0.2, 2.0
    moved = distort_images(IMAGES, (degrees, shear, scale, shift), KEY).numpy()
    amounts = tf.random.stateless_uniform([6, 4], KEY, -1.0, 1.0).numpy()
    for image, found, (turn, slant, wide, high, right, down) in zip(
        IMAGES, moved, amounts.T, strict=True
    ):
        t = np.deg2rad(turn * degrees)
        rotation = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
        stretch = np.diag([1 + wide * scale, 1 + high * scale])
        matrix = rotation @ np.array([[1, slant * shear], [0, 1]]) @ stretch  # in (x, y)
        centre = np.array([5.0, 4.0])
        offset = centre - matrix @ centre + np.array([right, down]) * shift
        flip = matrix[::-1, ::-1]  # SciPy counts rows first
        wanted = affine_transform(
            image[..., 0].astype(float), flip, offset[::-1], order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(found[..., 0], wanted, atol=0.05)


def test_a_key_decides():
    limits = (10.0, 0.1, 0.1, 2.0)
    first, again = (distort_images(IMAGES, limits, KEY) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = distort_images(IMAGES, limits, tf.constant([3, 5], tf.int64))
    assert np.abs(first - other).max() > 1


@pytest.mark.parametrize("shape", [(2, 28, 28, 1), (1, 8, 8, 3)])
def test_shapes(shape):
    assert distort_images(np.ones(shape, "uint8"), (5.0, 0.0, 0.0, 1.0), KEY).shape == shape
