import numpy as np

from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.labelled_images import LabelledImages
from keras_shared.datasets.tfds_split import load_tfds


def load_omniglot(split: str, data_dir: str | None = None) -> LabelledImages:
    """Omniglot through TFDS: 1,623 characters of 50 alphabets, 20 drawers each, 105x105 pixels.

    The ink is 0, the paper 255. The classes are characters, the groups alphabets; train (30
    alphabets) and test (20) share none.

    Args:
        split: `"train"` or `"test"`.
        data_dir: see `keras_shared.datasets.tfds_split.load_tfds`.

    Raises:
        DataError: if it is not there and cannot be downloaded.

    Reference:
        Lake, Salakhutdinov, Tenenbaum 2015, "Human-level Concept Learning through
        Probabilistic Program Induction". Licence MIT.
    """
    arrays, info = load_tfds("omniglot", split, data_dir)
    codes, labels = np.unique(arrays["label"], return_inverse=True)  # classes of this split: 0...
    groups = np.zeros(len(codes), int)
    groups[labels] = arrays["alphabet"]
    class_names = tuple(info.features["label"].int2str(int(code)) for code in codes)
    group_names = tuple(info.features["alphabet"].names)
    return LabelledImages(arrays["image"], labels, groups, class_names, group_names)


OMNIGLOT = Dataset("Omniglot", "Lake 2015", "MIT", LabelledImages, load_omniglot)
