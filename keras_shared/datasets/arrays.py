import hashlib
import pathlib
import warnings

import numpy as np

from keras_shared.datasets.checks import checked_labels, checked_pixels
from keras_shared.datasets.dataset import DataError, Dataset
from keras_shared.datasets.labelled_images import LabelledImages
from keras_shared.datasets.lazy_images import Shape
from keras_shared.datasets.splitting import check_classes, check_split, split_by_seed
from keras_shared.errors import boundary
from keras_shared.files.npy import read_npz
from keras_shared.files.paths import as_path

KEYS = ("x_train", "y_train", "x_test", "y_test")
VALIDATION = ("x_val", "y_val")


def from_arrays(
    path: str | pathlib.Path, split: str, image_shape: Shape, seed: int = 1
) -> LabelledImages:
    """Your own images from a .npz file of arrays.

    It holds `x_train`, `y_train`, `x_test`, `y_test` as Keras' own data sets do, and perhaps
    `x_val` and `y_val`, which validate; or `x` and `y`, of which the seed draws the splits as
    `from_folder` does; and perhaps `class_names`.

    Args:
        path: the file.
        split: `"train"` or `"test"`.
        image_shape: height, width and channels to which images are brought.
        seed: of the draw.

    Raises:
        DataError: for a file that is none, other keys, or arrays that are no images and labels.

    Warns:
        UserWarning: for arrays of other names, which are not read.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from keras_shared.datasets import from_arrays
        >>> file = tempfile.mkdtemp() + "/mine.npz"
        >>> x = np.random.default_rng(0).integers(0, 256, (20, 8, 8), "uint8")
        >>> np.savez(file, x=x, y=np.arange(20) % 2)
        >>> from_arrays(file, "test", (8, 8, 1)).images.shape
        (4, 8, 8, 1)
    """
    where, split = str(as_path(path, "path")), check_split(split)
    with boundary(f"{where} holds no images with labels", DataError):
        return _from_arrays(path, split, image_shape, seed, where)


def _from_arrays(
    path: str | pathlib.Path, split: str, image_shape: Shape, seed: int, where: str
) -> LabelledImages:
    arrays = read_npz(path, DataError)
    own = set(KEYS) <= set(arrays)
    read = [*KEYS, *(VALIDATION if set(VALIDATION) <= set(arrays) else ())] if own else ["x", "y"]
    if (others := sorted(set(arrays) - {*read, "class_names"})) and set(read) <= set(arrays):
        warnings.warn(
            f"{where}: {others} are not read: expected x and y, or {', '.join(KEYS)} and perhaps "
            f"{' and '.join(VALIDATION)} (and perhaps class_names). Read: {read}",
            stacklevel=2,
        )
        arrays = {name: array for name, array in arrays.items() if name not in others}
    if own:
        names = [name.removeprefix("x_") for name in read if name.startswith("x_")]
        parts = {
            name: _images(where, arrays[f"x_{name}"], arrays[f"y_{name}"], arrays, image_shape)
            for name in names
        }
        check_classes(parts["train"], where, least=1)
        train = parts["train"]
        if "val" in parts:
            train = _with_validation(where, train, parts["val"])
        if split == "train":
            _warn_of_copies(where, train, parts["test"])
            if "val" in parts:
                _warn_of_copies(where, parts["train"], parts["val"], "validation")
        return train if split == "train" else parts["test"]
    if not {"x", "y"} <= set(arrays):
        raise DataError(
            f"{where} holds {sorted(arrays)}: expected x and y, or {', '.join(KEYS)} (and perhaps "
            "class_names)."
        )
    images = _images(where, arrays["x"], arrays["y"], arrays, image_shape)
    train, test = split_by_seed(images, seed, where)
    if split == "train":
        _warn_of_copies(where, train, test)
    return train if split == "train" else test


def _with_validation(
    where: str, train: LabelledImages, validates: LabelledImages
) -> LabelledImages:
    shape = train.images.shape[1:]  # that of the model, as of `validates`
    count, more = len(train.labels), len(validates.labels)
    # as they were before they are resized
    whole = [np.asarray(getattr(p.images, "sources", p.images)) for p in (train, validates)]
    if whole[0].shape[1:] != whole[1].shape[1:]:
        raise DataError(
            f"{where}: x_train has images {whole[0].shape[1:]}, and x_val {whole[1].shape[1:]}. "
            "Expected images of one size."
        )
    joined = train._replace(
        images=np.concatenate(whole), labels=np.concatenate([train.labels, validates.labels])
    )
    return joined.fitted(shape)._replace(held_out=np.arange(count, count + more))


def _warn_of_copies(
    where: str, train: LabelledImages, test: LabelledImages, kind: str = "test"
) -> None:
    known, own = (
        [hashlib.sha256(np.asarray(image).tobytes()).digest() for image in images]
        # as they were before they are resized
        for images in (np.asarray(getattr(p.images, "sources", p.images)) for p in (train, test))
    )
    seen = {*known}
    both = [i for i, digest in enumerate(own) if digest in seen]
    if both:
        warnings.warn(
            f"{where}: {len(both)} {kind} images are among those that train too, and the {kind} "
            f"says nothing of them: {both[:5]}",
            stacklevel=2,
        )


def arrays_dataset(path: str, image_shape: Shape, seed: int) -> Dataset:
    """A .npz file as a data set that a recipe names."""
    return Dataset(
        f"own images, the file '{pathlib.Path(path).name}'", "", "", LabelledImages,
        lambda split, data_dir: from_arrays(path, split, image_shape, seed),
    )  # fmt: skip


def _images(
    where: str, x: np.ndarray, y: np.ndarray, arrays: dict[str, np.ndarray], shape: Shape
) -> LabelledImages:
    x = checked_pixels(x, where, "x", shape)
    y = checked_labels(y, where, "y", len(x))
    labels = [v for k, v in arrays.items() if k.startswith("y")]
    known = int(max(v.max(initial=0) for v in labels)) + 1
    if known > sum(v.size for v in labels):
        raise DataError(f"{where}: labels go up to {known - 1:,}, and there are fewer images.")
    given = np.asarray(arrays.get("class_names", range(known)))
    given = np.char.decode(given, "utf-8") if given.dtype.kind == "S" else given
    names = tuple(map(str, given))
    if len({*names}) < len(names) or not all(names):
        raise DataError(f"{where}: expected a class_name of its own for each. Received: {names}")
    if len(names) < known:
        raise DataError(f"{where}: {len(names)} class_names for labels up to {known - 1}.")
    return LabelledImages(x, y, np.arange(len(names)), names, names).fitted(shape)
