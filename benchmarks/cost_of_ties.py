"""What a tie costs, as ratios within one run: tied layers beside plain ones of the same shape.

    python benchmarks/cost_of_ties.py

1.00 means that the tied form takes as long as the plain one. Each ratio is the median of
interleaved repetitions, so that a busy machine disturbs both sides alike.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from rich.console import Console
from rich.table import Table

from keras_shared import check_ties, sharing_report
from keras_shared.layers import Shared, TiedConv, TiedConvTranspose, TiedDense, TiedEinsumDense


def ratio(tied, plain, repetitions):
    """Median time of `tied` over that of `plain`, called in turn."""
    times = {tied: [], plain: []}
    for function in (tied, plain) * 2:  # traces and warms up
        function()
    for _ in range(repetitions):
        for function in (tied, plain):
            start = time.perf_counter()
            function()
            times[function].append(time.perf_counter() - start)
    return statistics.median(times[tied]) / statistics.median(times[plain])


def calls(model, x, graph):
    """The forward pass and the training step of a model, in graph or eager mode."""
    optimizer = keras.optimizers.SGD(1e-6)
    optimizer.build(model.trainable_variables)

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    wrap = tf.function if graph else (lambda function: function)
    return wrap(lambda: model(x, training=False)), wrap(step)


def dense_pair(inputs, units, tied):
    """inputs -> units -> inputs: both kernels are read, and the plain one owns two."""
    x, source = keras.Input((inputs,)), layers.Dense(units)
    back = TiedDense(source) if tied else layers.Dense(inputs)
    return keras.Model(x, back(source(x)))


def convolutions(tied):
    """64x64 images -> 32 maps of half the size -> images, with a kernel of 5x5."""
    x = keras.Input((64, 64, 3))
    source = layers.Conv2D(32, 5, strides=2, padding="same")
    plain = layers.Conv2DTranspose(3, 5, strides=2, padding="same")
    return keras.Model(x, (TiedConvTranspose(source) if tied else plain)(source(x)))


def scales(tied):
    """One kernel of 3x3 with dilation 1 and 2, beside two kernels."""
    x = keras.Input((32, 32, 32))
    source = layers.Conv2D(32, 3, padding="same")
    plain = layers.Conv2D(32, 3, padding="same", dilation_rate=2)
    wide = TiedConv(source, dilation_rate=2) if tied else plain
    return keras.Model(x, layers.Add()([source(x), wide(x)]))


def heads(tied):
    """64 tokens of 256 numbers -> 8 heads of 32 -> tokens, as attention projects them."""
    x = keras.Input((64, 256))
    source = layers.EinsumDense("bti,ihd->bthd", (64, 8, 32))
    plain = layers.EinsumDense("bthd,ihd->bti", (64, 256))
    return keras.Model(x, (TiedEinsumDense(source) if tied else plain)(source(x)))


def twin(shared):
    tower = keras.Sequential([layers.Dense(256, "relu"), layers.Dense(64)])
    a, b = keras.Input((128,)), keras.Input((128,))
    outputs = Shared(tower)([a, b]) if shared else [tower(a), tower(b)]
    return keras.Model([a, b], outputs)


def chain(number, tied):
    """`number` pairs of layers in a row, the second of each tied to the first or not."""
    x = inputs = keras.Input((8,))
    for i in range(number):
        source = layers.Dense(4, name=f"source_{i}")
        x = source(x)
        x = (TiedDense(source) if tied else layers.Dense(8))(x)
    return keras.Model(inputs, x)


def save_and_load(model, path):
    model.save(path)
    keras.models.load_model(path)


def peak_memory(inputs, units, tied):
    """kB that a process of its own needs at most to train on one batch, less its start."""
    code = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import numpy as np
from cost_of_ties import calls, dense_pair
def peak():  # of this program: getrusage would give that of its parent, if it is larger
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
calls(dense_pair(8, 4, {tied}), np.ones((2, 8), "float32"), True)[1]()
before = peak()
calls(dense_pair({inputs}, {units}, {tied}), np.ones((32, {inputs}), "float32"), True)[1]()
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


SIZES = ((256, 64, 64, 200), (784, 1000, 128, 60), (20_000, 512, 32, 12))


def main():
    table = Table("what", "mode", "tied / plain", title="Cost of ties, ratios within one run")
    for inputs, units, batch, repetitions in SIZES:
        x = np.random.default_rng(0).random((batch, inputs), "float32")
        models = [dense_pair(inputs, units, tied) for tied in (True, False)]
        for graph in (True, False):
            (forward, step), (plain_forward, plain_step) = (calls(m, x, graph) for m in models)
            mode = "graph" if graph else "eager"
            name = f"TiedDense, kernel {inputs:,} x {units}"
            cost = ratio(forward, plain_forward, repetitions)
            table.add_row(f"{name}, forward", mode, f"{cost:.2f}")
            cost = ratio(step, plain_step, repetitions)
            table.add_row(f"{name}, training step", mode, f"{cost:.2f}")

        if inputs > 1000:
            cost = peak_memory(inputs, units, True) / peak_memory(inputs, units, False)
            table.add_row(f"{name}, peak memory of a training step", "graph", f"{cost:.2f}")

    kinds = {
        "TiedConvTranspose": convolutions,
        "TiedConv, two dilations": scales,
        "TiedEinsumDense": heads,
    }
    for name, build in kinds.items():
        models = [build(tied) for tied in (True, False)]
        x = np.random.default_rng(0).random((32, *models[0].input_shape[1:]), "float32")
        (_, step), (_, plain_step) = (calls(model, x, True) for model in models)
        cost = ratio(step, plain_step, 40)
        table.add_row(f"{name}, training step", "graph", f"{cost:.2f}")

    pair = list(np.random.default_rng(0).random((2, 64, 128), "float32"))
    for graph in (True, False):
        (forward, _), (plain_forward, _) = (
            calls_of_twin(twin(shared), pair, graph) for shared in (True, False)
        )
        cost = ratio(forward, plain_forward, 200)
        table.add_row(
            "Shared, beside two calls by hand", "graph" if graph else "eager", f"{cost:.2f}"
        )

    for number in (100, 400):  # of two layers each; Keras itself recurses through a model
        cost = ratio(lambda n=number: chain(n, True), lambda n=number: chain(n, False), 3)
        table.add_row(f"building {number} ties", "", f"{cost:.2f}")
        with tempfile.TemporaryDirectory() as folder:
            models = [chain(number, tied) for tied in (True, False)]
            cost = ratio(
                lambda m=models[0], f=folder: save_and_load(m, f"{f}/tied.keras"),
                lambda m=models[1], f=folder: save_and_load(m, f"{f}/plain.keras"),
                3,
            )
        table.add_row(f"saving and loading {number} ties", "", f"{cost:.2f}")
    large = keras.applications.EfficientNetB7(weights=None)  # 1,040 weights
    build = lambda: keras.applications.EfficientNetB7(weights=None)  # noqa: E731
    for name, look in (("sharing_report", sharing_report), ("check_ties", check_ties)):
        cost = ratio(lambda look=look: look(large), build, 3)
        table.add_row(f"{name} of EfficientNetB7, beside building it", "", f"{cost:.2f}")
    Console().print(table)


def calls_of_twin(model, pair, graph):
    wrap = tf.function if graph else (lambda function: function)
    return wrap(lambda: model(pair, training=False)), None


if __name__ == "__main__":
    main()
