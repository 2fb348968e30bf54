"""A tied layer from a package of somebody else: one file, and nothing to change in this library."""

import importlib
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_shared.layers import TiedConv2DTranspose, TiedDense
from keras_shared.sharing import Reading, draw_sharing, sharing_report, unshare
from keras_shared.tying import TiedReader, TieError, check_ties, readers_of, tie, untie

ADJOINT = '''
import math

import keras
from keras import ops

from keras_shared.tying import TiedReader


@keras.saving.register_keras_serializable("new_layers")
class TiedConv1DTranspose(TiedReader):
    """The adjoint of a Conv1D, with a bias of its own."""

    source_classes = (keras.layers.Conv1D,)
    source_attributes = ("strides", "padding")
    form = "convolution adjoint"
    convolves = True

    def __init__(self, source, gain=1.0, **kwargs):
        super().__init__(source, **kwargs)
        self.gain = gain

    def build(self, input_shape):
        _, channels, _ = self.tied_weight_shape()
        self.bias = self.add_weight(name="bias", shape=(channels,), initializer="normal")
        super().build(input_shape)

    def call(self, inputs):
        outputs = ops.conv_transpose(inputs, self.tied_weight(), **self.geometry())
        return self.gain * (outputs + self.bias)

    def compute_output_shape(self, input_shape):
        side, channels, _ = self.tied_weight_shape()
        layer = keras.layers.Conv1DTranspose(channels, side, **self.geometry())
        return tuple(layer.compute_output_shape(input_shape))

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}

    def geometry(self):
        source = self.describe_source()
        return {"strides": source["strides"], "padding": source["padding"]}

    def multiply_adds(self, weight, input_shape, output_shape):
        if weight is self.bias:
            return math.prod(output_shape[1:])
        return input_shape[1] * math.prod(weight.shape)

    def plain_counterpart(self):
        assert self.gain == 1
        side, channels, _ = self.tied_weight_shape()
        return keras.layers.Conv1DTranspose, {
            "filters": channels,
            "kernel_size": side,
            "kernel_initializer": self.source_initializer(),
            "dtype": self.dtype_policy,
            **self.geometry(),
        }
'''


@pytest.fixture
def new_layers(tmp_path, monkeypatch):
    """A package `new_layers` outside of this library: one file, one line in its `__init__.py`."""
    folder = tmp_path / "elsewhere" / "new_layers"
    folder.mkdir(parents=True)
    (folder / "tied_conv1d_transpose.py").write_text(ADJOINT)
    (folder / "__init__.py").write_text("from .tied_conv1d_transpose import TiedConv1DTranspose\n")
    monkeypatch.syspath_prepend(folder.parent)
    yield importlib.import_module("new_layers")
    for name in [n for n in sys.modules if n.partition(".")[0] == "new_layers"]:
        del sys.modules[name]


@pytest.fixture
def model(new_layers):
    """Nested on purpose: the source in a sub-model, the reader outside of it."""
    x, inputs = keras.Input((12, 2)), keras.Input((12, 2))
    source = layers.Conv1D(5, 3, strides=3, bias_initializer="normal", name="conv")
    encoder = keras.Model(x, source(x), name="encoder")
    reader = new_layers.TiedConv1DTranspose(source, name="back")
    return keras.Model(inputs, reader(encoder(inputs)), name="autoencoder")


X = np.random.default_rng(0).normal(size=(3, 12, 2)).astype("float32")


def by_hand(model):
    """Fields of 3 side by side: a dense layer on each, and its transpose."""
    source, reader = model.get_layer("encoder").get_layer("conv"), model.get_layer("back")
    kernel = source.kernel.numpy().reshape(6, 5)
    back = (X.reshape(3, 4, 6) @ kernel + source.bias.numpy()) @ kernel.T
    return back.reshape(3, 12, 2) + reader.bias.numpy()


def check_tied(model):
    """One kernel, and every use follows it."""
    assert len(model.variables) == 3
    for _ in range(2):
        np.testing.assert_allclose(model.predict(X, verbose=0), by_hand(model), atol=1e-5)
        kernel = model.get_layer("encoder").get_layer("conv").kernel
        kernel.assign(kernel * 1.5)


