import argparse

from keras_shared.cli.options import add_data_dir, add_recipe, recipe_of

NAME = "fine-tune"
HELP = "train a published model further with a recipe"
EXAMPLE = "fine-tune siamese_omniglot my/recipe.toml"
TRAINS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|PATH", help="a preset's name or a folder")
    add_recipe(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the run (default: runs/<name>_tuned)"
    )
    add_data_dir(parser)


def run(options: argparse.Namespace) -> None:
    from keras_shared.training import Run, start_model, train, training_data

    recipe = recipe_of(options)
    run = Run(options.out or f"runs/{recipe.name}_tuned")
    run.expect(recipe)
    for seed, of_seed in run.of_seeds(recipe).items():
        one = recipe.with_seed(seed)
        start = start_model(one, options.model)
        train(one, training_data(one, options.data_dir), of_seed, start=start)
        print(f"fine-tuned: {of_seed.model_file}")
    print(f"next: keras-shared evaluate {run.path}")
