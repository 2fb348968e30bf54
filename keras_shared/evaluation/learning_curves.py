from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_shared.text import plot_label

MARGIN = 0.05  # of the axis, above and below the curves
ABREAST = 3  # plots in a row that can be read
BEFORE = 2  # times the range of the last half of the epochs: what is shown of those before, at most


def plot_learning_curves(seeds: list[dict[str, Any]]) -> dict[str, Figure]:
    """Each metric of the training over the epochs: a line a seed, validation solid, if any.

    Args:
        seeds: as in metrics.json; those without a history are left out.
    """
    histories = [s["history"] for s in seeds if "history" in s]
    if not histories:
        return {}
    names = [name for name in histories[0] if not name.startswith("val_")]
    columns = len(names) if len(names) <= ABREAST else -(-len(names) // 2)  # or in two rows
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(5.5 * columns, 4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in grid[len(names) :]:
        unused.remove()
    for axes, name in zip(grid, names, strict=False):
        drawn = []
        for history in histories:
            for key, style, colour in ((name, ":", "C0"), (f"val_{name}", "-", "C1")):
                if key in history:
                    epochs = range(1, len(history[key]) + 1)
                    axes.plot(epochs, history[key], style, color=colour, linewidth=1, marker=".")
                    drawn.append(history[key])
        axes.plot([], [], ":", color="C0", label="training")
        if f"val_{name}" in histories[0]:
            axes.plot([], [], "-", color="C1", label="validation")
        lines = f"{len(histories)} seeds" if len(histories) > 1 else "one seed"
        axes.set(ylabel=plot_label(name.replace("_", " ")), title=lines)
        if name == "loss":
            axes.set_yscale("log")
        show_the_end(axes, drawn)
        axes.legend()
    return {"learning_curves": figure}


def show_the_end(axes: Axes, curves: Iterable[Sequence[float | None]]) -> None:
    """Fit the axes to where curves end, and label the epochs.

    Of five epochs or more, those before the last half do not stretch the y axis so far that the
    end cannot be read, and the first tenth, one at least, not at all. The label says so. Curves may
    be of several lengths: the end of each is shown.

    Args:
        axes: with the curves drawn and the scale set.
        curves: values over the epochs, from epoch 1.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from keras_shared.evaluation.learning_curves import show_the_end
        >>> axes = Figure().subplots()
        >>> show_the_end(axes, [[9.0, 1.0, 0.8, 0.7, 0.6]])
        >>> [round(float(limit), 2) for limit in axes.get_ylim()], axes.get_xlabel()
        ([0.58, 1.02], 'epoch (the first ones lie partly outside)')
    """
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    epochs = max(map(len, curves := list(curves)), default=0)
    if epochs < 5:
        return
    log = axes.get_yscale() == "log"
    whole = [_finite(curve, log) for curve in curves]
    every = np.concatenate(whole)
    later = np.concatenate([curve[max(1, len(curve) // 10) :] for curve in whole])
    end = np.concatenate([curve[len(curve) // 2 :] for curve in whole])
    if np.isnan(end).all() or np.nanmin(later) == np.nanmax(later):
        return
    before = BEFORE * (np.nanmax(end) - np.nanmin(end)) or np.inf
    low = max(np.nanmin(later), np.nanmin(end) - before)
    high = min(np.nanmax(later), np.nanmax(end) + before)
    limits = np.array([low, high]) + MARGIN * (high - low) * np.array([-1, 1])
    if ((every < limits[0]) | (every > limits[1])).any():
        axes.set_ylim(*(np.exp(limits) if log else limits))
        axes.set_xlabel("epoch (the first ones lie partly outside)")


def _finite(curve: Sequence[float | None], log: bool) -> np.ndarray:
    """Values as they lie on the axis; nan for what it cannot hold, None included."""
    values = np.array(curve, "float64")
    values[~np.isfinite(values) | ((values <= 0) & log)] = np.nan
    return np.log(values) if log else values
