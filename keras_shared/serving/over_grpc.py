"""The gRPC interface of TF Serving, through the stubs of tensorflow-serving-api."""

import functools
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from keras_shared.errors import attempt, boundary, printable, whole_reason
from keras_shared.serving.errors import ServingError
from keras_shared.serving.limits import MOST_REQUEST
from keras_shared.serving.messages import SignatureDef, Status, TensorInfo, agreed, dtype_name
from keras_shared.serving.session import array_of

INT32 = 2**31 - 1  # the largest number in gRPC's options
T = TypeVar("T")
PREDICT = "PredictionService/Predict"


class Grpc:
    """A channel for each limit of an answer's size, mostly one; threads may share them."""

    def __init__(
        self,
        address: str,
        timeout: float,
        tls: bool = False,
        certificates: str | None = None,
        token: str | None = None,
    ) -> None:
        self._address = address
        self._certificates, root = certificates, certificates.encode() if certificates else None
        self._credentials = grpc.ssl_channel_credentials(root) if tls else None
        self._metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        self._lock = threading.Lock()
        self._channels: dict[int, grpc.Channel] = {}
        here = address.startswith(("localhost:", "127.", "[::1]"))  # for which no proxy is asked
        self._options = [
            ("grpc.enable_http_proxy", int(not here)),
            ("grpc.max_send_message_length", -1),
            # the time for one try to connect, which a slow line or a busy server needs in full
            ("grpc.min_reconnect_backoff_ms", min(math.ceil(1000 * timeout), INT32)),
            # and the wait for the next one, a second to two minutes by default
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]

    def predict(
        self,
        name: str,
        version: int,
        signature: str,
        definition: SignatureDef,
        inputs: Mapping[str, np.ndarray],
        deadline: float,
        most: int,
    ) -> dict[str, np.ndarray]:
        def parse(content: bytes) -> dict[str, np.ndarray]:
            outputs = predict_pb2.PredictResponse.FromString(content).outputs
            return agreed({key: _array(key, outputs[key], most) for key in outputs}, definition)

        request = predict_pb2.PredictRequest()
        _specify(request.model_spec, name, version)
        request.model_spec.signature_name = signature
        unfit = functools.partial(ServingError, "INVALID_ARGUMENT", sent=False)
        with boundary("the inputs cannot be sent over gRPC", unfit):
            for key, array in inputs.items():
                dtype = tf.as_dtype(definition.inputs[key].dtype)
                request.inputs[key].CopyFrom(tf.make_tensor_proto(array, dtype))
            content = request.SerializeToString()
        return self._ask(PREDICT, content, parse, deadline, most)

    def metadata(
        self, name: str, version: int | str | None, deadline: float, most: int
    ) -> tuple[int, dict[str, SignatureDef]]:
        def parse(content: bytes) -> tuple[int, dict[str, SignatureDef]]:
            response = get_model_metadata_pb2.GetModelMetadataResponse.FromString(content)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            if not response.metadata["signature_def"].Unpack(signatures):
                raise ValueError("it holds no signatures")
            return response.model_spec.version.value, {
                key: SignatureDef(_tensors(value.inputs), _tensors(value.outputs))
                for key, value in signatures.signature_def.items()
                if not key.startswith("__saved_model_")
            }

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        _specify(request.model_spec, name, version)
        content = request.SerializeToString()
        return self._ask("PredictionService/GetModelMetadata", content, parse, deadline, most)

    def status(self, name: str, deadline: float, most: int) -> list[Status]:
        def parse(content: bytes) -> list[Status]:
            response = get_model_status_pb2.GetModelStatusResponse.FromString(content)
            states = get_model_status_pb2.ModelVersionStatus.State
            return [
                Status(
                    entry.version, states.Name(entry.state), printable(entry.status.error_message)
                )
                for entry in response.model_version_status
            ]

        request = get_model_status_pb2.GetModelStatusRequest()
        _specify(request.model_spec, name, None)
        content = request.SerializeToString()
        return self._ask("ModelService/GetModelStatus", content, parse, deadline, most)

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def _channel(self, most: int) -> grpc.Channel:
        size = min(most, MOST_REQUEST)
        with self._lock:
            if size not in self._channels:
                options = [*self._options, ("grpc.max_receive_message_length", size)]
                self._channels[size] = (
                    grpc.insecure_channel(self._address, options)
                    if self._credentials is None
                    else grpc.secure_channel(self._address, self._credentials, options)
                )
            return self._channels[size]

    def _ask(
        self, method: str, request: bytes, parse: Callable[[bytes], T], deadline: float, most: int
    ) -> T:
        """The answer to a request, as `parse` reads it from its bytes."""
        call = self._channel(most).unary_unary(f"/tensorflow.serving.{method}")
        predict = method == PREDICT
        left = max(deadline - time.monotonic(), 0)
        content, error = attempt(
            lambda: call(request, timeout=left, metadata=self._metadata), grpc.RpcError
        )
        if error:
            details = error.details() or "no message"
            refused = any(x in details.lower() for x in ("failed to connect", "name resolution"))
            distrust = self._distrust(deadline) if refused else None
            if isinstance(distrust, ssl.SSLCertVerificationError):
                message = f"{self._address} is not trusted ({whole_reason(distrust)})"
                raise ServingError("UNAUTHENTICATED", message, False, predict) from error
            if distrust:
                details = f"failed to connect: {whole_reason(distrust)}"
            message = f"no connection to {self._address} ({details})" if refused else details
            raise ServingError(error.code().name, message, not refused, predict) from error
        unexpected = functools.partial(ServingError, "UNKNOWN", predict=predict)
        with boundary(f"{self._address} answers {method} otherwise than expected", unexpected):
            return parse(content)

    def _distrust(self, deadline: float) -> Exception | None:
        """Why TLS fails, which gRPC writes to the terminal alone."""
        if self._credentials is None:
            return None
        context = ssl.create_default_context(cadata=self._certificates)
        host, _, port = self._address.rpartition(":")
        left = max(deadline - time.monotonic(), 0.1)

        def shake_hands() -> None:
            with socket.create_connection((host.strip("[]"), int(port)), left) as sock:
                context.wrap_socket(sock, server_hostname=host.strip("[]")).close()

        error = attempt(shake_hands, OSError, ValueError)[1]
        return error if isinstance(error, ssl.SSLError) else None


def _specify(spec: Any, name: str, version: int | str | None) -> None:
    spec.name = name
    if isinstance(version, str):
        spec.version_label = version
    elif version is not None:
        spec.version.value = version


def _array(key: str, value: Any, most: int) -> np.ndarray:
    array = array_of(f"the output '{key}'", value, most)
    if array.dtype != object:
        return array
    raw = [bytes(item) for item in array.ravel()]
    text = not key.endswith("_bytes")
    items = [item.decode(errors="surrogateescape") for item in raw] if text else raw
    return np.array(items, object).reshape(array.shape)


def _tensors(infos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        key: TensorInfo(
            dtype_name(types_pb2.DataType.Name(info.dtype)),
            None
            if info.WhichOneof("encoding") == "composite_tensor" or info.tensor_shape.unknown_rank
            else tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim),
        )
        for key, info in infos.items()
    }
