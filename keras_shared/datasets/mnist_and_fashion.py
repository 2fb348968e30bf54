import functools

import numpy as np

from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.fashion_mnist import load_fashion_mnist
from keras_shared.datasets.mnist import load_mnist
from keras_shared.datasets.multi_mnist import overlaid
from keras_shared.datasets.several_labels import SeveralLabels
from keras_shared.datasets.splitting import check_split


def load_mnist_and_fashion(split: str, data_dir: str | None = None) -> SeveralLabels:
    """A digit and an article of clothing in one image of 36x36 pixels: two unlike tasks.

    Image number `i` shows number `i` of MNIST in its top left corner and number `i` of
    Fashion-MNIST in its bottom right one, as `keras_shared.datasets.load_multi_mnist` puts two
    digits there.

    Args:
        split: `"train"` (60,000 images) or `"test"` (10,000).
        data_dir: see `keras_shared.datasets.tfds_split.load_tfds`.

    Raises:
        DataError: for another split, or if one of them is not there and cannot be downloaded.

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, section III.A; Xiao, Rasul, Vollgraf 2017.
    """
    return _made(check_split(split), data_dir)


@functools.lru_cache(maxsize=2)
def _made(split: str, data_dir: str | None) -> SeveralLabels:
    digits, clothes = load_mnist(split, data_dir), load_fashion_mnist(split, data_dir)
    images = overlaid(np.asarray(digits.images), np.asarray(clothes.images))
    labels = np.stack([digits.labels, clothes.labels], axis=1)
    names = {"digit": digits.class_names, "clothing": clothes.class_names}
    return SeveralLabels(images, labels, names)


MNIST_AND_FASHION = Dataset(
    "MNIST and Fashion-MNIST in one image", "LeCun & Cortes, Zalando SE", "CC BY-SA 3.0 and MIT",
    SeveralLabels, load_mnist_and_fashion,
)  # fmt: skip
