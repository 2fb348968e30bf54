"""Answers of a published version from its SavedModel alone: no Keras model is built."""

import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_shared.pictures import png_bytes, read_picture
from keras_shared.presets.names import version_dir

GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as TensorFlow's decoders weight them


class AnswerError(ValueError):
    """A file cannot be sent to a model, or the model cannot be loaded; the message says why."""


class _Read(NamedTuple):
    """What a file holds: pixels (height, width, channels) of a picture, or numbers."""

    array: np.ndarray
    picture: bool

    def __str__(self) -> str:
        return "an image" if self.picture else f"numbers of shape {self.array.shape}"


def answer(
    model: str | os.PathLike[str], requests: list[list[str]], invert: bool = False
) -> list[dict[str, np.ndarray]]:
    """Send each request, one file or the files of one pair, to the signature that takes it.

    Pictures are read as a person sees them (`keras_shared.pictures.read_picture`). For a model of
    vectors a picture becomes a grey square of as many pixels, 0 to 1.

    Args:
        model: name of a preset, a folder of versions (the newest answers), or one SavedModel.
        requests: for each answer, pictures; or one .npy file with a vector, or a batch.
        invert: whether to swap dark and bright in pictures.

    Returns:
        For each request, the outputs of the signature.

    Raises:
        LoadError: if there is no such model.
        PictureError: for a file that is missing or no picture.
        AnswerError: for a file that no signature of the model takes; or if TensorFlow cannot load
            the model.

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
        reason = " ".join(str(error).split())
        raise AnswerError(
            f"TensorFlow cannot load the SavedModel {path}: {reason}. Publish or copy it again."
        ) from error
    return [_answer(path, signatures, files, invert) for files in requests]


def _answer(
    path: pathlib.Path, signatures: Any, files: list[str], invert: bool
) -> dict[str, np.ndarray]:
    read = [_numbers(file) if file.endswith(".npy") else _pixels(file, invert) for file in files]
    vector = len(read) == 1 and read[0].picture
    functions = list(signatures.values())
    if vector and "serving_default" in signatures:  # a square code is no picture: first the default
        functions.insert(0, signatures["serving_default"])
    for function in functions:
        specs = sorted(function.structured_input_signature[1].items())
        if len(specs) != len(read):
            continue
        tensors = [_sent(given, spec, vector) for given, (_, spec) in zip(read, specs, strict=True)]
        if all(tensor is not None for tensor in tensors):
            outputs = function(**{k: t for (k, _), t in zip(specs, tensors, strict=True)})
            return {key: value.numpy() for key, value in sorted(outputs.items())}
    taken = {
        name: [
            "an image" if spec.dtype == tf.string else f"numbers of shape {tuple(spec.shape)}"
            for spec in function.structured_input_signature[1].values()
        ]
        for name, function in signatures.items()
    }
    given = [str(one) for one in read]
    raise AnswerError(
        f"{path} has no signature that takes {files} ({given}). It takes: {taken}. Numbers come "
        "from .npy files."
    )


def _sent(given: _Read, spec: Any, vector: bool) -> Any:
    """What goes to an input of this spec, or None if it takes no such thing."""
    if not given.picture:
        tensor = tf.constant(given.array)
    elif spec.dtype == tf.string:
        tensor = tf.constant([png_bytes(given.array)])
    elif vector and spec.dtype.is_floating and _side(spec.shape):
        tensor = tf.constant(_as_vector(given.array, _side(spec.shape)), spec.dtype)
    else:
        return None
    fits = tensor.dtype == spec.dtype and spec.shape.is_compatible_with(tensor.shape)
    return tensor if fits else None


def _side(shape: Any) -> int:
    """The side of the square that vectors of this shape make, else 0."""
    width = (shape[1] or 0) if shape.rank == 2 else 0
    side = math.isqrt(width)
    return side if side * side == width else 0


def _as_vector(pixels: np.ndarray, side: int) -> np.ndarray:
    """A picture as grey (1, side * side), 0 to 1."""
    grey = pixels @ GREY if pixels.shape[-1] == 3 else pixels[..., 0]
    square = tf.image.resize(grey[..., None], (side, side), antialias=True)
    return np.asarray(square / 255).reshape(1, -1)


def _pixels(file: str, invert: bool) -> _Read:
    pixels = read_picture(file)
    return _Read(255 - pixels if invert else pixels, picture=True)


def _numbers(file: str) -> _Read:
    try:
        array = np.load(file, allow_pickle=False)
        return _Read(np.atleast_2d(array).astype("float32"), picture=False)
    except FileNotFoundError:
        raise AnswerError(f"There is no file {file}.") from None
    except (OSError, ValueError) as error:
        raise AnswerError(f"{file} is not a .npy file: {error}") from error


def as_text(value: np.ndarray) -> str:
    """An output as a person reads it, cut after twelve numbers."""
    flat = value.ravel()
    if flat.dtype == object:
        return " ".join(item.decode() for item in flat)
    shown = " ".join(f"{number:.4g}" for number in flat[:12])
    return shown if len(flat) <= 12 else f"{shown} ... ({' x '.join(map(str, value.shape))})"
