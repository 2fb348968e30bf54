import keras
import numpy as np
import pytest
from topologies import TOPOLOGIES, check_tied, data_for, flat, owner_of

from keras_shared.layers import TiedDense
from keras_shared.tying import TieError, readers_of, tie, untie
from keras_shared.zoo import TiedAutoencoder

WITH_READER = [t for t in TOPOLOGIES if not t.__name__.startswith("shared")]


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


def test_after_the_cut_the_weights_part():
    model = flat()
    untie(model)
    reader, source = model.get_layer("reader"), model.get_layer("code")
    z = np.ones((1, 4), "float32")
    before = np.asarray(reader(z))
    source.kernel.assign(source.kernel * 2)
    np.testing.assert_array_equal(reader(z), before)
    model.compile("sgd", "mse")
    old = reader.own_weight.numpy()
    model.fit(data_for(flat), np.ones((3, 6)), verbose=0)
    assert np.abs(reader.own_weight.numpy() - old).max() > 0

    with pytest.raises(TieError, match="different values. Pass keep='source'"):
        tie(reader, source)
    own = reader.own_weight.numpy()
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
    reader.own_weight.assign(reader.own_weight + 1)
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


@pytest.mark.parametrize("topology", WITH_READER, ids=lambda f: f.__name__)
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
