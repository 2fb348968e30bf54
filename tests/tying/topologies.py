"""Small models with a tie in every place that a tie can be, and what each must compute.

`check_tied` is the proof: it changes the owner of the shared weight and compares every output
with a formula in NumPy, then the gradient, the count, the regulariser and the decay.
"""

import keras
import numpy as np
from by_hand import gradient, perturb, trains_as_float, weight_of
from keras import layers

from keras_shared.layers import (
    Shared,
    SharedStack,
    TiedConv,
    TiedConv2DTranspose,
    TiedConvTranspose,
    TiedDense,
    TiedEinsumDense,
    TiedLayer,
)

X = np.random.default_rng(5).normal(size=(3, 6)).astype("float32")
L2 = 0.01


def dense():
    return layers.Dense(
        4, kernel_regularizer=keras.regularizers.L2(L2), bias_initializer="normal", name="code"
    )


def reader_of(source):
    return TiedDense(source, bias_initializer="normal", name="reader")


def flat():
    inputs, source = keras.Input((6,)), dense()
    return keras.Model(inputs, reader_of(source)(source(inputs)))


def sequential():
    source = dense()
    return keras.Sequential([keras.Input((6,)), source, reader_of(source)])


class OfTwoLayers(keras.Model):
    """Its config holds its layers' configs: the reader has to find the source when it is called."""

    def __init__(self, first, second, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = first, second

    def get_config(self):
        parts = {"first": self.first, "second": self.second}
        return {k: keras.saving.serialize_keras_object(layer) for k, layer in parts.items()}

    @classmethod
    def from_config(cls, config):
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})


@keras.saving.register_keras_serializable("tests")
class Subclassed(OfTwoLayers):
    def call(self, inputs):
        return self.second(self.first(inputs))


def subclassed():
    source = dense()
    model = Subclassed(source, reader_of(source))
    model(X)
    return model


def encoder_decoder():
    source = dense()
    x, z, inputs = keras.Input((6,)), keras.Input((4,)), keras.Input((6,))
    encoder = keras.Model(x, source(x), name="encoder")
    decoder = keras.Model(z, reader_of(source)(z), name="decoder")
    return keras.Model(inputs, decoder(encoder(inputs)))


def source_in_sub_model():
    source = dense()
    x, inputs = keras.Input((6,)), keras.Input((6,))
    encoder = keras.Model(x, source(x), name="encoder")
    return keras.Model(inputs, reader_of(source)(encoder(inputs)))


def tower_in_two_sub_models():
    source = dense()
    x, y, inputs = keras.Input((6,)), keras.Input((6,)), keras.Input((6,))
    left = keras.Model(x, source(x), name="left")
    right = keras.Model(y, TiedLayer(source, name="reader")(y), name="right")
    return keras.Model(inputs, layers.Concatenate()([left(inputs), right(inputs)]))


def shared():
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Concatenate()(Shared(dense())([inputs, inputs])))


def shared_in_sub_model():
    x, inputs = keras.Input((6,)), keras.Input((6,))
    both = layers.Concatenate()(Shared(dense())([x, x]))
    return keras.Model(inputs, keras.Model(x, both, name="twin")(inputs))


def square():
    return layers.Dense(
        6, kernel_regularizer=keras.regularizers.L2(L2), bias_initializer="normal", name="code"
    )


def stack():
    inputs = keras.Input((6,))
    return keras.Model(inputs, SharedStack(square(), 2)(inputs))


def relaxed_stack():
    """In a sub-model, each use with a low-rank difference and a step of its own."""
    x, inputs = keras.Input((6,)), keras.Input((6,))
    layer = SharedStack(square(), 2, step_embedding=True, rank=2)
    model = keras.Model(inputs, keras.Model(x, layer(x), name="twice")(inputs))
    random = np.random.default_rng(9)
    for variable in model.variables:
        if variable.name in ("lora_kernel_b", "step"):
            variable.assign(random.normal(size=variable.shape) * 0.5)
    return model


def table():
    return layers.Embedding(6, 4, embeddings_regularizer=keras.regularizers.L2(L2), name="code")


def embedding():
    inputs, source = keras.Input((2,), dtype="int32"), table()
    return keras.Model(inputs, reader_of(source)(source(inputs)))


def embedding_in_sub_models():
    source = table()
    ids, inputs = keras.Input((2,), dtype="int32"), keras.Input((2,), dtype="int32")
    vectors = keras.Input((2, 4))
    encoder = keras.Model(ids, source(ids), name="encoder")
    decoder = keras.Model(vectors, reader_of(source)(vectors), name="decoder")
    return keras.Model(inputs, decoder(encoder(inputs)))


