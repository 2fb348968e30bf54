"""Images that are read when they are needed, so that a large folder need not fit into memory."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import tensorflow as tf

from keras_shared.files.pictures import read_picture

Shape = tuple[int, int, int]


def fit_image(image: np.ndarray, shape: Shape) -> np.ndarray:
    """An image brought to height, width and channels that a model takes.

    Sides are resized with antialiasing, as the published graph resizes encoded images; three
    channels become one by their luma, one becomes three by repetition.

    Args:
        image: uint8 (height, width, 1 or 3).
        shape: what comes out.

    Raises:
        ValueError: for numbers of another type, which would be cut off.

    Example:
        >>> import numpy as np
        >>> from keras_shared.datasets.lazy_images import fit_image
        >>> fit_image(np.full((10, 20, 3), 7, "uint8"), (4, 4, 1)).shape
        (4, 4, 1)
    """
    if image.dtype != np.uint8:
        raise ValueError(
            f"`image` must be pixels from 0 to 255 as uint8. Received: {image.dtype} from "
            f"{image.min():g} to {image.max():g}. Use np.round(image).astype('uint8') for such "
            "pixels."
        )
    if image.shape[-1] == 3 and shape[-1] == 1:
        image = np.round(image @ [0.299, 0.587, 0.114]).astype("uint8")[..., None]
    elif image.shape[-1] == 1 and shape[-1] == 3:
        image = np.repeat(image, 3, axis=-1)
    if image.shape[:2] != shape[:2]:
        resized: np.ndarray = tf.image.resize(image, shape[:2], antialias=True).numpy()
        image = np.clip(np.round(resized), 0, 255).astype("uint8")
    return image


class LazyImages:
    """Like an array of images (images, height, width, channels), each read when it is asked for.

    Args:
        sources: paths of pictures, or an array of images of another shape.
        shape: height, width and channels of each image.

    Raises:
        ValueError: for another shape.

    Example:
        >>> import numpy as np
        >>> from keras_shared.datasets.lazy_images import LazyImages
        >>> images = LazyImages(np.zeros((5, 8, 8, 1), "uint8"), (4, 4, 3))
        >>> images.shape, images[np.array([0, 2])].read().shape
        ((5, 4, 4, 3), (2, 4, 4, 3))
    """

    dtype = np.dtype("uint8")

    def __init__(self, sources: Sequence[Any] | np.ndarray, shape: Shape) -> None:
        if len(shape) != 3 or shape[-1] not in (1, 3) or min(shape) < 1:
            raise ValueError(
                "`image_shape` must be height, width and 1 or 3 channels. Received: "
                f"image_shape={shape}"
            )
        self.sources = np.asarray(sources)
        self.shape = (len(self.sources), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Any) -> Self:
        return type(self)(self.sources[indices], self.shape[1:])

    def of_shape(self, shape: Shape) -> Self:
        """The same images, read in another shape."""
        return type(self)(self.sources, shape)

    def read(self, indices: Any = slice(None)) -> np.ndarray:
        """These images, as uint8 (images, height, width, channels).

        Raises:
            PictureError: for a file that is no picture any more.
        """
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(self._one, self.sources[indices]))
        return np.stack(images) if images else np.zeros((0, *self.shape[1:]), "uint8")

    def _one(self, source: Any) -> np.ndarray:
        image = read_picture(source) if isinstance(source, str) else source
        return fit_image(image, self.shape[1:])
