"""A small Transformer block as people write one, for the tests of stacks."""

import keras
from keras import layers


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """Pre-norm; `context`, if it is given, is attended to."""

    def __init__(self, width=8, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.attention = layers.MultiHeadAttention(2, 4)
        self.attention_norm = layers.LayerNormalization()
        self.feed_forward = keras.Sequential([layers.Dense(16, "gelu"), layers.Dense(width)])
        self.feed_forward_norm = layers.LayerNormalization()
        self.supports_masking = True

    def build(self, x_shape, context_shape=None):
        self.attention.build(x_shape, context_shape or x_shape)
        self.attention_norm.build(x_shape)
        self.feed_forward.build(x_shape)
        self.feed_forward_norm.build(x_shape)

    def call(self, x, context=None, mask=None, causal=False):
        normal = self.attention_norm(x)
        given = normal if context is None else context
        seen = None if mask is None else mask[:, None]
        x = x + self.attention(normal, given, attention_mask=seen, use_causal_mask=causal)
        return x + self.feed_forward(self.feed_forward_norm(x))

    def compute_output_shape(self, x_shape, context_shape=None):
        return x_shape

    def get_config(self):
        return {**super().get_config(), "width": self.width}
