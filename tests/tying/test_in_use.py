"""Ties and shared layers as people use them: copies, names, several tensors, states, advice."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_shared
from keras_shared import PublishError, TieError, sharing_report, tie_weights, unshare
from keras_shared.layers import Shared, TiedDense, TiedEinsumDense, TiedLayer
from keras_shared.serving import check_version
from keras_shared.tying import bind_ties, check_ties, tie, untie

RANDOM = np.random.default_rng(3)


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def autoencoder(name="autoencoder", **shape):
    x = keras.Input(**(shape or {"shape": (6,)}), name="x")
    inward = layers.Dense(2, name="inward")
    return keras.Model(x, TiedDense(inward, name="outward")(inward(x)), name=name)


def in_two_models(kind):
    x, z = keras.Input((6,)), keras.Input((2,))
    code = layers.Dense(2, name="code")
    encoder = keras.Model(x, code(x), name=f"{kind}_encoder")
    decoder = keras.Model(z, TiedDense(code, name=f"{kind}_back")(z), name=f"{kind}_decoder")
    return encoder, decoder


# === Which layer is the source ===


def decoder_behind_another_encoder(folder=None):
    (encoder, _), (_, decoder) = in_two_models("one"), in_two_models("other")
    if folder is not None:  # sources that were saved are told apart, and their copies not
        for name in ("one", "other"):
            parts = in_two_models(name)
            keras.Sequential(parts).save(folder / f"{name}.keras")
        whole = [keras_shared.load(folder / f"{name}.keras") for name in ("one", "other")]
        encoder, decoder = whole[0].layers[0], whole[1].layers[1]
    x = keras.Input((6,))
    return keras.Model(x, decoder(encoder(x)))


def cloned(model, folder):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def saved_as(name):
    def again(model, folder):
        model.save(folder / name)
        return keras.models.load_model(folder / name)

    return again


@pytest.mark.parametrize(
    "again",
    [saved_as("model.keras"), saved_as("model.h5"), lambda model, _: copy.deepcopy(model),
     lambda model, _: pickle.loads(pickle.dumps(model)), cloned],
    ids=["keras", "h5", "deepcopy", "pickle", "cloned"],
)  # fmt: skip
@pytest.mark.parametrize("loaded", [False, True])
def test_a_weight_of_another_model_is_not_lost_in_silence(again, loaded, tmp_path):
    model = decoder_behind_another_encoder(tmp_path if loaded else None)
    said = "reads the weight of a 'code' that is not part of it.*`keras_shared.tying.untie`"
    with pytest.raises(TieError, match=said):
        again(model, tmp_path)
    x = noise(3, 6)
    before = model.predict(x, verbose=0)
    untie(model)  # as the error says
    after = again(model, tmp_path).predict(x, verbose=0)
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_a_reader_of_another_model_whose_config_alone_is_written(tmp_path):
    teacher = keras.Sequential(in_two_models("teacher"))
    teacher(noise(1, 6))

    @keras.saving.register_keras_serializable("tests.in_use")
    class Distilled(layers.Layer):
        def get_config(self):
            taught = keras.saving.serialize_keras_object(teacher)
            return {**super().get_config(), "taught": taught}

        def call(self, inputs):
            return inputs

    x = keras.Input((6,))
    student = keras.Model(x, Distilled()(layers.Dense(2, name="code")(x)))
    student.save(tmp_path / "student.keras")


def test_weights_of_a_source_that_is_not_in_their_file(tmp_path):
    file, x = tmp_path / "some.weights.h5", noise(3, 6)
    model = decoder_behind_another_encoder()
    before = model.predict(x, verbose=0)
    with pytest.warns(UserWarning, match="not complete: TiedDense 'other_back' reads the weight"):
        model.save_weights(file)
    model.load_weights(file)  # here its source still has the weight
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    (note,) = keras_shared.find_ties(model).notes
    assert "'code', which is not part of the model" in note
    with pytest.raises(PublishError, match="reads the weight of a 'code' that is not part of it"):
        keras_shared.publish(model, tmp_path / "published")

    encoder, decoder = in_two_models("kept")
    whole = keras.Sequential([encoder, decoder])
    before = whole.predict(x, verbose=0)
    for part in (encoder, decoder):
        part.save_weights(tmp_path / f"{part.name}.weights.h5")
    encoder, decoder = in_two_models("kept")
    for part in (decoder, encoder):  # the decoder's file holds no source at all
        part.load_weights(tmp_path / f"{part.name}.weights.h5")
    np.testing.assert_array_equal(
        keras.Sequential([encoder, decoder]).predict(x, verbose=0), before
    )


def renamed(layer):
    return type(layer).from_config({**layer.get_config(), "name": f"{layer.name}_2"})


def test_a_renamed_copy_never_reads_the_original():
    first = autoencoder("first")
    second = keras.models.clone_model(first, clone_function=renamed)
    second.name = "second"
    x = keras.Input((6,))
    both = keras.Model(x, [first(x), second(x)])
    with pytest.raises(TieError, match=r"'outward_2' is a copy.*\['inward_2'\]|.inward_2"):
        both.predict(np.eye(6), verbose=0)
    reader, source = second.get_layer("outward_2"), second.get_layer("inward_2")
    assert tie(reader, source).source() is source  # what the error advises
    kernel = noise(6, 2)
    source.kernel.assign(kernel)
    answers = both.predict(np.eye(6), verbose=0)
    np.testing.assert_allclose(answers[1], kernel @ kernel.T, atol=1e-5)
    with pytest.raises(TieError, match="is already tied to 'inward_2'"):
        tie(reader, source)


def test_a_reader_is_pointed_to_a_layer_of_the_right_shape_only():
    reader = TiedDense.from_config(autoencoder().get_layer("outward").get_config())
    wide = layers.Dense(3, name="wide")
    wide.build((None, 6))
    with pytest.raises(TieError, match="shape \\(6, 2\\), but the source 'wide' has \\(6, 3\\)"):
        tie(reader, wide)


@pytest.mark.parametrize("order", [1, -1])
def test_equal_names_in_two_networks_of_one_file(order, tmp_path):
    kinds = ("image", "sound")[::order]
    inputs, outputs = [], []
    for kind in kinds:
        a = keras.Input((6,))
        encoder, decoder = in_two_models(kind)
        inputs.append(a)
        outputs.append(decoder(encoder(a)))
    model, data = keras.Model(inputs, outputs), [noise(3, 6), noise(3, 6)]
    before = model.predict(data, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    renamed_one, other = ("sound", "image")
    code = loaded.get_layer(f"{renamed_one}_encoder").get_layer("code")
    code.name = "sound_code"
    with pytest.raises(TieError, match="was renamed"):
        bind_ties(loaded)
    readers = {k: loaded.get_layer(f"{k}_decoder").get_layer(f"{k}_back") for k in kinds}
    assert all(r._reference.layer is None for r in readers.values())  # all or none
    tie(readers[renamed_one], code)
    tie(readers[other], loaded.get_layer(f"{other}_encoder").get_layer("code"))
    bind_ties(loaded)
    for answer, wanted in zip(loaded.predict(data, verbose=0), before, strict=True):
        np.testing.assert_allclose(answer, wanted, atol=1e-5)


def test_a_copy_of_a_copy_reads_its_own():
    model = autoencoder()
    for _ in range(2):
        model = keras.models.clone_model(model)
        bind_ties(model)
    x = keras.Input((6,))
    other = keras.models.clone_model(model)
    other.name = "other"
    both = keras.Model(x, [model(x), other(x)])
    kernels = noise(6, 2), noise(6, 2)
    for part, kernel in zip((model, other), kernels, strict=True):
        part.get_layer("inward").kernel.assign(kernel)
    for answer, kernel in zip(both.predict(np.eye(6), verbose=0), kernels, strict=True):
        np.testing.assert_allclose(answer, kernel @ kernel.T, atol=1e-5)


# === Several tensors, keywords, masks, states ===


@pytest.mark.parametrize("pack", [list, tuple, lambda pair: dict(zip("ab", pair, strict=True))])
def test_each_use_has_its_mask(pack):
    x = [noise(2, 4, 3), noise(2, 4, 3)]
    masks = [np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool), np.array([[1, 1, 1, 0]] * 2, bool)]
    lstm = layers.LSTM(2)
    answers = Shared(lstm)(pack(x), mask=pack(masks))
    answers = list(answers.values()) if isinstance(answers, dict) else answers
    for answer, value, mask in zip(answers, x, masks, strict=True):
        np.testing.assert_allclose(answer, lstm(value, mask=mask), atol=1e-6)
    one = Shared(lstm)([x[0], x[1]], mask=[masks[0], None])
    np.testing.assert_allclose(one[1], lstm(x[1]), atol=1e-6)
    with pytest.raises(ValueError, match="takes `mask` as a list like its inputs"):
        Shared(lstm)(x, mask=masks[0])


def test_shared_hands_on_states_and_several_tensors():
    gru, x, states = layers.GRU(2), [noise(2, 4, 3), noise(2, 4, 3)], [noise(2, 2), noise(2, 2)]
    answers = Shared(gru)(x, initial_state=states)
    for answer, value, state in zip(answers, x, states, strict=True):
        np.testing.assert_allclose(answer, gru(value, initial_state=state), atol=1e-6)
    dropout = Shared(layers.Dropout(0.5, seed=1))
    assert (np.asarray(dropout(x, training=True)[0]) == 0).any()
    assert not (np.asarray(dropout(x, training=False)[0]) == 0).any()
    with pytest.raises(ValueError, match="stateful layer 'memory' would go on"):
        Shared(layers.LSTM(4, stateful=True, name="memory"))(x)


def test_tensors_and_other_arguments_may_be_mixed():
    attention = layers.MultiHeadAttention(2, 4)
    q, v, mask = noise(2, 5, 8), noise(2, 6, 8), RANDOM.random((2, 5, 6)) > 0.3
    given = {"value": v, "attention_mask": mask, "return_attention_scores": True}
    wanted = attention(query=q, **given)
    symbols = [keras.Input((5, 8)), keras.Input((6, 8)), keras.Input((5, 6), dtype="bool")]
    named = dict(zip(("query", "value", "attention_mask"), symbols, strict=True))
    graph = keras.Model(symbols, TiedLayer(attention)(**named, return_attention_scores=True))
    twice = {k: [v, v] if k != "return_attention_scores" else v for k, v in given.items()}
    answers = Shared(attention)([q, q], **twice)
    for found in (TiedLayer(attention)(query=q, **given), graph([q, v, mask]), *answers):
        for answer, value in zip(found, wanted, strict=True):
            np.testing.assert_allclose(answer, value, atol=1e-6)
    again = keras.Model.from_config(graph.get_config())
    assert again.layers[-1].arguments == ["query", "value", *again.layers[-1].arguments[2:]]


@pytest.mark.slow
def test_tied_layers_take_what_their_source_takes(tmp_path):
    lstm = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    x, y, h, c = (keras.Input(shape) for shape in ((5, 4), (6, 4), (4,), (4,)))
    encoder = keras.Model(x, [attention(x, x), *lstm(x)[1:]], name="encoder")
    again = TiedLayer(lstm, name="again")(y, initial_state=[h, c])[0]
    attended = TiedLayer(attention, name="attended")(again, value=again, use_causal_mask=True)
    decoder = keras.Model([y, h, c], attended, name="decoder")
    inputs = [keras.Input((5, 4)), keras.Input((6, 4))]
    first, *state = encoder(inputs[0])
    model = keras.Model(inputs, [first, decoder([inputs[1], *state])])
    a, b = noise(2, 5, 4), noise(2, 6, 4)
    sequence = lstm(b, initial_state=lstm(a)[1:])[0]
    wanted = [attention(a, a), attention(sequence, sequence, use_causal_mask=True)]
    model.save(tmp_path / "m.keras")
    for one in (model, keras_shared.load(tmp_path / "m.keras"), bind_ties(
        keras.models.clone_model(model))):  # fmt: skip
        assert one.count_params() == lstm.count_params() + attention.count_params()
    for one in (model, keras_shared.load(tmp_path / "m.keras")):
        for answer, value in zip(one.predict([a, b], verbose=0), wanted, strict=True):
            np.testing.assert_allclose(answer, value, atol=1e-5)


# === What sees ties sees them inside of wrappers, in time, in fixed batches ===


def test_steps_of_an_rnn_are_one_use():
    x, y = keras.Input((7, 3)), keras.Input((7, 3))
    report = sharing_report(keras.Model([x, y], Shared(layers.LSTM(4, name="lstm"))([x, y])))
    assert {w.uses for w in report.weights} == {2} and report.totals["ratio"] == 2
    [(_, reading)] = report.weights[0].readers.items()
    assert reading.form == "as is, at each of 7 steps" and reading.times == 2
    cell = layers.LSTMCell(4)
    twice = keras.Model([x, y], [layers.RNN(cell)(x), layers.RNN(cell)(y)])
    assert {w.uses for w in sharing_report(twice).weights} == {2}
    both = keras.Model(x, layers.Bidirectional(layers.GRU(4))(x))
    assert {w.uses for w in sharing_report(both).weights} == {1}


def test_unshare_looks_into_wrappers():
    x, inward = keras.Input((4, 6)), layers.Dense(3, name="inward")
    outward = layers.TimeDistributed(TiedDense(inward, name="outward"), name="wrapper")
    model = keras.Model(x, outward(layers.TimeDistributed(inward)(x)))
    apart, data = unshare(model), noise(2, 4, 6)
    assert apart.count_params() == model.count_params() + 18
    np.testing.assert_allclose(
        apart.predict(data, verbose=0), model.predict(data, verbose=0), atol=1e-5
    )
    with pytest.raises(ValueError, match="'wrapper' holds .* narrower. Leave out `parameters`"):
        unshare(model, copy_values=False, parameters=20)


@pytest.mark.parametrize("holder", ["wrappers", "cells", "models"])
def test_check_ties_names_what_is_shared_and_where(holder):
    x = keras.Input((4, 6))
    if holder == "wrappers":
        net = layers.Dense(2, name="net")
        outputs = [layers.TimeDistributed(net, name=f"view_{i}")(x) for i in range(3)]
        named = ("net' (in view_0 and view_1 and view_2)",)
    elif holder == "cells":
        cell = layers.LSTMCell(3, name="net")
        outputs = [layers.RNN(cell, name=name)(x) for name in ("reading", "writing")]
        named = ("net' (in reading and writing)",)
    else:
        net = layers.Dense(2, name="net")
        inner = [keras.Input((4, 6)) for _ in range(2)]
        parts = [keras.Model(i, net(i), name=n) for i, n in zip(inner, ("left", "right"))]
        outputs = [part(x) for part in parts]
        named = ("'net' (in left and right)",)
    with pytest.raises(TieError) as told:
        check_ties(keras.Model(x, outputs))
    assert all(name in str(told.value) for name in named), told.value


@pytest.mark.slow
def test_a_fixed_batch_is_exported_and_published(tmp_path):
    model, x = autoencoder(batch_shape=(4, 6)), noise(4, 6)
    with pytest.warns(UserWarning, match="input 'x' takes exactly 4 rows.*--no-batching"):
        version = keras_shared.publish(model, tmp_path / "m")
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    assert served.structured_input_signature[1]["x"].shape == (4, 6)
    np.testing.assert_allclose(served(x=x)["outward"], model(x), atol=1e-5)
    loaded = keras_shared.load(version)
    assert loaded.input_shape == (4, 6)
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
    assert [f.severity for f in check_version(version)] == ["warning", "note"]


def test_a_stateful_rnn_is_reported_and_exported_where_it_stands(tmp_path):
    x = keras.Input(batch_shape=(2, 5, 3), name="x")
    lstm = layers.LSTM(4, stateful=True, name="memory")
    model, data = keras.Model(x, lstm(x)), noise(2, 5, 3)
    model.predict(data, verbose=0)
    before = [np.array(state) for state in lstm.states]
    assert sharing_report(model).totals["trainable_parameters"] == 4 * 4 * (3 + 4 + 1)
    folder = keras_shared.export(model, tmp_path / "exported")
    for state, value in zip(lstm.states, before, strict=True):
        np.testing.assert_array_equal(state, value)
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    first, second = served(x=data)["memory"], served(x=data)["memory"]
    assert np.abs(first - second).max() > 1e-4  # it goes on
    np.testing.assert_allclose(first, model(data), atol=1e-5)


# === Refusals and advice, followed ===


class Letters:
    def tokenize(self, text):
        return [ord(letter) % 20 for letter in text]


def calibrated(model, mode, blocks):
    """Quantise by GPTQ or AWQ, which look at what blocks are called on."""
    kind = {"gptq": keras.quantizers.GPTQConfig, "awq": keras.quantizers.AWQConfig}[mode]
    text = ["a b c d e f g h i j k l m n o p q r s t " * 4] * 4
    structure = {"pre_block_layers": [model.get_layer("table")], "sequential_blocks": blocks}
    model.quantize(mode, config=kind(
        dataset=text, tokenizer=Letters(), num_samples=4, sequence_length=8, group_size=-1,
        quantization_layer_structure=structure,
    ))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["gptq", "awq"])
@pytest.mark.parametrize("kind", ["dense", "einsum", "untied"])
def test_readers_follow_gptq_and_awq(kind, mode):
    """The reader's kernel is what its source multiplies by then, asked by the identity."""
    x, ids = keras.Input((8,), dtype="int32"), np.arange(16).reshape(2, 8)
    table = layers.Embedding(20, 16, name="table")
    if kind == "einsum":
        inward = layers.EinsumDense("btx,xy->bty", (8, 16), name="inward")
        outward = TiedEinsumDense(inward, name="outward")
    else:
        inward = layers.Dense(16, name="inward")
        outward = TiedDense(inward, name="outward")
    model = keras.Model(x, outward(inward(table(x))))
    if kind == "untied":
        untie(model)
    exact = model.predict(ids, verbose=0)
    calibrated(model, mode, [inward, outward] if kind == "untied" else [inward])
    answer = model.predict(ids, verbose=0)
    assert np.abs(answer - exact).max() < 0.4 * np.abs(exact).max()  # 4 bits
    source = outward.own_layer if kind == "untied" else inward
    assert source.quantization_mode == mode
    eye = np.eye(16, dtype="float32")[None]
    np.testing.assert_allclose(outward(eye)[0], np.transpose(source(eye)[0]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["gptq", "awq"])
def test_report_of_codes_of_several_axes(mode):
    """The codes of such a kernel are a matrix, and what is computed is what it was."""
    x = keras.Input((8,), dtype="int32")
    inward = layers.EinsumDense("btx,xhd->bthd", (8, 4, 4), name="inward")
    reader = TiedEinsumDense(inward, name="outward")
    model = keras.Model(x, reader(inward(layers.Embedding(20, 16, name="table")(x))))

    def counted():
        return {w.path: w.multiply_adds for w in sharing_report(model).weights}["inward/kernel"]

    before = counted()
    calibrated(model, mode, [inward])
    assert counted() == before


def test_weights_of_a_net_without_ties_come_in_as_the_error_says(tmp_path):
    x, data = keras.Input((6,)), noise(3, 6)
    inward = layers.Dense(2, name="inward")
    old = keras.Model(x, layers.Dense(6, name="outward")(inward(x)))
    bias = noise(6)
    old.get_layer("outward").set_weights([inward.kernel.numpy().T, bias])
    old.save_weights(tmp_path / "old.weights.h5")
    tied = autoencoder()
    with pytest.raises(ValueError, match=r"call `keras_shared.load_weights\(model, filepath\)`"):
        tied.load_weights(tmp_path / "old.weights.h5")
    keras_shared.load_weights(tied, tmp_path / "old.weights.h5")
    np.testing.assert_allclose(tied(data), old(data), atol=1e-5)


def test_what_is_no_reader_is_not_tied_or_untied_in_silence():
    first, second = layers.Dense(6, name="first"), layers.Dense(6, name="second")
    advice = r"Dense 'first', to tie to 'second'.*tie_weights\(model, \{'first': 'second'\}"
    with pytest.raises(TieError, match=advice):
        tie(first, second)
    x = keras.Input((6,))
    plain = keras.Model(x, first(second(x)))
    tied = tie_weights(plain, {"first": "second"}, keep="source", transpose=False)
    assert plain.count_params() == 2 * tied.count_params()  # as the message says
    x, y = keras.Input((6,)), keras.Input((6,))
    pair = keras.Model([x, y], Shared(layers.Dense(3))([x, y]), name="pair")
    with pytest.warns(UserWarning, match="'pair' has no layer that is tied.*keras_shared.unshare"):
        untie(pair)
    assert unshare(pair).count_params() == 2 * pair.count_params()


def test_a_lambda_is_loaded_on_request_and_named_by_publish(tmp_path):
    inputs = [keras.Input((6,)), keras.Input((6,))]
    apart = layers.Lambda(lambda p: abs(p[0] - p[1]), output_shape=(3,), name="distance")
    model = keras.Model(inputs, apart(Shared(layers.Dense(3))(inputs)))
    model.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="safe_mode=False"):
        keras_shared.load(tmp_path / "m.keras")
    loaded = keras_shared.load(tmp_path / "m.keras", safe_mode=False)
    data = [noise(2, 6), noise(2, 6)]
    np.testing.assert_allclose(loaded(data), model(data), atol=1e-6)
    with pytest.raises(PublishError, match="'distance' is a Lambda, whose Python code Keras does"):
        keras_shared.publish(model, tmp_path / "published")
