"""Two blocks called twice beside four blocks of their own, trained for the same seconds.

    TFDS_DATA_DIR=... python benchmarks/shared_depth.py

The one is the recipe of shared_transformer_shakespeare, the other nanoGPT's setting for a CPU: 64
characters, four blocks of width 128, batches of 12, 2,000 steps. First the seconds of a step of
both are measured, in turn; then both train for the seconds that 2,000 steps of the other take, each
with a rate that falls along a cosine over its own steps. Losses are those of the validation text,
at the end, in nats a character, of several seeds.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import sys
import time

import keras
from rich.console import Console
from rich.table import Table

from keras_shared.presets.names import entry_dir
from keras_shared.recipes import read_recipe
from keras_shared.training import build_model, training_data
from keras_shared.training.build import compile_model, with_data_arguments

STEPS, BATCH = 2000, 12  # of nanoGPT
PART = 50  # steps between two looks at the clock
REPETITIONS = 5
SEEDS = (1, 2, 3)
OWN_BLOCKS = {
    "model.distinct": 4, "model.intermediate_dim": 512, "training.learning_rate": 0.001,
}  # fmt: skip
CONTENDERS = {"four blocks of their own": OWN_BLOCKS, "two blocks, used twice": {}}


def ready(changes, steps, seed):
    """A compiled model, and the batches of so many steps."""
    recipe = read_recipe(entry_dir("shared_transformer_shakespeare") / "recipe.toml")
    plan = {"training.batch_size": BATCH, "data.windows_per_epoch": steps * BATCH}
    plan |= {"training.epochs": 1, **changes}
    recipe = with_data_arguments(recipe.with_changes(plan).with_seed(seed))
    keras.utils.set_random_seed(seed)
    data, model = training_data(recipe), build_model(recipe)
    compile_model(model, recipe, data.steps_per_epoch)
    return model, data


def step_seconds():
    """Median seconds of a step of each, called in turn."""
    made = {name: ready(changes, PART, 0) for name, changes in CONTENDERS.items()}
    times = {name: [] for name in made}
    for repetition in range(REPETITIONS + 1):
        for name, (model, data) in made.items():
            start = time.perf_counter()
            model.fit(
                data.batches(0, 1), steps_per_epoch=data.steps_per_epoch, shuffle=False, verbose=0
            )
            times[name] += [(time.perf_counter() - start) / PART] * (repetition > 0)  # 0 traces
    return {name: statistics.median(found) for name, found in times.items()}


def main():
    steps = step_seconds()
    budget = STEPS * steps["four blocks of their own"]
    table = Table("", "parameters", "steps", "seconds", "validation loss", title=f"{budget:.0f} s")
    for name, changes in CONTENDERS.items():
        losses, seconds, count = [], [], round(budget / steps[name])
        for seed in SEEDS:
            model, data = ready(changes, count, seed)
            start = time.perf_counter()
            model.fit(
                data.batches(0, 1), steps_per_epoch=data.steps_per_epoch, shuffle=False, verbose=0
            )
            seconds.append(time.perf_counter() - start)
            losses.append(model.evaluate(data.validation, return_dict=True, verbose=0)["loss"])
            print(f"{name}, seed {seed}: {losses[-1]:.4f}, {seconds[-1]:.0f} s", file=sys.stderr)
        spread = f"{statistics.mean(losses):.3f} ± {statistics.stdev(losses):.3f}"
        row = f"{model.count_params():,}", f"{count:,}", f"{statistics.mean(seconds):.0f}", spread
        table.add_row(name, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
