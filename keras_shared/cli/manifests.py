import argparse

NAME = "manifests"
HELP = "write a compose file and Kubernetes manifests of TF Serving"
EXAMPLE = "manifests lenet5_mnist --to deploy/"
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", metavar="NAME|DIR", nargs="+", help="folders of versions")
    parser.add_argument("--to", metavar="DIR", default="deploy", help="default: %(default)s")


def run(options: argparse.Namespace) -> None:
    from keras_shared.serving import write_manifests
    from keras_shared.terminal import say

    for path in write_manifests(options.models, options.to):
        say(path)
