"""Answers of a published version from its SavedModel alone: no Keras model is built."""

import contextlib
import math
import os
import pathlib
import types
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_shared.errors import KerasSharedError, boundary, printable
from keras_shared.files.npy import MAGIC, read_npy
from keras_shared.files.pictures import png_bytes, read_picture
from keras_shared.presets.names import version_dir
from keras_shared.serving.messages import cast
from keras_shared.serving.session import loaded, run
from keras_shared.text import NOT_UTF8

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
    model: str | os.PathLike[str], requests: Sequence[list[str | bytes]], invert: bool = False
) -> list[dict[str, np.ndarray]]:
    """Send each request, one file or the files of one pair, to the signature that takes it.

    Pictures are read as a person sees them (`keras_shared.files.pictures.read_picture`). For a
    model of vectors a picture becomes a grey square of as many pixels, 0 to 1.

    Args:
        model: name of a preset, a folder of versions (the newest answers), or one SavedModel.
        requests: for each answer, pictures; or one .npy file with a vector, or a batch. Files,
            or their bytes.
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
    failed = f"TensorFlow cannot load the SavedModel {path}"
    with contextlib.ExitStack() as stack:
        with boundary(failed, AnswerError, "Publish it again; `keras-shared check` says more."):
            session, signatures = stack.enter_context(loaded(path))
            taken = {
                name: [*map(_input_of, sorted(signature.inputs.items()))]
                for name, signature in signatures.items()
                if not name.startswith("__saved_model_")
                and all(info.name for info in signature.inputs.values())  # no ragged or sparse ones
            }
        without = [one for s in taken.values() if not any(o.text for o in s) for one in s]
        reads_texts = any(one.text for of_signature in taken.values() for one in of_signature)
        reads_texts = reads_texts and not any(o.picture or o.dtype.is_floating for o in without)
        if reads_texts and not all(is_npy(file) for files in requests for file in files):
            raise AnswerError(
                f"{path} reads texts, and no files. Give it the text itself: keras-shared predict "
                "MODEL --text 'a text'."
            )
        return [_answer(path, session, signatures, taken, files, invert) for files in requests]


def _answer(
    path: pathlib.Path,
    session: Any,
    signatures: Mapping[str, Any],
    taken: "dict[str, list[_Input]]",
    files: list[str | bytes],
    invert: bool,
) -> dict[str, np.ndarray]:
    read = [_numbers(file) if is_npy(file) else _pixels(file, invert) for file in files]
    vector = len(read) == 1 and read[0].picture
    named = [file if isinstance(file, str) else "the standard input" for file in files]
    # the default first: of an autoencoder it takes pictures, and a square code is none
    for name in _default_first(taken):
        if len(taken[name]) != len(read):
            continue
        with boundary(f"The signature '{name}' of {path} fails for {named}", AnswerError):
            pairs = zip(read, taken[name], strict=True)
            sent = [(into.key, _sent(given, into, vector)) for given, into in pairs]
            inputs = {key: value for key, value in sent if value is not None}
            if len(inputs) == len(read):
                return _outputs(session, name, signatures[name], inputs)
    shown = {name: [str(one) for one in inputs] for name, inputs in taken.items()}
    given = [str(one) for one in read]
    raise AnswerError(
        f"{path} has no signature that takes {named} ({given}). It takes: {shown}. Numbers come "
        "from .npy files."
    )


def answer_texts(
    model: str | os.PathLike[str],
    texts: Sequence[str],
    options: Mapping[str, float] = types.MappingProxyType({}),
) -> list[dict[str, np.ndarray]]:
    """Send each text to the signature that takes one, with as many of the options as it can.

    Args:
        model: as of `answer`.
        texts: each is a request.
        options: numbers that a signature may ask for besides, by name, such as `temperature`.

    Returns:
        For each text, the outputs of the signature.

    Raises:
        LoadError: if there is no such model.
        AnswerError: for a text that is empty or not in UTF-8; if no signature takes a text; or if
            TensorFlow cannot load the model.
    """
    for text in texts:
        _check_text(text)
    path = version_dir(model)
    failed = f"TensorFlow cannot load the SavedModel {path}"
    with contextlib.ExitStack() as stack:
        with boundary(failed, AnswerError, "Publish it again; `keras-shared check` says more."):
            session, signatures = stack.enter_context(loaded(path))
            best = max(
                _default_first(signatures), key=lambda name: _takes_text(signatures[name], options)
            )
        if not _takes_text(signatures[best], options):
            names = sorted(name for name in signatures if not name.startswith("__saved_model_"))
            raise AnswerError(
                f"{path} has no signature that takes a text. It has: {names}. Give it files."
            )
        answers = []
        for text in texts:
            with boundary(f"The signature '{best}' of {path} fails for {text!r}", AnswerError):
                sent = {
                    key: np.full((1,) * (into.shape.rank or 0), text.encode(), object)
                    if (into := _input_of((key, info))).dtype == tf.string
                    else np.array([options[key]], into.dtype.as_numpy_dtype)
                    for key, info in signatures[best].inputs.items()
                }
                answers.append(_outputs(session, best, signatures[best], sent))
        return answers


def _outputs(
    session: Any, name: str, signature: Any, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What a signature gives, by name; ragged and sparse outputs are none that can be shown."""
    left = sorted(key for key, info in signature.outputs.items() if not info.name)
    said = f"The outputs {left} of the signature '{name}' are ragged or sparse"
    if len(left) == len(signature.outputs):
        raise AnswerError(
            f"{said}: it has no other. Ask another signature, or let it give tensors."
        )
    if left:
        warnings.warn(f"{said}, and left out.", stacklevel=2)
    return dict(sorted(run(session, signature, inputs).items()))


