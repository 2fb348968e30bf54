"""A page read by to_convolutional, beside the same net on every window alone, as ratios.

    python benchmarks/sliding_window.py

Both give the scores of lenet5_modern_mnist at the same positions, four pixels apart; the windows
are cut out before the clock starts and go through the net in one batch. Each ratio is the median of
interleaved repetitions in graph mode. Multiply-adds are those of the sharing report.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from keras_shared import sharing_report, to_convolutional
from keras_shared.sharing import window_of
from keras_shared.zoo import LeNet5

PAGES = ((32, 64), (32, 140), (32, 512), (128, 128))
REPETITIONS = 15


def seconds(*functions):
    """Median time of each, called in turn."""
    times = {function: [] for function in functions}
    for function in functions * 2:  # traces and warms up
        function()
    for _ in range(REPETITIONS):
        for function in functions:
            start = time.perf_counter()
            function()
            times[function].append(time.perf_counter() - start)
    return [statistics.median(times[function]) for function in functions]


def multiply_adds(converted, shape):
    """Of one example, reported for images of this size."""
    image = keras.Input(shape)
    return sharing_report(keras.Model(image, converted(image))).totals["multiply_adds"]


def main():
    converted = to_convolutional(LeNet5.from_preset("lenet5_modern_mnist"))
    (rows, columns), (down, across) = window_of(converted)
    swept = tf.function(lambda x: converted(x, training=False), reduce_retracing=True)
    one = multiply_adds(converted, (rows, columns, 1))
    table = Table("page", "positions", "multiply-adds saved", "times faster")
    for height, width in PAGES:
        page = np.random.default_rng(0).uniform(0, 255, (1, height, width, 1)).astype("float32")
        places = [
            (i, j)
            for i in range(0, height - rows + 1, down)
            for j in range(0, width - columns + 1, across)
        ]
        windows = tf.stack([page[0, i : i + rows, j : j + columns] for i, j in places])
        page = tf.constant(page)
        alone, together = (np.reshape(swept(x), (-1, 10)) for x in (windows, page))
        np.testing.assert_allclose(alone, together, rtol=1e-3, atol=1e-3)
        slow, fast = seconds(lambda x=windows: swept(x), lambda x=page: swept(x))
        work = len(places) * one / multiply_adds(converted, (height, width, 1))
        table.add_row(f"{height}x{width}", str(len(places)), f"{work:.1f} x", f"{slow / fast:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
