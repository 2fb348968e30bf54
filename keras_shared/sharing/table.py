import io
import itertools
import re
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.text import Text

from keras_shared.sharing.report import Reading, SharingReport, Weight
from keras_shared.terminal import TextTable, console
from keras_shared.text import one_line

SHORTEST = 10  # columns of a weight's path and of its readers, however narrow the terminal
Row = tuple[str | list[str], ...]  # cells; several lines in one as a list


def print_report(report: SharingReport, to: Console) -> None:
    """Print a report: a row for each weight, totals, and warnings."""
    dtypes = {w.dtype for w in report.weights}
    one = dtypes.pop() if len(dtypes) == 1 else ""  # stands in the title, for width
    columns: dict[str, list[str] | list[list[str]]] = {
        "weight": [w.path for w in report.weights],
        "shape": [as_shape(w.shape) for w in report.weights],
        "kind": [_kind(w, one) for w in report.weights],
        "bytes": [f"{w.bytes:,}" for w in report.weights],
        "read by": [
            [as_read(name, how) for name, how in w.readers.items()] for w in report.weights
        ],
        "uses": [str(w.uses) for w in report.weights],
        "multiply-adds": [
            "?" if w.multiply_adds is None else f"{w.multiply_adds:,}" for w in report.weights
        ],
    }
    if not any(columns["kind"]):
        del columns["kind"]
    widths = {name: _width(name, cells) for name, cells in columns.items()}
    paths, readers = widths["weight"], widths["read by"]
    both = to.width - sum(2 + width for width in widths.values()) + 2 + paths + readers
    paths = max(min(paths, max(both - readers, both // 2)), SHORTEST)
    readers = max(both - paths, SHORTEST)
    columns["weight"] = [_in_lines(w.path, paths) for w in report.weights]
    columns["read by"] = [
        [line for name, how in w.readers.items() for line in _in_lines(as_read(name, how), readers)]
        for w in report.weights
    ]
    table = TextTable(
        title=f"{report.name}, {one}" if one else report.name,
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    for name, cells in columns.items():
        number = name in ("bytes", "uses", "multiply-adds")
        justify: Literal["left", "right"] = "right" if number else "left"
        whole = _width(name, cells) if number or name == "shape" else None
        table.add_column(name, justify=justify, width=whole)
    rows = zip(*columns.values(), strict=True)
    for w, row in zip(report.weights, rows, strict=True):
        table.add_row(*row, style="bold" if w.uses > 1 else None)
    to.print(table)
    for title, values in (("total", report.totals), ("bytes stored as", report.stored_bytes)):
        if values:
            sums = TextTable(title, "", box=box.SIMPLE_HEAD)
            sums.columns[1].justify = "right"
            for key, value in values.items():
                sums.add_row(key.replace("_", " "), "?" if value is None else f"{value:,}")
            to.print(sums)
    for warning in report.warnings:
        to.print(Text.assemble(("warning:", "yellow"), f" {one_line(warning)}"))


def _width(name: str, cells: Sequence[str | list[str]]) -> int:
    """The columns that a column of a table takes."""
    lines = (cell if isinstance(cell, list) else [cell] for cell in cells)
    return max(map(len, [name, *itertools.chain(*lines)]))


def _in_lines(path: str, width: int) -> list[str]:
    """A path in lines that end at its slashes and spaces, where it is longer than `width`."""
    lines = [""]
    for part in re.findall(r"[^/ ]*[/ ]|[^/ ]+", path):
        if lines[-1] and len((lines[-1] + part).rstrip(" ")) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip(" ") for line in lines]


def _kind(weight: Weight, dtype: str) -> str:
    """What sets a weight apart from one of `dtype` that is trained."""
    kinds = [weight.dtype] if weight.dtype != dtype else []
    kinds += ["frozen"] if weight.uses and not weight.trainable else []
    kinds += [weight.regularizer] if weight.regularizer else []
    return ", ".join(kinds)


def as_shape(shape: tuple[int, ...]) -> str:
    """A shape in a cell of a table."""
    return "x".join(map(str, shape)) or "scalar"


def as_form(form: str) -> str:
    """How a weight is read, in brackets behind a name."""
    return "" if form == "as is" else f" ({form})"


def as_read(name: str, reading: Reading) -> str:
    """A reader in a cell of a table."""
    return f"{name}{as_form(reading.form)}" + (f" x {reading.times}" if reading.times > 1 else "")


def as_text(sections: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Titles, with rows of cells below, in 80 columns."""
    file = io.StringIO()
    to = console(width=80, file=file)
    for title, rows in sections:
        to.print(one_line(title))
        table = TextTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for number in range(len(rows[0]) if rows else 0):
            table.add_column(max_width=36 if number == 0 else None)
        for row in rows:
            table.add_row(*row)
        if rows:
            to.print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())
