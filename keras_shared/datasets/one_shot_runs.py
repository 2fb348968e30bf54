"""The user's own one-shot runs: folders of images that are known, and of queries."""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from keras_shared.datasets.dataset import DataError
from keras_shared.errors import boundary
from keras_shared.files.bounded import read_text
from keras_shared.files.paths import as_path
from keras_shared.files.pictures import PictureError, why_no_picture

KNOWN, QUERIES = ("support", "training"), ("query", "test")
LABELS = "class_labels.txt"  # of Omniglot's layout, which has it in each run
LAYOUT = f"a folder '{KNOWN[0]}' and a folder '{QUERIES[0]}' (or 'training', 'test' and '{LABELS}')"


class OneShotRun(NamedTuple):
    """One run: some images are known, and each query shows one of their classes.

    Attributes:
        name: of its folder.
        classes: names of the classes.
        known: files of the images that are known.
        known_classes: int, the class of each.
        queries: files of the queries.
        query_classes: int, the class of each.
    """

    name: str
    classes: tuple[str, ...]
    known: tuple[str, ...]
    known_classes: np.ndarray
    queries: tuple[str, ...]
    query_classes: np.ndarray


def read_one_shot_runs(path: str | os.PathLike[str]) -> list[OneShotRun]:
    """One-shot runs from a folder with a sub-folder for each, or with a single run.

    Each run has one of two layouts. With names of classes:

        run/support/CLASS.png         or several: run/support/CLASS/ANY.png
        run/query/CLASS/ANY.png       or one: run/query/CLASS.png

    Or that of Omniglot (all_runs.zip, unpacked), where `class_labels.txt` has a line
    `run01/test/item01.png run01/training/class14.png` for each query:

        run01/training/class01.png
        run01/test/item01.png
        run01/class_labels.txt

    Args:
        path: the folder.

    Raises:
        DataError: for a folder with neither, or if a class, an image or a label is missing.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from keras_shared.datasets import read_one_shot_runs
        >>> from keras_shared.files.pictures import png_bytes
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for i, name in enumerate(["support/a", "support/b", "query/a", "query/b"]):
        ...     file = folder / "first" / f"{name}.png"
        ...     file.parent.mkdir(parents=True, exist_ok=True)
        ...     _ = file.write_bytes(png_bytes(np.full((4, 4, 1), i, "uint8")))
        >>> [run] = read_one_shot_runs(folder)
        >>> run.name, run.classes, len(run.known), run.query_classes.tolist()
        ('first', ('a', 'b'), 2, [0, 1])
    """
    folder = as_path(path, "path")
    with boundary(f"{folder} cannot be read as a folder of one-shot runs", DataError):
        if not folder.is_dir():
            raise DataError(
                f"There is no folder {folder}. Expected one with a folder for each run."
            )
        if _first_of(folder, KNOWN) or _first_of(folder, QUERIES):
            return [_run(folder)]
        runs = [_run(inner) for inner in _visible(folder) if inner.is_dir()]
        if not runs:
            raise DataError(
                f"{folder} holds no runs: expected a folder for each, with {LAYOUT}. It holds: "
                f"{[inner.name for inner in _visible(folder)][:8]}"
            )
        return runs


def _run(folder: pathlib.Path) -> OneShotRun:
    known, queries = _first_of(folder, KNOWN), _first_of(folder, QUERIES)
    if known is None or queries is None:
        raise DataError(
            f"{folder} is no run: expected {LAYOUT}. It holds: "
            f"{[inner.name for inner in _visible(folder)][:8]}"
        )
    support = _pictures(known)
    asked = _labelled(folder, queries) if (folder / LABELS).exists() else _pictures(queries)
    classes = tuple(dict.fromkeys(name for _, name in support))
    if len(classes) < 2:
        raise DataError(f"{known} has the classes {list(classes)}: expected two or more.")
    if not asked:
        raise DataError(f"{queries} has no images: expected a query of each class.")
    strange = sorted({name for _, name in asked}.difference(classes))
    if strange:
        how = "" if (folder / LABELS).exists() else (
            f" Expected the names of images or folders in {known}: {list(classes[:8])}. If the "
            f"queries have names of their own, write {folder / LABELS}."
        )  # fmt: skip
        raise DataError(f"{folder}: queries of {strange[:8]}, of which nothing is known.{how}")
    number = {name: i for i, name in enumerate(classes)}
    return OneShotRun(
        folder.name or str(folder.resolve().name), classes,
        tuple(str(file) for file, _ in support), np.array([number[name] for _, name in support]),
        tuple(str(file) for file, _ in asked), np.array([number[name] for _, name in asked]),
    )  # fmt: skip


def _pictures(folder: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """Files with their classes: a file is named after its class, or lies in a folder that is."""
    found = []
    for inner in _visible(folder):
        if inner.is_dir():
            files = [file for file in _visible(inner) if file.is_file()]
            if not files:
                raise DataError(f"{inner} has no images: put some there, or remove the folder.")
            found += [(file, inner.name) for file in files]
        else:
            found.append((inner, inner.stem))
    for file, _ in found:
        if why := why_no_picture(file):
            raise PictureError(why)
    return found


def _labelled(folder: pathlib.Path, queries: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """The queries that `class_labels.txt` lists, with the classes that it says."""
    labels = folder / LABELS
    files = {file.name: file for file, _ in _pictures(queries)}
    asked = []
    for number, line in enumerate(read_text(labels, DataError).splitlines(), 1):
        if not line.strip():
            continue
        query, _, answer = (part.strip() for part in line.strip().partition(" "))
        name = pathlib.PurePosixPath(query).name
        if not answer or name not in files:
            raise DataError(
                f"{labels}, line {number}: {line.strip()!r} names no query and its class. Expected "
                f"a file in {queries}, a blank, and one in {_first_of(folder, KNOWN)}."
            )
        asked.append((files.pop(name), pathlib.PurePosixPath(answer).stem))
    if files:
        raise DataError(f"{labels} has no line for {sorted(files)[:8]} in {queries}. Add them.")
    return asked


def _first_of(folder: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(inner for inner in folder.iterdir() if not inner.name.startswith("."))
