"""The REST interface of TF Serving: JSON, columnar, with its NaN, Infinity and base64."""

import base64
import concurrent.futures
import contextlib
import functools
import http.client
import io
import json
import os
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from keras_shared.errors import attempt, boundary, printable, whole_reason
from keras_shared.serving.errors import CODES, ServingError
from keras_shared.serving.messages import (
    REST_TYPES,
    SignatureDef,
    Status,
    TensorInfo,
    agreed,
    cast,
    dtype_name,
)

T = TypeVar("T")
KEPT = 1.0  # seconds that a connection may be idle; servers wait for longer
SURE = 0.05  # seconds after which a server that closes without a word would have done it
# what ended an exchange -> the code and the message; the first kind that fits
FAILURES = (
    (TimeoutError, "DEADLINE_EXCEEDED", "{where} did not complete its answer before the timeout"),
    (MemoryError, "RESOURCE_EXHAUSTED", "{where} sends more than the {most:,} bytes expected"),
    (ssl.SSLCertVerificationError, "UNAUTHENTICATED", "{where} is not trusted ({reason})"),
    (
        (OSError, http.client.IncompleteRead),
        "UNAVAILABLE",
        "the connection to {where} broke ({reason})",
    ),
    (Exception, "UNKNOWN", "{where} does not speak HTTP ({reason})"),
)


