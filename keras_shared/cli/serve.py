import argparse

NAME = "serve"
HELP = "launch TF Serving, here or in Docker"
EXAMPLE = "serve lenet5_mnist"
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", metavar="NAME|DIR", nargs="+", help="folders of versions")
    parser.add_argument(
        "--engine", choices=["tf-serving"], default="tf-serving", help="%(default)s"
    )
    parser.add_argument("--rest-port", type=_port, metavar="N", default=8501, help="%(default)s")
    parser.add_argument("--grpc-port", type=_port, metavar="N", default=8500, help="%(default)s")
    parser.add_argument(
        "--no-batching",
        dest="batching",
        action="store_false",
        help="for a model whose inputs or outputs have no batch: see `check`",
    )


def _port(given: str) -> int:
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 65535. Received: {given}")
    return int(given)


def run(options: argparse.Namespace) -> int:
    from keras_shared.serving import serve

    return serve(options.models, options.rest_port, options.grpc_port, batching=options.batching)
