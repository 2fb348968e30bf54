from typing import NamedTuple

import numpy as np


class LabelledImages(NamedTuple):
    """One split of a data set of images with labels.

    Attributes:
        images: uint8 (images, height, width, channels), 0 to 255.
        labels: int (images,), the class of each.
        groups: int (classes,), the group (alphabet) of each class; the class itself where the
            data set has no groups.
        class_names: name of each class.
        group_names: name of each group.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
