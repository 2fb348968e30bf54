"""Inputs to try a converted file with, besides those of `examples`: negative, zero and large ones.

A converter may write an operation so that it answers as Keras does between 0 and 1 alone.
"""

import numpy as np

SCALES = (1, 100)  # of the floats
WHOLE = (4, 2, 1)  # numbers from 0 on; fewer where the model takes no more, an Embedding say
ZEROS = 0.2  # of the floats, exactly
Inputs = dict[str, np.ndarray]


def drawn(like: Inputs, scale: float, whole: int) -> Inputs:
    """Random inputs with the shapes and dtypes of others; what is no number stays.

    Args:
        like: the others.
        scale: floats lie between it and its negative; a fifth of them are 0.
        whole: how many whole numbers, from 0 on.

    Example:
        >>> import numpy as np
        >>> from keras_shared.exporting.drawing import drawn
        >>> drawn({"id": np.zeros((1, 8), "int32")}, scale=1, whole=4)["id"]
        array([[3, 2, 2, 1, 1, 0, 0, 0]], dtype=int32)
    """
    random = np.random.default_rng(0)

    def one(value: np.ndarray) -> np.ndarray:
        if value.dtype.kind == "f":
            kept = random.random(value.shape) >= ZEROS
            return random.uniform(-scale, scale, value.shape) * kept
        if value.dtype.kind in "iub":
            most = min(whole, 2) if value.dtype.kind == "b" else whole
            return random.integers(0, most, value.shape)
        return value

    return {key: np.asarray(one(value), value.dtype) for key, value in like.items()}


def moved(inputs: Inputs, share: float, seed: int) -> Inputs:
    """The same inputs, each float by a random share of it, at most `share`, larger or smaller."""
    random = np.random.default_rng(seed)

    def one(value: np.ndarray) -> np.ndarray:
        if value.dtype.kind != "f":
            return value
        return value * (1 + share * random.uniform(-1, 1, value.shape))

    return {key: np.asarray(one(value), value.dtype) for key, value in inputs.items()}


def described(inputs: Inputs, scale: float, whole: int) -> str:
    """What was drawn, for a message."""
    kinds = {value.dtype.kind for value in inputs.values()}
    floats = f"numbers between {-scale} and {scale}, with zeros among them"
    said = [floats] if "f" in kinds else []
    said += [f"whole numbers from 0 to {whole - 1}"] if kinds & set("iu") else []
    return " and ".join(said) or "other inputs"
