"""The README's table of published models: `python -m keras_shared.evaluation.readme_table`."""

import pathlib
from typing import Any
from urllib.parse import quote

from keras_shared.batching.training_data import counts_in
from keras_shared.files.atomic import replace_text
from keras_shared.files.bounded import read_json, read_text
from keras_shared.presets.headline import headline
from keras_shared.text import code, markdown

TABLE_BEGINS = "<!-- table: generated from zoo/*/metrics.json -->"
TABLE_ENDS = "<!-- /table -->"


def readme_table(zoo_dir: pathlib.Path) -> str:
    """The README's table of published models, from the metrics.json of each entry."""
    lines = ["| name | model | parameters | trained on | on test data |", "|---|---|---|---|---|"]
    for path in sorted(zoo_dir.glob("*/metrics.json")):
        metrics = read_json(path)
        lines.append(
            f"| [{code(metrics['name'])}](zoo/{quote(metrics['name'])}/README.md) | "
            f"{code(metrics['model'])} | {metrics['parameters']['trainable']:,} | "
            f"{markdown(_data(metrics))} | {markdown(headline(metrics))} |"
        )
    return "\n".join(lines)


def _data(metrics: dict[str, Any]) -> str:
    """The data set, and how much of it trains and validates."""
    sizes = counts_in(metrics["training"]["data"]).items()
    parts = (f"{size:,} {key.replace('_', ' ')}" for key, size in sizes if size)
    return f"{metrics['data']}: {', '.join(parts)}"


def update_readme() -> None:
    """Write the table between its markers in README.md of the working directory."""
    readme = pathlib.Path("README.md")
    before, _, rest = read_text(readme).partition(TABLE_BEGINS)
    _, _, after = rest.partition(TABLE_ENDS)
    table = readme_table(pathlib.Path("zoo"))
    replace_text(readme, f"{before}{TABLE_BEGINS}\n{table}\n{TABLE_ENDS}{after}")


if __name__ == "__main__":
    update_readme()
