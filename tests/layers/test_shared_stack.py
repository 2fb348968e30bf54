import inspect

import keras
import numpy as np
import pytest
from blocks import Block
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_shared
from keras_shared.layers import HashedDense, RelaxedDense, SharedStack, TiedDense, TransformerBlock
from keras_shared.layers.partly_shared import own_part
from keras_shared.layers.schedules import SCHEDULES, uses_of
from keras_shared.tying import TieError
from keras_shared.tying.alike import differing
from keras_shared.tying.keras_private import flatten_layers

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
TOKENS = np.random.default_rng(1).normal(size=(2, 5, 8)).astype("float32")


def randomise(layer, seed=0):
    """Values that are different everywhere, biases and norms too."""
    random = np.random.default_rng(seed)
    for variable in layer.variables:
        if keras.backend.is_float_dtype(variable.dtype):
            variable.assign(random.normal(size=variable.shape) * 0.4)


@pytest.mark.parametrize(
    ("schedule", "depth", "distinct", "wanted"),
    [
        ("sequence", 6, 3, "AABBCC"), ("sequence", 5, 2, "AAABB"), ("cycle", 6, 3, "ABCABC"),
        ("cycle", 5, 3, "ABCAB"), ("cycle_reverse", 6, 3, "ABCCBA"),
        ("cycle_reverse", 9, 3, "ABCABCCBA"), ("cycle_reverse", 5, 3, "ABCCB"),
        ("cycle_reverse", 3, 3, "ABC"), ("middle_cycle", 6, 4, "ABCBCD"),
        ("middle_cycle", 5, 3, "ABBBC"), ("middle_cycle", 2, 2, "AB"), ([0, 1, 1, 0], 4, 2, "ABBA"),
        ("cycle", 3, 1, "AAA"), ("sequence", 1, 1, "A"),
    ],
)  # fmt: skip
def test_schedules(schedule, depth, distinct, wanted):
    assert "".join("ABCD"[i] for i in uses_of(schedule, depth, distinct)) == wanted
    stack = SharedStack(layers.Dense(4), depth, distinct, schedule)
    names = [stack.blocks.index(layer) for layer in stack.uses]
    assert "".join("ABCD"[i] for i in names) == wanted


@given(st.sampled_from(SCHEDULES), st.integers(1, 20), st.integers(1, 20))
def test_every_block_is_used_and_the_first_ones_in_order(schedule, depth, distinct):
    try:
        uses = uses_of(schedule, depth, distinct)
    except ValueError:
        assert distinct > depth or (schedule == "middle_cycle" and distinct < 3)
        return
    assert len(uses) == depth and set(uses) == set(range(distinct))
    if schedule != "middle_cycle":
        assert list(dict.fromkeys(uses)) == list(range(distinct))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_values_by_hand(schedule):
    stack = SharedStack(layers.Dense(4, "tanh", name="code"), 6, 3, schedule)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, stack(inputs))
    randomise(model)
    wanted = X.astype("float64")
    for index in uses_of(schedule, 6, 3):
        kernel, bias = stack.blocks[index].get_weights()
        wanted = np.tanh(wanted @ kernel + bias)
    np.testing.assert_allclose(model.predict(X, verbose=0), wanted, atol=1e-5)
    assert model.count_params() == 3 * (4 * 4 + 4)
    assert len({v.path for v in model.variables}) == len(model.variables) == 6


def test_gradient_is_the_sum_over_the_uses():
    """Of y = x W W W and the loss sum(y * g): the sum over k of (x W^k)^T g (W^T)^(2 - k)."""
    stack = SharedStack(layers.Dense(4, use_bias=False), 3)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, stack(inputs))
    towards = np.random.default_rng(2).normal(size=(3, 4)).astype("float32")
    w = model.get_weights()[0].astype("float64")
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, out: keras.ops.sum(y * out) / 1.0)
    model.train_on_batch(X, towards)
    power = np.linalg.matrix_power
    uses = [(X @ power(w, k)).T @ towards @ power(w.T, 2 - k) for k in range(3)]
    np.testing.assert_allclose(w - model.get_weights()[0], sum(uses), atol=1e-4)


def test_blocks_are_drawn_apart_from_a_seed_too():
    block = layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(seed=3))
    stack = SharedStack(block, 4, 2)
    stack(X)
    first, second = (b.get_weights()[0] for b in stack.blocks)
    assert stack.block is block is stack.uses[0] is stack.uses[2]
    assert np.abs(first - second).max() > 0.1


