from collections.abc import Mapping
from typing import Any

import keras
import numpy as np


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
        ValueError: if all pairs are of one kind, or the lengths differ.

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

    weights = None if sample_weight is None else np.ravel(sample_weight)
    fit = LogisticRegression(C=1e6, class_weight=class_weight and dict(class_weight)).fit(
        np.reshape(distances, (-1, 1)), np.ravel(same).astype(int), weights
    )
    layer.set_weights([fit.coef_, fit.intercept_])