def conv():
    return layers.Conv2D(
        3, 2, strides=2, kernel_regularizer=keras.regularizers.L2(L2), bias_initializer="normal",
        name="code",
    )  # fmt: skip


def convolution():
    inputs, source = keras.Input((4, 4, 1)), conv()
    reader = TiedConv2DTranspose(source, bias_initializer="normal", name="reader")
    return keras.Model(inputs, reader(source(inputs)))


def convolution_in_sub_models():
    source = conv()
    x, z, inputs = keras.Input((4, 4, 1)), keras.Input((2, 2, 3)), keras.Input((4, 4, 1))
    encoder = keras.Model(x, source(x), name="encoder")
    reader = TiedConv2DTranspose(source, bias_initializer="normal", name="reader")
    decoder = keras.Model(z, reader(z), name="decoder")
    return keras.Model(inputs, decoder(encoder(inputs)))


def at_two_scales():
    """One kernel, with a stride and with a dilation."""
    inputs, source = keras.Input((4, 4, 1)), conv()
    wide = TiedConv(
        source, strides=1, dilation_rate=2, bias_initializer="normal", name="reader"
    )  # fmt: skip
    return keras.Model(inputs, layers.Concatenate()([source(inputs), wide(inputs)]))


def depthwise():
    """A depthwise kernel and its adjoint, on fields side by side."""
    inputs = keras.Input((4, 4, 1))
    source = layers.DepthwiseConv2D(
        2, 2, depth_multiplier=3, depthwise_regularizer=keras.regularizers.L2(L2),
        bias_initializer="normal", name="code",
    )  # fmt: skip
    reader = TiedConvTranspose(source, bias_initializer="normal", name="reader")
    return keras.Model(inputs, reader(source(inputs)))


def einsum():
    inputs = keras.Input((6,))
    source = layers.EinsumDense(
        "ab,bc->ac", 4, bias_axes="c", kernel_regularizer=keras.regularizers.L2(L2),
        bias_initializer="normal", name="code",
    )  # fmt: skip
    reader = TiedEinsumDense(source, bias_axes="b", bias_initializer="normal", name="reader")
    return keras.Model(inputs, reader(source(inputs)))


def reader_in_a_wrapper():
    """The source outside: TimeDistributed takes the int8 codes of a Dense for its weights."""
    inputs, source = keras.Input((2, 6)), dense()
    return keras.Model(inputs, layers.TimeDistributed(reader_of(source))(source(inputs)))


def cell_in_two_rnns():
    inputs = keras.Input((2, 6))
    source = layers.SimpleRNNCell(
        4, None, kernel_regularizer=keras.regularizers.L2(L2), bias_initializer="normal",
        name="code",
    )  # fmt: skip
    onward = layers.RNN(source, unroll=True)(inputs)
    back = layers.RNN(TiedLayer(source, name="reader"), go_backwards=True, unroll=True)(inputs)
    return keras.Model(inputs, layers.Concatenate()([onward, back]))


EMBEDDINGS = (embedding, embedding_in_sub_models)
CONVOLUTIONS = (convolution, convolution_in_sub_models, depthwise)
TOWERS = (tower_in_two_sub_models, shared, shared_in_sub_model)
STACKS = (stack, relaxed_stack)
IN_TIME = (reader_in_a_wrapper, cell_in_two_rnns)
TOPOLOGIES = (
    flat, sequential, subclassed, encoder_decoder, source_in_sub_model, *TOWERS, *STACKS,
    *EMBEDDINGS, *CONVOLUTIONS, at_two_scales, einsum, *IN_TIME,
)  # fmt: skip
WITHOUT_LORA = (depthwise, cell_in_two_rnns)  # layers for which Keras has none


def data_for(topology):
    if topology in EMBEDDINGS:
        return np.array([[0, 5], [3, 2], [1, 1]], "int32")
    if topology in (*CONVOLUTIONS, at_two_scales):
        return np.random.default_rng(6).normal(size=(3, 4, 4, 1)).astype("float32")
    if topology in IN_TIME:
        return np.random.default_rng(7).normal(size=(3, 2, 6)).astype("float32")
    return X


def owner_of(model):
    """The one layer named `code` that owns the shared weight."""
    owners = {id(la): la for la in model._flatten_layers() if la.name == "code"}
    assert len(owners) == 1
    return next(iter(owners.values()))


def reader_bias(model):
    readers = [la for la in model._flatten_layers() if la.name == "reader"]
    return np.asarray(readers[0].bias, "float64")


