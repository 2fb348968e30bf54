"""What happens between epochs: seeds, seconds, the checkpoint."""

import time
from typing import Any

import keras

from keras_shared.training.run import Run


class EpochSeeds(keras.callbacks.Callback):
    """Lets noise and dropout depend on seed and epoch: Keras saves no state of its generators."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        states = (
            variable
            for variable in self.model.non_trainable_variables
            if variable.path.endswith("seed_generator_state")
        )
        for number, state in enumerate(states):
            state.assign([self._seed + number, epoch << 20])  # the second counts the draws


class EpochSeconds(keras.callbacks.Callback):
    """Adds the wall-clock time of each epoch, in seconds, to its logs."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["seconds"] = round(time.monotonic() - self._start, 2)


class Checkpoint(keras.callbacks.Callback):
    """Saves the whole model after each epoch; after the history, which may then be one row long."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._run.save_checkpoint(self.model, epoch + 1)
