"""TensorFlow's start without the notes that its C++ part writes to the terminal."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextmanager
def stderr_to(file: IO[Any]) -> Iterator[None]:
    """Send file descriptor 2 to `file` for a while, that of processes that start meanwhile too."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (AttributeError, OSError, ValueError):  # no stderr: nothing to keep clean
        yield
        return
    try:
        os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def nothing_on_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere for a while; Python's exceptions are raised as ever."""
    with open(os.devnull, "w") as nowhere, stderr_to(nowhere):  # noqa: PTH123
        yield


def import_quietly(module: str) -> None:
    """Import Keras or TensorFlow without the notes of TensorFlow's start.

    Who sets TF_CPP_MIN_LOG_LEVEL, or has imported one of them before, sees what there is.

    Args:
        module: "keras" or "tensorflow".
    """
    if LEVEL in os.environ or "keras" in sys.modules or "tensorflow" in sys.modules:
        return
    os.environ[LEVEL] = "3"
    with nothing_on_stderr():
        importlib.import_module(module)
