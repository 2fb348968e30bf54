import argparse
import pathlib

NAME = "publish"
HELP = "write a run as the next version for TF Serving"
EXAMPLE = "publish runs/mine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--to", metavar="DIR", help="default: $KERAS_SHARED_HOME, or saved_models")


def run(options: argparse.Namespace) -> None:
    from keras_shared.presets.names import home
    from keras_shared.presets.publishing import publish
    from keras_shared.terminal import say
    from keras_shared.training import Run

    best = Run(options.run).best()
    recipe = best.recipe()  # before loading: it may name a class of another package
    folder = pathlib.Path(options.to) if options.to else home()
    version = publish(best.model(), folder / recipe.name)
    say(f"published: {version}")
