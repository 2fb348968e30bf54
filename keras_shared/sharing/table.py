from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from keras_shared.sharing.report import Reading, SharingReport


def print_report(report: SharingReport, console: Console) -> None:
    """Print a report: a row for each weight, totals, and warnings."""
    table = Table(title=report.name, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in ("weight", "shape", "dtype", "bytes", "read by", "uses", "multiply-adds"):
        number = name in ("bytes", "uses", "multiply-adds")
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(name, justify=justify, no_wrap=name != "read by", overflow="fold")
    for w in report.weights:
        readers = "\n".join(_as_read(name, reading) for name, reading in w.readers.items())
        style = "bold" if w.uses > 1 else None
        count = "?" if w.multiply_adds is None else f"{w.multiply_adds:,}"
        kind = w.dtype + ("" if w.trainable or not w.uses else ", frozen")
        kind += f", {w.regularizer}" if w.regularizer else ""
        shape = "x".join(map(str, w.shape)) or "scalar"
        table.add_row(w.path, shape, kind, f"{w.bytes:,}", readers, str(w.uses), count, style=style)
    console.print(table)
    for title, values in (("total", report.totals), ("bytes stored as", report.stored_bytes)):
        if values:
            sums = Table(title, "", box=box.SIMPLE_HEAD)
            sums.columns[1].justify = "right"
            for key, value in values.items():
                sums.add_row(key.replace("_", " "), "?" if value is None else f"{value:,}")
            console.print(sums)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}")


def _as_read(name: str, reading: Reading) -> str:
    form = "" if reading.form == "as is" else f" ({reading.form})"
    return f"{name}{form}" + (f" x {reading.times}" if reading.times > 1 else "")
