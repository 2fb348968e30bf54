"""What the embeddings of unseen classes are worth: one-shot tasks, and pairs by both rules."""

from typing import Any, NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_shared.batching import PairData
from keras_shared.batching.fetching import prepared
from keras_shared.batching.one_shot import OneShotTasks
from keras_shared.batching.pairs import Pairs
from keras_shared.datasets import ImagePairs, LabelledImages
from keras_shared.tasks.one_shot import one_shot_answers, one_shot_error

TASKS = 1000  # of random classes
SHOWN = 5  # runs that are drawn


class UnseenClasses(NamedTuple):
    """Test images as a model sees them.

    Attributes:
        embeddings: (images, features), of length 1; zeros for images that no test asks for.
        weight, bias: of the distance of two, for the probability of "same".
        groups: names of the groups that test.
        data: section [data] of the recipe.
    """

    embeddings: np.ndarray
    weight: float
    bias: float
    groups: tuple[str, ...]
    data: PairData

    def probability(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Of "same", for pairs of numbers of images."""
        apart = np.linalg.norm(self.embeddings[left] - self.embeddings[right], axis=1)
        probability: np.ndarray = 1 / (1 + np.exp(-(self.weight * apart + self.bias)))
        return probability


def embed_unseen(model: keras.Model, split: Any, data: PairData) -> UnseenClasses | None:
    """Embed the images of the groups that test, and of runs; None for listed pairs or no tower."""
    if isinstance(split, ImagePairs) or not hasattr(model, "embed"):
        return None
    weight, bias = (float(w.item()) for w in model.probability.get_weights())
    tested = {split.group_names[split.groups[label]] for label in np.unique(split.labels)}
    groups = data.test_groups or tuple(sorted(tested))
    wanted = [split.group_names.index(name) for name in groups]
    asked = np.isin(split.groups[split.labels], wanted)
    if split.runs is not None:
        asked[split.runs] = True
    some = prepared(split.images[np.flatnonzero(asked)], model.embed, "float32")
    embeddings = np.zeros((len(asked), some.shape[1]), "float32")
    embeddings[asked] = some
    return UnseenClasses(embeddings, weight, bias, groups, data)


def unseen_metrics(unseen: UnseenClasses, split: LabelledImages) -> dict[str, float]:
    """Errors of one-shot tasks, and the accuracy on pairs by the rule that the recipe has not.

    Within a group: the runs that the data set comes with, of Omniglot those of Lake et al. Of any
    group: tasks of random classes, as in Vinyals et al. 2016. What the groups are too small for is
    left out.

    Args:
        unseen: from `embed_unseen`.
        split: the test split.

    Returns:
        Errors and accuracies in percent.
    """
    metrics, data = {}, unseen.data
    if split.runs is not None:
        ways = split.runs.shape[2]
        error = one_shot_error(unseen.embeddings, split.runs)
        metrics[f"within_group_{ways}_way_error_percent"] = error
    wanted = [split.group_names.index(name) for name in unseen.groups]
    tested = np.isin(split.groups[split.labels], wanted)
    classes = len(np.unique(split.labels[tested]))
    if classes == len(np.unique(split.groups[split.labels[tested]])):  # each class is a group
        return metrics
    of_groups = split.part(np.flatnonzero(tested))
    for ways in (20, 5):
        if classes >= ways:
            drawn = OneShotTasks.drawn(of_groups, None, ways, TASKS, data.seed)
            error = one_shot_error(unseen.embeddings[tested], drawn.tasks)
            metrics[f"any_group_{ways}_way_error_percent"] = error
    other = "same_group" if data.negatives == "any" else "any"
    pairs = Pairs(split, unseen.groups, other)
    left, right, same = (x.numpy() for x in pairs.draw(data.test_pairs, data.seed, -1))
    right_ones = (unseen.probability(left, right) >= 0.5) == same
    metrics[f"accuracy_percent_{other}"] = round(100 * float(np.mean(right_ones)), 3)
    return metrics


def plot_runs(unseen: UnseenClasses, split: LabelledImages) -> dict[str, Figure]:
    """Runs of most errors: what is known, and below it the queries; wrong ones with the answer."""
    if split.runs is None:
        return {}
    answers = one_shot_answers(unseen.embeddings, split.runs)
    ways = split.runs.shape[2]
    wrong = np.array([np.sum(answer != np.arange(ways)) for answer in answers])
    shown = np.argsort(-wrong, kind="stable")[:SHOWN]
    figure = Figure(figsize=(0.55 * ways, 1.9 * len(shown)), layout="constrained")
    figure.suptitle(
        f"The {len(shown)} of {len(wrong)} runs with most errors: what is known, below it the "
        "query, and what it was taken for, if wrong"
    )
    grid = figure.subplots(3 * len(shown), ways, squeeze=False)
    for row, run in enumerate(shown):
        known, queries = split.runs[run]
        for i in range(ways):
            taken = known[answers[run][i]] if answers[run][i] != i else None
            for line, image in enumerate((known[i], queries[i], taken)):
                axes = grid[3 * row + line, i]
                axes.set(xticks=[], yticks=[])
                for side in axes.spines.values():
                    side.set(visible=image is not None, color="C3" if taken is not None else "0.8")
                if image is not None:
                    axes.imshow(_pixels(split, image), cmap="gray", vmin=0, vmax=255)
    return {"runs": figure}


def _pixels(split: LabelledImages, image: int) -> np.ndarray:
    pixels: np.ndarray = prepared(split.images[np.array([image])], lambda i: i, "uint8")[0]
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
