import pathlib
import re
import warnings
from typing import NamedTuple

import numpy as np

from keras_shared.datasets.csv_rows import csv_rows
from keras_shared.datasets.dataset import DataError, Dataset
from keras_shared.datasets.folder import copies_among
from keras_shared.datasets.lazy_images import LazyImages, Shape
from keras_shared.datasets.splitting import SHARE, check_split
from keras_shared.errors import boundary
from keras_shared.files.bounded import read_text
from keras_shared.files.paths import as_path
from keras_shared.files.pictures import why_no_picture

YES, NO = ("1", "same", "true", "yes"), ("0", "different", "false", "no")
SPLITS = ("train", "validation", "test")
HEADER = "image_a,image_b,same"
TITLE = re.compile(  # of the third column, where 1 can only be the same
    r"(is[ _-]?)?(same([ _-](person|class|object|identity|image|thing))?|match(es)?|equal|identical"
    r"|duplicates?)|labels?|target|answer|y([ _-]true)?"
)
SHOWN = 5  # rows that a message names


class ImagePairs(NamedTuple):
    """One split of a list of pairs of images.

    Attributes:
        images: each image once.
        left: int (pairs,), number of the first image of each pair.
        right: int (pairs,), number of the second.
        same: bool (pairs,), whether they show the same thing.
        held_out: of a training split, numbers of the pairs that validate.
    """

    images: LazyImages
    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    held_out: np.ndarray | None = None

    def fitted(self, shape: Shape) -> "ImagePairs":
        """The same with images of this shape, resized when they are read."""
        return self._replace(images=self.images.of_shape(shape))

    def part(self, pairs: np.ndarray) -> "ImagePairs":
        """Some of the pairs."""
        chosen = {key: getattr(self, key)[pairs] for key in ("left", "right", "same")}
        return self._replace(**chosen, held_out=None)


def from_pairs(
    path: str | pathlib.Path, split: str, image_shape: Shape, seed: int = 1
) -> ImagePairs:
    """Your own pairs of images from a CSV file: two paths, and whether they show the same.

    A row is `image_a,image_b,same`, with paths relative to the file and `same` as 1 or 0 (or same,
    different, true, false, yes, no). A fourth column may name the split: train, validation or test.
    Without it, the seed draws a fifth of the pairs of each kind to test, and a fifth of the rest to
    validate. Images are read when they are needed.

    Args:
        path: the file, with or without a header, which names the third column "same", "match",
            "label" or the like: 1 is the same under each of these.
        split: `"train"` (with the pairs that validate) or `"test"`.
        image_shape: height, width and channels to which images are brought.
        seed: of the draw.

    Raises:
        DataError: for a file that is none, or rows that are none, or that contradict each other, by
            their numbers; or too few.

    Warns:
        UserWarning: for pairs whose pictures cannot be read, which are left out, and for pictures
            that train and test, be it as copies under other names.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from keras_shared.datasets import from_pairs
        >>> from keras_shared.files.pictures import png_bytes
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for i in range(20):
        ...     _ = (folder / f"{i}.png").write_bytes(png_bytes(np.full((9, 9, 1), i, "uint8")))
        >>> rows = [f"{2 * i}.png,{2 * i + 1}.png,{i % 2}" for i in range(10)]
        >>> _ = (folder / "pairs.csv").write_text("\\n".join(rows))
        >>> train = from_pairs(folder / "pairs.csv", "train", (8, 8, 1))
        >>> len(train.same), len(train.held_out), train.images.shape[1:]
        (8, 2, (8, 8, 1))
    """
    path, split = as_path(path, "path"), check_split(split)
    with boundary(f"{path} is not a CSV file of pairs, {HEADER}", DataError):
        rows = _readable(path, _rows(path))
        paths = sorted({file for row in rows for file in (row.left, row.right)})
        files = [str(file) for file in paths]
        copies = copies_among(files)
    files, listed = [file for file in files if file not in copies], files
    number = {file: i for i, file in enumerate(files)}
    number |= {copy: number[file] for copy, file in copies.items()}
    pairs = ImagePairs(
        LazyImages(np.array(files, dtype=str), image_shape),
        np.array([number[str(row.left)] for row in rows], int),
        np.array([number[str(row.right)] for row in rows], int),
        np.array([row.same for row in rows], bool),
    )
    _refuse_contradictions(path, pairs, [row.line for row in rows])
    train, test = _parted(path, pairs, [row.split for row in rows], seed)
    both = set(np.r_[train.left, train.right]) & set(np.r_[test.left, test.right])
    if both and split == "train":
        named = [" = ".join(f for f in listed if number[f] == i) for i in sorted(both)[:SHOWN]]
        warnings.warn(
            f"{path}: {len(both)} pictures train and test, which flatters the test: "
            f"{'; '.join(named)}. Give each picture, and its copies, to one split, and name the "
            "splits in a fourth column.",
            stacklevel=2,
        )
    return train if split == "train" else test


def pairs_dataset(path: str, image_shape: Shape, seed: int) -> Dataset:
    """A CSV file of pairs as a data set that a recipe names."""
    return Dataset(
        f"own pairs of images, the file '{pathlib.Path(path).name}'", "", "", ImagePairs,
        lambda split, data_dir: from_pairs(path, split, image_shape, seed),
    )  # fmt: skip


class _Row(NamedTuple):
    line: int
    left: pathlib.Path
    right: pathlib.Path
    same: bool
    split: str


