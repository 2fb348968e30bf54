"""A server that answers as TF Serving's contract says, over HTTP and gRPC, and can be made to fail.

Each port is reached through a proxy, so that connections can be cut in the middle of a call.
"""

import base64
import collections
import concurrent.futures
import contextlib
import http.server
import json
import re
import socket
import threading
import urllib.parse
from typing import Any, NamedTuple

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


class RefusedError(Exception):
    """An answer with an error: HTTP status, gRPC code, message."""


class Served(NamedTuple):
    """One loaded version."""

    signatures: dict[str, meta_graph_pb2.SignatureDef]
    call: Any  # (signature, inputs) -> outputs


def from_folder(folder):
    """A SavedModel, run by TensorFlow."""
    proto = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    functions = tf.saved_model.load(str(folder)).signatures

    def call(name, inputs):
        outputs = functions[name](**{key: tf.constant(v) for key, v in inputs.items()})
        return {key: value.numpy() for key, value in outputs.items()}

    return Served(dict(proto.meta_graphs[0].signature_def), call)


def from_function(call, inputs, outputs):
    """`call(**inputs)` as `serving_default`; inputs and outputs: name -> (dtype, shape)."""
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    for side, tensors in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for key, (dtype, shape) in tensors.items():
            side[key].name = f"{key}:0"
            side[key].dtype = tf.as_dtype(dtype).as_datatype_enum
            side[key].tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return Served({"serving_default": signature}, lambda _, given: call(**given))


class Server:
    """`models` is name -> version -> Served; `requests` what came; `faults` what comes next."""

    def __init__(self):
        self.models: dict[str, dict[int, Served]] = {}
        self.failed: dict[str, dict[int, str]] = {}
        self.requests: list[tuple[str, str, bytes]] = []
        self.faults: collections.deque = collections.deque()
        self.closing = threading.Event()

    def __enter__(self):
        handler = type("Handler", (Handler,), {"server_": self})
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        sizes = [(f"grpc.max_{way}_message_length", -1) for way in ("receive", "send")]
        self._grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=sizes)
        servicer = Servicer(self)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, self._grpc)
        grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()
        self._proxied(self._http.server_port, grpc_port)
        return self

    def _proxied(self, *ports):
        self._proxies = [Proxy(port) for port in ports]
        self.rest_port, self.grpc_port = (proxy.port for proxy in self._proxies)
        self.rest, self.grpc = f"http://127.0.0.1:{self.rest_port}", f"127.0.0.1:{self.grpc_port}"

    def __exit__(self, *_):
        self.closing.set()
        for proxy in self._proxies:
            proxy.close()
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(0)

    def cut(self):
        """Cut every connection now, and let the call that asked for it end nowhere."""
        for proxy in self._proxies:
            proxy.cut()
        raise ConnectionResetError

    def hang(self):
        self.closing.wait(60)
        raise ConnectionResetError

    def arrived(self, kind, path, body=b""):
        self.requests.append((kind, path, body))
        if self.faults:
            fault = self.faults.popleft()
            if fault is not None:
                fault()

    def find(self, name, version):
        versions = self.models.get(name, {})
        number = version if version is not None else max(versions, default=None)
        if number not in versions:
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RefusedError(404, "NOT_FOUND", f"Servable not found for request: {asked}")
        return number, versions[number]

    def states(self, name):
        entries = [(number, "AVAILABLE", "") for number in self.models.get(name, {})]
        entries += [(number, "END", text) for number, text in self.failed.get(name, {}).items()]
        if not entries:
            raise RefusedError(404, "NOT_FOUND", f"Could not find any versions of model {name}")
        return sorted(entries, reverse=True)


def signature_map(served):
    return get_model_metadata_pb2.SignatureDefMap(signature_def=served.signatures)


