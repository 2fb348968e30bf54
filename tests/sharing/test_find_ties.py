"""What is one weight, what only looks like it, and what a file holds of it."""

import tracemalloc

import keras
import numpy as np
import pytest
from keras import layers

import keras_shared
from keras_shared import LoadError, TieError, find_ties, tie_weights, unshare, untie
from keras_shared.layers import Shared, TiedDense, TiedLayer
from keras_shared.sharing import Reading, sharing_report
from keras_shared.sharing.equal_values import Candidate, equal_values
from keras_shared.tying import TiedReader
from keras_shared.zoo import LeNet5, SiameseNet, TiedAutoencoder

RANDOM = np.random.default_rng(12)


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def shared(found):
    return {weight.path: weight.readers for weight in found.shared}


def autoencoder(names=("enc", "dec")):
    x, code = keras.Input((6,)), layers.Dense(3, name=names[0])
    return keras.Model(x, TiedDense(code, name=names[1])(code(x)), name="net")


# === In the model ===


def test_ties_and_what_untie_leaves():
    model = autoencoder()
    found = find_ties(model)
    assert shared(found) == {
        "enc/kernel": {"enc": Reading("as is", 1), "dec": Reading("transposed", 1)}
    }
    assert found.equal == () and found.stored == () and found.file == ""
    cut = find_ties(untie(model))
    assert cut.shared == ()
    [pair] = cut.equal
    assert (pair.first, pair.second, pair.form) == ("enc/kernel", "dec/kernel", "as is")
    model.get_layer("dec").own_layer.kernel.assign_add(np.full((6, 3), 1e-3, "float32"))
    assert find_ties(model).equal == ()  # trained apart


def test_calls_towers_and_holders():
    x, y = keras.Input((4,)), keras.Input((4,))
    tower = layers.Dense(4, name="tower")
    pair = Shared(tower, name="pair")([x, y])
    model = keras.Model([x, y], layers.Add()([tower(pair[0]), pair[1]]))
    assert shared(find_ties(model))["tower/kernel"] == {"tower": Reading("as is", 3)}
    left, right = keras.Model(x, tower(x), name="left"), keras.Model(y, tower(y), name="right")
    z = keras.Input((4,))
    both = find_ties(keras.Model(z, right(left(z))))
    assert [weight.holders for weight in both.shared] == [("left", "right")] * 2
    assert "in left and right" in str(both)
    again = keras.Model(y, TiedLayer(tower, name="again")(y), name="right")
    tied = find_ties(keras.Model(z, again(left(z))))
    assert shared(tied)["tower/bias"] == {
        "tower": Reading("as is", 2), "again": Reading("as is", 1),
    }  # fmt: skip
    steps = keras.Sequential([keras.Input((7, 3)), layers.LSTM(4)])
    assert find_ties(steps).shared == ()  # the steps of an RNN are one use
    cell = layers.LSTMCell(3, name="cell")
    s = keras.Input((5, 2))
    cells = [layers.RNN(cell, name=n)(s) for n in ("reading", "writing")]
    assert find_ties(keras.Model(s, cells)).shared[0].holders == ("reading", "writing")


class Borrower(layers.Layer):
    """Plain Keras: the variable of another layer in an attribute, which lists it twice."""

    def __init__(self, lender, **kwargs):
        super().__init__(**kwargs)
        self.kernel = lender.kernel

    def call(self, inputs):
        return inputs @ keras.ops.transpose(self.kernel)


