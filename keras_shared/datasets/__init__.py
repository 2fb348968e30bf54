"""Data sets as arrays. A new one is a file here and a line in `DATASETS`."""

from keras_shared.datasets.dataset import DataError as DataError
from keras_shared.datasets.dataset import Dataset as Dataset
from keras_shared.datasets.digits import DIGITS
from keras_shared.datasets.digits import load_digits as load_digits
from keras_shared.datasets.fashion_mnist import FASHION_MNIST
from keras_shared.datasets.fashion_mnist import load_fashion_mnist as load_fashion_mnist
from keras_shared.datasets.labelled_images import LabelledImages as LabelledImages
from keras_shared.datasets.mnist import MNIST
from keras_shared.datasets.mnist import load_mnist as load_mnist
from keras_shared.datasets.omniglot import OMNIGLOT
from keras_shared.datasets.omniglot import load_omniglot as load_omniglot

DATASETS: dict[str, Dataset] = {
    "digits": DIGITS,
    "fashion_mnist": FASHION_MNIST,
    "mnist": MNIST,
    "omniglot": OMNIGLOT,
}
