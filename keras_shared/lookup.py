"""Named things: the library's own, from explicit lists, and those of other packages."""

import difflib
import importlib
import inspect
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from keras_shared.errors import KerasSharedError, attempt, boundary

T = TypeVar("T")
MOST_SHOWN = 200  # characters of a name


class NotInstalledError(KerasSharedError, ImportError):
    """A package of an extra is missing; the message says how to install it."""


class UnknownNameError(KerasSharedError, ValueError):
    """A name stands for nothing; the message has the nearest ones."""


def find(
    name: str, known: Mapping[str, T], what: str, also: Iterable[str] = (), kind: Any = object
) -> T:
    """The object of this name: one of the library's, or `package.module:NAME` from any package.

    Args:
        name: a key of `known`, or where Python finds the object: module, colon, attribute.
        known: the library's own.
        what: what they are, for the message: "data set", "model".
        also: further names that the message may suggest.
        kind: class of what they are; `type[C]` for classes derived from C.

    Raises:
        UnknownNameError: for an unknown name (the nearest ones are in the message), a module or
            attribute that cannot be imported, or one of another kind.

    Example:
        >>> from keras_shared.lookup import find
        >>> find("a", {"a": 1, "b": 2}, "letter"), find("math:pi", {}, "number") > 3
        (1, True)
    """
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        hint = suggestion(name, [*known, *also])
        raise UnknownNameError(
            f"There is no {what} named '{name[:MOST_SHOWN]}'. {hint} One of your own is named "
            "'package.module:NAME'."
        )
    advice = "Expected 'package.module:NAME' with a module that Python finds from here."
    with boundary(f"The {what} '{name[:MOST_SHOWN]}' cannot be imported", UnknownNameError, advice):
        found: T = getattr(importlib.import_module(module), attribute)
    base = next(iter(typing.get_args(kind)), None)
    right = isinstance(found, type) and issubclass(found, base) if base else isinstance(found, kind)
    if not right:
        package = base.__module__.partition(".")[0] if base else ""
        wanted = f"class derived from {package}.{base.__name__}" if base else kind.__name__
        raise UnknownNameError(f"'{name[:MOST_SHOWN]}' is {described(found)}; expected a {wanted}.")
    return found


def described(found: Any) -> str:
    """What a thing is, for a message.

    Example:
        >>> from keras_shared.lookup import described
        >>> described(len), described(int), described((1, 2))
        ('a function', "the class 'int'", 'an object of tuple')
    """
    if isinstance(found, type):
        return f"the class '{found.__name__}'"
    return "a function" if inspect.isroutine(found) else f"an object of {type(found).__name__}"


def needed(extra: str, *modules: str) -> Any:
    """The modules of an extra, imported.

    Args:
        extra: its name in setup.cfg.
        *modules: full names of modules.

    Returns:
        The module, or a list of several.

    Raises:
        NotInstalledError: if one is not installed.

    Example:
        >>> from keras_shared.lookup import needed
        >>> needed("onnx", "no_package")
        Traceback (most recent call last):
        ...
        keras_shared.lookup.NotInstalledError: no_package is not installed: pip install
        "keras_shared[onnx]"
    """
    found, lacking = attempt(lambda: [*map(importlib.import_module, modules)], ImportError)
    if lacking:
        raise NotInstalledError(
            f'{lacking.name} is not installed: pip install "keras_shared[{extra}]"'
        ) from lacking
    return found if len(found) > 1 else found[0]


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest of the known names, or with all of them.

    Example:
        >>> from keras_shared.lookup import suggestion
        >>> suggestion("num_clases", ["num_classes", "dtype"])
        "Did you mean 'num_classes'?"
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if nearest:
        return f"Did you mean {' or '.join(map(repr, nearest))}?"
    return f"There are: {', '.join(map(repr, names)) or 'none'}."
