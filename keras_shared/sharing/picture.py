import os
import pathlib

import numpy as np
from matplotlib.figure import Figure

from keras_shared.files.atomic import replacing
from keras_shared.files.paths import PICTURE, as_path
from keras_shared.sharing.report import SharingReport
from keras_shared.text import plot_label

DRAWN = 60  # weights; of a larger model only the shared ones are drawn
MOST_LINES = 4  # from a weight to one reader


def draw_sharing(report: SharingReport, path: str | os.PathLike[str]) -> pathlib.Path:
    """Draw which layer reads which weight: a shared weight is one node with lines to all readers.

    A layer that reads it in several calls has a line for each, four at most.

    Args:
        report: see `sharing_report`.
        path: file to write, `.png` or `.svg`.

    Returns:
        The path.

    Raises:
        TypeError: for what is no report, such as a model, or no path.
        UsageError: for another suffix.
        FileError: if it cannot be written there.

    Example:
        >>> import tempfile
        >>> from keras_shared.sharing import draw_sharing, sharing_report
        >>> from keras_shared.zoo import TiedAutoencoder
        >>> report = sharing_report(TiedAutoencoder(units=(4, 2), input_dim=6))
        >>> draw_sharing(report, tempfile.mkdtemp() + "/sharing.png").name
        'sharing.png'
    """
    if not isinstance(report, SharingReport):
        raise TypeError(
            f"Expected a report: draw_sharing(sharing_report(model), path). Received: {report!r}"
        )
    path = as_path(path, "path", *PICTURE)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with replacing(path) as scratch:
        picture(report).savefig(scratch, dpi=110, metadata=metadata)
    return path


def picture(report: SharingReport) -> Figure:
    """The picture that `draw_sharing` writes."""
    weights = [w for w in report.weights if w.readers]
    left_out = 0
    if len(weights) > DRAWN:
        shared = [w for w in weights if w.uses > 1][: 2 * DRAWN]
        left_out, weights = len(weights) - len(shared), shared
    readers = list(dict.fromkeys(name for w in weights for name in w.readers))
    rows = max(len(weights), len(readers), 1)
    figure = Figure(figsize=(11, 1.2 + 0.32 * rows), layout="constrained")
    axes = figure.subplots()
    heights = {name: _spread(i, len(readers), rows) for i, name in enumerate(readers)}
    for i, weight in enumerate(weights):
        y = _spread(i, len(weights), rows)
        colour = "C1" if weight.uses > 1 else "C0"
        for name, reading in weight.readers.items():
            dashed = "-" if reading.form == "as is" else "--"
            for x, line in _lines(y, heights[name], reading.times):
                axes.plot(x, line, dashed, color=colour, linewidth=1, zorder=1)
        text = plot_label(f"{weight.path}  {'x'.join(map(str, weight.shape))}")
        axes.text(0.98, y, text, ha="right", va="center", fontsize=8)
        axes.plot([1], [y], "o", color=colour, zorder=2)
    read = [pair for w in weights for pair in w.readers.items()]
    times = {name: reading.times for name, reading in read}
    forms = ", ".join(sorted({reading.form for _, reading in read} - {"as is"}))
    for name, y in heights.items():
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "black"}
        axes.text(
            2.02,
            y,
            plot_label(name) + (f" x {times[name]}" if times[name] > 1 else ""),
            ha="left",
            va="center",
            fontsize=8,
            bbox=box,
        )
    axes.set(xlim=(0, 2.6), ylim=(rows, -1))
    axes.axis("off")
    totals, unique = report.totals, report.totals["parameters"]
    apart = totals.get("parameters_without_sharing", unique)
    more = f"; {left_out} weights that are read once are left out" if left_out else ""
    axes.set_title(
        f"{plot_label(report.name)}: {unique:,} parameters, {apart:,} without sharing{more}\n"
        "weights (orange: read more than once, one line a call)  —  readers"
        + (f" (dashed: {forms})" if forms else ""),
        fontsize=10,
    )
    return figure


def _lines(start: float, end: float, times: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """From a weight to a reader: a line for each call, bowed so that they can be told apart."""
    along, count = np.linspace(0, 1, 25), min(times, MOST_LINES)
    straight = start + (end - start) * along
    bows = 0.4 * (np.arange(count) - (count - 1) / 2)
    return [(1 + along, straight + 4 * bow * along * (1 - along)) for bow in bows]


def _spread(index: int, count: int, rows: int) -> float:
    return (index + 0.5) * rows / count - 0.5