class Rest:
    """Threads may share it: each request has a connection to itself, and leaves it to the next.

    One that was idle for longer than a moment is not used again, since the server may be about to
    close it. A prediction, which is not sent again where it may have been taken, goes over a used
    one only if this server was seen to keep them.
    """

    def __init__(
        self,
        url: urllib.parse.SplitResult,
        certificates: str | None = None,
        token: str | None = None,
    ) -> None:
        tls = url.scheme == "https"
        self._context = ssl.create_default_context(cadata=certificates) if tls else None
        usual = http.client.HTTPS_PORT if tls else http.client.HTTP_PORT
        self._address = (url.hostname or "", url.port or usual)
        self._lock = threading.Lock()
        self._idle: list[tuple[float, _Timed]] = []  # since when
        self._keeps = False
        self._process = os.getpid()
        self._where = ":".join(str(part) for part in (url.hostname, url.port) if part)
        self._base = f"{url.path.rstrip('/')}/v1/models/"
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
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
        deadline: float,
        most: int,
    ) -> dict[str, np.ndarray]:
        def parse(answer: Any) -> dict[str, np.ndarray]:
            outputs = answer["outputs"]
            if len(definition.outputs) == 1:  # TF Serving leaves the name of a single output out
                outputs = dict.fromkeys(definition.outputs, outputs)
            found = {key: _decoded(key, outputs[key], definition.outputs[key]) for key in outputs}
            return agreed(found, definition)

        unfit = functools.partial(ServingError, "INVALID_ARGUMENT", sent=False)
        for key, (dtype, _) in [*definition.inputs.items(), *definition.outputs.items()]:
            if dtype not in REST_TYPES:
                raise unfit(
                    f"'{key}' is {dtype}, which REST can neither read nor write: ask over gRPC"
                )
        with boundary("the inputs cannot be sent over REST", unfit):
            for key, array in inputs.items():
                if 0 in array.shape[:-1]:
                    raise ValueError(
                        f"'{key}' has the shape {array.shape}, and an empty list of JSON has no "
                        "further sizes: ask over gRPC, or leave an empty batch out"
                    )
            columns = {key: _encoded(array) for key, array in inputs.items()}
            body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        return self._ask(f"{_quoted(name)}/versions/{version}:predict", parse, deadline, most, body)

    def metadata(
        self, name: str, version: int | str | None, deadline: float, most: int
    ) -> tuple[int, dict[str, SignatureDef]]:
        def parse(answer: Any) -> tuple[int, dict[str, SignatureDef]]:
            signatures = answer["metadata"]["signature_def"]["signature_def"]
            return _whole(answer["model_spec"]["version"]), {
                key: SignatureDef(_tensors(value["inputs"]), _tensors(value["outputs"]))
                for key, value in signatures.items()
                if not key.startswith("__saved_model_")
            }

        number = "" if version is None else f"/versions/{version}"
        if isinstance(version, str):
            number = f"/labels/{_quoted(version)}"
        return self._ask(f"{_quoted(name)}{number}/metadata", parse, deadline, most)

    def status(self, name: str, deadline: float, most: int) -> list[Status]:
        def parse(answer: Any) -> list[Status]:
            return [
                Status(
                    _whole(entry["version"]),
                    printable(_of(str, entry["state"])),
                    printable(_of(str, entry["status"]["error_message"])),
                )
                for entry in answer["model_version_status"]
            ]

        return self._ask(_quoted(name), parse, deadline, most)

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop()[1].end()

    def _ask(
        self,
        path: str,
        parse: Callable[[Any], T],
        deadline: float,
        most: int,
        body: bytes | None = None,
    ) -> T:
        """The answer to a request, as `parse` reads it; a prediction has a body."""
        status, content = self._exchange(f"{self._base}{path}", deadline, most, body)
        # TF Serving writes strings that are not UTF-8 as they are
        text = content.decode(errors="surrogateescape")
        if status == 200:
            error = functools.partial(ServingError, "UNKNOWN", predict=body is not None)
            with boundary(f"{self._where} answers with {text[:60]!r}, which is unexpected", error):
                return parse(json.loads(text))
        said = f"{' '.join(text.split()) or 'an empty answer'} (HTTP status {status})"
        # a proxy answers with another text
        said = attempt(lambda: _of(str, json.loads(text)["error"]))[0] or said
        raise ServingError(CODES.get(status, "UNKNOWN"), said, predict=body is not None)

    def _exchange(
        self, path: str, deadline: float, most: int, body: bytes | None
    ) -> tuple[int, bytes]:
        sent, content, sock = False, bytearray(), self._kept(body is not None)
        try:
            sock = sock or self._connected(deadline)
            sock.deadline, sent = deadline, True
            connection = http.client.HTTPConnection(*self._address)
            if self._context:  # its port stands in the header Host unless it is the usual one
                connection.default_port = http.client.HTTPS_PORT
            connection.sock = sock
            verb = "GET" if body is None else "POST"
            # a server that refuses a long body says why before it has read all of it
            _, broke = attempt(
                lambda: connection.request(verb, path, body, self._headers),
                ConnectionError,
                ssl.SSLError,
            )
            response, silent = attempt(connection.getresponse)
            if silent:
                raise broke or silent
            size = response.length  # None: in chunks, or until the end
            wanted = most + 1 if size is None else size
            while len(content) < wanted <= most + 1 and (piece := response.read1(1 << 16)):
                content += piece
            if max(len(content), size or 0) > most:
                raise MemoryError
            # nothing at all: an incomplete head looks like this
            if len(content) < (size or 0) or (response.status == 200 and not content):
                raise http.client.IncompleteRead(bytes(content))
            if not (broke or response.will_close) and (size is not None or response.isclosed()):
                with self._lock:
                    self._idle.append((time.monotonic(), sock))
                sock = None
            return response.status, bytes(content)
        except Exception as reason:
            code, text = next(
                (code, text) for kind, code, text in FAILURES if isinstance(reason, kind)
            )
            text = text.format(where=self._where, most=most, reason=whole_reason(reason))
            if not sent and code in ("UNAVAILABLE", "UNKNOWN"):
                text = f"no connection to {self._where} ({whole_reason(reason)})"
            raise ServingError(code, text, sent, body is not None) from reason
        finally:
            if sock is not None:
                sock.end()

    def _kept(self, predicts: bool) -> "_Timed | None":
        """A connection of a moment ago that nobody uses, and the server has not closed."""
        with self._lock:
            idle, self._idle, now = self._idle, [], time.monotonic()
            if self._process != os.getpid():  # forked: these are the other process's as well
                idle, self._process, self._keeps = [], os.getpid(), False
            for since, sock in idle:
                closed = sock.stirs()
                if closed or now - since > SURE:
                    self._keeps = not closed
                if closed or now - since > KEPT:
                    sock.end()
                else:
                    self._idle.append((since, sock))
            usable = self._idle and (self._keeps or not predicts)
            return self._idle.pop()[1] if usable else None

    def _connected(self, deadline: float) -> "_Timed":
        sock = _connected(*self._address, deadline)
        if self._context:
            with contextlib.ExitStack() as stack:
                stack.callback(sock.close)
                sock.settimeout(_left(deadline))
                sock = self._context.wrap_socket(sock, server_hostname=self._address[0])
                stack.pop_all()
        return _Timed(sock, deadline)


