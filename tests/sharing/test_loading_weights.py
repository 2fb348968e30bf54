"""Weights of nets without ties, in all formats, into models with ties."""

import json
import pathlib
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import keras_shared
from keras_shared import LoadError, TieError, load_weights, unshare, untie
from keras_shared.layers import Shared, TiedConv2DTranspose, TiedDense, TiedLayer
from keras_shared.tying import TiedReader

DATA = pathlib.Path(__file__).parent / "data"  # written by tf_keras 2.21, trained for a few steps
RANDOM = np.random.default_rng(11)


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def with_noise(model):
    model.set_weights([noise(*w.shape) for w in model.weights])
    return model


def values(model):
    return [np.array(v) for v in model.variables]


def plain(names=("enc", "dec"), width=3, use_bias=True):
    x = keras.Input((6,))
    code = layers.Dense(width, "tanh", name=names[0])(x)
    return with_noise(keras.Model(x, layers.Dense(6, use_bias=use_bias, name=names[1])(code)))


def tied(names=("enc", "dec"), width=3, use_bias=True):
    x, code = keras.Input((6,)), layers.Dense(width, "tanh", name=names[0])
    reader = TiedDense(code, use_bias=use_bias, name=names[1])
    return keras.Model(x, reader(code(x)))


def saved(model, path):
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    elif path.suffix == ".json":
        model.save_weights(path, max_shard_size=1e-7)  # each layer in a file of its own
    else:
        model.save(path)
    return path


FORMATS = ["m.keras", "m.weights.h5", "m.h5", "m.weights.json"]


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("keep", ["source", "reader"])
def test_an_untied_net_by_hand(file, keep, tmp_path):
    old, x = plain(), noise(4, 6)
    w, b, v, c = old.get_weights()
    model = tied()
    load_weights(model, saved(old, tmp_path / file), keep=keep)
    kernel = w if keep == "source" else v.T
    np.testing.assert_allclose(
        model.predict(x, verbose=0), np.tanh(x @ kernel + b) @ kernel.T + c, atol=1e-5
    )
    assert model.get_layer("dec").source() is model.get_layer("enc")
    if keep == "source":  # what was read earlier is traced: it follows
        model.get_layer("enc").kernel.assign(v.T)
        wanted = np.tanh(x @ v.T + b) @ v + c
        np.testing.assert_allclose(model.predict(x, verbose=0), wanted, atol=1e-5)


def test_keras_itself_refuses_it_by_an_error_that_names_this_call(tmp_path):
    old = plain()
    old.get_layer("dec").kernel.assign(np.transpose(old.get_layer("enc").kernel))
    path = saved(old, tmp_path / "old.weights.h5")
    model, x = tied(), noise(3, 6)
    said = r"'dec' is tied to 'enc'.*call `keras_shared.load_weights\(model, filepath\)`"
    with pytest.raises(ValueError, match=said):
        model.load_weights(path)
    keras_shared.load_weights(model, path)  # equal values need no choice
    np.testing.assert_allclose(model(x), old(x), atol=1e-6)
    check = tied()
    untie(check).load_weights(saved(untie(model), tmp_path / "untied.weights.h5"))  # the other way
    np.testing.assert_allclose(check(x), old(x), atol=1e-6)


def test_different_values_are_refused_with_names_and_how_much(tmp_path):
    old, model = plain(), tied()
    path, before = saved(old, tmp_path / "old.weights.h5"), values(model)
    apart = np.abs(old.get_layer("enc").kernel - np.transpose(old.get_layer("dec").kernel)).max()
    said = rf"'enc/kernel' and what 'dec' has differ by up to {apart:.2g}.*keep='source'"
    with pytest.raises(TieError, match=said):
        load_weights(model, path)
    for now, then in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    with pytest.raises(
        ValueError, match="`keep` must be 'source', 'reader' or None. .*keep='both'"
    ):
        load_weights(model, path, keep="both")


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("of", ["tied", "untied", "plain"])
@pytest.mark.parametrize("name", ["given", "by Keras"])
def test_what_a_net_was_when_it_was_saved_does_not_matter(of, file, name, tmp_path):
    names = ("enc", "dec") if name == "given" else (None, None)
    first = with_noise(tied(names))
    x, wanted = noise(3, 6), None
    wanted = first(x)
    one = unshare(first) if of == "plain" else untie(first) if of == "untied" else first
    model = tied(names)  # Keras counts on: its names are others now
    load_weights(model, saved(one, tmp_path / file))
    np.testing.assert_allclose(model(x), wanted, atol=1e-5)


