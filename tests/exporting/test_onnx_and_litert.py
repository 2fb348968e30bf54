"""ONNX and LiteRT: the answers of Keras, and each tied weight once, or a word on why not."""

import sys
import warnings
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_shared
from keras_shared.exporting.checks import check_answers
from keras_shared.exporting.signatures import signatures_of
from keras_shared.layers import TiedConv2DTranspose, TiedDense
from keras_shared.zoo import LeNet5, SiameseNet, TiedAutoencoder

onnx = pytest.importorskip("onnx", reason="ONNX: pip install 'keras_shared[onnx]'")
ort = pytest.importorskip("onnxruntime", reason="ONNX: pip install 'keras_shared[onnx]'")


def weights_in(path):
    """Shapes of the constants that are more than a few numbers."""
    graph = onnx.load(path).graph
    return sorted(tuple(t.dims) for t in graph.initializer if np.prod(t.dims) > 100)


def test_autoencoder_holds_each_kernel_once(tmp_path):
    model = TiedAutoencoder(units=(40, 10), input_dim=64)
    path = keras_shared.export(model, tmp_path / "m.onnx", format="onnx")
    assert weights_in(path) == [(40, 10), (64, 40)]
    graph = onnx.load(path).graph
    assert [node.op_type for node in graph.node].count("Transpose") == 2
    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_the_one_initializer_feeds_both_uses(tmp_path):
    """Change it in the file: the output follows in both uses."""
    inputs, source = keras.Input((20,)), keras.layers.Dense(8, name="code")
    model = keras.Model(inputs, TiedDense(source)(source(inputs)))
    path = keras_shared.export(model, tmp_path / "m.onnx", format="onnx")
    proto = onnx.load(path)
    (kernel,) = [t for t in proto.graph.initializer if tuple(t.dims) in ((20, 8), (8, 20))]
    w = np.random.default_rng(0).normal(size=(20, 8)).astype("float32")
    turned = w if tuple(kernel.dims) == (20, 8) else w.T
    kernel.CopyFrom(onnx.numpy_helper.from_array(turned, kernel.name))
    x = np.random.default_rng(1).normal(size=(3, 20)).astype("float32")
    session = ort.InferenceSession(proto.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(y, x @ w @ w.T, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "litert"])
@pytest.mark.parametrize("signature", [pytest.param("verify", marks=pytest.mark.slow), "embed"])
def test_siamese_tower_is_stored_once(format, signature, tmp_path):
    model = SiameseNet(image_shape=(28, 28, 1))
    path = tmp_path / ("m.tflite" if format == "litert" else "m.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing doubled
        model.export(path, format=format, signature=signature)
    weights = 4 * model.count_params()  # bytes; the graph takes some 60 KB, with the layers' names
    assert path.stat().st_size < 1.5 * weights


@pytest.mark.parametrize("format", ["onnx", "litert"])
@pytest.mark.parametrize("variant", ["1998", "modern"])
def test_lenet(format, variant, tmp_path):
    path = tmp_path / ("m.tflite" if format == "litert" else "m.onnx")
    LeNet5(variant=variant).export(path, format=format)
    assert path.stat().st_size < 4 * 62_000 + 60_000


def test_convolution_is_stored_once(tmp_path):
    image = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(16, 3, strides=2, padding="same", name="conv")
    model = keras.Model(image, TiedConv2DTranspose(conv)(conv(image)))
    path = keras_shared.export(model, tmp_path / "m.onnx", format="onnx")
    assert weights_in(path) == [(16, 3, 3, 3)]


def test_litert_says_what_it_doubles(tmp_path):
    model = TiedAutoencoder(units=(40, 10), input_dim=64)
    with pytest.warns(UserWarning, match=r"encoder_1' 2 times \(10,240 bytes more\).*one order"):
        path = keras_shared.export(model, tmp_path / "m.tflite", format="litert")
    assert path.stat().st_size > 2 * 4 * (64 * 40 + 40 * 10)


def test_onnx_says_what_a_quantised_source_doubles(tmp_path):
    model = TiedAutoencoder(units=(40, 10), input_dim=64)
    model.quantize("int8")
    with pytest.warns(UserWarning, match="codes of encoder_1/?.*beside them the floats"):
        keras_shared.export(model, tmp_path / "m.onnx", format="onnx")


def test_untied_copies_stay_two(tmp_path):
    """Equal values are no tie: what `untie` cut is written as it is."""
    model = keras_shared.tying.untie(TiedAutoencoder(units=(40, 10), input_dim=64))
    path = keras_shared.export(model, tmp_path / "m.onnx", format="onnx")
    assert len(weights_in(path)) == 4


def test_an_older_file_stays_where_the_new_one_is_wrong(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"older")
    model = TiedAutoencoder(units=(4, 2), input_dim=6)
    calls = model.signatures

    def drifting():  # a signature that answers otherwise each time
        drift = np.random.default_rng()
        signature = calls()["encode"]
        return {"encode": signature._replace(
            call=lambda inputs: {"code": signature.call(inputs)["code"] + drift.random()}
        )}  # fmt: skip

    monkeypatch.setattr(model, "signatures", drifting)
    with pytest.raises(ValueError, match="other outputs than Keras: 'ONNX, encode: code"):
        keras_shared.export(model, path, format="onnx")
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]