CASES = {
    "all": {},
    "attention": {"share": "attention"},
    "feed_forward": {"share": "feed_forward"},
    "two parts": {"share": ["attention", "feed_forward"]},
    "norms": {"own_normalization": True},
    "steps": {"step_embedding": True},
    "rank": {"rank": 2},
    "rank and norms": {"rank": 2, "own_normalization": True, "step_embedding": True},
    "rank of a part": {"rank": 2, "share": "feed_forward"},
}
# of a Block of width 8: attention, feed-forward, one normalisation
ATTENTION, FEED, NORM = 3 * (8 * 8 + 8) + 8 * 8 + 8, 8 * 16 + 16 + 16 * 8 + 8, 16
WHOLE = ATTENTION + FEED + 2 * NORM
LORA = 4 * 2 * (8 + 8) + 2 * 2 * (8 + 16)
SIZES = {
    "all": 2 * WHOLE,
    "attention": 2 * ATTENTION + 4 * (FEED + 2 * NORM),
    "feed_forward": 2 * FEED + 4 * (ATTENTION + 2 * NORM),
    "two parts": 2 * (ATTENTION + FEED) + 4 * 2 * NORM,
    "norms": 2 * (ATTENTION + FEED) + 4 * 2 * NORM,
    "steps": 2 * WHOLE + 4 * 8,
    "rank": 2 * WHOLE + 4 * LORA,
    "rank and norms": 2 * (ATTENTION + FEED) + 4 * (2 * NORM + LORA + 8),
    "rank of a part": 2 * FEED + 4 * (ATTENTION + 2 * NORM + 2 * 2 * (8 + 16)),
}


def functional_block():
    x = keras.Input((5, 8))
    normal = layers.LayerNormalization(name="attention_norm")(x)
    y = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="attention")(normal, normal)])
    feed = keras.Sequential([layers.Dense(16, "gelu"), layers.Dense(8)], name="feed_forward")
    normal = layers.LayerNormalization(name="feed_forward_norm")(y)
    return keras.Model(x, layers.Add()([y, feed(normal)]), name="block")


def model_of(case, block=None, **kwargs):
    inputs = keras.Input((5, 8))
    stack = SharedStack(block or Block(name="block"), 4, 2, **CASES[case], **kwargs)
    model = keras.Model(inputs, stack(inputs), name="net")
    randomise(model)
    return model, stack


def some(*quick):
    """All cases, of which only these are in the default run."""
    return [pytest.param(c, marks=[] if c in quick else [pytest.mark.slow]) for c in CASES]


@pytest.mark.slow
@pytest.mark.parametrize("case", some("attention", "rank and norms"))
def test_parts_own_to_each_use(case):
    parts_are_own(*model_of(case, Block(name="block")), case)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["two parts", "rank and norms", "rank of a part"])
def test_parts_of_a_functional_block_own_to_each_use(case):
    parts_are_own(*model_of(case, functional_block()), case)


def parts_are_own(model, stack, case):
    """Written out: each use as a block of its own, whose shared parts are then made equal."""
    assert model.count_params() == SIZES[case]
    outputs = model.predict(TOKENS, verbose=0)
    x = keras.ops.convert_to_tensor(TOKENS)
    for use, layer in enumerate(stack.uses):
        plain = type(layer).from_config(stack.block.get_config())
        plain(x)
        for theirs, mine in zip(flatten_layers(layer), flatten_layers(plain), strict=True):
            if isinstance(theirs, RelaxedDense):
                source = theirs.source()
                a, b = theirs.lora_kernel_a.numpy(), theirs.lora_kernel_b.numpy()
                mine.kernel.assign(source.kernel + (a @ b).reshape(source.kernel.shape))
                mine.bias.assign(source.bias)
            else:
                for v, w in zip(own_part(mine), own_part(theirs), strict=True):
                    v.assign(w)
        x = plain(x + stack.steps[use].embeddings if stack.steps else x)
    np.testing.assert_allclose(outputs, x, atol=2e-5 * np.abs(x).max())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["two parts", "steps", "rank and norms", "rank of a part"])
