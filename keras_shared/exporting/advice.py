"""What to do about a model that a converter does not take."""

import keras

from keras_shared.tying.keras_private import flatten_layers

OTHERWISE = "Put another operation in its place, or serve the model as a SavedModel."


def advice(model: keras.Model, format: str, instead: dict[str, str]) -> str:
    """Which layers are quantised in a way that a format lacks, or `OTHERWISE`.

    Args:
        model: which its converter does not take.
        format: its name, for the message.
        instead: a mode of quantisation that it lacks -> what to do in its place.
    """
    modes: dict[str, list[str]] = {}
    for layer in flatten_layers(model):
        mode = getattr(layer, "quantization_mode", None)
        if mode in instead:
            modes.setdefault(mode, []).append(f"{type(layer).__name__} '{layer.name}'")
    said = [
        f"{format} lacks the arithmetic of {mode} ({', '.join(layers)}): {instead[mode]}, "
        "or serve it as a SavedModel."
        for mode, layers in modes.items()
    ]
    return " ".join(said) or OTHERWISE
