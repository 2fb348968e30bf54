"""What the commands print: the one place where text from outside meets rich."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from keras_shared.errors import printable
from keras_shared.text import one_line

T = TypeVar("T")


def console(**options: Any) -> Console:
    """A console that takes text as it is: no markup, no names of emoji, no colours by content.

    Args:
        **options: of `rich.console.Console`.
    """
    return Console(markup=False, emoji=False, highlight=False, **options)


class TextTable(Table):
    """A table whose cells are text: markup and control characters are shown.

    Example:
        >>> from keras_shared.terminal import TextTable, console
        >>> table = TextTable("name")
        >>> table.add_row("a[/b]\\x1b")
        >>> console(width=20).print(table)
        ┏━━━━━━━━━━━┓
        ┃ name      ┃
        ┡━━━━━━━━━━━┩
        │ a[/b]\\x1b │
        └───────────┘
    """

    def __init__(self, *headers: str, title: str | None = None, **options: Any) -> None:
        super().__init__(title=None if title is None else Text(one_line(title)), **options)
        for header in headers:
            self.add_column(header)

    def add_column(self, header: Any = "", *given: Any, **options: Any) -> None:
        """Add a column, as `rich.table.Table` has it; long words go on in the next line."""
        super().add_column(Text(one_line(header)), *given, **{"overflow": "fold"} | options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row; a cell is text in one line, or a list of such lines."""
        lines = ([cell] if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*(Text("\n".join(map(one_line, one))) for one in lines), **options)


def say(text: object, file: TextIO | None = None) -> None:
    """Print a text with names in it; control characters are shown.

    Args:
        text: what to print; its line ends are kept.
        file: where to; default: stdout.
    """
    print(printable(str(text)), file=file or sys.stdout, flush=True)


def progress(jobs: Sequence[T], what: str) -> Iterator[T]:
    """The jobs, one after another, with a bar that names what is done."""
    left = TimeRemainingColumn(elapsed_when_finished=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, left) as bar:
        yield from bar.track(jobs, description=one_line(what))
