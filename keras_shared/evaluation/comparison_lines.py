"""A comparison as text: its table for the terminal, and its Markdown for cards."""

from typing import Any

CAPTIONS = {
    "comparison_curves": "Compared: validation over the epochs",
    "comparison_parameters": "Compared: the metric against the number of parameters",
    "comparison_sizes": "Compared: the metric against the size of the training set",
}


def comparison_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as text.

    Args:
        result: what comparison.json holds.
    """
    metric = result["headline"]
    sized = any(row["images_per_class"] for row in result["summary"])
    paper = {arm["name"]: arm["paper"] for arm in result["arms"] if arm["paper"]}
    memory = {arm["name"]: arm["peak_memory_bytes"] for arm in result["arms"]}
    header = [
        *(["images a class"] if sized else []),
        "", "parameters", "KB in a file", "peak MB", "s/epoch",
        f"{metric['title']}{metric['unit']}", "difference to the first", "",
        *(["paper"] if paper else []),
    ]  # fmt: skip
    rows = []
    for row in result["summary"]:
        rows.append(
            [
                *([f"{row['images_per_class']:,}"] if sized else []),
                row["arm"],
                f"{row['parameters']:,}",
                f"{row['weights_bytes'] / 1000:,.0f}",
                "" if (most := memory[row["arm"]]) is None else f"{most / 1e6:,.0f}",
                f"{row['seconds_per_epoch']:.2f}",
                _with_interval(row["metric"]),
                _with_interval(row["difference"], "+") if "difference" in row else "",
                _verdict(row, metric["more_is_better"]),
                *([paper.get(row["arm"], "")] if paper else []),
            ]
        )
    return header, rows


def _with_interval(value: dict[str, Any], sign: str = "") -> str:
    if value["mean"] is None:
        return "diverged"
    mean = format(value["mean"], f"{sign}.2f")
    return mean if value["half"] is None else f"{mean} ± {value['half']:.2f}"


def _verdict(row: dict[str, Any], more_is_better: bool) -> str:
    if "within_noise" not in row:
        return "" if row.get("difference", {}).get("mean") is None else "one seed"
    if row["within_noise"]:
        return "within noise"
    return "better" if (row["difference"]["mean"] > 0) == more_is_better else "worse"


def _rank(mean: float | None, more_is_better: bool) -> float:
    """Less is better; what diverged is last."""
    return float("inf") if mean is None else -mean if more_is_better else mean


def comparison_plots(result: dict[str, Any]) -> list[str]:
    """Names of the plots: those that have something to tell apart.

    Args:
        result: what comparison.json holds.
    """
    varied = {"comparison_parameters": "parameters", "comparison_sizes": "images_per_class"}
    several = [
        plot for plot, key in varied.items() if len({row[key] for row in result["summary"]}) > 1
    ]
    return ["comparison_curves", *several]


def comparison_lines(result: dict[str, Any]) -> list[str]:
    """The comparison as Markdown: arms, table, order, protocol, plots.

    Args:
        result: what comparison.json holds.
    """
    header, rows = comparison_table(result)
    metric = result["headline"]
    largest = max(row["images_per_class"] for row in result["summary"])
    order = sorted(
        (row for row in result["summary"] if row["images_per_class"] == largest),
        key=lambda row: _rank(row["metric"]["mean"], metric["more_is_better"]),
    )
    epochs = " or ".join(map(str, sorted({arm["epochs"] for arm in result["arms"]})))
    return [
        *(
            f"- {arm['name']}: "
            + (", ".join(f"`{k}` = {v!r}" for k, v in arm["changes"].items()) or "the recipe as is")
            for arm in result["arms"]
        ),
        "",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"Best first: {', '.join(row['arm'] for row in order)}.",
        "",
        f"{len(result['seeds'])} seeds, {epochs} epochs each; with the same seed all see the same "
        "data in the same order, but for what an arm changes. Intervals are 95 % by Student's t "
        "over the seeds; differences are paired by seed, and within noise where their interval "
        "holds 0. Metrics on test data. The file holds the weights alone; peak memory is what the "
        "model and ten steps of its training add to a process.",
        "",
        *(
            line
            for plot in comparison_plots(result)
            for line in (f"![{CAPTIONS[plot]}]({plot}.png)", "")
        ),
    ]
