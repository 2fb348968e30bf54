"""Models written for other programs: the answers of Keras, and the shared weight once."""

import warnings

import numpy as np
from by_hand import array
from topologies import EMBEDDINGS, depthwise, expected, owner_of, tolerance

import keras_shared


def compare(answers, topology, model, x):
    wanted = expected(topology, model, x)
    atol = tolerance(model) * np.abs(wanted).max()
    np.testing.assert_allclose(answers, wanted, rtol=0, atol=atol)


def onnx(topology, model, x, folder):
    """One initializer; when it changes in the file, all uses follow. Or a word on the second."""
    import onnx
    import onnxruntime

    def run():
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        return session.run(None, {session.get_inputs()[0].name: x})[0]

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        proto = onnx.load(keras_shared.export(model, folder / "m.onnx", format="onnx"))
    compare(run(), topology, model, x)
    if topology is depthwise:  # its adjoint reads the kernel turned around, which is folded
        assert any("more than once, turned around" in str(w.message) for w in said)
        return "said"
    owner = owner_of(model)
    weight = owner.embeddings if topology in EMBEDDINGS else owner.kernel
    held = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    sizes = [name for name, value in held.items() if value.size == array(weight).size]
    assert len(sizes) == 1
    (kept,) = (t for t in proto.graph.initializer if t.name == sizes[0])
    kept.CopyFrom(onnx.numpy_helper.from_array(held[kept.name] * np.float32(1.5), kept.name))
    weight.assign(array(weight) * 1.5)
    compare(run(), topology, model, x)
    return "ok"


def litert(topology, model, x, folder):
    """The answers of Keras. A warning names what is stored twice, see tests/exporting."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = keras_shared.export(model, folder / "m.tflite", format="litert")
        runner = tf.lite.Interpreter(str(path)).get_signature_runner()
    (answers,) = runner(**dict.fromkeys(runner.get_input_details(), x)).values()
    compare(answers, topology, model, x)


EXPORTS = (onnx, litert)
