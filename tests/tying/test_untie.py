import keras
import numpy as np
import pytest
from keras import layers
from topologies import (
    STACKS,
    TOPOLOGIES,
    WITHOUT_LORA,
    check_tied,
    data_for,
    flat,
    owner_of,
    relaxed_stack,
)

import keras_shared
from keras_shared.layers import TiedConvTranspose, TiedDense, TiedEinsumDense, TiedLayer
from keras_shared.tying import TieError, readers_of, tie, untie
from keras_shared.zoo import TiedAutoencoder

WITH_READER = [t for t in TOPOLOGIES if not t.__name__.startswith("shared") and t not in STACKS]


@pytest.mark.slow
@pytest.mark.parametrize("topology", WITH_READER, ids=lambda f: f.__name__)
def test_cut_keeps_values_survives_saving_and_leads_back(topology, tmp_path):
    model, x = topology(), data_for(topology)
    for v in model.trainable_variables:  # biases too
        v.assign(v + 0.1)
    before, count = model.predict(x, verbose=0), len(model.variables)
    reader = readers_of(model)[0]
    untie(model)
    assert readers_of(model) == [] and reader.untied and len(model.variables) > count
    np.testing.assert_allclose(model.predict(x, verbose=0), before, atol=1e-6)

    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(clone.predict(x, verbose=0), before, atol=1e-6)

    with pytest.raises(TieError, match="was untied and owns its weight"):
        reader.source()
    assert tie(reader, owner_of(model)) is reader
    np.testing.assert_allclose(model(x), before, atol=1e-6)
    model.compile()  # Keras forgets what it traced
    check_tied(topology, model, x)


def test_a_stack_says_that_it_cannot_keep_a_cut(tmp_path):
    """Its uses are built from one block: what is cut is not saved, and the advice leads on."""
    model, x = relaxed_stack(), data_for(relaxed_stack)
    before = model.predict(x, verbose=0)
    parted = keras_shared.unshare(model)
    parted.save(tmp_path / "parted.keras")
    loaded = keras.models.load_model(tmp_path / "parted.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), before, atol=1e-6)
    np.testing.assert_allclose(untie(model).predict(x, verbose=0), before, atol=1e-6)
    for keep in (lambda: model.save(tmp_path / "m.keras"), lambda: keras.models.clone_model(model)):
        with pytest.raises(TieError, match="cannot say that 'code_use_0' was untied.*unshare"):
            keep()


def test_after_the_cut_the_weights_part():
    model = flat()
    untie(model)
    reader, source = model.get_layer("reader"), model.get_layer("code")
    z = np.ones((1, 4), "float32")
    before = np.asarray(reader(z))
    source.kernel.assign(source.kernel * 2)
    np.testing.assert_array_equal(reader(z), before)
    model.compile("sgd", "mse")
    old = reader.own_layer.kernel.numpy()
    model.fit(data_for(flat), np.ones((3, 6)), verbose=0)
    assert np.abs(reader.own_layer.kernel.numpy() - old).max() > 0

    with pytest.raises(TieError, match="different values. Pass keep='source'"):
        tie(reader, source)
    own = reader.own_layer.kernel.numpy()
    tie(reader, source, keep="reader")
    np.testing.assert_array_equal(source.kernel.numpy(), own)
    assert [v.name for v in reader.variables] == ["bias"]


def test_the_source_wins():
    model = flat()
    reader, source = model.get_layer("reader"), model.get_layer("code")
    untie(reader)
    source.kernel.assign(source.kernel * 2)
    kernel = source.kernel.numpy()
    tie(reader, source, keep="source")
    np.testing.assert_array_equal(source.kernel.numpy(), kernel)
    assert reader.source() is source


def test_decoder_alone_after_untie(tmp_path):
    model = TiedAutoencoder(units=(5, 2), input_dim=6)
    codes = np.ones((2, 2), "float32")
    before = model.decode(codes)
    untie(model.decoder)
    model.decoder.save(tmp_path / "d.keras")
    alone = keras.models.load_model(tmp_path / "d.keras")
    np.testing.assert_array_equal(alone.predict(codes, verbose=0), before)


def test_quantised_source_and_lora():
    inputs, source = keras.Input((64,)), keras.layers.Dense(32, name="code")
    model = keras.Model(inputs, TiedDense(source, name="reader")(source(inputs)))
    model.quantize("int8")
    x = np.random.default_rng(1).normal(size=(4, 64)).astype("float32")
    before = model.predict(x, verbose=0)
    untie(model)
    np.testing.assert_allclose(model.predict(x, verbose=0), before, atol=1e-5)
    reader = model.get_layer("reader")
    reader.own_layer.kernel.assign(reader.own_layer.kernel + 1)
    with pytest.raises(TieError, match="quantised or has LoRA"):
        tie(reader, source, keep="reader")


def test_refusals():
    model = flat()
    reader, source = model.get_layer("reader"), model.get_layer("code")
    with pytest.raises(
        TieError, match="is already tied to 'code'. Call `keras_shared.tying.untie`"
    ):
        tie(reader, source)
    untie(reader)
    other = keras.layers.Dense(5, name="wide")
    other.build((None, 6))
    with pytest.raises(
        TieError,
        match=r"owns weights of shape \[\(6, 4\)\], but the source 'wide' has \[\(6, 5\)\]",
    ):
        tie(reader, other)
    with pytest.raises(TieError, match="pass a Dense or Embedding"):
        tie(reader, keras.layers.ReLU())
    with pytest.raises(ValueError, match="keep='both'"):
        tie(reader, source, keep="both")


@pytest.mark.parametrize(
    "topology", [t for t in WITH_READER if t not in WITHOUT_LORA], ids=lambda f: f.__name__
)
def test_cut_keeps_values_under_lora(topology):
    model, x = topology(), data_for(topology)
    owner = owner_of(model)
    owner.enable_lora(2, lora_alpha=5)
    factor = owner.lora_embeddings_b if hasattr(owner, "embeddings") else owner.lora_kernel_b
    factor.assign(factor + 0.3)
    before = model.predict(x, verbose=0)
    untie(model)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), before, atol=1e-5 * np.abs(before).max()
    )


