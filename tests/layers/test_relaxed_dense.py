import keras
import numpy as np
import pytest
from keras import layers

import keras_shared
from keras_shared.layers import RelaxedDense
from keras_shared.tying import TieError

X = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")


def model_of(source, rank=2):
    inputs = keras.Input((5, 6))
    reader = RelaxedDense(source, rank, b_initializer="normal", name="reader")
    outputs = layers.Concatenate()([source(inputs), reader(inputs)])
    model = keras.Model(inputs, outputs)
    source.bias.assign(np.linspace(-1, 1, np.prod(source.bias.shape)).reshape(source.bias.shape))
    return model


SOURCES = {
    "dense": (lambda: layers.Dense(4, "tanh", name="code"), "bti,ij->btj"),
    "heads": (lambda: layers.EinsumDense("bti,ihd->bthd", (5, 2, 3), activation="tanh",
                                         bias_axes="hd", name="code"), "bti,ihd->bthd"),
    "turned": (lambda: layers.EinsumDense("bti,di->btd", (5, 4), activation="tanh",
                                          bias_axes="d", name="code"), "bti,di->btd"),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_values_by_hand(name, tmp_path):
    make, equation = SOURCES[name]
    model = model_of(make())
    source, reader = model.get_layer("code"), model.get_layer("reader")
    a, b = reader.get_weights()
    assert a.shape == (6, 2) and b.shape[0] == 2  # the inputs are the rows
    difference = (a @ b).T if name == "turned" else (a @ b).reshape(source.kernel.shape)

    def expected():
        x, w = X.astype("float64"), source.kernel.numpy()
        uses = [np.tanh(np.einsum(equation, x, k) + source.bias) for k in (w, w + difference)]
        return np.concatenate(uses, axis=-1)

    np.testing.assert_allclose(model.predict(X, verbose=0), expected(), atol=1e-5)
    assert np.abs(np.subtract(*np.split(expected(), 2, axis=-1))).max() > 0.01
    source.kernel.assign(source.kernel * 1.5 + 0.1)
    wanted = expected()
    np.testing.assert_allclose(model.predict(X, verbose=0), wanted, atol=1e-5)
    model.save(tmp_path / "m.keras")
    loaded = keras_shared.load(tmp_path / "m.keras")
    assert loaded.count_params() == model.count_params()
    np.testing.assert_allclose(loaded.predict(X, verbose=0), wanted, atol=1e-5)
    apart = keras_shared.unshare(model)
    np.testing.assert_allclose(apart.predict(X, verbose=0), wanted, atol=1e-5)
    assert apart.count_params() == 2 * source.count_params()
    cut = keras_shared.untie(loaded)
    np.testing.assert_allclose(cut.predict(X, verbose=0), wanted, atol=1e-5)
    cut.get_layer("code").kernel.assign(np.zeros(source.kernel.shape))
    still = np.split(cut.predict(X, verbose=0), 2, axis=-1)[1]
    np.testing.assert_allclose(still, np.split(wanted, 2, axis=-1)[1], atol=1e-5)
    report = keras_shared.sharing_report(model)
    kernel = next(w for w in report.weights if w.path.endswith("code/kernel"))
    assert kernel.uses == 2 and kernel.multiply_adds == 2 * 5 * source.kernel.numpy().size
    assert report.totals["multiply_adds"] is not None


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("mode", "lora"), [("int8", False), ("int4", False), (None, True)])
def test_a_quantised_or_adapted_source_unshared(name, mode, lora):
    model = model_of(SOURCES[name][0]())
    source = model.get_layer("code")
    if mode:
        source.quantize(mode)
    if lora:
        source.enable_lora(2, lora_alpha=6)
        source.lora_kernel_b.assign(np.ones(source.lora_kernel_b.shape))
    apart = keras_shared.unshare(model)
    np.testing.assert_allclose(apart(X), model(X), atol=1e-5)
    copy = next(layer for layer in apart.layers if layer.name == "reader")
    assert copy.quantization_mode is None and not copy.lora_enabled


def test_difference_of_an_svd():
    model = model_of(SOURCES["heads"][0](), rank=6)
    reader = model.get_layer("reader")
    wanted = np.random.default_rng(1).normal(size=(6, 2, 3))
    reader.set_difference(wanted)
    found = reader.lora_kernel_a.numpy() @ reader.lora_kernel_b.numpy()
    np.testing.assert_allclose(found.reshape(6, 2, 3), wanted, atol=1e-5)


def test_begins_as_its_source_and_no_wider_than_it():
    source = layers.Dense(4)
    source.build((None, 6))
    reader = RelaxedDense(source, rank=9)
    np.testing.assert_allclose(reader(X), source(X), atol=1e-6)
    assert reader.lora_kernel_a.shape == (6, 4) and reader.count_params() == 4 * (6 + 4)


def test_bad_input():
    with pytest.raises(ValueError, match="positive integer. Received: rank=0"):
        RelaxedDense(layers.Dense(2), rank=0)
    with pytest.raises(TieError, match="pass a Dense or EinsumDense"):
        RelaxedDense(layers.Conv1D(2, 2))
    with pytest.raises(TieError, match="has not been built"):
        RelaxedDense(layers.Dense(2))(X)
