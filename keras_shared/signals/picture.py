import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from keras_shared.files.atomic import replacing
from keras_shared.files.paths import PICTURE, as_path
from keras_shared.signals.report import Histogram, SignalReport
from keras_shared.text import plot_label

SHOWN = 24  # layers; of more, every second, third ...
STRIPS = (
    ("deviation", "deviation of the outputs", True),
    ("gradient_deviation", "deviation of the gradient", True),
    ("kernel_gradient_deviation", "deviation of the kernel's", True),
    ("saturated", "share saturated", False),
    ("dead", "share of units dead", False),
)


def draw_signals(
    reports: SignalReport | Sequence[SignalReport], path: str | os.PathLike[str]
) -> pathlib.Path:
    """Draw how signals pass through a model: histograms by layer, or a strip over epochs.

    Of one report: for each layer how often its outputs, the gradients that come back, and those of
    its kernel take each value, as in figures 6, 7 and 8 of Glorot & Bengio 2010. Of several, as of
    `keras_shared.signals.SignalLog`: layers down, epochs to the right, as figure 9 follows the
    kernels' gradients through training.

    Args:
        reports: one, or several of one model.
        path: file to write, `.png` or `.svg`.

    Returns:
        The path.

    Raises:
        UsageError: for another suffix.
        ValueError: without a report.
        FileError: if it cannot be written there.

    Example:
        >>> import tempfile
        >>> import keras, numpy as np
        >>> from keras_shared.signals import draw_signals, signal_report
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh")])
        >>> report = signal_report(model, np.ones((8, 4), "float32"))
        >>> draw_signals(report, tempfile.mkdtemp() + "/signals.png").name
        'signals.png'
    """
    path = as_path(path, "path", *PICTURE)
    several = [reports] if isinstance(reports, SignalReport) else list(reports)
    if not several or not several[0].layers:
        raise ValueError("There is nothing to draw. Expected a report with layers.")
    drawn = histograms(several[0]) if len(several) == 1 else strip(several)
    with replacing(path) as scratch:
        drawn.savefig(scratch, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def histograms(report: SignalReport) -> Figure:
    """Outputs and gradients of each layer: how they are spread, one curve each, and how far."""
    kinds = (
        ("outputs", "deviation", "output", "forward: outputs"),
        (
            "gradients",
            "gradient_deviation",
            "gradient",
            "backward: gradients of one example's loss",
        ),
        ("kernel_gradients", "kernel_gradient_deviation", "gradient", "gradients of the kernels"),
    )
    every = -(-len(report.layers) // SHOWN)
    layers = report.layers[::every]
    figure = Figure(figsize=(16, 7), layout="constrained")
    above, below = figure.subplots(2, 3, height_ratios=(3, 2))
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(layers)))
    for upper, axes, (kind, key, of, title) in zip(above, below, kinds, strict=True):
        curves = [(getattr(one, kind), getattr(one, key) or 0.0) for one in layers]
        _curves(upper, curves, colours, [one.name for one in layers], of)
        upper.set(title=title)
        known = [(i, getattr(one, key)) for i, one in enumerate(report.layers)]
        known = [(i, d) for i, d in known if d is not None and np.isfinite(d) and d > 0]
        axes.plot(*zip(*known, strict=True), "o-", markersize=3) if known else None
        axes.set(yscale="log", ylabel="deviation", xlim=(-0.5, len(report.layers) - 0.5))
        each = -(-len(report.layers) // 30)
        names = [plot_label(one.name) for one in report.layers]
        axes.set_xticks(range(0, len(names), each), names[::each], rotation=60, ha="right",
                        fontsize=7)  # fmt: skip
    handles, labels = above[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7)
    more = f"; above every {every} layers" if every > 1 else ""
    figure.suptitle(f"{plot_label(report.name)}: {report.examples} examples{more}", fontsize=11)
    return figure


def strip(reports: Sequence[SignalReport]) -> Figure:
    """Layers down, epochs to the right, a panel for each number that is known."""
    names = [layer.name for layer in reports[0].layers]
    tables = {}
    for key, title, log in STRIPS:
        rows = [[getattr(layer, key) for layer in report.layers] for report in reports]
        values = np.array([[np.nan if v is None else v for v in row] for row in rows], float).T
        if np.isfinite(values).any():
            tables[title] = (values, log)
    height = 1.6 + 0.2 * len(names)
    figure = Figure(figsize=(3.4 + 2.6 * len(tables), min(height, 14)), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (title, (values, log)) in zip(panels, tables.items(), strict=True):
        positive = values[np.isfinite(values) & (values > 0)]
        scale: Any = Normalize(0, 1)
        if log:
            low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1)
            scale = LogNorm(low, high if high > low else low * 1.1)
        shown = axes.imshow(values, aspect="auto", norm=scale, cmap="viridis" if log else "Reds",
                            interpolation="nearest")  # fmt: skip
        axes.set_facecolor("0.85")  # where there is no number
        axes.set(title=title, xlabel="epoch")
        axes.title.set_fontsize(9)
        axes.set_yticks([])
        figure.colorbar(shown, ax=axes)
    every = -(-len(names) // 40)
    panels[0].set_yticks(range(0, len(names), every), map(plot_label, names[::every]), fontsize=7)
    figure.suptitle(f"{plot_label(reports[0].name)}: before training (0), and by epoch",
                    fontsize=11)  # fmt: skip
    return figure


def _curves(
    axes: Axes, drawn: list[tuple[Histogram | None, float]], colours: Any, names: list[str], of: str
) -> None:
    widths = [width for _, width in drawn if width > 0 and np.isfinite(width)]
    # else one curve hides all others: each by its own deviation then
    own = bool(widths) and max(widths) > 20 * min(widths)
    for (histogram, width), colour, name in zip(drawn, colours, names, strict=True):
        if histogram is None or not width > 0:
            continue
        edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
        edges = edges / (width if own else 1)
        counts = np.asarray(histogram.counts, float)
        density = counts / counts.sum() / (edges[1] - edges[0])
        middle = (edges[:-1] + edges[1:]) / 2
        axes.plot(middle, np.where(density > 0, density, np.nan), color=colour, linewidth=1.2,
                  label=plot_label(name))  # fmt: skip
    axes.set(yscale="log", ylabel="density", xlabel=f"{of}, by its own deviation" if own else of)
    axes.locator_params(axis="x", nbins=5)
