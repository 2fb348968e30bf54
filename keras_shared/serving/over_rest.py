"""The REST interface of TF Serving: JSON, columnar, with its NaN, Infinity and base64."""

import base64
import http.client
import json
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_shared.serving.errors import CODES, ServingError
from keras_shared.serving.messages import SignatureDef, Status, TensorInfo


class Rest:
    """One connection for each request: threads may share it, and none can be stale."""

    def __init__(self, url: urllib.parse.SplitResult) -> None:
        self._secure = url.scheme == "https"
        self._address = (url.hostname or "", url.port)
        self._base = f"{url.path.rstrip('/')}/v1/models/"
        self._headers = {"Content-Type": "application/json"}
        if url.username is not None:
            pair = ":".join(
                urllib.parse.unquote(part or "") for part in (url.username, url.password)
            )
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"

    def predict(
        self,
        name: str,
        version: int,
        signature: str,
        definition: SignatureDef,
        inputs: Mapping[str, np.ndarray],
        left: float,
    ) -> dict[str, np.ndarray]:
        columns = {key: _encoded(array) for key, array in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        path = f"{_quoted(name)}/versions/{version}:predict"
        outputs = self._ask("outputs", "POST", path, left, body)["outputs"]
        if len(definition.outputs) == 1:  # TF Serving leaves the name of a single output out
            outputs = dict.fromkeys(definition.outputs, outputs)
        return {key: _decoded(outputs[key], info) for key, info in definition.outputs.items()}

    def metadata(
        self, name: str, version: int | None, left: float
    ) -> tuple[int, dict[str, SignatureDef]]:
        number = "" if version is None else f"/versions/{version}"
        answer = self._ask("metadata", "GET", f"{_quoted(name)}{number}/metadata", left)
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        return int(answer["model_spec"]["version"]), {
            key: SignatureDef(_tensors(value["inputs"]), _tensors(value["outputs"]))
            for key, value in signatures.items()
            if not key.startswith("__saved_model_")
        }

    def status(self, name: str, left: float) -> list[Status]:
        answer = self._ask("model_version_status", "GET", _quoted(name), left)
        return [
            Status(int(entry["version"]), entry["state"], entry["status"]["error_message"])
            for entry in answer["model_version_status"]
        ]

    def close(self) -> None:
        pass

    def _ask(
        self, wanted: str, method: str, path: str, left: float, body: bytes | None = None
    ) -> dict[str, Any]:
        """The answer, which must have the key `wanted`."""
        status, content = self._exchange(method, f"{self._base}{path}", left, body)
        try:
            # TF Serving writes strings that are not UTF-8 as they are
            answer = json.loads(content.decode(errors="surrogateescape"))
        except json.JSONDecodeError:
            answer = None
        if status == 200 and isinstance(answer, dict) and wanted in answer:
            return answer
        error = answer.get("error") if isinstance(answer, dict) else None
        text = error or " ".join(content[:200].decode(errors="replace").split())
        code = "UNKNOWN" if status == 200 else CODES.get(status, "UNKNOWN")
        raise ServingError(code, text or f"an empty answer with HTTP status {status}")

    def _exchange(
        self, method: str, path: str, left: float, body: bytes | None
    ) -> tuple[int, bytes]:
        deadline = time.monotonic() + left
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(*self._address, timeout=left)
        where = ":".join(str(part) for part in self._address if part)
        try:
            try:
                connection.connect()
            except TimeoutError:
                raise
            except ssl.SSLCertVerificationError as error:  # trying again would not mend it
                message = f"the certificate of {where} is not trusted: {error.verify_message}"
                raise ServingError("UNAUTHENTICATED", message, sent=False) from error
            except OSError as error:
                message = f"no connection to {where} ({error})"
                raise ServingError("UNAVAILABLE", message, sent=False) from error
            sock: socket.socket = connection.sock
            sock.settimeout(_left(deadline))
            connection.request(method, path, body, self._headers)
            response = connection.getresponse()
            expected, content = response.length, bytearray()
            while expected is None or len(content) < expected:
                sock.settimeout(_left(deadline))
                piece = response.read1(1 << 16)
                if not piece:
                    break
                content += piece
            if expected is not None and len(content) < expected:
                raise http.client.IncompleteRead(bytes(content), expected - len(content))
            if response.status == 200 and not content:  # an incomplete head looks like this
                raise http.client.RemoteDisconnected("an empty answer")
            return response.status, bytes(content)
        except TimeoutError as error:
            message = f"{where} did not complete its answer before the timeout"
            raise ServingError("DEADLINE_EXCEEDED", message) from error
        except http.client.RemoteDisconnected as error:
            message = f"{where} closed the connection without an answer"
            raise ServingError("UNAVAILABLE", message) from error
        except (http.client.BadStatusLine, http.client.LineTooLong) as error:
            raise ServingError("UNKNOWN", f"{where} does not speak HTTP ({error!r})") from error
        except (http.client.HTTPException, OSError) as error:
            message = f"the connection to {where} broke ({type(error).__name__})"
            raise ServingError("UNAVAILABLE", message) from error
        finally:
            connection.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _encoded(array: np.ndarray) -> Any:
    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(item) for item in value]
        return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value

    # float32 -> Python's double, whose shortest decimals lead back to the same float32
    return one(array.tolist()) if array.dtype == object else array.tolist()


def _decoded(value: Any, info: TensorInfo) -> np.ndarray:
    def one(item: Any) -> Any:
        if isinstance(item, list):
            return [one(part) for part in item]
        return base64.b64decode(item["b64"]) if isinstance(item, dict) else item

    array = np.array(one(value), object if info.dtype == "string" else info.dtype)
    if array.size == 0 and info.shape is not None:  # an empty list of JSON has no further sizes
        array = array.reshape([side or 0 for side in info.shape])
    return array


def _tensors(infos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {key: _tensor(info) for key, info in infos.items()}


def _tensor(info: Mapping[str, Any]) -> TensorInfo:
    dtype = info["dtype"].removeprefix("DT_").lower()
    names = {"float": "float32", "double": "float64", "half": "float16"}
    shape = info.get("tensor_shape")
    if shape is None:  # ragged or sparse: of several tensors
        return TensorInfo(names.get(dtype, dtype), None)
    sizes = (int(dim["size"]) for dim in shape["dim"])
    known = tuple(None if size < 0 else size for size in sizes)
    return TensorInfo(names.get(dtype, dtype), None if shape["unknown_rank"] else known)
