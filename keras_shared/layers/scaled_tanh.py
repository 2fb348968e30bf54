from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_shared")
def scaled_tanh(x: Any) -> Any:
    """The squashing function of LeNet-5, `f(x) = 1.7159 tanh(2x / 3)`: f(1) = 1, f(-1) = -1.

    Args:
        x: tensor of any shape.

    Returns:
        A tensor of the same shape, in (-1.7159, 1.7159).

    Example:
        >>> from keras_shared.layers import scaled_tanh
        >>> round(float(scaled_tanh(1.0)), 3)
        1.0

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document
        Recognition", appendix A.
    """
    return 1.7159 * ops.tanh(x * (2 / 3))