@pytest.mark.parametrize("file", ["m.weights.h5", "m.h5"])
@pytest.mark.filterwarnings("ignore:You are saving")
def test_a_square_kernel_without_bias_is_not_turned(file, tmp_path):
    first, x = with_noise(tied(width=6, use_bias=False)), noise(3, 6)
    wanted = first(x)
    for one in (unshare(first), untie(first)):
        if one is first and file == "m.h5":
            continue  # such a file does not say of which class a layer is
        model = tied(width=6, use_bias=False)
        load_weights(model, saved(one, tmp_path / file))
        np.testing.assert_allclose(model(x), wanted, atol=1e-5)


# === Files of Keras 2 ===


def keras_2_autoencoder(encoder_name="encoder", frozen=False):
    x, z, y = keras.Input((6,)), keras.Input((3,)), keras.Input((6,))
    enc_1, enc_2 = layers.Dense(4, "tanh", name="enc_1"), layers.Dense(3, "tanh", name="enc_2")
    enc_1.trainable = not frozen
    norm = layers.BatchNormalization(name="norm")
    encoder = keras.Model(x, norm(enc_2(enc_1(x))), name=encoder_name)
    back = TiedDense(enc_2, "tanh", name="dec_2")(z)
    decoder = keras.Model(z, TiedDense(enc_1, name="dec_1")(back), name="decoder")
    return keras.Model(y, decoder(encoder(y)))


@pytest.mark.parametrize("changes", [{}, {"encoder_name": "other"}, {"frozen": True}])
def test_a_real_file_of_keras_2_with_sub_models(changes):
    known = np.load(DATA / "keras2_outputs.npz")
    model = keras_2_autoencoder(**changes)
    with pytest.raises(TieError, match="'encoder|other/enc_1/kernel' and what 'decoder/dec_1' has"):
        load_weights(model, DATA / "keras2_autoencoder.h5")
    with h5py.File(DATA / "keras2_autoencoder.h5") as file:
        own = {name: np.array(file[f"model_weights/decoder/{name}/bias:0"])
               for name in ("dec_1", "dec_2")}  # fmt: skip
        kernels = [np.array(file[f"model_weights/decoder/dec_{n}/kernel:0"]) for n in (1, 2)]
    load_weights(model, DATA / "keras2_autoencoder.h5", keep="source")
    encoder = model.layers[1]
    code = encoder(known["data"])
    z = np.tanh(code @ np.transpose(encoder.get_layer("enc_2").kernel) + own["dec_2"])
    wanted = z @ np.transpose(encoder.get_layer("enc_1").kernel) + own["dec_1"]
    np.testing.assert_allclose(model(known["data"]), wanted, atol=1e-5)
    apart = untie(keras_2_autoencoder(**changes))  # every value of the file in it: Keras 2's answer
    with pytest.raises(LoadError):  # readers that were untied are no plain layers
        load_weights(untie(tied()), DATA / "keras2_autoencoder.h5")
    load_weights(apart, DATA / "keras2_autoencoder.h5")
    np.testing.assert_array_equal(apart.layers[2].get_layer("dec_1").own_layer.kernel, kernels[0].T)
    np.testing.assert_allclose(apart(known["data"]), known["autoencoder"], atol=1e-5)