def test_comes_back_tied(case, tmp_path):
    model, _ = model_of(case)
    wanted = model.predict(TOKENS, verbose=0)
    keras_shared.check_ties(model)
    model.save(tmp_path / "m.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    for back in (keras.models.load_model(tmp_path / "m.keras"), clone, again):
        assert back.count_params() == SIZES[case]
        np.testing.assert_allclose(back.predict(TOKENS, verbose=0), wanted, atol=1e-5)
        assert len({v.path for v in back.variables}) == len(model.variables)
        stack = back.layers[-1]
        for layer in flatten_layers(stack.uses[2]):
            if isinstance(layer, RelaxedDense):
                assert any(layer.source() is x for x in flatten_layers(stack.blocks[0]))
        for part in ["attention", "feed_forward"] if case == "two parts" else []:
            assert getattr(stack.uses[0], part) is getattr(stack.uses[2], part)
            assert getattr(stack.uses[0], part) is not getattr(stack.uses[1], part)
            assert stack.uses[0].attention_norm is not stack.uses[2].attention_norm


@pytest.mark.slow
@pytest.mark.parametrize("case", some("norms", "rank"))
def test_unshare_gives_each_use_its_own(case):
    model, _ = model_of(case)
    apart = keras_shared.unshare(model)
    np.testing.assert_allclose(
        apart.predict(TOKENS, verbose=0), model.predict(TOKENS, verbose=0), atol=2e-5
    )
    assert apart.count_params() == 4 * WHOLE + (4 * 8 if "step_embedding" in CASES[case] else 0)
    anew = keras_shared.unshare(model, copy_values=False)
    assert anew.count_params() == apart.count_params()


@pytest.mark.slow
def test_report_counts_every_use():
    model, _ = model_of("all")
    report = keras_shared.sharing_report(model)
    assert {w.uses for w in report.weights} == {2}
    assert report.totals["parameters_without_sharing"] == 4 * WHOLE
    kernels = 4 * 8 * 8 + 2 * 8 * 16  # of attention and feed-forward, at each of 5 positions
    others = 4 * 8 + 16 + 8 + 2 * NORM
    assert report.totals["multiply_adds"] == 4 * 5 * (kernels + others)
    relaxed = keras_shared.sharing_report(model_of("rank")[0])
    kernel = next(w for w in relaxed.weights if w.path.endswith("query/kernel"))
    assert kernel.uses == 2 and "low-rank difference" in next(iter(kernel.readers.values())).form


def test_mask_goes_to_every_use():
    inputs = keras.Input((5,), dtype="int32")
    stack = SharedStack(Block(name="block"), 3, 1)
    embedded = layers.Embedding(7, 8, mask_zero=True)(inputs)
    model = keras.Model(inputs, stack(embedded))
    ids = np.array([[1, 2, 3, 0, 0]], "int32")
    table = model.layers[1].embeddings.numpy()
    seen = model.predict(ids, verbose=0)[:, :3]
    short = stack(table[ids[:, :3]])
    np.testing.assert_allclose(seen, short, atol=1e-5)  # as if the padding were not there
    assert np.abs(stack(table[ids])[:, :3] - short).max() > 1e-3
    np.testing.assert_allclose(stack(table[ids], mask=ids > 0)[:, :3], short, atol=1e-5)


def test_mask_of_the_stack_for_blocks_that_hand_none_on():
    @keras.saving.register_keras_serializable("tests")
    class Masked(layers.Layer):
        def call(self, x, mask=None):
            return x if mask is None else x + keras.ops.cast(mask, x.dtype)[..., None]

    mask = np.array([[True, True, False, False, False]])
    out = SharedStack(Masked(), 3)(TOKENS[:1], mask=mask)
    np.testing.assert_allclose(out, TOKENS[:1] + 3 * mask[..., None], rtol=1e-6)


@pytest.mark.slow
def test_several_inputs_and_other_arguments(tmp_path):
    x, context = keras.Input((5, 8)), keras.Input((3, 6))
    stack = SharedStack(Block(name="block"), 3, 2, own_normalization=True)
    model = keras.Model([x, context], stack(x, context=context))
    randomise(model)
    other = np.random.default_rng(4).normal(size=(2, 3, 6)).astype("float32")
    wanted = TOKENS
    for layer in stack.uses:
        wanted = layer(wanted, context=other)
    np.testing.assert_allclose(model.predict([TOKENS, other], verbose=0), wanted, atol=1e-4)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict([TOKENS, other], verbose=0), wanted, atol=1e-4)
    apart = keras_shared.unshare(model)
    np.testing.assert_allclose(apart.predict([TOKENS, other], verbose=0), wanted, atol=1e-4)
    causal = SharedStack(Block(), 2)
    seen = causal(TOKENS, causal=True)[:, :2]
    np.testing.assert_allclose(seen, causal(TOKENS[:, :2], causal=True), atol=1e-5)


