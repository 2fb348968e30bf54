"""A comparison as text: its table for the terminal, and its Markdown for cards."""

from typing import Any, NamedTuple

from keras_shared.text import code, markdown

CAPTIONS = {
    "comparison_curves": "Compared: validation over the epochs",
    "comparison_parameters": "Compared: the metric against the number of parameters",
    "comparison_sizes": "Compared: the metric against the size of the training set",
}


COST = ("KB", "peak MB", "s/epoch")


class NarrowTable(NamedTuple):
    """A table for the terminal."""

    title: str
    header: list[str]
    rows: list[list[str]]


def comparison_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as text: all that is known.

    Args:
        result: what comparison.json holds.
    """
    metric = result["headline"]
    sized = any(row["images_per_class"] for row in result["summary"])
    paper = {arm["name"]: arm["paper"] for arm in result["arms"] if arm["paper"]}
    memory = {arm["name"]: arm["peak_memory_bytes"] for arm in result["arms"]}
    header = [
        *(["images a class"] if sized else []),
        "arm", "parameters", *COST,
        f"{metric['title']}{metric['unit']}", "difference", "verdict",
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


def narrow_tables(result: dict[str, Any]) -> list[NarrowTable]:
    """The same in tables that a terminal of 80 columns holds: one a size, then what it costs.

    Args:
        result: what comparison.json holds.
    """
    header, rows = comparison_table(result)
    sized = header[0] != "arm"
    tables = []
    for size in dict.fromkeys(row[0] for row in rows) if sized else ("",):
        title = f"{result['name']}, {size} images a class" if sized else result["name"]
        of_size = [row for row in rows if not sized or row[0] == size]
        shown = [i for i, name in enumerate(header) if name not in ("images a class", *COST)]
        tables.append(_columns(title, header, of_size, shown))
    kept = ("images a class", "arm", *COST)
    cost = [i for i, name in enumerate(header) if name in kept]
    return [*tables, _columns("cost", header, rows, cost)]


def _columns(title: str, header: list[str], rows: list[list[str]], shown: list[int]) -> NarrowTable:
    return NarrowTable(title, [header[i] for i in shown], [[row[i] for i in shown] for row in rows])


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


def _standing(result: dict[str, Any]) -> str:
    """A sentence: what is known of the arms beside the first, and no more than that."""
    largest = max(row["images_per_class"] for row in result["summary"])
    first, *others = (row for row in result["summary"] if row["images_per_class"] == largest)
    names: dict[str, list[str]] = {}
    for row in others:
        lost = row["metric"]["mean"] is None
        verdict = "diverged" if lost else _verdict(row, result["headline"]["more_is_better"])
        names.setdefault(verdict, []).append(f"'{row['arm']}'")
    diverged = [f"{_and(names['diverged'])} diverged"] if "diverged" in names else []
    if first["metric"]["mean"] is None:
        known = [f"'{first['arm']}' diverged: nothing can be compared with it"]
    elif len(result["seeds"]) == 1:
        return "; ".join(["One seed: nothing can be ranked", *diverged]) + "."
    else:
        known = [
            f"{_and(names[verdict])} {'is' if len(names[verdict]) == 1 else 'are'} "
            f"{verdict} {than} '{first['arm']}'"
            for verdict, than in (("better", "than"), ("worse", "than"), ("within noise", "of"))
            if verdict in names
        ]
    where = f"With {largest:,} training images of each class, " if largest else ""
    return where + "; ".join([*known, *diverged]) + "."


def _changes(changes: dict[str, Any]) -> str:
    return ", ".join(f"{code(key)} = {markdown(repr(value))}" for key, value in changes.items())


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


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
    """The comparison as Markdown: arms, table, what is known, protocol, plots.

    Args:
        result: what comparison.json holds.
    """
    header, rows = comparison_table(result)
    epochs = " or ".join(map(str, sorted({arm["epochs"] for arm in result["arms"]})))
    return [
        *(
            f"- {markdown(arm['name'])}: {_changes(arm['changes']) or 'the recipe as is'}"
            for arm in result["arms"]
        ),
        *(
            f"- {markdown(name)} was left out: {markdown(' '.join(reason.split()))}"
            for name, reason in result.get("left_out", {}).items()  # an older file has none
        ),
        "",
        f"| {' | '.join(map(markdown, header))} |",
        "|---" * len(header) + "|",
        *(f"| {' | '.join(map(markdown, row))} |" for row in rows),
        "",
        *([markdown(_standing(result)), ""] if len(result["arms"]) > 1 else []),
        f"{len(result['seeds'])} seeds, {epochs} epochs each; with the same seed all see the same "
        "data in the same order, but for what an arm changes. Arms are compared with the first "
        "alone, not with one another. Intervals are 95 % by Student's t over the seeds; "
        "differences are paired by seed, and within noise where their interval holds 0. Metrics "
        "on test data. KB are those of the weights in a file; peak MB are what the model and ten "
        "steps of its training add to the memory of a process.",
        "",
        *(
            line
            for plot in comparison_plots(result)
            for line in (f"![{CAPTIONS[plot]}]({plot}.png)", "")
        ),
    ]
