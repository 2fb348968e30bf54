import hashlib
import pathlib
import re
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_shared.datasets.dataset import DataError, Dataset
from keras_shared.datasets.labelled_images import LabelledImages
from keras_shared.datasets.lazy_images import LazyImages, Shape
from keras_shared.datasets.splitting import check_classes, check_split, split_by_seed
from keras_shared.errors import boundary
from keras_shared.files.bounded import read_bytes
from keras_shared.files.limits import MOST_PICTURE
from keras_shared.files.paths import as_path
from keras_shared.files.pictures import why_no_picture
from keras_shared.text import one_line

SPLITS = {  # small letters, without _set, -images or the like behind it
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
OTHER_SPLITS = ("dev", "eval", "evaluation", "holdout")
SHOWN = 5  # files that a warning names


def from_folder(
    path: str | pathlib.Path, split: str, image_shape: Shape, seed: int = 1
) -> LabelledImages:
    """Your own images from a folder with a sub-folder for each class.

    Where the folder holds `train` and `test` (and perhaps `validation`), each with a sub-folder for
    each class, these are the splits. Otherwise the seed draws a fifth of each class to test, and
    a fifth of the rest to validate. Images are read when they are needed.

    Args:
        path: the folder.
        split: `"train"` (with the images that validate) or `"test"`.
        image_shape: height, width and channels to which images are brought; grey or colour.
        seed: of the draw.

    Raises:
        DataError: if there are no such sub-folders, or classes have too few images.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from keras_shared.datasets import from_folder
        >>> from keras_shared.files.pictures import png_bytes
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name, grey in (("dark", 30), ("light", 220)):
        ...     (folder / name).mkdir()
        ...     for i in range(5):
        ...         image = np.full((9, 12, 1), grey + i, "uint8")
        ...         _ = (folder / name / f"{i}.png").write_bytes(png_bytes(image))
        >>> train, test = (from_folder(folder, split, (8, 8, 1)) for split in ("train", "test"))
        >>> train.class_names, len(train.images), len(test.images), test.images.read().shape
        (('dark', 'light'), 8, 2, (2, 8, 8, 1))
    """
    folder, split = as_path(path, "path"), check_split(split)
    with boundary(f"{folder} cannot be read as a folder of images", DataError):
        return _from_folder(folder, split, image_shape, seed)


def _from_folder(folder: pathlib.Path, split: str, image_shape: Shape, seed: int) -> LabelledImages:
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder} with images. Name one with a folder a class.")
    splits = _splits(folder)
    if splits["train"] is None or splits["test"] is None:
        if any(splits.values()):
            found = [p.name for p in splits.values() if p is not None]
            raise DataError(
                f"{folder} holds the split {found}: expected 'train' and 'test' (and perhaps "
                "'validation'), or none of them and a folder for each class."
            )
        names = _classes(folder)
        _refuse_splits(folder, names)
        train, test = split_by_seed(_read(folder, names, image_shape), seed, str(folder))
        return train if split == "train" else test
    names = _classes(splits["train"])
    parts = {
        name: _read(p, _same_classes(p, names), image_shape) for name, p in splits.items() if p
    }
    for name, images in parts.items():
        check_classes(images, f"{folder}/{name}", least=1)
    _warn_of_copies(folder, parts)
    if split == "test":
        return parts["test"]
    if "validation" not in parts:
        return parts["train"]
    both, validation = parts["train"], parts["validation"]
    files = np.concatenate([_files(both), _files(validation)])
    labels = np.concatenate([both.labels, validation.labels])
    held_out = np.arange(len(both.labels), len(labels))
    return both._replace(images=LazyImages(files, image_shape), labels=labels, held_out=held_out)


def folder_dataset(path: str, image_shape: Shape, seed: int) -> Dataset:
    """A folder as a data set that a recipe names."""
    return Dataset(
        f"own images, the folder '{pathlib.Path(path).name}'", "", "", LabelledImages,
        lambda split, data_dir: from_folder(path, split, image_shape, seed),
    )  # fmt: skip


def _files(images: LabelledImages) -> np.ndarray:
    assert isinstance(images.images, LazyImages)
    return images.images.sources


def _splits(folder: pathlib.Path) -> dict[str, pathlib.Path | None]:
    """The folders of the splits; under other spellings too, where both of the two are there."""
    own = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    spelt = {_spelt(name): path for name, path in own.items()}
    exact, other = (
        {split: next((p[n] for n in names if n in p), None) for split, names in SPLITS.items()}
        for p in (own, spelt)
    )
    found = {split: exact[split] or other[split] for split in SPLITS}
    return found if found["train"] and found["test"] else exact


