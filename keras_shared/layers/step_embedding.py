import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_shared")
class StepEmbedding(keras.layers.Layer):
    """One vector, shared by all positions, that tells a shared block which of its uses this is.

    `y = x + e`, with `e` (features,) along the last axis: the smallest part that each use of a
    shared block can have for its own.

    Args:
        embeddings_initializer: initial vector.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., features)`.

    Output shape:
        As the input.

    Example:
        >>> import keras
        >>> from keras_shared.layers import StepEmbedding
        >>> layer = StepEmbedding()
        >>> layer(keras.ops.ones((1, 8, 16))).shape, layer.count_params()
        (TensorShape([1, 8, 16]), 16)

    Reference:
        Dehghani et al. 2019, "Universal Transformers", section 2.1 (there sinusoids).
    """

    def __init__(self, embeddings_initializer: Any = "uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.embeddings = self.add_weight(
            name="step", shape=(input_shape[-1],), initializer=self.embeddings_initializer
        )

    def call(self, inputs: Any) -> Any:
        return ops.add(inputs, self.embeddings)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.embeddings_initializer)
        return {**super().get_config(), "embeddings_initializer": initializer}

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(output_shape[1:])
