import keras
import numpy as np
import pytest
from keras import layers

from keras_shared.layers import TiedEinsumDense
from keras_shared.sharing import sharing_report, unshare
from keras_shared.tying import TieError, check_ties, readers_of


def noise(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


FORMS = {  # equation of the source, its output shape, shape of its inputs
    "heads": ("bti,ihd->bthd", (5, 2, 3), (5, 6)),
    "dots": ("...x,xy->...y", (4,), (2, 6)),
    "summed": ("bthd,hdi->bti", (5, 6), (5, 2, 3)),
}


def model_of(name, **reader):
    equation, output_shape, shape = FORMS[name]
    inputs = keras.Input(shape)
    source = layers.EinsumDense(equation, output_shape, name="code")
    return keras.Model(inputs, TiedEinsumDense(source, name="reader", **reader)(source(inputs)))


@pytest.mark.parametrize("name", sorted(FORMS))
def test_adjoint(name):
    """<W u, v> = <u, W^T v>, and the loop over its indices in NumPy."""
    equation, _, shape = FORMS[name]
    model = model_of(name)
    source, reader = model.get_layer("code"), model.get_layer("reader")
    u = noise(2, *shape)
    kernel = source.kernel.numpy()
    mapped = np.einsum(equation, u, kernel)
    np.testing.assert_allclose(source(u), mapped, atol=1e-5)
    v = noise(*mapped.shape)
    back = np.asarray(reader(v))
    assert back.shape == u.shape == reader.compute_output_shape(v.shape)
    np.testing.assert_allclose(np.sum(mapped * v), np.sum(u * back), rtol=1e-4)


def test_any_form_of_a_dense_and_a_table():
    dense, table = layers.Dense(4, use_bias=False), layers.Embedding(7, 3)
    x = noise(2, 5)
    np.testing.assert_allclose(
        TiedEinsumDense(dense, "ab,bc->ac")(x + 0 * dense(x)[:, :1]), dense(x), atol=1e-6
    )
    table(np.array([1]))
    rows = TiedEinsumDense(table, "btd,vd->btv")(noise(2, 5, 3))
    np.testing.assert_allclose(rows, noise(2, 5, 3) @ table.embeddings.numpy().T, atol=1e-5)


@pytest.mark.parametrize("bias_axes", ["i", "ti"])
def test_bias_as_in_keras(bias_axes):
    model = model_of("heads", bias_axes=bias_axes, bias_initializer="normal", activation="relu")
    apart = unshare(model)
    assert type(apart.get_layer("reader")) is layers.EinsumDense
    x = noise(3, 5, 6)
    np.testing.assert_allclose(apart.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    assert model.get_layer("reader").bias.shape == apart.get_layer("reader").bias.shape


@pytest.mark.parametrize("name", sorted(FORMS))
def test_survives_and_is_counted(name, tmp_path):
    model = model_of(name)
    x = noise(2, *FORMS[name][2])
    check_ties(model)
    model.save(tmp_path / "m.keras")
    for other in (keras.models.load_model(tmp_path / "m.keras"), keras.models.clone_model(model)):
        other.set_weights(model.get_weights())
        assert len(other.variables) == 1
        np.testing.assert_allclose(other.predict(x, verbose=0), model.predict(x, verbose=0))
        assert readers_of(other)[0].source() is other.get_layer("code")
    form = sharing_report(model).weights[0].readers["reader"].form
    assert form == "adjoint"
    reader, size = model.get_layer("reader"), model.get_layer("code").kernel
    outs = model.get_layer("code").compute_output_shape((1, *FORMS[name][2]))
    ins = (1, *FORMS[name][2])
    by_einsum = {"heads": 5 * 6 * 2 * 3, "dots": 2 * 6 * 4, "summed": 5 * 6 * 2 * 3}[name]
    assert reader.multiply_adds(size, tuple(outs), ins) == by_einsum


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("name", ["heads", "summed"])  # Keras quantises no equation with dots
def test_quantised(name, mode, tmp_path):
    """Two channels of a source in int8 are enough for rounding below 2 %; int4 is coarse."""
    model = model_of(name)
    x = noise(2, *FORMS[name][2])
    exact = model.predict(x, verbose=0)
    model.quantize(mode)
    answer = model.predict(x, verbose=0)
    error = np.abs(answer - exact).max() / np.abs(exact).max()
    assert error < {"int8": 0.03, "int4": 0.5}[mode]
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), answer, atol=1e-5)


@pytest.mark.parametrize("mode", [None, "int8"])
def test_lora(mode):
    model = model_of("heads")
    source = model.get_layer("code")
    if mode:
        model.quantize(mode)
    source.enable_lora(2)
    source.lora_kernel_b.assign(noise(*source.lora_kernel_b.shape))
    x = noise(2, 5, 6)
    kernel = TiedEinsumDense(source, "ij,jhd->ihd")(np.eye(6, dtype="float32"))
    codes = np.asarray(source._kernel).astype("float64")
    if mode:
        codes = codes / np.asarray(source._adjust_scale_for_dequant(source.kernel_scale))
    delta = source.lora_kernel_a.numpy() @ source.lora_kernel_b.numpy()
    wanted = codes + source.lora_alpha / source.lora_rank * delta
    np.testing.assert_allclose(kernel, wanted, atol=1e-5)
    assert model.predict(x, verbose=0).shape == x.shape


def test_refusals():
    dense = layers.Dense(4)
    with pytest.raises(TieError, match="needs an `equation`: its source is no EinsumDense"):
        TiedEinsumDense(dense)
    summing = layers.EinsumDense("abc,cd->ad", 4)
    with pytest.raises(TieError, match=r"cannot turn 'abc,cd->ad' around: it sums over \['b'\]"):
        TiedEinsumDense(summing)
    dense.build((None, 3))
    with pytest.raises(TieError, match=r"shape \(3, 4\) by 'ab,bc->ac'.*input_shape=\(2, 5\)"):
        TiedEinsumDense(dense, "ab,bc->ac")(noise(2, 5))
    with pytest.raises(TieError, match=r"no axes \['z'\].*bias_axes='z'"):
        TiedEinsumDense(dense, "ab,bc->ac", bias_axes="z")(noise(2, 3))
