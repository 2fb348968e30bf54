"""What an activation passes of a gradient: its slope, where it is flat."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_shared.errors import attempt
from keras_shared.signals.collecting import ACTIVATIONS, Use, first

FLAT = 0.05  # of the steepest slope: an S-shaped activation below is saturated
FAR = 1e4  # from 0


class Passing(NamedTuple):
    """Attributes:
    saturated: share of the values at which an S-shaped activation is flat; None for others.
    dead: share of the units whose slope is 0 for every example; None without an activation.
    """

    saturated: float | None
    dead: float | None


def passing(use: Use) -> Passing:
    """How much of a gradient the activation of a use passes."""
    function, values = _activation(use)
    if function is None or not values or function is keras.activations.linear:
        return Passing(None, None)
    with tf.GradientTape() as tape:
        tape.watch(values)
        outputs = [function(value) for value in values]
    slopes = tape.gradient(outputs, values)
    if slopes[0] is None or not _by_element(function, values[0], outputs[0]):
        return Passing(None, None)
    axis = 1 if getattr(use.layer, "data_format", None) == "channels_first" else -1
    rows = [np.moveaxis(slope.numpy(), axis, -1) for slope in slopes]
    flat = np.abs(np.concatenate([row.reshape(-1, row.shape[-1]) for row in rows]))
    steepest = _steepest_if_s_shaped(function)
    saturated = None if steepest is None else float((flat < FLAT * steepest).mean())
    return Passing(saturated, float((flat == 0).all(axis=0).mean()))


def _activation(use: Use) -> tuple[Callable[[Any], Any] | None, list[Any]]:
    layer = use.layer
    if isinstance(layer, ACTIVATIONS):
        given = [first(call.args or tuple(call.kwargs.values())) for call in use.calls]
        return layer.call, [tf.cast(value, tf.float32) for value in given]
    function = vars(layer).get("activation")
    values = [tf.cast(call.before, tf.float32) for call in use.calls if call.before is not None]
    return (function if callable(function) else None), values


def _by_element(function: Callable[[Any], Any], value: Any, output: Any) -> bool:
    """Whether an output depends on its own input alone, which those of a softmax do not."""
    if output.shape != value.shape:
        return False
    turned = tf.roll(value, 1, axis=-1) * 0.5
    other = tf.concat([value[..., :1], turned[..., 1:]], axis=-1)
    alone = tf.reduce_max(tf.abs(function(other)[..., :1] - output[..., :1]))
    return value.shape[-1] == 1 or float(alone) < 1e-6


def _steepest_if_s_shaped(function: Callable[[Any], Any]) -> float | None:
    """Its greatest slope, if it is bounded at both ends and rises on both sides of 0."""
    points = tf.concat([[-FAR, FAR, -0.1, 0.1], tf.linspace(-8.0, 8.0, 401)], axis=0)

    def measured() -> tuple[np.ndarray, np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(points)
            values = function(points)
        return values.numpy(), np.abs(tape.gradient(values, points).numpy())

    found, wrong = attempt(measured)
    if wrong:  # of a layer whose weights have another shape, as PReLU's; or it has no gradient
        return None
    values, slopes = found
    bounded = np.abs(values[:2]).max() < FAR / 10
    return float(slopes[2:].max()) if bounded and slopes[2:4].min() > 0 else None