@pytest.mark.slow
def test_called_saved_loaded_cloned_checked_and_trained(model, tmp_path):
    check_tied(model)
    check_ties(model)
    model.save(tmp_path / "m.keras")
    check_tied(keras.models.load_model(tmp_path / "m.keras"))
    clone = keras.models.clone_model(model)
    check_tied(clone)
    assert readers_of(clone)[0].source() is clone.get_layer("encoder").get_layer("conv")
    check_tied(keras.models.model_from_json(model.to_json()))
    model.compile("sgd", "mse")
    model.fit(X, X, verbose=0)
    check_tied(model)


@pytest.mark.slow
def test_loaded_in_a_fresh_process(model, tmp_path, fresh_python):
    model.save(tmp_path / "m.keras")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import keras, new_layers
model = keras.models.load_model(sys.argv[2])
print(model.count_params(), model.get_layer("back").compute_output_shape((None, 4, 5)))
"""
    said = fresh_python(code, tmp_path / "elsewhere", tmp_path / "m.keras")
    assert said == f"{model.count_params()} (None, 12, 2)"


def test_untied_and_tied_again(model):
    reader, source = model.get_layer("back"), model.get_layer("encoder").get_layer("conv")
    wanted = model.predict(X, verbose=0)
    untie(model)
    np.testing.assert_allclose(model.predict(X, verbose=0), wanted, atol=1e-6)
    assert sharing_report(model).totals["multiply_adds"] is not None
    assert unshare(model).count_params() == model.count_params()
    tie(reader, source)
    model.compile()  # Keras forgets what it traced
    check_tied(model)


def test_reported_and_drawn(model, tmp_path):
    report = sharing_report(model)
    kernel = report.weights[0]
    assert kernel.readers == {
        "conv": Reading("as is", 1),
        "back": Reading("convolution adjoint", 1),
    }
    assert kernel.uses == 2 and kernel.multiply_adds == 2 * 4 * (3 * 2 * 5)
    assert report.totals["multiply_adds"] == kernel.multiply_adds + 4 * 5 + 12 * 2
    assert report.totals["parameters_without_sharing"] == model.count_params() + 30
    assert report.stored_bytes["litert"] - report.stored_bytes["onnx"] == 4 * 30
    assert report.warnings == ()
    text = draw_sharing(report, tmp_path / "m.svg").read_text()
    assert "back" in text and "dashed: convolution adjoint" in text


def test_unshared(model):
    apart = unshare(model)
    np.testing.assert_allclose(apart.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)
    assert type(apart.get_layer("back")) is layers.Conv1DTranspose
    assert apart.count_params() == model.count_params() + 30
    assert max(w.uses for w in sharing_report(apart).weights) == 1
    fresh = unshare(model, copy_values=False)
    assert np.abs(fresh.get_layer("back").kernel - apart.get_layer("back").kernel).max() > 0
    std = [np.std(unshare(wide_of(model), copy_values=False).get_layer(n).kernel) for n in NAMES]
    assert std[0] == pytest.approx(std[1], rel=0.1)  # drawn as the source's kernel was


def test_unshared_narrower_and_with_local_convolutions(model):
    flat = wide_of(model)
    narrow = unshare(flat, copy_values=False, parameters=flat.count_params())
    assert narrow.count_params() <= flat.count_params()
    first, *_, last = [layer.filters for layer in narrow.layers if hasattr(layer, "filters")]
    assert first < 50 and last == 2  # the width of the outputs stays
    maps = keras.Input((4, 5))
    alone = keras.Model(maps, model.get_layer("back")(maps))
    with pytest.raises(ValueError, match="TiedConv1DTranspose 'back' has no local counterpart"):
        unshare(alone, convolutions=True)


NAMES = ("wide", "reader")


def wide_of(model):
    """Source and reader at one level, with 50 filters drawn with a deviation of 0.02."""
    inputs = keras.Input((12, 2))
    drawn = keras.initializers.RandomNormal(stddev=0.02)
    source = layers.Conv1D(50, 3, strides=3, kernel_initializer=drawn, name="wide")
    reader = type(model.get_layer("back"))(source, name="reader")
    return keras.Model(inputs, reader(source(inputs)))


@keras.saving.register_keras_serializable("tests")
class ScaledTiedDense(TiedDense):
    """A subclass with an argument of its own."""

    def __init__(self, source, note="", **kwargs):
        super().__init__(source, **kwargs)
        self.note = note

    def get_config(self):
        return {**super().get_config(), "note": self.note}


@keras.saving.register_keras_serializable("tests")
class AnotherAdjoint(TiedConv2DTranspose):
    pass


def with_dense():
    inputs, dense = keras.Input((6,)), layers.Dense(4, name="code")
    return keras.Model(inputs, ScaledTiedDense(dense, note="n", name="reader")(dense(inputs)))


def with_convolution():
    image, conv = keras.Input((9, 9, 2)), layers.Conv2D(5, 3, strides=2, name="code")
    return keras.Model(image, AnotherAdjoint(conv, name="reader")(conv(image)))


@pytest.mark.parametrize("build", [with_dense, with_convolution])
def test_a_subclass_of_ours_reads_as_its_base_does(build):
    model = build()
    report = sharing_report(model)
    base = type(model.get_layer("reader")).__bases__[0]
    assert report.weights[0].readers["reader"] == Reading(base.form, 1)
    assert report.weights[0].uses == 2 and report.totals["multiply_adds"] is not None
    apart = unshare(model)
    assert apart.count_params() == report.totals["parameters_without_sharing"]
    x = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(apart.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


@keras.saving.register_keras_serializable("tests")
class Terse(TiedReader):
    """As little as a reader can define."""

    source_classes = (layers.Dense,)

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.tied_weight())


def test_a_reader_that_says_nothing_is_seen_and_refused_with_advice():
    inputs, dense = keras.Input((4,)), layers.Dense(4, use_bias=False, name="code")
    model = keras.Model(inputs, Terse(dense, name="again")(dense(inputs)))
    report = sharing_report(model)
    (kernel,) = report.weights
    assert kernel.readers == {"code": Reading("as is", 1), "again": Reading("as is", 1)}
    assert kernel.multiply_adds is report.totals["multiply_adds"] is None
    assert report.stored_bytes["litert"] == report.stored_bytes["onnx"]  # read in one layout
    with pytest.raises(TieError, match="'again', whose width it could choose. Define `plain_count"):
        unshare(model, copy_values=False, parameters=20)
    x = np.random.default_rng(2).normal(size=(3, 4)).astype("float32")
    apart = unshare(model)  # as the message says, without `parameters`
    assert apart.count_params() == 2 * model.count_params()
    np.testing.assert_allclose(apart.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    fresh = unshare(model, copy_values=False)
    own = fresh.get_layer("again").own_layer.kernel
    assert np.abs(own - dense.kernel).max() > 0
    untie(model)
    assert sharing_report(model).totals["parameters"] == 32


@keras.saving.register_keras_serializable("tests")
class Twice(layers.Wrapper):
    """A layer of somebody else that calls another one twice."""

    def call(self, inputs):
        return self.as_calls(lambda layer, x: layer(x), inputs)

    def as_calls(self, call, inputs):
        return call(self.layer, call(self.layer, inputs))


@keras.saving.register_keras_serializable("tests")
class Offsets(layers.Layer):
    def build(self, input_shape):
        self.offsets = self.add_weight(name="offsets", shape=input_shape[1:], initializer="normal")

    def call(self, inputs):
        return inputs + self.offsets

    def multiply_adds(self, weight, input_shape, output_shape):
        assert weight is self.offsets and output_shape == input_shape
        return output_shape[1]


def test_layers_that_are_no_readers_say_what_they_do():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, Offsets()(Twice(layers.Dense(5, use_bias=False))(inputs)))
    report = sharing_report(model)
    assert list(report.weights[0].readers.values()) == [Reading("as is", 2)]
    assert report.totals["multiply_adds"] == 2 * 25 + 5
    apart = unshare(model)
    assert [w.uses for w in sharing_report(apart).weights] == [1, 1, 1]
    x = np.random.default_rng(3).normal(size=(2, 5)).astype("float32")
    np.testing.assert_allclose(apart.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
