from collections.abc import Callable
from typing import Any, NamedTuple

from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.labelled_images import LabelledImages


class OwnData(NamedTuple):
    """One kind of the user's own data, which a recipe names by `data.name` and `data.path`.

    Attributes:
        dataset: makes a data set of the path, the image shape of the model (None where it takes
            none), and the recipe's seed.
        what: what lies at the path, in words.
        suffix: of its file; empty for a folder, None for what is no file.
        kind: type of one split.
        images: whether it holds images, which are brought to what the model takes.
    """

    dataset: Callable[[str, Any, int], Dataset]
    what: str
    suffix: str | None
    kind: type = LabelledImages
    images: bool = True
