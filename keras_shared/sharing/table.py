from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from keras_shared.sharing.report import SharingReport


def print_report(report: SharingReport, console: Console) -> None:
    """Print a report: a row for each weight, totals, and warnings."""
    table = Table(title=report.name, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in ("weight", "shape", "dtype", "bytes", "read by", "uses", "links"):
        justify: Literal["left", "right"] = (
            "right" if name in ("bytes", "uses", "links") else "left"
        )
        table.add_column(name, justify=justify, no_wrap=name != "read by", overflow="fold")
    for w in report.weights:
        readers = "\n".join(_as_read(name, form) for name, form in w.readers.items())
        style = "bold" if w.uses > 1 else None
        links = "?" if w.links is None else f"{w.links:,}"
        kind = w.dtype + ("" if w.trainable or not w.uses else ", frozen")
        kind += f", {w.regularizer}" if w.regularizer else ""
        shape = "x".join(map(str, w.shape)) or "scalar"
        table.add_row(w.path, shape, kind, f"{w.bytes:,}", readers, str(w.uses), links, style=style)
    console.print(table)
    for title, figures in (("total", report.totals), ("bytes stored as", report.stored_bytes)):
        if figures:
            sums = Table(title, "", box=box.SIMPLE_HEAD)
            sums.columns[1].justify = "right"
            for key, value in figures.items():
                sums.add_row(key.replace("_", " "), "?" if value is None else f"{value:,}")
            console.print(sums)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}")


def _as_read(name: str, form: str) -> str:
    how, _, often = form.partition(", ")
    how = "" if how == "as is" else f" ({how})"
    return f"{name}{how}" + (f" x {often.removesuffix(' times')}" if often else "")
