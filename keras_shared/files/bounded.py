"""Files from outside, read within limits: regular ones alone, no larger than expected."""

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from keras_shared.errors import KerasSharedError, advised, boundary
from keras_shared.files.limits import MOST_TEXT
from keras_shared.files.paths import as_path


def read_bytes(
    path: str | os.PathLike[str], most: int, error: type[KerasSharedError] = KerasSharedError
) -> bytes:
    """The content of a regular file; a pipe, a device or a folder is not waited for.

    Args:
        path: the file.
        most: bytes that it may have.
        error: the class of the error.

    Raises:
        KerasSharedError: of class `error`, if there is no such file, it is no regular file, or it
            is larger.

    Example:
        >>> from keras_shared.files.bounded import read_bytes
        >>> read_bytes("/dev/zero", 100)
        Traceback (most recent call last):
        ...
        keras_shared.errors.KerasSharedError: /dev/zero is no regular file.
    """
    as_path(path, "path")
    name = os.fspath(path)
    with regular_file(path, error) as (file, size), boundary(f"{name} cannot be read", error):
        content = file.read(size) if size <= most else b""
    if size > most:
        raise error(f"{name} has {size:,} bytes, more than the {most:,} allowed.")
    return content


@contextmanager
def regular_file(
    path: str | os.PathLike[str], error: type[KerasSharedError] = KerasSharedError
) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file to read, and tell its size.

    Args:
        path: the file.
        error: the class of the error.

    Raises:
        KerasSharedError: of class `error`, if there is no such file, or it is no regular file.
    """
    as_path(path, "path")
    name = os.fspath(path)
    with boundary(f"{name} cannot be read", error):
        try:
            # a pipe without a writer would be waited for
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise error(f"There is no file {name}.") from None
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{name} is a folder, and a file is expected.")
    with os.fdopen(descriptor, "rb") as file:
        kept = os.fstat(descriptor)
        if not stat.S_ISREG(kept.st_mode):
            raise error(f"{name} is no regular file.")
        yield file, kept.st_size


def read_stdin(most: int, error: type[KerasSharedError] = KerasSharedError) -> bytes:
    """What is piped in, until its end.

    Args:
        most: bytes that it may have.
        error: the class of the error.

    Raises:
        KerasSharedError: of class `error`, if there is more, or it cannot be read.
    """
    with boundary("The standard input cannot be read", error):
        content = sys.stdin.buffer.read(most + 1)
    if len(content) > most:
        raise error(f"The standard input has more than the {most:,} bytes allowed.")
    return content


def read_text(
    path: str | os.PathLike[str],
    error: type[KerasSharedError] = KerasSharedError,
    most: int = MOST_TEXT,
) -> str:
    """The content of a regular file as UTF-8.

    Args:
        path: the file.
        error: the class of the error.
        most: bytes that it may have.

    Raises:
        KerasSharedError: of class `error`, as of `read_bytes`, or if it is no text.
    """
    content = read_bytes(path, most, error)
    if b"\0" in content:
        raise error(f"{os.fspath(path)} is no text: it holds NUL bytes.")
    with boundary(f"{os.fspath(path)} is no text in UTF-8", error):
        return content.decode("utf-8")


def read_json(
    path: str | os.PathLike[str], error: type[KerasSharedError] = KerasSharedError, advice: str = ""
) -> dict[str, Any]:
    """The object that a file of JSON holds.

    Args:
        path: the file.
        error: the class of the error.
        advice: what to do, the end of its message.

    Raises:
        KerasSharedError: of class `error`, as of `read_text`, or if it holds no JSON object.
    """
    name = os.fspath(path)
    with advised(advice):
        text = read_text(path, error)
    if not text.strip():
        raise error(f"{name} is empty, and JSON is expected. {advice}".strip())
    with boundary(f"{name} is no JSON", error, advice):
        value = json.loads(text)
    if not isinstance(value, dict):
        found = type(value).__name__
        raise error(f"{name} holds a {found}, and a JSON object is expected. {advice}".strip())
    return value
