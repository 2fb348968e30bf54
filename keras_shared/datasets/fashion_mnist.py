import numpy as np

from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.labelled_images import LabelledImages
from keras_shared.datasets.splitting import check_split
from keras_shared.datasets.tfds_split import load_tfds


def load_fashion_mnist(split: str, data_dir: str | None = None) -> LabelledImages:
    """Fashion-MNIST through TFDS: articles of clothing, 28x28 pixels, 60,000 and 10,000.

    Args:
        split: `"train"` or `"test"`.
        data_dir: see `keras_shared.datasets.tfds_split.load_tfds`.

    Raises:
        DataError: for another split, or if it is not there and cannot be downloaded.

    Reference:
        Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST". Licence MIT.
    """
    arrays, info = load_tfds("fashion_mnist", check_split(split), data_dir)
    names = tuple(info.features["label"].names)
    return LabelledImages(arrays["image"], arrays["label"], np.arange(len(names)), names, names)


FASHION_MNIST = Dataset("Fashion-MNIST", "Zalando SE", "MIT", LabelledImages, load_fashion_mnist)
