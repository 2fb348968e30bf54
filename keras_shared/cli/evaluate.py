import argparse
import pathlib
from typing import Any

from keras_shared.cli.options import RUN, add_data_dir

NAME = "evaluate"
HELP = "run a model on its test data: metrics.json, card, plots"
EXAMPLE = "evaluate runs/lenet5_mnist"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN|NAME", help="folder of a run, or an entry's name")
    parser.add_argument(
        "--out", metavar="DIR", help="where to write (default: the run, or runs/NAME)"
    )
    parser.add_argument(
        "--runs", metavar="FOLDER",
        help="in place of the test data, one-shot runs of your own: FOLDER/RUN/support/CLASS.png, "
        "FOLDER/RUN/query/CLASS/ANY.png, or Omniglot's all_runs; writes one_shot.json",
    )  # fmt: skip
    add_data_dir(parser)


def run(options: argparse.Namespace) -> None:
    from keras_shared.evaluation import evaluate, evaluate_runs
    from keras_shared.evaluation.entry import METRICS, known_runs
    from keras_shared.presets.headline import headline
    from keras_shared.presets.loading import load
    from keras_shared.presets.names import entry_dir, entry_model_dir
    from keras_shared.recipes import read_recipe
    from keras_shared.terminal import say
    from keras_shared.training import Run

    others: list[tuple[Any, dict[str, Any]]]
    nothing = None
    if pathlib.Path(options.model).is_dir():
        run = Run(options.model)
        best = run.best()
        recipe, training = best.recipe(), best.facts()
        model = best.model()
        rest = [other for other in run.begun() if other.path != best.path]
        others = [(other.model(), other.facts()) for other in rest]
        if best.from_nothing.model_file.exists():
            nothing = best.from_nothing.model()
        out = options.out or run.path
    else:
        entry = entry_dir(options.model, RUN)
        recipe = read_recipe(entry / "recipe.toml")
        model = load(entry_model_dir(options.model), compile=False)
        training, others = known_runs(entry / METRICS)
        out = options.out or f"runs/{options.model}"
    if options.runs:
        answered = evaluate_runs(model, recipe, options.runs, out)
        error, count = answered["one_shot_error_percent"], len(answered["runs"])
        say(f"one-shot error {error} % in {count} runs; written: one_shot.json and .png in {out}/")
        return
    metrics = evaluate(model, recipe, out, options.data_dir, training, others, nothing)
    say(f"{headline(metrics)}; written: metrics.json, README.md and plots in {out}/")