def test_a_real_weights_file_of_keras_2_by_order():
    """Bidirectional and TimeDistributed: their names differ between Keras 2 and 3."""
    known = np.load(DATA / "keras2_outputs.npz")
    ids = keras.Input((5,))
    table = layers.Embedding(10, 4, mask_zero=True, name="words")
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(table(ids))
    x = layers.TimeDistributed(layers.Dense(4))(x)
    model = keras.Model(ids, TiedDense(table, name="scores")(x))
    plain_one = unshare(model)
    load_weights(plain_one, DATA / "keras2_words_weights.h5")
    np.testing.assert_allclose(plain_one(known["ids"]), known["words"], atol=1e-5)
    load_weights(model, DATA / "keras2_words_weights.h5", keep="reader")
    head = plain_one.layers[-1]
    np.testing.assert_array_equal(table.embeddings, np.transpose(head.kernel))
    np.testing.assert_array_equal(model.get_layer("scores").bias, head.bias)


def test_attributes_by_which_keras_2_saved_attention(tmp_path):
    """`_query_dense` in its .weights.h5 and .keras files; Keras 3 writes `query_dense`."""

    def build():
        ids, table = keras.Input((5,)), layers.Embedding(10, 4)
        x = table(ids)
        x = layers.MultiHeadAttention(2, 3)(x, x)
        return with_noise(keras.Model(ids, TiedDense(table)(x)))

    first, model = build(), build()
    path = saved(first, tmp_path / "m.weights.h5")
    with h5py.File(path, "a") as file:
        for group in list(file["layers/multi_head_attention"]):
            if group.endswith("_dense"):
                file.move(f"layers/multi_head_attention/{group}",
                          f"layers/multi_head_attention/_{group}")  # fmt: skip
    load_weights(model, path)
    for now, then in zip(model.weights, first.weights, strict=True):
        np.testing.assert_array_equal(now, then)


# === Which layer is which ===


def test_names_that_were_given_count_more_than_order(tmp_path):
    a, b = keras.Input((4,)), keras.Input((4,))
    old = keras.Model([a, b], [layers.Dense(4, name="left")(a), layers.Dense(4, name="right")(b)])
    path = saved(with_noise(old), tmp_path / "old.weights.h5")
    right = layers.Dense(4, name="right")
    new = keras.Model([b, a], [right(b), layers.Dense(4, name="left")(a), TiedDense(right)(b)])
    with pytest.raises(LoadError, match="tied_dense.*/bias is not in the file"):
        load_weights(new, path)
    new = keras.Model([b, a], [new.get_layer("right")(b), new.get_layer("left")(a)])
    load_weights(new, path)
    for name in ("left", "right"):
        np.testing.assert_array_equal(new.get_layer(name).kernel, old.get_layer(name).kernel)


def test_names_that_keras_counts_say_nothing(tmp_path):
    def build():
        x = keras.Input((6,))
        first = layers.Dense(6)
        return with_noise(keras.Model(x, [layers.Dense(6)(first(x)), TiedDense(first)(x)]))

    keras.utils.clear_session()
    path = saved(build(), tmp_path / "old.weights.h5")  # dense, dense_1
    keras.utils.clear_session()
    layers.Dense(6)  # another one, built before
    model = build()  # dense_1, dense_2
    assert next(layer.name for layer in model.layers if "dense" in layer.name) == "dense_1"
    load_weights(model, path)
    keras.utils.clear_session()
    again = build()
    again.load_weights(path)
    for now, then in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(now, then)


class Many(layers.Layer):
    """More variables than a digit counts: a file lists 10 before 2."""

    def build(self, input_shape):
        self.parts = [self.add_weight(shape=(), name=f"part_{i}") for i in range(12)]

    def call(self, inputs):
        return sum(part * inputs**i for i, part in enumerate(self.parts))