class Net(keras.Model):
    """Subclassed, with several arguments, whose inputs cannot be known without a call."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, name="dense")
        self.dense.build((None, 6))
        self.back = Borrower(self.dense, name="back")
        self.reader = TiedDense(self.dense, name="reader")

    def call(self, first, second):
        return self.back(self.dense(first)) + self.reader(self.dense(second))


def test_a_variable_in_two_layers_of_a_subclassed_model():
    model = Net()
    with pytest.raises(ValueError, match="has no weights. Call it once"):
        find_ties(keras.Sequential([layers.Dense(2)]))
    model(noise(2, 6), noise(2, 6))
    found = find_ties(model)
    [kernel] = [weight for weight in found.shared if weight.path == "dense/kernel"]
    assert kernel.holders == ("dense", "back")
    assert kernel.readers["reader"] == Reading("transposed", 0)  # not known how often
    [note] = found.notes
    assert "How often each layer is called cannot be seen" in note
    assert note in " ".join(str(found).split())
    assert max(map(len, str(found).splitlines())) <= 80


@keras.saving.register_keras_serializable("tests")
class Doubled(TiedReader):
    source_classes = (layers.Dense,)
    form = "doubled"

    def call(self, inputs):
        return inputs @ (2 * self.tied_weight())

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.tied_weight_shape()[1])


def test_readers_of_ones_own_and_wrappers():
    x, dense = keras.Input((5, 6)), layers.Dense(6, name="dense")
    inner = Doubled(dense, name="inner")
    outputs = layers.TimeDistributed(inner, name="each")(layers.TimeDistributed(dense)(x))
    found = find_ties(keras.Model(x, outputs))
    assert shared(found)["dense/kernel"]["inner"].form == "doubled, at each of 5 steps"
    both = layers.Bidirectional(layers.GRU(4), name="both")
    assert find_ties(keras.Model(x, both(x))).shared == ()


def test_two_copies_of_a_network_have_names_of_their_own():
    x = keras.Input((6,))
    first = autoencoder()
    second = keras.models.clone_model(first)
    first.name, second.name = "first", "second"
    second.set_weights(first.get_weights())
    found = find_ties(keras.Model(x, [first(x), second(x)]))
    assert list(shared(found)) == ["first/enc/kernel", "second/enc/kernel"]
    assert [(p.first, p.second) for p in found.equal] == [("first/enc/kernel", "second/enc/kernel")]


def test_a_decoder_alone_and_a_lost_reader():
    whole = TiedAutoencoder(units=(3, 2), input_dim=6)
    found = find_ties(whole.decoder)
    assert shared(found)["encoder_1/kernel"]["decoder_1"] == Reading("transposed", 1)
    lost = keras.models.clone_model(whole).get_layer("decoder")
    with pytest.raises(TieError, match="'decoder_.' is tied to the Dense 'encoder_.'"):
        find_ties(lost)


def test_nothing_changes_in_the_model():
    model = SiameseNet(image_shape=(8, 8, 1))
    before, config = [np.array(v) for v in model.variables], model.to_json()
    assert all(weight.holders == () for weight in find_ties(model).shared)  # `model.tower` too
    for now, then in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert model.to_json() == config and not any("call" in vars(x) for x in model._flatten_layers())


# === Equal values ===


def candidate(name, values):
    values = np.asarray(values)
    return Candidate(name, name, values.shape, str(values.dtype), lambda: values)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 1, 3, 2), (1, 0, 2, 3), (3, 2, 1, 0)])
def test_axes_of_convolutions(axes):
    kernel = noise(3, 3, 2, 4)
    changed = kernel.transpose(axes).copy()
    [pair] = equal_values([candidate("a", kernel), candidate("b", changed)])
    np.testing.assert_array_equal(kernel.transpose(pair.axes), changed)
    assert pair.form == ("as is" if axes == (0, 1, 2, 3) else f"axes {axes}")
    changed.flat[0], changed.flat[1] = changed.flat[1], changed.flat[0]  # the sums stay
    assert equal_values([candidate("a", kernel), candidate("b", changed)]) == []


def test_what_is_no_evidence():
    bias = np.repeat(np.float32([0, 1, 0, 0]), 5)  # as an LSTM begins
    for values in (np.zeros((9, 9)), np.ones(64), np.eye(12), bias, noise(7), np.full((4, 4), 0.3)):
        assert equal_values([candidate("a", values), candidate("b", values)]) == []
    kernel = noise(5, 8)
    assert equal_values([candidate("a", kernel), candidate("b", kernel.astype("float64"))]) == []
    assert equal_values([candidate("a", kernel), candidate("b", kernel.reshape(8, 5))]) == []
    assert equal_values([candidate("a", kernel), candidate("b", -kernel)]) == []


def test_weights_of_one_layer_are_not_compared():
    kernel = noise(4, 4)
    a, b = (Candidate(name, "one layer", (4, 4), "float32", lambda: kernel) for name in "ab")
    assert equal_values([a, b]) == []
    assert [(p.first, p.second) for p in equal_values([a, b, candidate("c", kernel)])] == [
        ("a", "c")
    ]


def test_several_equal_ones_in_all_dtypes():
    kernel = noise(4, 4)
    three = [candidate(name, v) for name, v in (("a", kernel), ("b", kernel.T), ("c", kernel))]
    pairs = equal_values([*three, candidate("d", noise(4, 4))])
    assert [(p.first, p.second, p.form) for p in pairs] == [
        ("a", "b", "transposed"), ("a", "c", "as is"),
    ]  # fmt: skip
    half = np.array(keras.ops.cast(noise(3, 5), "bfloat16"))
    for values in (half, noise(3, 5).astype("float16"), RANDOM.integers(-99, 99, (3, 5), "int8")):
        assert len(equal_values([candidate("a", values), candidate("b", values.T)])) == 1


def test_an_initializer_that_is_used_twice_is_found():
    x, draw = keras.Input((6,)), keras.initializers.GlorotUniform(seed=3)
    a = layers.Dense(4, name="a", kernel_initializer=draw)(x)
    b = layers.Dense(4, name="b", kernel_initializer=keras.initializers.GlorotUniform(seed=3))(x)
    model = keras.Model(x, [a, b])
    [pair] = find_ties(model).equal
    assert (pair.first, pair.second) == ("a/kernel", "b/kernel")
    assert any("hold the same values" in said for said in sharing_report(model).warnings)
    model.get_layer("b").trainable = False  # a frozen copy is a copy
    assert len(find_ties(model).equal) == 1


def test_advice_followed_what_looks_tied_is_tied():
    model = untie(autoencoder())
    plain = unshare(autoencoder())
    plain.get_layer("dec").kernel.assign(np.transpose(plain.get_layer("enc").kernel))
    [pair] = find_ties(plain).equal
    assert pair.form == "transposed"
    tied = tie_weights(plain, {"dec": "enc"})  # no `keep`: they are equal
    assert find_ties(tied).equal == () and len(find_ties(tied).shared) == 1
    assert len(find_ties(model).equal) == 1


# === In a file ===


def states(found):
    return {row.path: row.state for row in found.stored}


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("file", ["m.keras", "m.weights.h5", "m.h5"])
def test_once_equal_and_different(file, tmp_path):
    def save(one):
        save_to = one.save_weights if file.endswith("weights.h5") else one.save
        save_to(tmp_path / file)
        return find_ties(model, tmp_path / file)

    model = autoencoder()
    assert states(save(model)) == {"enc/kernel": "once"}
    apart = unshare(model)
    found = save(apart)
    assert states(found) == {"enc/kernel": "equal"}
    assert found.equal_in_file == ()  # what the model ties is no surprise
    apart.get_layer("dec").kernel.assign_add(np.full((3, 6), 0.25, "float32"))
    found = save(apart)
    assert states(found) == {"enc/kernel": "different"}
    assert f"in {file}" in str(found) and "apart: dec by up to 0.25" in str(found)
    found = save(untie(autoencoder()))
    assert states(found) == {"enc/kernel": "equal"}
    twin = find_ties(untie(autoencoder()), tmp_path / file)  # a model that ties nothing
    assert [(p.first, p.second) for p in twin.equal_in_file] == [("enc/kernel", "dec/kernel")]
    assert "equal values in" in str(twin)


def test_missing_other_shapes_and_beyond_the_model(tmp_path):
    x = keras.Input((6,))
    y = layers.Dense(3, name="enc")(x)
    y = layers.Dense(5, name="dec")(y)
    old = keras.Model(x, layers.BatchNormalization(name="norm")(y))
    old.save_weights(tmp_path / "m.weights.h5")
    model = autoencoder()
    z = keras.Input((6,))
    more = keras.Model(z, layers.PReLU(name="slope")(model(z)))
    found = find_ties(more, tmp_path / "m.weights.h5")
    assert states(found) == {
        "enc/kernel": "once", "dec": "other shape", "slope/alpha": "missing", "norm": "extra",
    }  # fmt: skip
    assert "[(5,), (5,), (5,), (5,)]" in str(found)


@pytest.mark.slow
def test_a_preset_a_published_folder_and_no_file(tmp_path):
    found = find_ties(TiedAutoencoder(), "tied_autoencoder_mnist")
    assert set(states(found).values()) == {"once"} and len(found.stored) == 4
    model = TiedAutoencoder(units=(4, 2), input_dim=6)
    version = keras_shared.publish(model, tmp_path / "m")
    assert len(find_ties(model, version).stored) == 2
    with pytest.raises(LoadError, match="There is no file"):
        find_ties(model, tmp_path / "none.keras")


def test_large_weights_are_read_one_by_one(tmp_path):
    x = keras.Input((1000,))
    names = [f"layer_{i}" for i in range(8)]
    y = x
    for name in names:
        y = layers.Dense(1000, name=name)(y)
    model = keras.Model(x, y)  # 8 kernels of 4 MB
    model.save_weights(tmp_path / "m.weights.h5")
    find_ties(model, tmp_path / "m.weights.h5")
    tracemalloc.start()
    assert find_ties(model, tmp_path / "m.weights.h5").equal_in_file == ()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


# === As text ===


@pytest.mark.parametrize("build", [LeNet5, SiameseNet, TiedAutoencoder, autoencoder])
def test_in_80_columns(build):
    text = str(find_ties(build()))
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text


def test_long_names_are_folded(tmp_path):
    names = ("the_first_layer_of_the_encoder_with_a_long_name" * 2, "the_decoder" * 9)
    model = autoencoder(names)
    unshare(model).save_weights(tmp_path / "m.weights.h5")
    text = str(find_ties(model, tmp_path / "m.weights.h5"))
    assert max(map(len, text.splitlines())) <= 80
    assert all(name in "".join(text.split()) for name in ("with_a_long_name", "equal"))


def test_as_printed(capsys, tmp_path):
    model = autoencoder()
    unshare(model).save_weights(tmp_path / "m.weights.h5")
    print(find_ties(model, tmp_path / "m.weights.h5"))
    assert capsys.readouterr().out == (
        "'net' shares 1 weight\n"
        "enc/kernel  6x3  enc\n"
        "                 dec (transposed)\n"
        "in m.weights.h5\n"
        "enc/kernel  once for each layer, equal: dec\n"
    )
