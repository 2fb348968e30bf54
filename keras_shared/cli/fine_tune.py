import argparse

from keras_shared.cli.options import (
    add_data_dir,
    add_own_data,
    add_settings,
    progress_of_epochs,
    recipe_of,
)

NAME = "fine-tune"
HELP = "train a published model further, on your own images or by a recipe"
EXAMPLE = "fine-tune lenet5_modern_mnist --data my/photos"
TRAINS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|PATH", help="a preset's name or a folder")
    parser.add_argument(
        "recipe", metavar="RECIPE.toml", nargs="?", help="data and training; or give --data"
    )
    add_own_data(parser)
    add_settings(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the run (default: runs/<name>_tuned)"
    )
    add_data_dir(parser)


def run(options: argparse.Namespace) -> None:
    from keras_shared.errors import UsageError
    from keras_shared.presets.loading import load
    from keras_shared.recipes.changes import changed
    from keras_shared.recipes.own_data import fine_tuning
    from keras_shared.terminal import say
    from keras_shared.training import Run, start_model, train, training_data
    from keras_shared.training.build import base_of, with_arguments_of, with_data_arguments
    from keras_shared.training.fit import checked_start

    alone = options.recipe is None  # nothing but a model and a folder
    if alone:
        if not options.data:
            raise UsageError(
                "fine-tune needs --data FOLDER, with a sub-folder for each class, or a recipe. "
                f"For example: keras-shared fine-tune {options.model} --data my/photos"
            )
        model = load(options.model, compile=False)
        recipe = changed(fine_tuning(options.model, model, options.data), options.settings)
    else:
        recipe = recipe_of(options)
        recipe = with_arguments_of(recipe, load(options.model, compile=False))
    recipe = with_data_arguments(recipe, options.data_dir)
    run = Run(options.out or (f"runs/{recipe.name}" if alone else f"runs/{recipe.name}_tuned"))
    base, shown = base_of(options.model), progress_of_epochs()
    for number, (seed, of_seed) in enumerate(run.of_seeds(recipe).items()):
        one = recipe.with_seed(seed)
        start = start_model(one, options.model)
        data = training_data(one, options.data_dir)
        if not number:  # a start that is refused leaves no folder behind
            checked_start(one, data, start)
            run.expect(recipe)
        train(one, data, of_seed, start=start, verbose=shown, base=base)
        say(f"fine-tuned: {of_seed.model_file}")
        if alone:  # what the start is worth: the same net from nothing, for the card
            say("the same net from nothing, for comparison:")
            train(one, data, of_seed.from_nothing, verbose=shown)
    say(f"next: keras-shared evaluate {run.path}")
