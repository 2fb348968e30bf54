"""The command `keras-shared`: it wires, and decides nothing.

TensorFlow and Keras are imported inside the commands, so that `--help` answers at once.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras_shared

if TYPE_CHECKING:
    from keras_shared.recipe import Recipe

_EPILOG = """\
examples:
  keras-shared demo                          the whole way in a minute, without network
  keras-shared list                          published models and what they reach
  keras-shared train lenet5_mnist            repeat a published model from nothing
  keras-shared train my/recipe.toml --out runs/mine
  keras-shared evaluate runs/mine            metrics.json, card and plots of a run
  keras-shared publish runs/mine             next version in saved_models/<name>/
  keras-shared fine-tune siamese_omniglot my/recipe.toml
  keras-shared inspect siamese_omniglot --picture sharing.png
  keras-shared compare tied_autoencoder_mnist --seeds 5
  keras-shared predict lenet5_mnist digit.png
  keras-shared verify a.png b.png
  keras-shared check runs/mine/export        what TF Serving would do with a SavedModel
  keras-shared serve lenet5_mnist            launch TF Serving
  keras-shared manifests lenet5_mnist --to deploy/

MNIST, Fashion-MNIST and Omniglot come through TensorFlow Datasets: from --data-dir or the
variable TFDS_DATA_DIR if they are prepared there, else by download."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status: 0 if done, 2 for a wrong call, 1 for the rest."""
    options = _parser().parse_args(arguments)
    try:
        if options.command not in (_list, _serve, _manifests):
            _import_quietly()
        return options.command(options) or 0
    except KeyboardInterrupt:
        trains = options.command in (_train, _fine_tune, _compare)
        again = "; the same command goes on from the last whole epoch" if trains else ""
        print(f"stopped{again}", file=sys.stderr)
        return 1
    except Exception as error:
        if options.debug:
            raise
        first = str(error).strip().split("\n")[0]
        print(f"keras-shared: {first or type(error).__name__}", file=sys.stderr)
        return 1


def _import_quietly() -> None:
    """Import TensorFlow without the notes that its C++ part writes to file descriptor 2."""
    sys.stderr.flush()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # oneDNN's convolutions: twice as fast on processors where TensorFlow leaves them out
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")
            tf.constant(0)  # the rest of the notes come with the first tensor
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-shared",
        description="Train, evaluate, publish and ask Keras models whose layers share weights.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=keras_shared.__version__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Any, text: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  keras-shared {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command)
        # also after the command; SUPPRESS keeps the value given before it
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)
        return sub

    def add_data_dir(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--data-dir", metavar="DIR", help="folder of prepared TFDS data sets")

    add("list", _list, "list the published models and their figures", "list")

    sub = add("train", _train, "train a recipe, or go on with it", "train lenet5_mnist")
    sub.add_argument("recipe", metavar="NAME|RECIPE.toml", help="a published name or a recipe")
    sub.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/<name>)")
    sub.add_argument("--seed", type=int, metavar="N", help="one of the recipe's seeds, not all")
    add_data_dir(sub)

    sub = add(
        "evaluate",
        _evaluate,
        "run a model on its test data: metrics.json, card, plots",
        "evaluate runs/lenet5_mnist",
    )
    sub.add_argument("model", metavar="RUN|NAME", help="folder of a run, or a published name")
    sub.add_argument("--out", metavar="DIR", help="where to write (default: the run, or runs/NAME)")
    add_data_dir(sub)

    sub = add(
        "publish", _publish, "write a run as the next version for TF Serving", "publish runs/mine"
    )
    sub.add_argument("run", metavar="RUN", help="folder of a run")
    sub.add_argument("--to", metavar="DIR", default="saved_models", help="default: %(default)s")

    sub = add(
        "fine-tune",
        _fine_tune,
        "train a published model further with a recipe",
        "fine-tune siamese_omniglot my/recipe.toml",
    )
    sub.add_argument("model", metavar="NAME|PATH", help="a published name or folder")
    sub.add_argument("recipe", metavar="RECIPE.toml", help="data and training; same model class")
    sub.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/<name>_tuned)")
    add_data_dir(sub)

    sub = add(
        "predict", _predict, "ask a published model about images", "predict lenet5_mnist digit.png"
    )
    sub.add_argument("model", metavar="NAME|PATH", help="a published name or folder")
    sub.add_argument("files", metavar="FILE", nargs="+", help="PNG or JPEG; .npy for vectors")

    sub = add("verify", _verify, "do two images show the same?", "verify a.png b.png")
    sub.add_argument("image_a", metavar="A.png")
    sub.add_argument("image_b", metavar="B.png")
    sub.add_argument("--model", metavar="NAME|PATH", default="siamese_omniglot", help="%(default)s")

    sub = add(
        "inspect", _inspect, "what a model shares: each weight once, with its readers",
        "inspect siamese_omniglot --picture sharing.png",
    )  # fmt: skip
    sub.add_argument("model", metavar="NAME|PATH", help="a published name or folder, or .keras")
    sub.add_argument("--json", metavar="FILE", help="write the report as JSON")
    sub.add_argument("--picture", metavar="FILE", help="draw it as .png or .svg")

    _add_serving(add)

    sub = add(
        "compare", _compare, "train a recipe shared and unshared, or several ways, side by side",
        "compare tied_autoencoder_mnist --seeds 5 --sizes 10,100",
    )  # fmt: skip
    sub.add_argument("recipe", metavar="NAME|RECIPE.toml", help="a published name or a recipe")
    sub.add_argument("--seeds", type=int, metavar="N", help="of each arm; default: the recipe's, 5")
    sub.add_argument(
        "--vary",
        metavar="KEY=A,B",
        help="arms that differ in a value, as model.variant=1998,modern",
    )
    sub.add_argument("--sizes", metavar="N,N", help="training images of each class")
    sub.add_argument("--out", metavar="DIR", help="folder (default: runs/<name>_compared)")
    add_data_dir(sub)

    sub = add("demo", _demo, "the whole way in a minute, without network", "demo")
    sub.add_argument("--out", metavar="DIR", default="demo", help="folder to write (%(default)s)")
    return parser


