import keras
import pytest
import tensorflow as tf

from keras_shared.signals.activations import _steepest_if_s_shaped


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.cast(x > 0, "float32"),  # it has no gradient
        keras.activations.relu,  # without an end
        lambda x: tf.constant([1.0, 2.0]) * x,  # of another shape
    ],
)
def test_what_is_not_s_shaped_has_no_slope(function):
    assert _steepest_if_s_shaped(function) is None


def test_the_slope_of_tanh():
    assert _steepest_if_s_shaped(keras.activations.tanh) == pytest.approx(1)
