"""Predict, Classify, Regress and MultiInference: what REST and gRPC have in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_shared.serving.embedded.batching import Arrays
from keras_shared.serving.embedded.metrics import EXAMPLE_COUNT, EXAMPLE_COUNTS
from keras_shared.serving.embedded.refusal import Refused, invalid
from keras_shared.serving.embedded.servable import Servable

DEFAULT = "serving_default"
METHODS = {f"tensorflow/serving/{verb}": verb for verb in ("classify", "regress")}
NOUNS = {"classify": "classification", "regress": "regression"}


def predict(
    servable: Servable, signature: str, inputs: Arrays, outputs: Sequence[str], deadline: float
) -> Arrays:
    """The outputs of a signature, all or those named."""
    definition = servable.signatures[signature]
    needed, sent = {*definition.inputs}, {*inputs}
    if len(sent) > len(needed) or (len(sent) < len(needed) and not definition.defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(needed)} "
            f"len({_set(sent)}) != len({_set(needed)}). Sent extra: {_set(sent - needed)}. "
            f"Missing but required: {_set(needed - sent)}."
        )
    for name in sorted((sent - needed) | (needed - sent - {*definition.defaults})):
        raise invalid(
            f"input tensor alias not found in signature: {name}. Inputs expected to be in the set "
            f"{_set(needed)}."
        )
    for number, name in enumerate(outputs):
        if name not in definition.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the "
                f"set {_set(definition.outputs)}."
            )
        if name in outputs[:number]:
            raise invalid(f"duplicate output tensor alias: {name}")
    asked = {name: definition.outputs[name] for name in outputs} or definition.outputs
    for name, info in (*definition.inputs.items(), *asked.items()):
        if not info.name:
            raise invalid(f"'{name}' of the signature '{signature}' is not a dense tensor")
    return servable.run(signature, inputs, deadline, outputs)


def infer(servable: Servable, verb: str, name: str, given: Any, deadline: float) -> Any:
    """The ClassificationResult or RegressionResult for the examples of an Input."""
    if name not in servable.signatures:
        raise invalid(f"No signature was found with the name: {name}")
    wanted = _examined(servable.signatures[name], verb)
    rows = _rows(servable, given)
    found = servable.run(name, {"inputs": rows}, deadline, wanted, verb.capitalize())
    return (_classification if verb == "classify" else _regression)(found, len(rows))


def multi_inference(servable: Servable, request: Any, deadline: float) -> Any:
    """A MultiInferenceResponse: several signatures for the same examples."""
    from tensorflow_serving.apis import inference_pb2

    names, tensors = list[str](), set[str]()
    for task in request.tasks:
        if task.model_spec.name != servable.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        names.append(task.model_spec.signature_name or DEFAULT)
        if names[-1] in names[:-1]:
            raise invalid(f"Duplicate evaluation of signature: {names[-1]}")
        if names[-1] not in servable.signatures:
            raise invalid(f"Requested signature not found in model graph: {names[-1]}")
        if task.method_name not in METHODS:
            raise Refused("UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}")
        _examined(servable.signatures[names[-1]], METHODS[task.method_name])
        tensors.add(servable.signatures[names[-1]].inputs["inputs"].name)
        if len(tensors) > 1:
            raise invalid("Input tensor must be the same for all Signatures.")
    response = inference_pb2.MultiInferenceResponse()
    for task, name in zip(request.tasks, names, strict=True):
        result, verb = response.results.add(), METHODS[task.method_name]
        result.model_spec.name, result.model_spec.signature_name = servable.name, name
        result.model_spec.version.value = servable.number
        found = infer(servable, verb, name, request.input, deadline)
        getattr(result, f"{NOUNS[verb]}_result").CopyFrom(found)
    return response


def _set(names: Any) -> str:
    return f"{{{','.join(sorted(names))}}}"


def _examined(definition: Any, verb: str) -> list[str]:
    """The outputs that a signature to classify or to regress has."""
    noun = NOUNS[verb]
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    count = len(definition.outputs)
    if verb == "regress" and count != 1:
        raise invalid("Expected one output Tensor.")
    if count not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {count}")
    known = ("outputs",) if verb == "regress" else ("classes", "scores")
    wanted = [name for name in known if name in definition.outputs]
    if "inputs" not in definition.inputs or not wanted:
        side = "outputs" if "inputs" in definition.inputs else "inputs"
        raise Refused(
            "FAILED_PRECONDITION", f"No {noun} {side} found in SignatureDef: {definition}"
        )
    return wanted


def _rows(servable: Servable, given: Any) -> np.ndarray:
    """The examples as bytes, each after the context that all have in common."""
    kind = given.WhichOneof("kind")
    filled: Any = getattr(given, kind) if kind else None
    context = filled.context.SerializeToString() if kind == "example_list_with_context" else b""
    rows = [context + example.SerializeToString() for example in filled.examples] if filled else []
    if not rows:
        raise invalid("Input is empty.")
    EXAMPLE_COUNT.add(len(rows), model=servable.name)
    EXAMPLE_COUNTS.add(len(rows), model=servable.name)
    return np.array(rows, object)


def _shape(array: np.ndarray) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _classification(found: Arrays, rows: int) -> Any:
    from tensorflow_serving.apis import classification_pb2

    for name, kind in (("classes", "object"), ("scores", "float32")):
        array = found.get(name, np.zeros((rows, 0), kind))
        if array.ndim != 2:
            raise invalid(
                f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}"
            )
        if array.dtype != kind:
            expected = "DT_STRING" if name == "classes" else "DT_FLOAT"
            raise invalid(f"Expected {name} Tensor of {expected}. Got: {array.dtype}")
        if len(array) != rows:
            raise invalid(f"Expected {name} output batch size of {rows}. Got: {len(array)}")
    width, *others = {array.shape[1] for array in found.values()}
    if others:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {width} vs. {others[0]}"
        )
    labels = found.get("classes", np.full((rows, width), b"", object))
    scores = found.get("scores", np.zeros((rows, width), "float32"))
    result = classification_pb2.ClassificationResult()
    for row in zip(labels, scores, strict=True):
        classes = (classification_pb2.Class(label=la, score=s) for la, s in zip(*row, strict=True))
        result.classifications.add(classes=classes)
    return result


def _regression(found: Arrays, rows: int) -> Any:
    from tensorflow_serving.apis import regression_pb2

    array = found["outputs"]
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shape(array)}"
        )
    if len(array) != rows:
        raise invalid(f"Input batch size did not match output batch size: {rows} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {array.dtype}")
    result = regression_pb2.RegressionResult()
    result.regressions.extend(regression_pb2.Regression(value=value) for value in array.ravel())
    return result
