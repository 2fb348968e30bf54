"""Known things under their names: enrolled once, then found among as many as there are."""

import hashlib
import json
import numbers
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np

from keras_shared.errors import KerasSharedError, advised, boundary
from keras_shared.files.atomic import replacing
from keras_shared.files.npy import read_npz
from keras_shared.files.paths import as_path
from keras_shared.gallery.name_index import NameIndex
from keras_shared.lookup import suggestion
from keras_shared.zoo.calibration import line

UNKNOWN = "unknown"
MOST_COSINES = 100_000_000  # that are in memory at once

_Found: TypeAlias = tuple[Sequence[str], np.ndarray]


class GalleryError(KerasSharedError, ValueError):
    """A gallery cannot be used as asked: the message says what it holds, and what to do."""


class Match(NamedTuple):
    """One enrolled name, and the probability that the image shows the same."""

    name: str
    probability: float


class Identity(NamedTuple):
    """Who an image shows.

    Attributes:
        name: the best match's, or "unknown" if its probability is below the threshold.
        matches: the best names, best first, whether above the threshold or not.
    """

    name: str
    matches: tuple[Match, ...]


class Gallery:
    """Names with the embeddings of their images: who is this, and is this really Anna?

    A `SiameseNet` compares two images; its tower embeds each of them by the same weights. A gallery
    embeds an image once, when it is enrolled: `p = sigmoid(w |e - g| + v)` for the embedding `e` of
    a new image and each enrolled `g`, by one matrix product for all of them. For very many, an
    index finds the best with a part of the work: see `identify`.

    Args:
        model: a `SiameseNet`, or any model with `embed`, which gives unit vectors, and
            `probability`, the layer that makes probabilities of distances.
        threshold: probability from which on two images show the same; see
            `SiameseNet.threshold` for one that keeps false accepts rare.

    Raises:
        GalleryError: for a threshold that is no probability, or another model.

    Example:
        >>> import numpy as np
        >>> from keras_shared import Gallery
        >>> from keras_shared.zoo import SiameseNet
        >>> gallery = Gallery(SiameseNet())
        >>> images = np.random.default_rng(1).integers(0, 256, (3, 28, 28, 1))
        >>> gallery.enrol("anna", images[:2])
        >>> gallery.enrol("ben", images[2:])
        >>> gallery.names, len(gallery)
        (('anna', 'ben'), 3)
        >>> [identity] = gallery.identify(images[1:2])
        >>> identity.name, len(identity.matches)
        ('anna', 1)

    Reference:
        Koch, Zemel, Salakhutdinov 2015, "Siamese Neural Networks for One-shot Image Recognition",
        section 4.3: one image of each class is known, and the query goes to the most probable.
    """

    def __init__(self, model: Any, threshold: float = 0.5) -> None:
        if not (hasattr(model, "embed") and hasattr(model, "probability")):
            raise GalleryError(
                "A gallery needs a model that embeds images, such as a SiameseNet. Received: "
                f"{type(model).__name__}"
            )
        self.model = model
        self.threshold = threshold
        self._of_names: dict[str, np.ndarray] = {}  # (images, features) each
        self._joined: tuple[np.ndarray, np.ndarray, tuple[str, ...]] | None = None
        self._index: NameIndex | None = None
        self._made_by: str | None = None  # fingerprint of the model when it embedded these

    @property
    def threshold(self) -> float:
        """Probability of "same" from which a name is given."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
            raise GalleryError(f"`threshold` is a probability, 0 to 1. Received: {value!r}")
        self._threshold: float = float(value)

    # === What is enrolled ===

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order in which they were enrolled."""
        return tuple(self._of_names)

    def __len__(self) -> int:
        """Number of embeddings, of all names together."""
        return sum(map(len, self._of_names.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._of_names

    def enrol(self, name: str, images: Any, keep: Literal["all", "mean"] = "all") -> None:
        """Add images of one name; of a name that is enrolled, to those it has.

        Args:
            name: any text but "unknown".
            images: (images, height, width, channels), 0 to 255.
            keep: "all" compares with each image, and the best counts; "mean" keeps the middle of
                these images' embeddings alone, which takes less memory and steadies noisy images.

        Raises:
            GalleryError: for a name or `keep` that is none.
            ValueError: for arrays that are no images.
        """
        if not isinstance(name, str) or not name.strip() or name == UNKNOWN:
            raise GalleryError(
                f"`name` must be a text that is neither empty nor '{UNKNOWN}'. Received: {name!r}"
            )
        if keep not in ("all", "mean"):
            raise GalleryError(f"`keep` must be 'all' or 'mean'. Received: {keep!r}")
        self._see_same_model()
        self._add(name, _embedded(self.model, images), keep)

    def remove(self, name: str) -> None:
        """Forget a name with all its images.

        Raises:
            GalleryError: if it is not enrolled.
        """
        self._see_enrolled(name)
        del self._of_names[name]
        self._joined = None
        if self._index is not None:
            self._index.remove(name)

    def merge(self, other: "Gallery") -> None:
        """Add all that another gallery of the same model holds.

        Raises:
            GalleryError: if its embeddings are another model's, or it is this one.
        """
        if other is self or not isinstance(other, Gallery):
            what = "this gallery itself" if other is self else type(other).__name__
            raise GalleryError(
                f"`merge` takes another Gallery. Received: {what}. Of a file, load it first: "
                "Gallery.load(path, model)"
            )
        if fingerprint(other.model) != fingerprint(self.model):
            raise GalleryError(
                "The other gallery holds embeddings of another model, which compare with nothing "
                "here. Enrol its images again."
            )
        self._see_same_model()
        other._see_same_model()
        for name, embeddings in other._of_names.items():
            self._add(name, embeddings)

    # === Questions ===

    def verify(self, images: Any, name: str) -> np.ndarray:
        """The probability that each image shows what is enrolled under a name.

        Args:
            images: (images, height, width, channels), 0 to 255.
            name: an enrolled name; of its images the most alike counts.

        Returns:
            float32 array (images,); compare it with `threshold`.

        Raises:
            GalleryError: if the name is not enrolled.
            ValueError: for arrays that are no images.
        """
        self._see_enrolled(name)
        self._see_same_model()
        cosines = _embedded(self.model, images) @ self._of_names[name].T
        return self._probability(cosines.max(axis=1))

    def identify(self, images: Any, k: int = 1, approximate: bool = False) -> list[Identity]:
        """Who each image shows.

        Args:
            images: (images, height, width, channels), 0 to 255.
            k: so many of the best names with their probabilities.
            approximate: whether an index looks for them in a small part of the gallery, for a
                hundred thousand names and more. It may miss one of the best, as
                benchmarks/gallery.py measures; those it finds have the same probabilities.
                `build_index` makes it, or the first such call.

        Returns:
            For each image, an `Identity`.

        Raises:
            GalleryError: if nothing is enrolled, or `k` is no number from 1.
            ValueError: for arrays that are no images.
            ImportError: if an approximate search is asked for and USearch is not installed.
        """
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise GalleryError(f"`k` must be a number from 1. Received: {k!r}")
        if not self._of_names:
            raise GalleryError("Nothing is enrolled: call enrol(name, images) first.")
        self._see_same_model()
        if approximate:
            self.build_index()
        embeddings = _embedded(self.model, images)
        nearest = self._probably_nearest if approximate else self._nearest
        identities = []
        for names, cosines in nearest(embeddings, k):
            order = np.argsort(-cosines, kind="stable")[:k]
            probabilities = self._probability(cosines[order])
            matches = tuple(
                Match(names[i], float(p)) for i, p in zip(order, probabilities, strict=True)
            )
            known = matches[0].probability >= self.threshold
            identities.append(Identity(matches[0].name if known else UNKNOWN, matches))
        return identities

    def build_index(self) -> None:
        """Make the index of an approximate search now; without it, the first one does.

        It stays in memory, follows what is enrolled and removed, and is not saved. Building takes
        minutes for a million, on all cores.

        Raises:
            GalleryError: if nothing is enrolled.
            ImportError: if USearch is not installed: `pip install "keras_shared[index]"`.
        """
        if not self._of_names:
            raise GalleryError("Nothing is enrolled: call enrol(name, images) first.")
        if self._index is None:
            rows = self._rows()[0]
            index = NameIndex(rows.shape[1])
            index.add([name for name, own in self._of_names.items() for _ in own], rows)
            self._index = index

    # === One file ===

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the gallery, but for the model, to one file (`.npz`), beside its place and renamed.

        Whoever reads it meanwhile gets the former one, whole.

        Raises:
            FileError: if its folder is missing or full; the former file stays.
        """
        head = {
            "names": list(self._of_names),
            "images": [len(rows) for rows in self._of_names.values()],
            "threshold": float(self.threshold),
            "model": (self._of_names and self._made_by) or fingerprint(self.model),
        }
        rows = self._rows()[0]
        with replacing(path) as scratch, scratch.open("wb") as file:
            text = np.frombuffer(json.dumps(head).encode(), "uint8")
            np.savez(file, head=text, embeddings=rows)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Any) -> Self:
        """The gallery that a file holds, for the model whose embeddings they are.

        Args:
            path: from `save`.
            model: as of `Gallery`.

        Raises:
            GalleryError: if there is no such file, it is damaged, or of another model.

        Example:
            >>> import pathlib
            >>> import tempfile
            >>> import numpy as np
            >>> from keras_shared import Gallery
            >>> from keras_shared.zoo import SiameseNet
            >>> gallery = Gallery(SiameseNet(), threshold=0.9)
            >>> gallery.enrol("anna", np.random.default_rng(1).integers(0, 256, (2, 28, 28, 1)))
            >>> file = pathlib.Path(tempfile.mkdtemp(), "people.npz")
            >>> gallery.save(file)
            >>> again = Gallery.load(file, gallery.model)
            >>> again.names, again.threshold
            (('anna',), 0.9)
        """
        head, rows = _read(path)
        gallery = cls(model, head["threshold"])
        if head["model"] != fingerprint(model):
            raise GalleryError(
                f"{os.fspath(path)} holds embeddings of another model, which compare "
                f"with nothing that this {type(model).__name__} embeds. Load the model that it was "
                "made with, or enrol the images again."
            )
        starts = np.cumsum([0, *head["images"]])
        gallery._made_by = head["model"]
        gallery._of_names = {
            name: rows[first:last]
            for name, first, last in zip(head["names"], starts, starts[1:], strict=False)
        }
        return gallery

    # === Inside ===

    def _add(self, name: str, rows: np.ndarray, keep: str = "all") -> None:
        if keep == "mean":
            rows = _unit(rows.mean(axis=0, keepdims=True), "The mean of these images comes out")
        old = self._of_names.get(name)
        self._of_names[name] = rows if old is None else np.concatenate([old, rows])
        self._joined = None
        if self._index is not None:
            self._index.add([name] * len(rows), rows)

    def _see_same_model(self) -> None:
        """Refuse a model that was trained since it embedded what is enrolled."""
        now = fingerprint(self.model)
        if self._of_names and self._made_by not in (None, now):
            raise GalleryError(
                f"The weights of this {type(self.model).__name__} changed since images were "
                "enrolled: the embeddings compare with nothing that it embeds now. Make a new "
                "Gallery, and enrol the images again."
            )
        self._made_by = now

    def _see_enrolled(self, name: str) -> None:
        if name not in self._of_names:
            raise GalleryError(
                f"Nothing is enrolled under {name!r}. {suggestion(str(name), self._of_names)}"
            )

    def _rows(self) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """All embeddings (entries, features), where each name's begin, and the names."""
        if self._joined is None:
            parts = list(self._of_names.values())
            lengths = [len(part) for part in parts]
            rows = np.concatenate(parts) if parts else np.zeros((0, 0), "float32")
            self._joined = rows, np.cumsum([0, *lengths[:-1]]), self.names
            of_names = np.split(rows, self._joined[1][1:]) if parts else []
            self._of_names = dict(zip(self._of_names, of_names, strict=True))  # views, once
        return self._joined

    def _nearest(self, embeddings: np.ndarray, k: int) -> Iterator[_Found]:
        """For each query the `k` names whose best cosine is largest, with these cosines."""
        rows, starts, names = self._rows()
        blocks = 1 + len(embeddings) * len(rows) // MOST_COSINES
        for block in np.array_split(embeddings, blocks):
            cosines = block @ rows.T
            if len(starts) < len(rows):
                cosines = np.maximum.reduceat(cosines, starts, axis=1)
            for of_names in cosines:
                best = np.argpartition(of_names, -min(k, len(names)))[-k:]
                best.sort()
                yield [names[i] for i in best], of_names[best]

    def _probably_nearest(self, embeddings: np.ndarray, k: int) -> Iterator[_Found]:
        """The same from the index, which may miss some; the cosines are exact."""
        assert self._index is not None
        for query, names in zip(embeddings, self._index.search(embeddings, k), strict=True):
            if len(names) < min(k, len(self._of_names)):  # the graph did not lead to enough
                yield from self._nearest(query[None], k)
            else:
                yield names, np.array([(self._of_names[n] @ query).max() for n in names])

    def _probability(self, cosines: np.ndarray) -> np.ndarray:
        weight, bias = line(self.model.probability)
        apart = np.sqrt(np.maximum(2 - 2 * cosines, 0.0))  # |e - g| of unit vectors
        probability: np.ndarray = 1 / (1 + np.exp(-(weight * apart + bias)))
        return probability.astype("float32")


def fingerprint(model: Any) -> str:
    """Stands for what embeds: the weights of the tower, and how pixels come to it.

    The calibration is left out: it changes probabilities, and no embedding.
    """
    ways = [getattr(model, key, None) for key in ("pixel_range", "centered")]
    digest = hashlib.sha256(repr(ways).encode())
    for weight in model.embedder.get_weights():
        digest.update(f"{weight.shape} {weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _embedded(model: Any, images: Any) -> np.ndarray:
    return _unit(np.asarray(model.embed(images), "float32"), "The model embeds an image")


def _unit(rows: np.ndarray, what: str) -> np.ndarray:
    """Rows of length 1, also where a tower computes in half precision."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 1e-3)).all():
        raise GalleryError(
            f"{what} as zeros or NaN, which is like nothing. Look at the images and the weights."
        )
    unit: np.ndarray = rows / lengths
    return unit


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], np.ndarray]:
    """Head and embeddings of a file, checked against each other."""
    name, advice = str(as_path(path, "path")), "Take it from a backup, or enrol the images again."
    with advised(advice):
        arrays = read_npz(path, GalleryError)
    with boundary(f"{name} is no gallery, or is damaged", GalleryError, advice):
        head, rows = json.loads(arrays["head"].tobytes()), arrays["embeddings"]
        names, images, threshold = head["names"], head["images"], head["threshold"]
        if not (
            all(isinstance(name, str) and name.strip() and name != UNKNOWN for name in names)
            and all(isinstance(count, int) and count > 0 for count in images)
            and len(set(names)) == len(names) == len(images)
            and isinstance(head["model"], str)
            and 0 <= threshold <= 1
        ):
            raise ValueError("its list of names is not as `save` writes it")
        if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != sum(images):
            raise ValueError(f"{sum(images)} embeddings are named, and it holds {rows.shape}")
        if not np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3):
            raise ValueError("its embeddings are no unit vectors")
    return head, rows