def einsum():
    inputs, source = keras.Input((5, 6)), keras.layers.EinsumDense("bti,ihd->bthd", (5, 2, 4))
    return keras.Model(inputs, TiedEinsumDense(source, name="reader")(source(inputs)))


def wide():
    inputs, source = keras.Input((64,)), keras.layers.Dense(32, "relu", name="code")
    return keras.Model(inputs, TiedDense(source, name="reader")(source(inputs)))


def wide_table():
    inputs, source = keras.Input((3,), dtype="int32"), keras.layers.Embedding(32, 16, name="code")
    return keras.Model(inputs, TiedDense(source, name="reader")(source(inputs)))


def example(model):
    spec = model.inputs[0]
    if spec.dtype == "int32":
        return np.array([[0, 31, 5]], "int32")
    return np.random.default_rng(3).normal(size=(4, *spec.shape[1:])).astype("float32")


@pytest.mark.parametrize("mode", ["int8", pytest.param("int4", marks=pytest.mark.slow), "float8"])
@pytest.mark.parametrize("build", [wide, wide_table, pytest.param(einsum, marks=pytest.mark.slow)])
def test_an_untied_layer_is_quantised_as_any_other(build, mode, tmp_path):
    """Both weights shrink, each by itself; it is saved, loaded, and tied again."""
    model = build()
    x = example(model)
    if mode == "float8" and build is wide_table:
        return  # Keras has no such table
    reader, source = model.layers[-1], model.layers[-2]
    untie(model)
    exact = model.predict(x, verbose=0)
    model.quantize(mode)
    own = reader.own_layer
    stored = {"int8": "int8", "int4": "int8", "float8": "float32"}[mode]
    for layer in (own, source):
        assert layer.quantization_mode == mode
        assert stored in {str(v.dtype) for v in layer.variables}
    answer = model.predict(x, verbose=0)
    assert np.abs(answer - exact).max() < (0.4 if mode == "int4" else 0.1) * np.abs(exact).max()
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), answer, atol=1e-5)
    code = np.asarray(source(x))
    before = np.asarray(reader(code))
    for variable in source.variables:
        if variable.name.endswith("scale") or mode == "float8":
            variable.assign(variable * 2)
    np.testing.assert_array_equal(reader(code), before)
    with pytest.raises(TieError, match="cannot be copied into it. Pass keep='source'"):
        tie(reader, source, keep="reader")
    assert tie(reader, source, keep="source").source() is source
    assert not reader.untied and own not in reader._flatten_layers()


@pytest.mark.slow
@pytest.mark.parametrize("build", [wide, wide_table, einsum])
def test_an_untied_layer_has_lora(build, tmp_path):
    model = build()
    x = example(model)
    reader = model.layers[-1]
    untie(model)
    before = model.predict(x, verbose=0)
    reader.enable_lora(2)
    np.testing.assert_allclose(model.predict(x, verbose=0), before, atol=1e-6)
    own = reader.own_layer
    kernel = own.variables[0].numpy()
    model.compile("adam", "mse")
    model.fit(x, np.ones_like(before), epochs=3, verbose=0)
    np.testing.assert_array_equal(own.variables[0].numpy(), kernel)  # the factors alone train
    after = model.predict(x, verbose=0)
    assert np.abs(after - before).max() > 1e-3
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), after, atol=1e-5)


