"""Losses of a whole batch against loops in NumPy, and their gradients against differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_shared.losses import (
    LOSSES,
    EmbeddingLoss,
    LossPerToken,
    MeanLoss,
    NPairLoss,
    PrototypicalLoss,
    RBFLoss,
    TripletLoss,
)

RANDOM = np.random.default_rng(0)
LABELS = np.array([4, 0, 4, 1, 0, 1, 4, 9])  # three of class 4; 9 is alone
POINTS = RANDOM.normal(size=(8, 3))


def n_pair(labels, x, t):
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    values = []
    for a in range(len(x)):
        for p in range(len(x)):
            if a != p and labels[a] == labels[p]:
                others = [np.exp((x[a] @ x[n] - x[a] @ x[p]) / t)
                          for n in range(len(x)) if labels[n] != labels[a]]  # fmt: skip
                values.append(np.log(1 + sum(others)))
    return np.mean(values)


def triplets(labels, x, margin, mining):
    def wrong(gap):
        return np.log1p(np.exp(gap)) if margin is None else max(0.0, gap + margin)

    d = np.linalg.norm(x[:, None] - x[None], axis=-1)
    values = []
    for a in range(len(x)):
        positives = [p for p in range(len(x)) if p != a and labels[p] == labels[a]]
        negatives = [n for n in range(len(x)) if labels[n] != labels[a]]
        if mining == "hard" and positives:
            values.append(wrong(max(d[a][positives]) - min(d[a][negatives])))
        for p in positives if mining != "hard" else []:
            if mining == "all":
                values.append(np.mean([wrong(d[a, p] - d[a, n]) for n in negatives]))
                continue
            further = [d[a, n] for n in negatives if d[a, n] > d[a, p]]
            values.append(wrong(d[a, p] - (min(further) if further else max(d[a][negatives]))))
    return np.mean(values)


def prototypical(labels, x, shots, t):
    supports = {c: [i for i in range(len(x)) if labels[i] == c][:shots] for c in set(labels)}
    prototypes = {c: x[own].mean(0) for c, own in supports.items()}
    values = []
    for q in range(len(x)):
        if q not in supports[labels[q]]:
            scores = {c: np.exp(-np.sum((x[q] - m) ** 2) / t) for c, m in prototypes.items()}
            values.append(-np.log(scores[labels[q]] / sum(scores.values())))
    return np.mean(values)


CASES = {
    "n_pair": (NPairLoss(0.3), lambda y, x: n_pair(y, x, 0.3)),
    "semi_hard": (TripletLoss(0.5), lambda y, x: triplets(y, x, 0.5, "semi_hard")),
    "hard": (TripletLoss(0.5, "hard"), lambda y, x: triplets(y, x, 0.5, "hard")),
    "all": (TripletLoss(0.5, "all"), lambda y, x: triplets(y, x, 0.5, "all")),
    "soft, hard": (TripletLoss(None, "hard"), lambda y, x: triplets(y, x, None, "hard")),
    "soft": (TripletLoss(None), lambda y, x: triplets(y, x, None, "semi_hard")),
    "one shot": (PrototypicalLoss(1, 0.7), lambda y, x: prototypical(y, x, 1, 0.7)),
    "two shots": (PrototypicalLoss(2, 0.7), lambda y, x: prototypical(y, x, 2, 0.7)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", [LABELS, LABELS[:, None]])
def test_value_and_gradient(case, form):
    loss, by_hand = CASES[case]
    x = tf.constant(POINTS, "float32")
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(form, x)
    np.testing.assert_allclose(value, by_hand(LABELS, POINTS), rtol=1e-5)
    expected, step = np.zeros_like(POINTS), 1e-5
    for place in np.ndindex(POINTS.shape):
        moved = np.zeros_like(POINTS)
        moved[place] = step
        up, down = by_hand(LABELS, POINTS + moved), by_hand(LABELS, POINTS - moved)
        expected[place] = (up - down) / (2 * step)
    np.testing.assert_allclose(tape.gradient(value, x), expected, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_weights_act_on_the_examples(case):
    """A weight of 0 leaves the comparisons of an example out; class and sample weights agree."""
    loss, _ = CASES[case]
    whole = keras.losses.deserialize(keras.losses.serialize(loss))
    whole.reduction = "none"
    each = np.array(whole(LABELS, POINTS))
    weights = np.where(LABELS == 4, 3.0, 0.0)
    np.testing.assert_allclose(
        loss(LABELS, POINTS, sample_weight=weights), np.mean(each * weights), rtol=1e-6
    )

    def after(**kwargs):
        keras.utils.set_random_seed(1)
        tower = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        tower.compile(keras.optimizers.SGD(0.1), loss)
        tower.fit(POINTS, LABELS, batch_size=8, shuffle=False, verbose=0, **kwargs)
        return tower.get_weights()[0]

    by_class = after(class_weight={c: 3.0 if c == 4 else 0.0 for c in range(10)})
    np.testing.assert_allclose(by_class, after(sample_weight=weights), atol=1e-6)
    if np.ptp(each) > 0:
        assert np.abs(by_class - after()).max() > 1e-6


LINE = np.array([[0.0], [1.0], [0.4], [1.3], [4.0], [3.0]])  # two pairs, and two that are alone


@pytest.mark.parametrize(
    ("mining", "points", "chosen"),  # (a, p): n
    [
        ("semi_hard", 6, {(0, 1): 3, (1, 0): 5, (2, 3): 5, (3, 2): 0}),  # the next beyond p
        ("semi_hard", 4, {(0, 1): 3, (1, 0): 2, (2, 3): 1, (3, 2): 0}),  # or the furthest
        ("hard", 6, {(0, 1): 2, (1, 0): 3, (2, 3): 0, (3, 2): 1}),
    ],
)
@pytest.mark.parametrize("margin", [2.0, None])
def test_which_triplets_are_mined(mining, points, chosen, margin):
    """Chosen by eye; their gradient by hand shows that no other took part."""
    x = tf.constant(LINE[:points], "float32")
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = TripletLoss(margin, mining)([0, 0, 1, 1, 2, 3][:points], x)
    losses, expected = [], np.zeros(points)
    for (a, p), n in chosen.items():
        apart = [LINE[a, 0] - LINE[other, 0] for other in (p, n)]
        gap = abs(apart[0]) - abs(apart[1])
        losses.append(np.log1p(np.exp(gap)) if margin is None else max(0, gap + margin))
        slope = 1 / (1 + np.exp(-gap)) if margin is None else float(gap + margin > 0)
        towards_p, towards_n = slope * np.sign(apart) / len(chosen)
        expected[a] += towards_p - towards_n
        expected[p] -= towards_p
        expected[n] += towards_n
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(value, x)[:, 0], expected, atol=1e-5)


def test_classes_of_large_numbers_and_those_that_are_no_classes():
    x = POINTS[:4].astype("float32")
    for large in (2**24, 2**60):  # neighbours are one in float32
        classes = large + np.array([0, 1, 0, 1])
        expected = n_pair(classes, POINTS[:4], 0.3)
        np.testing.assert_allclose(NPairLoss(0.3)(classes, x), expected, rtol=1e-5)
    for bad in (np.eye(4), np.arange(3), np.zeros((4, 1, 1))):
        with pytest.raises(ValueError, match=r"classes of shape \(batch,\) or.*numpy.argmax"):
            NPairLoss()(bad, x)
    NPairLoss()(np.argmax(np.eye(4), axis=1), x)  # as the message says


@pytest.mark.parametrize("form", ["fit", "tf.data", "batch"])
def test_weights_and_the_loss_by_itself_in_a_training(form):
    """With weights that are regularised; class weights as weights of their examples."""
    x, y = POINTS.astype("float32"), LABELS
    weights = np.where(y == 4, 3.0, 0.5)
    by_class = {c: 3.0 if c == 4 else 0.5 for c in range(10)}
    for given in ({"sample_weight": weights}, {"class_weight": by_class}):
        tower = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(2, kernel_regularizer="l2")]
        )
        tower.compile(
            "sgd", NPairLoss(0.3), weighted_metrics=[MeanLoss(NPairLoss(0.3))], run_eagerly=True
        )
        kernel, bias = tower.get_weights()
        each = keras.losses.deserialize(keras.losses.serialize(NPairLoss(0.3)))
        each.reduction = "none"
        rows = np.array(each(y, x @ kernel + bias))
        np.testing.assert_allclose(rows.mean(), n_pair(y, x @ kernel + bias, 0.3), rtol=1e-4)
        expected = np.mean(rows * weights) + 0.01 * np.sum(kernel**2)
        if form == "fit":
            logs = tower.fit(x, y, batch_size=8, shuffle=False, verbose=0, **given).history
        elif form == "tf.data":
            parts = (x, y, weights) if "sample_weight" in given else (x, y)
            given.pop("sample_weight", None)
            data = tf.data.Dataset.from_tensor_slices(parts).batch(8)
            logs = tower.fit(data, verbose=0, **given).history
        else:
            logs = tower.train_on_batch(x, y, return_dict=True, **given)
        np.testing.assert_allclose(np.ravel(logs["loss"])[0], expected, rtol=1e-4)
        alone = np.mean(rows * weights)
        np.testing.assert_allclose(np.ravel(logs["n_pair_loss"])[0], alone, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_nothing_to_compare_costs_nothing(case):
    loss, _ = CASES[case]
    x = tf.Variable(np.ones((3, 2), "float32"))
    for labels in ([0, 1, 2], [0, 0, 0]):  # no two of a class; no other class
        with tf.GradientTape() as tape:
            value = loss(labels, x)
        assert np.isfinite(value) and float(value) <= 0.7
        gradient = tape.gradient(value, x)
        assert gradient is None or np.isfinite(gradient).all()


def test_config_and_names():
    for name in ("n_pair", "prototypical", "triplet", "triplet_hard"):
        loss = LOSSES[name]()
        assert isinstance(loss, EmbeddingLoss)
        again = keras.losses.deserialize(keras.losses.serialize(loss))
        assert again.get_config() == loss.get_config()
    assert LOSSES["triplet_hard"]().margin is None
    assert (LOSSES["rbf"]().j, LOSSES["rbf_far"]().j) == (0.1, 4.0)
    with pytest.raises(ValueError, match="temperature=0"):
        NPairLoss(0)
    with pytest.raises(ValueError, match="None for a soft one. Received: margin=-1"):
        TripletLoss(-1)
    with pytest.raises(ValueError, match="'semi_hard', 'hard' or 'all'. Received: mining='easy'"):
        TripletLoss(mining="easy")
    with pytest.raises(ValueError, match="shots=0"):
        PrototypicalLoss(0)


def test_a_weight_for_each_row_counts_all_of_its_tokens():
    logits = np.random.default_rng(0).normal(size=(3, 3, 5)).astype("float32")
    targets, weights = np.array([[1, 2, 0], [3, 0, 0], [4, 4, 4]]), np.array([1.0, 0.0, 0.5])
    by_row, by_token = LossPerToken(), LossPerToken()
    by_row.update_state(targets, logits, weights)
    by_token.update_state(targets, logits, np.repeat(weights[:, None], 3, axis=1))
    assert float(by_row.result()) == pytest.approx(float(by_token.result()))


def test_one_hot_classes_are_refused_by_the_rbf_loss():
    with pytest.raises(ValueError, match=r"one-hot.*argmax"):
        RBFLoss()(np.array([[0, 1, 0]]), np.array([[0.0, -1.0, -2.0]]))


@pytest.mark.parametrize("loss", [TripletLoss(), TripletLoss(mining="hard"), PrototypicalLoss()])
def test_embeddings_far_from_the_origin(loss):
    draws = np.random.default_rng(3).normal(size=(12, 4))
    classes = np.repeat(np.arange(4), 3)
    near = float(loss(classes, draws.astype("float32")))
    np.testing.assert_allclose(
        float(loss(classes, (draws + 1000).astype("float32"))), near, rtol=2e-3
    )


def test_a_label_of_no_class_is_not_rewarded():
    scores = -np.ones((3, 3), "float32")
    assert np.isnan(float(RBFLoss()([0, 3, 1], scores))) and np.isnan(RBFLoss()([-1, 0, 0], scores))
    assert np.isfinite(float(RBFLoss()([0, 2, 1], scores)))
