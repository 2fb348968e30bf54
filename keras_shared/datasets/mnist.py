import numpy as np

from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.labelled_images import LabelledImages
from keras_shared.datasets.splitting import check_split
from keras_shared.datasets.tfds_split import load_tfds


def load_mnist(split: str, data_dir: str | None = None) -> LabelledImages:
    """MNIST through TFDS: handwritten digits, 28x28 pixels, 60,000 to train and 10,000 to test.

    Args:
        split: `"train"` or `"test"`.
        data_dir: see `keras_shared.datasets.tfds_split.load_tfds`.

    Raises:
        DataError: for another split, or if it is not there and cannot be downloaded.

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, section III.A. Licence CC BY-SA 3.0.
    """
    arrays, _ = load_tfds("mnist", check_split(split), data_dir)
    names = tuple("0123456789")
    return LabelledImages(arrays["image"], arrays["label"], np.arange(10), names, names)


MNIST = Dataset("MNIST", "LeCun & Cortes", "CC BY-SA 3.0", LabelledImages, load_mnist)
