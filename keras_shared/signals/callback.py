import os
from typing import Any

import keras
import tensorflow as tf

from keras_shared.signals.report import SignalReport, batch_of, signal_report

NUMBERS = (
    "mean", "deviation", "saturated", "dead", "gradient_mean", "gradient_deviation",
    "kernel_gradient_deviation",
)  # fmt: skip


class SignalLog(keras.callbacks.Callback):
    """Looks at the signals of a model before its training, and after each epoch of it.

    Args:
        data: as of `keras_shared.signal_report`: the same batch each time.
        log_dir: folder for TensorBoard's scalars, `signals/LAYER/NUMBER`, by epoch; None for none.
            Epoch 0 is before training.
        jacobians: as of `keras_shared.signal_report`.

    Attributes:
        reports: a `SignalReport` before training, and for each epoch.

    Raises:
        SignalError: for such data at once, else as of `keras_shared.signal_report`, when training
            begins.

    Example:
        >>> import keras, numpy as np
        >>> from keras_shared.signals import SignalLog
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "tanh")])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")
        >>> log = SignalLog((x, y))
        >>> history = model.fit(x, y, epochs=2, callbacks=[log], verbose=0)
        >>> len(log.reports)
        3
    """

    def __init__(
        self, data: Any, log_dir: str | os.PathLike[str] | None = None, jacobians: bool = False
    ) -> None:
        super().__init__()
        self.reports: list[SignalReport] = []
        self._data = batch_of(data)
        self._jacobians = jacobians
        self._log_dir = log_dir
        self._writer: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        self.reports = []
        if self._log_dir is not None:
            self._writer = tf.summary.create_file_writer(os.fspath(self._log_dir))
        self._look(0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._look(epoch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _look(self, step: int) -> None:
        report = signal_report(self.model, self._data, jacobians=self._jacobians)
        self.reports.append(report)
        if self._writer is None:
            return
        with self._writer.as_default(step=step):
            for layer in report.layers:
                for key in NUMBERS:
                    if (value := getattr(layer, key)) is not None:
                        tf.summary.scalar(f"signals/{layer.name}/{key}", value)
        self._writer.flush()
