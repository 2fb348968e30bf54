"""What the annotations of a function say of its arguments, also where no recipe is read."""

import functools
import typing
from collections.abc import Callable
from typing import Any

from keras_shared.errors import attempt


def check_arguments(function: Callable[..., Any], **values: Any) -> None:
    """See that arguments are what the annotations of `function` say, as a recipe sees to it.

    Numbers are finite. NumPy's numbers count as numbers, and lists and arrays as tuples.

    Args:
        function: what takes them, with types that pydantic knows.
        **values: the arguments to check, by name.

    Raises:
        ValueError: for the first one that is something else.

    Example:
        >>> from pydantic import PositiveInt
        >>> from keras_shared.arguments import check_arguments
        >>> def repeat(times: PositiveInt) -> None:
        ...     check_arguments(repeat, times=times)
        >>> repeat(3)
        >>> repeat(2.5)
        Traceback (most recent call last):
        ...
        ValueError: `times`: expected it to be a valid integer. Received: times=2.5
    """
    from pydantic import ValidationError  # slow to import

    for name, value in values.items():
        check = _adapter(function, name).validate_python
        _, wrong = attempt(functools.partial(check, _plain(value)), ValidationError)
        if wrong:
            found = wrong.errors()[0]
            place = "".join(f"[{part}]" for part in found["loc"] if isinstance(part, int))
            expected = "expected a value there"
            if found["type"] != "missing":
                expected = found["msg"].replace("Input should", "expected it to")
            raise ValueError(f"`{name}`{place}: {expected}. Received: {name}={repr(value)[:80]}")


@functools.cache
def _adapter(function: Callable[..., Any], name: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    kind = typing.get_type_hints(function, include_extras=True)[name]
    config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return TypeAdapter(kind, config=config)


def _plain(value: Any) -> Any:
    """Numbers and tuples of Python in the place of NumPy's, and of lists."""
    value = value.tolist() if type(value).__module__ == "numpy" else value
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value
