import numpy as np
import tensorflow as tf


def shrink_images(images: np.ndarray, margin: int, side: int) -> np.ndarray:
    """Cut a margin off each image and shrink the rest, each new pixel the mean of its area.

    Args:
        images: uint8 (images, rows, columns, channels).
        margin: pixels that are cut off on each side.
        side: rows and columns of what comes out.

    Returns:
        uint8 (images, side, side, channels).

    Raises:
        ValueError: if nothing is left, or less than `side` pixels.

    Example:
        >>> import numpy as np
        >>> from keras_shared.batching.shrink import shrink_images
        >>> shrink_images(np.full((1, 6, 6, 1), 9, "uint8"), margin=1, side=2)[0, :, :, 0].tolist()
        [[9, 9], [9, 9]]
    """
    left = min(images.shape[1:3]) - 2 * margin
    if left < side:
        raise ValueError(
            f"Images of {images.shape[1]} x {images.shape[2]} pixels have {left} left between "
            f"margins of {margin}. Received: side={side}, expected at most that."
        )
    inner = images[:, margin : images.shape[1] - margin, margin : images.shape[2] - margin]
    means: np.ndarray = tf.image.resize(inner, (side, side), "area").numpy()
    return np.round(means).astype("uint8")
