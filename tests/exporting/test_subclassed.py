"""Subclassed models that were called: published, exported, asked by real clients, loaded again."""

import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_shared
from keras_shared.cli import main
from keras_shared.layers import TiedDense, TiedLayer
from keras_shared.presets.names import LoadError
from keras_shared.presets.publishing import PublishError
from keras_shared.serving import check
from keras_shared.serving.session import loaded as in_session
from keras_shared.serving.session import run
from keras_shared.sharing import sharing_report
from keras_shared.tying import readers_of

RANDOM = np.random.default_rng(3)
registered = keras.saving.register_keras_serializable("test_subclassed")


def noise(*shape):
    return RANDOM.random(shape, "float32")


@registered
class Tied(keras.Model):
    """6 -> 3 -> 6 through one kernel, with dropout."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inward = layers.Dense(3, name="inward")
        self.drop = layers.Dropout(0.5)
        self.outward = TiedDense(self.inward, name="outward")

    def call(self, x, training=False):
        return self.outward(self.drop(self.inward(x), training=training))


@registered
class Pair(keras.Model):
    """Two tensors in one list, tuple or dict, or as two arguments: see those below."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tower = layers.Dense(3, name="tower")
        self.again = TiedLayer(self.tower, name="again")

    def call(self, inputs):
        return [self.tower(inputs[0]), self.again(inputs[1])]


@registered
class PairInDict(Pair):
    def call(self, inputs):
        return {"left": self.tower(inputs["a"]), "deep": {"right": self.again(inputs["b"])}}


@registered
class PairOfArguments(Pair):
    def build(self, first_shape, second_shape):
        self.tower.build(first_shape)

    def call(self, first, second, training=None):
        return self.tower(first) - self.again(second)


@registered
class PairNotBuilt(Pair):
    def call(self, first, second):
        return self.tower(first) - self.again(second)


@registered
class Words(keras.Model):
    """Whole numbers, a table that is read twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(9, 4, name="table")
        self.logits = TiedDense(self.table, name="logits")

    def call(self, ids):
        return self.logits(self.table(ids))


@registered
class Text(Words):
    """Strings, a vocabulary."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.split = layers.TextVectorization(vocabulary=["one", "two"], output_sequence_length=4)

    def call(self, text):
        return super().call(self.split(text))


@registered
class FixedBatch(Tied):
    """A call that needs the number of its rows."""

    def call(self, x, training=False):
        return super().call(x + keras.ops.reshape(keras.ops.arange(2.0), (2, 1)))


def spec(*shape, dtype="float32"):
    return keras.InputSpec(shape=shape, dtype=dtype)


def called(model, *inputs):
    model(*inputs)
    return model


X, IDS, TEXT = noise(2, 6), np.array([[1, 2, 8]], "int32"), np.array([["two one"], ["six"]])
CASES = {  # what was called -> input_signature, the names that clients see
    "one tensor": (Tied, (X,), None, ["x"], ["outputs"]),
    "list": (Pair, ([X, X + 1],), None, ["inputs_0", "inputs_1"], ["outputs_0", "outputs_1"]),
    "tuple": (Pair, ((X, X + 1),), None, ["inputs_0", "inputs_1"], ["outputs_0", "outputs_1"]),
    "dict": (PairInDict, ({"a": X, "b": X + 1},), None, ["a", "b"], ["deep_right", "left"]),
    "arguments": (PairOfArguments, (X, X + 1), None, ["first", "second"], ["outputs"]),
    "whole numbers": (Words, (IDS,), [spec(None, 3, dtype="int32")], ["ids"], ["outputs"]),
    "strings": (Text, (TEXT,), [spec(None, 1, dtype="string")], ["text"], ["outputs"]),
    "fixed batch": (FixedBatch, (X,), [spec(2, 6)], ["x"], ["outputs"]),
}
FOLDER = os.path.dirname(__file__)
CLIENT = """
import sys, json, numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
inputs = {k: tf.constant(v) for k, v in np.load(sys.argv[2], allow_pickle=True).items()}
answers = model.signatures["serving_default"](**inputs)
print(json.dumps([{k: v.numpy().tolist() for k, v in answers.items()},
                  len(model.trainable_variables), "keras_shared" in sys.modules]))
"""


