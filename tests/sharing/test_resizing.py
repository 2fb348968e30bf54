"""Another number of words: rows, heads and biases by hand, topologies, refusals and advice."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_shared
from keras_shared import TieError, resize_vocabulary, tie, tie_weights, untie
from keras_shared.layers import TiedDense, TiedLayer
from keras_shared.tying import TiedReader, check_ties

RANDOM = np.random.default_rng(13)
IDS = RANDOM.integers(0, 6, (3, 5))


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def with_noise(model):
    model.set_weights([noise(*w.shape) for w in model.weights])
    return model


def words(size=10, mask=False, head=None, **kwargs):
    ids = keras.Input((5,), dtype="int32", name="ids")
    table = layers.Embedding(size, 4, name="table", mask_zero=mask, **kwargs)
    x = layers.LSTM(4, return_sequences=True, name="reading")(table(ids))
    head = TiedDense(table, "softmax", name="head") if head is None else head
    return with_noise(keras.Model(ids, head(x), name="words"))


def softmax(z):
    z = np.exp(z - z.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True)


@pytest.mark.parametrize(("size", "mask"), [(6, True), (10, False), (13, True)])
def test_rows_head_and_bias_by_hand(size, mask, tmp_path):
    model = words(mask=mask)
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [np.array(w) for w in model.weights]
    table, bias = before[0], before[-1]
    other = resize_vocabulary(model, size)
    kept = min(size, 10)
    new_table, new_bias = other.get_layer("table").embeddings, other.get_layer("head").bias
    assert new_table.shape == (size, 4) and new_bias.shape == (size,)
    np.testing.assert_array_equal(new_table[:kept], table[:kept])
    np.testing.assert_array_equal(new_bias[:kept], bias[:kept])
    assert np.abs(new_table[kept:]).max(initial=0) <= 0.05  # as "uniform" draws
    assert not np.any(new_bias[kept:]) and len(np.unique(new_table[kept:])) == 4 * (size - kept)
    hidden = keras.Model(other.input, other.get_layer("reading").output)(IDS)
    wanted = softmax(np.array(hidden) @ np.transpose(new_table) + np.array(new_bias))
    answers = other.predict(IDS, verbose=0)
    np.testing.assert_allclose(answers, wanted, atol=1e-5)
    assert answers.shape == (3, 5, size) and other.name == "words" and not other.compiled
    assert other.get_layer("head").source() is other.get_layer("table")
    for now, then in zip(model.weights, before, strict=True):  # the old one stays, compiled
        np.testing.assert_array_equal(now, then)
    assert model.compiled
    check_ties(other)
    other.save(tmp_path / "m.keras")
    loaded = keras_shared.load(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(IDS, verbose=0), wanted, atol=1e-5)


def test_new_rows_are_trained_in_both_uses():
    other = resize_vocabulary(words(), 12)
    table = other.get_layer("table").embeddings
    before = np.array(table)
    other.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    other.fit(np.full((2, 5), 3), np.full((2, 5), 11), verbose=0)  # 11 is a target alone
    moved = np.abs(np.array(table) - before).max(axis=1)
    assert moved[11] > 1e-3 and moved[3] > 1e-3 and other.get_layer("head").bias[11] > 0


def test_what_it_answers_for_old_words_stays():
    model, x = words(), IDS
    logits = keras.Model(model.input, model.get_layer("head").output)
    other = resize_vocabulary(logits, 12)
    old, new = model.predict(x, verbose=0), other.predict(x, verbose=0)[..., :10]
    np.testing.assert_allclose(new / new.sum(-1, keepdims=True), old, atol=1e-5)


def test_drawn_by_the_initializers_of_the_layers():
    ids = keras.Input((5,), dtype="int32")
    table = layers.Embedding(10, 4, embeddings_initializer=keras.initializers.Constant(3.0))
    head = TiedDense(table, bias_initializer=keras.initializers.Constant(-2.0), name="head")
    model = with_noise(keras.Model(ids, head(table(ids))))
    other = resize_vocabulary(model, 12)
    np.testing.assert_array_equal(other.layers[1].embeddings[10:], np.full((2, 4), 3.0))
    np.testing.assert_array_equal(other.get_layer("head").bias[10:], [-2.0, -2.0])


def test_a_table_of_fixed_values_says_what_to_do():
    """Pretrained vectors as the initialiser, as many tutorials have it."""
    values = keras.initializers.Constant(noise(10, 4))
    model = words(embeddings_initializer=values, trainable=False)
    with pytest.raises(ValueError, match="have 12 words.*initializer = keras.init.*get.'uniform'"):
        resize_vocabulary(model, 12)
    model.get_layer("table").embeddings_initializer = keras.initializers.get("uniform")
    other = resize_vocabulary(model, 12)
    assert other.get_layer("table").embeddings.shape == (12, 4)
    assert not other.get_layer("table").trainable


# === Topologies ===


def encoder_decoder(size=10):
    table = layers.Embedding(size, 4, mask_zero=True, name="table")
    ids, past, inputs = keras.Input((5,)), keras.Input((6,)), [keras.Input((5,)), keras.Input((6,))]
    state = layers.GRU(4, name="read")(table(ids))
    encoder = keras.Model(ids, state, name="encoder")
    start = keras.Input((4,))
    again = TiedLayer(table, name="again")(past)
    y = layers.GRU(4, return_sequences=True, name="write")(again, initial_state=start)
    decoder = keras.Model([past, start], TiedDense(table, name="scores")(y), name="decoder")
    return with_noise(keras.Model(inputs, decoder([inputs[1], encoder(inputs[0])])))


@pytest.mark.slow
def test_sub_models_whose_readers_take_the_table_of_another():
    model = encoder_decoder()
    data = [RANDOM.integers(1, 10, (2, 5)), RANDOM.integers(1, 10, (2, 6))]
    other = resize_vocabulary(model, 14)
    assert other.count_params() - model.count_params() == 4 * 4 + 4
    np.testing.assert_allclose(other(data)[..., :10], model(data), atol=1e-5)
    decoder, table = other.get_layer("decoder"), other.get_layer("encoder").get_layer("table")
    assert all(decoder.get_layer(n).source() is table for n in ("again", "scores"))
    check_ties(other)
    smaller = resize_vocabulary(other, 10)
    np.testing.assert_allclose(smaller(data), model(data), atol=1e-5)


def test_a_reader_of_a_whole_model_that_holds_the_table():
    ids, other = keras.Input((5,)), keras.Input((5,))
    table = layers.Embedding(10, 4, name="table")
    language = keras.Model(ids, TiedDense(table, name="head")(table(ids)), name="language")
    again = keras.Model(other, TiedLayer(language, name="again")(other), name="second")
    inputs = [keras.Input((5,)), keras.Input((5,))]
    model = with_noise(keras.Model(inputs, [language(inputs[0]), again(inputs[1])]))
    new = resize_vocabulary(model, 12)
    reader = new.get_layer("second").get_layer("again")
    assert reader.source() is new.get_layer("language")
    assert new.output_shape == [(None, 5, 12)] * 2
    for now, then in zip(new([IDS, IDS[::-1]]), model([IDS, IDS[::-1]]), strict=True):
        np.testing.assert_allclose(now[..., :10], then, atol=1e-5)
    check_ties(new)


def test_a_sequential_and_positions():
    table = layers.Embedding(10, 4, name="table")
    model = keras.Sequential([keras.Input((5,)), table, layers.Dense(4), TiedDense(table)])
    with_noise(model)
    other = resize_vocabulary(model, 11)
    assert isinstance(other, keras.Sequential)
    np.testing.assert_allclose(other(IDS)[..., :10], model(IDS), atol=1e-5)

    ids = keras.Input((5,), dtype="int32")
    token, position = layers.Embedding(10, 4, name="token"), layers.Embedding(5, 4, name="position")
    place = position(ops.cumsum(ops.ones_like(ids), axis=1) - 1)
    model = with_noise(keras.Model(ids, TiedDense(token)(token(ids) + place)))
    with pytest.raises(
        ValueError, match="found Embedding 'token' .*Embedding 'position' .*Name it"
    ):
        resize_vocabulary(model, 12)
    other = resize_vocabulary(model, 12, embedding="token")
    np.testing.assert_allclose(other(IDS)[..., :10], model(IDS), atol=1e-5)
    longer = resize_vocabulary(model, 7, embedding="position")  # no reader of it
    np.testing.assert_allclose(longer(IDS), model(IDS), atol=1e-5)


def test_the_embedding_of_keras_that_is_its_own_head():
    ids = keras.Input((5,), dtype="int32")
    for tied in (True, False):
        table = layers.ReversibleEmbedding(10, 4, tie_weights=tied, name="table")
        model = with_noise(keras.Model(ids, table(table(ids), reverse=True)))
        other = resize_vocabulary(model, 12)
        assert other.output_shape == (None, 5, 12)
        np.testing.assert_allclose(other(IDS)[..., :10], model(IDS), atol=1e-5)


@keras.saving.register_keras_serializable("tests")
class Expected(TiedReader):
    """A reader of a user's own: the mean row under a distribution over words."""

    source_classes = (layers.Embedding,)

    def build(self, input_shape):
        self.gain = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gain")
        super().build(input_shape)

    def call(self, inputs):
        return (inputs * self.gain) @ self.tied_weight()

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.tied_weight_shape()[1])


