from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_shared.evaluation.comparison_lines import comparison_plots


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
    plot = Figure(figsize=(7, 4.5), layout="constrained")
    axes = plot.subplots()
    for i, arm in enumerate(result["arms"]):
        lines = np.array([r["history"][name] for r in runs if r["arm"] == arm["name"]], "float64")
        epochs, mean, spread = (
            np.arange(1, lines.shape[1] + 1),
            lines.mean(0),
            lines.std(0, ddof=min(1, len(lines) - 1)),
        )
        axes.plot(epochs, mean, marker=".", color=f"C{i}", label=arm["name"])
        axes.fill_between(epochs, mean - spread, mean + spread, color=f"C{i}", alpha=0.2, lw=0)
    what = name.removeprefix("val_").replace("_", " ")
    axes.set(
        xlabel="epoch", ylabel=f"validation {what}",
        title=f"{result['name']}: mean and standard deviation of {len(result['seeds'])} seeds",
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return plot


def _against_parameters(result: dict[str, Any], label: str) -> Figure:
    largest = max(row["images_per_class"] for row in result["summary"])
    plot = Figure(figsize=(7, 4.5), layout="constrained")
    axes = plot.subplots()
    rows = [row for row in result["summary"] if row["images_per_class"] == largest]
    for i, row in enumerate(rows):
        axes.errorbar(
            row["parameters"], _or_nan(row["metric"]["mean"]), yerr=row["metric"]["half"] or 0,
            fmt="o", capsize=4, color=f"C{i}", label=row["arm"],
        )  # fmt: skip
    axes.set_xscale("log")
    ticks = sorted({row["parameters"] for row in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30)
    axes.minorticks_off()
    axes.set(xlabel="parameters", ylabel=label, title=result["name"])
    axes.legend()
    return plot


def _against_size(result: dict[str, Any], label: str) -> Figure:
    plot = Figure(figsize=(7, 4.5), layout="constrained")
    axes = plot.subplots()
    for i, arm in enumerate(result["arms"]):
        rows = [row for row in result["summary"] if row["arm"] == arm["name"]]
        axes.errorbar(
            [row["images_per_class"] for row in rows],
            [_or_nan(row["metric"]["mean"]) for row in rows],
            yerr=[row["metric"]["half"] or 0 for row in rows],
            fmt="o-", capsize=4, color=f"C{i}", label=arm["name"],
        )  # fmt: skip
    sizes = sorted({row["images_per_class"] for row in result["summary"]})
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="training images of each class", ylabel=label, title=result["name"])
    axes.legend()
    return plot


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