def flat(outputs):
    return [np.asarray(value) for value in keras.tree.flatten(outputs)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*takes exactly 2 rows")
@pytest.mark.parametrize("case", CASES)
def test_published_served_trained_and_loaded(case, tmp_path):
    kind, inputs, signature, names, outputs = CASES[case]
    model = called(kind(name="net"), *inputs)
    for weight in model.weights:
        weight.assign(noise(*weight.shape))
    before = [v.path for v in model.variables]
    version = keras_shared.publish(model, tmp_path / "net", input_signature=signature)
    assert [v.path for v in model.variables] == before
    wanted = flat(model(*inputs))

    given = dict(zip(names, map(np.asarray, keras.tree.flatten(list(inputs))), strict=True))
    given = {k: v.astype("S") if v.dtype.kind == "U" else v for k, v in given.items()}
    with in_session(version) as (session, served):
        answers = run(session, served["serving_default"], given)
    for name, value in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(answers[name], value, atol=1e-5)
    assert not [f for f in check(version) if f.severity == "error"]

    plain = tf.saved_model.load(str(version))
    structure = inputs[0] if len(inputs) == 1 else dict(zip(names, inputs, strict=True))
    structure = keras.tree.map_structure(tf.constant, structure)
    for answer, value in zip(flat(plain(structure)), wanted, strict=True):
        np.testing.assert_allclose(answer, value, atol=1e-5)
    assert len(plain.trainable_variables) == len(model.trainable_variables)  # each weight once

    again = keras_shared.load(version)
    assert type(again) is kind
    for answer, value in zip(flat(again(*inputs)), wanted, strict=True):
        np.testing.assert_allclose(answer, value, atol=1e-6)
    readers = readers_of(again)
    assert readers and all(r.source() in again._flatten_layers() for r in readers)
    fresh = keras_shared.load(version)  # which was not called yet
    keras_shared.export(fresh, tmp_path / "again", input_signature=signature)


@pytest.mark.slow
def test_a_client_with_tensorflow_alone_in_a_fresh_process(tmp_path, fresh_python):
    kind, inputs, signature, *_ = CASES["strings"]
    model = called(kind(), *inputs)
    version = keras_shared.publish(model, tmp_path / "net", input_signature=signature)
    np.savez(tmp_path / "x.npz", text=TEXT.astype("S"))
    answers, trainable, with_ours = json.loads(
        fresh_python(CLIENT, version, tmp_path / "x.npz").splitlines()[-1]
    )
    np.testing.assert_allclose(answers["outputs"], model(TEXT), atol=1e-5)
    assert trainable == 2 and not with_ours


@pytest.mark.slow
def test_training_in_plain_tensorflow_drops_out_as_keras_does(tmp_path):
    model = called(Tied(), X)
    plain = tf.saved_model.load(str(keras_shared.publish(model, tmp_path / "net")))
    np.testing.assert_allclose(plain(X), plain(X, training=False))
    many = tf.ones((64, 6))
    assert np.abs(plain(many, training=True) - plain(many)).max() > 1e-3
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(plain(X, training=True) ** 2)
    gradients = tape.gradient(loss, plain.trainable_variables)
    assert len(gradients) == 3 and all(g is not None for g in gradients)


@pytest.mark.slow
def test_any_batch_although_one_was_recorded(tmp_path):
    path = keras_shared.export(called(Tied(), X), tmp_path / "net")
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert served.structured_input_signature[1]["x"].shape.as_list() == [None, 6]
    fixed = keras_shared.export(called(Tied(), X), tmp_path / "two", input_signature=[spec(2, 6)])
    served = tf.saved_model.load(str(fixed)).signatures["serving_default"]
    assert served.structured_input_signature[1]["x"].shape.as_list() == [2, 6]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_one_file_of_each_format(format, tmp_path):
    pytest.importorskip("tf2onnx")
    model = called(Tied(), X)
    path = tmp_path / {"onnx": "m.onnx", "litert": "m.tflite"}[format]
    if format == "litert":
        with pytest.warns(UserWarning, match="inward' 2 times"):
            keras_shared.export(model, path)
    else:
        keras_shared.export(model, path)  # compares with Keras
    assert path.stat().st_size > 100


@pytest.mark.slow
def test_the_policy_is_that_of_the_model(tmp_path):
    pytest.importorskip("tf2onnx")
    model, half = called(Tied(), X), called(Tied(dtype="bfloat16"), X)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        keras_shared.export(model, tmp_path / "m.onnx")
    finally:
        keras.config.set_dtype_policy(before)
    with pytest.raises(ValueError, match="computes in bfloat16"):
        keras_shared.export(half, tmp_path / "m.onnx")
    mixed = called(Tied(dtype="mixed_bfloat16"), X)
    plain = tf.saved_model.load(str(keras_shared.publish(mixed, tmp_path / "net")))
    np.testing.assert_allclose(plain(X), np.asarray(mixed(X), "float32"), atol=0.03)


@pytest.mark.slow
def test_what_is_shared_is_seen_after_loading(tmp_path, capsys):
    keras_shared.publish(called(Tied(), X), tmp_path / "net")
    report = sharing_report(keras_shared.load(tmp_path / "net"))
    kernel = next(w for w in report.weights if w.path.endswith("inward/kernel"))
    assert kernel.readers["outward"].form == "transposed" and kernel.uses == 2
    assert main(["inspect", str(tmp_path / "net")]) == 0
    assert "transposed" in capsys.readouterr().out
    keras_shared.publish(called(PairOfArguments(), X, X), tmp_path / "pair")
    report = sharing_report(keras_shared.load(tmp_path / "pair"))
    assert {w.uses for w in report.weights} == {2} and report.totals["ratio"] == 2


# === Where shapes and dtypes are not known, and what the messages advise ===


@pytest.mark.slow
def test_a_model_that_was_never_called(tmp_path):
    with pytest.raises(ValueError, match="known inputs.*was called.*Received: '.*input_signature"):
        keras_shared.publish(Tied(), tmp_path / "net")
    plain = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match="Put keras.Input.shape=.* before its first layer"):
        keras_shared.publish(plain, tmp_path / "net", input_signature=[spec(None, 6)])
    assert not list(tmp_path.iterdir())
    keras_shared.export(Tied(), tmp_path / "net", input_signature=[spec(None, 6)])
    built = keras.Sequential([keras.Input(shape=(6,), dtype="float32"), *plain.layers])
    keras_shared.publish(built, tmp_path / "built")  # what the message says


