"""Answers of a published version from its SavedModel alone: no Keras model is built."""

import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from keras_shared.presets.names import version_dir


class AnswerError(ValueError):
    """A file cannot be sent to a model, or the model cannot be loaded; the message says why."""


def answer(model: str | os.PathLike[str], requests: list[list[str]]) -> list[dict[str, np.ndarray]]:
    """Send each request, one file or the files of one pair, to the signature that takes it.

    Args:
        model: name of a preset, a folder of versions (the newest answers), or one SavedModel.
        requests: for each answer, PNG or JPEG images; or one .npy file with a vector, or a batch.

    Returns:
        For each request, the outputs of the signature.

    Raises:
        LoadError: if there is no such model.
        AnswerError: for a file that is not an image, or that no signature of the model takes; or
            if TensorFlow cannot load the model.
        FileNotFoundError: if a file is missing.

    Example:
        >>> import pathlib
        >>> import tempfile
        >>> import numpy as np
        >>> from keras_shared.serving.answering import answer
        >>> file = pathlib.Path(tempfile.mkdtemp(), "pixels.npy")
        >>> np.save(file, np.zeros(784))
        >>> [outputs] = answer("tied_autoencoder_mnist", [[str(file)]])
        >>> list(outputs)
        ['reconstruction']
    """
    path = version_dir(model)
    try:
        signatures = tf.saved_model.load(os.fspath(path)).signatures
    except (OSError, ValueError, tf.errors.OpError) as error:
        first = str(error).split("\n")[0]
        raise AnswerError(
            f"TensorFlow cannot load the SavedModel {path}: {first}. Publish or copy it again."
        ) from error
    return [_answer(path, signatures, files) for files in requests]


def _answer(path: pathlib.Path, signatures: Any, files: list[str]) -> dict[str, np.ndarray]:
    read = [_vector(file) if file.endswith(".npy") else _image(file) for file in files]
    tensors = [tf.constant(content) for content in read]
    for function in signatures.values():
        specs = sorted(function.structured_input_signature[1].items())
        if len(specs) == len(tensors) and all(
            tensor.dtype == spec.dtype and spec.shape.is_compatible_with(tensor.shape)
            for tensor, (_, spec) in zip(tensors, specs, strict=True)
        ):
            outputs = function(**{k: t for (k, _), t in zip(specs, tensors, strict=True)})
            return {key: value.numpy() for key, value in sorted(outputs.items())}
    taken = {
        name: [
            "an image" if spec.dtype == tf.string else f"numbers of shape {tuple(spec.shape)}"
            for spec in function.structured_input_signature[1].values()
        ]
        for name, function in signatures.items()
    }
    given = [
        "an image" if t.dtype == tf.string else f"numbers of shape {tuple(t.shape)}"
        for t in tensors
    ]
    raise AnswerError(f"{path} has no signature that takes {files} ({given}). It takes: {taken}")


def _image(file: str) -> list[bytes]:
    content = pathlib.Path(file).read_bytes()
    try:
        tf.io.decode_image(content, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        raise AnswerError(f"{file} is not an image: expected a PNG or JPEG file.") from None
    return [content]


def _vector(file: str) -> np.ndarray:
    try:
        array = np.load(file, allow_pickle=False)
    except ValueError as error:
        raise AnswerError(f"{file} is not a .npy file: {error}") from error
    return np.atleast_2d(array).astype("float32")


def as_text(value: np.ndarray) -> str:
    """An output as a person reads it, cut after twelve numbers."""
    flat = value.ravel()
    if flat.dtype == object:
        return " ".join(item.decode() for item in flat)
    shown = " ".join(f"{number:.4g}" for number in flat[:12])
    return shown if len(flat) <= 12 else f"{shown} ... ({' x '.join(map(str, value.shape))})"
