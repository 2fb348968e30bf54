import numpy as np
import pytest

from keras_shared.tasks.classification import classification_metrics, plot_classification
from keras_shared.tasks.reconstruction import plot_reconstruction, reconstruction_metrics
from keras_shared.tasks.verification import plot_verification, verification_metrics

RANDOM = np.random.default_rng(8)


def test_verification_by_hand():
    same = np.repeat([1, 0], 400)
    probability = np.concatenate([RANDOM.beta(5, 2, 400), RANDOM.beta(2, 5, 400)])
    metrics = verification_metrics(probability, same)
    # the area is the share of (same, different) couples in the right order
    wins = probability[:400, None] > probability[None, 400:]
    assert metrics["auc"] == round(wins.mean(), 5)
    accuracy = np.concatenate([probability[:400] >= 0.5, probability[400:] < 0.5]).mean()
    assert metrics["accuracy_percent"] == round(100 * accuracy, 3)
    rates = [(np.mean(probability[400:] >= t), np.mean(probability[:400] < t)) for t in probability]
    nearest = min(rates, key=lambda pair: abs(pair[0] - pair[1]))
    assert metrics["equal_error_rate_percent"] == pytest.approx(100 * np.mean(nearest), abs=0.3)


def test_verification_of_chance_and_of_certainty():
    same = np.array([1, 0] * 50)
    assert verification_metrics(same.astype(float), same)["equal_error_rate_percent"] == 0
    assert verification_metrics(1.0 - same, same)["auc"] == 0


def test_classification_by_hand():
    labels = RANDOM.integers(0, 3, 200)
    scores = RANDOM.normal(size=(200, 3))
    metrics = classification_metrics(scores, labels)
    answers = scores.argmax(1)
    confusion = [[int(np.sum((labels == i) & (answers == j))) for j in range(3)] for i in range(3)]
    assert metrics["confusion"] == confusion
    assert metrics["errors"] == 200 - np.trace(confusion)


def test_reconstruction_by_hand():
    a, b = RANDOM.random((2, 7, 16))
    total = sum(float(np.sum((x - y) ** 2)) for x, y in zip(a, b))
    metrics = reconstruction_metrics(a, b)
    assert metrics["squared_error_per_image"] == pytest.approx(total / 7, abs=1e-4)


def test_plots_have_labelled_axes():
    same = np.array([1, 0] * 20)
    roc = plot_verification(RANDOM.random(40), same)["roc"]
    scores, images = RANDOM.normal(size=(40, 2)), RANDOM.integers(0, 256, (40, 8, 8, 1))
    plots = plot_classification(scores, same, images, ("a", "b"))
    for axes in (*roc.axes, *plots["confusion"].axes):
        assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()
    assert plots["mistakes"].axes[0].get_title() in ("a → b", "b → a")
    assert len(plot_reconstruction(RANDOM.random((3, 16)), RANDOM.random((3, 16)))) == 1
    assert plot_reconstruction(RANDOM.random((3, 15)), RANDOM.random((3, 15))) == {}
