import os

import keras

import keras_shared.zoo as _zoo  # noqa: F401  (registers the classes with Keras)
from keras_shared.presets.reading import read_model


def load(
    path_or_name: str | os.PathLike[str],
    version: int | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> keras.Model:
    """Load a published model as the trainable Keras model that it was, ties included.

    What is loaded is the Keras model inside of the version (`assets.extra/model.keras`), not the
    graph that TF Serving runs.

    Args:
        path_or_name: name of a preset (`keras_shared.list_presets()`), a folder of versions, the
            folder of one version, a `.keras` file, or an `.h5` file that holds a whole model.
        version: number of the version; the newest by default.
        compile: as in `keras.models.load_model`. Published models carry no optimizer: they come
            uncompiled, and `compile()` without arguments is enough for one of the zoo.
        safe_mode: as in `keras.models.load_model`. False also loads what Python was pickled into
            the file, such as a Lambda: only for files whose maker you trust.

    Returns:
        The model, every reader bound to its source.

    Raises:
        LoadError: for an unknown name (the nearest ones are in the message), an empty folder, a
            version that is not there, or a corrupt one; for a file that declares more than it can
            hold, and for weights that are NaN. It is a ValueError.
        TieError: if the file holds a reader without its source, or ties in a circle.

    Example:
        >>> import keras_shared
        >>> model = keras_shared.load("tied_autoencoder_mnist")
        >>> model.decoder.get_layer("decoder_1").source() is model.encoder.get_layer("encoder_1")
        True
    """
    return read_model(path_or_name, version, compile, safe_mode)
