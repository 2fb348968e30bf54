from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.errors import boundary
from keras_shared.exporting.advice import OTHERWISE, advice
from keras_shared.exporting.checks import check_answers
from keras_shared.exporting.copies import layouts, tied_weights
from keras_shared.exporting.onnx_operations import as_tensorflow, erfc, expm1
from keras_shared.exporting.signatures import function_of, signatures_of
from keras_shared.lookup import needed
from keras_shared.tying import readers_of


def onnx_model(model: keras.Model, name: str) -> tuple[bytes, str]:
    """The signature `name` of `model` as the bytes of an ONNX file, and what is stored twice.

    tf2onnx folds the transpose of a constant into a second constant. Here the second one gives
    way to a `Transpose` of the first.

    Args:
        model: see `signatures_of`.
        name: one of its signatures.

    Returns:
        The file's bytes, and a text that names what is stored twice: quantised sources, of which
        the converter stores what a reader reads as floats beside the codes, and kernels that are
        read turned around. An empty one if there is none.

    Raises:
        ImportError: if tf2onnx, onnx or onnxruntime is not installed.
        ValueError: if the model uses what ONNX does not have, or if ONNX Runtime gives
            other outputs than Keras.
    """
    onnx, onnxruntime, tf2onnx = needed("onnx", "onnx", "onnxruntime", "tf2onnx")
    signature = signatures_of(model)[name]
    function = function_of(signature)
    captures = function.get_concrete_function().graph.captures
    otherwise = advice(model, "The converter to ONNX", {"float8": "quantise the model to int8"})
    kept = f"{otherwise} Nothing was kept."
    with boundary(f"tf2onnx cannot convert '{model.name}'", ValueError, kept):
        converted, _ = tf2onnx.convert.from_function(
            function,
            function.input_signature,
            custom_op_handlers={"Erfc": (erfc, []), "Expm1": (expm1, [])},
            custom_rewriter=[as_tensorflow],
        )
    _hold_captured(converted.graph, captures)
    unknown = {
        node.op_type
        for node in converted.graph.node
        if not node.domain and not onnx.defs.has(node.op_type)
    }
    if unknown:
        otherwise = OTHERWISE
        if "ScaleAndTranslate" in unknown:
            otherwise = (
                "Image resizing with antialias gives ScaleAndTranslate: resize before the model."
            )
        raise ValueError(
            f"ONNX has no counterpart to {sorted(unknown)} in '{model.name}'. {otherwise} Nothing "
            "was kept."
        )
    again = []
    for owner, weight in tied_weights(model).items():
        _share(converted.graph, weight, owner)
        if _times(converted.graph, weight) > 1:
            again.append(owner)
    with boundary(f"ONNX Runtime cannot run '{model.name}'", ValueError, kept):
        content = converted.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def answer(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, inputs), strict=True))

    otherwise = check_answers(model, name, signature, answer, "ONNX")
    quantized = sorted({r.source().path for r in readers_of(model) if r.source().quantization_mode})
    doubled = (
        f"ONNX holds the codes of {', '.join(quantized)}, and beside them the floats that their "
        "readers read: the converter dequantises them once and for all. Answers are those of Keras."
    )
    turned = (
        f"ONNX holds the weight of {', '.join(again)} more than once, turned around or in another "
        "shape for what reads it. Answers are those of Keras."
    )
    said = [text for text, which in ((doubled, quantized), (turned, again)) if which]
    return content, " ".join([*said, otherwise]).strip()


def _hold_captured(graph: Any, captures: Any) -> None:
    """What a function captured is a constant: tf2onnx makes an input of it, as of its arguments."""
    import onnx

    values = {inner.name: value for value, inner in captures if inner.dtype != tf.resource}
    read = set(_read(graph))
    for given in [given for given in graph.input if given.name in values]:
        graph.input.remove(given)
        if given.name in read:
            value = np.asarray(values[given.name])  # of one string, `numpy()` would give bytes
            graph.initializer.append(onnx.numpy_helper.from_array(value, given.name))


def _read(graph: Any) -> Iterator[str]:
    """The names that nodes read, those of loops and branches too."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _read(inner)


def _times(graph: Any, weight: np.ndarray) -> int:
    """How many initializers hold the numbers of `weight`, in any order."""
    import onnx

    wanted = np.sort(weight, axis=None)
    if len(wanted) < 2 or wanted[0] == wanted[-1]:
        return 0  # one number tells nothing
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    return sum(
        a.size == weight.size and np.array_equal(np.sort(a, axis=None), wanted) for a in arrays
    )


def _share(graph: Any, weight: np.ndarray, owner: str) -> None:
    """Leave one of the initializers that hold `weight`, in any layout."""
    import onnx

    first = None  # name of the initializer that stays, and its layout
    for tensor in list(graph.initializer):
        held = onnx.numpy_helper.to_array(tensor)
        axes = next((a for a, w in layouts(weight) if np.array_equal(w, held)), None)
        if axes is None:
            continue
        if first is None:
            first = tensor.name, axes
            continue
        turn = [first[1].index(axis) for axis in axes]  # from the layout that stays to this one
        graph.initializer.remove(tensor)
        node = onnx.helper.make_node(
            "Transpose", [first[0]], [tensor.name], f"{owner}/tied/{tensor.name}", perm=turn
        )
        graph.node.insert(0, node)
