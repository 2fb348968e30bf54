from typing import NamedTuple

import numpy as np

from keras_shared.datasets.lazy_images import LazyImages, Shape


class LabelledImages(NamedTuple):
    """One split of a data set of images with labels.

    Attributes:
        images: uint8 (images, height, width, channels), 0 to 255; or `LazyImages`.
        labels: int (images,), the class of each.
        groups: int (classes,), the group (alphabet) of each class; the class itself where the
            data set has no groups.
        class_names: name of each class.
        group_names: name of each group.
        held_out: of a training split, numbers of the images that validate; None where the recipe
            draws them.
        drawers: int (images,), who drew each, within its group; None where it is not known.
        runs: one-shot runs that the data set comes with, int (runs, 2, ways), numbers of images:
            of each run those that are known, and one query of each class, in the same order; None
            without.
    """

    images: np.ndarray | LazyImages
    labels: np.ndarray
    groups: np.ndarray
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    held_out: np.ndarray | None = None
    drawers: np.ndarray | None = None
    runs: np.ndarray | None = None

    def part(self, indices: np.ndarray) -> "LabelledImages":
        """Some of the images; which of them validate, and the runs, are the whole split's."""
        return self._replace(
            images=self.images[indices],
            labels=self.labels[indices],
            drawers=None if self.drawers is None else self.drawers[indices],
            held_out=None,
            runs=None,
        )

    def fitted(self, shape: Shape) -> "LabelledImages":
        """The same with images of this shape, resized when they are read."""
        if tuple(self.images.shape[1:]) == tuple(shape):
            return self
        if isinstance(self.images, LazyImages):
            return self._replace(images=self.images.of_shape(shape))
        return self._replace(images=LazyImages(self.images, shape))