ACTIVATIONS = [
    name
    for name in dir(keras.activations)
    if callable(getattr(keras.activations, name))
    and not name.startswith("_")
    and name not in ("get", "serialize", "deserialize", "threshold")  # which wants arguments
]
INFINITE = ("softplus", "log_sigmoid")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_every_activation_of_keras(format, tmp_path):
    """What is written is compared with Keras before it is kept."""
    inputs = keras.Input((6,))
    outputs = {name: keras.layers.Dense(4, name, name=name)(inputs) for name in ACTIVATIONS}
    model = keras.Model(inputs, outputs)
    file = tmp_path / ("m.onnx" if format == "onnx" else "m.tflite")
    warned = pytest.warns(UserWarning, match="inf") if format == "litert" else nullcontext()
    with warned:  # of softplus
        keras_shared.export(model, file, format=format)
    assert len(ACTIVATIONS) > 25
    if format == "onnx":
        x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32") * 3
        session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        found = session.run(names, {session.get_inputs()[0].name: x})
        for name, expected in model.predict(x, verbose=0).items():
            np.testing.assert_allclose(found[names.index(name)], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", INFINITE)
def test_litert_warns_where_large_inputs_give_infinity(name, tmp_path):
    """And does not where the advice is followed."""
    inputs, activation = keras.Input((6,)), getattr(keras.activations, name)
    said = "differs by inf.*numbers between -100 and 100.*another operation.*LiteRT.*ops.clip"
    with pytest.warns(UserWarning, match=said):
        keras_shared.export(keras.Model(inputs, activation(inputs)), tmp_path / "m.tflite")
    clipped = keras.Model(inputs, activation(ops.clip(inputs, -3, 3)))
    keras_shared.export(clipped, tmp_path / "m.tflite")
    sign = 1 if name == "softplus" else -1
    other = ops.maximum(sign * inputs, 0) + ops.log1p(ops.exp(-ops.abs(inputs)))
    keras_shared.export(keras.Model(inputs, sign * other), tmp_path / "m.tflite")


def test_negative_inputs_and_zeros_are_tried_too(tmp_path):
    inputs = keras.Input((3,))
    relu = keras.layers.ReLU()(inputs)  # a row of zeros, by which LiteRT divides
    model = keras.Model(inputs, keras.layers.UnitNormalization()(relu))
    with pytest.raises(ValueError, match="differs by nan.*between -1 and 1, with zeros among"):
        keras_shared.export(model, tmp_path / "m.tflite")


def test_a_program_that_fails_where_keras_answers_is_refused():
    inputs = keras.Input((2,), dtype="int32", name="x")
    model = keras.Model(inputs, inputs * 2, name="net")
    ((name, signature),) = signatures_of(model).items()

    def answer(x):
        if x.max() > 2:
            raise RuntimeError("out of bounds")
        return dict.fromkeys(signature.call(x=x), x * 2)

    with pytest.raises(ValueError, match="Prog fails.*out of bounds.*whole numbers from 0 to 3"):
        check_answers(model, name, signature, answer, "Prog")


@pytest.mark.parametrize(
    "shape, dtype, operation",
    [
        ((4,), "int32", lambda x: keras.layers.Embedding(2, 3)(x)),
        ((4,), "int32", lambda x: ops.take(keras.ops.arange(1), x)),
        ((4,), "float32", ops.log),  # no number, or infinity
        ((4,), "float32", ops.exp),
        ((4,), "float32", lambda x: ops.sin(40 * x)),
        ((9,), "float32", lambda x: ops.sign(keras.layers.Dense(99)(x))),
        ((9,), "float32", lambda x: ops.top_k(keras.layers.Dense(99)(x), 1)[1]),
        ((9, 8), "float32", lambda x: keras.layers.MultiHeadAttention(
            2, 8, kernel_initializer=keras.initializers.RandomNormal(0, 1))(x, x)),
        ((99,), "float32", lambda x: keras.layers.Dense(9, "sigmoid")(
            keras.layers.Dense(99, "sigmoid", kernel_initializer="random_normal")(255 * x))),
        ((4,), "bool", lambda x: ops.where(x, 1.0, 2.0)),
    ],
    ids=["vocabulary", "one", "log", "exp", "sin", "sign", "top", "attention", "sigmoid", "bool"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["m.onnx", "m.tflite"])
def test_rounding_and_what_keras_refuses_are_no_fault(name, shape, dtype, operation, tmp_path):
    inputs = keras.Input(shape, dtype=dtype)
    keras_shared.export(keras.Model(inputs, operation(inputs)), tmp_path / name)


def onnx_answers(model, path, inputs):
    """What is written answers, and what Keras does."""
    session = ort.InferenceSession(keras_shared.export(model, path))
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs})
    return found, keras.ops.convert_to_numpy(model(inputs))


