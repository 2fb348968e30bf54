"""Weights that are no numbers any more, or would be none in the model's dtype."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_shared.errors import KerasSharedError

SHOWN = 5  # weights that the message names


def refuse_undefined(
    values: Iterable[tuple[keras.Variable, Any]],
    what: str,
    error: type[KerasSharedError],
    advice: str,
) -> None:
    """Refuse values that hold NaN, infinity where the weight is trained, or what its dtype cannot.

    Infinity in a weight that is not trained may be meant, as a mask of minus infinity is. A number
    that becomes infinity in the weight's dtype is not.

    Args:
        values: weights, each with the values that it has or is to have.
        what: the model or file that holds them.
        error: the class of the error.
        advice: what to do, the end of the message.

    Raises:
        KerasSharedError: of class `error`; the message names the weights.

    Example:
        >>> import keras
        >>> from keras_shared.errors import KerasSharedError
        >>> from keras_shared.finite import refuse_undefined
        >>> layer = keras.layers.Dense(2, name="top")
        >>> layer.build((None, 3))
        >>> nan = float("nan")
        >>> refuse_undefined([(layer.bias, [1.0, nan])], "m.keras", KerasSharedError, "Look.")
        Traceback (most recent call last):
        ...
        keras_shared.errors.KerasSharedError: m.keras has weights that are no numbers any more, as
        after a training that diverged: 'top/bias' (NaN in 1 of 2). Look.
    """
    wrong, large, dtype = [], [], ""
    for variable, value in values:
        array = np.asarray(value)
        given = str(array.dtype)
        if array.dtype.kind not in "biuf":
            array = array.astype("float32")  # bfloat16
        sound = np.isfinite(array) if variable.trainable else ~np.isnan(array)
        if not sound.all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            wrong.append(f"'{variable.path}' ({kind} in {(~sound).sum()} of {array.size})")
        elif given != variable.dtype and (lost := _lost(array, variable.dtype)):
            dtype = given if "float" in given else "float32"
            large.append(
                f"'{variable.path}' ({lost} of {array.size} too large for {variable.dtype})"
            )
    if wrong:
        raise error(
            f"{what} has weights that are no numbers any more, as after a training that diverged: "
            f"{_shown(wrong)}. {advice}"
        )
    if large:
        raise error(
            f"{what} has values that the model's dtype cannot hold: {_shown(large)}. Nothing was "
            f"loaded. Build the model with dtype='{dtype}'."
        )


def _lost(array: np.ndarray, dtype: str) -> int:
    """How many numbers are none any more with another dtype."""
    with np.errstate(over="ignore"):
        changed = keras.ops.convert_to_numpy(keras.ops.cast(array, dtype))
    return int((np.isfinite(array) & ~np.isfinite(changed)).sum())


def _shown(weights: list[str]) -> str:
    more = f" and {len(weights) - SHOWN} more" if len(weights) > SHOWN else ""
    return f"{', '.join(weights[:SHOWN])}{more}"