def test_a_list_goes_round():
    @keras.saving.register_keras_serializable("tests")
    class Crossed(layers.Layer):
        """(a, b) -> (W b, a), as a reversible block."""

        def build(self, input_shape):
            self.dense = layers.Dense(4)
            self.dense.build(input_shape[1])

        def call(self, inputs):
            return [self.dense(inputs[1]), inputs[0]]

    stack = SharedStack(Crossed(), 3)
    a, b = stack([X, 2 * X])
    kernel, bias = stack.get_weights()
    once = 2 * X @ kernel + bias  # (once, X), (f(X), once), (f(once), f(X))
    np.testing.assert_allclose(a, once @ kernel + bias, atol=1e-5)
    np.testing.assert_allclose(b, X @ kernel + bias, atol=1e-5)


def test_recurrent_block_with_states_and_dropout():
    lstm = layers.LSTM(8, return_sequences=True)
    stack = SharedStack(lstm, 2)
    states = [np.full((2, 8), 0.3, "float32"), np.full((2, 8), -0.2, "float32")]
    wanted = lstm(lstm(TOKENS, initial_state=states), initial_state=states)
    np.testing.assert_allclose(stack(TOKENS, initial_state=states), wanted, atol=1e-6)
    dropped = SharedStack(layers.Dropout(0.5, seed=1), 2)
    assert np.mean(dropped(np.ones((50, 50)), training=True) == 0) == pytest.approx(0.75, abs=0.05)
    np.testing.assert_array_equal(dropped(TOKENS, training=False), TOKENS)


@pytest.mark.slow
def test_blocks_that_are_models_and_stacks(tmp_path):
    tower = keras.Sequential([layers.Dense(16, "relu"), layers.Dense(8)], name="tower")
    inner = SharedStack(tower, 2, name="inner")
    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, SharedStack(inner, 4, 2)(inputs))
    assert model.count_params() == 2 * FEED
    model.save(tmp_path / "m.keras")
    wanted = model.predict(TOKENS, verbose=0)
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(TOKENS, verbose=0), wanted, atol=1e-6)
    apart = keras_shared.unshare(model)
    assert apart.count_params() == 8 * FEED
    np.testing.assert_allclose(apart.predict(TOKENS, verbose=0), wanted, atol=1e-5)


def test_convolutions_on_images_that_shrink():
    stack = SharedStack(layers.Conv2D(3, 3), 3)
    assert stack(np.ones((1, 9, 9, 3), "float32")).shape == (1, 3, 3, 3)
    assert stack.compute_output_shape((None, 9, 9, 3)) == (None, 3, 3, 3)
    assert stack.count_params() == 3 * 3 * 3 * 3 + 3


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    inputs = keras.Input((5, 8))
    keras.config.set_dtype_policy(policy)
    try:
        stack = SharedStack(Block(name="block"), 4, 2, rank=2, step_embedding=True)
    finally:
        keras.config.set_dtype_policy("float32")
    model = keras.Model(inputs, stack(inputs))
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert stack(TOKENS).dtype == stack.compute_dtype
    whole, _ = model_of("rank", step_embedding=True)
    model.set_weights(whole.get_weights())
    outputs, wanted = model.predict(TOKENS, verbose=0), whole.predict(TOKENS, verbose=0)
    assert np.abs(outputs - wanted).max() < 0.1 * np.abs(wanted).max()


