"""What happens between epochs: seeds, seconds, the checkpoint."""

import time
from typing import Any

import keras

from keras_shared.training.run import Record, Run

SHORT = 20.0  # seconds that nobody needs to be told of


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


class TimeToGo(keras.callbacks.Callback):
    """Says once how long the rest takes: by the second epoch, since the first builds graphs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs
        self._seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        left = self._epochs - epoch
        if len(self._seconds) == 2 and left * self._seconds[1] > SHORT:
            print(f"{left} epochs to go, about {in_words(left * self._seconds[1])}", flush=True)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._seconds.append(logs["seconds"])


def in_words(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> from keras_shared.training.callbacks import in_words
        >>> in_words(40), in_words(400), in_words(8000)
        ('40 seconds', '7 minutes', '2 hours 13 minutes')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} seconds"
    return f"{minutes} minutes" if minutes < 90 else f"{minutes // 60} hours {minutes % 60} minutes"


class Checkpoint(keras.callbacks.Callback):
    """Keeps history.csv, and then the whole model with that history inside, after each epoch.

    Args:
        run: where they are kept.
        record: what the model is of, with the history until now.
    """

    def __init__(self, run: Run, record: Record) -> None:
        super().__init__()
        self._run, self._record = run, record

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = {"epoch": float(epoch), **{key: float(logs[key]) for key in sorted(logs)}}
        self._record.history.append(row)
        self._run.write_history(self._record.history)
        self._run.save(self.model, self._run.checkpoint, self._record)
        self._run.rank(self._record.recipe, row)  # a monitor of another name is said at once
