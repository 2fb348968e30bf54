"""Losses by the name that a recipe gives them. A new one is a file here and a line in `LOSSES`."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_shared.errors import attempt, boundary
from keras_shared.lookup import UnknownNameError, described, find
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


def get(name: str) -> keras.losses.Loss | Callable[[Any, Any], Any]:
    """A loss by its name: one of the library's, or `package.module:NAME` from any package.

    There may stand a class of losses, a function that makes one, or a loss itself: an object, or a
    function of labels and predictions.

    Args:
        name: a key of `LOSSES`, or where Python finds it.

    Raises:
        UnknownNameError: for a name that stands for none, or for anything else. It is a ValueError.

    Example:
        >>> from keras_shared import losses
        >>> losses.get("contrastive").name, losses.get("keras.losses:mean_squared_error").__name__
        ('contrastive_loss', 'mean_squared_error')
    """
    found: Any = find(name, LOSSES, "loss")
    of_class = inspect.isclass(found) and issubclass(found, keras.losses.Loss)
    made = isinstance(found, keras.losses.Loss)
    if of_class or name in LOSSES or (not made and _takes(found)):
        advice = "Name an object in place of the class."
        with boundary(
            f"The loss '{name}' cannot be made without arguments", UnknownNameError, advice
        ):
            found = found()
    if isinstance(found, keras.losses.Loss) or _takes(found, "y_true", "y_pred"):
        return found
    raise UnknownNameError(
        f"'{name}' is {described(found)}; expected a class derived from keras.losses.Loss, an "
        "object of one, or a function of (y_true, y_pred)."
    )


def _takes(found: Any, *arguments: str) -> bool:
    """Whether it is no class, and can be called with so many arguments."""
    if inspect.isclass(found) or isinstance(found, keras.metrics.Metric) or not callable(found):
        return False
    _, wrong = attempt(lambda: inspect.signature(found).bind(*arguments), TypeError)
    return wrong is None