def _spelt(name: str) -> str:
    what = "(data[ _-]?set|set|data|images|imgs|split)"
    return re.sub(rf"^{what}[ _-]|[ _-]?{what}$", "", name.lower())


def _refuse_splits(folder: pathlib.Path, names: tuple[str, ...]) -> None:
    """Folders that are named as splits are, and hold folders, are no classes."""
    known = {word for words in (*SPLITS.values(), OTHER_SPLITS) for word in words}
    inner = [
        [p.name for p in sorted((folder / name).iterdir()) if p.is_dir() and p.name[0] != "."]
        for name in names
    ]
    if {_spelt(name) for name in names} <= known and all(inner):
        raise DataError(
            f"{folder}: {list(names[:8])} look like splits, and hold folders such as "
            f"{inner[0][:8]}. Name them 'train' and 'test' (and perhaps 'validation')."
        )


def _classes(folder: pathlib.Path) -> tuple[str, ...]:
    names = tuple(
        sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
    if not names:
        raise DataError(
            f"{folder} has no sub-folders: expected one for each class, named after it, with its "
            f"images. It holds: {sorted(p.name for p in folder.iterdir())[:8]}"
        )
    return names


def _same_classes(folder: pathlib.Path, names: tuple[str, ...]) -> tuple[str, ...]:
    others = set(_classes(folder)).symmetric_difference(names)
    if others:
        raise DataError(
            f"{folder} and the training images differ in the classes {sorted(others)[:8]}: "
            f"expected the same sub-folders in each split: {list(names[:8])}"
        )
    return names


def _read(folder: pathlib.Path, names: tuple[str, ...], shape: Shape) -> LabelledImages:
    """Paths and labels of all pictures; files that are none are named in a warning."""
    found = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((folder / name).rglob("*"))
        # links that lead nowhere, or to a folder, are named below
        if (file.is_file() or file.is_symlink()) and not _hidden(file, folder)
    ]
    with ThreadPoolExecutor() as pool:
        wrong = list(pool.map(why_no_picture, (file for file, _ in found)))
    bad = [reason for reason in wrong if reason]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        warnings.warn(
            one_line(f"{folder}: {len(bad)} files are left out: {'; '.join(bad[:SHOWN])}{more}"),
            stacklevel=2,
        )
    good = [pair for pair, reason in zip(found, wrong, strict=True) if not reason]
    files = np.array([str(file) for file, _ in good], dtype=str)
    labels = np.array([label for _, label in good], dtype=int)
    images = LabelledImages(LazyImages(files, shape), labels, np.arange(len(names)), names, names)
    return _without_copies(folder, images)


def _hidden(file: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether it, or a folder that it lies in, begins with a dot: what other programs leave."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def copies_among(files: Iterable[str]) -> dict[str, str]:
    """Files that hold what an earlier one holds, under whatever names -> the first of those."""
    sizes: dict[int, list[str]] = {}
    for file in files:
        sizes.setdefault(pathlib.Path(file).stat().st_size, []).append(file)
    copies = {}
    for alike in sizes.values():
        first: dict[bytes, str] = {}
        for file in alike if len(alike) > 1 else ():  # of another size than all: no copy
            digest = hashlib.sha256(read_bytes(file, MOST_PICTURE, DataError)).digest()
            if first.setdefault(digest, file) != file:
                copies[file] = first[digest]
    return copies


def _without_copies(folder: pathlib.Path, images: LabelledImages) -> LabelledImages:
    """Each picture once, so that none can be in two splits; the others are named in a warning."""
    copies = copies_among(_files(images))
    if not copies:
        return images
    named = "; ".join(f"{copy} is {original}" for copy, original in list(copies.items())[:SHOWN])
    warnings.warn(
        f"{folder}: {len(copies)} files are copies of others and are left out: {named}",
        stacklevel=2,
    )
    keep = np.array([file not in copies for file in _files(images)])
    return images._replace(images=images.images[keep], labels=images.labels[keep])


def _warn_of_copies(folder: pathlib.Path, parts: dict[str, LabelledImages]) -> None:
    home = {str(f): name for name, images in parts.items() for f in _files(images)}
    both = [
        f"{file} ({home[file]}) is {other} ({home[other]})"
        for file, other in copies_among(home).items()
        if home[other] != home[file]
    ]
    if both:
        warnings.warn(
            f"{folder}: {len(both)} pictures are in two splits, and the test is no test of them: "
            f"{'; '.join(both[:SHOWN])}",
            stacklevel=2,
        )
