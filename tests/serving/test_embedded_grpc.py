"""What the embedded engine answers over gRPC."""

import re
import sys

import grpc
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

sys.path.insert(0, __file__.rpartition("/")[0])
from embedded_server import serving

from keras_shared.serving.embedded.grpc_service import _tensor
from keras_shared.serving.session import array_of
from saved_models import everything


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="module")
def server(folder):
    with serving({"m": folder}, {"m": {"version_labels": {"stable": 1}}}) as server:
        yield server


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(name="m", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for key, value in (inputs or {"x": np.array([[1, 2]], "float32")}).items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def refused(call, request, code, message):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    assert caught.value.code() is grpc.StatusCode[code], caught.value
    assert message in caught.value.details()


def test_predict(stub):
    request = predict_request()
    request.model_spec.version_label = "stable"
    response = stub.Predict(request)
    assert [*response.outputs["y"].float_val] == [2.0, 4.0]
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"
    request = predict_request(x=np.float32([1, 2]))
    request.model_spec.signature_name = "check"
    request.output_filter.append("z_bytes")
    response = stub.Predict(request)
    assert [*response.outputs] == ["z_bytes"]
    assert [*response.outputs["z_bytes"].string_val] == [b"1.000000", b"2.000000"]


def test_errors(stub):
    refused(stub.Predict, predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec")
    refused(stub.Predict, predict_request(name=""), "INVALID_ARGUMENT", "no name specified")
    refused(stub.Predict, predict_request(name="n"), "NOT_FOUND",
            "Servable not found for request: Latest(n)")  # fmt: skip
    request = predict_request()
    request.model_spec.version.value = 5
    refused(stub.Predict, request, "NOT_FOUND", "Specific(m, 5)")
    request = predict_request()
    request.model_spec.version_label = "L"
    refused(stub.Predict, request, "INVALID_ARGUMENT", "Unrecognized servable version label: L")
    request = predict_request()
    request.model_spec.signature_name = "s"
    message = 'Serving signature key "s" not found.'
    refused(stub.Predict, request, "FAILED_PRECONDITION", message)
    message = (
        "input size does not match signature: 2!=1 len({a,x}) != len({x}). Sent extra: {a}. "
        "Missing but required: {}."
    )
    x = np.zeros((1, 2), "float32")
    refused(stub.Predict, predict_request(a=x, x=x), "INVALID_ARGUMENT", message)
    refused(stub.Predict, predict_request(z=x), "INVALID_ARGUMENT", "alias not found in signature")
    message = "Expects arg[0] to be float but double is provided"
    refused(stub.Predict, predict_request(x=np.zeros((1, 2))), "INVALID_ARGUMENT", message)
    request = predict_request()
    request.output_filter.extend(["y", "y"])
    refused(stub.Predict, request, "INVALID_ARGUMENT", "duplicate output tensor alias: y")
    request.output_filter[:] = ["q"]
    message = "output tensor alias not found in signature: q"
    refused(stub.Predict, request, "INVALID_ARGUMENT", message)
    request = predict_request(x=np.float32([9]))
    request.model_spec.signature_name = "check"
    refused(stub.Predict, request, "INVALID_ARGUMENT", "too large")


def test_a_dense_output_beside_a_sparse_one(stub):
    request = predict_request()
    request.model_spec.signature_name = "partly"
    refused(stub.Predict, request, "INVALID_ARGUMENT", "'words' of the signature 'partly' is not")
    request.output_filter.append("y")
    assert tf.make_ndarray(stub.Predict(request, timeout=30).outputs["y"]).tolist() == [[2, 4]]
    request.output_filter.append("words")
    refused(stub.Predict, request, "INVALID_ARGUMENT", "'words' of the signature 'partly' is not")


def test_a_deadline_is_kept(stub):
    large = predict_request(x=np.zeros((200_000, 2), "float32"))  # gRPC makes a millisecond of 0
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(large, timeout=0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def example(*values):
    made = tf.train.Example()
    made.features.feature["v"].float_list.value.extend(values)
    return made


def test_classify_regress_and_both(stub):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "classify"
    request.input.example_list.examples.append(example(1, 2))
    response = stub.Classify(request)
    [classes] = response.result.classifications
    assert [(one.label, one.score) for one in classes.classes] == [("a", 2.0), ("b", 4.0)]
    assert response.model_spec.version.value == 1
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "regress"
    request.input.example_list_with_context.context.CopyFrom(example(1, 2))
    request.input.example_list_with_context.examples.extend([tf.train.Example()] * 2)
    assert [r.value for r in stub.Regress(request).result.regressions] == [3.0, 3.0]
    refused(stub.Regress, regression_pb2.RegressionRequest(), "INVALID_ARGUMENT", "ModelSpec")
    request.input.Clear()
    refused(stub.Regress, request, "INVALID_ARGUMENT", "Input is empty.")
    request = inference_pb2.MultiInferenceRequest()
    request.input.example_list.examples.append(example(1, 2))
    for name in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{name}")
        task.model_spec.name, task.model_spec.signature_name = "m", name
    message = "Input tensor must be the same for all Signatures."
    refused(stub.MultiInference, request, "INVALID_ARGUMENT", message)
    del request.tasks[0]
    [result] = stub.MultiInference(request).results
    assert [r.value for r in result.regression_result.regressions] == [3.0]
    assert result.model_spec.signature_name == "regress"
    request.tasks.add().CopyFrom(request.tasks[0])
    message = "Duplicate evaluation of signature: regress"
    refused(stub.MultiInference, request, "INVALID_ARGUMENT", message)


def test_metadata_and_status(stub, server):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "m"
    refused(stub.GetModelMetadata, request, "INVALID_ARGUMENT", "at least one metadata_field")
    request.metadata_field.append("signature_def")
    response = stub.GetModelMetadata(request)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert found.signature_def["serving_default"].inputs["x"].dtype == 1
    with grpc.insecure_channel(server.grpc) as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        asked = get_model_status_pb2.GetModelStatusRequest()
        refused(models.GetModelStatus, asked, "INVALID_ARGUMENT", "Missing ModelSpec")
        asked.model_spec.name = "m"
        [entry] = models.GetModelStatus(asked).model_version_status
        assert entry.version == 1 and entry.state == 30
        asked.model_spec.name = "n"
        message = "Could not find any versions of model n"
        refused(models.GetModelStatus, asked, "NOT_FOUND", message)


@pytest.mark.slow
def test_the_config_is_replaced_as_a_whole(folder):
    with serving({"m": folder}) as server, grpc.insecure_channel(server.grpc) as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        request = model_management_pb2.ReloadConfigRequest()
        refused(models.HandleReloadConfigRequest, request, "INVALID_ARGUMENT", "ModelConfigList")
        new = request.config.model_config_list.config.add(name="new", base_path=str(folder))
        assert models.HandleReloadConfigRequest(request).status.error_code == 0
        assert server.predict("new", {"instances": [[1, 2]]})[0] == 200
        status, found = server.predict("m", {"instances": [[1, 2]]})
        while status == 200:  # it ends when its thread looks again
            status, found = server.predict("m", {"instances": [[1, 2]]})
        assert (status, found) == (404, {"error": "Servable not found for request: Latest(m)"})
        for change, message in (
            ({"base_path": "relative"}, "Expected an absolute path"),
            ({"name": ""}, "a name of its own"),
            ({"version_labels": {"x": 9}}, "names version 9, which is not available"),
        ):
            changed = type(new)(**{"name": "new", "base_path": str(folder), **change})
            request.config.model_config_list.config[0].CopyFrom(changed)
            refused(models.HandleReloadConfigRequest, request, "INVALID_ARGUMENT", message)


@pytest.mark.parametrize(
    "dtype",
    ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16",
     "uint32", "uint64", "bool", "complex64", "complex128", ml_dtypes.bfloat16],
)  # fmt: skip
def test_typed_fields_hold_every_dtype(dtype):
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    proto = _tensor(array)
    assert not proto.tensor_content
    back = tf.make_ndarray(proto)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(array_of("x", proto, 10**6), array)


def test_a_few_bytes_that_stand_for_many(stub):
    request = predict_request()
    request.inputs["x"].CopyFrom(tensor_pb2.TensorProto(dtype=1, float_val=[0.0]))
    request.inputs["x"].tensor_shape.dim.add(size=2**40)
    message = "tensor parsing error: x: ValueError: the tensor of shape [1099511627776] has 4,3"
    refused(stub.Predict, request, "INVALID_ARGUMENT", message)
    request.inputs["x"].tensor_shape.dim[0].size = -1
    refused(stub.Predict, request, "INVALID_ARGUMENT", "the tensor of shape [-1] has")
    request.inputs["x"].CopyFrom(tensor_pb2.TensorProto(dtype=1, tensor_content=b"123"))
    request.inputs["x"].tensor_shape.dim.add(size=2)
    message = "the tensor of shape [2] has 3 bytes, and takes 8"
    refused(
        stub.Predict, request, "INVALID_ARGUMENT", f"tensor parsing error: x: ValueError: {message}"
    )


@pytest.mark.parametrize(
    ("dtype", "held"),
    [("float32", {"float_val": [1.0] * 5}), ("int64", {"int64_val": [1] * 5}),
     ("string", {"string_val": [b"a"] * 5}), ("bfloat16", {"half_val": [0] * 5}),
     ("complex64", {"scomplex_val": [1.0] * 10}), ("bool", {"bool_val": [True] * 5})],
)  # fmt: skip
def test_more_values_than_places(dtype, held):
    kind = tf.as_dtype(dtype).as_datatype_enum
    for sizes, places in (([4], 4), ([2, 2], 4), ([0, 3], 0), ([], 1)):
        proto = tensor_pb2.TensorProto(dtype=kind, **held)
        for size in sizes:
            proto.tensor_shape.dim.add(size=size)
        said = re.escape(f"the tensor of shape {sizes} has 5 values, and takes {places}")
        with pytest.raises(ValueError, match=said):
            array_of("the tensor", proto, 10**6)
    proto = tensor_pb2.TensorProto(dtype=kind, **held)
    for fewer in (5, 7):
        del proto.tensor_shape.dim[:]
        proto.tensor_shape.dim.add(size=fewer)
        assert array_of("the tensor", proto, 10**6).shape == (fewer,)