def expected(topology, model, x, w=None):
    """By hand, in float64, from the owner's weight (or from `w` in its place) and the biases."""
    owner = owner_of(model)
    w = weight_of(owner) if w is None else w
    if topology in EMBEDDINGS:
        return w[x] @ w.T + reader_bias(model)
    x, b = x.astype("float64"), np.asarray(owner.bias, "float64")
    if topology in TOWERS:
        return np.concatenate([x @ w + b] * 2, axis=-1)
    if topology is cell_in_two_rnns:  # h1 = x1 W + b, h2 = x2 W + b + h1 U
        u = np.asarray(owner.recurrent_kernel, "float64")
        first, last = x[:, 0] @ w + b, x[:, 1] @ w + b
        return np.concatenate([first @ u + last, last @ u + first], axis=-1)
    if topology is at_two_scales:
        dilated = np.stack([x[:, i : i + 3 : 2, j : j + 3 : 2].reshape(3, 4)
                            for i in range(2) for j in range(2)], 1)  # fmt: skip
        wide = dilated.reshape(3, 2, 2, 4) @ w.reshape(4, 3) + reader_bias(model)
        fields = x.reshape(3, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(3, 2, 2, 4)
        return np.concatenate([fields @ w.reshape(4, 3) + b, wide], axis=-1)
    if topology in CONVOLUTIONS:  # fields of 2x2 side by side: a dense layer on each
        fields = x.reshape(3, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(3, 2, 2, 4)
        back = (fields @ w.reshape(4, 3) + b) @ w.reshape(4, 3).T
        back = back.reshape(3, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(3, 4, 4, 1)
        return back + reader_bias(model)
    return (
        of_stack(model, x, w, b) if topology in STACKS else (x @ w + b) @ w.T + reader_bias(model)
    )


def of_stack(model, x, w, b):
    """(x + e) (W + A B) + b, twice, each time with a step and factors of its own, if it has any."""
    (layer,) = (la for la in model._flatten_layers() if isinstance(la, SharedStack))
    for number, use in enumerate(layer.uses):
        kernel = w
        if layer.rank:
            a, low = (np.asarray(v, "float64") for v in (use.lora_kernel_a, use.lora_kernel_b))
            x, kernel = x + np.asarray(layer.steps[number].embeddings, "float64"), w + a @ low
        x = x @ kernel + b
    return x


def tolerance(model):
    """Relative to the largest output: what the arithmetic of the owner's dtype policy allows."""
    owner = owner_of(model)
    if owner.quantization_mode is not None:
        return 0.15 if owner.quantization_mode == "float8" else 0.02  # rounded twice in a stack
    return {"float16": 0.005, "bfloat16": 0.03}.get(owner.compute_dtype, 1e-5)


def check_outputs(topology, model, x):
    wanted = expected(topology, model, x)
    answers = np.asarray(model.predict(x, verbose=0), "float64")
    np.testing.assert_allclose(
        answers, wanted, rtol=0, atol=tolerance(model) * np.abs(wanted).max()
    )


def check_tied(topology, model, x):
    """Change the owner: every use must follow. The formula must hold before and after."""
    owner = owner_of(model)
    for step in range(2):
        check_outputs(topology, model, x)
        perturb(owner, step)
    others = 0 if topology in (*TOWERS, *STACKS, cell_in_two_rnns) else 1  # the reader's bias
    others = 6 if topology is relaxed_stack else others  # two steps, two pairs of factors
    variables = {id(v) for v in model.variables}
    assert len(variables) == len(model.variables) == len(owner.variables) + others
    if trains_as_float(owner):
        check_training(topology, model, x, owner)


def check_training(topology, model, x, owner):
    """The gradients of all uses meet in one variable; it is regularised and decayed once."""
    w, weight = weight_of(owner), owner.trainable_variables[0]
    random = np.random.default_rng(8)
    direction = random.normal(size=w.shape)
    towards = random.normal(size=expected(topology, model, x).shape)

    def along(step):
        return np.sum(expected(topology, model, x, w + step * direction) * towards)

    slope = (along(1e-4) - along(-1e-4)) / 2e-4  # exact: the formula is a polynomial
    found = np.sum(gradient(model, x, towards, weight) * direction)
    np.testing.assert_allclose(found, slope, rtol=1e-3, atol=1e-3)

    np.testing.assert_allclose(
        [float(loss) for loss in model.losses], [L2 * np.sum(w**2)], rtol=1e-4
    )
    decay = keras.optimizers.AdamW(learning_rate=0.1, weight_decay=0.5)
    decay.build(model.trainable_variables)
    still = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    decay.apply(still, model.trainable_variables)
    np.testing.assert_allclose(weight_of(owner), w * (1 - 0.1 * 0.5), rtol=1e-4)
