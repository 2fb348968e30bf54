import argparse

NAME = "verify"
HELP = "do two images show the same?"
EXAMPLE = "verify a.png b.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image_a", metavar="A.png")
    parser.add_argument("image_b", metavar="B.png")
    parser.add_argument(
        "--model", metavar="NAME|PATH", default="siamese_omniglot", help="%(default)s"
    )


def run(options: argparse.Namespace) -> None:
    from keras_shared.serving.answering import answer
    from keras_shared.tasks import TASKS

    [outputs] = answer(options.model, [[options.image_a, options.image_b]])
    print(TASKS["verification"].show(outputs, 1).text)