@pytest.mark.slow
def test_trains_compiled():
    model, stack = model_of("rank and norms")
    before = stack.blocks[0].attention.query_dense.kernel.numpy()
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=True)
    losses = model.fit(TOKENS, np.zeros_like(TOKENS), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert np.abs(stack.blocks[0].attention.query_dense.kernel.numpy() - before).max() > 0
    assert all(np.abs(layer.embeddings.numpy()).max() > 0 for layer in stack.steps)


def layers_apart(count=4, seed=5, **kwargs):
    found = []
    for number in range(count):
        layer = Block(**kwargs)
        layer.build((None, 5, 8))
        randomise(layer, seed + number)
        found.append(layer)
    return found


def one_after_another(blocks):
    x = keras.ops.convert_to_tensor(TOKENS)
    for block in blocks:
        x = block(x)
    return x


@pytest.mark.slow
@pytest.mark.parametrize("start", ["mean", "first"])
def test_from_layers(start):
    blocks = layers_apart()
    stack = SharedStack.from_layers(blocks, 2, start=start, own_normalization=True)
    for i, block in enumerate(stack.blocks):
        kernels = [b.feed_forward.layers[0].kernel.numpy() for b in blocks[i::2]]
        wanted = np.mean(kernels, axis=0) if start == "mean" else kernels[0]
        np.testing.assert_allclose(block.feed_forward.layers[0].kernel, wanted, atol=1e-6)
    for use, block in zip(stack.uses, blocks, strict=True):  # own to each: its layer's
        np.testing.assert_array_equal(use.attention_norm.gamma, block.attention_norm.gamma)
    plain = SharedStack.from_layers(blocks, 4)
    np.testing.assert_allclose(plain(TOKENS), one_after_another(blocks), rtol=1e-5)


@pytest.mark.parametrize("make", [layers_apart, pytest.param(None, marks=pytest.mark.slow)])
def test_svd_of_full_rank_gives_the_layers_back(make):
    blocks = layers_apart()
    if make is None:
        blocks = [functional_block() for _ in blocks]
        for number, block in enumerate(blocks):
            randomise(block, number)
    for block in blocks[1:]:  # biases are shared, and have no difference
        for mine, first in zip(block.variables, blocks[0].variables, strict=True):
            if mine.name == "bias":
                mine.assign(first)
    options = {"own_normalization": True, "start": "svd"}
    stack = SharedStack.from_layers(blocks, 1, rank=8, **options)
    wanted = one_after_another(blocks)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(stack(TOKENS), wanted, atol=1e-4 * scale)
    small = SharedStack.from_layers(blocks, 1, rank=1, **options)
    assert np.abs(small(TOKENS) - wanted).max() > 1e-2 * scale
    dense = [x for x in flatten_layers(small.uses[0]) if isinstance(x, RelaxedDense)]
    base, of = dense[-1].source().kernel.numpy(), flatten_layers(blocks[0])
    left = next(x for x in reversed(of) if isinstance(x, layers.Dense)).kernel.numpy() - base
    s = np.linalg.svd(left, compute_uv=False)
    a, b = dense[-1].lora_kernel_a.numpy(), dense[-1].lora_kernel_b.numpy()
    rest = np.linalg.norm(left - a @ b)  # the best of rank 1
    np.testing.assert_allclose(rest, np.sqrt(np.sum(s[1:] ** 2)), rtol=1e-4)


def test_every_argument_comes_back():
    given = {
        "depth": 5, "distinct": 2, "schedule": [0, 1, 1, 0, 1], "share": ["attention"],
        "own_normalization": True, "step_embedding": True, "rank": 3, "name": "stack",
    }  # fmt: skip
    config = SharedStack(Block(), **given).get_config()
    assert {key: config[key] for key in given} == given
    assert set(inspect.signature(SharedStack).parameters) - {"kwargs"} <= set(config)
    with pytest.raises(ValueError, match="Unrecognized keyword arguments"):
        SharedStack(Block(), 2, ranks=2)


@keras.saving.register_keras_serializable("tests")
class Gated(layers.Layer):
    """A weight of its own beside a normalisation."""

    def build(self, input_shape):
        self.norm, self.gate = layers.LayerNormalization(), self.add_weight((), name="gate")
        self.norm.build(input_shape)

    def call(self, x):
        return x + self.gate * self.norm(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SharedStack("dense", 2), "takes a layer or a model.*Received: block='dense'"),
        (lambda: SharedStack(Block(), 0), "`depth` must be a positive integer. Received: depth=0"),
        (lambda: SharedStack(Block(), True), "`depth` must be"),
        (lambda: SharedStack(Block(), 2, 3), "at most 2 distinct.*distinct=3"),
        (lambda: SharedStack(Block(), 6, 2, "middle_cycle"), "at least 3, and at most 6"),
        (lambda: SharedStack(Block(), 6, 2, "loop"), "'cycle_reverse'.*Received: schedule='loop'"),
        (lambda: SharedStack(Block(), 3, schedule=[0, 2, 0]), "0 to 1. Received.*0, 2, 0"),
        (lambda: SharedStack(Block(), 3, schedule=[0, 1]), "each of the 3 uses"),
        (lambda: SharedStack(Block(), 2, rank=0), "`rank` must be a positive.*rank=0"),
        (lambda: SharedStack(Block(), 2, share="attn")(TOKENS), r"\['attn'\].*'attention'.*'attn'"),
        (lambda: SharedStack(Block(), 2, share=[])(TOKENS), "one or more of"),
        (lambda: SharedStack(layers.Dense(8), 2, own_normalization=True)(TOKENS),
         "has no normalisation layer"),
        (lambda: SharedStack(layers.LayerNormalization(), 2, rank=2)(TOKENS), "no Dense and"),
        (lambda: SharedStack(Gated(), 2, own_normalization=True)(TOKENS), r"weights \['gate'\]"),
        (lambda: SharedStack(layers.Dense(3), 2)(TOKENS),
         r"use 1 on inputs of the shapes \(2, 5, 3\), and called the same block before on \(2"),
        (lambda: SharedStack(layers.LSTM(8, return_sequences=True, return_state=True), 2)(TOKENS),
         "must return what it takes"),
        (lambda: SharedStack(layers.LSTM(8, return_sequences=True, stateful=True), 2)(TOKENS),
         "stateful layer"),
        (lambda: SharedStack(Block(), 3, schedule=3), "each of the 3 uses.*Received: schedule=3"),
        (lambda: SharedStack(Block(), 3, schedule=None), "Received: schedule=None"),
        (lambda: SharedStack(Block(), 2, schedule=[[0], [1]]), r"schedule=\[\[0\], \[1\]\]"),
        (lambda: SharedStack(Block(), 2, share=None), "or a list of names. Received: share=None"),
        (lambda: SharedStack(Block(), 2, share=3), "Received: share=3"),
        (lambda: SharedStack(Block(), 2, step_embedding="no"), "Received: step_embedding='no'"),
        (lambda: SharedStack(Block(), 2, own_normalization="no"), "own_normalization='no'"),
        (lambda: SharedStack(Block(), 2, share="_self_unconditional_dependency_names")(TOKENS),
         r"or more of \['attention'"),
        (lambda: SharedStack.from_layers([Block()]), "built layers of one class"),
        (lambda: SharedStack.from_layers([]), "built layers of one class"),
        (lambda: SharedStack.from_layers([*layers_apart(1), layers.Dense(3)]), "one class"),
        (lambda: SharedStack.from_layers(layers_apart(2), start="svd"), "needs its `rank`"),
        (lambda: SharedStack.from_layers(layers_apart(2), start="last"), "'mean', 'first' or"),
    ],
)  # fmt: skip
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda kind: layers.Conv1D(8, 3, padding=kind), ("same", "causal")),
        (lambda causal: TransformerBlock(2, 16, causal=causal), (True, False)),
        (lambda dropout: TransformerBlock(2, 16, dropout), (0.0, 0.5)),
        (lambda epsilon: layers.BatchNormalization(epsilon=epsilon), (1e-3, 1.0)),
        (lambda kind: keras.Sequential([keras.Input((5, 8)), layers.Dense(8, kind)]),
         ("relu", "tanh")),
        (layers.Dense, (8, 9)),
    ],
    ids=["padding", "causal", "dropout", "epsilon", "layers", "units"],
)  # fmt: skip
def test_layers_that_compute_differently_are_refused(make, argument, request):
    blocks = [make(value) for value in argument]
    for block in blocks:
        block.build((None, 5, 8))
    name = request.node.callspec.id
    with pytest.raises(ValueError, match=f"differ in .*'{name}'"):
        SharedStack.from_layers(blocks, 2)


