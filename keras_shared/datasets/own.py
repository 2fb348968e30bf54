from collections.abc import Callable
from typing import NamedTuple

from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.labelled_images import LabelledImages
from keras_shared.datasets.lazy_images import Shape


class OwnData(NamedTuple):
    """One kind of the user's own data, which a recipe names by `data.name` and `data.path`.

    Attributes:
        dataset: makes a data set of the path, the image shape of the model, and the recipe's seed.
        what: what lies at the path, in words.
        suffix: of its file; empty for a folder, None for what is no file.
        kind: type of one split.
    """

    dataset: Callable[[str, Shape, int], Dataset]
    what: str
    suffix: str | None
    kind: type = LabelledImages
