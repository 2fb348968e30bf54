"""What several commands share: their options, and the recipe that one names."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_shared.recipes import Recipe


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add --data-dir."""
    parser.add_argument("--data-dir", metavar="DIR", help="folder of prepared TFDS data sets")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and --set."""
    parser.add_argument("recipe", metavar="NAME|RECIPE.toml", help="an entry's name or a recipe")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
        help="another value of the recipe, as training.epochs=5; may be repeated",
    )  # fmt: skip


def recipe_of(options: argparse.Namespace) -> "Recipe":
    """The recipe that the options name, changed as --set says."""
    from keras_shared.recipes import read_recipe
    from keras_shared.recipes.changes import changed

    return changed(read_recipe(recipe_file(options.recipe)), options.settings)


def recipe_file(path_or_name: str) -> str:
    """The file of a recipe: a path that ends in .toml, or the name of an entry."""
    from keras_shared.presets.names import entry_dir

    if path_or_name.endswith(".toml"):
        return path_or_name
    return str(entry_dir(path_or_name) / "recipe.toml")
