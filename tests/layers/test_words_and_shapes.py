"""Arguments are read as Keras reads them, and shapes that do not fit are named."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_shared.layers import LocallyConnected2D, Shared, TiedConv, TiedEinsumDense
from keras_shared.sharing import unshare
from keras_shared.tying import TieError

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
    assert len(shared([a, b], training=True)) == 2


class Scaled(layers.Layer):
    def call(self, inputs, scale=1.0, table=None):
        return inputs * scale if table is None else inputs + table


@pytest.mark.parametrize("mode", ["looped", "joined"])
def test_arguments_of_each_use_and_of_all(mode):
    x, shared = RANDOM.random((3, 4)).astype("float32"), Shared(Scaled(), mode=mode)
    for table in (np.ones((3, 4), "float32"), np.ones((4,), "float32"), np.ones((1, 4), "float32")):
        if len(table) != 3 or mode == "looped":  # a row of each example is none of two batches
            for y in shared([x, x], table=ops.convert_to_tensor(table)):
                np.testing.assert_allclose(y, x + table, rtol=1e-6)
    for y in shared([x, x], scale=[2.0, 2.0]):
        np.testing.assert_allclose(y, 2 * x, rtol=1e-6)
    for own in ([1.0, 2.0], [ops.convert_to_tensor(1.0), ops.convert_to_tensor(2.0)]):
        if mode == "joined":
            with pytest.raises(ValueError, match="differs between the uses.*Use mode='looped'"):
                shared([x, x], scale=own)
        else:
            np.testing.assert_allclose(shared([x, x], scale=own)[1], 2 * x, rtol=1e-6)
    per_use = [np.full((1, 4), i, "float32") for i in range(2)]
    if mode == "joined":
        with pytest.raises(ValueError, match="differs between the uses"):
            shared([x, x], table=per_use)


def test_an_axis_that_nothing_has():
    dense = layers.Dense(4)
    dense.build((None, 3))
    with pytest.raises(TieError, match=r"gives axes \['d'\] that neither its inputs nor"):
        TiedEinsumDense(dense, "ab,bc->ad")(np.ones((2, 3), "float32"))
    tied, x = TiedEinsumDense(dense, "ab...,bc->ac...", bias_axes="c"), keras.Input((3, 5))
    model = keras.Model(x, tied(x))
    tied.bias.assign(RANDOM.random((4, 1)))
    given = RANDOM.random((2, 3, 5)).astype("float32")
    np.testing.assert_allclose(unshare(model)(given), model(given), rtol=1e-5)
