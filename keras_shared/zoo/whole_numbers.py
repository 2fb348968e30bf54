from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any


def whole_numbers(given: Any, name: str, parts: Sequence[str] = (), any_size: bool = False) -> Any:
    """An argument that must be a sequence of whole numbers above 0, as a tuple.

    Args:
        given: what a user gave.
        name: name of the argument, for the message.
        parts: what its numbers are, of an argument that has so many; any number of them otherwise.
        any_size: whether None may stand for any but the last.

    Raises:
        ValueError: for anything else.

    Example:
        >>> from keras_shared.zoo.whole_numbers import whole_numbers
        >>> whole_numbers([28, 28, 1], "image_shape", ("height", "width", "channels"))
        (28, 28, 1)
    """
    found = tuple(given) if isinstance(given, Iterable) else (0,)
    good = all(
        any_size and i + 1 < len(found) if n is None else isinstance(n, Integral) and int(n) > 0
        for i, n in enumerate(found)
    )
    if not good or (parts and len(found) != len(parts)):
        wanted = f"({', '.join(parts)}), each a whole number" if parts else "whole numbers"
        more = ", or None for any height or width" if any_size else ""
        raise ValueError(f"`{name}` must be {wanted} above 0{more}. Received: {name}={given!r}")
    return tuple(n if n is None else int(n) for n in found)


IMAGE = ("height", "width", "channels")
