"""Batch normalisation by TensorFlow's one operation for it, while a model is trained."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from keras_shared.tying.keras_private import flatten_layers


@contextmanager
def fused_normalization(model: keras.Model) -> Iterator[None]:
    """Have each BatchNormalization of images run as one operation, where Keras starts a dozen.

    A small convolutional net spends a quarter of its training there. What comes out is as of Keras
    up to rounding, the moving statistics too; layers and files stay those of Keras.

    Args:
        model: a built model, for as long as the block lasts.

    Example:
        >>> import keras
        >>> from keras_shared.training.normalization import fused_normalization
        >>> images = keras.Input((4, 4, 1))
        >>> model = keras.Model(images, keras.layers.BatchNormalization()(images))
        >>> with fused_normalization(model):
        ...     outputs = model(keras.random.normal((8, 4, 4, 1)), training=True)
        >>> abs(round(float(keras.ops.mean(outputs)), 3))
        0.0

    Reference:
        Ioffe & Szegedy 2015, "Batch Normalization", algorithm 1.
    """
    fused = [layer for layer in flatten_layers(model) if _is_plain(layer)]
    for layer in fused:
        layer.call = functools.partial(_call, layer)
    try:
        yield
    finally:
        for layer in fused:
            del layer.call


def _is_plain(layer: keras.Layer) -> bool:
    """Whether it is one that the operation stands for: of images, the channels last."""
    if type(layer) is not keras.layers.BatchNormalization or layer.input_spec is None:
        return False
    of_images = layer.input_spec.ndim == 4 and layer.axis in (-1, 3)
    return of_images and layer.scale and layer.center and not (layer.renorm or layer.synchronized)


def _call(layer: keras.Layer, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    if not training or not layer.trainable or mask is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.cast(inputs, "float32"),
        scale=tf.convert_to_tensor(layer.gamma),
        offset=tf.convert_to_tensor(layer.beta),
        mean=[],
        variance=[],
        epsilon=layer.epsilon,
        is_training=True,
    )
    count = tf.cast(tf.size(inputs) / inputs.shape[-1], "float32")
    variance *= (count - 1) / count  # the operation returns the unbiased one
    for moving, found in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + found * (1 - layer.momentum))
    return tf.cast(outputs, layer.compute_dtype)
