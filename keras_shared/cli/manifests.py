import argparse
import re

from keras_shared.cli.options import recipe_file, within

NAME = "manifests"
HELP = "write a compose file and Kubernetes manifests of TF Serving, or a Job that trains"
EXAMPLE = "manifests lenet5_mnist --to deploy/"
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", metavar="NAME|DIR|gs://...", nargs="*", help="folders of versions"
    )
    parser.add_argument("--to", metavar="DIR", default="deploy", help="default: %(default)s")
    parser.add_argument(
        "--image", help="of Docker; default: TF Serving's newest, for amd64. With --train, one in "
        "which keras_shared is installed",
    )  # fmt: skip
    parser.add_argument(
        "--train", metavar="NAME|RECIPE.toml",
        help="in place of models: write train.yaml, a Job whose pods train a recipe together",
    )  # fmt: skip
    parser.add_argument(
        "--workers", metavar="N", type=within(2, 10_000), help="pods that train; default: 2"
    )
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
        "--latest",
        metavar="N",
        type=within(1, 2**31 - 1),
        default=1,
        help="serve the N newest versions of each",
    )
    parser.add_argument(
        "--label", metavar="NAME:LABEL=VERSION", action="append", default=[], type=_label,
        help="serve a version by a label, such as my_model:stable=1; may be repeated",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    from keras_shared.errors import UsageError
    from keras_shared.serving import write_manifests
    from keras_shared.terminal import say

    serves = options.no_batching or options.batching_parameters_file or options.per_model_batching
    serves = serves or options.latest != 1 or options.label
    if options.train and (options.models or serves or not options.image):
        raise UsageError(
            "--train takes --image with an image in which keras_shared is installed, --workers and "
            "--to, and neither models nor options of serving, which a call of its own takes. "
            f"Received: image={options.image}, models={options.models}"
        )
    if not options.train and (options.workers or not options.models):
        raise UsageError(
            "Expected models to serve, or --train with a recipe, and --workers with --train alone. "
            f"Received: models={options.models}, workers={options.workers}"
        )
    if options.train:
        say(_training_job(options))
        return
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


def _training_job(options: argparse.Namespace) -> object:
    from keras_shared.cli.quiet import import_quietly

    import_quietly()
    from keras_shared.files.bounded import read_text
    from keras_shared.recipes import RecipeError, read_recipe
    from keras_shared.serving import write_training_job
    from keras_shared.training.build import loss_of
    from keras_shared.training.workers import expect_parts

    file, workers = recipe_file(options.train), options.workers or 2
    recipe = read_recipe(file)
    expect_parts(recipe.training.batch_size, loss_of(recipe), workers)
    text = read_text(file, RecipeError)
    return write_training_job(recipe.name, text, options.to, options.image, workers)


def _label(text: str) -> tuple[str, str, int]:
    found = re.fullmatch(r"(.+):([^:=]+)=(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected NAME:LABEL=VERSION, received {text!r}")
    return found[1], found[2], int(found[3])
