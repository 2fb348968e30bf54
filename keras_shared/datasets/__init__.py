"""Data sets. A new one is a file here and a line in `DATASETS`, or in `OWN` for users' data."""

from collections.abc import Callable

from keras_shared.datasets.arrays import arrays_dataset
from keras_shared.datasets.arrays import from_arrays as from_arrays
from keras_shared.datasets.dataset import DataError as DataError
from keras_shared.datasets.dataset import Dataset as Dataset
from keras_shared.datasets.digits import DIGITS
from keras_shared.datasets.digits import load_digits as load_digits
from keras_shared.datasets.fashion_mnist import FASHION_MNIST
from keras_shared.datasets.fashion_mnist import load_fashion_mnist as load_fashion_mnist
from keras_shared.datasets.folder import folder_dataset
from keras_shared.datasets.folder import from_folder as from_folder
from keras_shared.datasets.labelled_images import LabelledImages as LabelledImages
from keras_shared.datasets.lazy_images import Shape
from keras_shared.datasets.mnist import MNIST
from keras_shared.datasets.mnist import load_mnist as load_mnist
from keras_shared.datasets.omniglot import OMNIGLOT
from keras_shared.datasets.omniglot import load_omniglot as load_omniglot
from keras_shared.datasets.tfds import tfds_dataset

DATASETS: dict[str, Dataset] = {
    "digits": DIGITS,
    "fashion_mnist": FASHION_MNIST,
    "mnist": MNIST,
    "omniglot": OMNIGLOT,
}

# the user's own: made from `data.path`, the image shape of the model, and `data.seed`
OWN: dict[str, Callable[[str, Shape, int], Dataset]] = {
    "arrays": arrays_dataset,
    "folder": folder_dataset,
    "tfds": tfds_dataset,
}