def test_several_arguments_of_which_keras_records_the_first(tmp_path):
    model = called(PairNotBuilt(), X, X)
    with pytest.raises(ValueError, match="second besides first, whose shapes.*input_signature"):
        keras_shared.export(model, tmp_path / "net")
    signature = [spec(None, 6), spec(None, 6)]
    path = keras_shared.export(model, tmp_path / "net", input_signature=signature)
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    answer = served(first=X, second=X + 1)["outputs"]
    np.testing.assert_allclose(answer, model(X, X + 1), atol=1e-5)
    with pytest.raises(PublishError, match=r"define `build\(self, first_shape, second_shape\)`"):
        keras_shared.publish(model, tmp_path / "base", input_signature=signature)
    # PairOfArguments and PairInDict are what it advises, see above


@pytest.mark.parametrize(("kind", "inputs"), [(Words, IDS), (Text, TEXT)])
def test_whole_numbers_and_strings_must_be_said(kind, inputs, tmp_path):
    model = called(kind(), inputs)
    named = "Embedding 'table'|TextVectorization 'text_vec.*'"
    with pytest.raises(
        ValueError, match=f"the ({named}), which takes whole numbers.*input_signature"
    ):
        keras_shared.publish(model, tmp_path / "net")


def test_a_signature_that_does_not_fit(tmp_path):
    model = called(Pair(), [X, X])
    with pytest.raises(ValueError, match="too many positional arguments.*one entry"):
        keras_shared.export(model, tmp_path / "net", input_signature=[spec(None, 6)] * 2)
    keras_shared.export(model, tmp_path / "net", input_signature=[[spec(None, 6)] * 2])
    with pytest.raises(ValueError, match="needs a shape and a dtype. Received: .*shape=.None, 6"):
        keras_shared.export(
            model, tmp_path / "net", input_signature=[keras.InputSpec(shape=(None, 6))]
        )
    with pytest.raises(ValueError, match="'x' has no batch"):
        keras_shared.export(Tied(), tmp_path / "net", input_signature=[spec()])
    inputs = keras.Input((6,))
    graph = keras.Model(inputs, layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match="are known already.*Received: input_signature="):
        keras_shared.publish(graph, tmp_path / "net", input_signature=[spec(None, 6)])


def test_a_call_that_needs_its_batch_says_so(tmp_path):
    class Rows(Tied):
        def call(self, x, training=False):
            return super().call(keras.ops.reshape(x, (2, 2, 3))[:, 0] @ np.ones((3, 6), "float32"))

    model = called(Rows(), X)
    keras_shared.export(model, tmp_path / "net", input_signature=[spec(2, 6)])


@pytest.mark.slow
def test_a_class_that_is_not_registered(tmp_path, fresh_python):
    class Unknown(Tied):
        pass

    with pytest.raises(PublishError, match="The class Unknown of 'unknown' is not registered: put"):
        keras_shared.publish(called(Unknown(), X), tmp_path / "net")
    keras_shared.export(called(Unknown(), X), tmp_path / "exported")  # needs no Keras file
    version = keras_shared.publish(called(Tied(), X), tmp_path / "net")
    refused, loaded = fresh_python(LOAD, version, FOLDER).splitlines()[-2:]
    assert "holds the class 'Tied' of test_subclassed, which is not registered" in refused
    assert "Import test_subclassed before the model is loaded" in refused  # and it is followed
    assert loaded == "Tied outward reads inward"


def test_a_class_of_a_script(tmp_path):
    class Scripted(Tied):
        __module__ = "__main__"

    called(Scripted(), X).save(tmp_path / "m.keras")
    with pytest.raises(LoadError, match="'Scripted' of a script or notebook.*Import a module that"):
        keras_shared.load(tmp_path / "m.keras")


LOAD = """
import sys, keras_shared
try:
    keras_shared.load(sys.argv[1])
except keras_shared.LoadError as error:
    print(error)
sys.path.append(sys.argv[2])
import test_subclassed
model = keras_shared.load(sys.argv[1])
print(type(model).__name__, model.outward.name, "reads", model.outward.source().name)
"""


def test_an_activity_regularizer_is_warned_of(tmp_path):
    @registered
    class Sparse(Tied):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inward = layers.Dense(3, name="inward", activity_regularizer="l1")
            self.outward = TiedDense(self.inward, name="outward")

    with pytest.warns(UserWarning, match="adds a loss on what it computes"):
        keras_shared.publish(called(Sparse(), X), tmp_path / "net")
