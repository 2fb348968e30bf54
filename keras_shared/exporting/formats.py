import difflib
import os
import pathlib
import warnings
from typing import Any

import keras

from keras_shared.exporting.known_inputs import with_known_inputs
from keras_shared.exporting.saved_model import replace_saved_model
from keras_shared.exporting.signatures import signatures_of
from keras_shared.exporting.to_litert import litert_model
from keras_shared.exporting.to_onnx import onnx_model
from keras_shared.exporting.to_safetensors import write_safetensors
from keras_shared.files.atomic import replacing
from keras_shared.files.paths import as_path
from keras_shared.tying.keras_private import flatten_layers

SUFFIXES = {".onnx": "onnx", ".tflite": "litert", ".safetensors": "safetensors"}
FORMATS = ("tf_saved_model", *SUFFIXES.values())
OF_KERAS = {  # how a file ends, and what writes it
    ".weights.h5": "model.save_weights(filepath)", ".keras": "model.save(filepath)",
    ".h5": "model.save(filepath)", ".json": "model.to_json()",
}  # fmt: skip


def export(
    model: keras.Model,
    filepath: str | os.PathLike[str],
    format: str | None = None,
    signature: str | None = None,
    input_signature: Any = None,
) -> pathlib.Path:
    """Write `model` for inference elsewhere, with each shared weight stored once.

    What is written is run and compared with Keras first; it then replaces what lay there, in one
    step. A SavedModel can be fine-tuned in plain TensorFlow, see `keras_shared.publish`. An ONNX
    file holds a weight that is read transposed once, with a `Transpose` before its second use.
    LiteRT multiplies by one layout alone and keeps a copy for the other; what is doubled is said
    in a `UserWarning`. Loops over time (LSTM, GRU) it runs for a fixed batch alone: where the
    model leaves the batch open, and does not unroll them, the file takes one row at a time, which
    a `UserWarning` says too.

    A safetensors file holds the weights alone, as Keras stores them: a Dense kernel is
    (inputs, units), where torch has (units, inputs). A weight is named by the layers on the way
    to it, `"encoder.encoder_1.kernel"`. A tied one is stored under the name of its owner; the
    metadata gives each other name as `safetensors.torch.save_model` does, and in
    `"keras_shared"`, as JSON, with how it is read:
    `{"decoder.decoder_1.kernel": {"source": "encoder.encoder_1.kernel", "form": "transposed"}}`.
    Vocabularies and states of random seeds are no weights. The way back is
    `keras_shared.load_safetensors`.

    Args:
        model: a zoo model, a functional Keras model, a Sequential that was built, or a subclassed
            model that was called.
        filepath: folder of the SavedModel; file of the others, for LiteRT with suffix `.tflite`.
        format: as in `keras.Model.export`: `"tf_saved_model"`, `"onnx"` (needs
            `pip install "keras_shared[onnx]"`) or `"litert"`; or `"safetensors"` (needs
            `pip install "keras_shared[safetensors]"`). By default that of the suffix: `.onnx`,
            `.tflite`, `.safetensors`, else a SavedModel.
        signature: the way to ask a zoo model that an ONNX or LiteRT file holds; the first by
            default. A SavedModel holds all of them.
        input_signature: as in `keras.Model.export`, for a subclassed model: a list with shape and
            dtype of each argument of its `call`. By default the shapes of its first call with any
            batch, and the dtype of its weights. Inputs are named after the arguments, or the keys
            of a dict; outputs `outputs`, of several `outputs_0`, `outputs_1`, or the keys of a
            dict.

    Returns:
        `filepath`.

    Raises:
        ValueError: for an unknown format or signature, a wrong suffix, a folder that would be
            lost, a subclassed model whose inputs are not known, an ONNX or LiteRT model in half
            precision, or if what was written gives other outputs than Keras.
        TieError: for a safetensors file of a model that reads a weight which lies outside of it.
        ImportError: if the converter is not installed; the message says how to get it.

    Example:
        >>> import tempfile
        >>> import keras_shared
        >>> from keras_shared.zoo import TiedAutoencoder
        >>> model = TiedAutoencoder(units=(64, 8), input_dim=784)
        >>> file = keras_shared.export(model, tempfile.mkdtemp() + "/m.onnx", format="onnx")
        >>> file.stat().st_size < 4 * model.count_params() + 10_000  # float32, each once
        True
    """
    path = as_path(filepath, "filepath")
    if format is None:
        if ends := [end for end in OF_KERAS if path.name.lower().endswith(end)]:
            raise ValueError(
                f"`export` writes a SavedModel, ONNX, LiteRT or safetensors. Received: {path}. A "
                f"file {ends[0]} is written by {OF_KERAS[ends[0]]}, or say `format`."
            )
        ending = path.suffix.lower()
        near = ending not in SUFFIXES and difflib.get_close_matches(ending, SUFFIXES)
        if near and not path.is_dir():
            raise ValueError(
                f"`export` writes files that end in one of {[*SUFFIXES]}, or the folder of a "
                f"SavedModel. Received: {path}. For a folder of this name say "
                "format='tf_saved_model'."
            )
        format = SUFFIXES.get(ending, FORMATS[0])
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {FORMATS}. Received: format={format!r}")
    if signature is not None and format == "tf_saved_model":
        raise ValueError(
            "A SavedModel holds all signatures of a model. "
            f"Received: signature={signature!r} with format='tf_saved_model'"
        )
    if format != "tf_saved_model" and (
        path.is_dir() or (format == "litert" and path.suffix.lower() != ".tflite")
    ):
        raise ValueError(
            f"What format={format!r} writes is one file"
            f"{', which must end in .tflite' if format == 'litert' else ''}. Received: {path}"
        )
    if format == "safetensors":
        if signature is not None or input_signature is not None:
            raise ValueError(
                "A safetensors file holds weights alone, and no way to ask the model. Received: "
                f"signature={signature!r}, input_signature={input_signature!r}"
            )
        write_safetensors(model, path)
        return path
    model = with_known_inputs(model, input_signature)
    if format == "tf_saved_model":
        replace_saved_model(model, path)
        return path
    signatures = signatures_of(model)
    name = next(iter(signatures)) if signature is None else signature
    if name not in signatures:
        raise ValueError(
            f"'{model.name}' has no signature {name!r}. It has: {', '.join(signatures)}"
        )
    for layer in flatten_layers(model):
        computes = not isinstance(layer, keras.layers.InputLayer)
        if computes and layer.compute_dtype in ("float16", "bfloat16"):
            raise ValueError(
                f"{format.upper()} is written from models that compute in float32. Received: "
                f"'{layer.name}' computes in {layer.compute_dtype}. Build the model under a "
                "float32 policy, and give it the weights with set_weights."
            )
    convert = onnx_model if format == "onnx" else litert_model
    content, warning = convert(model, name)
    if warning:
        warnings.warn(warning, stacklevel=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        scratch.write_bytes(content)
    return path
