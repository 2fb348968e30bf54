import argparse

from keras_shared.cli.options import (
    add_data_dir,
    add_own_data,
    add_recipe,
    progress_of_epochs,
    recipe_of,
)

NAME = "train"
HELP = "train a recipe, or go on with it"
EXAMPLE = "train lenet5_mnist --set training.epochs=5"
TRAINS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/<name>)")
    parser.add_argument("--seed", type=int, metavar="N", help="one of the recipe's seeds, not all")
    parser.add_argument(
        "--strategy", choices=["multi-worker"],
        help="one of several processes that train together, as TF_CONFIG says",
    )  # fmt: skip
    add_own_data(parser)
    add_data_dir(parser)


def run(options: argparse.Namespace) -> None:
    from keras_shared.errors import KerasSharedError
    from keras_shared.terminal import say
    from keras_shared.training import Run, train, training_data
    from keras_shared.training.build import with_data_arguments
    from keras_shared.training.callbacks import in_words
    from keras_shared.training.fit import checked_start
    from keras_shared.training.workers import Workers

    workers = Workers() if options.strategy else None
    writes = workers is None or workers.number == 0
    recipe = with_data_arguments(recipe_of(options), options.data_dir)
    run = Run(options.out or f"runs/{recipe.name}")
    runs = run.of_seeds(recipe)
    if options.seed is not None and options.seed not in runs:
        known = f"{recipe.path} has the seeds {list(runs)}"
        raise KerasSharedError(f"{known}. Received: {options.seed}")
    took, shown = 0.0, progress_of_epochs() if writes else 0
    seeds = list(runs) if options.seed is None else [options.seed]
    for number, seed in enumerate(seeds, 1):
        one = recipe.with_seed(seed)
        if len(seeds) > 1:
            to_go = len(seeds) - number + 1
            known = f", about {in_words(took * to_go)} to go" if took else ""
            say(f"seed {number} of {len(seeds)}: {seed}{known}")
        data = training_data(one, options.data_dir)
        if writes and number == 1 and len(runs) > 1:  # one that is refused leaves no folder behind
            checked_start(one, data)
            run.expect(recipe)
        train(one, data, runs[seed], workers=workers, verbose=shown)
        if not writes:
            continue
        took = runs[seed].facts()["seconds"]
        say(f"trained: {runs[seed].model_file}")
    if options.seed is None and writes:
        say(f"next: keras-shared evaluate {run.path}")
