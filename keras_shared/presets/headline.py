"""The one number that stands for a model, as text: from metrics.json alone, without Keras."""

from typing import Any


def headline(metrics: dict[str, Any]) -> str:
    """The headline metric of an entry with its unit: of several seeds, mean and spread.

    Args:
        metrics: what metrics.json holds.

    Example:
        >>> from keras_shared.presets.headline import headline
        >>> metric = {"title": "test error", "key": "error_percent", "unit": " %"}
        >>> headline({"headline": metric, "over_seeds": {}, "test": {"error_percent": 0.5}})
        'test error 0.50 %'
    """
    metric = metrics["headline"]
    title, key, unit = metric["title"], metric["key"], metric["unit"]
    over = metrics["over_seeds"].get(key)
    if over is None:
        return f"{title} {metrics['test'][key]:.2f}{unit}"
    seeds = len(metrics["seeds"])
    return (
        f"{title} {over['mean']:.2f} ± {over['std']:.2f}{unit} ({seeds} seeds; "
        f"published {metrics['test'][key]:.2f})"
    )
