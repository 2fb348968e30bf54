"""One family of errors, and the place where what others raise becomes one of it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LONG = 5000
MOST = 1200  # characters of one reason; Keras and TensorFlow put whole configs and graphs into some
LAST = 700  # of them from its end, where the reason often stands
# lines that say where in a graph or in somebody's source code something happened
PLACES = re.compile(
    r"Graph execution error|Detected at|Node:|<stack traces|File \"|\(\w+\) \w+|\[\[|Traceback|"
    r"~*\^+~*$"
)
# Keras' text on a config that it cannot read, with all of the config: of which class and name
CONFIG = re.compile(
    r"(?:<class|Error when deserializing class) '(?:\w+\.)*(\w+)'>? (?:could not be deserialized|"
    r"using config).*?'name': '([^']*)'.*?Exception encountered: ",
    re.DOTALL,
)
SOURCE = re.compile(r"(?<!\S)\S*[\w/.-]\.(cc|cpp|h|cu|py):\d+(\]|:)?\s?")
COLOUR = re.compile(r"\x1b\[\d*m")  # of Keras' own texts
OPERATION = re.compile(r"\s*\[Op:\w+\]( name: ?\w*)?|\{\{[^}]*\}\}")


class KerasSharedError(Exception):
    """What all errors of this library are: of files, models, recipes, data, servers and ties.

    The message names the file or the server, what was received, what was expected and what to do.

    Example:
        >>> import keras_shared
        >>> from keras_shared.errors import KerasSharedError
        >>> try:
        ...     keras_shared.load("lenet_5")
        ... except KerasSharedError as error:
        ...     print(type(error).__name__)
        LoadError
    """

    def __str__(self) -> str:
        return printable(super().__str__())  # names of files may hold anything


class UsageError(KerasSharedError, ValueError):
    """A call is wrong by itself, whatever the files and models hold that it names."""


@contextmanager
def boundary(
    what: str, error: Callable[[str], Exception] = KerasSharedError, advice: str = ""
) -> Iterator[None]:
    """Whatever is raised inside comes out as `error`, with the whole reason; ours as it is.

    For what reads something from outside, of which nobody can list what it may raise: too deep for
    the stack, too large for the memory, of another type than its reader thinks.

    Args:
        what: the file or server and what is wrong with it, the beginning of the message.
        error: the class of the error, or what makes one of a message.
        advice: what to do, the end of the message.

    Example:
        >>> from keras_shared.errors import KerasSharedError, boundary
        >>> with boundary("facts.json cannot be read", KerasSharedError, "Train again."):
        ...     {}["epochs"]
        Traceback (most recent call last):
        ...
        keras_shared.errors.KerasSharedError: facts.json cannot be read: KeyError: 'epochs'. Train
        again.
    """
    try:
        yield
    except Exception as reason:
        if isinstance(reason, KerasSharedError):
            raise
        text = f"{printable(what)}: {whole_reason(reason).rstrip('.')}."
        raise error(f"{text} {advice}".strip()) from reason


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """An error of ours that is raised inside says besides what to do.

    Example:
        >>> from keras_shared.errors import KerasSharedError, advised
        >>> with advised("Train again."):
        ...     raise KerasSharedError("There is no file facts.json.")
        Traceback (most recent call last):
        ...
        keras_shared.errors.KerasSharedError: There is no file facts.json. Train again.
    """
    try:
        yield
    except KerasSharedError as error:
        if advice not in str(error):
            error.args = (f"{str(error).rstrip('.')}. {advice}", *error.args[1:])
        raise


def attempt(function: Callable[[], Any], *kinds: type[Exception]) -> tuple[Any, Any]:
    """What a function returns, and None; or None, and the error that it raises.

    For what may fail and goes on otherwise: code of others, a file that is not needed.

    Args:
        function: without arguments.
        *kinds: of errors that are expected; all by default.

    Example:
        >>> from keras_shared.errors import attempt
        >>> attempt(lambda: int("1"), ValueError)
        (1, None)
        >>> attempt(lambda: int("one"), ValueError)
        (None, ValueError("invalid literal for int() with base 10: 'one'"))
    """
    try:
        return function(), None
    except Exception as error:
        if not isinstance(error, kinds or Exception):
            raise
        return None, error


def whole_reason(error: BaseException) -> str:
    """What an error says, and what caused it says besides, in one line.

    Places in a graph or in source code are left out, and of a long text the middle.

    Example:
        >>> from keras_shared.errors import whole_reason
        >>> whole_reason(FileNotFoundError(2, "No such file or directory"))
        'FileNotFoundError: No such file or directory'
        >>> whole_reason(ValueError("Graph execution error:\\n\\nkernel.cc:12] rank 3 [Op:Relu]"))
        'ValueError: rank 3'
    """
    reasons: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        text = _said(link)
        if not any(text in other for other in reasons):
            reasons.append(text if isinstance(link, KerasSharedError) else _typed(link, text))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return ", because: ".join(reasons)


def printable(text: str) -> str:
    """Text for a terminal or a message: control characters are shown, not sent.

    Example:
        >>> from keras_shared.errors import printable
        >>> printable("a\\x1b[31mb")
        'a\\\\x1b[31mb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def shortened(text: str) -> str:
    """A text without its middle, if it is too long for a message.

    Example:
        >>> from keras_shared.errors import shortened
        >>> len(shortened("a" * 1_000_000))
        1205
    """
    return text if len(text) <= MOST else f"{text[: MOST - LAST]} ... {text[-LAST:]}"


def _typed(error: BaseException, text: str) -> str:
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename is not None else ""
        return printable(f"{error.strerror}{where}")
    said = COLOUR.sub("", str(error)).partition("Original stack trace")[0]
    # what Keras says of its own trial before it, and of the arguments behind it
    said = said.rpartition("Error encountered:")[2].partition("Arguments received by")[0]
    said = CONFIG.sub(r"\1 '\2': ", said)
    lines = said.splitlines()
    # patterns take long for lines of a hundred thousand signs, as a config can be one
    cut = [line if len(line) < 4 * LONG else f"{line[:LONG]} {line[-LONG:]}" for line in lines]
    kept = [line.strip() for line in cut if not PLACES.match(line.strip())]
    text = " ".join(OPERATION.sub("", SOURCE.sub("", line)) for line in kept if line)
    return shortened(printable(" ".join(text.split())))
