"""Files that a command asks a model about: single ones, and those in folders."""

import argparse
import functools
import pathlib
import sys
from collections.abc import Sequence

from keras_shared.errors import attempt


def suffixes() -> set[str]:
    """Endings of what can be sent to a model."""
    from keras_shared.files.pictures import FORMATS

    return {".jpg", ".npy", *(f".{name.lower()}" for name in FORMATS)}


def files_in(given: str, vectors: bool = True) -> list[str]:
    """A file, or the pictures and vectors in a folder; what else lies there is named and left."""
    from keras_shared.files.pictures import PictureError, read_picture

    path = pathlib.Path(given)
    if not path.is_dir():
        return [given]
    inside = []
    for file in sorted(path.iterdir()):
        if file.is_dir() or file.name.startswith("."):
            continue
        vector, read = (
            vectors and file.suffix.lower() == ".npy",
            functools.partial(read_picture, file),
        )
        damaged = None if vector else attempt(read, PictureError)[1]
        if damaged:
            print(f"keras-shared: skipped. {damaged}", file=sys.stderr)
        else:
            inside.append(str(file))
    if not inside:
        raise PictureError(f"{given} holds no pictures: expected files {sorted(suffixes())}.")
    return inside


def add_invert(parser: argparse.ArgumentParser) -> None:
    """Add --invert."""
    parser.add_argument("--invert", action="store_true", help="swap dark and bright first")


def warn_of_ground(
    files: list[str],
    sources: Sequence[str | bytes],
    bright_ink: bool,
    inverted: bool,
    learnt: str = "",
) -> None:
    """Say which pictures have dark ink for a model that reads bright ink, or the other way round.

    Args:
        files: names of the pictures.
        sources: the pictures, as paths or as bytes.
        bright_ink: whether the model reads bright ink on a dark ground.
        inverted: whether the pictures are inverted before the model sees them.
        learnt: name of a model that may have learnt the other ink, of pictures of one's own.
    """
    from keras_shared.errors import printable
    from keras_shared.files.pictures import bright_ground, read_picture
    from keras_shared.serving.answering import is_npy

    reads = "bright ink on a dark one" if bright_ink else "dark ink on a bright one"
    for file, source in zip(files, sources, strict=True):
        if is_npy(source):
            continue
        bright = bright_ground(read_picture(source)) != inverted
        if bright == bright_ink:
            has, remedy = ("has, inverted,", "Leave out") if inverted else ("has", "Try")
            advice = (
                f"and this model reads {reads}: the answer is unreliable. {remedy} --invert."
                if not learnt
                else f"and {learnt} is made for {reads}. If it was not trained on pictures such as "
                f"this one, the answer is unreliable: {remedy.lower()} --invert then."
            )
            print(
                f"keras-shared: {printable(file)} {has} a {'bright' if bright else 'dark'} ground, "
                f"{advice}",
                file=sys.stderr,
            )