def test_a_layer_with_many_variables(tmp_path):
    def build():
        x = keras.Input((6,))
        code = layers.Dense(3, name="enc")
        return with_noise(keras.Model(x, TiedDense(code, name="dec")(Many()(code(x)))))

    first, model = build(), build()
    load_weights(model, saved(first, tmp_path / "m.weights.h5"))
    for now, then in zip(model.weights, first.weights, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_flat_net_into_sub_models_by_the_names_of_layers(tmp_path):
    from keras_shared.zoo import TiedAutoencoder

    x = keras.Input((6,))
    y = layers.Dense(2, name="encoder_2")(layers.Dense(4, "sigmoid", name="encoder_1")(x))
    y = layers.Dense(6, name="decoder_1")(layers.Dense(4, "sigmoid", name="decoder_2")(y))
    old = with_noise(keras.Model(x, y))
    model = TiedAutoencoder(units=(4, 2), input_dim=6)
    load_weights(model, saved(old, tmp_path / "old.keras"), keep="reader")
    for n in (1, 2):
        decoder = old.get_layer(f"decoder_{n}")
        kernel = model.encoder.get_layer(f"encoder_{n}").kernel
        np.testing.assert_array_equal(kernel, np.transpose(decoder.kernel))
        np.testing.assert_array_equal(model.decoder.get_layer(f"decoder_{n}").bias, decoder.bias)


def test_two_copies_of_a_network_keep_apart(tmp_path):
    def pair(tie):
        x, parts = keras.Input((6,)), []
        for name in ("image", "sound"):
            one = tied() if tie else plain()
            one.name = name
            parts.append(one(x))
        return keras.Model(x, parts)

    old, model, x = pair(False), pair(True), noise(2, 6)
    load_weights(model, saved(old, tmp_path / "old.weights.h5"), keep="source")
    for name in ("image", "sound"):
        kernel = old.get_layer(name).get_layer("enc").kernel
        np.testing.assert_array_equal(model.get_layer(name).get_layer("enc").kernel, kernel)
    assert model(x)[0].shape == (2, 6)


def towers(tie, middle=3):
    lstm = layers.LSTM(middle, name="reading")
    a, b = keras.Input((4, 2)), keras.Input((4, 2))
    first = keras.Model(a, lstm(a), name="left")
    other = TiedLayer(lstm, name="again") if tie else layers.LSTM(middle, name="again")
    second = keras.Model(b, other(b), name="right")
    inputs = [keras.Input((4, 2)), keras.Input((4, 2))]
    return keras.Model(inputs, layers.Subtract()([first(inputs[0]), second(inputs[1])]))


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("file", ["old.keras", "old.h5"])
def test_a_whole_layer_of_another_sub_model(file, tmp_path):
    old, model, data = with_noise(towers(False)), towers(True), [noise(2, 4, 2), noise(2, 4, 2)]
    path = saved(old, tmp_path / file)
    with pytest.raises(TieError) as told:
        load_weights(model, path)
    assert str(told.value).count("right/again") == 3  # kernel, recurrent kernel, bias
    load_weights(model, path, keep="reader")
    lstm = old.get_layer("right").get_layer("again")
    wanted = lstm(data[0]) - lstm(data[1])
    np.testing.assert_allclose(model(data), wanted, atol=1e-5)
    apart = untie(towers(True))
    load_weights(apart, path)
    np.testing.assert_allclose(apart(data), old(data), atol=1e-5)


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("file", ["m.keras", "m.h5"])
def test_a_layer_that_plain_keras_holds_twice(file, tmp_path):
    """An .h5 file has it for both sub-models."""

    def build():
        x, y, z = keras.Input((6,)), keras.Input((6,)), keras.Input((6,))
        tower = layers.Dense(6, name="tower")
        left, right = keras.Model(x, tower(x), name="left"), keras.Model(y, tower(y), name="right")
        return with_noise(keras.Model(z, right(left(z))))

    first, model, x = build(), build(), noise(2, 6)
    load_weights(model, saved(first, tmp_path / file))
    np.testing.assert_allclose(model(x), first(x), atol=1e-6)


def test_a_tower_that_was_untied_without_names(tmp_path):
    def build():
        tower = keras.Sequential([layers.Dense(4, "tanh"), layers.Dense(3)])
        inputs = [keras.Input((5,)), keras.Input((5,))]
        left = keras.Model(inputs[0], tower(inputs[0]))
        right = keras.Model(inputs[1], TiedLayer(tower)(inputs[1]))
        return keras.Model(inputs, layers.Add()([left(inputs[0]), right(inputs[1])]))

    first, data = with_noise(build()), [noise(2, 5), noise(2, 5)]
    wanted, model = first(data), build()
    load_weights(model, saved(untie(first), tmp_path / "m.weights.h5"))
    np.testing.assert_allclose(model(data), wanted, atol=1e-5)


class Sub(keras.Model):
    def __init__(self, tie):
        super().__init__()
        self.code = layers.Dense(3)
        self.back = TiedDense(self.code) if tie else layers.Dense(6)

    def call(self, inputs):
        return self.back(self.code(inputs))


@pytest.mark.parametrize("file", ["old.weights.h5", "old.h5"])
def test_a_subclassed_model(file, tmp_path):
    old, model, x = Sub(False), Sub(True), noise(2, 6)
    with pytest.raises(ValueError, match="was never built. Call it once"):
        load_weights(model, tmp_path / file)
    old(x), model(x)
    with_noise(old)
    old.compile("adam", "mse", metrics=["mae"])
    old.fit(x, x, verbose=0)
    path = saved(old, tmp_path / file) if file.endswith("weights.h5") else tmp_path / file
    if file == "old.h5":  # which Keras 3 writes of functional models alone
        with h5py.File(path, "w") as group:
            group.attrs["layer_names"] = ["code", "back"]
            for name, layer in (("code", old.code), ("back", old.back)):
                part = group.create_group(name)
                part.attrs["weight_names"] = [f"sub/{name}/{n}:0" for n in ("kernel", "bias")]
                for weight in layer.weights:
                    part[f"sub/{name}/{weight.name}:0"] = np.array(weight)
    load_weights(model, path, keep="source")
    w, b, _, c = (np.array(v) for v in old.weights)
    np.testing.assert_allclose(model(x), (x @ w + b) @ w.T + c, atol=1e-5)


@keras.saving.register_keras_serializable("tests")
class SameKernel(TiedReader):
    """A reader of a user's own, which says nothing of a plain layer."""

    source_classes = (layers.Dense,)

    def build(self, input_shape):
        self.gain = self.add_weight(shape=(), name="gain", initializer="ones")
        super().build(input_shape)

    def call(self, inputs):
        return self.gain * (inputs @ self.tied_weight())

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.tied_weight_shape()[1])


