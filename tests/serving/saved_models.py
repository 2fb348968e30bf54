"""SavedModels with one property each, written by TensorFlow."""

import pathlib

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

X = tf.TensorSpec((None, 3), "float32", name="x")


class Weights(tf.Module):
    def __init__(self):
        self.kernel = tf.Variable(np.ones((3, 2), "float32"))


def write(folder, call, *specs, name="serving_default"):
    """`call(kernel, **inputs)` as a signature of a SavedModel in `folder`."""
    module = Weights()
    module.answer = tf.function(
        lambda **inputs: call(module.kernel, **inputs), autograph=False
    ).get_concrete_function(**{spec.name: spec for spec in specs or (X,)})
    tf.saved_model.save(module, str(folder), {name: module.answer})
    return pathlib.Path(folder)


def product(kernel, x):
    return {"y": x @ kernel}


def of_tensorflow_1(folder, build, start=None):
    """What `build()` makes of placeholders, ({name: input}, {name: output}), and an init op."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        inputs, outputs = build()
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        v1.saved_model.simple_save(
            session, str(folder), inputs, outputs, legacy_init_op=start and start()
        )
    return folder


def edited(folder, edit):
    """`edit(graph)` of the one MetaGraph of a folder."""
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    edit(model.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    return folder


class Everything(tf.Module):
    """Signatures of every kind."""

    def __init__(self):
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 2), "float32", name="x")])
    def double(self, x):
        return {"y": x * self.factor}

    @tf.function(input_signature=[tf.TensorSpec((None,), "string", name="inputs")])
    def classify(self, inputs):
        parsed = tf.io.parse_example(inputs, {"v": tf.io.FixedLenFeature((2,), tf.float32)})
        labels = tf.tile([["a", "b"]], [tf.shape(inputs)[0], 1])
        return {"classes": labels, "scores": parsed["v"] * self.factor}

    @tf.function(input_signature=[tf.TensorSpec((None,), "string", name="inputs")])
    def regress(self, inputs):
        parsed = tf.io.parse_example(inputs, {"v": tf.io.FixedLenFeature((2,), tf.float32)})
        return {"outputs": tf.reduce_sum(parsed["v"], 1, keepdims=True)}

    @tf.function(input_signature=[tf.TensorSpec((None,), "float32", name="x")])
    def check(self, x):
        with tf.control_dependencies([tf.debugging.assert_less(x, 5.0, "too large")]):
            return {"y": tf.identity(x), "z_bytes": tf.as_string(x)}

    @tf.function(input_signature=[tf.TensorSpec((), "string", name="x")])
    def text(self, x):
        return {"y": x}


def _methods(graph):
    for name in ("classify", "regress"):
        graph.signature_def[name].method_name = f"tensorflow/serving/{name}"
    graph.signature_def["wide"].CopyFrom(graph.signature_def["classify"])
    graph.signature_def["wide"].method_name = "tensorflow/serving/regress"
    graph.signature_def["odd"].CopyFrom(graph.signature_def["serving_default"])
    graph.signature_def["odd"].outputs["y"].coo_sparse.values_tensor_name = "y:0"
    partly = graph.signature_def["partly"]
    partly.CopyFrom(graph.signature_def["serving_default"])
    partly.outputs["words"].CopyFrom(graph.signature_def["odd"].outputs["y"])


def everything(base):
    """Version 1 of a model that classifies, regresses, and more."""
    module = Everything()
    signatures = {name: getattr(module, name) for name in ("classify", "regress", "check", "text")}
    tf.saved_model.save(module, str(base / "1"), {"serving_default": module.double, **signatures})
    edited(base / "1", _methods)
    return base