class _Timed(io.RawIOBase):
    """A socket whose sending and receiving all end by one deadline, for each exchange anew."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self.deadline = sock, deadline

    def sendall(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            self._sock.settimeout(_left(self.deadline))
            left = left[self._sock.send(left) :]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self.deadline))
        return self._sock.recv_into(buffer)

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Nothing: http.client closes before the answer is read."""

    def end(self) -> None:
        self._sock.close()

    def stirs(self) -> bool:
        """Whether there is something to read, which for an idle connection is its end."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))


def _connected(host: str, port: int, deadline: float) -> socket.socket:
    """A socket, made in a thread.

    The resolver has no timeout, and each of the addresses that it finds may take the whole one.
    """

    def run() -> None:
        try:
            sock = socket.create_connection((host, port), _left(deadline))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.set_result(sock)
        except Exception as error:
            made.set_exception(error)

    made: concurrent.futures.Future[socket.socket] = concurrent.futures.Future()
    threading.Thread(target=run, daemon=True).start()
    return made.result(_left(deadline))


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


def _decoded(key: str, value: Any, info: TensorInfo) -> np.ndarray:
    def one(item: Any) -> Any:
        if isinstance(item, list):
            return [one(part) for part in item]
        item = base64.b64decode(item["b64"], validate=True) if isinstance(item, dict) else item
        return _of(bytes if key.endswith("_bytes") else str, item)

    text = info.dtype == "string"
    whole = info.dtype == "uint64"  # NumPy makes floats of a small and a very large number
    array = np.array(one(value) if text else value, object if text or whole else None)
    if array.size == 0:  # an empty list of JSON has no further sizes
        sizes = [side or 0 for side in (info.shape or ())[array.ndim :]]
        return np.zeros((*array.shape, *sizes), object if text else info.dtype)
    if text:
        for item in array.ravel():  # a list: rows of several lengths
            _of((bytes, str), item)
        return array
    if array.dtype.kind not in ("O" if whole else "b" if info.dtype == "bool" else "iuf"):
        raise TypeError(f"{array.dtype} among the numbers of '{key}'")
    return cast(array, info.dtype)


def _tensors(infos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {key: _tensor(info) for key, info in infos.items()}


def _tensor(info: Mapping[str, Any]) -> TensorInfo:
    dtype, shape = dtype_name(info["dtype"]), info.get("tensor_shape")
    if shape is None or shape["unknown_rank"]:  # None: ragged or sparse, of several tensors
        return TensorInfo(dtype, None)
    sizes = (_whole(dim["size"]) for dim in shape["dim"])
    return TensorInfo(dtype, tuple(None if size < 0 else size for size in sizes))


def _of(kind: type[T] | tuple[type[T], ...], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{str(value)[:40]!r} is of type {type(value).__name__}")
    return value


def _whole(value: Any) -> int:
    """A whole number of 64 bits, which the JSON of protocol buffers writes as text."""
    number = int(_of(str, value))
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{value[:40]} has more than 64 bits")
    return number
