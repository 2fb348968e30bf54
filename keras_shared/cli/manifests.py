import argparse
import re

NAME = "manifests"
HELP = "write a compose file and Kubernetes manifests of TF Serving"
EXAMPLE = "manifests lenet5_mnist --to deploy/"
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", metavar="NAME|DIR|gs://...", nargs="+", help="folders of versions"
    )
    parser.add_argument("--to", metavar="DIR", default="deploy", help="default: %(default)s")
    parser.add_argument("--image", help="of Docker; default: TF Serving's newest, for amd64")
    batching = parser.add_mutually_exclusive_group()
    batching.add_argument(
        "--no-batching", action="store_true", help="for models whose inputs have no batch"
    )
    batching.add_argument(
        "--batching-parameters-file", metavar="FILE",
        help="TF Serving's: how requests are answered together, in place of ours",
    )  # fmt: skip
    parser.add_argument(
        "--per-model-batching", action="store_true",
        help="as the batching_params.pbtxt of a version says, of those that have one",
    )  # fmt: skip
    parser.add_argument(
        "--latest", metavar="N", type=int, default=1, help="serve the N newest versions of each"
    )
    parser.add_argument(
        "--label", metavar="NAME:LABEL=VERSION", action="append", default=[], type=_label,
        help="serve a version by a label, such as lenet5_mnist:stable=1; may be repeated",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    from keras_shared.serving import write_manifests
    from keras_shared.terminal import say

    labels: dict[str, dict[str, int]] = {}
    for name, label, version in options.label:
        labels.setdefault(name, {})[label] = version
    more = {"image": options.image} if options.image else {}
    for path in write_manifests(
        options.models, options.to, latest=options.latest, labels=labels,
        batching=not options.no_batching and (options.batching_parameters_file or True),
        per_model_batching=options.per_model_batching, **more,
    ):  # fmt: skip
        say(path)


def _label(text: str) -> tuple[str, str, int]:
    found = re.fullmatch(r"(.+):([^:=]+)=(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected NAME:LABEL=VERSION, received {text!r}")
    return found[1], found[2], int(found[3])
