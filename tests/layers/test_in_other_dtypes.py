"""Layers that call others pass on what they are given: the others cast, or take it as it is."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_shared.layers import Shared, TiedLayer
from keras_shared.sharing import tie_weights

IDS = np.array([[257], [1001], [4999]], "float32")  # bfloat16 knows none of them


@pytest.fixture(params=["mixed_bfloat16", "mixed_float16"])
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def test_numbers_of_words_are_not_rounded(policy):
    words, ids = layers.Embedding(5000, 2, name="words"), keras.Input((1,))
    read = [words(ids), TiedLayer(words)(ids), *Shared(words)([ids, ids])]
    joined = Shared(words, mode="joined")([ids, ids])
    plain, *others = keras.Model(ids, [*read, *joined]).predict(IDS, verbose=0)
    for other in others:
        np.testing.assert_array_equal(np.asarray(plain, "float32"), np.asarray(other, "float32"))


def test_layers_of_float32_stay_so_when_they_are_tied(policy):
    x = keras.Input((3,))
    a, b = (layers.Dense(2, dtype="float32", name=name) for name in "ab")
    model = keras.Model(x, [a(x), b(x)])
    b.set_weights(a.get_weights())
    tied = tie_weights(model, {"b": "a"}, transpose=False)
    given = np.float32([[100.3, 257.7, -31.1]])
    for old, new in zip(model(given), tied(given), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_source_of_more_digits():
    dense = layers.Dense(2, dtype="float64")
    x = 1e8 + np.random.default_rng(0).random((4, 3))
    for y in (TiedLayer(dense)(x), *Shared(dense)([x, x])):
        assert y.dtype == "float64"
        np.testing.assert_array_equal(y, dense(x))
