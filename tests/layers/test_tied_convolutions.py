"""Readers of convolutions against loops over positions and pairings, in NumPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_shared.layers import (
    TiedConv,
    TiedConv2DTranspose,
    TiedConvTranspose,
    TiedEinsumDense,
)
from keras_shared.sharing import sharing_report, unshare
from keras_shared.tying import TieError, bind_ties, check_ties, tie, untie

SOURCES = {
    "conv1d": (layers.Conv1D, {"filters": 4}, 1),
    "conv2d": (layers.Conv2D, {"filters": 4}, 2),
    "conv3d": (layers.Conv3D, {"filters": 4}, 3),
    "groups": (layers.Conv2D, {"filters": 4, "groups": 2}, 2),
    "depthwise1d": (layers.DepthwiseConv1D, {"depth_multiplier": 2}, 1),
    "depthwise2d": (layers.DepthwiseConv2D, {"depth_multiplier": 2}, 2),
    "separable1d": (layers.SeparableConv1D, {"filters": 3, "depth_multiplier": 2}, 1),
    "separable2d": (layers.SeparableConv2D, {"filters": 3}, 2),
}
CHANNELS = 2


def noise(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def built(name, side, size, **geometry):
    """A source with random weights, and inputs for it."""
    kind, arguments, rank = SOURCES[name]
    source = kind(kernel_size=side, use_bias=False, name="code", **arguments, **geometry)
    inputs = noise(1, *[size] * rank, CHANNELS)
    if geometry.get("data_format") == "channels_first":
        inputs = np.moveaxis(inputs, -1, 1)
    source(inputs)
    return source, inputs


def by_hand(x, kernels, stride, dilation, padding, groups=1, depthwise=False):
    """A convolution as loops over positions; channels last, one example."""
    kernel, *pointwise = kernels
    *sides, _, filters = kernel.shape
    reach = [(side - 1) * dilation + 1 for side in sides]
    if padding == "valid":
        sizes = [(n - r) // stride + 1 for n, r in zip(x.shape[1:-1], reach)]
        edges = [(0, 0)] * len(sides)
    else:
        sizes = [-(-n // stride) for n in x.shape[1:-1]]
        total = [max((o - 1) * stride + r - n, 0) for o, r, n in zip(sizes, reach, x.shape[1:-1])]
        edges = [(t if padding == "causal" else t // 2, 0 if padding == "causal" else t - t // 2)
                 for t in total]  # fmt: skip
    x = np.pad(x, [(0, 0), *edges, (0, 0)]).astype("float64")
    channels = x.shape[-1]
    out = np.zeros((1, *sizes, channels * filters if depthwise else filters))
    for at in itertools.product(*[range(n) for n in sizes]):
        for offset in itertools.product(*[range(n) for n in sides]):
            where = tuple(a * stride + o * dilation for a, o in zip(at, offset))
            field, taps = x[(0, *where)], kernel[offset]
            if depthwise:
                out[(0, *at)] += (field[:, None] * taps).reshape(-1)
            else:
                per = filters // groups
                parts = [field.reshape(groups, -1)[g] @ taps[:, g * per : (g + 1) * per]
                         for g in range(groups)]  # fmt: skip
                out[(0, *at)] += np.concatenate(parts)
    return out @ pointwise[0].reshape(pointwise[0].shape[-2:]) if pointwise else out


def kernels_of(source):
    return [w.astype("float64") for w in source.get_weights()]


def onednn():
    """Without it, TensorFlow neither convolves channels first nor transposes dilated kernels."""
    image, kernel = np.zeros((1, 1, 2, 2), "float32"), np.zeros((1, 1, 1, 1), "float32")
    try:
        tf.nn.conv2d_transpose(image, kernel, image.shape, 1, data_format="NCHW")
    except tf.errors.OpError:  # some processors are left out, if TF_ENABLE_ONEDNN_OPTS is not set
        return False
    return True


ONEDNN = onednn()


def left_out(name, side, stride, dilation):
    """What Keras has no convolution for, or TensorFlow a wrong one without oneDNN.

    Its `conv3d` of 6 steps by a kernel of 1 and strides of 3, padded to the same size, begins at
    the second step: the padding, (2 - 1) * 3 + 1 - 6, is below 0 and not taken as 0.
    """
    return (stride > 1 and dilation > 1) or (name == "conv3d" and stride > side + 1 and not ONEDNN)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(SOURCES)),
    side=st.integers(1, 3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(["valid", "same"]),
)
def test_as_it_is_with_other_strides_dilation_and_padding(name, side, stride, dilation, padding):
    if left_out(name, side, stride, dilation):
        return
    size = 6
    source, x = built(name, side, size, padding="same")
    reader = TiedConv(source, stride, padding, dilation, bias_initializer="ones")
    wanted = by_hand(
        x, kernels_of(source), stride, dilation, padding, getattr(source, "groups", 1),
        depthwise="depthwise" in name or "separable" in name,
    )  # fmt: skip
    np.testing.assert_allclose(reader(x), wanted + 1, atol=1e-4)
    assert reader.compute_output_shape(x.shape) == wanted.shape


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(SOURCES)),
    size=st.integers(5, 7),
    side=st.integers(1, 3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 1 + ONEDNN),
    padding=st.sampled_from(["valid", "same"]),
    order=st.sampled_from(["channels_last", "channels_first"][: 1 + ONEDNN]),
)
def test_adjoint(name, size, side, stride, dilation, padding, order):
    """<K u, v> = <u, K^T v>, with the output padding that the size asks for."""
    if left_out(name, side, stride, dilation):
        return
    geometry = {"strides": stride, "dilation_rate": dilation, "padding": padding}
    geometry["data_format"] = order
    source, u = built(name, side, size, **geometry)
    mapped = np.asarray(source(u))
    v = noise(*mapped.shape)
    for output_padding in [None, *range(stride)]:
        reader = TiedConvTranspose(source, use_bias=False, output_padding=output_padding)
        if reader.compute_output_shape(v.shape) == u.shape:
            break
    else:
        return  # Keras has no output padding that leads back to this size
    back = np.asarray(reader(v))
    assert back.shape == u.shape
    np.testing.assert_allclose(np.sum(mapped * v), np.sum(u * back), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["conv1d", "depthwise1d", "separable1d"])
def test_causal(name):
    kind, arguments, _ = SOURCES[name]
    source = (
        layers.Conv1D(4, 3, padding="causal", use_bias=False)
        if name == "conv1d"
        else kind(kernel_size=3, use_bias=False, **arguments)
    )
    x = noise(1, 7, CHANNELS)
    source(x)
    reader = TiedConv(source, padding="causal", dilation_rate=2, use_bias=False)
    wanted = by_hand(x, kernels_of(source), 1, 2, "causal", depthwise=name != "conv1d")
    np.testing.assert_allclose(reader(x), wanted, atol=1e-5)
    if name == "conv1d":
        v = noise(1, 7, 4)
        back = np.asarray(TiedConvTranspose(source, use_bias=False)(v))
        assert back.shape == x.shape
        np.testing.assert_allclose(np.sum(source(x) * v), np.sum(x * back), rtol=1e-4)


def test_a_dense_as_a_convolution_of_side_one():
    source = layers.Dense(3, name="code")
    image, vector = noise(2, 5, 5, 4), noise(2, 4)
    source(vector)
    reader = TiedConv(source, strides=2, use_bias=False)
    np.testing.assert_allclose(reader(image), image[:, ::2, ::2] @ source.kernel.numpy(), atol=1e-5)
    assert TiedConv(source)(noise(1, 6, 4)).shape == (1, 6, 3)  # a sequence


def twin(name):
    """A source, read as it is with a stride and back again, in one model."""
    kind, arguments, rank = SOURCES[name]
    inputs = keras.Input((*[6] * rank, CHANNELS))
    source = kind(kernel_size=3, padding="same", name="code", **arguments)
    first = source(inputs)
    wide = TiedConv(source, dilation_rate=2, bias_initializer="normal", name="wide")(inputs)
    back = TiedConvTranspose(source, bias_initializer="normal", name="back")(
        layers.Add()([first, wide])
    )
    return keras.Model(inputs, back)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_one_kernel_survives_and_learns_from_all_uses(name, tmp_path):
    model = twin(name)
    x = noise(2, *model.input_shape[1:])
    source = model.get_layer("code")
    own = len(source.variables)
    assert len(model.variables) == own + 2  # two biases
    check_ties(model)
    model.save(tmp_path / "m.keras")
    for other in (keras.models.load_model(tmp_path / "m.keras"), keras.models.clone_model(model)):
        other.set_weights(model.get_weights())
        for factor in (1.0, 1.5):
            for net in (model, other):
                kernel = net.get_layer("code").variables[0]
                kernel.assign(kernel * factor)
            np.testing.assert_allclose(
                other.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5
            )
    report = sharing_report(model)
    assert report.weights[0].uses == 3 and report.totals["multiply_adds"] is not None
    wanted = model.predict(x, verbose=0)
    untie(model)
    model.quantize("int8")  # nothing of it can be
    np.testing.assert_allclose(model.predict(x, verbose=0), wanted, atol=1e-5)
    for reader in (model.get_layer("wide"), model.get_layer("back")):
        tie(reader, source)
    model.compile("sgd", "mse")
    before = source.get_weights()[0]
    model.train_on_batch(x, np.zeros_like(wanted))
    assert np.abs(source.get_weights()[0] - before).max() > 0


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_gradients_add_up(name):
    model = twin(name)
    x = noise(1, *model.input_shape[1:])
    apart = untie(bind_ties(keras.models.clone_model(model)))
    apart.set_weights(_with_copies(model, apart))

    def gradients(net):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = tf.reduce_sum(net(x) ** 2)
        return tape.gradient(total, [v.value for v in net.trainable_variables])

    tied = dict(zip([v.path for v in model.trainable_variables], gradients(model)))
    parts = dict(zip([v.path for v in apart.trainable_variables], gradients(apart)))
    for variable in model.get_layer("code").trainable_variables:
        if variable.name == "bias":
            continue
        uses = [value for path, value in parts.items() if path.endswith(f"/{variable.name}")]
        assert len(uses) == 3
        np.testing.assert_allclose(sum(uses), tied[variable.path], rtol=1e-3, atol=1e-3)


def _with_copies(model, apart):
    values = {v.path: v.numpy() for v in model.variables}
    kernels = {v.name: v.numpy() for v in model.get_layer("code").variables}
    return [values[v.path] if v.path in values else kernels[v.name] for v in apart.variables]


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "groups"])
def test_unshared_where_keras_has_the_layer(name):
    kind, arguments, rank = SOURCES[name]
    inputs = keras.Input((*[6] * rank, CHANNELS))
    source = kind(kernel_size=3, padding="same", **arguments)
    model = keras.Model(inputs, [source(inputs), TiedConv(source, 2, name="again")(inputs)])
    apart = unshare(model)
    assert type(apart.get_layer("again")) is kind
    x = noise(1, *inputs.shape[1:])
    for a, b in zip(apart.predict(x, verbose=0), model.predict(x, verbose=0)):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", ["depthwise2d", "separable2d", "separable1d"])
def test_unshared_depthwise(name):
    kind, arguments, rank = SOURCES[name]
    inputs = keras.Input((*[6] * rank, CHANNELS))
    source = kind(kernel_size=3, padding="same", **arguments)
    model = keras.Model(inputs, [source(inputs), TiedConv(source, 2, name="again")(inputs)])
    apart = unshare(model)
    x = noise(1, *inputs.shape[1:])
    for a, b in zip(apart.predict(x, verbose=0), model.predict(x, verbose=0)):
        np.testing.assert_allclose(a, b, atol=1e-5)
    unshare(model, copy_values=False)
    with pytest.raises(TieError, match="no Keras layer .* TiedConvTranspose 'back', whose width"):
        unshare(twin(name), copy_values=False, parameters=60)
    model = twin(name)
    apart = unshare(model)  # as the message says, without `parameters`
    assert apart.get_layer("back").untied and not model.get_layer("back").untied
    x = noise(1, *model.input_shape[1:])
    np.testing.assert_allclose(apart.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


def test_bias_activation_count_and_gradient():
    image = keras.Input((8, 8, 2))
    conv = layers.Conv2D(4, 3, strides=2, padding="same", name="conv")
    out = TiedConv2DTranspose(conv, "relu", bias_initializer="ones")(conv(image))
    model = keras.Model(image, out)
    assert model.count_params() == 3 * 3 * 2 * 4 + 4 + 2
    assert float(np.min(model(np.random.rand(1, 8, 8, 2)))) >= 0


def test_rebuilt_from_config_before_the_source_is_found():
    conv = layers.Conv2D(4, 3, strides=2, padding="same", name="conv")
    conv.build((None, 8, 8, 1))
    for kind in (TiedConvTranspose, TiedConv2DTranspose):
        layer = kind.from_config(kind(conv).get_config())
        assert layer.compute_output_shape((None, 4, 4, 4)) == (None, 8, 8, 1)
        with pytest.raises(TieError, match=r"tied to the Conv2D 'conv' \(weight \[3, 3, 1, 4\]\)"):
            layer(np.zeros((1, 4, 4, 4), "float32"))


def test_a_config_of_an_earlier_version():
    """It says nothing of groups and dilation."""
    conv = layers.Conv2D(4, 3, strides=2, padding="same", name="conv")
    conv.build((None, 8, 8, 1))
    config = TiedConv2DTranspose(conv).get_config()
    for name in ("groups", "dilation_rate", "depth_multiplier"):
        del config["source"][name]
    layer = TiedConv2DTranspose.from_config(config)
    assert layer.compute_output_shape((None, 4, 4, 4)) == (None, 8, 8, 1)


@pytest.mark.parametrize("name", sorted(SOURCES))
@pytest.mark.parametrize("own", ["strides", "dilation_rate"])
def test_sizes_for_each_axis_come_back_from_a_file(name, own, tmp_path):
    kind, arguments, rank = SOURCES[name]
    source = kind(kernel_size=3, **arguments)
    x = keras.Input((9,) * rank + (CHANNELS,))
    y = source(x)
    model = keras.Model(x, [y, TiedConv(source, **{own: (2,) * rank})(x)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(1).normal(size=(2, *x.shape[1:])).astype("float32")
    for again, before in zip(loaded(images), model(images), strict=True):
        np.testing.assert_array_equal(again, before)


def test_wrong_channels_wrong_source_and_wrong_geometry():
    conv = layers.Conv2D(4, 3)
    conv.build((None, 8, 8, 1))
    with pytest.raises(TieError, match=r"inputs with 4 channels.*input_shape=\(1, 6, 6, 3\)"):
        TiedConvTranspose(conv)(np.zeros((1, 6, 6, 3), "float32"))
    with pytest.raises(TieError, match=r"inputs with 1 channels.*input_shape=\(1, 6, 6, 3\)"):
        TiedConv(conv)(np.zeros((1, 6, 6, 3), "float32"))
    with pytest.raises(TieError, match="pass a Conv2D object"):
        TiedConv2DTranspose(layers.Dense(3))
    with pytest.raises(ValueError, match="strides.*dilation_rate"):
        TiedConv(conv, strides=2, dilation_rate=2)(np.zeros((1, 8, 8, 1), "float32"))


@pytest.mark.parametrize("kind", ["strided", "turned"])
def test_no_mask_where_positions_move(kind):
    """As Conv1D and EinsumDense of Keras, of which the next layer would take half of the mask."""
    ids = keras.Input((8,), dtype="int32")
    table = layers.Embedding(5, 4, mask_zero=True)
    convolution, dense = layers.Conv1D(4, 3, padding="same"), layers.Dense(3)
    for layer in (convolution, dense):
        layer(table(ids))
    reader = {
        "strided": lambda: TiedConv(convolution, strides=2),
        "turned": lambda: TiedEinsumDense(dense, equation="btc,cd->bdt"),
    }[kind]()
    recurrent = layers.LSTM(3)
    between = reader(table(ids))
    model = keras.Model(ids, [between, recurrent(between)])
    given, found = model.predict(np.array([[1, 2, 3, 0, 0, 0, 0, 0]]), verbose=0)
    np.testing.assert_allclose(recurrent(given), found, rtol=1e-4, atol=1e-6)
    model.compile("sgd", "mse")
    model.evaluate(np.ones((1, 8)), [np.zeros(given.shape), np.zeros(found.shape)], verbose=0)
