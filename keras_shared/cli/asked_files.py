"""Files that a command asks a model about: single ones, and those in folders."""

import pathlib
import sys


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
        try:
            if not (vectors and file.suffix.lower() == ".npy"):
                read_picture(file)
            inside.append(str(file))
        except PictureError as error:
            print(f"keras-shared: skipped. {error}", file=sys.stderr)
    if not inside:
        raise PictureError(f"{given} holds no pictures: expected files {sorted(suffixes())}.")
    return inside
