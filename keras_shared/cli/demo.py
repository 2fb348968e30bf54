import argparse

NAME = "demo"
HELP = "the whole way in a minute, without network"
EXAMPLE = "demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="DIR", default="demo", help="folder to write (%(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    from keras_shared.demo import demo

    demo(options.out)
