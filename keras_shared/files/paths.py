"""Paths as they are given, seen to be some before anything is done with them."""

import os
import pathlib
from typing import Any

from keras_shared.errors import UsageError

PICTURE = (".png", ".svg")


def as_path(given: Any, name: str, *suffixes: str) -> pathlib.Path:
    """A path that was given.

    Args:
        given: what should be one.
        name: of the argument or option that it was given as.
        *suffixes: what its name may end in; anything by default.

    Raises:
        TypeError: for what is no path.
        UsageError: for an empty one, or another suffix.

    Example:
        >>> from keras_shared.files.paths import as_path
        >>> as_path("runs/mine", "path").name
        'mine'
    """
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(text, str):
        raise TypeError(f"`{name}` is a path, as str or pathlib.Path. Received: {given!r}")
    if not text:
        raise UsageError(f"`{name}` is empty. Expected a path; '.' is the current folder.")
    path = pathlib.Path(text)
    if suffixes and path.suffix not in suffixes:
        raise UsageError(f"`{name}` takes a {' or '.join(suffixes)} file. Received: {text}")
    return path
