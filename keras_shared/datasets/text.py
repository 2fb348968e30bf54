import os
import pathlib
from typing import Any

from keras_shared.datasets.dataset import DataError, Dataset
from keras_shared.datasets.splitting import check_split
from keras_shared.datasets.text_file import read_text_file
from keras_shared.datasets.text_stream import TextStream

PARTS = (0.8, 0.9)  # of the characters: until there they train, then validate, and the rest tests


def from_text(path: str | os.PathLike[str], split: str) -> TextStream:
    """Your own text from a .txt file: the first 80 % train, the next 10 % validate, the rest tests.

    Parts are cut at the next end of a line, or at a space where a part has no line.

    Args:
        path: the file, in UTF-8.
        split: `"train"` (with the text that validates) or `"test"`.

    Raises:
        DataError: for a file that is none, empty, in another encoding, or too short to be parted.

    Example:
        >>> import pathlib, tempfile
        >>> from keras_shared.datasets import from_text
        >>> file = pathlib.Path(tempfile.mkdtemp(), "mine.txt")
        >>> _ = file.write_text("".join(f"line {i}\\n" for i in range(10)))
        >>> from_text(file, "test").text
        'line 9\\n'
    """
    split, text = check_split(split), read_text_file(path)
    first, second = (_cut(text, round(part * len(text))) for part in PARTS)
    parts = text[:first], text[first:second], text[second:]
    if not all(part.strip() for part in parts):
        raise DataError(
            f"{os.fspath(path)} has {len(text)} characters, too few to train, validate and test "
            "on parts of it. Name a longer text."
        )
    return TextStream(parts[0], parts[1]) if split == "train" else TextStream(parts[2])


def text_dataset(path: str, image_shape: Any, seed: int) -> Dataset:
    """A .txt file as a data set that a recipe names."""
    return Dataset(
        f"own text, the file '{pathlib.Path(path).name}'", "", "", TextStream,
        lambda split, data_dir: from_text(path, split),
    )  # fmt: skip


def _cut(text: str, place: int) -> int:
    """Where a part that begins near `place` begins."""
    for end in ("\n", " "):
        found = text.find(end, max(0, place - 1))
        if 0 <= found < place + len(text) // 20:
            return found + 1
    return place
