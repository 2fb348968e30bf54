"""Reconstruction: an image squeezed into a few numbers, and back."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from keras_shared.batching import ImageData, TrainingData
from keras_shared.batching.images import image_test_batches, image_training_data
from keras_shared.datasets import LabelledImages
from keras_shared.tasks.task import Metric, Monitor, Shown, Task, Tested

SHOWN = 12  # vectors that are drawn
MAPPED = 2000  # codes on the map


def reconstruction_metrics(outputs: np.ndarray, vectors: np.ndarray) -> dict[str, Any]:
    """How far reconstructions are from their originals.

    Args:
        outputs: (vectors, width), the reconstructions.
        vectors: (vectors, width), the originals, in [0, 1].

    Returns:
        The squared error of a vector, summed over its components and averaged over the vectors.

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.reconstruction import reconstruction_metrics
        >>> metrics = reconstruction_metrics(np.full((5, 4), 0.5), np.zeros((5, 4)))
        >>> metrics["squared_error_per_image"]
        1.0
    """
    error = np.sum(np.square(outputs.astype("float64") - vectors), axis=-1)
    return {"images": len(vectors), "squared_error_per_image": round(float(error.mean()), 4)}


def pca_error(train: np.ndarray, test: np.ndarray, components: int) -> float:
    """The squared error per vector of `test` through principal components of `train`.

    Args:
        train: (vectors, width).
        test: (vectors, width).
        components: how many numbers a vector is squeezed into.

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.reconstruction import pca_error
        >>> line = np.outer(np.arange(5), [1.0, 2.0])
        >>> pca_error(line, line, components=1)
        0.0
    """
    components = min(components, *train.shape)
    pca = PCA(components, svd_solver="covariance_eigh").fit(train)
    again = pca.inverse_transform(pca.transform(test))
    error: float = reconstruction_metrics(again, test)["squared_error_per_image"]
    return error


def plot_code(codes: np.ndarray, labels: np.ndarray) -> dict[str, Figure]:
    """The code of each test vector as a point of a map (t-SNE: van der Maaten & Hinton 2008)."""
    if len(codes) < 100:
        return {}
    points = TSNE(init="pca", random_state=0).fit_transform(codes)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    for label in np.unique(labels):
        x, y = points[labels == label].T
        axes.scatter(x, y, s=6, color=f"C{label % 10}", label=str(label))
    axes.set(
        xlabel="t-SNE, first axis", ylabel="t-SNE, second axis",
        title=f"Codes of {len(codes):,} test images, {codes.shape[1]} numbers each",
    )  # fmt: skip
    axes.legend(title="class", markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    return {"code": figure}


def plot_reconstruction(outputs: np.ndarray, vectors: np.ndarray) -> dict[str, Figure]:
    """Originals above their reconstructions, for widths that make a square image."""
    side = int(np.sqrt(vectors.shape[1]))
    if side * side != vectors.shape[1]:
        return {}
    figure = Figure(figsize=(SHOWN * 0.9, 2.4), layout="constrained")
    error = np.sum(np.square(outputs - vectors), axis=-1)
    figure.suptitle("Test images, and below them their reconstructions with squared error")
    for i, (above, below) in enumerate(figure.subplots(2, SHOWN).T[: len(vectors)]):
        for axes, image in ((above, vectors[i]), (below, outputs[i])):
            axes.imshow(image.reshape(side, side), cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        below.set_xlabel(f"{error[i]:.2f}")
    return {"reconstructions": figure}


def _vectors_twice(images: Any, labels: Any) -> tuple[Any, Any]:
    """Vectors in [0, 1], as inputs and as targets."""
    shape = (tf.shape(images)[0], math.prod(images.shape[1:]))
    vectors = tf.reshape(tf.cast(images, tf.float32) / 255, shape)
    return vectors, vectors


def _training_data(
    split: LabelledImages, data: ImageData, batch_size: int, seed: int
) -> TrainingData:
    return image_training_data(split, data, batch_size, seed, _vectors_twice)


def _test_batches(split: LabelledImages, data: ImageData, seed: int) -> tf.data.Dataset:
    return image_test_batches(split, data, seed, _vectors_twice)


def _baselines(
    model: keras.Model, train: tf.data.Dataset, test: Tested
) -> tuple[dict[str, float], dict[str, Figure]]:
    """What principal components of the same number reach, and the code of the test images."""
    if not hasattr(model, "encode"):
        return {}, {}
    known = np.concatenate([x.numpy() for x, _ in train]).astype("float64")
    new = test.truth.astype("float64")
    code = model.encode(new[:MAPPED])
    units = code.shape[1]
    metrics = {f"pca_{units}_squared_error_per_image": pca_error(known, new, components=units)}
    return metrics, plot_code(code, test.split.labels[:MAPPED])


def _show(outputs: Mapping[str, np.ndarray], top: int) -> Shown:
    name, values = next(iter(outputs.items()))
    return Shown(
        f"{name} of {values.size} numbers, {values.min():.4g} to {values.max():.4g}",
        {name: values[0].tolist()},
    )


RECONSTRUCTION = Task(
    name="reconstruction",
    takes=LabelledImages,
    data=ImageData,
    losses=("binary_crossentropy", "mean_squared_error"),
    training_data=_training_data,
    test_batches=_test_batches,
    compile_arguments=lambda loss: {"loss": loss, "metrics": []},
    measure=lambda test: reconstruction_metrics(test.outputs, test.truth),
    headline=Metric("squared error per image", "squared_error_per_image", "", more_is_better=False),
    monitor=Monitor("val_loss", more_is_better=False),
    plots=lambda test: plot_reconstruction(test.outputs, test.truth),
    captions={"reconstructions": "Reconstructions", "code": "The code as a map"},
    show=_show,
    baselines=_baselines,
)
