"""Answers of a published version from its SavedModel alone: no Keras model is built."""

import contextlib
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_shared.errors import KerasSharedError, whole_reason
from keras_shared.pictures import png_bytes, read_picture
from keras_shared.presets.names import version_dir
from keras_shared.serving.session import loaded, run

GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as TensorFlow's decoders weight them


class AnswerError(KerasSharedError, ValueError):
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
    with contextlib.ExitStack() as stack:
        try:
            session, signatures = stack.enter_context(loaded(path))
        except Exception as error:  # whatever a foreign graph makes TensorFlow raise
            raise AnswerError(
                f"TensorFlow cannot load the SavedModel {path}: {whole_reason(error)}. Publish or "
                "copy it again; `keras-shared check` says more."
            ) from error
        signatures = {
            name: signature
            for name, signature in signatures.items()
            if not name.startswith("__saved_model_")
            and all(info.name for info in signature.inputs.values())  # no ragged or sparse ones
        }
        return [_answer(path, session, signatures, files, invert) for files in requests]


def _answer(
    path: pathlib.Path, session: Any, signatures: dict[str, Any], files: list[str], invert: bool
) -> dict[str, np.ndarray]:
    read = [_numbers(file) if file.endswith(".npy") else _pixels(file, invert) for file in files]
    vector = len(read) == 1 and read[0].picture
    # the default first: of an autoencoder it takes pictures, and a square code is none
    names = sorted(signatures, key=lambda name: (name != "serving_default", name))
    taken = {name: [*map(_input_of, sorted(signatures[name].inputs.items()))] for name in names}
    for name in names:
        if len(taken[name]) != len(read):
            continue
        sent = [_sent(given, into, vector) for given, into in zip(read, taken[name], strict=True)]
        inputs = {i.key: v for i, v in zip(taken[name], sent, strict=True) if v is not None}
        if len(inputs) == len(read):
            try:
                outputs = run(session, signatures[name], inputs)
            except (tf.errors.OpError, ValueError, TypeError) as error:
                raise AnswerError(
                    f"The signature '{name}' of {path} fails for {files}: {whole_reason(error)}"
                ) from error
            return dict(sorted(outputs.items()))
    shown = {name: [str(one) for one in inputs] for name, inputs in taken.items()}
    given = [str(one) for one in read]
    raise AnswerError(
        f"{path} has no signature that takes {files} ({given}). It takes: {shown}. Numbers come "
        "from .npy files."
    )


class _Input(NamedTuple):
    """What a signature takes under a name."""

    key: str
    dtype: Any
    shape: Any

    def __str__(self) -> str:
        if self.dtype == tf.string:
            return "an image"
        rank = self.shape.rank
        return f"numbers of shape {tuple(self.shape) if rank is not None else 'any'}"


def _input_of(item: tuple[str, Any]) -> _Input:
    key, info = item
    return _Input(key, tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape))


def _sent(given: _Read, into: _Input, vector: bool) -> np.ndarray | None:
    """What goes to an input, or None if it takes no such thing."""
    if not given.picture:
        sent = given.array
        whole = into.dtype.is_integer or into.dtype.is_bool
        if into.dtype == tf.string or (whole and not np.array_equal(sent, np.trunc(sent))):
            return None
        sent = sent.astype(into.dtype.as_numpy_dtype)
    elif into.dtype == tf.string:
        sent = np.array([png_bytes(given.array)], object)
    elif vector and into.dtype.is_floating and _side(into.shape):
        sent = _as_vector(given.array, _side(into.shape)).astype(into.dtype.as_numpy_dtype)
    else:
        return None
    return sent if into.shape.is_compatible_with(sent.shape) else None


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
        if array.dtype.kind not in "biuf":
            raise ValueError(f"it holds {array.dtype}, and numbers are expected")
        return _Read(np.atleast_2d(array), picture=False)
    except FileNotFoundError:
        raise AnswerError(f"There is no file {file}.") from None
    except (OSError, ValueError) as error:
        raise AnswerError(f"{file} is not a .npy file of numbers: {error}") from error


def as_text(value: np.ndarray) -> str:
    """An output as a person reads it, cut after twelve numbers."""
    flat = value.ravel()
    if flat.dtype == object:
        return " ".join(item.decode() for item in flat)
    shown = " ".join(f"{number:.4g}" for number in flat[:12])
    return shown if len(flat) <= 12 else f"{shown} ... ({' x '.join(map(str, value.shape))})"
