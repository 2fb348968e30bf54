"""Verification: do two images show the same?"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from keras_shared import losses
from keras_shared.batching import PairData, TrainingData
from keras_shared.batching.pairs import LISTED, pair_test_batches, pair_training_data
from keras_shared.datasets import ImagePairs, LabelledImages
from keras_shared.errors import attempt
from keras_shared.lookup import UnknownNameError
from keras_shared.losses import ContrastiveLoss, EmbeddingLoss
from keras_shared.tasks.embedding_map import plot_map
from keras_shared.tasks.one_shot import one_shot_accuracy
from keras_shared.tasks.own_runs import answer_runs
from keras_shared.tasks.pair_mistakes import plot_pair_mistakes
from keras_shared.tasks.rare_accepts import FALSE_ACCEPTS, rare_accept_metrics, rare_accepts
from keras_shared.tasks.task import Metric, Monitor, Shown, Task, Tested
from keras_shared.tasks.unseen_classes import embed_unseen, plot_runs, unseen_metrics
from keras_shared.zoo.calibration import calibrate

EMBEDDING_LOSSES = ("n_pair", "prototypical", "triplet", "triplet_hard")
THRESHOLD = 0.5  # probability from which two images count as the same


def verification_metrics(probability: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    """How well "same" and "different" pairs are separated.

    Args:
        probability: (pairs,) of "same".
        same: (pairs,) 1 for "same", 0 for "different".

    Returns:
        Accuracy in percent at probability 1/2, area under the ROC curve (0 to 1), and equal error
        rate in percent: where as many different pairs are accepted as same ones are refused.

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.verification import verification_metrics
        >>> verification_metrics(np.array([0.9, 0.6, 0.4, 0.1]), np.array([1, 1, 0, 0]))["auc"]
        1.0
    """
    rate, _ = _equal_error(probability, same)
    return {
        "pairs": len(same),
        "accuracy_percent": round(100 * float(np.mean((probability >= THRESHOLD) == same)), 3),
        "auc": round(float(roc_auc_score(same, probability)), 5),
        "equal_error_rate_percent": round(100 * rate, 3),
    }


def _equal_error(probability: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """The equal error rate, and the false acceptance rate of the nearest point of the curve."""
    accepted, found, _ = roc_curve(same, probability)
    i = int(np.argmin(np.abs(accepted - (1 - found))))
    return float((accepted[i] + 1 - found[i]) / 2), float(accepted[i])


def plot_verification(
    probability: np.ndarray, same: np.ndarray, threshold: float | None = None
) -> dict[str, Figure]:
    """The ROC curve with its equal error rate, and the probabilities of both kinds of pairs."""
    metrics = verification_metrics(probability, same)
    accepted, found, _ = roc_curve(same, probability)
    rate, at = _equal_error(probability, same)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(accepted, found, label=f"AUC {metrics['auc']:.4f}")
    left.plot([0, 1], [1, 0], ":", color="grey", linewidth=1)
    left.plot([at], [1 - rate], "o", label=f"equal error rate {100 * rate:.2f} %")
    left.set(
        xlabel="different pairs accepted (false positive rate)",
        ylabel="same pairs accepted (true positive rate)",
        title=f"ROC, {metrics['pairs']:,} pairs of unseen classes",
        aspect="equal",
    )
    left.legend(loc="lower right")
    for value, name in ((1, "same"), (0, "different")):
        right.hist(
            probability[same == value], np.linspace(0, 1, 41), histtype="step", label=name, lw=1.5
        )
    right.axvline(0.5, color="grey", linestyle=":", linewidth=1)
    if threshold is not None:
        label = f"threshold {threshold:.4g}:\n{100 * FALSE_ACCEPTS:g} % false accepts in validation"
        right.axvline(threshold, color="C3", linestyle="--", linewidth=1, label=label)
    right.set(
        xlabel='probability of "same"',
        ylabel="pairs",
        yscale="log",
        title=f"accuracy at 1/2: {metrics['accuracy_percent']:.2f} %",
    )
    right.legend(loc="upper center")
    return {"roc": figure}


def _compile_arguments(loss: Any) -> dict[str, Any]:
    if isinstance(loss, EmbeddingLoss):
        return {"loss": loss, "metrics": [one_shot_accuracy]}
    on = "distance" if isinstance(loss, ContrastiveLoss) else "probability"
    losses = {name: loss if name == on else None for name in ("distance", "probability")}
    return {"loss": losses, "metrics": {"probability": ["accuracy"]}}


def _probability(test: Tested) -> tuple[np.ndarray, np.ndarray]:
    return test.outputs["probability"][:, 0], test.truth["probability"]


def _measure(test: Tested) -> dict[str, Any]:
    metrics = verification_metrics(*_probability(test))
    metrics |= rare_accept_metrics(*_probability(test), test.chosen)
    return metrics if test.more is None else metrics | unseen_metrics(test.more, test.split)


def _plots(test: Tested) -> dict[str, Figure]:
    plots = plot_verification(*_probability(test), test.chosen)
    plots |= plot_pair_mistakes(*_probability(test), test.batches)
    if test.more is not None:
        plots |= plot_runs(test.more, test.split)
        plots |= plot_map(test.more.embeddings, test.split, test.more.groups)
    return plots


def _trunk(model: keras.Model, data: TrainingData) -> tuple[keras.Model, TrainingData]:
    """From what the tower takes to embeddings: images pass what comes before only once."""
    assert data.through is not None
    before, trunk = model.halves()
    return trunk, data.through(lambda images: before.predict(images, verbose=0))


def _settle(data: PairData, loss: str) -> PairData:
    """Pairs or batches of classes, as the loss wants them."""
    made, unknown = attempt(lambda: losses.get(loss), UnknownNameError)
    if unknown:  # of another package, which is not there: training says so
        return data
    whole = isinstance(made, EmbeddingLoss)
    if data.name == LISTED:
        if whole:
            raise ValueError(
                f"`training.loss`: received {loss!r}, which compares images of several classes, "
                f"and '{LISTED}' lists pairs. Set it to 'binary_crossentropy' or 'contrastive'."
            )
        return data
    if data.examples_per_class is None:
        data = data.model_copy(update={"examples_per_class": 2 if whole else 0})
    if whole and (data.examples_per_class or 0) < 2:
        raise ValueError(
            f"`data.examples_per_class`: received {data.examples_per_class}, expected at least 2 "
            f"with loss = {loss!r}, which compares the images of a batch"
        )
    of_classes = ("examples_per_class", "groups_per_batch", "rotated_classes", "distortion")
    wrong = [] if whole else [key for key in of_classes if np.any(getattr(data, key))]
    if wrong:
        raise ValueError(
            f"`data.{wrong[0]}`: received {getattr(data, wrong[0])}, which is for losses that "
            f"compare the images of a batch, and loss = {loss!r} takes pairs. Leave it out."
        )
    return data


def _calibrate(model: keras.Model, data: TrainingData) -> None:
    """Fit what makes probabilities of distances to the validation pairs."""
    pairs: Any = data.validation if data.pairs is None else data.pairs
    distances = model.predict(pairs.map(lambda images, same: images), verbose=0)["distance"]
    if not np.isfinite(distances).all():
        return  # diverged: the history says so
    same = [float(s) for _, batch in pairs for s in batch["distance"].numpy()]
    calibrate(model.get_layer("probability"), distances, same)


def _show(outputs: Mapping[str, np.ndarray], top: int) -> Shown:
    if "probability" not in outputs:  # one image alone
        return Shown(f"an embedding of {outputs['embedding'].size} numbers", {})
    return show_pair(outputs)


def show_pair(outputs: Mapping[str, np.ndarray], threshold: float = THRESHOLD) -> Shown:
    """What a model answers to one pair, as a sentence."""
    probability, distance = outputs["probability"].item(), outputs["distance"].item()
    same = probability >= threshold
    text = (
        f"{'same' if same else 'different'}: probability {probability:.4g} (threshold "
        f"{threshold:.4g}), distance {distance:.4g}"
    )
    return Shown(text, {"same": same, "probability": probability, "distance": distance})


VERIFICATION = Task(
    name="verification",
    takes=(LabelledImages, ImagePairs),
    data=PairData,
    losses=("binary_crossentropy", "contrastive", *EMBEDDING_LOSSES),
    losses_of_shared=("contrastive", *EMBEDDING_LOSSES),  # an unshared copy has no one tower
    training_data=pair_training_data,
    test_batches=lambda split, data, seed: pair_test_batches(split, data),
    compile_arguments=_compile_arguments,
    measure=_measure,
    headline=Metric("verification accuracy", "accuracy_percent", " %", more_is_better=True),
    monitor=Monitor("val_probability_accuracy", more_is_better=True),
    plots=_plots,
    captions={
        "roc": "ROC curve and probabilities",
        "runs": "One-shot runs with most errors",
        "embeddings": "Embeddings of some unseen classes",
        "mistakes": "Pairs that are most wrongly called the same, or different",
    },
    ask=embed_unseen,
    choose=rare_accepts,
    show=_show,
    part=_trunk,
    finish=_calibrate,
    monitor_of=lambda data: Monitor(
        "val_one_shot_accuracy" if data.examples_per_class else "val_probability_accuracy", True
    ),
    settle=_settle,
    answer_runs=answer_runs,
)
