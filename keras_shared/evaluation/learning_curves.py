from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


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
        for history in histories:
            for key, style, colour in ((name, ":", "C0"), (f"val_{name}", "-", "C1")):
                if key in history:
                    epochs = range(1, len(history[key]) + 1)
                    axes.plot(epochs, history[key], style, color=colour, linewidth=1, marker=".")
        axes.plot([], [], ":", color="C0", label="training")
        axes.plot([], [], "-", color="C1", label="validation")
        lines = f"{len(histories)} seeds" if len(histories) > 1 else "one seed"
        axes.set(xlabel="epoch", ylabel=name.replace("_", " "), title=lines)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "loss":
            axes.set_yscale("log")
        axes.legend()
    return {"learning_curves": figure}
