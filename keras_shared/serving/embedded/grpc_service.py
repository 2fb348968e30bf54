"""TF Serving's gRPC interface, by the stubs of tensorflow-serving-api."""

import concurrent.futures
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from keras_shared.errors import boundary
from keras_shared.serving.embedded.inference import DEFAULT, infer, multi_inference, predict
from keras_shared.serving.embedded.models import Models, say
from keras_shared.serving.embedded.options import Options
from keras_shared.serving.embedded.refusal import Refused, check_bearer, invalid, refusal_of
from keras_shared.serving.embedded.rest import THREADS, counted, status_response
from keras_shared.serving.session import array_of

MOST_TEXT = 1024  # bytes of an error
NO_DEADLINE = 86_400.0  # seconds for a request that names none
FIELDS = {"float32": "float_val", "float64": "double_val", "int64": "int64_val",
          "bool": "bool_val", "uint32": "uint32_val", "uint64": "uint64_val",
          "float16": "half_val", "bfloat16": "half_val", "complex64": "scomplex_val",
          "complex128": "dcomplex_val", "object": "string_val"}  # fmt: skip
PARTS = {"float16": "uint16", "bfloat16": "uint16", "complex64": "float32",
         "complex128": "float64"}  # fmt: skip


def grpc_server(
    models: Models, options: Options, bearer: bytes, address: str, pair: tuple[bytes, bytes] | None
) -> tuple[grpc.Server, int]:
    """A server that is not started yet, and its port."""
    settings = [
        ("grpc.max_receive_message_length", options.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a port that is taken is an error
    ]
    pool = concurrent.futures.ThreadPoolExecutor(THREADS, "grpc")
    most = options.max_requests
    server = grpc.server(pool, options=settings, maximum_concurrent_rpcs=most)
    service = _Service(models, 4 * options.max_request_bytes, bearer)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    if pair is None:
        return server, server.add_insecure_port(address)
    return server, server.add_secure_port(address, grpc.ssl_server_credentials([pair]))


class _Service(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, models: Models, most: int, bearer: bytes) -> None:
        self._models, self._most, self._bearer = models, most, bearer

    def _predict(self, servable: Any, name: str, request: Any, deadline: float) -> Any:
        if name not in servable.signatures:
            raise Refused("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        inputs = {key: _array(key, one, self._most) for key, one in request.inputs.items()}
        found = predict(servable, name, inputs, [*request.output_filter], deadline)
        return predict_pb2.PredictResponse(outputs={k: _tensor(a) for k, a in found.items()})

    def _classify(self, servable: Any, name: str, request: Any, deadline: float) -> Any:
        result = infer(servable, "classify", name, request.input, deadline)
        return classification_pb2.ClassificationResponse(result=result)

    def _regress(self, servable: Any, name: str, request: Any, deadline: float) -> Any:
        result = infer(servable, "regress", name, request.input, deadline)
        return regression_pb2.RegressionResponse(result=result)

    def _multi_inference(self, servable: Any, _: str, request: Any, deadline: float) -> Any:
        return multi_inference(servable, request, deadline)

    def _metadata(self, servable: Any, _: str, request: Any, __: float) -> Any:
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _status(self, request: Any) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        return status_response(self._models.states(spec.name, _version(spec)))

    def _reload(self, request: Any, deadline: float) -> Any:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                "ModelConfigList is currently supported"
            )
        configs = [*request.config.model_config_list.config]
        self._models.configure(configs, deadline - time.monotonic())
        return model_management_pb2.ReloadConfigResponse()

    _asking: Mapping[str, Callable[..., Any]] = {
        "Predict": _predict, "Classify": _classify, "Regress": _regress,
        "MultiInference": _multi_inference, "GetModelMetadata": _metadata,
    }  # fmt: skip

    def _asked(self, api: str, request: Any, deadline: float) -> Any:
        """An answer by a version of the model that a request names."""
        tasks = request.tasks if api == "MultiInference" else [request]
        if not (tasks and tasks[0].HasField("model_spec")):
            raise invalid("Missing ModelSpec")
        spec = tasks[0].model_spec
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        with (
            counted(self._models, spec.name, api, "GRPC"),
            self._models.use(spec.name, _version(spec), spec.version_label) as servable,
        ):
            name = spec.signature_name or DEFAULT
            response = self._asking[api](self, servable, name, request, deadline)
            if api != "MultiInference":
                response.model_spec.name = servable.name
                response.model_spec.version.value = servable.number
            if api not in ("MultiInference", "GetModelMetadata"):
                response.model_spec.signature_name = name
            return response

    def _answered(self, api: str, request: Any, context: Any) -> Any:
        begun, left = time.monotonic(), context.time_remaining()
        response, refused = None, Refused("OK", "")
        try:
            given = dict(context.invocation_metadata()).get("authorization", "")
            check_bearer(str(given).encode(), self._bearer)
            deadline = begun + min(NO_DEADLINE if left is None else left, NO_DEADLINE)
            if api == "GetModelStatus":
                response = self._status(request)
            elif api == "HandleReloadConfigRequest":
                response = self._reload(request, deadline)
            else:
                response = self._asked(api, request, deadline)
        except Exception as error:
            refused = refusal_of(error)
        took = 1000 * (time.monotonic() - begun)
        spec = (*getattr(request, "tasks", ()), request)[0]
        name = spec.model_spec.name[:500] if hasattr(spec, "model_spec") else ""
        say(f"gRPC {refused.code} {api} {name} {took:.1f} ms {context.peer()}")
        if refused.code == "OK":
            return response
        text = refused.message.encode("utf-8", "replace").decode()
        more = "...TRUNCATED" if len(text) > MOST_TEXT else ""
        return context.abort(grpc.StatusCode[refused.code], text[:MOST_TEXT] + more)

    Predict = functools.partialmethod(_answered, "Predict")
    Classify = functools.partialmethod(_answered, "Classify")
    Regress = functools.partialmethod(_answered, "Regress")
    MultiInference = functools.partialmethod(_answered, "MultiInference")
    GetModelMetadata = functools.partialmethod(_answered, "GetModelMetadata")
    GetModelStatus = functools.partialmethod(_answered, "GetModelStatus")
    HandleReloadConfigRequest = functools.partialmethod(_answered, "HandleReloadConfigRequest")


def _version(spec: Any) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def _array(key: str, value: Any, most: int) -> np.ndarray:
    with boundary(f"tensor parsing error: {key}", invalid):
        return array_of("the tensor", value, most)


def _tensor(array: np.ndarray) -> Any:
    """An array in the typed fields of a message, as TF Serving writes it."""
    name, flat = array.dtype.name, array.ravel()
    dtype = tf.string if name == "object" else tf.as_dtype(array.dtype)
    proto = tensor_pb2.TensorProto(
        dtype=dtype.as_datatype_enum, tensor_shape=tf.TensorShape(array.shape).as_proto()
    )
    flat = flat.view(PARTS[name]) if name in PARTS else flat
    getattr(proto, FIELDS.get(name, "int_val")).extend(flat.tolist())
    return proto
