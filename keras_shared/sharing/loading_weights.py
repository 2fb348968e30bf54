"""Weights of a net without ties, into a model that has them."""

import os

import keras

from keras_shared.finite import refuse_undefined
from keras_shared.presets.names import LoadError
from keras_shared.sharing.matching import Matched, Place, match
from keras_shared.sharing.stored_layers import stored_layers
from keras_shared.tying import TieError, bind_ties
from keras_shared.tying.calibrated import refuse_calibrated
from keras_shared.tying.keep import Keep, check_keep
from keras_shared.tying.keras_private import expect_layer, flatten_layers


def load_weights(
    model: keras.Model, filepath: str | os.PathLike[str], keep: Keep | None = None
) -> None:
    """Load the weights of a net with or without ties into a model that shares them.

    Of a net without ties, a file holds a weight once for its owner and once for each layer that
    reads it here, as that layer stored it (a `Dense` in the place of a `TiedDense`). What readers
    own themselves, such as biases, is loaded too. Layers that were named by hand are found by
    their names; of others the order counts, as in Keras' `load_weights`. Either all weights of
    the model are loaded, or none. The optimizer stays as it is.

    Args:
        model: a built model.
        filepath: a `.keras` file, `.weights.h5`, `.weights.json` with shards, an `.h5` file as
            Keras 2 wrote them (a model or its weights), a published folder, or a preset's name.
        keep: whose values are loaded where they differ: those of the source (the owner), or those
            of the reader, as in `keras_shared.tie_weights`. None refuses different values.

    Raises:
        TieError: if values differ that are one weight here, and `keep` is None.
        LoadError: if there is no such file, or it is not of this model: weights that it lacks or
            has beyond the model, or of other shapes; the message names them.
        ValueError: for another `keep`, a model that was not built, or a layer with LoRA
            or quantised by GPTQ or AWQ.

    Example:
        >>> import keras, tempfile
        >>> import keras_shared
        >>> from keras_shared.layers import TiedDense
        >>> x = keras.Input((6,))
        >>> code = keras.layers.Dense(2, name="code")
        >>> old = keras.Model(x, keras.layers.Dense(6, name="back")(code(x)))
        >>> path = tempfile.mkdtemp() + "/old.weights.h5"
        >>> old.save_weights(path)
        >>> code = keras.layers.Dense(2, name="code")
        >>> model = keras.Model(x, TiedDense(code, name="back")(code(x)))
        >>> keras_shared.load_weights(model, path, keep="source")
        >>> bool(keras.ops.all(code.kernel == old.get_layer("code").kernel))
        True
    """
    check_keep(keep)
    expect_layer(model)
    if not model.built or not model.variables:
        raise ValueError(f"'{model.name}' was never built. Call it once on its inputs first.")
    refuse_calibrated(model, ValueError)
    bind_ties(model)
    with stored_layers(filepath) as stored:
        found = match(model, stored)
        _refuse_other_nets(found, model, filepath)
        _refuse_differences(found, model, filepath, keep)
        values = [
            (place.value, place.stored[_kept(place, keep)].values()) for place in found.places
        ]
    refuse_undefined(values, str(filepath), LoadError, "Nothing was loaded. Take an earlier state.")
    for variable, value in values:  # all of them were read: none fails
        variable.assign(value)
    for layer in flatten_layers(model):
        if layer.weights and hasattr(layer, "finalize_state"):
            layer.finalize_state()  # Normalization keeps what it computes from them


def _kept(place: Place, keep: Keep | None) -> int:
    """Which of the values in the file are loaded; the owner's come first."""
    return 1 if keep == "reader" and len(place.stored) > 1 else 0


def _refuse_other_nets(
    found: Matched, model: keras.Model, filepath: str | os.PathLike[str]
) -> None:
    derived = [place.path for place in found.places if not isinstance(place.value, keras.Variable)]
    if derived:
        names = sorted({path.rpartition("/")[0] for path in derived})
        raise ValueError(
            f"Of {names} in '{model.name}' Keras saves no variables, but what it computes from "
            "them, as with LoRA. Load the weights first, and call `enable_lora` then."
        )
    wrong = [f"{name}: {said}" for name, said in found.other_shapes.items()]
    wrong += [f"{place.path} is not in the file" for place in found.missing]
    wrong += [f"{layer.name or layer.path} is only in the file" for layer in found.left]
    if wrong:
        raise LoadError(
            f"{filepath} does not hold the weights of '{model.name}', and nothing was loaded. "
            f"{'; '.join(wrong[:12])}{'; ...' if len(wrong) > 12 else ''}. Layers are found by "
            "names that were given by hand, others by their order: build the model as the one that "
            "was saved, or give the layers of both the same names."
        )


def _refuse_differences(
    found: Matched, model: keras.Model, filepath: str | os.PathLike[str], keep: Keep | None
) -> None:
    apart = [
        f"'{place.path}' and what '{reader}' has differ by up to {value:.2g}"
        for place in (found.places if keep != "source" else ())
        for reader, value in place.differences(_kept(place, keep)).items()
        if value
    ]
    if apart and keep == "reader":
        raise TieError(
            f"{filepath} holds different values for readers of one weight in '{model.name}', and "
            f"nothing was loaded: {'; '.join(apart)}. Pass keep='source'. Received: keep='reader'"
        )
    if apart:
        raise TieError(
            f"{filepath} holds different values for what is one weight in '{model.name}', and "
            f"nothing was loaded: {'; '.join(apart)}. Pass keep='source' to load the source's, or "
            "keep='reader' to load the reader's. Received: keep=None"
        )
