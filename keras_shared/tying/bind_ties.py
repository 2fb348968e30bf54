"""Every reader of a model finds its source, at once."""

import keras

from keras_shared.errors import attempt
from keras_shared.tying.keras_private import flatten_layers
from keras_shared.tying.revive_lora import revive_lora
from keras_shared.tying.tie_error import TieError
from keras_shared.tying.tied_reader import TiedReader


def bind_ties(model: keras.Model) -> keras.Model:
    """Let every reader inside `model` find its source there, at once instead of at the first call.

    `keras_shared.load` does this. LoRA factors that Keras zeroed on load are drawn anew on the
    way, with a `UserWarning`. After `keras.models.load_model` it is needed only for that, and
    where a sub-model (a decoder, say) is called before the model that contains it.

    Args:
        model: a Keras model that contains readers and their sources.

    Returns:
        The same model.

    Raises:
        TieError: if a source is missing, if it belongs to another model, or if several layers
            match its description.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedDense
        >>> from keras_shared.tying import bind_ties
        >>> inputs = keras.Input((4,))
        >>> code = keras.layers.Dense(2, name="code")
        >>> model = keras.Model(inputs, TiedDense(code)(code(inputs)))
        >>> clone = bind_ties(keras.models.clone_model(model))
        >>> clone.layers[-1].source() is clone.get_layer("code")
        True
    """
    unbound = [reader for reader in readers_of(model) if reader._reference.layer is None]
    _, wrong = attempt(lambda: sources_inside(model), TieError)
    if wrong:
        for reader in unbound:  # all or none: what was bound first may be the wrong one
            reader._reference.release()
        raise wrong
    revive_lora(model)
    return model


def sources_inside(model: keras.Layer) -> None:
    """Let every reader find its source, and refuse one outside of `model`.

    Raises:
        TieError: if a source is missing or belongs to another model.
    """
    layers = flatten_layers(model)
    inside = {id(layer) for layer in layers}
    for reader in readers_of(model):
        source = reader._find_source(layers)
        reader.refuse_circle(source)
        if id(source) not in inside:
            raise TieError(
                f"{type(reader).__name__} '{reader.name}' is tied to the {type(source).__name__} "
                f"'{source.name}', which is not part of the model '{model.name}': a file of it "
                "would not contain the weight. Build a model that contains both layers, or call "
                "`keras_shared.tying.untie` on the reader."
            )


def readers_of(model: keras.Layer) -> list[TiedReader]:
    """The layers inside `model` that read a weight owned by another layer.

    Args:
        model: any Keras layer or model.

    Example:
        >>> from keras_shared.tying import readers_of
        >>> from keras_shared.zoo import TiedAutoencoder
        >>> sorted(r.name for r in readers_of(TiedAutoencoder(units=(3, 2), input_dim=4)))
        ['decoder_1', 'decoder_2']
    """
    return [
        layer
        for layer in flatten_layers(model)
        if isinstance(layer, TiedReader) and not layer.untied
    ]
