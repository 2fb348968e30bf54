import functools

import numpy as np

from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.mnist import load_mnist
from keras_shared.datasets.several_labels import SeveralLabels
from keras_shared.datasets.splitting import check_split

SIDE = 36  # pixels: 28, and the 8 by which the second image is moved
SEEDS = {"train": 1, "test": 2}  # of the partners


def overlaid(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two images in one: one in the top left corner, one in the bottom right one.

    `z[i, j] = max(a[i, j], b[i - 8, j - 8])` for images of 28 x 28 pixels, with 0 outside of each.

    Args:
        left: uint8 (images, height, width, channels), at most 36 x 36 pixels.
        right: the other ones, of any such size.

    Returns:
        uint8 (images, 36, 36, channels).

    Example:
        >>> import numpy as np
        >>> from keras_shared.datasets.multi_mnist import overlaid
        >>> z = overlaid(np.full((1, 28, 28, 1), 3, "uint8"), np.full((1, 28, 28, 1), 5, "uint8"))
        >>> z[0, 0, 0, 0], z[0, 20, 20, 0], z[0, 35, 35, 0], z[0, 0, 35, 0]
        (np.uint8(3), np.uint8(5), np.uint8(5), np.uint8(0))
    """
    images = np.zeros((len(left), SIDE, SIDE, left.shape[-1]), "uint8")
    images[:, : left.shape[1], : left.shape[2]] = left
    corner = images[:, SIDE - right.shape[1] :, SIDE - right.shape[2] :]
    np.maximum(corner, right, out=corner)
    return images


def load_multi_mnist(split: str, data_dir: str | None = None) -> SeveralLabels:
    """MultiMNIST: two digits of MNIST in one image of 36x36 pixels, 60,000 and 10,000 of them.

    Made when it is asked for, of MNIST through TFDS, by this rule: image number `i` shows digit
    number `i` of the split in its top left corner and digit number `p[i]` in its bottom right one,
    and a pixel is the brighter one of the two; `p` is the permutation that
    `numpy.random.default_rng(seed)` draws, seed 1 of the training and 2 of the test split. So each
    digit is once at the left and once at the right, and both may be of one class.

    Sabour, Frosst, Hinton 2017 move both digits, by up to 4 pixels, and take two classes. Sener &
    Koltun 2018 put one into each corner, as here, move the second by 6 pixels, and shrink the
    image to 28x28.

    Args:
        split: `"train"` or `"test"`.
        data_dir: see `keras_shared.datasets.tfds_split.load_tfds`.

    Raises:
        DataError: for another split, or if MNIST is not there and cannot be downloaded.

    Reference:
        Sabour, Frosst, Hinton 2017, "Dynamic Routing Between Capsules", section 6; Sener & Koltun
        2018, "Multi-Task Learning as Multi-Objective Optimization", section 5.1.
    """
    return _made(check_split(split), data_dir)


@functools.lru_cache(maxsize=2)  # a comparison reads the same two splits for each of its runs
def _made(split: str, data_dir: str | None) -> SeveralLabels:
    digits = load_mnist(split, data_dir)
    other = np.random.default_rng(SEEDS[split]).permutation(len(digits.labels))
    images = overlaid(np.asarray(digits.images), np.asarray(digits.images[other]))
    labels = np.stack([digits.labels, digits.labels[other]], axis=1)
    names = digits.class_names
    return SeveralLabels(images, labels, {"left": names, "right": names})


MULTI_MNIST = Dataset(
    "MultiMNIST, made of MNIST", "LeCun & Cortes", "CC BY-SA 3.0", SeveralLabels, load_multi_mnist
)
