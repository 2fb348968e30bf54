from collections.abc import Callable
from typing import Any, NamedTuple

from keras_shared.errors import KerasSharedError


class DataError(KerasSharedError, RuntimeError):
    """A data set cannot be had, or not as the recipe wants it; the message says what to do."""


class Dataset(NamedTuple):
    """One data set: how it is loaded, and what must be said of it.

    Attributes:
        title: its name in sentences.
        source: who made it; empty for the user's own.
        licence: its licence; empty where it is not known.
        kind: type of one split, such as `LabelledImages`; a task says which type it takes.
        load: takes the split ("train" or "test") and the folder of prepared data sets (or None),
            gives an object of type `kind`, or raises a DataError.

    Example:
        >>> from keras_shared.datasets import DATASETS
        >>> DATASETS["digits"].credit
        "scikit-learn's handwritten digits (Alpaydin & Kaynak 1998, CC BY 4.0)"
    """

    title: str
    source: str
    licence: str
    kind: type
    load: Callable[[str, str | None], Any]

    @property
    def credit(self) -> str:
        """Title, source and licence, for a card."""
        known = ", ".join(part for part in (self.source, self.licence) if part)
        return f"{self.title} ({known})" if known else self.title
