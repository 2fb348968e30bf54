"""The probability from which two images count as the same where a false "same" must be rare."""

from typing import Any

import keras
import numpy as np

from keras_shared.batching import PairData
from keras_shared.batching.fetching import prepared
from keras_shared.batching.pairs import Pairs, training_and_validation
from keras_shared.datasets import ImagePairs, LabelledImages
from keras_shared.datasets.lazy_images import LazyImages
from keras_shared.errors import attempt

FALSE_ACCEPTS = 0.001  # share of different pairs that may be taken for the same
DRAWN = 200_000  # validation pairs, of images that are embedded once


def rare_accepts(
    model: keras.Model, split: LabelledImages | ImagePairs, data: PairData
) -> float | None:
    """The threshold at which one in a thousand different pairs is accepted, of validation images.

    Args:
        model: trained.
        split: the training split, with what validates.
        data: section [data] of the recipe.

    Returns:
        A probability; None for a model without a tower, or for fewer than a thousand different
        pairs.
    """
    if not hasattr(model, "embed"):
        return None
    images: np.ndarray | LazyImages
    if isinstance(split, ImagePairs):
        assert split.held_out is not None
        part = split.part(split.held_out)
        images, left, right, same = part.images, part.left, part.right, part.same
    else:
        _, _, validating, groups = training_and_validation(split, data)
        drawn = Pairs(validating, groups, data.negatives).draw(DRAWN, data.seed, -1)
        left, right, same = (x.numpy() for x in drawn)
        images = validating.images
    used, numbers = np.unique(np.stack([left, right]), return_inverse=True)
    embeddings = prepared(images[used], model.embed, "float32")
    one, other = numbers.reshape(2, -1)
    distances = np.concatenate(
        [
            np.linalg.norm(embeddings[a] - embeddings[b], axis=1)
            for a, b in zip(np.array_split(one, 50), np.array_split(other, 50), strict=True)
        ]
    )
    if np.sum(np.asarray(same) == 0) < 1 / FALSE_ACCEPTS or not np.isfinite(distances).all():
        return None
    # none where it is out of reach: too many are quite the same for this model
    threshold, _ = attempt(lambda: model.threshold(distances, same, FALSE_ACCEPTS), ValueError)
    return threshold  # type: ignore[no-any-return]


def rare_accept_metrics(
    probability: np.ndarray, same: np.ndarray, threshold: float | None
) -> dict[str, Any]:
    """What the threshold of the validation pairs comes to on test pairs.

    Args:
        probability: (pairs,) of "same".
        same: (pairs,) 1 for "same", 0 for "different".
        threshold: from `rare_accepts`; None gives nothing.

    Returns:
        The threshold, and in percent: the accuracy, the same pairs and the different pairs that are
        accepted.

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.rare_accepts import rare_accept_metrics
        >>> probability, same = np.array([0.9, 0.6, 0.4, 0.1]), np.array([1, 1, 0, 0])
        >>> metrics = rare_accept_metrics(probability, same, threshold=0.7)
        >>> metrics["true_accept_percent_at_threshold"]
        50.0
    """
    if threshold is None:
        return {}
    accepted, same = probability >= threshold, np.asarray(same).astype(bool)
    return {
        f"threshold_for_{100 * FALSE_ACCEPTS:g}_percent_false_accepts": round(threshold, 5),
        "accuracy_percent_at_threshold": _percent(accepted == same),
        "true_accept_percent_at_threshold": _percent(accepted[same]),
        "false_accept_percent_at_threshold": _percent(accepted[~same]),
    }


def _percent(share: np.ndarray) -> float:
    return round(100 * float(np.mean(share)), 3)
