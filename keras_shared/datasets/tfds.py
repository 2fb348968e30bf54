import numpy as np

from keras_shared.datasets.checks import checked_split
from keras_shared.datasets.dataset import DataError, Dataset
from keras_shared.datasets.labelled_images import LabelledImages
from keras_shared.datasets.lazy_images import Shape
from keras_shared.datasets.splitting import check_split
from keras_shared.datasets.tfds_split import load_tfds


def tfds_dataset(path: str, image_shape: Shape, seed: int) -> Dataset:
    """Any image classification set of TFDS with splits `train` and `test`, by its name there."""
    return Dataset(
        path, "TensorFlow Datasets", "", LabelledImages,
        lambda split, data_dir: _load(path, split, data_dir, image_shape),
    )  # fmt: skip


def _load(name: str, split: str, data_dir: str | None, shape: Shape) -> LabelledImages:
    arrays, info = load_tfds(name, check_split(split), data_dir)
    if not {"image", "label"} <= set(arrays) or arrays["image"].ndim != 4:
        raise DataError(
            f"'{name}' of TFDS has the features {sorted(arrays)}: expected an 'image' of one size "
            "and a 'label'. Write images of several sizes into a folder, and use name = 'folder'."
        )
    feature = info.features["label"]
    names = tuple(getattr(feature, "names", None) or map(str, range(feature.num_classes)))
    labels = arrays["label"].astype(int)
    images = LabelledImages(arrays["image"], labels, np.arange(len(names)), names, names)
    checked: LabelledImages = checked_split(images, f"'{name}' of TFDS", shape)
    return checked.fitted(shape)
