"""Embeddings of a few unseen classes in two dimensions."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from keras_shared.batching.fetching import prepared
from keras_shared.datasets import LabelledImages
from keras_shared.text import plot_label

CLASSES, IMAGES = 10, 50  # that are shown, and most images of each
SIDE, AWAY = 30, 48  # points: the side of the image beside its class, and how far beside
MARKERS = "osD^vP*Xph"


def plot_map(
    embeddings: np.ndarray, split: LabelledImages, groups: tuple[str, ...]
) -> dict[str, Figure]:
    """The two directions in which the embeddings of some classes vary most (PCA).

    The classes are spread evenly over those of the groups; one image of each is shown beside it.

    Args:
        embeddings: (images, features).
        split: the test split.
        groups: names of the groups that test.
    """
    from sklearn.decomposition import PCA  # slow to import, seldom needed

    wanted = [split.group_names.index(name) for name in groups]
    counts = np.bincount(split.labels, minlength=len(split.groups))
    classes = np.flatnonzero(np.isin(split.groups, wanted) & (counts > 1))
    if len(classes) < 2:
        return {}
    places = np.linspace(0, len(classes) - 1, min(CLASSES, len(classes))).round().astype(int)
    of_class = [np.flatnonzero(split.labels == c)[:IMAGES] for c in classes[places]]
    pca = PCA(2, random_state=0).fit(embeddings[np.concatenate(of_class)])
    first, second = 100 * pca.explained_variance_ratio_
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots()
    for i, (label, images) in enumerate(zip(classes[places], of_class, strict=True)):
        at = pca.transform(embeddings[images])
        axes.scatter(
            at[:, 0], at[:, 1], s=30, c=f"C{i}", marker=MARKERS[i], alpha=0.8,
            label=plot_label(split.class_names[label]),
        )  # fmt: skip
        middle = int(np.argmin(np.linalg.norm(at - np.median(at, axis=0), axis=1)))
        pixels = prepared(split.images[images[[middle]]], lambda image: image, "uint8")[0]
        pixels = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
        image = OffsetImage(pixels, zoom=SIDE / max(pixels.shape[:2]))
        outwards = at[middle] / max(np.linalg.norm(at[middle]), 1e-6)  # PCA centres
        box = AnnotationBbox(
            image, at[middle], AWAY * outwards, boxcoords="offset points", pad=0.1,
            arrowprops={"arrowstyle": "-", "color": f"C{i}"}, bboxprops={"edgecolor": f"C{i}"},
        )  # fmt: skip
        axes.add_artist(box)
    axes.margins(0.15)
    axes.set(
        xlabel=f"first principal component ({first:.0f} % of the variance)",
        ylabel=f"second principal component ({second:.0f} %)",
        title=f"Embeddings of {len(of_class)} unseen classes, each image a point",
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return {"embeddings": figure}
