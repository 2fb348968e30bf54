import argparse
import json
import sys

from keras_shared.cli.options import recipe_file

NAME = "recipe"
HELP = "print a recipe to start from, or the JSON schema of its like"
EXAMPLE = "recipe lenet5_mnist > my_recipe.toml"
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="NAME|RECIPE.toml", help="an entry's name or a recipe")
    parser.add_argument(
        "--schema", action="store_true", help="the JSON schema instead, for editors that know TOML"
    )


def run(options: argparse.Namespace) -> None:
    from keras_shared.errors import printable
    from keras_shared.files.bounded import read_text
    from keras_shared.presets.names import LoadError

    file = recipe_file(options.recipe)
    if not options.schema:
        text = read_text(file, LoadError)
        # to a file as it is, to a terminal as text: comments may hold control characters
        print(printable(text) if sys.stdout.isatty() else text, end="")
        return
    from keras_shared.cli.quiet import import_quietly

    import_quietly()
    from keras_shared.recipes import read_recipe
    from keras_shared.recipes.recipe import json_schema

    print(json.dumps(json_schema(read_recipe(file)), indent=2))
