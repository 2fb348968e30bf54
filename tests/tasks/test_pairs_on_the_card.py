"""The threshold, the map and the worst mistakes of a verification entry."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_shared.datasets import ImagePairs, LabelledImages
from keras_shared.tasks.embedding_map import plot_map
from keras_shared.tasks.pair_mistakes import plot_pair_mistakes
from keras_shared.tasks.rare_accepts import rare_accept_metrics, rare_accepts
from keras_shared.zoo import SiameseNet

RANDOM = np.random.default_rng(4)
LABELS = np.repeat(np.arange(8), 30)
IMAGES = RANDOM.integers(0, 256, (240, 6, 6, 1)).astype("uint8")
IMAGES[..., 0, :2, 0] = 30 * LABELS[:, None]  # some of what a class has in common
SPLIT = LabelledImages(
    IMAGES, LABELS, np.repeat([0, 1], 4), tuple("abcdefgh"), ("left", "right")
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    tower = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(5)]
    )
    return SiameseNet(tower, image_shape=(6, 6, 1))


def test_the_threshold_is_of_validation_pairs_alone(model, recipe):
    data = recipe("pairs").data.model_copy(
        update={"validation_groups": ("right",), "test_groups": ()}
    )
    threshold = rare_accepts(model, SPLIT, data)
    e = model.embed(IMAGES[120:])
    apart = np.linalg.norm(e[:, None] - e[None], axis=-1)
    different = LABELS[120:, None] != LABELS[None, 120:]
    w, v = (x.item() for x in model.probability.get_weights())
    probability = 1 / (1 + np.exp(-(w * apart[different] + v)))  # of all pairs there are
    assert np.mean(probability >= threshold) == pytest.approx(0.001, rel=0.3)
    changed = IMAGES.copy()
    changed[:120] = 0  # what trains has no part in it
    assert rare_accepts(model, SPLIT._replace(images=changed), data) == threshold


def test_listed_pairs_and_too_few_of_them(model, recipe):
    data = recipe("pairs").data
    left, right = RANDOM.integers(0, 240, (2, 4000))
    same = (LABELS[left] == LABELS[right]).astype(int)
    pairs = ImagePairs(IMAGES, left, right, same, held_out=np.arange(2000, 4000))
    threshold = rare_accepts(model, pairs, data)
    p = model.verify(IMAGES[left[2000:]], IMAGES[right[2000:]])
    assert np.sum(p[same[2000:] == 0] >= threshold) == 1  # of 1,750
    assert rare_accepts(model, pairs._replace(held_out=np.arange(800)), data) is None
    assert rare_accepts(model.tower, pairs, data) is None


def test_metrics_at_the_threshold():
    probability = np.array([0.99, 0.7, 0.95, 0.2, 0.1])
    metrics = rare_accept_metrics(probability, np.array([1.0, 1, 0, 0, 0]), 0.9)
    assert metrics == {
        "threshold_for_0.1_percent_false_accepts": 0.9, "accuracy_percent_at_threshold": 60.0,
        "true_accept_percent_at_threshold": 50.0, "false_accept_percent_at_threshold": 33.333,
    }  # fmt: skip
    assert rare_accept_metrics(probability, np.zeros(5), None) == {}


def test_the_map_is_the_principal_components():
    embeddings = RANDOM.normal(size=(240, 5)) * [5, 3, 1, 1, 1]
    [axes] = plot_map(embeddings, SPLIT, ("right",))["embeddings"].axes
    points = np.concatenate([c.get_offsets() for c in axes.collections])
    assert points.shape == (120, 2) and len(axes.artists) == 4
    assert [t.get_text() for t in axes.get_legend().get_texts()] == list("efgh")
    middle = embeddings[120:] - embeddings[120:].mean(0)
    _, sizes, directions = np.linalg.svd(middle, full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(middle @ directions[:2].T), atol=1e-6)
    share = 100 * sizes[0] ** 2 / np.sum(sizes**2)
    assert f"({share:.0f} % of the variance)" in axes.get_xlabel()
    alone = SPLIT.part(np.flatnonzero(LABELS == 0))
    assert plot_map(embeddings[:30], alone, ("left", "right")) == {}


def test_the_worst_pairs_of_each_kind_are_shown():
    same = np.repeat([1.0, 0.0], 20)
    probability = np.where(same == 1, 0.9, 0.1)
    probability[[3, 7]], probability[[25, 31, 38]] = [0.3, 0.2], [0.6, 0.99, 0.8]
    sides = {"image_a": IMAGES[:40], "image_b": IMAGES[40:80]}
    batches = tf.data.Dataset.from_tensor_slices((sides, {"distance": same})).batch(16)
    axes = plot_pair_mistakes(probability, same, batches)["mistakes"].axes
    titles = [a.get_title() for a in axes if a.get_title()]
    assert titles == [f"p = {p}" for p in (0.99, 0.8, 0.6, 0.2, 0.3)]
    shown = [a.images[0].get_array() for a in axes if a.images]
    numbers = [31, 38, 25, 71, 78, 65, 7, 3, 47, 43]
    np.testing.assert_array_equal(shown, IMAGES[numbers, ..., 0])
    assert plot_pair_mistakes(same, same, batches) == {}
