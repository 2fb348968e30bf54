"""Words for figures, data and plots, which tables, cards and plots share."""

from typing import NamedTuple


class Figure(NamedTuple):
    """The one figure that stands for a kind of model.

    Attributes:
        words: what it is.
        key: its key in metrics.json.
        unit: with a space before it, or empty.
        more_is_better: whether a larger one is better.
    """

    words: str
    key: str
    unit: str
    more_is_better: bool


FIGURES = {
    "SiameseNet": Figure("verification accuracy", "accuracy_percent", " %", True),
    "TiedAutoencoder": Figure("squared error per image", "squared_error_per_image", "", False),
    "LeCun1989": Figure("test error", "error_percent", " %", False),
    "LeNet5": Figure("test error", "error_percent", " %", False),
}
DATA = {
    "digits": "scikit-learn's handwritten digits (Alpaydin & Kaynak 1998, CC BY 4.0)",
    "mnist": "MNIST (LeCun & Cortes, CC BY-SA 3.0)",
    "fashion_mnist": "Fashion-MNIST (Zalando SE, MIT)",
    "omniglot": "Omniglot (Lake 2015, MIT)",
}
PLOTS = {
    "roc": "ROC curve and probabilities",
    "confusion": "Confusion matrix",
    "mistakes": "Worst mistakes",
    "reconstructions": "Reconstructions",
    "code": "The code as a map",
    "learning_curves": "Learning curves",
    "comparison_curves": "Compared: validation over the epochs",
    "comparison_parameters": "Compared: the figure against the number of parameters",
    "comparison_sizes": "Compared: the figure against the size of the training set",
}
