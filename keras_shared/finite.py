"""Weights that are no numbers any more."""

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
    """Refuse values that hold NaN, or infinity where the weight is trained.

    Infinity in a weight that is not trained may be meant, as a mask of minus infinity is.

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
    wrong = []
    for variable, value in values:
        array = np.asarray(value)
        if array.dtype.kind in "biu":
            continue
        array = array if array.dtype.kind == "f" else array.astype("float32")  # bfloat16
        sound = np.isfinite(array) if variable.trainable else ~np.isnan(array)
        if not sound.all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            wrong.append(f"'{variable.path}' ({kind} in {(~sound).sum()} of {array.size})")
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise error(
            f"{what} has weights that are no numbers any more, as after a training that diverged: "
            f"{', '.join(wrong[:SHOWN])}{more}. {advice}"
        )
