"""Rows of a CSV file, each with the line in which it ends."""

import csv
import io
import re

from keras_shared.datasets.dataset import DataError
from keras_shared.errors import attempt

BEHIND_A_QUOTE = re.compile(r'"[ \t]+(?=,|\r|\n|$)')
ADVICE = (
    'What begins with " ends with one, before a comma or the end of the line; within it each " '
    'stands twice. What begins otherwise may hold ", and no comma.'
)


def csv_rows(text: str, where: str) -> list[tuple[int, list[str]]]:
    """The rows, blank ones as empty lists; a quote that no other ends would take many into one.

    Args:
        text: what the file holds.
        where: the beginning of a message.

    Raises:
        DataError: naming the line in which the first row begins that cannot be read.

    Example:
        >>> from keras_shared.datasets.csv_rows import csv_rows
        >>> csv_rows('a,"b, c"', "mine.csv")
        [(1, ['a', 'b, c'])]
    """
    rows, error = _read(text)
    if error and BEHIND_A_QUOTE.search(text):  # spaces, which the csv module takes for text
        rows, error = _read(BEHIND_A_QUOTE.sub('"', text))
    if error:
        begins = rows[-1][0] + 1 if rows else 1
        raise DataError(f"{where}: the row from line {begins} on: {error}. {ADVICE}")
    return rows


def _read(text: str) -> tuple[list[tuple[int, list[str]]], csv.Error | None]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    rows: list[tuple[int, list[str]]] = []
    return rows, attempt(lambda: rows.extend((reader.line_num, r) for r in reader), csv.Error)[1]