def test_a_reader_of_ones_own():
    ids, table = keras.Input((5,), dtype="int32"), layers.Embedding(10, 4, name="table")
    scores = TiedDense(table, "softmax", name="head")(table(ids))
    model = with_noise(keras.Model(ids, Expected(table, name="mean")(scores)))
    other = resize_vocabulary(model, 12)
    assert other.get_layer("mean").gain.shape == (12,)
    np.testing.assert_array_equal(other.get_layer("mean").gain[:10], model.get_layer("mean").gain)
    table = np.array(other.get_layer("table").embeddings)
    p = softmax(table[IDS] @ table.T + np.array(other.get_layer("head").bias))
    np.testing.assert_allclose(
        other(IDS), (p * np.array(other.get_layer("mean").gain)) @ table, atol=1e-5
    )


# === Heads that are not tied ===


def test_a_plain_head_is_asked_about():
    model = words(head=layers.Dense(10, name="head"))
    with pytest.raises(ValueError, match="Dense 'head' is as wide as there are words .10., and is"):
        resize_vocabulary(model, 12)
    other = resize_vocabulary(model, 12, heads=["head"])
    head, old = other.get_layer("head"), model.get_layer("head")
    assert head.kernel.shape == (4, 12)
    np.testing.assert_array_equal(head.kernel[:, :10], old.kernel)
    np.testing.assert_array_equal(head.bias[:10], old.bias)
    assert np.any(head.kernel[:, 10:]) and not np.any(head.bias[10:])
    np.testing.assert_allclose(other(IDS)[..., :10], model(IDS), atol=1e-5)
    left = resize_vocabulary(model, 12, heads=[])  # classes that happen to be as many
    np.testing.assert_allclose(left(IDS), model(IDS), atol=1e-5)
    tied = tie_weights(model, {"head": "table"}, keep="source")  # as the error says
    assert resize_vocabulary(tied, 12).output_shape == (None, 5, 12)
    with pytest.raises(ValueError, match="`heads` are Dense layers with 10 units.*LSTM 'reading'"):
        resize_vocabulary(model, 12, heads=["reading"])
    with pytest.raises(TieError, match="has 0 layers named 'haed'"):
        resize_vocabulary(model, 12, heads=["haed"])
    assert resize_vocabulary(model, 12, heads="head").output_shape == (None, 5, 12)
    with pytest.raises(ValueError, match="`heads` must be a list of names. Received: heads=3"):
        resize_vocabulary(model, 12, heads=3)
    for arguments in ({"heads": [head]}, {"embedding": head}):
        with pytest.raises(TieError, match="Pass its name, 'head'"):
            resize_vocabulary(model, 12, **arguments)
    with pytest.raises(TieError, match="name or path, as text. Received: .'table'. .of type list"):
        resize_vocabulary(model, 12, embedding=["table"])


