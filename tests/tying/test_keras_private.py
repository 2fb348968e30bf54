"""These fail on the day that Keras changes a name which keras_private.py uses."""

import random

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_shared.tying import keras_private


def test_outermost_layer_is_the_model_that_is_called():
    seen = []

    class Look(layers.Layer):
        def call(self, inputs):
            seen.append(keras_private.outermost_layer())
            return inputs

    inner = keras.Sequential([Look()])
    model = keras.Sequential([inner])
    assert keras_private.outermost_layer() is None
    model(np.ones((1, 2), "float32"))
    assert seen[-1] is model
    assert keras_private.outermost_layer() is None


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", "clone", None])
def test_the_model_that_is_being_copied(name, tmp_path):
    seen = []

    class Look(layers.Dense):
        def get_config(self):
            seen.append(keras_private.being_copied())
            return super().get_config()

        def save_own_variables(self, store):
            seen.append(keras_private.being_copied())
            super().save_own_variables(store)

    model = keras.Sequential([keras.Input((2,)), Look(1)])
    whole = name != "m.weights.h5"
    if name is None:
        model.to_json()
        assert seen and all(found == (None, False) for found in seen)
        return
    if name == "clone":
        keras.models.clone_model(model)
    else:
        (model.save if whole else model.save_weights)(tmp_path / name)
    assert seen and all(saved is model and known is whole for saved, known in seen)


def test_upstream_layers_looks_into_sub_models_and_not_downstream():
    a, b, c = layers.Dense(2), layers.Dense(2), layers.Dense(2)
    x, inputs = keras.Input((2,)), keras.Input((2,))
    sub = keras.Model(x, a(x))
    middle = b(sub(inputs))
    c(middle)
    found = list(keras_private.upstream_layers(middle))
    assert {id(a), id(b), id(sub)} <= {id(f) for f in found}
    assert not any(f is c for f in found)
    assert list(keras_private.upstream_layers(np.ones(2))) == []


@pytest.mark.parametrize("block", [-1, 16])
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_dequantised_weights_are_what_keras_computes_with(mode, block):
    config = None
    if mode == "int4":
        config = keras.quantizers.Int4QuantizationConfig(block_size=block)
    dense = layers.Dense(32, use_bias=False)
    dense.build((None, 64))
    exact = dense.kernel.numpy()
    dense.quantize(mode, config=config)
    read = np.asarray(keras_private.dequantized_dense(dense, "float32"))
    assert read.shape == exact.shape
    assert np.abs(read - exact).max() < 0.1 * np.abs(exact).max()

    table = layers.Embedding(50, 32, embeddings_initializer="normal")
    table.build()
    table.quantize(mode, config=config)
    ids = np.arange(50)
    read = keras_private.dequantized_embedding(table, "float32")
    np.testing.assert_allclose(read, table(ids), atol=1e-6)


def test_source_is_no_child_of_its_reader():
    from keras_shared.layers import TiedDense

    source = layers.Dense(3)
    source.build((None, 2))
    reader = TiedDense(source)
    reader.build((None, 3))
    assert keras_private.flatten_layers(reader) == [reader]
    assert [v.name for v in reader.variables] == ["bias"]
    names = reader._trackable_children("savedmodel")
    assert any(child is source.kernel for child in names.values())
    assert not any(c is source.kernel for c in reader._trackable_children("checkpoint").values())


def test_shapes_alone_matter_while_keras_works_them_out():
    seen = []

    class Look(layers.Layer):
        def call(self, inputs):
            seen.append(keras_private.shapes_alone_matter())
            return inputs

    Look()(keras.Input((2,)))
    assert seen.pop() is True
    Look()(np.ones((1, 2), "float32"))
    assert seen.pop() is False


def test_run_graph_calls_each_layer_in_order():
    inputs = keras.Input((2,))
    first, second = layers.Dense(3, name="first"), layers.Dense(2, name="second")
    model = keras.Model(inputs, {"out": second(first(inputs))})
    seen = []

    def call(layer, *args, **kwargs):
        seen.append(layer.name)
        return layer(*args, **kwargs)

    x = np.ones((1, 2), "float32")
    outputs = keras_private.run_graph(model, x, call)
    assert seen == ["first", "second"]
    np.testing.assert_allclose(outputs["out"], model(x)["out"])


def test_tensorflow_learns_what_is_frozen_while_a_file_is_written():
    layer = layers.Dense(2)
    layer.build((None, 3))
    layer.trainable = False
    values = [v.value for v in layer.variables]
    if keras.backend.backend() != "tensorflow":
        pytest.skip("of TensorFlow's variables")
    assert all(value.trainable for value in values)  # Keras does not pass it on
    with keras_private.trainable_as_in_keras(layer.variables, layer.trainable_variables):
        assert not any(value.trainable for value in values)
    assert all(value.trainable for value in values)


