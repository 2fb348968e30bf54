from typing import Any

import keras
from keras import ops

from keras_shared.layers.schedules import positive

SIZE = 0.72  # share of the image that a drawing takes which is left at its size
ZOOM = (0.7, 1.6)  # at least, at most


@keras.saving.register_keras_serializable("keras_shared")
class CenterInk(keras.layers.Layer):
    """Moves what is drawn to the middle of an image, and brings it halfway to one size.

    The longer side of the box around all ink takes a share `b` of the image; the drawing is
    enlarged by `sqrt(0.72 / b)`, from 0.7 to 1.6 times, so that large and small ones still differ,
    and its box is centred. Cutting, moving and resizing are one linear interpolation, with a
    kernel as wide as a pixel of the output, so that thin lines do not vanish.

    Args:
        height, width: rows and columns of what comes out.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        (batch, rows, columns, channels), of any size, the paper 0 and the ink 1: more than 1/2 in
        any channel counts as ink.

    Output shape:
        (batch, height, width, channels). An image without ink is resized alone.

    Example:
        >>> import numpy as np
        >>> from keras_shared.layers import CenterInk
        >>> image = np.zeros((1, 8, 8, 1))
        >>> image[0, 0:2, 0:2] = 1  # in a corner
        >>> out = np.array(CenterInk(8, 8)(image))[0, :, :, 0]
        >>> bool(np.allclose(out, out[::-1, ::-1], atol=1e-6)), float(out[:, 0].max())
        (True, 0.0)
    """

    def __init__(self, height: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.height = positive("height", height)
        self.width = positive("width", width)

    def call(self, inputs: Any) -> Any:
        ink = ops.max(inputs, axis=-1) > 0.5  # (batch, rows, columns)
        down, across = _extent(ops.any(ink, axis=2)), _extent(ops.any(ink, axis=1))
        box = ops.maximum(down[1], across[1])
        zoom = ops.clip(ops.sqrt(SIZE / ops.maximum(box, 1e-3)), *ZOOM)
        zoom = ops.where(box > 0, zoom, 1.0)
        rows, columns = ops.shape(inputs)[1:3]
        left = _interpolation(down[0], zoom, rows, self.height)
        right = _interpolation(across[0], zoom, columns, self.width)
        x = ops.transpose(ops.cast(inputs, "float32"), (0, 3, 1, 2))
        x = ops.matmul(left[:, None], x)  # (batch, channels, height, columns)
        x = ops.matmul(x, ops.transpose(right, (0, 2, 1))[:, None])
        return ops.cast(ops.transpose(x, (0, 2, 3, 1)), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (input_shape[0], self.height, self.width, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width}


def _extent(drawn: Any) -> tuple[Any, Any]:
    """Middle of the lines that hold ink, in pixels, and the share of all that they span."""
    size = ops.shape(drawn)[1]
    number = ops.arange(size)
    first = ops.cast(ops.min(ops.where(drawn, number, size), axis=1), "float32")
    last = ops.cast(ops.max(ops.where(drawn, number, -1), axis=1), "float32")
    return (first + last) / 2, (last - first + 1) / ops.cast(size, "float32")


def _interpolation(middle: Any, zoom: Any, size: Any, wanted: int) -> Any:
    """Weights (batch, wanted, size) of each pixel for each pixel of the output."""
    step = ops.cast(size, "float32") / wanted / zoom  # pixels of the input in one of the output
    offsets = ops.arange(wanted, dtype="float32") - (wanted - 1) / 2
    places = middle[:, None] + offsets[None] * step[:, None]
    reach = ops.maximum(step, 1.0)[:, None, None]
    apart = ops.abs(places[:, :, None] - ops.arange(size, dtype="float32"))
    return ops.maximum(0.0, 1 - apart / reach) / reach
