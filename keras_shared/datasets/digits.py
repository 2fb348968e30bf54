import numpy as np

from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.labelled_images import LabelledImages
from keras_shared.datasets.splitting import check_split

TRAIN_IMAGES = 1200  # of 1,797; the file's order keeps the writers of the last part apart


def load_digits(split: str, data_dir: str | None = None) -> LabelledImages:
    """Real handwritten digits, 8x8 pixels, that come with scikit-learn: no network, no folder.

    Args:
        split: `"train"` (the first 1,200) or `"test"` (the last 597).
        data_dir: not used.

    Raises:
        DataError: for another split.

    Example:
        >>> from keras_shared.datasets import load_digits
        >>> load_digits("train").images.shape
        (1200, 8, 8, 1)

    Reference:
        Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), test part.
    """
    import sklearn.datasets  # slow to import

    digits = sklearn.datasets.load_digits()
    part = slice(None, TRAIN_IMAGES) if check_split(split) == "train" else slice(TRAIN_IMAGES, None)
    images = np.round(digits.images[part] * (255 / 16)).astype("uint8")[..., None]
    names = tuple("0123456789")
    return LabelledImages(images, digits.target[part], np.arange(10), names, names)


DIGITS = Dataset(
    "scikit-learn's handwritten digits",
    "Alpaydin & Kaynak 1998",
    "CC BY 4.0",
    LabelledImages,
    load_digits,
)