def test_saved_layers_are_where_keras_saves_them(tmp_path):
    """Sub-models, wrappers, lists of layers: every group of the file."""

    class Blocks(layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = [layers.Dense(3), [layers.Dense(3)], {"a": layers.LayerNormalization()}]

        def call(self, inputs):
            return self.parts[2]["a"](self.parts[1][0](self.parts[0](inputs)))

    x, y = keras.Input((5, 3)), keras.Input((5, 3))
    sub = keras.Model(x, layers.Bidirectional(layers.LSTM(2, return_sequences=True))(Blocks()(x)))
    model = keras.Model(y, layers.TimeDistributed(layers.Dense(1))(sub(y)))
    model.save_weights(tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5") as file:
        held = {}
        file.visititems(
            lambda name, item: (
                held.update({name[:-5].rstrip("/"): item})
                if name.endswith("vars") and len(item)
                else None
            )
        )
        found = {
            path: above[-1]
            for path, above, first in keras_private.saved_layers(
                model, lambda layer: (layer, type(layer).__name__)
            )
            if first is None
        }
        assert set(held) <= set(found) and len(held) == 6
        for path, group in held.items():
            assert [tuple(v.shape) for v in found[path].weights] == [
                group[str(i)].shape for i in range(len(group))
            ]


def test_variables_without_memory():
    """Shapes alone: of a net of 4 TB, and up to where it fails; nothing else is changed."""

    def build():
        x = keras.Input((1000,))
        keras.Model(x, layers.Dropout(0.5)(layers.Dense(10**9)(x)))

    def failing():
        build()
        raise ValueError

    for made in map(keras_private.variables_made_by, (build, failing)):
        assert {(1000, 10**9), (10**9,)} <= {tuple(v.shape) for v in made}
    keras.utils.set_random_seed(3)
    expected = layers.Dense(2, name="top").build((None, 3)), random.random()
    keras.utils.set_random_seed(3)
    keras_private.variables_made_by(build)
    assert (layers.Dense(2, name="top").build((None, 3)), random.random()) == expected
    with keras.StatelessScope():
        pass  # gives values to what was made in a scope: to none of the above
    assert keras_private.variables_made_by(lambda: None) == []


def test_a_layer_is_replaced_where_it_is_held():
    class Holder(layers.Layer):
        def build(self, input_shape):
            self.first, self.last = layers.Dense(2), layers.Dense(3)
            self.listed, self.named = [self.first], {"a": self.first}
            self.first.build(input_shape)
            self.last.build(input_shape)

    holder = Holder()
    holder.build((None, 2))
    new = layers.Dense(2)
    new.build((None, 2))
    old, last = holder.first, holder.last
    assert keras_private.replace_layer(holder, old, new)
    assert holder.first is holder.listed[0] is holder.named["a"] is new
    assert keras_private.children_of(holder) == [new, last]
    assert [v.shape for v in holder.weights] == [(2, 2), (2,), (2, 3), (3,)]
    assert not any(v is w for v in holder.variables for w in old.variables)


def test_mask_of():
    table = layers.Embedding(3, 2, mask_zero=True)
    np.testing.assert_array_equal(keras_private.mask_of(table(np.array([0, 1]))), [False, True])
    assert keras_private.mask_of(np.ones(2)) is None


def test_arguments_are_those_that_a_layer_says_it_takes():
    def taking():
        layer = layers.Dense(2)
        keras_private.take_arguments(layer, ["x", "mask", "**kwargs"])
        return layer

    assert keras_private.arguments_of(taking()) == ["x", "mask", "**kwargs"]
    assert keras_private.arguments_of(layers.LSTM(2))[:2] == ["sequences", "initial_state"]


def batches_of(form):
    """A net, and batches for it: what a step takes may be one tensor, several, or weighted."""
    x, y = np.ones((8, 3), "float32"), np.ones((8, 2), "float32")
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    dense = layers.Dense(2)
    if form == "two inputs by name, two outputs":
        net = keras.Model({"a": a, "b": b}, [dense(a), dense(b)])
        return net, tf.data.Dataset.from_tensors(({"a": x, "b": x}, (y, y)))
    rows = (x, y, np.ones(8, "float32")) if form == "weighted" else (x, y)
    return keras.Model(a, dense(a)), tf.data.Dataset.from_tensor_slices(rows).batch(4)


@pytest.mark.parametrize("form", ["plain", "weighted", "two inputs by name, two outputs"])
def test_a_step_is_traced_once_when_its_variables_are_there(form):
    traced = []
    for ready in (False, True):
        model, batches = batches_of(form)
        metrics = [["mae"], ["mae"]] if "two" in form else ["mae"]
        model.compile("adam", "mse", metrics=metrics)
        step, seen = model.train_step, []

        def counting(data, step=step, seen=seen):
            seen.append(1)
            return step(data)

        model.train_step = counting
        if ready:
            keras_private.make_variables(model, batches.element_spec)
            assert model.optimizer.built
        model.fit(batches, verbose=0)
        traced.append(len(seen))
    assert traced == [2, 1]
