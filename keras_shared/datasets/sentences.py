import os
import pathlib
import warnings
from itertools import zip_longest
from typing import Any

import numpy as np

from keras_shared.datasets.csv_rows import csv_rows
from keras_shared.datasets.dataset import DataError, Dataset
from keras_shared.datasets.labelled_sentences import LabelledSentences
from keras_shared.datasets.splitting import SHARE, check_split
from keras_shared.datasets.text_file import read_text_file
from keras_shared.files.paths import as_path

COLUMNS = ("text", "label", "split")
SPLITS = ("train", "validation", "test")
SHOWN = 5  # rows that a message names
LINE = "\n"  # key of a row's last line in the file, which no column has


def from_sentences(path: str | os.PathLike[str], split: str, seed: int = 1) -> LabelledSentences:
    """Your own sentences with labels from a CSV file with the columns `text` and `label`.

    A column `split` may say train, validation or test. Without it, the seed draws a fifth of the
    sentences of each class to test, and a fifth of the rest to validate. Classes are in the order
    of their names.

    Args:
        path: the file, in UTF-8, with a header.
        split: `"train"` (with the sentences that validate) or `"test"`.
        seed: of the draw.

    Raises:
        DataError: for a file that is none, in another encoding or without a column; for rows
            without text or label, by their numbers; for a label that no sentence to train on has.

    Example:
        >>> import pathlib, tempfile
        >>> from keras_shared.datasets import from_sentences
        >>> file = pathlib.Path(tempfile.mkdtemp(), "mine.csv")
        >>> rows = [f"film {i},{'good' if i % 2 else 'bad'}" for i in range(20)]
        >>> _ = file.write_text("\\n".join(["text,label", *rows]))
        >>> train = from_sentences(file, "train")
        >>> len(train.sentences), len(train.held_out), train.class_names
        (16, 4, ('bad', 'good'))
    """
    name, split = str(as_path(path, "path")), check_split(split)
    text = read_text_file(path)
    (_, first_row), *others = csv_rows(text, f"{name} cannot be read as CSV") or [(1, list[str]())]
    named = [field.strip() for field in first_row]
    # in capitals too, where no other column is called so
    lower = [name.lower() for name in named]
    header = [
        small if small in COLUMNS and lower.count(small) == 1 else name
        for name, small in zip(named, lower, strict=True)
    ]
    rows: list[dict[Any, Any]] = [
        _as_dict(header, row) | {LINE: line} for line, row in others if row
    ]
    if missing := [column for column in ("text", "label") if column not in header]:
        first = ",".join(header)
        other = [sign for sign in (";", "\t", "|") if sign in first and len(header) == 1]
        raise DataError(
            f"{name} has no column {' and no column '.join(missing)}: expected a first line that "
            f"names the columns text and label. Received: {first!r}"
            + (f". Separate columns by commas, not by {other[0]!r}." if other else "")
        )
    _check_rows(name, rows, "split" in header)
    sentences = np.array([row["text"].strip() for row in rows], object)
    given = [row["label"].strip() for row in rows]
    parts = _named(name, rows) if "split" in header else _drawn(name, given, seed)
    names = tuple(sorted({given[i] for i in parts["train"]}))
    if unknown := sorted({*given} - {*names}):
        raise DataError(
            f"{name}: the label(s) {unknown[:SHOWN]} are unknown: no sentence that trains has one. "
            f"Those that train: {list(names[:20])}."
        )
    if len(names) < 2:
        raise DataError(f"{name} has {len(names)} label in training: expected at least two.")
    labels = np.array([names.index(label) for label in given])
    whole = LabelledSentences(sentences, labels, names)
    known = {sentences[i] for i in (*parts["train"], *parts["validation"])}
    both = [sentences[i] for i in parts["test"] if sentences[i] in known]
    if both and split == "train":
        warnings.warn(
            f"{name}: {len(both)} sentences train and test, which flatters the test, such as "
            f"{both[0][:60]!r}. Leave one of each, or name the splits in a column.",
            stacklevel=2,
        )
    if split == "test":
        return whole.part(np.sort(parts["test"]))
    training = np.sort(np.array([*parts["train"], *parts["validation"]], int))
    held_out = np.searchsorted(training, np.sort(parts["validation"]))
    return whole.part(training)._replace(held_out=held_out if len(held_out) else None)


def _as_dict(header: list[str], row: list[str]) -> dict[Any, Any]:
    """A row by the names of its columns: None where there is none, and what is beyond them."""
    more = {None: row[len(header) :]} if len(row) > len(header) else {}
    return dict(zip_longest(header, row[: len(header)])) | more


def sentences_dataset(path: str, image_shape: Any, seed: int) -> Dataset:
    """A CSV file of sentences as a data set that a recipe names."""
    return Dataset(
        f"own sentences, the file '{pathlib.Path(path).name}'", "", "", LabelledSentences,
        lambda split, data_dir: from_sentences(path, split, seed),
    )  # fmt: skip


def _check_rows(name: str, rows: list[dict[str, Any]], named: bool) -> None:
    wrong = []
    for row in rows:
        i = row[LINE]
        if None in row:
            wrong.append(f"line {i} has more columns than the header: quote a text with commas")
        elif not (row["text"] or "").strip():
            wrong.append(f"line {i} has no text")
        elif not (row["label"] or "").strip():
            wrong.append(f"line {i} has no label")
        elif named and (row["split"] or "").strip() not in SPLITS:
            wrong.append(f"line {i}: the split is {row['split']!r}, expected one of {list(SPLITS)}")
    if wrong or not rows:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        said = "; ".join(wrong[:SHOWN]) or "no rows"
        raise DataError(f"{name}: expected rows of text,label. Received: {said}{more}.")


def _named(name: str, rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    parts: dict[str, list[int]] = {part: [] for part in SPLITS}
    for i, row in enumerate(rows):
        parts[row["split"].strip()].append(i)
    for part in ("train", "test"):
        if not parts[part]:
            raise DataError(
                f"{name}: the column split names no row '{part}'. Name some, or leave the column "
                "out: a seed draws the splits then."
            )
    return parts


def _drawn(name: str, given: list[str], seed: int) -> dict[str, list[int]]:
    """The splits by a seed, each class in the same share."""
    parts: dict[str, list[int]] = {part: [] for part in SPLITS}
    order = np.random.default_rng(seed).permutation(len(given)).tolist()
    for label in sorted({*given}):
        own = [i for i in order if given[i] == label]
        if len(own) < 3:
            raise DataError(
                f"{name}: the label {label!r} has {len(own)} sentence(s): expected at least three, "
                "to train, validate and test. Add some, or take them out."
            )
        tested = max(1, round(SHARE * len(own)))
        validated = max(1, round(SHARE * (len(own) - tested)))
        parts["test"] += own[:tested]
        parts["validation"] += own[tested : tested + validated]
        parts["train"] += own[tested + validated :]
    return parts
