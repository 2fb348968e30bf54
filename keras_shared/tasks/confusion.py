import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from keras_shared.text import plot_label


def plot_confusion(
    labels: np.ndarray, answers: np.ndarray, names: tuple[str, ...], what: str
) -> Figure:
    """How often each class was taken for which other; mistakes in red.

    Args:
        labels: (examples,), the right classes.
        answers: (examples,), those that the model named.
        names: of the classes.
        what: the examples, in the plural.
    """
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    mistakes = draw_confusion(figure.subplots(), labels, answers, names)
    figure.axes[0].set_title(f"{mistakes} errors in {len(labels):,} test {what}")
    return figure


def draw_confusion(
    axes: Axes, labels: np.ndarray, answers: np.ndarray, names: tuple[str, ...]
) -> int:
    """As `plot_confusion`, into a plot that is there; gives the number of mistakes."""
    matrix = confusion_matrix(labels, answers, labels=range(len(names)))
    names = tuple(map(plot_label, names))
    mistakes = np.where(np.eye(len(names), dtype=bool), 0, matrix)
    axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=max(1, mistakes.max()))
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            dark = mistakes[row, column] > 0.6 * max(1, mistakes.max())
            axes.text(
                column, row, count, ha="center", va="center", color="white" if dark else "black"
            )
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="right class")
    return int(mistakes.sum())