def _rows(path: pathlib.Path) -> list[_Row]:
    text = read_text(path, DataError).removeprefix("\ufeff")
    rows = csv_rows(text, f"{path} is not a CSV file of pairs, {HEADER}")
    lines = [(line, [cell.strip() for cell in row]) for line, row in rows]
    lines = [(i, row) for i, row in lines if any(row)]
    if lines and _is_header(path, *lines[0]):
        del lines[0]
    wrong, pairs = list[str](), list[_Row]()
    for i, row in lines:
        answer, where = (cell.lower() for cell in (*row[2:3], *row[3:4], "", "")[:2])
        if len(row) not in (3, 4):
            wrong.append(f"line {i} has {len(row)} columns between commas")
        elif answer not in YES + NO:
            wrong.append(f"line {i}: same is {row[2][:60]!r}, expected 1 or 0")
        elif len(row) == 4 and where not in SPLITS:
            wrong.append(f"line {i}: the split is '{row[3]}', expected one of {list(SPLITS)}")
        elif missing := [name for name in row[:2] if not (path.parent / name).is_file()]:
            wrong.append(f"line {i}: there is no file {path.parent / missing[0]}")
        else:
            files = [path.parent / name for name in row[:2]]
            pairs.append(_Row(i, files[0], files[1], answer in YES, where if row[3:] else ""))
    if wrong:
        raise DataError(f"{path}: expected rows {HEADER}. {_first(wrong)}.")
    if len({bool(row.split) for row in pairs}) > 1:
        raise DataError(f"{path}: name the split in each row, or in none.")
    return pairs


def _is_header(listed: pathlib.Path, line: int, row: list[str]) -> bool:
    """Whether the first row names the columns; its third one must be what 1 and 0 say here."""
    if len(row) < 3:
        return False
    title = row[2].lower()
    answers = title in YES + NO and title not in ("same", "different")  # which are titles too
    if answers or any(_is_path(listed, name) for name in row[:2]):
        return False
    if not TITLE.fullmatch(title.strip(" ?!.:*")):
        raise DataError(
            f"{listed}: line {line} names the third column {row[2][:60]!r}, expected 'same', "
            "'match' or 'label', with 1 for two pictures that show the same, and 0 for others. "
            "Name it so, where its numbers mean that, or else turn them round."
        )
    return True


def _is_path(listed: pathlib.Path, name: str) -> bool:
    return bool(re.search(r"[./\\]", name)) or (listed.parent / name).is_file()


def _first(wrong: list[str]) -> str:
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return "; ".join(wrong[:SHOWN]) + more


def _refuse_contradictions(path: pathlib.Path, pairs: ImagePairs, lines: list[int]) -> None:
    """Each pair has one answer, whichever picture comes first, and itself each picture shows."""
    answers: dict[tuple[int, int], tuple[bool, int]] = {}
    wrong = list[str]()
    for a, b, same, line in zip(pairs.left, pairs.right, pairs.same, lines, strict=True):
        known, before = answers.setdefault((min(a, b), max(a, b)), (same, line))
        if a == b and not same:
            wrong.append(f"line {line} calls a picture different from itself, or from its copy")
        elif known != same:
            wrong.append(f"lines {before} and {line} answer the same pair with yes and no")
    if wrong:
        raise DataError(f"{path}: {_first(wrong)}. Correct these rows, or leave them out.")


def _readable(path: pathlib.Path, rows: list[_Row]) -> list[_Row]:
    """Without the pairs of which a picture cannot be read."""
    files = dict.fromkeys(file for row in rows for file in (row.left, row.right))
    bad = {file: why for file in files if (why := why_no_picture(file))}
    if bad:
        reasons = "; ".join(sorted(bad.values())[:SHOWN])
        warnings.warn(f"{path}: pairs with {len(bad)} files are left out: {reasons}", stacklevel=3)
    return [row for row in rows if row.left not in bad and row.right not in bad]


def _parted(
    path: pathlib.Path, pairs: ImagePairs, named: list[str], seed: int
) -> tuple[ImagePairs, ImagePairs]:
    """Training split, with the pairs that validate, and test split."""
    kinds: dict[str, list[int]] = {name: [] for name in SPLITS}
    if any(named):
        for i, name in enumerate(named):
            kinds[name].append(i)
    else:
        order = np.random.default_rng(seed).permutation(len(named))
        for value in (True, False):
            own = order[pairs.same[order] == value]
            tested = round(SHARE * len(own))
            validated = round(SHARE * (len(own) - tested))
            kinds["test"] += own[:tested].tolist()
            kinds["validation"] += own[tested : tested + validated].tolist()
            kinds["train"] += own[tested + validated :].tolist()
    if any(named) and not kinds["validation"]:
        validated = max(2, round(SHARE * len(kinds["train"])))
        order = np.random.default_rng(seed).permutation(kinds["train"])
        kinds["validation"], kinds["train"] = order[:validated].tolist(), order[validated:].tolist()
    for name, members in kinds.items():
        both = len(set(pairs.same[members].tolist())) == 2 if members else False
        if not both:
            raise DataError(
                f"{path}: the {name} split has {len(members)} pairs and needs some that show the "
                "same and some that do not. Add pairs (ten of each kind make a split by seed)."
            )
    training = np.sort(np.array(kinds["train"] + kinds["validation"]))
    held_out = np.searchsorted(training, np.sort(kinds["validation"]))
    train = pairs.part(training)._replace(held_out=held_out)
    return train, pairs.part(np.sort(np.array(kinds["test"])))
