"""A stack is loaded and cloned with the layers frozen that were."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_shared.layers import ClusteredConv2D, ClusteredDense, SharedStack, TransformerBlock
from keras_shared.tying import TieError

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


def trained(model):
    return [variable.path for variable in model.trainable_variables]


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [(0,), (1,), (0, 1), ()])
def test_of_two_blocks(frozen, tmp_path):
    x = keras.Input((4,))
    stack = SharedStack(layers.Dense(4, name="block"), depth=4, distinct=2)
    model = keras.Model(x, stack(x))
    for number in frozen:
        stack.blocks[number].trainable = False
    model.compile("adam", "mse")
    if trained(model):
        model.fit(X, X, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    clone = keras.models.clone_model(model)
    for other in (loaded, clone, keras.Model.from_config(model.get_config())):
        assert [len(v) for v in (trained(other), other.weights)] == [4 - 2 * len(frozen), 4]
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    if trained(model):  # and so the optimizer's variables fit
        assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
        assert int(loaded.optimizer.iterations) == 1


def test_of_a_stack_that_is_not_built_yet():
    stack = SharedStack(layers.Dense(4), depth=4, distinct=2)
    stack(X)
    stack.blocks[1].trainable = False
    again = SharedStack.from_config(SharedStack.from_config(stack.get_config()).get_config())
    again(X)
    assert [block.trainable for block in again.blocks] == [True, False]


@pytest.mark.slow
def test_of_a_part_that_each_use_has_for_its_own(tmp_path):
    x = keras.Input((5, 4))
    stack = SharedStack(TransformerBlock(2, 8), depth=3, own_normalization=True)
    model = keras.Model(x, stack(x))
    stack.uses[1].attention_norm.trainable = False
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert len(trained(loaded)) == len(trained(model)) == len(model.weights) - 2
    again = loaded.layers[-1]
    assert [use.attention_norm.trainable for use in again.uses] == [True, False, True]


def test_lora_in_some_blocks_is_refused(tmp_path):
    x = keras.Input((4,))
    stack = SharedStack(layers.Dense(4), depth=2, distinct=2)
    model = keras.Model(x, stack(x))
    stack.block.enable_lora(2)
    with pytest.raises(TieError, match="enable_lora` with the same rank on each of `blocks`"):
        model.save(tmp_path / "m.keras")
    stack.blocks[1].enable_lora(2)  # as it says
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)


@pytest.mark.slow
def test_clustered_layers_are_built_while_a_graph_is_traced():
    model = keras.Sequential([ClusteredDense(4, codes=4)])
    model.compile("sgd", "mse")
    model.fit(X, X, verbose=0)
    kernel = np.asarray(model.layers[0].kernel)
    assert kernel.shape == (4, 4) and 1 < len(np.unique(kernel)) <= 4
    stack = SharedStack(ClusteredDense(4, codes=4), depth=2)
    assert stack(X).shape == (6, 4)
    images = keras.Sequential([ClusteredConv2D(2, 3, codes=4), layers.GlobalMaxPooling2D()])
    images.compile("sgd", "mse")
    images.fit(np.ones((3, 8, 8, 1)), np.ones((3, 2)), verbose=0)
