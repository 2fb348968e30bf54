"""Losses by the name that a recipe gives them. A new one is a file here and a line in `LOSSES`."""

from collections.abc import Callable

import keras

from keras_shared.losses.contrastive_loss import ContrastiveLoss as ContrastiveLoss
from keras_shared.losses.rbf_loss import RBFLoss as RBFLoss


def _crossentropy_from_logits() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


LOSSES: dict[str, Callable[[], keras.losses.Loss]] = {
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "contrastive": ContrastiveLoss,
    "mean_squared_error": keras.losses.MeanSquaredError,
    "rbf": RBFLoss,
    "sparse_categorical_crossentropy": _crossentropy_from_logits,
}
