"""TiedLanguageModel against NumPy written out, what it writes, and what it refuses."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_shared
from keras_shared.losses import LOSSES
from keras_shared.tying import readers_of
from keras_shared.zoo import SharedTransformer, SharedTransformerClassifier, TiedLanguageModel
from keras_shared.zoo.language_model import _drawn
from keras_shared.zoo.tied_language_model import Norm

VOCABULARY = list("abcdefg \n")
TOKENS = np.random.default_rng(0).integers(1, 11, (3, 6)).astype("int32")


def small(**arguments):
    return TiedLanguageModel(**{"vocabulary": VOCABULARY, "units": 5, "num_layers": 2, **arguments})


def louder(model):
    """Weights large enough that a wrong one shows."""
    random = np.random.default_rng(1)
    model.set_weights([random.normal(0, 0.7, w.shape) for w in model.get_weights()])
    return model


# === By hand ===


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, kernel, recurrent, bias):
    units, outputs = recurrent.shape[0], []
    h = c = np.zeros((len(x), units))
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1)


def gru(x, kernel, recurrent, bias):
    units, outputs = recurrent.shape[0], []
    h = np.zeros((len(x), units))
    for t in range(x.shape[1]):
        xz, xr, xh = np.split(x[:, t] @ kernel + bias[0], 3, axis=1)
        hz, hr, hh = np.split(h @ recurrent + bias[1], 3, axis=1)
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        h = z * h + (1 - z) * np.tanh(xh + r * hh)
        outputs.append(h)
    return np.stack(outputs, 1)


@pytest.mark.parametrize(("cell", "run"), [("lstm", lstm), ("gru", gru)])
@pytest.mark.parametrize("projection", [None, 0.1])
def test_logits_by_hand(cell, run, projection):
    model = louder(small(cell=cell, projection=projection))
    weights = model.get_weights()
    table, first, second = weights[0], weights[1:4], weights[4:7]
    x = run(run(table[TOKENS], *first), *second)
    if projection is not None:
        x = x @ weights[7]
    expected = x @ table.T + weights[-1]
    np.testing.assert_allclose(model.predict(TOKENS, verbose=0), expected, rtol=1e-4, atol=1e-4)


def test_one_table_and_the_gradient_of_both_uses():
    tied = louder(small())
    untied = small(tied=False)
    by_path = {w.path: w.numpy() for w in tied.weights}
    table = tied.get_layer("table").embeddings
    assert readers_of(tied)[0].source() is tied.get_layer("table") and not readers_of(untied)
    assert sum(w.shape == table.shape for w in tied.weights) == 1
    for weight in untied.weights:
        if weight.path in by_path:
            weight.assign(by_path[weight.path])
        else:
            weight.assign(table.numpy() if weight.shape == table.shape else table.numpy().T)
    assert untied.count_params() == tied.count_params() + 11 * 5
    loss = LOSSES["token_crossentropy"]()
    gradients = []
    for model in (tied, untied):
        with tf.GradientTape() as tape:
            value = loss(TOKENS[:, 1:], model(TOKENS[:, :-1]))
        found = tape.gradient(value, [w.value for w in model.trainable_weights])
        gradients.append({
            w.path: tf.convert_to_tensor(g).numpy()
            for w, g in zip(model.trainable_weights, found, strict=True)
        })  # fmt: skip
    own = [g for path, g in gradients[1].items() if path not in gradients[0]]
    own += [gradients[1][table.path]]
    summed = sum(g if g.shape == table.shape else g.T for g in own)
    np.testing.assert_allclose(gradients[0][table.path], summed, rtol=1e-4, atol=1e-6)
    for path, gradient in gradients[0].items():
        if path != table.path:
            np.testing.assert_allclose(gradient, gradients[1][path], rtol=1e-4, atol=1e-6)


def test_the_report_says_what_tying_saves():
    totals = keras_shared.sharing_report(small()).totals
    assert totals["parameters_without_sharing"] - totals["parameters"] == 11 * 5


def test_the_projection_adds_its_length_to_the_loss():
    model = louder(small(projection=0.25))
    kernel = model.get_layer("projection").kernel.numpy()
    [added] = model.losses
    assert float(added) == pytest.approx(0.25 * np.sqrt(np.sum(kernel**2)), rel=1e-5)
    again = Norm.from_config(Norm(0.5).get_config())
    assert float(again(np.array([[3.0, 0], [0, 4]]))) == pytest.approx(2.5)
    assert not small().losses


def test_each_argument_changes_something():
    plain = small()
    sizes = {
        "units": small(units=6), "num_layers": small(num_layers=1), "cell": small(cell="gru"),
        "projection": small(projection=0.0), "tied": small(tied=False),
        "vocabulary": small(vocabulary=list("ab")), "split": small(split="whitespace",
                                                                  vocabulary=["ab", "c"]),
    }  # fmt: skip
    for name, model in sizes.items():
        assert model.count_params() != plain.count_params(), name
        again = TiedLanguageModel.from_config(json.loads(json.dumps(model.get_config())))
        assert again.get_config() == model.get_config(), name
        assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    dropping = small(dropout=0.5)
    dropping.set_weights(plain.get_weights())
    assert np.allclose(dropping(TOKENS), plain(TOKENS))
    assert not np.allclose(dropping(TOKENS, training=True), plain(TOKENS))


# === Writing ===


@pytest.mark.slow
def test_the_likeliest_tokens_are_those_of_the_whole_model():
    model = louder(small())
    written = model.generate("abc", max_new_tokens=12, temperature=0)
    text = "abc"
    for _ in range(12):
        logits = model.predict(model.tokenizer([text]).numpy().astype("int32"), verbose=0)[0, -1]
        text += VOCABULARY[int(logits[2:].argmax())]
    assert written == text
    assert model.generate("abc", max_new_tokens=12, top_k=1, seed=5) == text


def test_it_looks_back_at_its_context_alone():
    model = louder(small(num_layers=1))
    model.context = 4
    a, b = model.generate(["abcdefg", "gggdefg"], max_new_tokens=3, temperature=0)
    assert a[7:] == b[7:]
    tokens = model.tokenizer([a[3:7]]).numpy().astype("int32")
    first = VOCABULARY[int(model.predict(tokens, verbose=0)[0, -1, 2:].argmax())]
    assert a[7] == first


@pytest.mark.slow
def test_seeds_decide_and_rows_are_independent():
    model = louder(small())
    one = model.generate("ab", max_new_tokens=20, seed=3)
    assert one == model.generate("ab", max_new_tokens=20, seed=3)
    assert one != model.generate("ab", max_new_tokens=20, seed=4)
    two = model.generate(["ab", "abcabc"], max_new_tokens=20, seed=3)
    assert two[0] == one and two[1] == model.generate("abcabc", max_new_tokens=20, seed=4)
    assert len(one) == 22 and model.generate("ab", max_new_tokens=1)[:2] == "ab"


def test_words_stand_apart_and_lines_end():
    model = louder(small(vocabulary=["to", "be", "<eos>"], split="whitespace"))
    text = model.generate("to\nbe", max_new_tokens=5, seed=1)
    assert text.startswith("to\nbe ") and {*text[6:].split(" ")} <= {"to", "be", "<eos>"}
    assert len(text[6:].split(" ")) == 5


def test_draws_come_out_in_their_shares():
    logits = np.log(np.array([[1e-30, 1e-30, 0.1, 0.6, 0.3]], "float32"))
    count = 1000
    many = np.repeat(logits, count, 0)
    draws = (np.arange(count, dtype="float32") + 0.5) / count

    def shares(temperature, top_k):
        tokens = _drawn(
            tf.constant(many), tf.constant(draws), np.full(count, temperature, "float32"),
            np.full(count, top_k, "int32"),
        )  # fmt: skip
        return np.bincount(tokens, minlength=5) / count

    np.testing.assert_allclose(shares(1.0, 0), [0, 0, 0.1, 0.6, 0.3], atol=2e-3)
    np.testing.assert_allclose(shares(1.0, 2), [0, 0, 0, 2 / 3, 1 / 3], atol=2e-3)
    squared = np.array([0.01, 0.36, 0.09]) / 0.46
    np.testing.assert_allclose(shares(0.5, 0)[2:], squared, atol=2e-3)
    assert shares(0.0, 0)[3] == 1 and shares(1.0, 10**6)[3] == pytest.approx(0.6, abs=2e-3)
    ends = _drawn(tf.constant(many[:2]), tf.constant([0.0, 1.0]), np.ones(2, "float32"),
                  np.array([2, 2]))  # fmt: skip
    assert ends.numpy().tolist() == [3, 4]  # never padding, never what is not among the two


@pytest.mark.slow
def test_new_weights_write_another_text():
    model = small()
    before = model.generate("ab", max_new_tokens=30, seed=1)
    louder(model)
    assert model.generate("ab", max_new_tokens=30, seed=1) != before
    replaced = TiedLanguageModel.from_config(model.get_config())
    replaced.set_weights(model.get_weights())
    assert replaced.generate("ab", max_new_tokens=30, seed=1) == model.generate(
        "ab", max_new_tokens=30, seed=1
    )


@pytest.mark.slow
def test_signatures_write_what_generate_writes():
    model = louder(small())
    signatures = model.signatures()
    texts = np.array(["abc", "g", "", "\u00e9a"], object)
    asked = {"prompt": texts, "max_new_tokens": [9, 3, 0, 1], "temperature": [1.0, 0.7, 0, 1],
             "top_k": [0, 3, 0, 0], "seed": [5, 6, 7, 8]}  # fmt: skip
    asked = {key: tf.constant(value) for key, value in asked.items()}
    answers = signatures["generate"].call(**asked)
    written = [text.decode() for text in answers["text"].numpy()]
    assert written[0] == model.generate("abc", 9, 1.0, 0, 5)
    assert written[1] == model.generate("g", 3, 0.7, 3, 6)
    assert len(written[2]) == 20 and len(written[3]) == 3
    assert answers["unknown_tokens"].numpy().tolist() == [0, 0, 0, 1]
    likely = signatures["next_token"].call(text=tf.constant(["abc", "g"]))
    tokens = model.tokenizer(["abc"]).numpy().astype("int32")
    shares = np.exp(model.predict(tokens, verbose=0)[0, -1, 2:])
    shares /= shares.sum()
    assert likely["tokens"][0, 0].numpy().decode() == VOCABULARY[int(shares.argmax())]
    np.testing.assert_allclose(likely["probabilities"][0], np.sort(shares)[::-1], rtol=1e-4)


@pytest.mark.slow
def test_line_ends_are_words_in_the_published_signatures_too():
    words = louder(small(vocabulary=["to", "be", "or", "<eos>"], split="whitespace"))
    signatures, prompt = words.signatures(), "to be\nor"
    asked = {"prompt": [prompt], "max_new_tokens": [9], "temperature": [1.0], "top_k": [0],
             "seed": [5]}  # fmt: skip
    answers = signatures["generate"].call(**{k: tf.constant(v) for k, v in asked.items()})
    assert answers["text"][0].numpy().decode() == words.generate(prompt, 9, seed=5)
    assert int(answers["unknown_tokens"][0]) == 0
    with_end, without = (
        signatures["next_token"].call(text=tf.constant([text]))["probabilities"][0]
        for text in ("to be\n", "to be")
    )
    assert np.abs(with_end - without).max() > 1e-3


# === What it refuses ===


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"vocabulary": []}, "at least one token"),
        ({"vocabulary": ["ab"]}, "'ab', which split='character' never gives"),
        ({"vocabulary": None, "split": "whitespace"}, "must name the words"),
        ({"units": 0}, "units=0"),
        ({"cell": "rnn"}, "cell='rnn'"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"layers": 2}, "takes no argument `layers`"),
    ],
)
def test_arguments_that_are_none(arguments, said):
    with pytest.raises(ValueError, match=said):
        small(**arguments)


@pytest.mark.parametrize(
    ("prompts", "arguments", "said"),
    [
        ("", {}, "at least one token. Received: ''"),
        ([], {}, "at least one text"),
        (["a", ""], {}, "Received: ''"),
        ([3], {}, "Received: 3"),
        (None, {}, "a text or a list of texts. Received: None"),
        (3, {}, "a text or a list of texts. Received: 3"),
        (b"a", {}, "a text or a list of texts. Received: b'a'"),
        ("a\u00e9", {}, "the character '\u00e9', which is not among the 9"),
        (
            "a",
            {"max_new_tokens": 0},
            "must be a whole number from 1 to 1,000. Received: 0",
        ),
        ("a", {"max_new_tokens": 3.0}, "a whole number from 1 to 1,000. Received: 3.0"),
        ("a", {"top_k": 0.5}, "`top_k` must be a whole number .*Received: 0.5"),
        ("a", {"temperature": "hot"}, "`temperature` must be a number .*Received: 'hot'"),
        ("a", {"temperature": -1}, "Received: -1"),
        ("a", {"top_k": -1}, "`top_k`"),
        ("a", {"seed": -1}, "`seed`"),
    ],
)
def test_prompts_that_are_none(prompts, arguments, said):
    with pytest.raises(ValueError, match=said):
        small().generate(prompts, **arguments)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([[1, 11]], "from 0 to 10.*Received: 1 to 11"),
        ([[-1, 2]], "Received: -1 to 2"),
        ([[1.5]], "dtype float64"),
        ([1, 2], r"shape \(2,\)"),
        (np.zeros((0, 4), int), r"shape \(0, 4\)"),
        (np.array([["ab"]]), "dtype <U2"),
    ],
)
def test_arrays_that_hold_no_tokens(tokens, said):
    with pytest.raises(ValueError, match=said):
        small().predict(tokens, verbose=0)
    model = small()
    model.compile()
    for ask in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=said):
            ask(tokens, np.ones((1, 2), "int32"), verbose=0)


@pytest.mark.slow
def test_targets_that_are_no_tokens():
    model, good = small(), np.ones((1, 2), "int32")
    model.compile()
    for ask in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="`y` must hold tokens from 0 to 10.*up to 11"):
            ask(good, np.array([[1, 11]]), verbose=0)
        ask([good], good, verbose=0)
    marked = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile("sgd", marked)
    model.fit(good, np.array([[3, -1]]), verbose=0)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(good, np.eye(11, dtype="int32")[[[1, 2]]], verbose=0)


# === Kept ===


@pytest.mark.slow
def test_saved_and_loaded_it_is_tied_and_writes_the_same(tmp_path):
    model = louder(small(projection=0.1, cell="gru", vocabulary=[*VOCABULARY, "\u00fc", "'", '"']))
    model.save(tmp_path / "model.keras")
    again = keras_shared.load(tmp_path / "model.keras")
    assert again.vocabulary == model.vocabulary and readers_of(again)
    assert again.generate("a\u00fc", 30, seed=2) == model.generate("a\u00fc", 30, seed=2)
    clone = keras.models.clone_model(model)
    assert [w.shape for w in clone.weights] == [w.shape for w in model.weights]


def test_unshared_it_has_a_table_at_each_end():
    model = small(projection=0.1)
    other = keras_shared.unshare(model)
    assert other.count_params() == model.count_params() + 11 * 5
    np.testing.assert_allclose(other(TOKENS), model(TOKENS), rtol=1e-5, atol=1e-6)


def test_the_unknown_word_is_the_one_that_tensorflow_splits_off():
    model = TiedLanguageModel(["good", "day"], "whitespace", units=4, num_layers=1)
    with pytest.raises(ValueError, match=r"holds the word 'good\\xa0day'"):
        model.generate("day good\u00a0day")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: TiedLanguageModel(list("abc"), units=8, projection=0.1),
        lambda: TiedLanguageModel(list("abc"), units=8, tied=False),
        lambda: SharedTransformer(list("abc"), num_layers=2),
        lambda: SharedTransformerClassifier(
            vocabulary=list("abc"), class_names=("x", "y"), split="character"
        ),
    ],
)
def test_every_quantised_model_of_words_comes_back(make, mode, tmp_path):
    keras.utils.set_random_seed(0)
    model, tokens = make(), np.array([[2, 3, 1, 2]], "int32")
    exact = model.predict(tokens, verbose=0)
    model.quantize(mode)
    answer = model.predict(tokens, verbose=0)
    assert np.abs(answer - exact).max() < (0.1 if mode == "int8" else 0.3) * np.abs(exact).max()
    model.save(tmp_path / "m.keras")
    loaded = keras_shared.load(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(tokens, verbose=0), answer, atol=1e-6)
    assert loaded.get_config() == model.get_config()


@pytest.mark.slow
def test_a_quantised_model_of_words_is_published(tmp_path):
    model, tokens = TiedLanguageModel(list("abc"), units=8), np.array([[2, 3, 1, 2]], "int32")
    model.quantize("int8")
    with pytest.warns(UserWarning, match="'tokens' has dimensions of unknown size"):
        keras_shared.publish(model, tmp_path / "published")
    loaded = keras_shared.load(tmp_path / "published")
    np.testing.assert_allclose(
        loaded.predict(tokens, verbose=0), model.predict(tokens, verbose=0), atol=1e-6
    )
    assert "int8" in {weight.dtype for weight in loaded.weights}
