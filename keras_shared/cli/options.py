"""What several commands share: their options, and the recipe that one names."""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from keras_shared.errors import attempt

if TYPE_CHECKING:
    from keras_shared.recipes import Recipe

RECIPE = ", or a recipe, a file that ends in .toml"
RUN = ", or the folder of a run"


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add --data-dir."""
    parser.add_argument("--data-dir", metavar="DIR", help="folder of prepared TFDS data sets")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and --set."""
    parser.add_argument("recipe", metavar="NAME|RECIPE.toml", help="an entry's name or a recipe")
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add --set."""
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
        help="another value of the recipe, as training.epochs=5; may be repeated",
    )  # fmt: skip


def add_own_data(parser: argparse.ArgumentParser) -> None:
    """Add --data."""
    parser.add_argument(
        "--data", metavar="PATH",
        help="your own data: a folder with a sub-folder of images for each class, a .npz file, a "
        "CSV file of pairs or of text,label, or a .txt file",
    )  # fmt: skip


def recipe_of(options: argparse.Namespace, also: str = RECIPE) -> "Recipe":
    """The recipe that the options name, changed as --set says."""
    from keras_shared.recipes import read_recipe
    from keras_shared.recipes.changes import changed
    from keras_shared.recipes.own_data import on_own_data

    recipe = read_recipe(recipe_file(options.recipe, also))
    if getattr(options, "data", None):
        recipe = on_own_data(recipe, options.data)
    return changed(recipe, options.settings)


def recipe_file(path_or_name: str, also: str = RECIPE) -> str:
    """The file of a recipe: a path that ends in .toml, or the name of an entry."""
    from keras_shared.presets.names import entry_dir

    if path_or_name.endswith(".toml"):
        return path_or_name
    return str(entry_dir(path_or_name, also) / "recipe.toml")


def progress_of_epochs() -> int | str:
    """As `keras.Model.fit` takes `verbose`: bars in a terminal, elsewhere a line for each epoch."""
    return "auto" if sys.stdout.isatty() else 2


def within(least: float, most: float) -> Callable[[str], float]:
    """A number in a range, whole if the range is."""

    def read(text: str) -> float:
        given, wrong = attempt(lambda: type(least)(text), ValueError)
        value: float = float("nan") if wrong else given
        if not least <= value <= most:
            whole = "a whole number" if isinstance(least, int) else "a number"
            raise argparse.ArgumentTypeError(
                f"expected {whole} from {least:.10g} to {most:.10g}. Received: {text!r}"
            )
        return value

    return read
