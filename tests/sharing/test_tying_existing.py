"""An existing model, tied: values, gradients, names, sub-models, refusals."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_shared
from keras_shared import TieError, tie_weights, untie
from keras_shared.layers import HashedDense, TiedConvTranspose, TiedDense, TiedLayer
from keras_shared.tying import check_ties, readers_of, tie

RANDOM = np.random.default_rng(5)


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def plain(square=False):
    x = keras.Input((6,), name="x")
    width = 6 if square else 2
    code = layers.Dense(width, "tanh", name="enc_1")(x)
    model = keras.Model(x, layers.Dense(6, "sigmoid", name="dec_1")(code), name="net")
    for layer in model.layers[1:]:
        layer.bias.assign(noise(*layer.bias.shape))
    return model


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("keep", ["source", "reader"])
def test_a_dense_pair_by_hand(keep, tmp_path):
    model, x = plain(), noise(4, 6)
    before = [np.array(w) for w in model.weights]
    tied = tie_weights(model, {"dec_1": "enc_1"}, keep=keep)
    w, b, v, c = before
    kernel = w if keep == "source" else v.T
    wanted = sigmoid(np.tanh(x @ kernel + b) @ kernel.T + c)
    np.testing.assert_allclose(tied.predict(x, verbose=0), wanted, atol=1e-6)
    assert isinstance(tied.get_layer("dec_1"), TiedDense) and tied.name == "net"
    assert tied.count_params() == model.count_params() - 12
    for now, then in zip(model.weights, before, strict=True):  # the old model stays
        np.testing.assert_array_equal(now, then)
    check_ties(tied)
    tied.save(tmp_path / "m.keras")
    loaded = keras_shared.load(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), wanted, atol=1e-6)
    tied.compile(keras.optimizers.SGD(0.1), "mse")
    tied.fit(x, x, verbose=0)
    assert tied.get_layer("dec_1").source() is tied.get_layer("enc_1")
    assert untie(tied).count_params() == model.count_params()  # the way back


def test_equal_values_need_no_choice_and_others_do():
    model = plain()
    with pytest.raises(TieError, match="'dec_1' and 'enc_1' hold different values. Pass keep="):
        tie_weights(model, {"dec_1": "enc_1"})
    enc, dec = model.get_layer("enc_1"), model.get_layer("dec_1")
    dec.kernel.assign(np.transpose(enc.kernel))
    x = noise(3, 6)
    tied = tie_weights(model, {"dec_1": "enc_1"})
    np.testing.assert_allclose(tied(x), model(x), atol=1e-6)


@pytest.mark.parametrize("transpose", [True, False])
def test_square_kernels_are_read_as_told(transpose):
    model, x = plain(square=True), noise(3, 6)
    ties = {"dec_1": "enc_1"}
    with pytest.raises(TieError, match="are square, .6, 6.: say by transpose="):
        tie_weights(model, ties, keep="source")
    if not transpose:  # as a whole: the activations differ
        with pytest.raises(TieError, match=r"differ in \['activation'\]"):
            tie_weights(model, ties, keep="source", transpose=False)
        return
    tied = tie_weights(model, ties, keep="source", transpose=True)
    w, b, _, c = (np.array(weight) for weight in model.weights)
    np.testing.assert_allclose(tied(x), sigmoid(np.tanh(x @ w + b) @ w.T + c), atol=1e-6)


def test_a_pattern_ties_pairs_of_the_same_number_in_sub_models():
    x, z = keras.Input((8,)), keras.Input((2,))
    encoder = keras.Model(
        x, layers.Dense(2, name="enc_2")(layers.Dense(4, name="enc_1")(x)), name="encoder"
    )
    decoder = keras.Sequential(
        [keras.Input((2,)), layers.Dense(4, name="dec_2"), layers.Dense(8, name="dec_1")],
        name="decoder",
    )
    assert decoder(z).shape == (None, 8)
    y = keras.Input((8,))
    model, data = keras.Model(y, decoder(encoder(y))), noise(3, 8)
    tied = tie_weights(model, {"dec_*": "enc_*"}, keep="source")
    w1, b1, w2, b2 = (np.array(w) for w in encoder.weights)
    _, c2, _, c1 = (np.array(w) for w in decoder.weights)
    code = (data @ w1 + b1) @ w2 + b2
    wanted = (code @ w2.T + c2) @ w1.T + c1
    np.testing.assert_allclose(tied.predict(data, verbose=0), wanted, atol=1e-5)
    assert [type(layer) for layer in tied.get_layer("decoder").layers] == [TiedDense] * 2
    assert tied.get_layer("encoder").count_params() == encoder.count_params()
    clone = keras.models.clone_model(tied)
    clone.set_weights(tied.get_weights())
    np.testing.assert_allclose(clone.predict(data, verbose=0), wanted, atol=1e-5)


def test_an_embedding_and_a_head_and_a_convolution_and_its_adjoint():
    ids = keras.Input((4,), dtype="int32")
    table = layers.Embedding(10, 3, name="table")
    words = keras.Model(ids, layers.Dense(10, name="head")(table(ids)))
    tied = tie_weights(words, {"head": "table"}, keep="reader")
    tokens = RANDOM.integers(0, 10, (2, 4))
    head, bias = (np.array(w) for w in words.get_layer("head").weights)
    np.testing.assert_allclose(tied(tokens), head.T[tokens] @ head + bias, atol=1e-5)

    image = keras.Input((6, 6, 1))
    maps = layers.Conv2D(2, 3, strides=2, padding="same", name="conv")(image)
    back = layers.Conv2DTranspose(1, 3, strides=2, padding="same", name="back")(maps)
    net, pixels = keras.Model(image, back), noise(2, 6, 6, 1)
    tied = tie_weights(net, {"back": "conv"}, keep="source")
    assert isinstance(tied.get_layer("back"), TiedConvTranspose)
    net.get_layer("back").kernel.assign(net.get_layer("conv").kernel)
    np.testing.assert_allclose(tied(pixels), net(pixels), atol=1e-5)


def test_whole_layers_of_one_kind():
    a, b = keras.Input((5, 3)), keras.Input((5, 3))
    outputs = [layers.LSTM(2, name="left")(a), layers.LSTM(2, name="right")(b)]
    model, data = keras.Model([a, b], outputs), [noise(2, 5, 3), noise(2, 5, 3)]
    tied = tie_weights(model, {"right": "left"}, keep="source")
    assert isinstance(tied.get_layer("right"), TiedLayer)
    left = model.get_layer("left")
    for found, wanted in zip(tied(data), (left(data[0]), left(data[1])), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert 2 * tied.count_params() == model.count_params()


@pytest.mark.parametrize(
    ("ties", "said"),
    [
        ({"dec": "enc_1"}, "'net' has 0 layers named 'dec'; expected one.*'enc_1', 'dec_1'"),
        ({"dec_1": "dec_1"}, "'dec_1' cannot be tied to itself"),
        ({"dec_*": "enc_1"}, "A pattern has one . on both sides"),
        ({"other_*": "enc_*"}, "no layer with weights whose name fits 'other_.'"),
        ({"dec_1": "enc_1", "enc_1": "dec_1"}, "cannot be reader and source at once"),
    ],
)
def test_names_that_fit_nothing(ties, said):
    with pytest.raises(TieError, match=said):
        tie_weights(plain(), ties, keep="source")


@pytest.mark.parametrize(
    ("ties", "said"),
    [
        (None, "`ties` must be a mapping of readers to sources.*Received: None"),
        ("dec_1", "`ties` must be a mapping.*Received: 'dec_1'"),
        ([("dec_1", "enc_1")], "`ties` must be a mapping.*Received: .*'dec_1', 'enc_1'"),
        ({"dec_1": None}, "Expected a layer's name or path, as text. Received: None"),
        ({"dec_*": ["enc_*"]}, "Expected a layer's name.*of type list"),
        ({"dec_1": layers.Dense(2, name="enc_1")}, "type Dense.. Pass its name, 'enc_1'"),
        ({layers.Dense(2, name="dec_1"): "enc_1"}, "type Dense.. Pass its name, 'dec_1'"),
    ],
)
def test_what_is_no_mapping_of_names(ties, said):
    with pytest.raises(TieError, match=said):
        tie_weights(plain(), ties, keep="source")


@pytest.mark.parametrize("keep", ["readers", "Reader", True, 1, ["source"]])
def test_there_are_two_to_keep(keep):
    with pytest.raises(ValueError, match="`keep` must be 'source', 'reader' or None. Received: k"):
        tie_weights(plain(), {"dec_1": "enc_1"}, keep=keep)


@pytest.mark.parametrize("transpose", ["False", "no", 1, 0, []])
def test_transposed_or_not(transpose):
    with pytest.raises(ValueError, match="`transpose` must be True, False or None. Received: tr"):
        tie_weights(plain(square=True), {"dec_1": "enc_1"}, "source", transpose)


def test_what_cannot_be_tied_is_refused_by_name():
    x = keras.Input((6,))
    wide = layers.Dense(3, name="wide")(layers.Dense(5, name="narrow")(x))
    with pytest.raises(TieError, match="'wide' .Dense, weights .* cannot read 'narrow'"):
        tie_weights(keras.Model(x, wide), {"wide": "narrow"}, keep="source")
    y = keras.Input((4, 6))
    inner = layers.TimeDistributed(layers.Dense(6, name="inner"), name="wrapper")
    model = keras.Model(y, inner(layers.Dense(2, name="code")(y)))
    with pytest.raises(TieError, match="'inner' lies inside of TimeDistributed 'wrapper'"):
        tie_weights(model, {"inner": "code"}, keep="source")

    class Sub(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="has no graph of layers to copy"):
        tie_weights(Sub(), {"a": "b"})


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_of_every_rank(rank):
    down = getattr(layers, f"Conv{rank}D")
    up = getattr(layers, f"Conv{rank}DTranspose")
    inputs = keras.Input((*[6] * rank, 2))
    maps = down(4, 3, strides=2, padding="same", name="down")(inputs)
    plain = keras.Model(inputs, up(2, 3, strides=2, padding="same", name="up")(maps))
    x = np.random.default_rng(rank).normal(size=(2, *[6] * rank, 2)).astype("float32")
    for keep in ("source", "reader"):
        tied = tie_weights(plain, {"up": "down"}, keep=keep)
        owner = plain.get_layer("down" if keep == "source" else "up")
        kernel = owner.kernel.numpy()
        np.testing.assert_array_equal(tied.get_layer("down").kernel, kernel)
        for layer in (plain.get_layer("down"), plain.get_layer("up")):
            before = layer.kernel.numpy()
            layer.kernel.assign(kernel)  # what the tied one computes
        np.testing.assert_allclose(
            tied.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-5
        )
        plain.get_layer("up").kernel.assign(before * 0.5)


@pytest.mark.parametrize("kind", ["Conv1D", "Conv2D", "DepthwiseConv2D", "SeparableConv2D"])
def test_one_kernel_with_another_dilation_and_bias(kind):
    rank = int(kind[-2])
    width = {} if kind.startswith("Depthwise") else {"filters": 3}
    arguments = {"kernel_size": 3, "padding": "same", **width}
    inputs = keras.Input((*[6] * rank, 3))
    near = getattr(layers, kind)(name="near", **arguments)(inputs)
    far = getattr(layers, kind)(name="far", dilation_rate=2, activation="relu", **arguments)
    plain = keras.Model(inputs, layers.Concatenate()([near, far(inputs)]))
    far.bias.assign(np.ones(3))
    tied = tie_weights(plain, {"far": "near"}, keep="source")
    assert type(tied.get_layer("far")).__name__ == "TiedConv"
    number = len(far.weights) - 1
    assert len(tied.weights) == len(plain.weights) - number
    near = plain.get_layer("near")
    far.set_weights([*near.get_weights()[:number], np.ones(3)])
    x = np.random.default_rng(rank).normal(size=(2, *[6] * rank, 3)).astype("float32")
    np.testing.assert_allclose(tied.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-5)


@keras.saving.register_keras_serializable("tests")
class OwnDense(layers.Dense):
    """Of somebody else."""


def test_a_source_of_a_subclass():
    inputs = keras.Input((6,))
    code = OwnDense(4, name="code")(inputs)
    plain = keras.Model(inputs, layers.Dense(6, name="back")(code))
    tied = tie_weights(plain, {"back": "code"}, keep="source")
    assert plain.count_params() - tied.count_params() == 24


def test_a_penalty_of_activities_stays():
    for whole in (False, True):
        x = keras.Input((6,))
        source = layers.Dense(6, name="source")
        reader = layers.Dense(6, name="reader", activity_regularizer="l2")
        model = keras.Model(x, reader(source(x)))
        tied, given = tie_weights(model, {"reader": "source"}, "reader", not whole), noise(3, 6)
        reader.set_weights([w + 0 for w in reader.get_weights()])
        kernel, bias = reader.get_weights()
        source.set_weights([kernel if whole else kernel.T, bias if whole else source.bias])
        for one in (model, tied):
            one(given)
        np.testing.assert_allclose(tied.losses, model.losses, rtol=1e-5)
    source.activity_regularizer = keras.regularizers.L1(0.3)
    with pytest.raises(TieError, match=r"differ in \['activity_regularizer'\]"):
        tie_weights(model, {"reader": "source"}, "reader", transpose=False)


def test_lora_of_source_and_reader():
    model = plain()
    source, reader = model.get_layer("enc_1"), model.get_layer("dec_1")
    source.enable_lora(1)
    source.lora_kernel_b.assign(noise(1, 2))
    reader.kernel.assign(keras.ops.transpose(source._kernel))  # without what LoRA adds
    with pytest.raises(TieError, match="hold different values"):
        tie_weights(model, {"dec_1": "enc_1"})
    with pytest.raises(TieError, match="'enc_1' is clustered, quantised or has LoRA.*'reader'"):
        tie_weights(model, {"dec_1": "enc_1"}, keep="reader")
    reader.kernel.assign(keras.ops.transpose(source.kernel))
    tied, x = tie_weights(model, {"dec_1": "enc_1"}), noise(3, 6)
    np.testing.assert_allclose(tied(x), model(x), rtol=1e-5)
    reader.enable_lora(1)
    with pytest.raises(TieError, match=r"\['dec_1'\] has LoRA"):
        tie_weights(model, {"dec_1": "enc_1"}, keep="source")


def test_one_step_after_the_other():
    x = keras.Input((6,))
    z, a, b = (layers.Dense(n, name=k) for n, k in ((4, "z"), (6, "a"), (4, "b")))
    once = tie_weights(keras.Model(x, b(a(z(x)))), {"b": "a"}, keep="source")
    with pytest.raises(TieError, match=r"'a' is read by \['b'\], and cannot read 'z' besides"):
        tie_weights(once, {"a": "z"}, keep="source")
    again = tie_weights(untie(once), {"a": "z"}, keep="source")
    assert again(noise(2, 6)).shape == (2, 4)
    with pytest.raises(TieError, match=r"\['b'\] are layers that read others.* this model: .*tie"):
        tie_weights(once, {"b": "a"}, keep="source")
    tie(once.get_layer("b"), once.get_layer("a"), keep="source")  # as advised
    assert readers_of(once)[0].source() is once.get_layer("a")


def followed(error, model):
    """The model after the calls that an error advises."""
    names = {"keras_shared": keras_shared, "model": model}
    exec("keras_shared." + str(error.value).partition(": keras_shared.")[2], names)
    return names["model"]


@pytest.mark.parametrize("nested", [False, True])
def test_the_calls_that_are_advised_work(nested):
    x = keras.Input((6,))
    inner = [layers.Dense(6, name=name) for name in "zab"]
    model = keras.Sequential([x, *inner])
    if nested:
        model = keras.Sequential([keras.Input((6,)), model])
    once = tie_weights(model, {"b": "a"}, "source", transpose=False)
    with pytest.raises(TieError, match="'a' is read by .'b'., and cannot read 'z' besides") as said:
        tie_weights(once, {"a": "z"}, "source", transpose=False)
    twice = followed(said, once)
    check_ties(twice)
    assert twice.count_params() == 42
    once = tie_weights(model, {"b": "a"}, "source", transpose=False)
    with pytest.raises(TieError, match=r"\['b'\] are layers that read others") as said:
        tie_weights(once, {"b": "z"}, "source")
    assert followed(said, once) is once and once.count_params() == 84
    (reader,) = readers_of(once)
    assert reader.source().name == "z"


def test_what_reads_another_is_no_source():
    x = keras.Input((6,))
    a, b, c = (layers.Dense(6, name=name) for name in "abc")
    once = tie_weights(keras.Model(x, c(b(a(x)))), {"b": "a"}, keep="source", transpose=False)
    with pytest.raises(TieError, match="'c' cannot read 'b', a TiedLayer that reads that of 'a'"):
        tie_weights(once, {"c": "b"}, keep="source", transpose=False)
    twice = tie_weights(once, {"c": "a"}, keep="source", transpose=False)
    assert twice.count_params() == 42


def test_advice_on_a_source_in_a_tower_works(tmp_path):
    def tower(name):
        inputs = keras.Input((6,))
        own = layers.Dense(4, name="in")
        hidden = own(inputs)
        return keras.Model(inputs, TiedDense(own, name="out")(hidden), name=name)

    x, first, second = keras.Input((6,)), tower("p"), tower("q")
    model = keras.Model(x, [first(x), second(x)])
    with pytest.raises(TieError, match=r"'q/in' is read by \['q/out'\], and cannot read 'p/in'"):
        tie_weights(model, {"q/in": "p/in"}, keep="source")
    untie(second)
    tied = tie_weights(model, {"q/in": "p/in"}, keep="source")
    tie(tied.get_layer("q").get_layer("out"), tied.get_layer("p").get_layer("in"), keep="source")
    tied.save(tmp_path / "tied.keras")  # before any call of it
    loaded = keras_shared.load(tmp_path / "tied.keras")
    x = noise(3, 6)
    for one in (tied, loaded):
        left, right = one(x)
        np.testing.assert_allclose(left, first(x), atol=1e-6)
        np.testing.assert_allclose(right, left, atol=1e-6)
    assert loaded.count_params() == 24 + 4 + 6 + 6


@pytest.mark.parametrize("extended", [False, True])
def test_a_copy_that_is_extended_keeps_its_own_tie(tmp_path, extended):
    """A new reader of the copy's source comes before the copy's own reader found it."""
    source = layers.Dense(4, name="code")
    x, z, inputs = keras.Input((6,)), keras.Input((4,)), keras.Input((6,))
    encoder = keras.Model(x, source(x), name="encoder")
    decoder = keras.Model(z, TiedDense(source, name="reader")(z), name="decoder")
    clone = keras.models.clone_model(keras.Model(inputs, decoder(encoder(inputs))))
    code = clone.get_layer("encoder").get_layer("code")
    hidden = clone.get_layer("encoder")(clone.input)
    outputs = [clone.output, TiedDense(code, name="more")(hidden)]
    model = keras.Model(clone.input, outputs if extended else clone.output)
    given = noise(2, 6)
    model(given)
    assert all(reader.source() is code for reader in readers_of(model))


def test_layers_of_one_name_in_two_sub_models():
    x, code, inputs = keras.Input((6,)), keras.Input((4,)), keras.Input((6,))
    encoder = keras.Model(x, layers.Dense(4, name="k")(x), name="encoder")
    decoder = keras.Model(code, layers.Dense(6, name="k")(code), name="decoder")
    model = keras.Model(inputs, decoder(encoder(inputs)))
    with pytest.raises(TieError, match=r"has 2 layers named 'k'.*\['encoder/k', 'decoder/k'\]"):
        tie_weights(model, {"k": "k"}, keep="source")
    tied = tie_weights(model, {"decoder/k": "encoder/k"}, keep="source")
    assert tied.count_params() == 6 * 4 + 4 + 6


@pytest.mark.parametrize(
    "build",
    [
        lambda name: layers.Bidirectional(layers.LSTM(2), name=name),
        lambda name: layers.TimeDistributed(layers.Dense(2), name=name),
        lambda name: layers.RNN(layers.LSTMCell(2), name=name),
        lambda name: keras.Sequential([keras.Input((5, 3)), layers.Dense(2)], name=name),
    ],
)
def test_what_lies_in_a_wrapper_may_have_another_name(build):
    x = keras.Input((5, 3))
    model = keras.Model(x, [build("first")(x), build("second")(x)])
    tied = tie_weights(model, {"second": "first"}, keep="source")
    assert 2 * tied.count_params() == model.count_params()
    one, two = tied(noise(2, 5, 3))
    np.testing.assert_array_equal(one, two)


def test_a_pattern_fits_names_of_its_own_depth():
    x, code, inputs = keras.Input((6,)), keras.Input((4,)), keras.Input((6,))
    encoder = keras.Model(x, layers.Dense(4, name="one_in")(x), name="enc")
    decoder = keras.Model(code, layers.Dense(6, name="one_out")(code), name="dec")
    model = keras.Model(inputs, decoder(encoder(inputs)))
    for ties in ({"*_out": "*_in"}, {"dec/*_out": "enc/*_in"}):
        assert tie_weights(model, ties, keep="source").count_params() == 6 * 4 + 4 + 6


def test_equal_values_of_a_finer_dtype_need_no_choice():
    x = keras.Input((6,), dtype="float64")
    source = layers.Dense(4, name="source", dtype="float64")
    reader = layers.Dense(6, name="reader", dtype="float64")
    model = keras.Model(x, reader(source(x)))
    source.kernel.assign(RANDOM.normal(size=(6, 4)))
    reader.kernel.assign(source.kernel.numpy().T)
    tie_weights(model, {"reader": "source"})


def test_layers_that_compute_in_other_dtypes_are_not_one():
    x = keras.Input((6,))
    rounded = layers.Dense(6, name="rounded", dtype="mixed_bfloat16")
    model = keras.Model(x, rounded(layers.Dense(6, name="source")(x)))
    with pytest.raises(TieError, match=r"differ in \['dtype'\]"):
        tie_weights(model, {"rounded": "source"}, keep="source", transpose=False)


def test_penalties_of_the_reader_alone_are_named():
    x = keras.Input((6,))
    reader = layers.Dense(6, kernel_regularizer="l2", kernel_constraint="non_neg", name="dec")
    model = keras.Model(x, reader(layers.Dense(4, name="enc")(x)))
    said = r"'dec' has \['kernel_regularizer', 'kernel_constraint'\], which 'enc' has not"
    with pytest.warns(UserWarning, match=said):
        tie_weights(model, {"dec": "enc"}, keep="source")


@pytest.mark.parametrize("use_bias", [True, False])
def test_quantised_layers(use_bias):
    x = keras.Input((6,))
    enc = layers.Dense(4, name="enc", use_bias=use_bias)
    model = keras.Model(x, layers.Dense(6, name="dec")(enc(x)))
    enc.quantize("int8")
    tied = tie_weights(model, {"dec": "enc"}, keep="source")
    kernel = keras_shared.tying.effective_weight(enc, "float32")
    code = enc(np.ones((1, 6), "float32"))
    np.testing.assert_allclose(
        tied(np.ones((1, 6), "float32")), code @ np.transpose(kernel), atol=1e-4
    )
    model.get_layer("dec").quantize("int8")
    with pytest.raises(TieError, match="'dec' is quantised as 'int8'.*Tie the model first"):
        tie_weights(model, {"dec": "enc"}, keep="source")


def test_another_hash_is_another_layer():
    x = keras.Input((8,))
    first, second = (HashedDense(8, 8, seed=n, name=f"h{n}") for n in (1, 2))
    model = keras.Model(x, second(first(x)))
    second.set_weights(first.get_weights())
    with pytest.raises(TieError, match=r"differ in \['seed'\]"):
        tie_weights(model, {"h2": "h1"})
