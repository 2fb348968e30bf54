import keras

from keras_shared.tying.keras_private import flatten_layers


def renew_normalization(layer: keras.Layer) -> None:
    """Let `keras.layers.Normalization` inside of a layer use the weights that it has.

    It computes with what it made of its weights when it was adapted or loaded, and
    `keras.Layer.set_weights` leaves that as it was.

    Args:
        layer: a layer or model whose weights were set.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_shared.tying.normalization import renew_normalization
        >>> layer = keras.layers.Normalization()
        >>> layer.build((None, 1))
        >>> layer.set_weights([np.array([3.0]), np.array([4.0]), np.array(2)])
        >>> float(layer(np.array([[5.0]]))[0, 0])  # as before: mean 0, variance 1
        5.0
        >>> renew_normalization(layer)
        >>> float(layer(np.array([[5.0]]))[0, 0])  # (5 - 3) / 2
        1.0
    """
    for inner in flatten_layers(layer):
        if isinstance(inner, keras.layers.Normalization) and inner.built:
            inner.finalize_state()
