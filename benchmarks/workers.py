"""What two workers send each other in a step: a weight that layers share goes over once.

    python benchmarks/workers.py

Two processes on this machine train an autoencoder of 784-256-64, tied and untied, on batches of 64
made-up images; the bytes are those of the loopback device in the second epoch, by both workers, so
that other traffic of this machine counts too. Of W bytes of weights each of n workers sends
2 (n - 1) / n W in a ring: W with two, and 2 W by both.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

STEPS, BATCH = 50, 64
DEVICES = pathlib.Path("/proc/net/dev")


def sent():
    """Bytes that went over the loopback device until now."""
    line = next(line for line in DEVICES.read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def work(kind):
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_shared import unshare
    from keras_shared.training.workers import Workers
    from keras_shared.zoo import TiedAutoencoder

    class Sent(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.start = sent()

        def on_epoch_end(self, epoch, logs=None):
            self.bytes = sent() - self.start

    workers = Workers()
    keras.utils.set_random_seed(1)
    model = TiedAutoencoder(units=(256, 64), input_dim=784)
    model = workers.copy(model if kind == "tied" else unshare(model))
    with workers.strategy.scope():
        model.compile("adam", "mse")
    images = np.random.default_rng(1).uniform(size=(STEPS * BATCH, 784)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((images, images)).batch(BATCH)
    counted = Sent()
    with workers.fitting(model, BATCH, next(iter(batches))):
        model.fit(workers.shared_out(batches), epochs=2, verbose=0, callbacks=[counted])
    if workers.number == 0:
        print(json.dumps({"parameters": model.count_params(), "bytes": counted.bytes / STEPS}))


def measure(kind):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    cluster = {"worker": [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]}
    for one in sockets:
        one.close()
    configs = [{"cluster": cluster, "task": {"type": "worker", "index": n}} for n in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, kind], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "TF_CONFIG": json.dumps(config)},
        )
        for config in configs
    ]  # fmt: skip
    return json.loads(processes[0].communicate()[0].splitlines()[-1])


def main():
    from rich.console import Console
    from rich.table import Table

    table = Table("", "parameters", "their KB", "KB a step, both workers", "ratio")
    for kind in ("tied", "untied"):
        found = measure(kind)
        weights, both = 4 * found["parameters"] / 1000, found["bytes"] / 1000
        row = f"{found['parameters']:,}", f"{weights:,.0f}", f"{both:,.0f}"
        table.add_row(kind, *row, f"{both / weights:.2f}")
    Console().print(table)


if __name__ == "__main__":
    work(sys.argv[1]) if sys.argv[1:] else main()
