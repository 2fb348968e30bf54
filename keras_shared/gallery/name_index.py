"""An index of names by their embeddings, for more of them than a comparison with each allows."""

from typing import Any

import numpy as np

from keras_shared.errors import advised
from keras_shared.lookup import needed

NUMBERS = "f16"  # of which the index keeps a copy; what is found is compared in float32
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 64, 128  # see benchmarks/gallery.py
SMALL = 1000  # embeddings that are all looked at: in a small graph, removed ones can cut others off
SPARE = 10  # embeddings that are asked for besides those wanted: many may be of one name


class NameIndex:
    """The names whose embeddings are probably nearest: a graph in which each knows its neighbours.

    A search walks from neighbour to neighbour towards the query (HNSW, by USearch) and looks at a
    small part of all embeddings. What it misses, it misses silently: benchmarks/gallery.py measures
    how often.

    Args:
        features: numbers in an embedding.

    Raises:
        NotInstalledError: if USearch is not installed.

    Example:
        >>> import numpy as np
        >>> from keras_shared.gallery.name_index import NameIndex
        >>> index = NameIndex(features=3)
        >>> index.add(["anna", "ben", "anna"], np.eye(3, dtype="float32"))
        >>> index.search(np.array([[0, 0.6, 0.8]], "float32"), k=2)
        [('anna', 'ben')]

    Reference:
        Malkov & Yashunin 2018, "Efficient and Robust Approximate Nearest Neighbor Search Using
        Hierarchical Navigable Small World Graphs".
    """

    def __init__(self, features: int) -> None:
        with advised("An approximate search needs it."):
            usearch = needed("index", "usearch.index")
        self._index: Any = usearch.Index(
            ndim=features, metric="ip", dtype=NUMBERS, multi=True, connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD, expansion_search=EXPANSION_SEARCH,
        )  # fmt: skip
        self._keys: dict[str, int] = {}
        self._names: list[str] = []  # by key; those of removed names stay and lead nowhere

    def __len__(self) -> int:
        return len(self._index)

    def add(self, names: Any, embeddings: np.ndarray) -> None:
        """Add an embedding for each name; a name may come several times, and be there already.

        Args:
            names: one for each embedding.
            embeddings: float32 (embeddings, features), of length 1.
        """
        for name in dict.fromkeys(names):
            if name not in self._keys:
                self._keys[name] = len(self._names)
                self._names.append(name)
        keys = np.array([self._keys[name] for name in names], "uint64")
        self._index.add(keys, np.ascontiguousarray(embeddings))

    def remove(self, name: str) -> None:
        """Forget a name with all its embeddings."""
        self._index.remove(self._keys.pop(name))

    def search(self, embeddings: np.ndarray, k: int) -> list[tuple[str, ...]]:
        """For each query, names that are probably among the nearest: at least `k` if there are.

        Args:
            embeddings: float32 (queries, features), of length 1.
            k: so many names are wanted.
        """
        wanted = min(k, len(self._keys))
        count = min(wanted + SPARE, len(self))
        while True:
            exact = len(self) <= SMALL
            found = [self._index.search(row, count, exact=exact).keys for row in embeddings]
            rows = [
                tuple(dict.fromkeys(self._names[key] for key in keys.tolist())) for keys in found
            ]
            if min(map(len, rows)) >= wanted or count == len(self):
                return rows
            count = min(4 * count, len(self))  # most of these were of few names
