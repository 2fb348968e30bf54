import argparse
from typing import TYPE_CHECKING, Any

from keras_shared.cli.options import add_data_dir, add_recipe, recipe_of

if TYPE_CHECKING:
    from rich.console import Console

    from keras_shared.evaluation.comparison_lines import NarrowTable
    from keras_shared.terminal import TextTable

NAME = "compare"
HELP = "train a recipe shared and unshared, or several ways, side by side"
EXAMPLE = "compare tied_autoencoder_mnist --seeds 5 --sizes 10,100"
TRAINS = True
ARM, NUMBER = 20, 7  # widest column of names; narrowest of numbers, for the words of its header


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="of each arm; default: the recipe's, or 5"
    )
    parser.add_argument(
        "--vary",
        metavar="KEY=A,B",
        help="arms that differ in a value, as model.variant=1998,modern",
    )
    parser.add_argument("--sizes", metavar="N,N", help="training images of each class")
    parser.add_argument("--out", metavar="DIR", help="folder (default: runs/<name>_compared)")
    add_data_dir(parser)


def run(options: argparse.Namespace) -> None:
    from keras_shared.comparing import compare
    from keras_shared.recipes.changes import comparison_of
    from keras_shared.terminal import console, say

    recipe = recipe_of(options)
    comparison = comparison_of(recipe, options.seeds, options.vary, options.sizes)
    out = options.out or f"runs/{recipe.name}_compared"
    print_tables(compare(recipe, comparison, out, options.data_dir), console())
    say(f"written: comparison.json, README.md and plots in {out}/")


def print_tables(result: dict[str, Any], to: "Console") -> None:
    """Print a comparison for a terminal of 80 columns."""
    from keras_shared.evaluation.comparison_lines import narrow_tables

    for table in narrow_tables(result):
        to.print(_as_rich(table))
        to.print()


def _as_rich(table: "NarrowTable") -> "TextTable":
    """Numbers stand at the right and whole; headers and other texts are wrapped."""
    from rich import box

    from keras_shared.terminal import TextTable

    shown = TextTable(
        title=table.title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False,
        padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for i, name in enumerate(table.header):
        longest = max(len(row[i]) for row in table.rows)
        if name in ("verdict", "paper"):
            shown.add_column(name)
        elif name == "arm":
            shown.add_column(name, width=max(len(name), min(longest, ARM)))
        else:
            width = max(longest, NUMBER, *map(len, name.split()))
            shown.add_column(name, justify="right", width=width)
    for row in table.rows:
        shown.add_row(*row)
    return shown
