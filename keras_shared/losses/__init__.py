"""Losses by the name that a recipe gives them. A new one is a file here and a line in `LOSSES`."""

from collections.abc import Callable

import keras

from keras_shared.losses.contrastive_loss import ContrastiveLoss as ContrastiveLoss
from keras_shared.losses.embedding_loss import EmbeddingLoss as EmbeddingLoss
from keras_shared.losses.loss_per_token import LossPerToken as LossPerToken
from keras_shared.losses.mean_loss import MeanLoss as MeanLoss
from keras_shared.losses.n_pair_loss import NPairLoss as NPairLoss
from keras_shared.losses.prototypical_loss import PrototypicalLoss as PrototypicalLoss
from keras_shared.losses.rbf_loss import RBFLoss as RBFLoss
from keras_shared.losses.triplet_loss import TripletLoss as TripletLoss
from keras_shared.tokenizing import PADDING


def _crossentropy_from_logits() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _crossentropy_of_tokens() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PADDING)


def _hard_triplets() -> keras.losses.Loss:
    return TripletLoss(margin=None, mining="hard")


def _rbf_far() -> keras.losses.Loss:
    return RBFLoss(j=4.0)


LOSSES: dict[str, Callable[[], keras.losses.Loss]] = {
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "contrastive": ContrastiveLoss,
    "mean_squared_error": keras.losses.MeanSquaredError,
    "n_pair": NPairLoss,
    "prototypical": PrototypicalLoss,
    "rbf": RBFLoss,
    "rbf_far": _rbf_far,
    "sparse_categorical_crossentropy": _crossentropy_from_logits,
    "token_crossentropy": _crossentropy_of_tokens,
    "triplet": TripletLoss,
    "triplet_hard": _hard_triplets,
}
