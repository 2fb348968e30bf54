"""Arguments are read as Keras reads them, and shapes that do not fit are named."""

import numpy as np
import pytest
from keras import layers, ops

from keras_shared.layers import LocallyConnected2D, Shared, TiedConv, TiedEinsumDense

RANDOM = np.random.default_rng(0)


def test_padding():
    x = RANDOM.random((1, 6, 6, 2)).astype("float32")
    assert LocallyConnected2D(3, 3, padding="SAME")(x).shape == (1, 6, 6, 3)
    with pytest.raises(ValueError, match="'valid' or 'same'. Received: padding='full'"):
        LocallyConnected2D(3, 3, padding="full")
    layer = LocallyConnected2D(3, 3)
    layer(x)
    with pytest.raises(ValueError, match="expected shape"):
        layer(x[:, :5])
    steps = RANDOM.random((2, 7, 3)).astype("float32")
    source = layers.Conv1D(4, 3, padding="causal")
    plain = source(steps)
    tied = TiedConv(source, padding="CAUSAL", use_bias=False)
    np.testing.assert_allclose(tied(steps), plain, atol=1e-6)


@pytest.mark.parametrize(
    ("equation", "shape", "bias_axes", "bias"),
    [
        ("ab...,bc->ac...", (2, 3, 5), "c", (4, 1)),
        ("ab...,bc->ac...", (2, 3, 4), "c", (4, 1)),
        ("ab...,bc->ac...", (2, 3), "c", (4,)),
        ("...b,bc->...c", (2, 5, 3), "c", (4,)),
    ],
)
def test_a_bias_beside_axes_without_letters(equation, shape, bias_axes, bias):
    dense = layers.Dense(4)
    dense.build((None, 3))
    tied = TiedEinsumDense(dense, equation, bias_axes=bias_axes)
    x = RANDOM.random(shape).astype("float32")
    tied(x)
    assert tuple(tied.bias.shape) == bias
    added = RANDOM.random(bias).astype("float32")
    tied.bias.assign(added)
    expected = np.einsum(equation, x, np.asarray(dense.kernel)) + added
    np.testing.assert_allclose(tied(x), expected, rtol=1e-5)


def test_a_bias_of_channels_before_as_many_columns():
    source = layers.Conv2D(4, 1)
    source.build((None, 5, 4, 3))
    tied = TiedConv(source)
    tied.build((None, 5, 4, 3))
    tied.bias.assign([1.0, 2.0, 3.0, 4.0])
    added = np.asarray(tied.finish(ops.zeros((1, 4, 5, 4)), channels_first=True))
    np.testing.assert_array_equal(
        added, np.broadcast_to([[[[1]], [[2]], [[3]], [[4]]]], added.shape)
    )


@pytest.mark.parametrize("mode", ["looped", "joined"])
def test_states_for_each_use(mode):
    cell = layers.GRU(3)
    a, b = RANDOM.random((2, 2, 4, 5)).astype("float32")
    states = [np.ones((2, 3), "float32"), np.zeros((2, 3), "float32")]
    shared = Shared(cell, mode=mode)
    expected = [
        cell(x, initial_state=ops.convert_to_tensor(h)) for x, h in zip((a, b), states, strict=True)
    ]
    for one, other in zip(shared([a, b], initial_state=states), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    same = [cell(x, initial_state=ops.convert_to_tensor(states[0])) for x in (a, b)]
    for one, other in zip(shared([a, b], initial_state=states[0]), same, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert len(shared([a, b], training=True)) == 2