def test_lora_of_an_untied_tower_is_that_of_its_layers():
    inputs = keras.Input((6,))
    tower = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(6)], name="tower")
    model = keras.Model(inputs, TiedLayer(tower, name="reader")(tower(inputs)))
    reader = untie(model).get_layer("reader")
    with pytest.raises(TieError, match="owns the Sequential 'tower_of_reader', which has no LoRA"):
        reader.enable_lora(1)
    reader.own_layer.layers[0].enable_lora(1)  # as the message says
    assert reader.own_layer.layers[0].lora_enabled


def test_no_penalty_of_the_source_is_counted_twice():
    model = flat()  # its kernel has an L2
    before = [float(loss) for loss in model.losses]
    untie(model)
    assert [float(loss) for loss in model.losses] == before
    assert len(model.get_layer("reader").trainable_variables) == 2


def test_frozen_source_frozen_reader():
    model = flat()
    model.get_layer("code").trainable = False
    untie(model)
    assert len(model.get_layer("reader").trainable_variables) == 2  # the copy can train
    model = flat()
    model.get_layer("reader").trainable = False
    untie(model)
    assert model.get_layer("reader").trainable_variables == []


def test_a_reader_inside_of_an_untied_tower_is_cut_as_well(tmp_path):
    source, x, code = layers.Dense(4, name="source"), keras.Input((6,)), keras.Input((4,))
    h = source(x)
    tower = keras.Model(code, TiedDense(source, name="inner")(code), name="tower")
    again = keras.Input((4,))
    sub = keras.Model(again, TiedLayer(tower)(again), name="sub")
    keras.Model(x, [tower(h), sub(h)])
    given = np.ones((2, 4), "float32")
    before = np.array(tower(given))
    untie(sub)
    assert not readers_of(sub)
    source.kernel.assign(source.kernel + 1)
    np.testing.assert_allclose(sub(given), before, rtol=1e-5)
    sub.save(tmp_path / "sub.keras")
    alone = keras.models.load_model(tmp_path / "sub.keras")
    np.testing.assert_allclose(alone(given), before, rtol=1e-5)


def test_a_source_of_another_geometry_is_refused():
    image = keras.Input((8, 8, 1))
    first = layers.Conv2D(3, 3, strides=2, padding="same", name="first")
    other = layers.Conv2D(3, 3, strides=1, padding="same", name="other")
    reader = TiedConvTranspose(first)
    model = keras.Model(image, [reader(first(image)), other(image)])
    untie(reader)
    with pytest.raises(TieError, match=r"'strides': \[2, 2\].*'other' has.*'strides': \[1, 1\]"):
        tie(reader, other, keep="source")
    assert tie(reader, first).source() is first
    assert model(np.ones((1, 8, 8, 1)))[0].shape == (1, 8, 8, 1)


def test_a_reader_that_needs_more_than_a_source():
    table = layers.Embedding(11, 4)
    table.build()
    reader = TiedEinsumDense(table, equation="btd,vd->btv")
    before = reader(np.ones((2, 5, 4)))
    assert tie(untie(reader), table).source() is table
    np.testing.assert_array_equal(reader(np.ones((2, 5, 4))), before)
    lost = TiedEinsumDense.from_config(reader.get_config())
    assert tie(lost, table).source() is table
    code = layers.Dense(2)
    plain = TiedDense(code, activation=lambda x: 2 * x)  # which no config can hold
    plain(code(np.ones((1, 3))))
    assert tie(untie(plain), code).source() is code


@keras.saving.register_keras_serializable("tests.untie")
class OwnAutoencoder(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.code = layers.Dense(2, name="code")
        self.out = TiedDense(self.code, name="out")

    def call(self, inputs):
        return self.out(self.code(inputs))


def test_advice_on_an_untied_subclassed_model_works(tmp_path):
    """Its own `__init__` ties it, whatever was saved."""
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    model, file = OwnAutoencoder(), tmp_path / "m.keras"
    wanted = model(x)
    untie(model)
    model.save(file)
    with pytest.raises(keras_shared.LoadError) as caught:
        keras_shared.load(file)
    assert "holds other weights than the model that its config builds" in str(caught.value)
    assert "corrupt" not in str(caught.value)
    tied, untied = OwnAutoencoder(), OwnAutoencoder()
    for other in (tied, untied):
        other(x)
    keras_shared.load_weights(tied, file)
    untie(untied)
    untied.load_weights(file)
    assert readers_of(tied) and not readers_of(untied)
    for other in (tied, untied):
        np.testing.assert_allclose(other(x), wanted, atol=1e-6)
