from typing import Any

import numpy as np
from matplotlib.figure import Figure

SHOWN = 12  # vectors that are drawn


def reconstruction_metrics(outputs: np.ndarray, vectors: np.ndarray) -> dict[str, Any]:
    """How far reconstructions are from their originals.

    Args:
        outputs: (vectors, width), the reconstructions.
        vectors: (vectors, width), the originals, in [0, 1].

    Returns:
        The squared error of a vector, summed over its components and averaged over the vectors.

    Example:
        >>> import numpy as np
        >>> from keras_shared.evaluation.reconstruction import reconstruction_metrics
        >>> metrics = reconstruction_metrics(np.full((5, 4), 0.5), np.zeros((5, 4)))
        >>> metrics["squared_error_per_image"]
        1.0
    """
    error = np.sum(np.square(outputs.astype("float64") - vectors), axis=-1)
    return {"images": len(vectors), "squared_error_per_image": round(float(error.mean()), 4)}


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
