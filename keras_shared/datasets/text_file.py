import os

from keras_shared.datasets.dataset import DataError
from keras_shared.files.bounded import read_bytes
from keras_shared.files.limits import MOST_CORPUS
from keras_shared.text import NOT_UTF8

MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))  # with which such a file begins


def read_text_file(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8, each line ended by `\\n`.

    Raises:
        DataError: for a file that is missing, empty or larger than 200 MB, or in another encoding:
            with the byte that is not UTF-8, and its place.

    Example:
        >>> import pathlib, tempfile
        >>> from keras_shared.datasets.text_file import read_text_file
        >>> file = pathlib.Path(tempfile.mkdtemp(), "mine.txt")
        >>> _ = file.write_bytes("café".encode("latin-1"))
        >>> read_text_file(file)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        keras_shared.datasets.dataset.DataError: mine.txt is no text in UTF-8: byte 0xE9 at place 3.
    """
    content, name = read_bytes(path, MOST_CORPUS, DataError), os.fspath(path)
    for mark, encoding in MARKS:
        if content.startswith(mark):
            raise DataError(
                f"{name} is no text in UTF-8: it begins with the bytes 0x{mark.hex().upper()}, as "
                f"{encoding} does. {_convert(encoding)}"
            )
    if (place := content.find(b"\0")) >= 0:
        raise DataError(
            f"{name} is no text in UTF-8: byte 0x00 at place {place}{_line(content, place)}. It is "
            "binary, or in UTF-16 without a mark. Name a file of text. If it is one: "
            f"{_convert('UTF-16LE')}"
        )
    text = content.decode("utf-8", "surrogateescape")
    if wrong := NOT_UTF8.search(text):
        place = len(text[: wrong.start()].encode())
        raise DataError(
            f"{name} is no text in UTF-8: byte 0x{content[place]:02X} at place {place}"
            f"{_line(content, place)}. Texts of Western Europe are often in Latin-1. "
            f"{_convert('LATIN1')}"
        )
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{name} is empty, and a text is expected.")
    return text.replace("\r\n", "\n")


def _line(content: bytes, place: int) -> str:
    return f" (line {content.count(10, 0, place) + 1}, counted from 1)"


def _convert(encoding: str) -> str:
    return f"Convert it: iconv -f {encoding} -t UTF-8 OLD > NEW"
