"""Ties in other processes: loaded in a fresh one, and trained on two devices at once.

python tests/tying/elsewhere.py fresh FOLDER   check the files that `save_all` wrote there
python tests/tying/elsewhere.py devices        train under MirroredStrategy on two logical CPUs

Either prints one line for each topology: its name, and `ok` or what went wrong.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import subprocess
import sys
import tempfile
import traceback

import keras
import numpy as np
from topologies import TOPOLOGIES, check_tied, data_for


def results(*arguments):
    """Run this file in a process of its own: name of the topology -> `ok`, or what went wrong."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line.partition(" ") for line in done.stdout.splitlines() if " " in line]
    found = {name: result for name, _, result in lines}
    missing = done.stderr.strip()[-2000:] or "no result"
    return {t.__name__: found.get(t.__name__, missing) for t in TOPOLOGIES}


def loaded_in_a_fresh_process():
    with tempfile.TemporaryDirectory() as folder:
        for topology in TOPOLOGIES:
            model = topology()
            model.save(f"{folder}/{topology.__name__}.keras")
            answers = model.predict(data_for(topology), verbose=0)
            np.save(f"{folder}/{topology.__name__}.npy", answers)
        return results("fresh", folder)


def trained_on_two_devices():
    return results("devices")


def load(topology, folder):
    model = keras.models.load_model(folder / f"{topology.__name__}.keras")
    x = data_for(topology)
    wanted = np.load(folder / f"{topology.__name__}.npy")
    np.testing.assert_allclose(model.predict(x, verbose=0), wanted, atol=1e-6)
    return model


def train_on_two_devices(topology, folder):
    import tensorflow as tf

    # an Embedding's gradient is sparse: the default reduction fails on it, with or without a tie
    reduction = tf.distribute.HierarchicalCopyAllReduce()
    strategy = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"], cross_device_ops=reduction)
    x = data_for(topology)[:2]
    with strategy.scope():
        model = topology()
        model.compile(keras.optimizers.SGD(0.01), "mse")
    alone = topology()
    alone.set_weights(model.get_weights())
    alone.compile(keras.optimizers.SGD(0.01), "mse")
    wanted = model.predict(x, verbose=0) * 0.5
    for trained in (model, alone):
        trained.fit(x, wanted, epochs=2, batch_size=2, verbose=0)
    for there, here in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(there, here, atol=1e-5)
    model.save(folder / "m.keras")
    return keras.models.load_model(folder / "m.keras")


def main(what, folder=None):
    if what == "devices":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
    for topology in TOPOLOGIES:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                if what == "fresh":
                    model = load(topology, pathlib.Path(folder))
                else:
                    model = train_on_two_devices(topology, pathlib.Path(scratch))
                check_tied(topology, model, data_for(topology))
                print(topology.__name__, "ok", flush=True)
            except Exception:
                traceback.print_exc()
                last = traceback.format_exc().strip().splitlines()[-1]
                print(topology.__name__, last, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
