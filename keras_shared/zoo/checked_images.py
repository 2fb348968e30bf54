import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_shared.files.pictures import bright_ground
from keras_shared.files.scales import DARK, STANDARDISED, rescaling

NOISE = 1e-3  # below 0: what arithmetic leaves of black
SLACK = 64  # beyond 0 and 255: what bicubic resizing adds at an edge


def checked_images(
    images: Any, name: str, shape: Sequence[int | None], bright_ink: bool | None = None
) -> np.ndarray:
    """A batch of images from 0 to 255 as an array.

    Args:
        images: what a user gave.
        name: name of the argument, for the message.
        shape: height, width and channels of one image; None for any.
        bright_ink: whether the model reads bright ink on a dark ground, or dark ink on a bright
            one; None if it reads all alike.

    Raises:
        ValueError: for another shape (a batch axis that is missing is named), or for numbers that
            are not finite or no pixels.

    Warns:
        UserWarning: for images that nowhere get brighter than an eighth of white, which look like
            another scale (0 to 1, 0 to 16), and where most images have the other ground.

    Example:
        >>> import numpy as np
        >>> from keras_shared.zoo.checked_images import checked_images
        >>> checked_images(np.zeros((2, 8, 8, 1)), "images", (8, 8, 1)).shape
        (2, 8, 8, 1)
    """
    array: np.ndarray = np.asarray(images)
    expected = (None, *shape)
    numbers = np.issubdtype(array.dtype, np.number) or array.dtype == bool
    if numbers and array.ndim == 3 and _fits(array.shape, shape):
        raise ValueError(
            f"`{name}` must be a batch of images of shape {expected}. Received: one image of shape "
            f"{array.shape}. Give it a batch axis: {name}[None]"
        )
    if not numbers or not _fits(array.shape, expected) or not array.size:
        raise ValueError(
            f"`{name}` must be numbers of shape {expected} with values 0 to 255. "
            f"Received: an array of shape {array.shape} and dtype {array.dtype}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` holds NaN or infinity: expected values from 0 to 255.")
    low, high = float(array.min()), float(array.max())
    if high > 255 + SLACK or low < -SLACK or (low <= -NOISE and high <= STANDARDISED):
        raise ValueError(
            f"`{name}` must be pixels from 0 to 255. Received: {low:g} to {high:g}. "
            f"{rescaling(name, low, high)}"
        )
    if 0 < high < DARK:
        warnings.warn(
            f"`{name}` lies between {low:g} and {high:g}, and this model takes pixels from 0 to "
            f"255: its answers are unreliable. {rescaling(name, max(low, 0.0), high)}",
            stacklevel=3,
        )
    elif bright_ink is not None:
        wrong = np.mean([bright_ground(image) == bright_ink for image in array])
        if wrong > 0.5:
            has, reads = ("bright", "bright ink on a dark") if bright_ink else (
                "dark", "dark ink on a bright"
            )  # fmt: skip
            warnings.warn(
                f"{wrong:.0%} of `{name}` have a {has} ground, and this model is made for {reads} "
                "one: if it was not trained on such images, its answers are unreliable. Give it "
                f"255 - {name} then.",
                stacklevel=3,
            )
    return array


def _fits(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    return len(shape) == len(expected) and all(
        e in (None, s) for s, e in zip(shape, expected, strict=True)
    )
