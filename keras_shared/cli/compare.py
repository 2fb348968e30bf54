import argparse

from keras_shared.cli.options import add_data_dir, add_recipe, recipe_of

NAME = "compare"
HELP = "train a recipe shared and unshared, or several ways, side by side"
EXAMPLE = "compare tied_autoencoder_mnist --seeds 5 --sizes 10,100"
TRAINS = True


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
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from keras_shared.comparing import compare
    from keras_shared.evaluation.comparison_lines import comparison_table
    from keras_shared.recipes.changes import comparison_of

    recipe = recipe_of(options)
    comparison = comparison_of(recipe, options.seeds, options.vary, options.sizes)
    out = options.out or f"runs/{recipe.name}_compared"
    header, rows = comparison_table(compare(recipe, comparison, out, options.data_dir))
    table = Table(*header, title=recipe.name)
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
    print(f"written: comparison.json, README.md and plots in {out}/")
