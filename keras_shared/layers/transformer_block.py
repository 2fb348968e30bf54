from typing import Any

import keras
from keras import layers, ops

from keras_shared import initializers
from keras_shared.initializers.svd import refuse_delta
from keras_shared.layers.schedules import positive


@keras.saving.register_keras_serializable("keras_shared")
class TransformerBlock(keras.layers.Layer):
    """One block of a Transformer, whose attention and feed-forward all positions share.

    `h = x + attention(norm(x))`, `y = h + W_2 f(W_1 norm(h) + b_1) + b_2`: normalisation comes
    first (pre-norm). In a `SharedStack` uses may share the whole block, or parts of it by the names
    `attention`, `feed_forward`, `attention_norm` and `feed_forward_norm`.

    Args:
        num_heads: heads of the attention; they divide the features.
        intermediate_dim: width of `W_1`.
        dropout: share of the attention's weights and of what each part adds that training drops.
        activation: `f`.
        causal: whether each position attends to those before it and itself alone.
        kernel_initializer: initial kernels of attention and feed-forward, as of
            `keras_shared.initializers.get`; None for "glorot_uniform".
        **kwargs: arguments of `keras.layers.Layer`.

    Call:
        Vectors (batch, length, features); `mask` (batch, length) is False where nobody attends to.

    Input shape:
        `(batch, length, features)`.

    Output shape:
        As the input.

    Raises:
        ValueError: if the heads do not divide the features.

    Example:
        >>> import keras
        >>> from keras_shared.layers import SharedStack, TransformerBlock
        >>> inputs = keras.Input((8, 16))
        >>> stack = SharedStack(TransformerBlock(num_heads=2, intermediate_dim=64), depth=6)
        >>> keras.Model(inputs, stack(inputs)).count_params()  # one block
        3280

    Reference:
        Vaswani et al. 2017, "Attention Is All You Need"; Xiong et al. 2020, "On Layer
        Normalization in the Transformer Architecture" (pre-norm).
    """

    def __init__(
        self,
        num_heads: int,
        intermediate_dim: int,
        dropout: float = 0.0,
        activation: Any = "gelu",
        causal: bool = False,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = positive("num_heads", num_heads)
        self.intermediate_dim = positive("intermediate_dim", intermediate_dim)
        self.dropout = dropout
        self.activation = keras.activations.get(activation)
        self.causal = causal
        self.kernel_initializer = initializers.get(kernel_initializer)
        refuse_delta(self.kernel_initializer, self)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        features, policy = input_shape[-1], self.dtype_policy

        def drawn() -> Any:
            return initializers.get(self.kernel_initializer or "glorot_uniform")

        if features is None or features % self.num_heads:
            raise ValueError(
                f"TransformerBlock '{self.name}' has {self.num_heads} heads, which must divide the "
                f"features of its inputs. Received: input_shape={input_shape}"
            )
        self.attention_norm = layers.LayerNormalization(dtype=policy, name="attention_norm")
        self.attention = layers.MultiHeadAttention(
            self.num_heads, features // self.num_heads, dropout=self.dropout, dtype=policy,
            kernel_initializer=drawn(), name="attention",
        )  # fmt: skip
        self.feed_forward_norm = layers.LayerNormalization(dtype=policy, name="feed_forward_norm")
        self.feed_forward = keras.Sequential(
            [
                layers.Dense(
                    self.intermediate_dim,
                    self.activation,
                    kernel_initializer=drawn(),
                    dtype=policy,
                    name="wide",
                ),
                layers.Dense(features, kernel_initializer=drawn(), dtype=policy, name="narrow"),
            ],
            name="feed_forward",
        )
        self.drop = layers.Dropout(self.dropout, dtype=policy, name="drop")
        self.attention.build(input_shape, input_shape)
        for layer in (self.attention_norm, self.feed_forward_norm, self.feed_forward, self.drop):
            layer.build(input_shape)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        normal = self.attention_norm(inputs)
        seen = None if mask is None else ops.expand_dims(mask, 1)  # (batch, 1, length)
        attended = self.attention(normal, normal, attention_mask=seen, use_causal_mask=self.causal)
        x = inputs + self.drop(attended)
        return x + self.drop(self.feed_forward(self.feed_forward_norm(x)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "intermediate_dim": self.intermediate_dim,
            "dropout": self.dropout,
            "activation": keras.activations.serialize(self.activation),
            "causal": self.causal,
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
        }