def autoencoder():
    inputs = keras.Input((5, 8))
    code = layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=1))
    return keras.Model(inputs, TiedDense(code)(code(inputs)))


class WithArray(layers.Dense):
    def get_config(self):
        return {**super().get_config(), "told": np.ones(3), "init": keras.initializers.Zeros()}


def test_layers_that_compute_alike_are_taken():
    for make in (autoencoder, lambda: WithArray(8)):
        blocks = [make() for _ in range(2)]
        for block in blocks:
            block(TOKENS)
        if make is autoencoder:
            stack = SharedStack.from_layers(blocks, 2)
            np.testing.assert_allclose(stack(TOKENS), one_after_another(blocks), rtol=1e-5)
        else:
            assert differing(*blocks) == []
    called = [keras.Sequential([layers.Dense(8)]) for _ in range(2)]
    for rows, block in enumerate(called, 2):
        block(np.ones((rows, 5, 8)))
    SharedStack.from_layers(called, 2)
    hashed = [HashedDense(8, 8) for _ in range(2)]
    for block in hashed:
        block.build((None, 5, 8))
    with pytest.raises(ValueError, match="a hash of its own.*expected distinct=1"):
        SharedStack.from_layers(hashed, 2)


def test_from_layers_that_were_called_on_arrays_alone():
    blocks = [keras.Sequential([keras.Input((5, 8)), layers.Dense(8, "relu")]) for _ in range(2)]
    wanted = one_after_another(blocks)
    stack = SharedStack.from_layers(blocks, 2)
    np.testing.assert_allclose(stack(TOKENS), wanted, rtol=1e-5)