def _default_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != "serving_default", name))


def _takes_text(signature: Any, options: Mapping[str, float]) -> int:
    """How many inputs it has, if one is a text and the options name the others; else 0."""
    inputs = [_input_of(item) for item in signature.inputs.items()]
    texts = [one.key for one in inputs if one.dtype == tf.string and one.shape.rank in (0, 1, 2)]
    others = {one.key for one in inputs} - {*texts}
    known = len(texts) == 1 and not texts[0].endswith("_bytes") and others <= {*options}
    return len(inputs) if known else 0


def _check_text(text: str) -> None:
    if not text.strip(" "):
        raise AnswerError(f"A text is expected. Received: {text!r}, which is empty.")
    if wrong := NOT_UTF8.search(text):  # a terminal's bytes arrive so
        byte, place = ord(wrong[0]) - 0xDC00, wrong.start()
        raise AnswerError(
            f"The text is not in UTF-8: byte 0x{byte:02X} at place {place}. Convert it, or set the "
            "terminal to UTF-8."
        )


class _Input(NamedTuple):
    """What a signature takes under a name."""

    key: str
    dtype: Any
    shape: Any

    @property
    def picture(self) -> bool:
        """Whether it takes an encoded picture: TensorFlow's clients know it by its name."""
        return bool(self.dtype == tf.string) and self.key.endswith("_bytes")

    @property
    def text(self) -> bool:
        return bool(self.dtype == tf.string) and not self.picture

    def __str__(self) -> str:
        if self.dtype == tf.string:
            return "an image" if self.picture else "a text"
        rank = self.shape.rank
        return f"numbers of shape {tuple(self.shape) if rank is not None else 'any'}"


def _input_of(item: tuple[str, Any]) -> _Input:
    key, info = item
    return _Input(key, tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape))


def _sent(given: _Read, into: _Input, vector: bool) -> np.ndarray | None:
    """What goes to an input, or None if it takes no such thing."""
    if not given.picture:
        array = given.array  # or one row of a batch
        fits = into.shape.rank is not None and into.shape.is_compatible_with(array.shape)
        sent = array if fits else np.atleast_2d(array)
        whole = into.dtype.is_integer or into.dtype.is_bool
        if into.dtype == tf.string or (whole and not np.array_equal(sent, np.trunc(sent))):
            return None
        if not into.shape.is_compatible_with(sent.shape):
            return None
        sent = cast(sent, np.dtype(into.dtype.as_numpy_dtype).name)
    elif into.picture:
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


def is_npy(file: str | bytes) -> bool:
    return file.startswith(MAGIC) if isinstance(file, bytes) else file.lower().endswith(".npy")


def _pixels(file: str | bytes, invert: bool) -> _Read:
    pixels = read_picture(file)
    return _Read(255 - pixels if invert else pixels, picture=True)


def _numbers(file: str | bytes) -> _Read:
    return _Read(read_npy(file, AnswerError), picture=False)


def as_text(value: np.ndarray) -> str:
    """An output as a person reads it, cut after twelve numbers."""
    flat = value.ravel()
    if flat.dtype == object:
        return printable(" ".join(item.decode(errors="backslashreplace") for item in flat[:100]))
    shown = " ".join(f"{number:.4g}" for number in flat[:12])
    return shown if len(flat) <= 12 else f"{shown} ... ({' x '.join(map(str, value.shape))})"
