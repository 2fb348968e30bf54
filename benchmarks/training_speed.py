"""lenet5_modern_mnist by its recipe, beside the same net in plain Keras and in plain PyTorch.

    TFDS_DATA_DIR=... python benchmarks/training_speed.py

Images per second of training, and seconds of training until 99.0 % of the validation images are
right. Each contender runs in a process of its own, in turn, with several seeds; the table holds
medians, ratios to plain Keras within this run, and how many seeds came to 99.0 %. All train on
55,000 images, with the same seed and by Adam; plain Keras and PyTorch take the recipe's rate and
batch size. The recipe distorts its images as it goes and lowers its rate along a cosine over 25
epochs. The same in a hurry sees 44,800 images once, by Muon:

    keras-shared train lenet5_modern_mnist --set training.epochs=1 \
      --set training.optimizer=muon --set training.learning_rate=0.02 \
      --set training.beta_1=0.85 --set training.beta_2=0.95 \
      --set data.images_per_epoch=44800 --set "data.distortion=[0,0,0,0]"

These were chosen by the validation images that the clock looks at, with seeds 1 to 8 and 101 to
120; the seeds here are others. PyTorch has the recipe's settings, which nobody chose for it.

keras-shared switches on oneDNN, which TensorFlow leaves out on some processors; plain Keras runs
without and with. PyTorch takes part where it is installed, in both layouts of images.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PART = 6400  # images between two looks at the validation images
MOST_EPOCHS = 5
GOAL = 0.99
SEEDS = range(11, 16)
RATE, BATCH = 0.003, 128  # of the recipe, which a check below keeps
HURRY = {
    "training.epochs": 1, "training.optimizer": "muon", "training.learning_rate": 0.02,
    "training.beta_1": 0.85, "training.beta_2": 0.95,
    "data.images_per_epoch": 44_800, "data.distortion": [0.0, 0.0, 0.0, 0.0],
}  # fmt: skip


class Race:
    """A clock that stands still while the validation images are looked at."""

    def __init__(self, accuracy):
        self.accuracy, self.images, self.parts, self.reached = accuracy, 0, [], None
        self.start = time.perf_counter()

    def after(self, images):
        """So many images were trained on since the beginning."""
        if images // PART == self.images // PART:
            return
        self.images = images
        self.parts.append(time.perf_counter() - self.start)
        if self.reached is None and self.accuracy() >= GOAL:
            self.reached = sum(self.parts)
        self.start = time.perf_counter()

    def finish(self):
        speed = PART / statistics.median(self.parts)  # the first part traces
        print(json.dumps({"speed": speed, "seconds": self.reached}))


def keras_race(model, x, y, batch_size=BATCH):
    import keras
    import numpy as np

    class Clock(keras.callbacks.Callback):
        race = Race(lambda: np.mean(model.predict_on_batch(x).argmax(-1) == y))

        def on_train_batch_end(self, batch, logs=None):
            done = int(self.model.optimizer.iterations) * batch_size
            self.race.after(done)

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = self.race.reached is not None

        def on_train_end(self, logs=None):
            self.race.finish()

    return Clock()


def arrays():
    from keras_shared.training import training_data

    data = training_data(recipe())
    x, y = zip(*data.batches(0, 1).as_numpy_iterator(), strict=True)
    held_x, held_y = zip(*data.validation.as_numpy_iterator(), strict=True)
    import numpy as np

    return [np.concatenate(part) for part in (x, y, held_x, held_y)]


def recipe(distorted=False):
    from keras_shared.presets.names import entry_dir
    from keras_shared.recipes import read_recipe

    changes = {} if distorted else {"data.distortion": [0.0, 0.0, 0.0, 0.0]}
    entry = read_recipe(entry_dir("lenet5_modern_mnist") / "recipe.toml")
    read = entry.with_changes(changes)
    assert (read.training.learning_rate, read.training.batch_size) == (RATE, BATCH)
    return read.with_seed(int(sys.argv[2]))


def in_a_hurry():
    by_recipe(HURRY)


def by_recipe(changes=None):
    from keras_shared.cli.quiet import import_quietly

    import_quietly()  # as the command line does
    import numpy as np

    from keras_shared.training import build_model, training_data
    from keras_shared.training.build import compile_model
    from keras_shared.training.fit import several_steps_at_once
    from keras_shared.training.normalization import fused_normalization
    from keras_shared.tying.keras_private import make_variables

    chosen = recipe(distorted=True).with_changes(changes or {})
    epochs, batch_size = min(MOST_EPOCHS, chosen.training.epochs), chosen.training.batch_size
    data, model = training_data(chosen), build_model(chosen)
    compile_model(model, chosen, data.steps_per_epoch)
    x, y = (np.concatenate(c) for c in zip(*data.validation.as_numpy_iterator(), strict=True))
    clock, batches = keras_race(model, x, y, batch_size), data.batches(0, epochs)
    make_variables(model, batches.element_spec)
    with several_steps_at_once(model, data.steps_per_epoch), fused_normalization(model):
        model.fit(
            batches, shuffle=False, verbose=0, epochs=epochs,
            steps_per_epoch=data.steps_per_epoch, callbacks=[clock],
        )  # fmt: skip


def by_plain_keras():
    x, y, held_x, held_y = arrays()
    import keras
    from keras import layers

    keras.utils.set_random_seed(int(sys.argv[2]))
    net = [keras.Input((28, 28, 1)), layers.ZeroPadding2D(2), layers.Rescaling(1.275 / 255, -0.1)]
    for maps, pool in ((16, True), (32, True), (56, False)):
        net += [layers.Conv2D(maps, 5, use_bias=False)]
        net += [layers.MaxPooling2D()] * pool
        net += [layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    model = keras.Sequential([*net, layers.Flatten(), layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss, metrics=["accuracy"])
    clock = keras_race(model, held_x, held_y)
    model.fit(x, y, batch_size=BATCH, epochs=MOST_EPOCHS, verbose=0, callbacks=[clock])


def write_arrays():
    import numpy as np

    np.savez(sys.argv[3], *arrays())


def by_plain_torch(channels_last=False):
    import numpy as np
    import torch
    from torch import nn

    with (
        tempfile.TemporaryDirectory() as folder
    ):  # TensorFlow and some builds of torch crash together
        command = [sys.executable, __file__, "arrays", sys.argv[2], f"{folder}/arrays.npz"]
        subprocess.run(command, check=True)
        x, y, held_x, held_y = np.load(f"{folder}/arrays.npz").values()
    torch.manual_seed(int(sys.argv[2]))

    def prepared(images):
        scaled = torch.from_numpy(images).float().permute(0, 3, 1, 2) * (1.275 / 255) - 0.1
        return nn.functional.pad(scaled, (2, 2, 2, 2), value=-0.1)

    x, held_x = prepared(x), prepared(held_x)
    y, held_y = torch.from_numpy(y).long(), torch.from_numpy(held_y).long()
    net, channels = [], 1
    for maps, pool in ((16, True), (32, True), (56, False)):
        net += [nn.Conv2d(channels, maps, 5, bias=False)]
        net += [nn.MaxPool2d(2)] * pool
        net += [nn.BatchNorm2d(maps), nn.ReLU()]
        channels = maps
    model = nn.Sequential(*net, nn.Flatten(), nn.Linear(56, 10))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x, held_x = (a.to(memory_format=torch.channels_last) for a in (x, held_x))
    optimizer = torch.optim.Adam(model.parameters(), RATE)

    def accuracy():
        model.eval()
        with torch.no_grad():
            right = (model(held_x).argmax(-1) == held_y).float().mean().item()
        model.train()
        return right

    race, done = Race(accuracy), 0
    for _ in range(MOST_EPOCHS):
        for chosen in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
            done += len(chosen)
            race.after(done)
        if race.reached is not None:
            break
    race.finish()


def by_channels_last():
    by_plain_torch(channels_last=True)


CONTENDERS = {
    "plain Keras fit": by_plain_keras,
    "plain Keras fit, oneDNN": by_plain_keras,
    "keras-shared, distorting": by_recipe,
    "keras-shared, in a hurry": in_a_hurry,
    "plain PyTorch loop": by_plain_torch,
    "PyTorch, channels_last": by_channels_last,
}


def main():
    from rich.console import Console
    from rich.table import Table

    names = [n for n in CONTENDERS if "Torch" not in n or importlib.util.find_spec("torch")]
    found = {name: [] for name in names}
    for seed in SEEDS:
        for name in names:
            command = [sys.executable, __file__, name, str(seed)]
            env = os.environ | ({"TF_ENABLE_ONEDNN_OPTS": "1"} if "oneDNN" in name else {})
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
            found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
            Console(stderr=True).print(f"{seed}: {name}: {found[name][-1]}")
    table = Table("", "images/s", "ratio", f"seconds to {GOAL:.1%}", "ratio", "reached")
    never = float("inf")
    medians = {
        name: (
            statistics.median(r["speed"] for r in runs),
            statistics.median(r["seconds"] or never for r in runs),
            sum(r["seconds"] is not None for r in runs),
        )
        for name, runs in found.items()
    }
    speed, seconds, _ = medians[names[0]]
    for name, (s, t, n) in medians.items():
        ratios = f"{s / speed:.2f}", f"{t / seconds:.2f}"
        table.add_row(name, f"{s:,.0f}", ratios[0], f"{t:.1f}", ratios[1], f"{n} of {len(SEEDS)}")
    Console().print(table)


if __name__ == "__main__":
    contender = {**CONTENDERS, "arrays": write_arrays, "": main}
    contender[sys.argv[1] if len(sys.argv) > 1 else ""]()