@pytest.mark.parametrize("rank", [None, 2])
def test_from_layers_of_which_one_is_frozen(rank):
    blocks = [layers.Dense(8) for _ in range(3)]
    for block in blocks:
        block.build((None, 5, 8))
    blocks[1].trainable = False
    stack = SharedStack.from_layers(blocks, 3, rank=rank)
    assert [use.trainable for use in stack.uses] == [True, False, True]
    assert [block.trainable for block in stack.blocks] == [True, False, True]
    assert not SharedStack.from_layers(blocks, 1, rank=rank).blocks[0].trainable
    blocks[0].trainable, blocks[1].trainable = False, True
    assert [b.trainable for b in SharedStack.from_layers(blocks, 3).blocks] == [False, True, True]


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(SCHEDULES), st.integers(1, 5), st.sampled_from([None, 1, 3]), st.booleans())
def test_any_stack_of_dense_layers(schedule, depth, rank, steps):
    distinct = depth if schedule == "middle_cycle" else (depth + 1) // 2
    stack = SharedStack(layers.Dense(4), depth, distinct, schedule, rank=rank, step_embedding=steps)
    stack(X)
    randomise(stack)
    wanted = X.astype("float64")
    for use, index in enumerate(uses_of(schedule, depth, distinct)):
        kernel, bias = stack.blocks[index].get_weights()
        if rank:
            relaxed = stack.uses[use]
            kernel = kernel + relaxed.lora_kernel_a.numpy() @ relaxed.lora_kernel_b.numpy()
        wanted = (wanted + stack.steps[use].embeddings.numpy() if steps else wanted) @ kernel + bias
    np.testing.assert_allclose(stack(X), wanted, atol=1e-4)


def narrow_block():
    parts = [layers.Dense(12, "relu", name="first"), layers.BatchNormalization()]
    return keras.Sequential([*parts, layers.Dense(8, name="last")])


def adapted(stack):
    for layer in flatten_layers(stack):
        if isinstance(layer, (layers.Dense, layers.EinsumDense)):
            layer.enable_lora(2, lora_alpha=6)
            layer.lora_kernel_b.assign(0.1 * np.ones(layer.lora_kernel_b.shape))


@pytest.mark.parametrize(
    ("make", "share"),
    [
        (lambda: layers.Dense(8, "relu"), "all"),
        pytest.param(narrow_block, ["first"], marks=pytest.mark.slow),
        pytest.param(narrow_block, "all", marks=pytest.mark.slow),
        pytest.param(functional_block, "all", marks=pytest.mark.slow),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("mode", "lora"), [("int8", False), ("int4", True), (None, True)])
def test_a_quantised_or_adapted_stack_unshared(make, share, mode, lora):
    inputs = keras.Input((5, 8))
    stack = SharedStack(make(), 3, share=share, rank=2)
    model = keras.Model(inputs, stack(inputs))
    randomise(model)
    if mode:
        model.quantize(mode)
    if lora:
        adapted(stack)
    wanted = model.predict(TOKENS, verbose=0)
    apart = keras_shared.unshare(model)
    np.testing.assert_allclose(apart.predict(TOKENS, verbose=0), wanted, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(layer, RelaxedDense) for layer in flatten_layers(apart))


def test_attention_that_each_use_adapted_for_itself_is_not_unshared():
    """Keras' attention does not say in its config what was done to the layers inside of it."""
    inputs = keras.Input((5, 8))
    stack = SharedStack(functional_block(), 2, share="feed_forward", rank=2)
    model = keras.Model(inputs, stack(inputs))
    adapted(stack)
    with pytest.raises(TieError, match="of 'block' cannot be copied.*unshare the model first"):
        keras_shared.unshare(model)
