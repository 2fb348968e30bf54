"""The 20 one-shot runs that come with Omniglot, and who drew its images: TFDS has neither."""

import pathlib

import numpy as np

from keras_shared.datasets.dataset import DataError

DRAWERS = pathlib.Path(__file__).with_name("omniglot_drawers.npz")

# alphabet: characters, and for each of its two runs the drawers of what is known and of the queries
RUNS = {
    "Atlantean": (
        (1, 2, 3, 4, 5, 7, 8, 9, 10, 13, 14, 16, 19, 20, 21, 22, 23, 24, 25, 26),
        ((5, 8), (3, 2)),
    ),
    "Ge_ez": (
        (1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 15, 16, 17, 18, 20, 21, 23, 24, 25),
        ((3, 7), (4, 2)),
    ),
    "Glagolitic": (
        (1, 2, 3, 5, 6, 7, 14, 17, 18, 19, 20, 21, 26, 28, 31, 34, 36, 37, 40, 43),
        ((6, 4), (3, 2)),
    ),
    "Gurmukhi": (
        (3, 6, 7, 8, 9, 13, 14, 15, 16, 17, 22, 25, 26, 29, 31, 32, 33, 38, 43, 44),
        ((5, 2), (8, 3)),
    ),
    "Kannada": (
        (1, 3, 5, 8, 11, 12, 13, 14, 19, 20, 21, 23, 25, 26, 27, 28, 33, 35, 40, 41),
        ((2, 1), (8, 3)),
    ),
    "Malayalam": (
        (2, 4, 5, 9, 13, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 29, 30, 37, 43, 46),
        ((3, 7), (4, 2)),
    ),
    "Manipuri": (
        (3, 4, 6, 8, 9, 11, 12, 13, 15, 17, 19, 21, 22, 25, 29, 33, 35, 36, 37, 39),
        ((8, 4), (7, 3)),
    ),
    "Old_Church_Slavonic_(Cyrillic)": (
        (2, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 23, 24, 25, 30, 33, 41, 44, 45),
        ((4, 8), (1, 2)),
    ),
    "Tengwar": (
        (1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 13, 16, 18, 19, 20, 21, 22, 23, 24, 25),
        ((1, 4), (8, 7)),
    ),
    "Tibetan": (
        (1, 2, 3, 5, 6, 7, 8, 9, 11, 13, 14, 15, 21, 22, 24, 33, 35, 36, 38, 41),
        ((1, 3), (8, 5)),
    ),
}


def drawers_of(split: str, labels: np.ndarray) -> np.ndarray:
    """The drawer of each image of a split, 1 to 20 within its alphabet.

    Args:
        split: name of a split of the TFDS data set omniglot 3.0.0.
        labels: (images,), the characters in the order of its files.

    Raises:
        DataError: if the order is another: each drawer drew each character once.

    Reference:
        The names of the original files, matched by their pixels (Lake 2015, MIT).
    """
    with np.load(DRAWERS) as file:
        drawers: np.ndarray = file[split].astype(int)
    pairs = np.unique(np.stack([labels, drawers]), axis=1) if len(labels) == len(drawers) else None
    if pairs is None or pairs.shape[1] != len(labels):
        raise DataError(
            f"The images of the split '{split}' of omniglot are not in the order of version 3.0.0 "
            "of the data set, for which their drawers are known. Prepare that version with TFDS."
        )
    return drawers


def official_runs(
    labels: np.ndarray, class_names: tuple[str, ...], drawers: np.ndarray
) -> np.ndarray:
    """The runs as numbers of images, int (20, 2, 20): what is known, and the queries.

    Args:
        labels: (images,), the class of each image of the test split.
        class_names: of its classes, as TFDS names them.
        drawers: (images,), from `drawers_of`.

    Reference:
        Lake, Salakhutdinov, Tenenbaum 2015, one-shot-classification/all_runs.zip of
        github.com/brendenlake/omniglot; which images these are: jvlmdr/omniglot-eval on GitHub,
        lake-evaluation/run_images.txt.
    """
    place = {(int(c), int(d)): i for i, (c, d) in enumerate(zip(labels, drawers, strict=True))}
    number = {name: i for i, name in enumerate(class_names)}
    return np.array(
        [
            [[place[number[f"{alphabet}_{c - 1}"], drawer] for c in characters] for drawer in pair]
            for alphabet, (characters, runs) in RUNS.items()
            for pair in runs
        ]
    )
