import argparse
from typing import Any

from keras_shared.cli.asked_files import add_invert, warn_of_ground
from keras_shared.cli.options import within

NAME = "verify"
HELP = "do two images show the same?"
EXAMPLE = "verify a.png b.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image_a", metavar="A.png", help="a picture; - reads it from a pipe")
    parser.add_argument("image_b", metavar="B.png", help="another")
    parser.add_argument(
        "--model", metavar="NAME|PATH", default="siamese_omniglot", help="%(default)s"
    )
    parser.add_argument(
        "--threshold", metavar="P", type=within(0.0, 1.0), default=0.5,
        help="probability from which on they are the same (default: %(default)s)",
    )  # fmt: skip
    add_invert(parser)


def run(options: argparse.Namespace) -> None:
    from keras_shared.cli.predict import contents, stored_arguments
    from keras_shared.errors import boundary, printable
    from keras_shared.presets.names import class_name, entry_names
    from keras_shared.serving.answering import AnswerError, answer
    from keras_shared.tasks.verification import show_pair
    from keras_shared.zoo import MODELS

    files = [options.image_a, options.image_b]
    sources = contents(files)
    [outputs] = answer(options.model, [sources], options.invert)
    model: Any = MODELS.get(class_name(options.model) or "")
    bright_ink = model and model.bright_ink(**stored_arguments(options.model))
    if bright_ink is not None:
        learnt = "" if options.model in entry_names() else class_name(options.model) or ""
        warn_of_ground(files, sources, bright_ink, options.invert, learnt)
    with boundary(f"{options.model} does not say whether two images show the same", AnswerError):
        print(printable(show_pair(outputs, options.threshold).text))
