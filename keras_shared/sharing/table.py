from rich.console import Console
from rich.table import Table

from keras_shared.sharing.report import SharingReport


def print_report(report: SharingReport, console: Console) -> None:
    """Print a report: a row for each weight, totals, and warnings."""
    table = Table("weight", "shape", "dtype", "read by", "uses", "links", title=report.name)
    for column in table.columns[4:]:
        column.justify = "right"
    for w in report.weights:
        readers = "\n".join(
            name if form == "as is" else f"{name} ({form})" for name, form in w.readers.items()
        )
        style = "bold" if w.uses > 1 else None
        links = "?" if w.links is None else f"{w.links:,}"
        frozen = "" if w.trainable or not w.uses else ", frozen"
        shape = " x ".join(map(str, w.shape)) or "scalar"
        table.add_row(w.path, shape, w.dtype + frozen, readers, str(w.uses), links, style=style)
    console.print(table)
    for title, figures in (
        ("totals", report.totals),
        ("weights stored, bytes", report.stored_bytes),
    ):
        if figures:
            lines = ", ".join(
                f"{key.replace('_', ' ')} {'?' if value is None else format(value, ',')}"
                for key, value in figures.items()
            )
            console.print(f"{title}: {lines}")
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}")
