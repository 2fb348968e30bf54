import io
from typing import TYPE_CHECKING

from rich import box

from keras_shared.terminal import TextTable, console
from keras_shared.text import one_line

if TYPE_CHECKING:
    from keras_shared.signals.report import LayerSignals, SignalReport

WIDTH = 80
COLUMNS = ("mean", "dev.", "sat.", "dead", "grad. mean", "grad. dev.", "J max", "J rms")


def as_table(report: "SignalReport") -> str:
    """A report as text of at most 80 columns: a row for each use, shared weights, warnings."""
    file = io.StringIO()
    to = console(width=WIDTH, file=file)
    table = TextTable(
        title=f"{report.name}: {report.examples} examples, gradient of {report.loss}",
        title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0),
        pad_edge=False,
    )  # fmt: skip
    table.add_column("layer (use)")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for layer in report.layers:
        table.add_row(*_row(layer))
    to.print(table)
    if ties := [tie for tie in report.ties if len(tie.shape) > 1]:
        shared = TextTable(title="gradient of shared kernels, by use", title_justify="left",
                           box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # fmt: skip
        for name in ("weight", "uses", "length", "sum", "cosine"):
            shared.add_column(name)
        for tie in ties:
            lengths = [_number(norm) for norm in tie.norms]
            shared.add_row(tie.weight, list(tie.uses), lengths, _number(tie.norm),
                           "-" if tie.cosine is None else f"{tie.cosine:.2f}")  # fmt: skip
        to.print(shared)
    for warning in report.warnings:
        to.print(f"warning: {one_line(warning)}")
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _row(layer: "LayerSignals") -> list[str]:
    jacobian = layer.jacobian
    steps = f", {layer.steps} steps" if layer.steps > 1 else ""
    return [
        f"{layer.name}{steps}",
        _number(layer.mean),
        _number(layer.deviation),
        _share(layer.saturated),
        _share(layer.dead),
        _number(layer.gradient_mean),
        _number(layer.gradient_deviation),
        _number(None if jacobian is None else jacobian.values[0]),
        _number(None if jacobian is None else jacobian.root_mean_square),
    ]


def _number(value: float | None) -> str:
    """Two digits, in at most seven characters."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value == 0 or 0.1 <= abs(value) < 1000 else f"{value:.0e}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
