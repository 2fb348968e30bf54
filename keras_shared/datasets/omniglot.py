import functools

import numpy as np

from keras_shared.datasets.dataset import DataError, Dataset
from keras_shared.datasets.labelled_images import LabelledImages
from keras_shared.datasets.omniglot_runs import drawers_of, official_runs
from keras_shared.datasets.splitting import check_split
from keras_shared.datasets.tfds_split import load_tfds


def load_omniglot(
    split: str, data_dir: str | None = None, background: str = "train"
) -> LabelledImages:
    """Omniglot through TFDS: 1,623 characters of 50 alphabets, 20 drawers each, 105x105 pixels.

    The ink is 0, the paper 255. The classes are characters, the groups alphabets; train (30
    alphabets) and test (20) share none. Drawers are known, and of the test split the 20 official
    one-shot runs.

    Args:
        split: `"train"` or `"test"`.
        data_dir: see `keras_shared.datasets.tfds_split.load_tfds`.
        background: what the training split is: `"train"`, or one of the smaller ones of five
            alphabets each, `"small1"` or `"small2"`.

    Raises:
        DataError: for another split or background, if it is not there and cannot be downloaded,
            or in another order than that of version 3.0.0.

    Reference:
        Lake, Salakhutdinov, Tenenbaum 2015, "Human-level Concept Learning through
        Probabilistic Program Induction"; the smaller splits: Lake, Salakhutdinov, Tenenbaum 2019,
        "The Omniglot challenge: a 3-year progress report". Licence MIT.
    """
    if background not in ("train", "small1", "small2"):
        raise DataError(
            f"`background` must be 'train', 'small1' or 'small2'. Received: "
            f"background={background!r}"
        )
    name = background if check_split(split) == "train" else split
    arrays, info = load_tfds("omniglot", name, data_dir)
    codes, labels = np.unique(arrays["label"], return_inverse=True)  # classes of this split: 0...
    groups = np.zeros(len(codes), int)
    groups[labels] = arrays["alphabet"]
    class_names = tuple(info.features["label"].int2str(int(code)) for code in codes)
    group_names = tuple(info.features["alphabet"].names)
    drawers = drawers_of(name, labels)
    runs = official_runs(labels, class_names, drawers) if split == "test" else None
    return LabelledImages(
        arrays["image"], labels, groups, class_names, group_names, drawers=drawers, runs=runs
    )


OMNIGLOT = Dataset("Omniglot", "Lake 2015", "MIT", LabelledImages, load_omniglot)
OMNIGLOT_SMALL1, OMNIGLOT_SMALL2 = (
    Dataset(
        f"Omniglot, {name} of five alphabets", "Lake 2015", "MIT", LabelledImages,
        functools.partial(load_omniglot, background=name),
    )
    for name in ("small1", "small2")
)  # fmt: skip


def _background(split: str, data_dir: str | None) -> LabelledImages:
    check_split(split)
    return load_omniglot("train", data_dir)  # `data.test_groups` says which of it test


OMNIGLOT_BACKGROUND = Dataset(  # for studies that never read the alphabets of the test split
    "Omniglot, the 30 background alphabets", "Lake 2015", "MIT", LabelledImages,
    _background,
)  # fmt: skip
