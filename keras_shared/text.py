"""Names and other text from outside, for the place where it is shown: as it is, and nothing more.

What is made of it is never obeyed: no escape codes in a terminal, no table, link or HTML in
Markdown, no formula in a picture.
"""

import re
import sys
from contextlib import suppress

from keras_shared.errors import printable

NOT_UTF8 = re.compile("[\udc80-\udcff]")  # a byte that is not, as "surrogateescape" holds it
# what may begin something in Markdown; an entity of HTML is text everywhere but in code
_MARKUP = re.compile(r"[|`<\\]|&(?=#|\w)|\](?=[(\[:]|$)")


def one_line(value: object) -> str:
    """Text for a cell or a line of its own: line ends and control characters are shown.

    Example:
        >>> from keras_shared.text import one_line
        >>> print(one_line("two\\nlines \\x1b[31m"))
        two\\nlines \\x1b[31m
    """
    return printable(str(value)).replace("\n", "\\n").replace("\t", "\\t")


def log_line(text: str) -> None:
    """Print a text on stderr, if there is anybody who reads it: a server goes on even so."""
    with suppress(OSError):
        # in one piece: threads write at once
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def markdown(value: object) -> str:
    """The same in Markdown, in a table too.

    Example:
        >>> from keras_shared.text import markdown
        >>> markdown("a|b <img>")
        'a&#124;b &#60;img>'
    """
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", one_line(value))


def code(value: object) -> str:
    """The same as code in Markdown.

    Example:
        >>> from keras_shared.text import code
        >>> code("model.units"), code("a|b")
        ('`model.units`', '<code>a&#124;b</code>')
    """
    text = one_line(value)
    return f"<code>{markdown(value)}</code>" if set("`|") & {*text} else f"`{text}`"


def fenced(text: str) -> list[str]:
    """The lines of a text for a block between two lines of backquotes in Markdown.

    Example:
        >>> from keras_shared.text import fenced
        >>> fenced("to be\\n```")
        ['to be', '` ` `']
    """
    return printable(text).replace("```", "` ` `").split("\n")


def plot_label(value: object) -> str:
    """The same in a picture of Matplotlib, which reads formulas and leaves out `_names`.

    Example:
        >>> from keras_shared.text import plot_label
        >>> print(plot_label("$x^$"), plot_label("_a"))
        \\$x^\\$  _a
    """
    text = one_line(value).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