@keras.saving.register_keras_serializable("test_onnx_and_litert")
class SelectRows(keras.layers.Layer):
    """The older operation, whose condition may have one value for each row."""

    def call(self, x):
        return tf.raw_ops.Select(condition=x[:, 0] > 0, x=tf.math.log(x), y=x)

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.parametrize(
    "chosen",
    [
        lambda x: ops.where(x > 0, ops.log(x), 0.0),
        lambda x: ops.where(ops.equal(x, 0), 0.0, 1 / x),
        lambda x: ops.where(ops.sum(x, -1, keepdims=True) > 0, ops.sqrt(x), x),
        lambda x: SelectRows()(x),
        lambda x: ops.where(x > 0, x > 1, x > -1),
    ],
    ids=["log", "division", "broadcast", "rows", "bool"],
)
def test_onnx_takes_one_of_two_and_nothing_of_the_other(chosen, tmp_path):
    inputs = keras.Input((4,))
    x = np.array([[-1, 0, 1, 2], [3, 4, 0, 0.5]], "float32")
    model = keras.Model(inputs, chosen(inputs))
    np.testing.assert_allclose(*onnx_answers(model, tmp_path / "m.onnx", x), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_onnx_of_negative_whole_numbers(dtype, tmp_path):
    inputs = keras.Input((4,), dtype=dtype)
    three = ops.cast(3, dtype)
    outputs = [
        *(ops.floor_divide(inputs, three), ops.floor_divide(inputs, -three)),
        *(ops.mod(inputs, three), ops.mod(inputs, -three)),
        *(ops.one_hot(inputs, 3, dtype=kind)[..., 0] for kind in ("float32", "int32", "bool")),
        ops.one_hot(inputs, 3, axis=1)[:, 1],
    ]
    model = keras.Model(inputs, ops.stack([ops.cast(one, "int32") for one in outputs]))
    x = np.array([[-5, -1, 1, 5], [0, 2, 3, -3]], dtype)
    np.testing.assert_array_equal(*onnx_answers(model, tmp_path / "m.onnx", x))


def test_onnx_holds_what_is_no_variable(tmp_path):
    """Mean and variance of a Normalization are tensors that its function captures."""
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    for normalization in (
        keras.layers.Normalization(),
        keras.layers.Normalization(mean=0.5, variance=2.0),
        keras.layers.Normalization(mean=[0.1] * 4, variance=[2.0] * 4, invert=True),
    ):
        if normalization.input_mean is None:
            normalization.adapt(x)
        inputs, code = keras.Input((4,), name="x"), keras.layers.Dense(3, name="code")
        model = keras.Model(inputs, TiedDense(code)(code(normalization(inputs))))
        np.testing.assert_allclose(*onnx_answers(model, tmp_path / "m.onnx", x), atol=1e-5)
        graph = onnx.load(tmp_path / "m.onnx").graph
        assert [given.name for given in graph.input] == ["x"]
        read = {name for node in graph.node for name in node.input}
        assert {held.name for held in graph.initializer} <= read


@pytest.mark.parametrize("captured", ["string", "table"])
def test_what_is_captured_and_is_no_number_is_no_fault_of_its_own(captured, tmp_path):
    inputs, text = keras.Input((2,), dtype="string"), tf.constant("a")
    layer = keras.layers.Lambda(lambda x: tf.strings.join([x, text]), output_shape=(2,))
    if captured == "table":
        layer = keras.layers.TextVectorization(standardize="lower", vocabulary=["a", "b"])
        inputs = keras.Input((1,), dtype="string")
    joined = layer(inputs)
    with pytest.raises(ValueError, match="no counterpart to .* serve the model as a SavedModel"):
        keras_shared.export(keras.Model(inputs, joined), tmp_path / "m.onnx")


def test_an_operation_that_onnx_lacks_is_named_with_what_to_do(tmp_path):
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, keras.ops.logdet(inputs))
    with pytest.raises(ValueError, match="no counterpart to .* serve the model as a SavedModel"):
        keras_shared.export(model, tmp_path / "m.onnx", format="onnx")


