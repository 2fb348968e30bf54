"""The gRPC interface of TF Serving, through the stubs of tensorflow-serving-api."""

from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_shared.serving.errors import ServingError
from keras_shared.serving.messages import SignatureDef, Status, TensorInfo

OPTIONS = [
    ("grpc.max_receive_message_length", -1),  # 4 MB by default
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),  # a second by default: as long as all retries
    ("grpc.min_reconnect_backoff_ms", 100),
]


class Grpc:
    """One channel; threads may share it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(
        self,
        name: str,
        version: int,
        signature: str,
        definition: SignatureDef,
        inputs: Mapping[str, np.ndarray],
        left: float,
    ) -> dict[str, np.ndarray]:
        request = predict_pb2.PredictRequest()
        _specify(request.model_spec, name, version)
        request.model_spec.signature_name = signature
        for key, array in inputs.items():
            dtype = tf.as_dtype(definition.inputs[key].dtype)
            request.inputs[key].CopyFrom(tf.make_tensor_proto(array, dtype))
        response = self._ask(self._prediction.Predict, request, left)
        return {key: _array(key, value) for key, value in response.outputs.items()}

    def metadata(
        self, name: str, version: int | None, left: float
    ) -> tuple[int, dict[str, SignatureDef]]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        _specify(request.model_spec, name, version)
        response = self._ask(self._prediction.GetModelMetadata, request, left)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return response.model_spec.version.value, {
            key: SignatureDef(_tensors(value.inputs), _tensors(value.outputs))
            for key, value in signatures.signature_def.items()
            if not key.startswith("__saved_model_")
        }

    def status(self, name: str, left: float) -> list[Status]:
        request = get_model_status_pb2.GetModelStatusRequest()
        _specify(request.model_spec, name, None)
        response = self._ask(self._model.GetModelStatus, request, left)
        states = get_model_status_pb2.ModelVersionStatus.State
        return [
            Status(entry.version, states.Name(entry.state), entry.status.error_message)
            for entry in response.model_version_status
        ]

    def close(self) -> None:
        self._channel.close()

    def _ask(self, method: Callable[..., Any], request: Any, left: float) -> Any:
        try:
            return method(request, timeout=left)
        except grpc.RpcError as error:
            details = error.details() or "no message"
            refused = any(x in details.lower() for x in ("failed to connect", "name resolution"))
            message = f"no connection to {self._address} ({details})" if refused else details
            raise ServingError(error.code().name, message, sent=not refused) from error


def _specify(spec: Any, name: str, version: int | None) -> None:
    spec.name = name
    if version is not None:
        spec.version.value = version


def _array(key: str, value: Any) -> np.ndarray:
    array: np.ndarray = tf.make_ndarray(value)
    if array.dtype != object or key.endswith("_bytes"):
        return array
    text = [item.decode(errors="surrogateescape") for item in array.ravel()]
    return np.array(text, object).reshape(array.shape)


def _tensors(infos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        key: TensorInfo(
            tf.as_dtype(info.dtype).name,
            None
            if info.tensor_shape.unknown_rank
            else tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim),
        )
        for key, info in infos.items()
    }
