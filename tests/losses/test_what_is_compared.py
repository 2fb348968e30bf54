"""Losses of rows that do not fit are refused; as metrics they are the same in half precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_shared.losses import (
    ContrastiveLoss,
    LossPerToken,
    MeanLoss,
    NPairLoss,
    PrototypicalLoss,
    RBFLoss,
    TripletLoss,
)

RANDOM = np.random.default_rng(0)
SCORES = -RANDOM.random((3, 4)).astype("float32")


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        (np.array([[1], [0], [3]]), SCORES[:, None]),
        (np.array([1]), SCORES),
        (np.array([1, 0]), SCORES),
        (np.array([1, 0, 3]), SCORES[:, 0]),
    ],
)
def test_distances_to_classes(labels, scores):
    with pytest.raises(ValueError, match=r"outputs of shape \(batch, classes\), and a class for"):
        RBFLoss()(labels, scores)


@pytest.mark.parametrize(
    ("labels", "distances"),
    [((3, 2), (3, 1)), ((3, 2), (2, 3)), ((2, 1), (3, 1)), ((3, 2), (3,))],
)
def test_distances_of_pairs(labels, distances):
    with pytest.raises(ValueError, match="a distance for each pair, and a label for it"):
        ContrastiveLoss()(np.ones(labels), np.ones(distances))


def test_labels_of_pairs_may_be_a_column_or_not():
    for shape in ((3,), (3, 1)):
        assert float(ContrastiveLoss()(np.ones(shape), np.ones((3, 1)))) == 0.5


@pytest.mark.parametrize("kind", [PrototypicalLoss, NPairLoss, TripletLoss])
def test_a_metric_in_half_precision(kind):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        x = keras.Input((64,))
        model = keras.Model(x, keras.layers.Rescaling(3.0)(x))
        model.compile("sgd", kind(), metrics=[MeanLoss(kind())])
        vectors = RANDOM.normal(size=(6, 64)).astype("float32")
        loss, metric = model.evaluate(vectors, np.array([0, 0, 1, 1, 2, 2]), verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(loss) and metric == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    "loss", [keras.losses.SparseCategoricalCrossentropy(from_logits=True), LossPerToken()]
)
def test_a_weight_for_each_row_of_tokens(loss):
    tokens, logits = np.array([[1, 2], [3, 1], [2, 2]]), RANDOM.random((3, 2, 4)).astype("float32")
    weights = np.array([1.0, 2.0, 0.5])
    metric = MeanLoss(loss)
    for rows in (slice(0, 1), slice(1, 3)):  # the mean over the rows of both batches
        metric.update_state(tokens[rows], logits[rows], weights[rows])
    first, second = (
        float(loss(tokens[rows], logits[rows], sample_weight=weights[rows]))
        for rows in (slice(0, 1), slice(1, 3))
    )
    assert float(metric.result()) == pytest.approx((first + 2 * second) / 3, rel=1e-5)


def test_one_hot_classes_are_named_by_a_metric_too():
    with pytest.raises(ValueError, match="Of one-hot classes take"):
        MeanLoss(TripletLoss()).update_state(np.eye(4), RANDOM.random((4, 8)))


def test_a_metric_of_lists_and_of_nothing():
    metric = MeanLoss(ContrastiveLoss())
    metric.update_state([[1.0], [0.0]], [[1.0], [0.5]], [3.0, 0.0])
    metric.update_state(np.ones((0, 1)), np.ones((0, 1)))
    assert float(metric.result()) == 0.75


@pytest.mark.parametrize("loss", [ContrastiveLoss(), RBFLoss()])
def test_labels_of_which_no_shape_is_known(loss):
    def batches():
        for _ in range(3):
            yield SCORES, np.array([1, 0, 1])

    data = tf.data.Dataset.from_generator(batches, output_types=(tf.float32, tf.float32))
    width = 1 if isinstance(loss, ContrastiveLoss) else 4
    data = data.map(lambda x, y: (tf.ensure_shape(x, (3, 4))[:, :width], y))
    model = keras.Sequential([keras.Input((width,)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss)
    assert np.isfinite(model.evaluate(data, verbose=0))
