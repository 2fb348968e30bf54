"""SharedTransformer: what it shares, that it looks back alone, what it writes and refuses."""

import keras
import numpy as np
import pytest

import keras_shared
from keras_shared.layers import RelaxedDense
from keras_shared.tying.keras_private import flatten_layers
from keras_shared.zoo import SharedTransformer

VOCABULARY = list("abcdefg \n")
TOKENS = np.random.default_rng(0).integers(1, 11, (3, 6)).astype("int32")
SIZES = {"num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 20}
BLOCK = 4 * 72 + 2 * 16 + 8 * 16 + 16 + 16 * 8 + 8
AROUND = 11 * 8 + 20 * 8 + 16 + 11  # table, positions, last normalisation, bias of the logits


def small(**arguments):
    return SharedTransformer(**{"vocabulary": VOCABULARY, "num_layers": 4, **SIZES, **arguments})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, BLOCK),
        pytest.param(
            {"distinct": 3, "schedule": "middle_cycle"}, 3 * BLOCK, marks=pytest.mark.slow
        ),
        ({"share": "attention"}, BLOCK + 3 * (BLOCK - 4 * 72)),
        pytest.param(
            {"own_normalization": True, "step_embedding": True},
            BLOCK + 3 * 32 + 4 * 8,
            marks=pytest.mark.slow,
        ),
        pytest.param({"tied": False}, BLOCK + 11 * 8, marks=pytest.mark.slow),
    ],
)
def test_counts_and_values(arguments, parameters, tmp_path):
    model = small(**arguments)
    assert model.count_params() == AROUND + parameters
    x = model.get_layer("table")(TOKENS) + model.get_layer("positions").embeddings[:6]
    stack = model.get_layer("stack")
    for use, block in enumerate(stack.uses):
        x = block(stack.steps[use](x) if stack.steps else x)
    logits = model.get_layer("norm")(x) @ np.transpose(model.get_layer("table").embeddings)
    answers = model.predict(TOKENS, verbose=0)
    np.testing.assert_allclose(answers, logits, atol=1e-5)  # the bias begins as zeros
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.get_config() == model.get_config()
    np.testing.assert_allclose(loaded.predict(TOKENS, verbose=0), answers, atol=1e-6)


@pytest.mark.slow
def test_looks_back_alone():
    model, other = small(), TOKENS.copy()
    other[:, 4:] = 11 - other[:, 4:]
    before, after = (model.predict(x, verbose=0) for x in (TOKENS, other))
    np.testing.assert_allclose(after[:, :4], before[:, :4], atol=1e-6)
    assert np.abs(after[:, 4:] - before[:, 4:]).max() > 1e-4


@pytest.mark.slow
def test_trained_published_and_unshared(tmp_path):
    model = small(rank=2, dropout=0.1)
    model.compile()
    text = model.tokenizer(["abcdefg abcdefg"] * 8)
    losses = model.fit(text[:, :10], text[:, 1:11], epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    answers = model.predict(TOKENS, verbose=0)
    loaded = keras_shared.load(keras_shared.publish(model, tmp_path / "m"))
    np.testing.assert_allclose(loaded.predict(TOKENS, verbose=0), answers, atol=1e-5)
    relaxed = [x for x in flatten_layers(loaded) if isinstance(x, RelaxedDense)]
    assert len(relaxed) == 4 * 6 and len({id(r.source()) for r in relaxed}) == 6
    text = model.generate("abc", max_new_tokens=45, seed=1)  # more than it looks back at
    assert len(text) == 48 and loaded.generate("abc", max_new_tokens=45, seed=1) == text
    apart = keras_shared.unshare(model)
    np.testing.assert_allclose(apart.predict(TOKENS, verbose=0), answers, atol=1e-4)
    assert apart.count_params() == AROUND + 11 * 8 + 4 * BLOCK


@pytest.mark.slow
def test_report():
    report = keras_shared.sharing_report(small())
    table = next(w for w in report.weights if w.owner == "table")
    assert table.readers["logits"].form == "transposed"
    kernel = next(w for w in report.weights if w.path.endswith("query/kernel"))
    assert kernel.uses == 4 and not report.warnings
    assert report.totals["parameters_without_sharing"] == AROUND + 11 * 8 + 4 * BLOCK
    assert report.totals["multiply_adds"] is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 3}, "3 heads, which must divide"),
        ({"distinct": 5}, "at most 4 distinct blocks"),
        ({"schedule": "middle_cycle", "distinct": 2}, "at least 3"),
        ({"depth": 3}, "takes no argument `depth`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_sequences_that_are_too_long():
    with pytest.raises(ValueError, match=r"at most 20 tokens.*\(1, 21\).*max_sequence_length"):
        small().predict(np.ones((1, 21), "int32"))
