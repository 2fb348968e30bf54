"""A number that tells whether your own data are those of the training."""

import os
import zlib
from typing import Any

import numpy as np

from keras_shared.datasets.lazy_images import LazyImages


def digest_of(split: Any) -> int:
    """A number that is another when a split has other examples, labels, or what of them validates.

    Of files it knows their names, in the folder that holds all of them, and not their content.

    Args:
        split: a named tuple of a data set, such as `keras_shared.datasets.LabelledImages`.

    Example:
        >>> from keras_shared.datasets import TextStream
        >>> from keras_shared.datasets.digest import digest_of
        >>> digest_of(TextStream("to be")) == digest_of(TextStream("or not"))
        False
    """
    number = 0
    for value in split:
        for content in _contents(value):
            number = zlib.crc32(content, number)
    return number


def _contents(value: Any) -> list[Any]:
    if isinstance(value, LazyImages):
        value = value.sources
        if value.dtype.kind == "U" and len(value):
            files = value.tolist()
            begin = len(os.path.commonpath(files))
            value = np.array([file[begin:] for file in files], object)
    if isinstance(value, np.ndarray):
        plain = value.dtype != object
        return [np.ascontiguousarray(value)] if plain else ["\0".join(map(str, value)).encode()]
    return [value.encode()] if isinstance(value, str) else []
