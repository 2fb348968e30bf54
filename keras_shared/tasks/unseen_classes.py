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
from keras_shared.tasks.one_shot import one_shot_answers, one_shot_error, one_shot_grid
from keras_shared.zoo.calibration import line

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
    weight, bias = line(model.probability)
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
    right = np.arange(split.runs.shape[2])
    wrong = np.array([np.sum(answer != right) for answer in answers])
    shown = []
    for row in np.argsort(-wrong, kind="stable")[:SHOWN]:
        known, queries = split.runs[row]
        taken = [known[a] if a != i else None for i, a in enumerate(answers[row])]
        shown.append((f"run {row + 1}", list(zip(known, queries, taken, strict=True))))
    return {"runs": one_shot_grid(split.images, shown, len(wrong))}
