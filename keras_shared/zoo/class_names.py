from collections.abc import Sequence
from typing import Any

import numpy as np

DIGITS = tuple("0123456789")


def checked_class_names(given: Any, name: str = "class_names") -> tuple[str, ...]:
    """Names of classes as a tuple, of the digits where none are given.

    Args:
        given: what a user gave.
        name: name of the argument, for the message.

    Raises:
        ValueError: for anything but two texts or more, each once.

    Example:
        >>> from keras_shared.zoo.class_names import checked_class_names
        >>> checked_class_names(["no", "yes"])
        ('no', 'yes')
    """
    if given is None:
        return DIGITS
    names = tuple(given) if isinstance(given, (Sequence, np.ndarray)) else ()
    if isinstance(given, str) or len(names) < 2 or not all(isinstance(n, str) for n in names):
        raise ValueError(
            f"`{name}` must be a list of texts, of two classes or more. Received: {name}={given!r}"
        )
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(f"`{name}` must name each class once. Received twice: {twice}")
    return tuple(map(str, names))
