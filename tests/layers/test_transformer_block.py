import keras
import numpy as np
import pytest

import keras_shared
from keras_shared.layers import PositionEmbedding, SharedStack, TransformerBlock

X = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def by_hand(block, x, causal):
    """In float64: two heads of width 4."""

    def normal(layer, x):
        spread = np.sqrt(x.var(axis=-1, keepdims=True) + layer.epsilon)
        return (x - x.mean(axis=-1, keepdims=True)) / spread * layer.gamma + layer.beta

    n = normal(block.attention_norm, x)
    of = block.attention
    q, k, v = (
        np.einsum("bti,ihd->bhtd", n, dense.kernel) + np.asarray(dense.bias)[:, None]
        for dense in (of.query_dense, of.key_dense, of.value_dense)
    )
    scores = np.einsum("bhtd,bhsd->bhts", q, k) / 2  # the root of 4
    if causal:
        scores = np.where(np.tri(x.shape[1], dtype=bool), scores, -np.inf)
    mixed = np.einsum("bhts,bhsd->bthd", softmax(scores), v)
    x = x + np.einsum("bthd,hdi->bti", mixed, of.output_dense.kernel) + of.output_dense.bias
    wide, narrow = block.feed_forward.layers
    hidden = np.maximum(normal(block.feed_forward_norm, x) @ wide.kernel.numpy() + wide.bias, 0)
    return x + hidden @ narrow.kernel.numpy() + narrow.bias


@pytest.mark.parametrize("causal", [False, True])
def test_values_by_hand(causal):
    block = TransformerBlock(2, 16, activation="relu", causal=causal)
    block.build(X.shape)
    random = np.random.default_rng(1)
    for variable in block.trainable_variables:
        variable.assign(random.normal(size=variable.shape) * 0.5)
    wanted = by_hand(block, X.astype("float64"), causal)
    np.testing.assert_allclose(block(X), wanted, atol=1e-4)


def test_mask_and_dropout():
    block = TransformerBlock(2, 16, dropout=0.5)
    mask = np.array([[True, True, False, False, False]] * 2)
    np.testing.assert_allclose(block(X, mask=mask)[:, :2], block(X[:, :2]), atol=1e-5)
    np.testing.assert_array_equal(block(X), block(X))
    assert np.abs(block(X, training=True) - block(X)).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("share", ["attention", "feed_forward", "all"])
def test_in_a_stack_of_shared_parts(share, tmp_path):
    inputs = keras.Input((None, 8))
    stack = SharedStack(
        TransformerBlock(2, 16, causal=True), 4, share=share, own_normalization=True
    )
    model = keras.Model(inputs, stack(PositionEmbedding(12)(inputs)))
    attention, feed, norms = 4 * 72, 8 * 16 + 16 + 16 * 8 + 8, 32
    shared = {"attention": attention, "feed_forward": feed, "all": attention + feed}[share]
    assert model.count_params() == 12 * 8 + shared + 4 * (attention + feed + norms - shared)
    report = keras_shared.sharing_report(model)
    assert report.totals["multiply_adds"] is not None and not report.warnings
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5)


def test_positions():
    layer = PositionEmbedding(6)
    added = layer(X) - X
    np.testing.assert_allclose(added[0], layer.embeddings[:5], atol=1e-6)
    inputs = keras.Input((None, 8))
    model = keras.Model(inputs, layer(inputs))
    assert model.predict(X[:, :3], verbose=0).shape == (2, 3, 8)
    with pytest.raises(ValueError, match=r"6 positions.*\(2, 7, 8\)"):
        layer(np.ones((2, 7, 8)))
    with pytest.raises(ValueError, match="positive integer. Received: sequence_length=0"):
        PositionEmbedding(0)


def test_heads_divide_the_features():
    with pytest.raises(ValueError, match=r"3 heads, which must divide.*\(2, 5, 8\)"):
        TransformerBlock(3, 16)(X)


def test_no_heads_are_refused():
    with pytest.raises(
        ValueError, match="`num_heads` must be a positive integer. Received: num_heads=0"
    ):
        TransformerBlock(0, 16).build((None, 4, 8))


def test_numbers_of_numpy_are_numbers():
    three, schedule = np.int64(3), np.array([0, 1, 0])
    assert PositionEmbedding(three).get_config()["sequence_length"] == 3
    stack = SharedStack(keras.layers.Dense(4), three, np.int64(2), rank=np.int64(1))
    assert [type(stack.get_config()[key]) for key in ("depth", "distinct", "rank")] == [int] * 3
    assert SharedStack(keras.layers.Dense(4), 3, schedule=schedule).indices == [0, 1, 0]
    with pytest.raises(ValueError, match="rank=True"):
        SharedStack(keras.layers.Dense(4), 3, rank=True)


def test_positions_of_images_are_refused():
    with pytest.raises(ValueError, match=r"\(batch, length, features\).*Reshape"):
        PositionEmbedding(6)(np.ones((2, 6, 6, 8), "float32"))