def test_an_untied_reader_is_tied_again_first():
    model = untie(words())
    with pytest.raises(ValueError, match="TiedDense 'head' is as wide.*tie it first"):
        resize_vocabulary(model, 12)
    tie(model.get_layer("head"), model.get_layer("table"))
    other = untie(resize_vocabulary(model, 12))
    assert other.get_layer("head").own_layer.embeddings.shape == (12, 4)
    kept = resize_vocabulary(untie(words()), 12, heads=[])
    assert kept.output_shape == (None, 5, 10)


# === What cannot follow ===


@pytest.mark.slow
@pytest.mark.parametrize("size", [12, 20])  # a multiple, too: a Reshape would take it
def test_layers_behind_the_head_are_named(size):
    for behind, name in (
        (layers.Reshape((50,), name="flat"), "flat"),
        (layers.Reshape((-1, 10), name="rows"), "rows"),
        (layers.Dense(3, name="behind"), "behind"),
        (layers.BatchNormalization(name="norm"), "norm"),
        (layers.Flatten(name="flat"), "flat"),
    ):
        model = words()
        model = keras.Model(model.input, behind(model.output))
        with pytest.raises(ValueError, match=f"(?s)have {size} words in place of 10: .*{name}"):
            resize_vocabulary(model, size)
        assert model.output_shape == behind.output.shape  # it stays
    model = words()
    behind = layers.LayerNormalization(name="norm")(model.output)
    with pytest.raises(ValueError, match="(?s)have 12 .*LayerNormalization.*Cannot reshape a"):
        resize_vocabulary(keras.Model(model.input, behind), 12)
    model = keras.Model(model.input, ops.reshape(model.output, (-1, 10)))
    with pytest.raises(ValueError, match=f"cannot have {size} words in place of 10"):
        resize_vocabulary(model, size)
    model = words()
    fine = layers.Dropout(0.1)(layers.Activation("relu")(ops.log(model.output)))
    assert resize_vocabulary(keras.Model(model.input, fine), size).output_shape[-1] == size


