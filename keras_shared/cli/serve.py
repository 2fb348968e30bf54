import argparse

from keras_shared.cli.options import within

NAME = "serve"
HELP = "serve models: TF Serving, here or in Docker, or an embedded engine"
EXAMPLE = "serve lenet5_mnist"
LIGHT = True
EMBEDDED = (
    ("host", "ADDRESS", "to listen on (default: 127.0.0.1, for this machine alone)"),
    ("model-config-file", "FILE", "TF Serving's, in place of names: version policies and labels"),
    ("token-file", "FILE", "holds what requests must bear: Authorization: Bearer TOKEN"),
    ("certificate", "FILE", "PEM, for TLS over both protocols"),
    ("key", "FILE", "of the certificate, PEM"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", metavar="NAME|DIR", nargs="*", help="folders of versions")
    parser.add_argument(
        "--engine",
        choices=["tf-serving", "embedded"],
        help="default: TF Serving if it or Docker is found, else embedded: TensorFlow in Python",
    )
    parser.add_argument("--rest-port", type=_port, metavar="N", default=8501, help="%(default)s")
    parser.add_argument("--grpc-port", type=_port, metavar="N", default=8500, help="%(default)s")
    batching = parser.add_mutually_exclusive_group()
    batching.add_argument(
        "--no-batching",
        dest="batching",
        action="store_false",
        help="for a model whose inputs or outputs have no batch: see `check`",
    )
    batching.add_argument(
        "--batching-parameters-file", metavar="FILE",
        help="TF Serving's: how requests are answered together, in place of ours",
    )  # fmt: skip
    parser.add_argument(
        "--per-model-batching", action="store_true",
        help="as the batching_params.pbtxt of a version says, of those that have one",
    )  # fmt: skip
    embedded = parser.add_argument_group("of the embedded engine alone")
    for name, metavar, text in EMBEDDED:
        embedded.add_argument(f"--{name}", metavar=metavar, help=text)
    embedded.add_argument(
        "--max-request-bytes", type=within(1, 2**31 - 1), metavar="N",
        help="of one request (default: 67108864)",
    )  # fmt: skip
    embedded.add_argument(
        "--allow-file-operations", action="store_const", const=True,
        help="serve models whose graphs touch files, the network or Python too",
    )  # fmt: skip


def _port(given: str) -> int:
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 65535. Received: {given}")
    return int(given)


def run(options: argparse.Namespace) -> int:
    from keras_shared.serving import serve

    names = [*(name.replace("-", "_") for name, *_ in EMBEDDED)]
    names += ["max_request_bytes", "allow_file_operations"]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return serve(
        options.models, options.rest_port, options.grpc_port,
        batching=options.batching and (options.batching_parameters_file or True),
        per_model_batching=options.per_model_batching, engine=options.engine, **given,
    )  # fmt: skip
