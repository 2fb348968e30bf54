from typing import Any

import keras
import tensorflow as tf

from keras_shared.training.adam import Adam

ITERATIONS = 5
COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of Jordan et al.: steep at 0, so that few are enough
SIZE = 0.2  # root mean square of a step, at a rate of 1: as of Adam (Liu et al. 2025, section 2.2)


@keras.saving.register_keras_serializable("keras_shared")
class Muon(Adam):
    """Muon for the kernels of convolutions over images; for all other weights Adam.

    A kernel of shape (height, width, maps, filters) is a matrix with a column for each filter, G.
    Its step is the mean of the gradients with all singular values brought near to 1: of
    `G = U S V'` it keeps `U V'`, by Newton and Schulz' iteration. `keras.optimizers.Muon` does that
    for matrices alone, and leaves convolutions to Adam. A net of convolutions learns from fewer
    images so.

    Arguments are those of `keras.optimizers.Adam`; `beta_1` is the momentum (Nesterov's) as well.

    Example:
        >>> import keras
        >>> from keras_shared.training.muon import Muon
        >>> kernel = keras.Variable(keras.ops.zeros((1, 1, 2, 2)))
        >>> gradient = keras.ops.reshape(keras.ops.array([3.0, 0.0, 0.0, 0.1]), (1, 1, 2, 2))
        >>> Muon(learning_rate=1.0).apply([gradient], [kernel])
        >>> step = keras.ops.convert_to_numpy(kernel)[0, 0]
        >>> bool(step[0, 0] < -0.19 and step[1, 1] < -0.19)  # both directions, the weak one as well
        True

    Reference:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; Liu et al.
        2025, "Muon is Scalable for LLM Training", for the size of a step.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if len(variable.shape) != 4:
            super().update_step(gradient, variable, learning_rate)
            return
        mean = self._momentums[self._get_variable_index(variable)]
        gradient = tf.cast(gradient, variable.dtype)
        self.assign(mean, mean * self.beta_1 + gradient * (1 - self.beta_1))
        ahead = mean * self.beta_1 + gradient * (1 - self.beta_1)  # Nesterov
        columns = tf.reshape(ahead, (-1, variable.shape[-1]))
        size = SIZE * max(columns.shape) ** 0.5  # entries of an orthogonal matrix are as small
        step = tf.reshape(_orthogonal(columns), variable.shape)
        self.assign_sub(variable, tf.cast(learning_rate, variable.dtype) * size * step)


def _orthogonal(matrix: tf.Tensor) -> tf.Tensor:
    """The nearest matrix with orthogonal rows or columns, whichever are fewer, roughly."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix / (tf.norm(matrix) + 1e-7)  # singular values of 1 at most
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = tf.matmul(x, x, transpose_a=tall, transpose_b=not tall)  # the smaller one
        by = b * square + c * tf.matmul(square, square)
        x = a * x + (tf.matmul(x, by) if tall else tf.matmul(by, x))
    return x