def _add_serving(add: Callable[[str, Any, str, str], argparse.ArgumentParser]) -> None:
    sub = add("check", _check, "say what TF Serving would do with a SavedModel", "check my/export")
    sub.add_argument("path", metavar="NAME|PATH", help="of one version, of versions, or any other")

    sub = add("serve", _serve, "launch TF Serving, here or in Docker", "serve lenet5_mnist")
    sub.add_argument("models", metavar="NAME|DIR", nargs="+", help="folders of versions")
    sub.add_argument("--engine", choices=["tf-serving"], default="tf-serving", help="%(default)s")
    sub.add_argument("--rest-port", type=int, metavar="N", default=8501, help="%(default)s")
    sub.add_argument("--grpc-port", type=int, metavar="N", default=8500, help="%(default)s")

    sub = add(
        "manifests",
        _manifests,
        "write a compose file and Kubernetes manifests of TF Serving",
        "manifests lenet5_mnist --to deploy/",
    )
    sub.add_argument("models", metavar="NAME|DIR", nargs="+", help="folders of versions")
    sub.add_argument("--to", metavar="DIR", default="deploy", help="default: %(default)s")


def _list(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    from keras_shared.card import headline
    from keras_shared.presets.names import entry_dir, entry_names

    typed = (Column(header, no_wrap=True) for header in ("name", "model"))
    table = Table(*typed, "parameters", "on test data")
    for name in entry_names():
        metrics = json.loads((entry_dir(name) / "metrics.json").read_text())
        parameters = f"{metrics['parameters']['trainable']:,}"
        table.add_row(name, metrics["model"], parameters, headline(metrics))
    Console().print(table)


def _train(options: argparse.Namespace) -> None:
    from keras_shared.data import training_data
    from keras_shared.training import run_dirs, train

    recipe = _recipe(options.recipe)
    run = options.out or f"runs/{recipe.name}"
    folders = run_dirs(recipe, run)
    if options.seed is not None and options.seed not in folders:
        raise ValueError(f"{recipe.path} has the seeds {list(folders)}. Received: {options.seed}")
    for seed in folders if options.seed is None else [options.seed]:
        one = recipe.with_seed(seed)
        train(one, training_data(one, options.data_dir), folders[seed])
        print(f"trained: {folders[seed]}/model.keras")
    if options.seed is None:
        print(f"next: keras-shared evaluate {run}")


def _evaluate(options: argparse.Namespace) -> None:
    from keras_shared.card import headline
    from keras_shared.presets.names import entry_dir
    from keras_shared.evaluation import evaluate, known_runs
    from keras_shared.presets.loading import load
    from keras_shared.recipe import read_recipe
    from keras_shared.training import best_run, read_facts, run_dirs

    run = pathlib.Path(options.model)
    others: list[tuple[Any, dict[str, Any]]] = []
    if run.is_dir():
        best = best_run(run)
        model, recipe = load(best / "model.keras"), read_recipe(best / "recipe.toml")
        training = read_facts(best)
        if best != run:
            rest = [folder for folder in run_dirs(recipe, run).values() if folder != best]
            others = [(load(folder / "model.keras"), read_facts(folder)) for folder in rest]
        out = options.out or run
    else:
        entry = entry_dir(options.model)
        model, recipe = load(options.model), read_recipe(entry / "recipe.toml")
        training, others = known_runs(json.loads((entry / "metrics.json").read_text()))
        out = options.out or f"runs/{options.model}"
    metrics = evaluate(model, recipe, out, options.data_dir, training, others)
    print(f"{headline(metrics)}; written: metrics.json, README.md and plots in {out}/")


def _compare(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from keras_shared.comparison_card import comparison_table
    from keras_shared.evaluation.comparison import compare
    from keras_shared.recipe import comparison_of

    recipe = _recipe(options.recipe)
    comparison = comparison_of(recipe, options.seeds, options.vary, options.sizes)
    out = options.out or f"runs/{recipe.name}_compared"
    header, rows = comparison_table(compare(recipe, comparison, out, options.data_dir))
    table = Table(*header, title=recipe.name)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(f"written: comparison.json, README.md and plots in {out}/")


def _publish(options: argparse.Namespace) -> None:
    from keras_shared.presets.loading import load
    from keras_shared.presets.publishing import publish
    from keras_shared.recipe import read_recipe
    from keras_shared.training import best_run

    run = best_run(options.run)
    recipe = read_recipe(run / "recipe.toml")
    version = publish(load(run / "model.keras"), pathlib.Path(options.to, recipe.name))
    print(f"published: {version}")


def _fine_tune(options: argparse.Namespace) -> None:
    from keras_shared.data import training_data
    from keras_shared.training import run_dirs, start_model, train

    recipe = _recipe(options.recipe)
    run = options.out or f"runs/{recipe.name}_tuned"
    for seed, folder in run_dirs(recipe, run).items():
        one = recipe.with_seed(seed)
        start = start_model(one, options.model)
        train(one, training_data(one, options.data_dir), folder, start=start)
        print(f"fine-tuned: {folder}/model.keras")
    print(f"next: keras-shared evaluate {run}")


def _predict(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from keras_shared.serving.answering import answer

    table = Table("file", "output", "value")
    answers = answer(options.model, [[file] for file in options.files])
    for file, outputs in zip(options.files, answers, strict=True):
        for name, value in outputs.items():
            table.add_row(file, name, value)
    Console().print(table)


def _verify(options: argparse.Namespace) -> None:
    from keras_shared.serving.answering import answer

    [outputs] = answer(options.model, [[options.image_a, options.image_b]])
    verdict = "same" if float(outputs["probability"]) >= 0.5 else "different"
    print(f"{verdict}: probability {outputs['probability']}, distance {outputs['distance']}")


def _inspect(options: argparse.Namespace) -> None:
    from rich.console import Console

    from keras_shared.presets.loading import INNER_MODEL, load, version_dir
    from keras_shared.atomic import replace_text
    from keras_shared.sharing import draw_sharing, sharing_report, stored_report
    from keras_shared.sharing.table import print_report

    path = pathlib.Path(options.model)
    foreign = (path / "saved_model.pb").exists() and not (path / INNER_MODEL).exists()
    if path.suffix != ".keras" and not foreign:
        foreign = not ((folder := version_dir(options.model)) / INNER_MODEL).exists()
        path = folder if foreign else path
    report = stored_report(path) if foreign else sharing_report(load(options.model))
    print_report(report, Console())
    if options.json:
        replace_text(options.json, json.dumps(report.to_dict(), indent=2) + "\n")
    if options.picture:
        draw_sharing(report, options.picture)


def _check(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from keras_shared.serving import check

    findings = check(options.path)
    table = Table("severity", "what", "cure")
    for finding in findings:
        table.add_row(*finding)
    Console().print(table)
    failed = any(finding.severity == "error" for finding in findings)
    print(f"{options.path}: TF Serving {'would fail' if failed else 'serves it'}")
    return int(failed)


def _serve(options: argparse.Namespace) -> int:
    from keras_shared.serving import EngineError, serve

    try:
        return serve(options.models, options.rest_port, options.grpc_port)
    except EngineError as error:  # of several lines: how to get the server, or the end of its log
        if options.debug:
            raise
        print(f"keras-shared: {error}", file=sys.stderr)
        return 1


def _manifests(options: argparse.Namespace) -> None:
    from keras_shared.serving import write_manifests

    for path in write_manifests(options.models, options.to):
        print(path)


def _demo(options: argparse.Namespace) -> None:
    from keras_shared.demo import demo

    demo(options.out)


def _recipe(path_or_name: str) -> "Recipe":
    from keras_shared.presets.names import entry_dir
    from keras_shared.recipe import read_recipe

    if path_or_name.endswith(".toml"):
        return read_recipe(path_or_name)
    return read_recipe(entry_dir(path_or_name) / "recipe.toml")


if __name__ == "__main__":
    sys.exit(main())
