"""Answers of a published version from its SavedModel alone: no Keras model is built."""

import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from keras_shared.loading import version_dir


class AnswerError(ValueError):
    """A file cannot be sent to a model; the message says why."""


def answer(model: str | os.PathLike[str], files: list[str]) -> dict[str, str]:
    """Send one file, or the files of one pair, to the signature that takes as many.

    Args:
        model: a published name, or a folder of `keras_shared.publish`.
        files: PNG or JPEG images; or one .npy file with one vector, or a batch of them.

    Returns:
        Each output of the signature, as text.

    Raises:
        AnswerError: for a file that is no image, or a model that takes other inputs.
    """
    path = version_dir(model)
    try:
        signatures = tf.saved_model.load(os.fspath(path)).signatures
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise AnswerError(f"{path} is corrupt and cannot be served: {error}") from error
    vectors = all(file.endswith(".npy") for file in files)
    contents = [_vector(file) if vectors else _image(file) for file in files]
    for name, function in signatures.items():  # noqa: B007
        keys = list(function.structured_input_signature[1])
        dtypes = {spec.dtype for spec in function.structured_input_signature[1].values()}
        if len(keys) == len(files) and (dtypes == {tf.string}) != vectors:
            break
    else:
        raise AnswerError(
            f"{path} has no signature for {len(files)} {'.npy file' if vectors else 'image'}(s). "
            f"It has: {sorted(signatures)}; verify takes two images, vectors come in .npy files."
        )
    try:
        outputs = function(**dict(zip(sorted(keys), map(tf.constant, contents), strict=True)))
    except tf.errors.InvalidArgumentError as error:
        raise AnswerError(f"{name} refused {files}: {error.message}") from error
    return {key: _text(value.numpy()) for key, value in sorted(outputs.items())}


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


def _text(value: Any) -> str:
    flat = value.ravel()
    if flat.dtype == object:
        return " ".join(item.decode() for item in flat)
    shown = " ".join(f"{number:.4g}" for number in flat[:12])
    return shown if len(flat) <= 12 else f"{shown} ... ({' x '.join(map(str, value.shape))})"
