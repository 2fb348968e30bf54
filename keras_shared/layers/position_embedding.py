import math
from typing import Any

import keras
from keras import ops

from keras_shared.layers.schedules import positive


@keras.saving.register_keras_serializable("keras_shared")
class PositionEmbedding(keras.layers.Layer):
    """A learned vector for each position, shared by all sequences and added to them.

    `y_t = x_t + p_t`, with `p` (sequence_length, features): the first rows for a shorter sequence.

    Args:
        sequence_length: positions that there are vectors for.
        initializer: initial vectors.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, length, features)`, with a length of at most `sequence_length`.

    Output shape:
        As the input.

    Raises:
        ValueError: if the inputs are known to be longer, or `sequence_length` is not positive.

    Example:
        >>> import keras
        >>> from keras_shared.layers import PositionEmbedding
        >>> layer = PositionEmbedding(sequence_length=10)
        >>> layer(keras.ops.ones((1, 8, 16))).shape, layer.count_params()
        (TensorShape([1, 8, 16]), 160)

    Reference:
        Vaswani et al. 2017, "Attention Is All You Need", section 3.5 (learned ones).
    """

    def __init__(self, sequence_length: int, initializer: Any = "uniform", **kwargs: Any) -> None:
        sequence_length = positive("sequence_length", sequence_length)
        super().__init__(**kwargs)
        self.sequence_length = sequence_length
        self.initializer = keras.initializers.get(initializer)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 3:
            raise ValueError(
                f"PositionEmbedding '{self.name}' takes inputs of shape (batch, length, features). "
                f"Received: inputs of the shape {tuple(input_shape)}. Reshape them first."
            )
        self.embeddings = self.add_weight(
            name="positions",
            shape=(self.sequence_length, input_shape[-1]),
            initializer=self.initializer,
        )

    def call(self, inputs: Any) -> Any:
        length = inputs.shape[1]
        if length is not None and length > self.sequence_length:
            raise ValueError(
                f"PositionEmbedding '{self.name}' has vectors for {self.sequence_length} "
                f"positions. Received: inputs of the shape {tuple(inputs.shape)}. Cut them, or "
                "build it with a larger `sequence_length`."
            )
        return ops.add(inputs, self.embeddings[: ops.shape(inputs)[1]])  # (length, features)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sequence_length": self.sequence_length,
            "initializer": keras.initializers.serialize(self.initializer),
        }

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(output_shape[1:])