@pytest.mark.parametrize("cut", [True, False])
def test_a_reader_of_ones_own(cut, tmp_path):
    def build():
        x, dense = keras.Input((4,)), layers.Dense(4, name="dense_a")
        return keras.Model(x, SameKernel(dense, name="again")(dense(x)))

    first, x = with_noise(build()), noise(3, 4)
    wanted = first(x)
    path = saved(untie(first) if cut else first, tmp_path / "m.weights.h5")
    model = build()
    load_weights(model, path)
    np.testing.assert_allclose(model(x), wanted, atol=1e-5)


def test_convolution_half_precision_shared_tower_and_normalization(tmp_path):
    def build(tie):
        image, other = keras.Input((6, 6, 1)), keras.Input((6, 6, 1))
        conv = layers.Conv2D(2, 3, name="conv", dtype="bfloat16")
        norm = layers.Normalization(name="norm")
        a, b = Shared(conv, name="pair")([norm(image), other])
        back = TiedConv2DTranspose(conv, name="back", dtype="bfloat16") if tie else (
            layers.Conv2DTranspose(1, 3, name="back", dtype="bfloat16"))  # fmt: skip
        model = keras.Model([image, other], back(layers.Add()([a, b])))
        norm.adapt(noise(9, 6, 6, 1) * 3 + 2)
        return model

    old, model, data = build(False), build(True), [noise(2, 6, 6, 1), noise(2, 6, 6, 1)]
    back = old.get_layer("back")
    back.kernel.assign(old.get_layer("pair").layer.kernel)
    load_weights(model, saved(old, tmp_path / "old.weights.h5"))
    np.testing.assert_array_equal(np.array(model(data)), np.array(old(data)))


