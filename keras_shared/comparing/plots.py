import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from scipy.optimize import isotonic_regression

from keras_shared.evaluation.comparison_lines import comparison_plots
from keras_shared.evaluation.learning_curves import show_the_end

APART = 0.025  # of the axis' width: error bars do not lie on one another
LABELS_APART = 0.09  # nor do labels of ticks


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
    """The monitored number over the epochs: mean of the seeds, band of one standard deviation."""
    largest = max(run["images_per_class"] for run in result["runs"])
    runs = [run for run in result["runs"] if run["images_per_class"] == largest]
    name = result["monitor"]["key"]
    seeds = len(result["seeds"])
    said = f"mean and standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    figure, axes = _axes(f"{result['name']}: {said}{_of_size(largest)}")
    drawn = []
    for i, arm in enumerate(result["arms"]):
        lines = np.array([r["history"][name] for r in runs if r["arm"] == arm["name"]], "float64")
        epochs, mean, spread = (
            np.arange(1, lines.shape[1] + 1),
            lines.mean(0),
            lines.std(0, ddof=min(1, len(lines) - 1)),
        )
        axes.plot(epochs, mean, marker=".", color=f"C{i}", label=arm["name"])
        axes.fill_between(epochs, mean - spread, mean + spread, color=f"C{i}", alpha=0.2, lw=0)
        drawn += [mean - spread, mean + spread]
    axes.set_ylabel(f"validation {name.removeprefix('val_').replace('_', ' ')}")
    show_the_end(axes, drawn)
    _legend(figure, axes)
    return figure


def _against_parameters(result: dict[str, Any], label: str) -> Figure:
    largest = max(row["images_per_class"] for row in result["summary"])
    rows = [row for row in result["summary"] if row["images_per_class"] == largest]
    figure, axes = _axes(f"{result['name']}{_of_size(largest)}")
    counts = np.array([row["parameters"] for row in rows], "float64")
    low, high = counts.min() / 1.3, counts.max() * 1.3
    axes.set(xscale="log", xlim=(low, high), xlabel="parameters", ylabel=label)
    width = np.log(high / low)
    places = low * np.exp(width * _apart(np.log(counts / low) / width))
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        name = f"{row['arm']} ({row['parameters']:,} parameters)"
        axes.errorbar(
            place, _or_nan(row["metric"]["mean"]), yerr=row["metric"]["half"] or 0,
            fmt="o", capsize=4, color=f"C{i}", label=name,
        )  # fmt: skip
    wide = LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,))
    locator = wide if high / low > 8 else MaxNLocator(5, steps=[1, 2, 5, 10])
    _ticks(axes, locator.tick_values(low, high))
    _legend(figure, axes)
    return figure


def _against_size(result: dict[str, Any], label: str) -> Figure:
    figure, axes = _axes(result["name"])
    sizes = np.array(sorted({row["images_per_class"] for row in result["summary"]}), "float64")
    low, high = sizes.min() / 1.3, sizes.max() * 1.3
    axes.set(xscale="log", xlim=(low, high), xlabel="training images of each class", ylabel=label)
    width, arms = np.log(high / low), len(result["arms"])
    step = min(APART, 0.7 * np.diff(np.log(sizes)).min() / width / arms)
    for i, arm in enumerate(result["arms"]):
        rows = [row for row in result["summary"] if row["arm"] == arm["name"]]
        aside = np.exp(width * step * (i - (arms - 1) / 2))
        axes.errorbar(
            [row["images_per_class"] * aside for row in rows],
            [_or_nan(row["metric"]["mean"]) for row in rows],
            yerr=[row["metric"]["half"] or 0 for row in rows],
            fmt="o-", capsize=4, color=f"C{i}", label=arm["name"],
        )  # fmt: skip
    _ticks(axes, sizes)
    _legend(figure, axes)
    return figure


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(textwrap.fill(title, 65))
    return figure, axes


def _of_size(images_per_class: int) -> str:
    return f", {images_per_class:,} training images of each class" if images_per_class else ""


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
    figure.legend(lines, names, loc="outside lower center", ncols=columns)


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
