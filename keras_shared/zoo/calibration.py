from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_shared.tying import effective_weight
from keras_shared.tying.effective_weight import is_derived


def calibrate(
    layer: keras.layers.Dense,
    distances: Any,
    same: Any,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
) -> None:
    """Fit the layer that makes probabilities of distances to labelled pairs (Platt scaling).

    Args:
        layer: a Dense with one input and one sigmoid unit.
        distances: (pairs,) or (pairs, 1).
        same: (pairs,) 1 or True for "same".
        sample_weight: (pairs,), how much each counts; None for all alike.
        class_weight: how much "different" (0) and "same" (1) count, besides; None for both alike.

    Raises:
        ValueError: if all pairs are of one kind, a label is neither 0 nor 1, a distance is not
            finite, or the lengths differ.

    Example:
        >>> import keras
        >>> from keras_shared.zoo.calibration import calibrate
        >>> layer = keras.layers.Dense(1, "sigmoid")
        >>> layer.build((None, 1))
        >>> calibrate(layer, [0.1, 0.4, 0.6, 0.9], [1, 1, 0, 0])
        >>> bool(layer(keras.ops.convert_to_tensor([[0.2]])) > 0.5)
        True

    Reference:
        Platt 1999, "Probabilistic Outputs for Support Vector Machines".
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, seldom needed

    if is_derived(layer):
        raise ValueError(
            f"'{layer.name}' is quantised or has LoRA, and its weight cannot be set. Calibrate the "
            "model before that."
        )
    distances, labels = _pairs(distances, same)
    if len({*labels}) < 2:
        raise ValueError(
            "`same` needs pairs of both kinds, 1 for the same and 0 for different. Received: "
            f"{len(labels)} pairs, {int(labels.sum())} of them the same"
        )
    weights = None if sample_weight is None else np.ravel(sample_weight)
    fit = LogisticRegression(C=1e6, class_weight=class_weight and dict(class_weight)).fit(
        distances[:, None], labels.astype(int), weights
    )
    layer.set_weights([fit.coef_, fit.intercept_])


def line(layer: keras.layers.Dense) -> tuple[float, float]:
    """Weight and bias of the layer that makes probabilities of distances: `sigmoid(w d + b)`.

    Example:
        >>> import keras
        >>> from keras_shared.zoo.calibration import line
        >>> layer = keras.layers.Dense(1, "sigmoid", kernel_initializer="ones")
        >>> layer.build((None, 1))
        >>> line(layer)
        (1.0, 0.0)
    """
    weight, bias = layer.get_weights()[:2]
    if isinstance(layer, keras.Layer) and is_derived(layer):  # which stores more, or another kernel
        weight = keras.ops.convert_to_numpy(effective_weight(layer, "float32"))
        bias = keras.ops.convert_to_numpy(layer.bias)
    return float(weight.item()), float(bias.item())


def threshold(distances: Any, same: Any, false_accept_rate: float) -> float:
    """The largest distance at which at most this share of pairs of two things is taken for one.

    Args:
        distances: (pairs,) or (pairs, 1).
        same: (pairs,) 1 or True for "same".
        false_accept_rate: between 0 and 1.

    Raises:
        ValueError: for a rate that so few pairs cannot show, if a label is neither 0 nor 1, a
            distance is not finite, or the lengths differ.

    Example:
        >>> from keras_shared.zoo.calibration import threshold
        >>> threshold([0.1, 0.2, 0.6, 0.7, 0.8, 0.9], [1, 1, 0, 0, 0, 0], false_accept_rate=0.25)
        0.6
    """
    distances, same = _pairs(distances, same)
    if not 0 < false_accept_rate < 1:
        raise ValueError(
            f"`false_accept_rate` is a share between 0 and 1. Received: {false_accept_rate}"
        )
    different = np.sort(distances[~same])
    accepted = int(len(different) * false_accept_rate + 1e-9)
    if accepted < 1:
        raise ValueError(
            f"A rate of {false_accept_rate} needs at least {int(np.ceil(1 / false_accept_rate))} "
            f"pairs of two different things. Received: {len(different)}"
        )
    largest = float(different[accepted - 1])
    if accepted < len(different) and different[accepted] == largest:  # as far apart: all or none
        largest = float(np.nextafter(largest, -1))
    return largest


def _pairs(distances: Any, same: Any) -> tuple[np.ndarray, np.ndarray]:
    """Finite distances, and as many labels, as truth values."""
    distances, labels = np.ravel(distances).astype("float64"), np.ravel(same)
    if len(distances) != len(labels) or not np.isfinite(distances).all():
        raise ValueError(
            "Expected a finite distance for each pair. Received: "
            f"{len(distances)} distances and {len(labels)} labels"
        )
    if others := sorted({*labels.tolist()} - {0, 1}):
        raise ValueError(
            "`same` holds 1 or True for pairs of the same, 0 or False for others. Received: "
            f"{', '.join(map(repr, others[:5]))}"
        )
    return distances, labels.astype(bool)
