from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

MARGIN = 0.05  # of the axis, above and below the curves


def plot_learning_curves(seeds: list[dict[str, Any]]) -> dict[str, Figure]:
    """Each metric of the training over the epochs: a line a seed, validation solid.

    Args:
        seeds: as in metrics.json; those without a history are left out.
    """
    histories = [s["history"] for s in seeds if "history" in s]
    if not histories:
        return {}
    names = [name for name in histories[0] if not name.startswith("val_")]
    figure = Figure(figsize=(5.5 * len(names), 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        drawn = []
        for history in histories:
            for key, style, colour in ((name, ":", "C0"), (f"val_{name}", "-", "C1")):
                if key in history:
                    epochs = range(1, len(history[key]) + 1)
                    axes.plot(epochs, history[key], style, color=colour, linewidth=1, marker=".")
                    drawn.append(history[key])
        axes.plot([], [], ":", color="C0", label="training")
        axes.plot([], [], "-", color="C1", label="validation")
        lines = f"{len(histories)} seeds" if len(histories) > 1 else "one seed"
        axes.set(ylabel=name.replace("_", " "), title=lines)
        if name == "loss":
            axes.set_yscale("log")
        show_the_end(axes, drawn)
        axes.legend()
    return {"learning_curves": figure}


def show_the_end(axes: Axes, curves: Iterable[Sequence[float | None]]) -> None:
    """Fit the axes to where curves end, and label the epochs.

    The first tenth of the epochs, of five or more at least one, does not stretch the y axis; if it
    lies outside then, the label says so.

    Args:
        axes: with the curves drawn and the scale set.
        curves: values over the epochs, from epoch 1.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from keras_shared.evaluation.learning_curves import show_the_end
        >>> axes = Figure().subplots()
        >>> show_the_end(axes, [[9.0, 1.0, 0.8, 0.7, 0.6]])
        >>> [round(float(limit), 2) for limit in axes.get_ylim()], axes.get_xlabel()
        ([0.58, 1.02], 'epoch (the first lies outside)')
    """
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    values = [np.array(curve, "float64") for curve in curves]  # None becomes nan
    epochs = max(map(len, values), default=0)
    skipped = max(1, epochs // 10) if epochs >= 5 else 0
    log = axes.get_yscale() == "log"
    end = np.concatenate([curve[skipped:] for curve in values] or [np.empty(0)])
    end = end[np.isfinite(end) & ((end > 0) | (not log))]
    if not skipped or not end.size or end.min() == end.max():
        return
    low, high = np.log(end.min()) if log else end.min(), np.log(end.max()) if log else end.max()
    margin = MARGIN * (high - low)
    limits = np.array([low - margin, high + margin])
    bottom, top = np.exp(limits) if log else limits
    outside = [
        i + 1
        for curve in values
        for i, value in enumerate(curve[:skipped])
        if value < bottom or value > top
    ]
    if outside:
        axes.set_ylim(bottom, top)
        last = max(outside)
        which = "the first lies" if last == 1 else f"the first {last} lie"
        axes.set_xlabel(f"epoch ({which} outside)")
