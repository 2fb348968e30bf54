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
