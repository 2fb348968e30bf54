import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_shared")
class Scale(keras.layers.Layer):
    """One trainable factor per feature, shared by all positions, and by all inputs it is called on.

    `y = s * x`, with `s` (features,) along the last axis. It costs one parameter per feature;
    wrapped in `Shared`, or called several times, it still does.

    Args:
        scale_initializer: initial factors.
        scale_regularizer: regulariser of the factors.
        scale_constraint: constraint on the factors.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., features)`.

    Output shape:
        As the input.

    Example:
        >>> import keras
        >>> from keras_shared.layers import Scale
        >>> layer = Scale(scale_initializer=keras.initializers.Constant(2.0))
        >>> layer(keras.ops.convert_to_tensor([[1.0, 3.0]])).numpy().tolist()
        [[2.0, 6.0]]
    """

    def __init__(
        self,
        scale_initializer: Any = "ones",
        scale_regularizer: Any = None,
        scale_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scale_initializer = keras.initializers.get(scale_initializer)
        self.scale_regularizer = keras.regularizers.get(scale_regularizer)
        self.scale_constraint = keras.constraints.get(scale_constraint)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.scale = self.add_weight(
            name="scale",
            shape=(input_shape[-1],),
            initializer=self.scale_initializer,
            regularizer=self.scale_regularizer,
            constraint=self.scale_constraint,
        )

    def call(self, inputs: Any) -> Any:
        return ops.multiply(inputs, self.scale)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scale_initializer": keras.initializers.serialize(self.scale_initializer),
            "scale_regularizer": keras.regularizers.serialize(self.scale_regularizer),
            "scale_constraint": keras.constraints.serialize(self.scale_constraint),
        }

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(output_shape[1:])
