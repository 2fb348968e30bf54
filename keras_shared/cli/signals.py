import argparse

from keras_shared.cli.options import RECIPE, RUN, add_data_dir, add_settings, recipe_of, within

NAME = "signals"
HELP = "how signals and gradients pass through a model, before training or over epochs"
EXAMPLE = "signals lenet5_mnist --png signals.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe",
        metavar="NAME|RECIPE.toml|RUN",
        help="an entry's name or a recipe: as its training begins; folder of a run: as it ended",
    )
    add_settings(parser)
    parser.add_argument(
        "--examples",
        type=within(1, 2**31 - 1),
        default=256,
        metavar="N",
        help="to look at (default: 256)",
    )
    parser.add_argument(
        "--epochs",
        type=within(0, 2**31 - 1),
        default=0,
        metavar="N",
        help="train so many, and look after each",
    )
    parser.add_argument("--json", metavar="FILE", help="write the report, or one an epoch, as JSON")
    parser.add_argument(
        "--png", metavar="FILE", help="draw histograms by layer, or a strip over epochs"
    )
    add_data_dir(parser)


def run(options: argparse.Namespace) -> None:
    import json
    import os
    import pathlib

    from keras_shared.errors import KerasSharedError
    from keras_shared.files.atomic import replace_text
    from keras_shared.files.paths import PICTURE, as_path
    from keras_shared.recipes.changes import changed
    from keras_shared.signals import draw_signals
    from keras_shared.terminal import say
    from keras_shared.training import Run, training_data
    from keras_shared.training.looking import signals_of

    if options.png:
        as_path(options.png, "--png", *PICTURE)
    for path in (options.json, options.png):  # before a training
        folder = pathlib.Path(path or "").absolute().parent
        if path and not os.access(folder, os.W_OK):
            raise KerasSharedError(f"{path} cannot be written: {folder} is no folder to write to.")
    model = None
    if pathlib.Path(options.recipe).is_dir():
        best = Run(options.recipe).best()
        recipe, model = changed(best.recipe(), options.settings), best.model()
    else:
        recipe = recipe_of(options, RECIPE + RUN)
    data = training_data(recipe, options.data_dir)
    reports = signals_of(recipe, data, options.examples, options.epochs, model)
    say(reports[-1])
    if options.json:
        kept = [report.to_dict() for report in reports]
        replace_text(options.json, json.dumps(kept if options.epochs else kept[0]) + "\n")
    if options.png:
        draw_signals(reports if options.epochs else reports[0], options.png)
