import tempfile
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.exporting.checks import check_answers
from keras_shared.exporting.copies import layouts, tied_weights
from keras_shared.exporting.saved_model import write_saved_model
from keras_shared.tying.keras_private import flatten_layers


def litert_model(model: keras.Model, name: str) -> tuple[bytes, str]:
    """The signature `name` of `model` as the bytes of a LiteRT file, and what is stored twice.

    Args:
        model: see `signatures_of`.
        name: one of its signatures.

    Returns:
        The file's bytes, and a text that says which weights are stored more than once, and why;
        an empty one if none is.

    Raises:
        ValueError: if LiteRT lacks an operation of the model, or if its interpreter gives
            other outputs than Keras.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/saved_model"
        write_saved_model(model, path, to_train=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=[name])
        try:
            content = converter.convert()
        except Exception as error:  # ConverterError, with the whole program in its message
            reason = _reason(str(error))
            resizing = "Image resizing with antialias gives it: resize before the model. "
            raise ValueError(
                f"LiteRT cannot run '{model.name}' ({reason}). "
                f"{resizing if 'ScaleAndTranslate' in reason else ''}"
                f"{_recurrent(model) if 'TensorList' in str(error) else ''}Nothing was kept."
            ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow recommends a package that it does not need
        interpreter = tf.lite.Interpreter(model_content=content)
    runner = interpreter.get_signature_runner(name)
    check_answers(model, name, runner, "LiteRT")
    return content, _doubled(content, tied_weights(model))


def _reason(message: str) -> str:
    """What the converter says, without the places in its program."""
    lines = [line for line in message.splitlines() if line.startswith("Custom ops:")]
    if "TensorList" in message:
        return "it has no operation for a loop over the steps of a sequence"
    said = (line.rpartition("error: ")[2].strip() for line in message.splitlines())
    return lines[0] if lines else next((s for s in said if s and not s.startswith("loc(")), "")


def _recurrent(model: keras.Model) -> str:
    """Which layers loop over time, and what to do."""
    loops = [layer for layer in flatten_layers(model) if isinstance(layer, keras.layers.RNN)]
    if not loops:
        return ""
    named = ", ".join(f"{type(layer).__name__} '{layer.name}'" for layer in loops)
    return f"{named}: build it with unroll=True and sequences of a fixed length. "


def _doubled(content: bytes, weights: dict[str, np.ndarray]) -> str:
    more = {}
    buffers = _buffers(content)
    for owner, weight in weights.items():
        held = [w.tobytes() for _, w in layouts(weight)]
        copies = sum(buffer in held for buffer in buffers)
        if copies > 1:
            more[owner] = (copies, (copies - 1) * weight.nbytes)
    if not more:
        return ""
    each = ", ".join(f"'{owner}' {n} times ({b:,} bytes more)" for owner, (n, b) in more.items())
    return (
        f"LiteRT stores a tied weight in each layout that is read: {each}. Its FULLY_CONNECTED and "
        "its convolutions take a constant in one order of axes only. Answers are those of Keras."
    )


def _buffers(content: bytes) -> list[Any]:
    """The constants of a LiteRT file, as bytes."""
    from tensorflow.lite.tools.flatbuffer_utils import convert_bytearray_to_object

    parsed = convert_bytearray_to_object(bytearray(content))
    return [bytes(buffer.data) for buffer in parsed.buffers if buffer.data is not None]
