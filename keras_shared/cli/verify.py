import argparse

NAME = "verify"
HELP = "do two images show the same?"
EXAMPLE = "verify a.png b.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image_a", metavar="A.png", help="a picture; - reads it from a pipe")
    parser.add_argument("image_b", metavar="B.png", help="another")
    parser.add_argument(
        "--model", metavar="NAME|PATH", default="siamese_omniglot", help="%(default)s"
    )


def run(options: argparse.Namespace) -> None:
    from keras_shared.cli.predict import contents
    from keras_shared.errors import boundary, printable
    from keras_shared.serving.answering import AnswerError, answer
    from keras_shared.tasks import TASKS

    [outputs] = answer(options.model, [contents([options.image_a, options.image_b])])
    with boundary(f"{options.model} does not say whether two images show the same", AnswerError):
        print(printable(TASKS["verification"].show(outputs, 1).text))