# === Refusals ===


def test_another_net_is_refused_whole_and_by_name(tmp_path):
    x = keras.Input((6,))
    y = layers.Dense(5, name="more")(layers.Dense(2, name="enc")(x))
    y = layers.PReLU(name="also")(y)
    path = saved(keras.Model(x, y), tmp_path / "other.weights.h5")
    model = tied()
    before = values(model)
    with pytest.raises(LoadError) as told:
        load_weights(model, path, keep="source")
    for part in (
        "enc: the model takes [(6, 3), (3,)], 'layers/dense' has [(6, 2), (2,)]",
        "dec: the model takes [(3, 6), (6,)] or [(6,), (6, 3)] or [(6,)], 'layers/dense_1' has",
        "also is only in the file", "nothing was loaded",
    ):  # fmt: skip
        assert part in str(told.value)
    for now, then in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_what_is_no_file_of_keras(tmp_path):
    model = tied()
    with pytest.raises(LoadError, match="There is no file .*nothing.keras"):
        load_weights(model, tmp_path / "nothing.keras")
    (tmp_path / "a.weights.h5").write_bytes(b"no HDF5")
    with pytest.raises(LoadError, match="holds no weights that can be read"):
        load_weights(model, tmp_path / "a.weights.h5")
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as file:
        file.writestr("config.json", json.dumps({}))
    with pytest.raises(LoadError, match="holds no weights that can be read: KeyError"):
        load_weights(model, tmp_path / "b.keras")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["a"] = [1.0]
    with pytest.raises(LoadError, match="holds no weights of a Keras model"):
        load_weights(model, tmp_path / "c.h5")
    with pytest.raises(LoadError, match="no preset, and no file or folder, named 'tied_auto'"):
        load_weights(model, "tied_auto")


def test_a_file_that_breaks_off_changes_nothing(tmp_path):
    old = plain(width=40_000)
    path = saved(old, tmp_path / "old.weights.h5")
    path.write_bytes(path.read_bytes()[:-500_000])
    model = tied(width=40_000)
    before = values(model)
    with pytest.raises(LoadError, match="can be read"):
        load_weights(model, path, keep="source")
    for now, then in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_lora_is_named_and_the_advice_works(tmp_path):
    old, x = plain(), noise(2, 6)
    path = saved(old, tmp_path / "old.weights.h5")
    model = tied()
    model.get_layer("enc").enable_lora(1)
    with pytest.raises(ValueError, match=r"Of \['enc'\] .* as with LoRA. Load .* first"):
        load_weights(model, path, keep="source")
    model = tied()
    load_weights(model, path, keep="source")
    wanted = np.array(model(x))
    model.get_layer("enc").enable_lora(1)
    np.testing.assert_allclose(model(x), wanted, atol=1e-6)


def test_readers_that_differ_among_themselves(tmp_path):
    def build(reader):
        x, code = keras.Input((6,)), layers.Dense(3, name="enc")
        y = code(x)
        return keras.Model(x, [reader(code, name=name)(y) for name in ("one", "two")])

    old = with_noise(build(lambda code, name: layers.Dense(6, name=name)))
    path, model = saved(old, tmp_path / "old.weights.h5"), build(TiedDense)
    said = "different values for readers of one weight.*and what 'two' has.*Pass keep='source'"
    with pytest.raises(TieError, match=said):
        load_weights(model, path, keep="reader")
    load_weights(model, path, keep="source")
    np.testing.assert_array_equal(model.get_layer("enc").kernel, old.get_layer("enc").kernel)


def test_layers_that_unshare_parted_are_named(tmp_path):
    x, code = keras.Input((6,)), layers.Dense(6, name="code")
    model = keras.Model(x, code(code(x)))
    with pytest.raises(LoadError, match="code_use_1 is only in the file"):
        load_weights(model, saved(unshare(model), tmp_path / "m.weights.h5"))
