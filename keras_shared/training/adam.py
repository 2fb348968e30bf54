from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("keras_shared")
class Adam(keras.optimizers.Adam):
    """Keras' Adam, whose step for a weight is one operation of TensorFlow and not fifteen.

    A small model spends a part of each step on starting operations. The equations, arguments and
    variables are those of `keras.optimizers.Adam`, and so are the results, up to rounding: also of
    sparse gradients, those of an Embedding that nothing else reads, for which Keras adds up the
    squares of a word's gradients where the paper squares their sum.

    Example:
        >>> import keras
        >>> from keras_shared.training.adam import Adam
        >>> weight = keras.Variable([1.0])
        >>> Adam(learning_rate=0.5).apply([keras.ops.ones(1)], [weight])
        >>> round(float(weight[0]), 3)  # the first step is as large as the rate
        0.5

    Reference:
        Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1, in the order of
        computation of the end of section 2.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):  # of an Embedding it is sparse
            super().update_step(gradient, variable, learning_rate)
            return
        index, dtype = self._get_variable_index(variable), variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.constant(self.beta_1, dtype) ** step,
            beta2_power=tf.constant(self.beta_2, dtype) ** step,
            lr=tf.cast(learning_rate, dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, dtype),
        )


def _handle(variable: Any) -> tf.Tensor:
    """What an operation changes: of a Keras variable, of one of TensorFlow, of one of many."""
    own = variable.value if isinstance(variable, keras.Variable) else variable
    return own.handle
