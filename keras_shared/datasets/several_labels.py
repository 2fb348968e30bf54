from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from keras_shared.datasets.lazy_images import LazyImages, Shape


class SeveralLabels(NamedTuple):
    """One split of a data set of images with a label for each of several tasks.

    Attributes:
        images: uint8 (images, height, width, channels), 0 to 255; or `LazyImages`.
        labels: int (images, tasks), the class of each image in each task.
        class_names: name of each task -> names of its classes, in the order of the labels' columns.
        held_out: of a training split, numbers of the images that validate; None where the recipe
            draws them.
    """

    images: np.ndarray | LazyImages
    labels: np.ndarray
    class_names: Mapping[str, tuple[str, ...]]
    held_out: np.ndarray | None = None

    def part(self, indices: np.ndarray) -> "SeveralLabels":
        """Some of the images; which of them validate is the whole split's."""
        return self._replace(
            images=self.images[indices], labels=self.labels[indices], held_out=None
        )

    def fitted(self, shape: Shape) -> "SeveralLabels":
        """The same with images of this shape, resized when they are read."""
        if tuple(self.images.shape[1:]) == tuple(shape):
            return self
        if isinstance(self.images, LazyImages):
            return self._replace(images=self.images.of_shape(shape))
        return self._replace(images=LazyImages(self.images, shape))
