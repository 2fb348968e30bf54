from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from scipy.optimize import isotonic_regression

from keras_shared.evaluation.comparison_lines import comparison_plots
from keras_shared.evaluation.learning_curves import show_the_end
from keras_shared.text import plot_label

APART = 0.025  # of the axis' width: error bars do not lie on one another
LABELS_APART = 0.13  # nor do labels of ticks


def plot_comparison(result: dict[str, Any]) -> dict[str, Figure]:
    """Learning curves with bands, the metric against parameters and against training-set size.

    Args:
        result: what comparison.json holds.
    """
    metric = result["headline"]
    unit = f" ({metric['unit'].strip()})" if metric["unit"] else ""
    label = f"{metric['title']}{unit}, 95 % interval"
    draw = {
        "comparison_curves": lambda: _curves(result),
        "comparison_parameters": lambda: _against_parameters(result, label),
        "comparison_sizes": lambda: _against_size(result, label),
    }
    return {name: draw[name]() for name in comparison_plots(result)}


def _curves(result: dict[str, Any]) -> Figure:
    """The monitored number over the epochs, and over the seconds that they took.

    Mean of the seeds, and over the epochs a band of one standard deviation.
    """
    largest = max(run["images_per_class"] for run in result["runs"])
    runs = [run for run in result["runs"] if run["images_per_class"] == largest]
    name = result["monitor"]["key"]
    seeds = len(result["seeds"])
    said = f"mean and standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    figure, axes = _axes(f"{plot_label(result['name'])}: {said}", largest, rows=2)
    timed = figure.axes[1]
    drawn = []
    for i, arm in enumerate(result["arms"]):
        of_arm = [run for run in runs if run["arm"] == arm["name"]]
        own = [run["history"] for run in of_arm]
        if name not in own[0]:  # an arm that is validated by another number
            continue
        lines = np.array([history[name] for history in own], "float64")
        epochs, mean, spread = (
            np.arange(1, lines.shape[1] + 1),
            lines.mean(0),
            lines.std(0, ddof=min(1, len(lines) - 1)),
        )
        axes.plot(epochs, mean, marker=".", color=_colour(i), label=plot_label(arm["name"]))
        axes.fill_between(epochs, mean - spread, mean + spread, color=_colour(i), alpha=0.2, lw=0)
        each = np.mean([run["seconds_per_epoch"] for run in of_arm])
        timed.plot(epochs * each, mean, marker=".", color=_colour(i))
        drawn += [mean - spread, mean + spread]
    show_the_end(axes, drawn)
    timed.set(xlabel="seconds of training", ylim=axes.get_ylim())
    for one in (axes, timed):
        one.set_ylabel(f"validation {name.removeprefix('val_').replace('_', ' ')}")
    _legend(figure, axes)
    return figure


def _against_parameters(result: dict[str, Any], label: str) -> Figure:
    largest = max(row["images_per_class"] for row in result["summary"])
    rows = [row for row in result["summary"] if row["images_per_class"] == largest]
    figure, axes = _axes(plot_label(result["name"]), largest)
    counts = np.array([row["parameters"] for row in rows], "float64")
    axes.set(xlabel="parameters", ylabel=label)
    left, width = _log_axis(axes, counts, len(counts))
    places = np.exp(left + width * _apart((np.log(counts) - left) / width))
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        name = f"{row['arm']} ({row['parameters']:,} parameters)"
        axes.errorbar(
            place, _or_nan(row["metric"]["mean"]), yerr=row["metric"]["half"] or 0,
            fmt="o", capsize=4, color=_colour(i), label=plot_label(name),
        )  # fmt: skip
    decades = width / np.log(10)
    wide = LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,))
    locator = wide if decades > 0.9 else MaxNLocator(8, steps=[1, 2, 5, 10])
    _ticks(axes, locator.tick_values(*axes.get_xlim()))
    _legend(figure, axes)
    return figure


def _against_size(result: dict[str, Any], label: str) -> Figure:
    figure, axes = _axes(plot_label(result["name"]))
    sizes = np.array(sorted({row["images_per_class"] for row in result["summary"]}), "float64")
    axes.set(xlabel="training images of each class", ylabel=label)
    arms = len(result["arms"])
    _, width = _log_axis(axes, sizes, arms)
    step = min(APART, 0.7 * np.diff(np.log(sizes)).min() / width / arms)
    for i, arm in enumerate(result["arms"]):
        rows = [row for row in result["summary"] if row["arm"] == arm["name"]]
        aside = np.exp(width * step * (i - (arms - 1) / 2))
        axes.errorbar(
            [row["images_per_class"] * aside for row in rows],
            [_or_nan(row["metric"]["mean"]) for row in rows],
            yerr=[row["metric"]["half"] or 0 for row in rows],
            fmt="o-", capsize=4, color=_colour(i), label=plot_label(arm["name"]),
        )  # fmt: skip
    _ticks(axes, sizes)
    _legend(figure, axes)
    return figure


def _axes(title: str, images_per_class: int = 0, rows: int = 1) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 2 + 3 * rows), layout="constrained")
    axes: Axes = figure.subplots(rows, squeeze=False)[0, 0]
    if images_per_class:
        size = f"{images_per_class:,} training images of each class"
        title += f", {size}" if len(title + size) < 60 else f",\n{size}"
    axes.set_title(title)
    return figure, axes


def _log_axis(axes: Axes, values: np.ndarray, arms: int) -> tuple[float, float]:
    """Scale the x axis for values and for arms beside them; its left end, and its width as log."""
    low, high = np.log(values.min()), np.log(values.max())
    margin = 0.05 + APART * arms / 2  # of the axis' width
    width = max(high - low, 0.3) / (1 - 2 * margin)
    left = (low + high - width) / 2
    axes.set(xscale="log", xlim=(np.exp(left), np.exp(left + width)))
    return float(left), float(width)


def _apart(places: np.ndarray) -> np.ndarray:
    """Places on an axis from 0 to 1, moved as little as keeps each `APART` from the next."""
    order = np.argsort(places, kind="stable")
    steps = APART * np.arange(len(places))
    moved = np.empty_like(places)
    moved[order] = isotonic_regression(places[order] - steps).x + steps
    return moved


def _ticks(axes: Axes, values: Sequence[float] | np.ndarray) -> None:
    """Whole numbers on a log axis, as many as can be read."""
    low, high = np.log(axes.get_xlim())
    shown: list[int] = []
    for value in values:
        far = not shown or np.log(value / shown[-1]) >= LABELS_APART * (high - low)
        if value >= 1 and low <= np.log(value) <= high and far:
            shown.append(round(value))
    axes.set_xticks(shown, [f"{value:,}" for value in shown])
    axes.minorticks_off()


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, where no curve lies."""
    lines, names = axes.get_legend_handles_labels()
    columns = max(1, min(4, 75 // (max(map(len, names)) + 5)))
    rows = -(-len(names) // columns)
    more = max(0, rows - 6)  # six leave the axes high enough
    figure.set_figheight(figure.get_figheight() + 0.25 * more)
    figure.legend(lines, names, loc="outside lower center", ncols=columns)


def _colour(arm: int) -> Any:
    """One for each arm: Matplotlib's ten, then lighter ones."""
    return f"C{arm}" if arm < 10 else colormaps["tab20"](2 * (arm % 10) + 1)


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