def described(name, number, served):
    signatures = json_format.MessageToDict(
        signature_map(served),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    spec = {"name": name, "signature_name": "", "version": str(number)}
    return json.dumps({"model_spec": spec, "metadata": {"signature_def": signatures}})


def metadata(inputs, outputs):
    """What TF Serving answers about a model over REST and over gRPC."""
    served = from_function(None, inputs, outputs)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.version.value = 1
    response.metadata["signature_def"].Pack(signature_map(served))
    return described("m", 1, served).encode(), response.SerializeToString()


def tensor_message(dtype="float32", shape=(2, 2), content=b"", **values):
    """A tensor as a server may write it, true or not."""
    number = dtype if isinstance(dtype, int) else tf.as_dtype(dtype).as_datatype_enum
    proto = tensor_pb2.TensorProto(dtype=number, tensor_content=content, **values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer("GET", self._get)

    def do_POST(self):
        self._answer("POST", self._post)

    def _answer(self, method, answer):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self.server_.arrived(method, self.path, body)
            status, text = 200, answer(body)
        except ConnectionResetError:
            self.close_connection = True
            return
        except RefusedError as refused:
            status, text = refused.args[0], json.dumps({"error": refused.args[2]})
        content = text if isinstance(text, bytes) else text.encode()
        self.reply(status, content)

    def reply(self, status, content):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _match(self, verbs):
        pattern = rf"/v1/models/([^/:]+)(?:/versions/(\d+))?{verbs}"
        found = re.fullmatch(pattern, self.path)
        if not found:
            raise RefusedError(
                400, "INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}"
            )
        version = int(found[2]) if found[2] else None
        return urllib.parse.unquote(found[1]), version, found[3]

    def _get(self, _):
        name, version, metadata = self._match("(/metadata)?")
        if not metadata:
            entries = [
                {"version": str(n), "state": state,
                 "status": {"error_code": "UNKNOWN" if text else "OK", "error_message": text}}
                for n, state, text in self.server_.states(name)
            ]  # fmt: skip
            return json.dumps({"model_version_status": entries}, indent=1)
        number, served = self.server_.find(name, version)
        return described(name, number, served)

    def _post(self, body):
        name, version, _ = self._match(":(predict)")
        try:
            document = json.loads(body)
        except ValueError:
            raise RefusedError(
                400, "INVALID_ARGUMENT", f"JSON Parse error: {body[:20]!r}"
            ) from None
        signature = document.get("signature_name") or "serving_default"
        _, served = self.server_.find(name, version)
        definition = served.signatures.get(signature)
        if definition is None:
            raise RefusedError(
                400, "INVALID_ARGUMENT", f'Serving signature name: "{signature}" unknown'
            )
        row = "instances" in document
        given = document["instances"] if row else document["inputs"]
        if row and isinstance(given[0], dict) and "b64" not in given[0]:
            given = {key: [one[key] for one in given] for key in given[0]}
        elif not isinstance(given, dict) or "b64" in given:
            given = dict.fromkeys(definition.inputs, given)
        missing = definition.inputs.keys() - given.keys()
        if missing:
            raise RefusedError(400, "INVALID_ARGUMENT", f"Missing named input: {min(missing)}")
        inputs = {
            key: tensor(key, given[key], tf.as_dtype(info.dtype))
            for key, info in definition.inputs.items()
        }
        outputs = served.call(signature, inputs)
        written = {key: values(key, np.asarray(value).tolist()) for key, value in outputs.items()}
        if row:
            size = len(next(iter(written.values())))
            rows = [{key: value[i] for key, value in written.items()} for i in range(size)]
            if len(written) == 1:
                rows = [next(iter(one.values())) for one in rows]
            return text({"predictions": rows})
        return text({"outputs": written if len(written) > 1 else next(iter(written.values()))})


def tensor(key, given, dtype):
    def one(item):
        if isinstance(item, list):
            return [one(part) for part in item]
        if dtype == tf.string:
            return base64.b64decode(item["b64"]) if isinstance(item, dict) else item.encode()
        wrong = dtype.is_integer and not (isinstance(item, int) and not isinstance(item, bool))
        if wrong or isinstance(item, (dict, str)) or (dtype == tf.bool) != isinstance(item, bool):
            shown = json.dumps(item)
            raise RefusedError(
                400, "INVALID_ARGUMENT",
                f"JSON Value: {shown} Type: x is not of expected type: {dtype.name}",
            )  # fmt: skip
        return item

    return np.array(one(given), object if dtype == tf.string else dtype.as_numpy_dtype)


def values(key, item):
    if isinstance(item, list):
        return [values(key, part) for part in item]
    if isinstance(item, bytes):
        return {"b64": base64.b64encode(item).decode()} if key.endswith("_bytes") else item
    return item


def text(item):
    """JSON as TF Serving writes it: short floats, bare NaN, strings as they are."""
    if isinstance(item, dict):
        return b"{" + b",".join(b'"%s":%s' % (k.encode(), text(v)) for k, v in item.items()) + b"}"
    if isinstance(item, list):
        return b"[" + b",".join(text(part) for part in item) + b"]"
    if isinstance(item, bytes):
        return b'"' + item.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    if isinstance(item, float) and np.isfinite(item):
        short = f"{item:g}"
        if float(short) != item:
            with np.errstate(over="ignore"):
                single = float(np.float32(item)) == item
            digits = 6 if single and np.float32(short) == np.float32(item) else 9 if single else 17
            short = f"{item:.{digits}g}"
        return (short if "." in short or "e" in short else f"{short}.0").encode()
    return json.dumps(item).encode()


class Servicer(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, server):
        self.server = server

    def _answer(self, method, request, context, answer):
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        try:
            self.server.arrived("gRPC", method, request.SerializeToString())
            return answer(spec.name, version)
        except RefusedError as refused:
            context.abort(grpc.StatusCode[refused.args[1]], refused.args[2])
        except ConnectionResetError:
            context.abort(grpc.StatusCode.UNKNOWN, "nobody hears this")

    def Predict(self, request, context):  # noqa: N802
        def answer(name, version):
            number, served = self.server.find(name, version)
            signature = request.model_spec.signature_name or "serving_default"
            definition = served.signatures.get(signature)
            if definition is None:
                unknown = f'Serving signature key "{signature}" not found.'
                raise RefusedError(400, "FAILED_PRECONDITION", unknown)
            for key, info in definition.inputs.items():
                if request.inputs[key].dtype != info.dtype:
                    raise RefusedError(400, "INVALID_ARGUMENT", f"wrong type: {key}")
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            response = predict_pb2.PredictResponse()
            response.model_spec.version.value = number
            for key, value in served.call(signature, inputs).items():
                dtype = tf.as_dtype(definition.outputs[key].dtype)
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value, dtype))
            return response

        return self._answer("Predict", request, context, answer)

    def GetModelMetadata(self, request, context):  # noqa: N802
        def answer(name, version):
            number, served = self.server.find(name, version)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = name
            response.model_spec.version.value = number
            response.metadata["signature_def"].Pack(signature_map(served))
            return response

        return self._answer("GetModelMetadata", request, context, answer)

    def GetModelStatus(self, request, context):  # noqa: N802
        def answer(name, _):
            response = get_model_status_pb2.GetModelStatusResponse()
            for number, state, message in self.server.states(name):
                entry = response.model_version_status.add(version=number)
                entry.state = get_model_status_pb2.ModelVersionStatus.State.Value(state)
                entry.status.error_message = message
            return response

        return self._answer("GetModelStatus", request, context, answer)


class Proxy:
    def __init__(self, target):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self):
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
