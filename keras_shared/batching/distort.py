import math
from typing import Any

import keras
import tensorflow as tf


def distort_images(
    images: tf.Tensor,
    limits: tuple[float, float, float, float],
    key: tf.Tensor,
    turns: tf.Tensor | None = None,
) -> tf.Tensor:
    """Turn, shear, stretch and shift each image by its own random amounts, around its centre.

    Output pixel `p` is input pixel `A (p - m) + m + t`, interpolated, with `m` the centre, `t` the
    shift and `A` the product of rotation, shear and scale; outside of the image is 0.

    Args:
        images: (batch, rows, columns, channels), 0 to 255, the background 0.
        limits: rotation in degrees, shear, share of the size (drawn for each axis), shift in
            pixels; amounts are uniform between plus and minus these.
        key: int64 (2,); the same key gives the same amounts.
        turns: int32 (batch,), quarter turns of each square image besides; None for none.

    Returns:
        float32, of the same shape.

    Example:
        >>> import tensorflow as tf
        >>> from keras_shared.batching.distort import distort_images
        >>> image = tf.ones((1, 5, 5, 1))
        >>> still = distort_images(image, (0.0, 0.0, 0.0, 0.0), tf.constant([1, 2], tf.int64))
        >>> bool(tf.reduce_all(still == image))
        True

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, section III.B (translations, scaling, squeezing,
        shearing); Simard, Steinkraus, Platt 2003, "Best Practices for Convolutional Neural
        Networks", section 2.
    """
    degrees, shear, scale, shift = limits
    batch, rows, columns = (tf.shape(images)[axis] for axis in range(3))
    amounts = tf.random.stateless_uniform([6, batch], key, -1.0, 1.0)
    angle = amounts[0] * (degrees * math.pi / 180)
    if turns is not None:
        angle += tf.cast(turns, tf.float32) * (math.pi / 2)
    slant = amounts[1] * shear
    wide, high = 1 + amounts[2] * scale, 1 + amounts[3] * scale
    # A = rotation @ [[1, slant], [0, 1]] @ diag(wide, high), in (x, y)
    a, b = wide * tf.cos(angle), high * (slant * tf.cos(angle) - tf.sin(angle))
    c, d = wide * tf.sin(angle), high * (slant * tf.sin(angle) + tf.cos(angle))
    x, y = (tf.cast(columns, tf.float32) - 1) / 2, (tf.cast(rows, tf.float32) - 1) / 2
    right, down = amounts[4] * shift, amounts[5] * shift
    offsets = x - a * x - b * y + right, y - c * x - d * y + down
    none = tf.zeros_like(a)
    transform = tf.stack([a, b, offsets[0], c, d, offsets[1], none, none], axis=1)  # (batch, 8)
    moved: Any = keras.ops.image.affine_transform(tf.cast(images, tf.float32), transform)
    return moved