@pytest.mark.parametrize(
    "operation, said",
    [
        (lambda x: ops.argmax(x, -1), r"\(TF Select ops: BitwiseAnd\)\. Put another operation"),
        (lambda x: ops.cumprod(x, -1), r"\(TF Select ops: Cumprod\)\. Put another operation"),
        (lambda x: ops.svd(x[..., None], compute_uv=False), r"\(Custom ops: Svd\)\. Put another"),
    ],
    ids=["argmax", "cumprod", "svd"],
)
def test_litert_names_the_operation_that_it_lacks(operation, said, tmp_path):
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=said):
        keras_shared.export(keras.Model(inputs, operation(inputs)), tmp_path / "m.tflite")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, mode, said, instead",
    [
        ("m.tflite", "int8", "write ONNX, convert", [("m.onnx", "int8"), ("m.tflite", None)]),
        ("m.tflite", "float8", "convert the model as it was before", [("m.tflite", None)]),
        ("m.onnx", "float8", "quantise the model to int8", [("m.onnx", "int8")]),
    ],
)
def test_a_quantised_model_that_is_refused_says_what_is_taken(name, mode, said, instead, tmp_path):
    def quantised(mode):
        inputs, code = keras.Input((6,)), keras.layers.Dense(4, name="code")
        model = keras.Model(inputs, keras.layers.Dense(2, name="head")(code(inputs)), name="net")
        if mode:
            model.quantize(mode, filters=lambda layer: layer.weights)
        return model

    with pytest.raises(ValueError) as refused:
        keras_shared.export(quantised(mode), tmp_path / name)
    message = str(refused.value)
    assert f"{mode} (Dense 'code', Dense 'head'): {said}" in message
    assert "'net'" in message and "loc(" not in message and "unknown" not in message
    assert not (tmp_path / name).exists()
    for file, taken in instead:
        keras_shared.export(quantised(taken), tmp_path / file)


def test_what_onnx_runtime_does_not_run_is_said(tmp_path):
    inputs = keras.Input((6,), dtype="float64")
    model = keras.Model(inputs, ops.erf(inputs), name="net")
    with pytest.raises(ValueError, match="ONNX Runtime cannot run 'net': .*Erf.* Put another"):
        keras_shared.export(model, tmp_path / "m.onnx")


@pytest.mark.slow
def test_refusals(tmp_path, monkeypatch):
    model = TiedAutoencoder(units=(4, 2), input_dim=6)
    with pytest.raises(ValueError, match="`format` must be one of .*Received: format='pb'"):
        keras_shared.export(model, tmp_path / "m", format="pb")
    with pytest.raises(ValueError, match="must end in .tflite"):
        keras_shared.export(model, tmp_path / "m.lite", format="litert")
    for name, said in (
        ("m.keras", r"by model.save\(filepath\)"), ("m.weights.h5", r"by model.save_weights"),
        ("m.h5", r"by model.save\(filepath\)"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            keras_shared.export(model, tmp_path / name)
        assert not (tmp_path / name).exists()
    with pytest.raises(ValueError, match="no signature 'classify'. It has: reconstruct, encode"):
        keras_shared.export(model, tmp_path / "m.onnx", format="onnx", signature="classify")
    with pytest.raises(ValueError, match="holds all signatures"):
        keras_shared.export(model, tmp_path / "m", signature="encode")
    with pytest.raises(ValueError, match="takes no \\['opset_version'\\] for format='onnx'"):
        model.export(tmp_path / "m.onnx", format="onnx", opset_version=18)
    with pytest.raises(ValueError, match="no counterpart to \\['ScaleAndTranslate'\\]"):
        SiameseNet(image_shape=(105, 105, 1)).export(tmp_path / "m.onnx", format="onnx")
    with pytest.raises(ValueError, match="Custom ops: ScaleAndTranslate.*resize before"):
        SiameseNet(image_shape=(105, 105, 1)).export(tmp_path / "m.tflite", format="litert")
    half = TiedAutoencoder(units=(4, 2), input_dim=6, dtype="mixed_bfloat16")
    for format, name in (("onnx", "m.onnx"), ("litert", "m.tflite")):
        with pytest.raises(ValueError, match="compute in float32.*computes in bfloat16"):
            keras_shared.export(half, tmp_path / name, format=format)
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r'pip install "keras_shared\[onnx\]"'):
        keras_shared.export(model, tmp_path / "m.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m", "m.ONNX", "m.tflite"])
def test_an_input_that_is_one_number(tmp_path, name):
    row, factor = keras.Input((3,), name="row"), keras.Input(batch_shape=(), name="factor")
    path = keras_shared.export(keras.Model([row, factor], row * factor), tmp_path / name)
    assert path.is_dir() == (name == "m")  # a suffix counts in capitals too
