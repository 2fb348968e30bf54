import re
import tempfile
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.errors import attempt, shortened
from keras_shared.exporting.advice import OTHERWISE, advice
from keras_shared.exporting.checks import check_answers
from keras_shared.exporting.copies import layouts, tied_weights
from keras_shared.exporting.saved_model import write_saved_model
from keras_shared.exporting.signatures import signatures_of
from keras_shared.signature import Signature
from keras_shared.tying.keras_private import flatten_layers

LACKS = ("Custom ops:", "TF Select ops:")
PLACE = re.compile(r"^loc\(.*?\)+: (error: )?")  # in the converter's program


def litert_model(model: keras.Model, name: str) -> tuple[bytes, str]:
    """The signature `name` of `model` as the bytes of a LiteRT file, and what to know about it.

    Args:
        model: see `signatures_of`.
        name: one of its signatures.

    Returns:
        The file's bytes, and a text that says whether the file takes one row at a time, and which
        weights are stored more than once, and why; an empty one if there is nothing to say.

    Raises:
        ValueError: if LiteRT lacks an operation of the model, or if its interpreter gives
            other outputs than Keras.
    """
    signature, warning = signatures_of(model)[name], ""
    one = _of_one_row(signature)
    content = _converted(model, name, signature, last=one is None)
    if one is not None and not content:
        # select TensorFlow operations would loop over any batch, but the interpreter of TensorFlow
        # 2.21 has no Flex delegate to run and check them
        content, signature = _converted(model, name, one, last=True), one
        warning = (
            f"The LiteRT file of '{model.name}' takes one row at a time (a batch of 1): LiteRT "
            "runs a loop over the steps of a sequence for a fixed batch alone. "
            f"{_recurrent(model, 'for any batch, build it with')}"
        )

    def answer(**inputs: np.ndarray) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow recommends a package that it does not need
            # a new one each time: states go on from call to call
            interpreter = tf.lite.Interpreter(model_content=content)
        return interpreter.get_signature_runner(name)(**inputs)

    otherwise = check_answers(model, name, signature, answer, "LiteRT")
    return content, f"{warning}{_doubled(content, tied_weights(model))} {otherwise}".strip()


def _converted(model: keras.Model, name: str, signature: Signature, last: bool = False) -> bytes:
    """The file's bytes; none for a loop over time that might be converted otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/saved_model"
        write_saved_model(model, path, to_train=False, signatures={name: signature})
        converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=[name])
        content, error = attempt(converter.convert)
        if error and "TensorList" in str(error) and not last:  # its text is the whole program
            return b""
        if error:
            raise _refused(model, error) from error
        return content  # type: ignore[no-any-return]


def _of_one_row(signature: Signature) -> Signature | None:
    """The signature with a batch of 1; None if a batch is fixed already."""
    if any(not spec.shape or spec.shape[0] for spec in signature.inputs.values()):
        return None
    inputs = {
        key: keras.KerasTensor((1, *spec.shape[1:]), spec.dtype)
        for key, spec in signature.inputs.items()
    }
    return signature._replace(inputs=inputs)


def _refused(model: keras.Model, error: Exception) -> ValueError:
    reason = _reason(str(error))
    before = "convert the model as it was before it was quantised"
    otherwise = advice(model, "LiteRT", {"int8": f"write ONNX, {before}", "float8": before})
    if reason.startswith(LACKS):
        otherwise = OTHERWISE
    if "ScaleAndTranslate" in reason:
        otherwise = "Image resizing with antialias gives it: resize before the model."
    if "TensorList" in str(error):
        otherwise = _recurrent(model, "build it with").strip() or otherwise
    return ValueError(f"LiteRT cannot run '{model.name}' ({reason}). {otherwise} Nothing was kept.")


def _reason(message: str) -> str:
    """What the converter says, without the places in its program."""
    if "TensorList" in message:
        return "it has no operation for a loop over the steps of a sequence"
    lines = message.splitlines()
    lacks = [line for line in lines if line.startswith(LACKS)]
    errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
    said = lacks or [PLACE.sub("", error).strip() for error in errors] or lines
    return shortened(next((text for text in said if text), ""))


def _recurrent(model: keras.Model, advice: str) -> str:
    """Which layers loop over time, and what to do."""
    loops = [layer for layer in flatten_layers(model) if isinstance(layer, keras.layers.RNN)]
    if not loops:
        return ""
    named = ", ".join(f"{type(layer).__name__} '{layer.name}'" for layer in loops)
    return f"{named}: {advice} unroll=True and sequences of a fixed length. "


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