def test_models_without_a_graph_a_table_or_with_other_storage():
    class Sub(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="of type Sub. has no graph of layers"):
        resize_vocabulary(Sub(), 3)
    x = keras.Input((3,))
    with pytest.raises(ValueError, match="needs one Embedding to resize; found none"):
        resize_vocabulary(keras.Model(x, layers.Dense(3)(x)), 3)
    with pytest.raises(ValueError, match="found LSTM 'reading'"):
        resize_vocabulary(words(), 3, embedding="reading")
    for size in (0, -1, 2.5, True, "3"):
        with pytest.raises(ValueError, match="Received: size="):
            resize_vocabulary(words(), size)
    ids = keras.Input((5, 2))
    inner = layers.TimeDistributed(layers.Embedding(10, 4, name="table"), name="each")
    with pytest.raises(TieError, match="'table' lies inside of TimeDistributed 'each'"):
        resize_vocabulary(keras.Model(ids, inner(ids)), 12)
    assert resize_vocabulary(words(), np.int64(11)).output_shape == (None, 5, 11)


def test_lora_and_quantised_tables_and_the_advice():
    model = words()
    model.get_layer("table").enable_lora(2)
    with pytest.raises(ValueError, match="'table' has LoRA.*Resize the vocabulary first, and then"):
        resize_vocabulary(model, 12)
    other = resize_vocabulary(words(), 12)
    other.get_layer("table").enable_lora(2)
    assert other(IDS).shape == (3, 5, 12)
    model = words()
    model.quantize("int8")
    with pytest.raises(ValueError, match="'table' is quantised.*then quantise"):
        resize_vocabulary(model, 12)
    other = resize_vocabulary(words(), 12)
    other.quantize("int8")
    assert other(IDS).shape == (3, 5, 12)


def test_half_precision_regularizer_and_other_readers():
    ids = keras.Input((5,), dtype="int32")
    table = layers.Embedding(
        10, 4, name="table", dtype="mixed_bfloat16", embeddings_regularizer="l2"
    )
    code = layers.Dense(3, name="code")
    x = TiedDense(code, name="back")(code(table(ids)))
    model = with_noise(keras.Model(ids, TiedDense(table, name="head", dtype="mixed_bfloat16")(x)))
    other = resize_vocabulary(model, 12)
    assert other.get_layer("back").source() is other.get_layer("code")
    assert other.get_layer("table").dtype_policy.name == "mixed_bfloat16"
    np.testing.assert_allclose(
        np.array(other(IDS)[..., :10], "float32"), np.array(model(IDS), "float32"), atol=0.1
    )
    [loss] = other.losses
    wanted = 0.01 * np.sum(np.square(other.get_layer("table").embeddings))
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
