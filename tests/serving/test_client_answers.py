"""Answers of another shape than TF Serving's: ServingError with the peer and the reason, always."""

import copy
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from keras_shared.serving import Client, ServingError, SignatureDef, TensorInfo

sys.path.insert(0, __file__.rpartition("/serving/")[0])
sys.path.insert(0, __file__.rpartition("/")[0])
from hostile import ok, raw_grpc_server, raw_server
from mutations import fuzzed, mutated
from recording import metadata, tensor_message

INPUTS = {"x": ("float32", (None, 2))}
OUTPUTS = {
    "label": ("string", (None,)),
    "png_bytes": ("string", (None,)),
    "scores": ("float32", (None, 3)),
    "count": ("int32", (None,)),
    "large": ("uint64", (None,)),
    "is": ("bool", (None,)),
}
X = np.ones((2, 2), "float32")
ANSWER = {
    "label": ["a", "é"],
    "png_bytes": [{"b64": "eA=="}, {"b64": ""}],
    "scores": [[0.5, 1.0, float("nan")], [1e-3, 2.0, float("inf")]],
    "count": [1, -2],
    "large": [1, 2**64 - 1],
    "is": [True, False],
}
VERSION = {"version": "1", "state": "AVAILABLE", "status": {"error_message": ""}}
STATUS = {"model_version_status": [VERSION]}
METADATA, METADATA_MESSAGE = metadata(INPUTS, OUTPUTS)


class Peer:
    """A server over REST and gRPC whose answers are set before each question."""

    def __init__(self):
        self.metadata, self.status = METADATA, json.dumps(STATUS).encode()
        self.predict = json.dumps({"outputs": ANSWER}).encode()
        self.whole = None

    def __call__(self, request):
        if not isinstance(request, bytes):  # a method of gRPC
            kinds = {"GetModelMetadata": self.metadata, "GetModelStatus": self.status}
            return kinds.get(request, self.predict)
        if self.whole is not None:
            return [self.whole]
        path = request.partition(b" HTTP")[0]
        if path.startswith(b"POST"):
            return [ok(self.predict)]
        return [ok(self.metadata if path.endswith(b"/metadata") else self.status)]


@pytest.fixture(scope="module")
def rest_port():
    peer = Peer()
    with raw_server(peer) as (url, _):
        yield peer, url


@pytest.fixture(scope="module")
def grpc_port():
    peer = Peer()
    with raw_grpc_server(peer) as url:
        yield peer, url


@pytest.fixture
def rest(rest_port):
    vars(rest_port[0]).update(vars(Peer()))
    return rest_port


def message():
    response = predict_pb2.PredictResponse()
    for key, value in {
        "label": {"string_val": [b"a", "é".encode()]},
        "png_bytes": {"string_val": [b"x", b""]},
        "scores": {"shape": (2, 3), "content": np.ones((2, 3), "float32").tobytes()},
        "count": {"int_val": [1, -2]},
        "large": {"uint64_val": [1, 2**64 - 1]},
        "is": {"bool_val": [True, False]},
    }.items():
        tensor = tensor_message(OUTPUTS[key][0], **{"shape": (2,), **value})
        response.outputs[key].CopyFrom(tensor)
    return response


def status_message():
    response = get_model_status_pb2.GetModelStatusResponse()
    entry = response.model_version_status.add(version=1, state=30)
    entry.status.error_message = "é"
    return response


@pytest.fixture
def over_grpc(grpc_port):
    grpc_port[0].metadata = METADATA_MESSAGE
    grpc_port[0].status = status_message().SerializeToString()
    grpc_port[0].predict = message().SerializeToString()
    return grpc_port


def right(answer):
    """Whether what a call gave is of the types that its docstring promises."""
    if isinstance(answer, list):
        return all(list(map(type, one)) == [int, str, str] for one in answer)
    if all(isinstance(one, SignatureDef) for one in answer.values()):
        infos = [i for one in answer.values() for side in one for i in side.values()]
        return all(isinstance(i, TensorInfo) and type(i.dtype) is str for i in infos)
    for key, (dtype, shape) in OUTPUTS.items():
        array = answer[key]
        kind = bytes if key.endswith("_bytes") else str
        text = dtype == "string" and all(isinstance(item, kind) for item in array.ravel())
        assert text or str(array.dtype) == dtype, key
        assert TensorInfo(dtype, shape).fits(array.shape), key
    return answer.keys() == OUTPUTS.keys()


def asked(url, what):
    with Client(url, timeout=10) as client:
        return ask(client, what)


def ask(client, what):
    return client.predict("m", {"x": X}) if what == "predict" else getattr(client, what)("m")


@pytest.mark.parametrize("what", ["status", "metadata", "predict"])
def test_the_answers_are_right_before_they_are_changed(what, rest, over_grpc):
    for _, url in (rest, over_grpc):
        answer = asked(url, what)
        assert right(answer) and answer


def refused(url, what, *said):
    with pytest.raises(ServingError) as caught:
        asked(url, what)
    text = str(caught.value)
    assert url.rpartition("/")[2] in text and text.isprintable() and len(text) < 2500
    for part in said:
        assert part in text


def changed(document, path, value):
    """The document with another value at a path."""
    document = copy.deepcopy(document)
    *first, last = path
    part = document
    for key in first:
        part = part[key]
    if value is KeyError:
        del part[last]
    else:
        part[last] = value
    return json.dumps(document).encode()


WRONG = [None, [], {}, 1, True, "x", [[]], [1, [2]], "\x1b[31m", KeyError]


@pytest.mark.parametrize(
    "content",
    [b"[" * 10**6, b'{"a":' * 10**5, b"9" * 10**5, b"", b"\xff\xfe", b"null", b"[]", b"{}", b"1",
     b"\x1f\x8b\x08\x00\x00", b"<html>" * 10**5, b"\x1b[31mred"],
)  # fmt: skip
def test_what_is_no_answer(rest, content):
    peer, url = rest
    peer.metadata = peer.status = peer.predict = content
    refused(url, "status")
    refused(url, "metadata")
    peer.metadata = METADATA
    refused(url, "predict")


def test_status_and_metadata_of_another_shape(rest):
    peer, url = rest
    base = ("model_version_status", 0)
    for path in (base[:1], base, (*base, "version"), (*base, "state"), (*base, "status"),
                 (*base, "status", "error_message")):  # fmt: skip
        for wrong in WRONG:
            peer.status = changed(STATUS, path, wrong)
            text = isinstance(wrong, str) and path[-1] in ("state", "error_message")
            none = (wrong in ([], {}) and path == base[:1]) or (wrong is KeyError and path == base)
            if not text and not none:
                refused(url, "status")
    for text in ("9" * 5000, "9" * 30, "1.5", "", "one"):
        peer.status = changed(STATUS, (*base, "version"), text)
        refused(url, "status")
    about = json.loads(METADATA)
    top = ("metadata", "signature_def", "signature_def")
    x = (*top, "serving_default", "inputs", "x")
    for path in (top[:1], top[:2], (*top, "serving_default"), x, (*x, "dtype"),
                 (*x, "tensor_shape"), (*x, "tensor_shape", "dim"),
                 (*x, "tensor_shape", "dim", 0), ("model_spec",),
                 ("model_spec", "version")):  # fmt: skip
        for wrong in WRONG:
            peer.metadata = changed(about, path, wrong)
            ragged = path[-1] == "tensor_shape" and wrong in (None, KeyError)
            fewer = (wrong in ([], {}) and path[-1] == "dim") or (
                wrong is KeyError and path[-1] in (0, "x", "serving_default")
            )
            if not ragged and not fewer:
                refused(url, "metadata")
    for dtype in ("DT_NEW", "DT_", "", "float32\x1b[31m"):
        peer.metadata = changed(about, (*x, "dtype"), dtype)
        refused(url, "metadata", "is unknown")


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("outputs",), [1, 2]),
        (("outputs", "scores"), [[1, 2, 3], [4, 5]]),  # ragged
        (("outputs", "scores"), [[1, 2], [3, 4]]),
        (("outputs", "scores"), [["1", "2", "3"]]),
        (("outputs", "scores"), [[None, 2, 3]]),
        (("outputs", "scores"), [[{}, 2, 3]]),
        (("outputs", "scores"), 1.0),
        (("outputs", "scores"), [[10**400, 2, 3]]),
        (("outputs", "count"), [1.5, 2]),
        (("outputs", "count"), [2**40, 2]),
        (("outputs", "count"), [True, False]),
        (("outputs", "large"), [-1, 2]),
        (("outputs", "large"), ["1", 2]),
        (("outputs", "large"), [1.5, 2]),
        (("outputs", "is"), [1, 0]),
        (("outputs", "label"), ["a", 1]),
        (("outputs", "label"), ["a", ["b"]]),
        (("outputs", "label"), ["a", {"b64": "eA=="}]),
        (("outputs", "label"), [["a"], ["b", "c"]]),
        (("outputs", "png_bytes"), ["a", "b"]),
        (("outputs", "png_bytes"), [{"b64": "%"}, {"b64": "eA=="}]),
        (("outputs", "png_bytes"), [{"b65": "eA=="}]),
        (("outputs", "label"), KeyError),
        (("outputs", "extra"), [1, 2]),
    ],
)
def test_outputs_that_the_signature_does_not_promise(rest, path, wrong):
    peer, url = rest
    peer.predict = changed({"outputs": ANSWER}, path, wrong)
    refused(url, "predict")


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe\x00", b"<html>\x1b[31m</html>", b'{"error": [1]}', b'{"error": null}', b"[" * 10**6,
     b"9" * 10**5, b'"x"', b"x" * 10**6, b'{"error": "\\u001b[31m"}'],
)  # fmt: skip
def test_errors_that_are_no_text(rest, body):
    peer, url = rest
    for status, code in ((b"400", "INVALID"), (b"404", "NOT_FOUND"), (b"500", "INTERNAL"),
                         (b"502", "UNKNOWN"), (b"999", "UNKNOWN")):  # fmt: skip
        peer.whole = ok(body, status)
        with pytest.raises(ServingError, match=code) as caught:
            asked(url, "status")
        text = str(caught.value)
        assert text.isprintable() and len(text) < 2500 and caught.value.code.startswith(code)


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"9" * 10**5,
     b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000,
     b"HTTP/1.1 200 " + b"x" * 10**5, b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 20\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10**5,
     b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08"],
)  # fmt: skip
def test_heads_that_are_no_http(rest, head):
    peer, url = rest
    peer.whole = head
    refused(url, "status")


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        ("scores", tensor_message(999, (2, 3))),
        ("scores", tensor_message(0, (2, 3))),
        ("scores", tensor_message("resource", (2, 3))),
        ("scores", tensor_message("float32", (-2, 3), float_val=[1.0])),
        ("scores", tensor_message("float32", (-2, -3), float_val=[1.0])),
        ("scores", tensor_message("float32", (2, 3), b"12345")),
        ("scores", tensor_message("float32", (2, 3), bytes(28))),
        ("scores", tensor_message("float32", (2, 3), float_val=[1.0] * 7)),
        ("scores", tensor_message("float64", (2, 3), bytes(48))),
        ("scores", tensor_message("float32", (3, 2), bytes(24))),
        ("label", tensor_message("string", (2,))),
        ("png_bytes", tensor_message("string", (2,))),
        ("label", tensor_message("int32", (2,), bytes(8))),
        ("extra", tensor_message("int32", (2,), bytes(8))),
        ("label", None),
    ],
)
def test_tensors_that_the_signature_does_not_promise(over_grpc, key, tensor):
    peer, url = over_grpc
    response = message()
    response.outputs[key].CopyFrom(tensor or tensor_message())
    if tensor is None:
        del response.outputs[key]
    peer.predict = response.SerializeToString()
    refused(url, "predict")


def test_messages_that_are_none(over_grpc):
    peer, url = over_grpc
    about = get_model_metadata_pb2.GetModelMetadataResponse.FromString(METADATA_MESSAGE)
    corrupt, other = copy.deepcopy(about), copy.deepcopy(about)
    corrupt.metadata["signature_def"].value = b"\xff\xff"
    other.metadata["signature_def"].Pack(status_message())
    unknown = get_model_metadata_pb2.GetModelMetadataResponse.FromString(METADATA_MESSAGE)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    unknown.metadata["signature_def"].Unpack(signatures)
    signatures.signature_def["serving_default"].inputs["x"].dtype = 999
    unknown.metadata["signature_def"].Pack(signatures)
    none = get_model_metadata_pb2.GetModelMetadataResponse()
    for content in (corrupt, other, unknown, none):
        peer.metadata = content.SerializeToString()
        refused(url, "metadata")
    peer.metadata = peer.status = peer.predict = b"\xff" * 20
    refused(url, "metadata")
    refused(url, "status")
    wrong = status_message()
    wrong.model_version_status[0].state = 77
    peer.status = wrong.SerializeToString()
    refused(url, "status")


def test_what_a_server_says_is_shown_as_text(rest):
    peer, url = rest
    peer.whole = ok(b'{"error": "\\u001b[31mred\\u0007 [link=x]y[/link]"}', b"500")
    with pytest.raises(ServingError, match=r"INTERNAL: \\x1b\[31mred\\x07 \[link=x\]") as caught:
        asked(url, "status")
    assert caught.value.message.isprintable()


def test_the_error_of_a_version_is_shown_as_text(rest):
    peer, url = rest
    peer.status = changed(
        STATUS, ("model_version_status", 0, "status", "error_message"), "\x1b[31mred"
    )
    assert asked(url, "status")[0].error == "\\x1b[31mred"


def test_inputs_that_cannot_be_sent(rest):
    peer, url = rest
    for dtype, error, said in (
        *(
            (dtype, ServingError, f"'x' is {dtype}, which REST can .*: ask over gRPC.*grpc://")
            for dtype in ("complex64", "float16", "bfloat16", "uint16")
        ),
        ("resource", ValueError, "takes resource, which NumPy has not"),
    ):
        peer.metadata, _ = metadata({"x": (dtype, (None, 2))}, OUTPUTS)
        with pytest.raises(error, match=said):
            asked(url, "predict")
    peer.metadata, _ = metadata(INPUTS, {"y": ("float16", (None, 2))})
    with pytest.raises(ServingError, match="'y' is float16, which REST can neither"):
        asked(url, "predict")


def test_verify_wants_a_probability_for_each_pair(rest):
    peer, url = rest
    pair = {"image_a": ("float32", (None, 2, 2, 1)), "image_b": ("float32", (None, 2, 2, 1))}
    image = np.zeros((2, 2, 1))
    for outputs, content in (
        ({"probability": ("float32", (None,))}, []),
        ({"probability": ("float32", (None,))}, [0.5, 0.5]),
        ({"probability": ("string", (None,))}, ["x"]),
        ({"distance": ("float32", (None,))}, [0.5]),
    ):
        about = json.loads(metadata(pair, outputs)[0])
        signatures = about["metadata"]["signature_def"]["signature_def"]
        signatures["verify"] = signatures["serving_default"]
        peer.metadata = json.dumps(about).encode()
        peer.predict = json.dumps({"outputs": content}).encode()
        with (
            Client(url) as client,
            pytest.raises(ServingError, match="m does not answer with a probability for each"),
        ):
            client.verify(image, image, "m")


@pytest.mark.parametrize("address", ["http://localhost:9", "grpc://localhost:9"])
@pytest.mark.parametrize(
    ("image_a", "image_b"),
    [
        ([b"a"], [b"b", b"c"]),
        ([b"a", b"b"], [b"c"]),
        (np.zeros((1, 2, 2, 1)), np.zeros((3, 2, 2, 1))),
        ([], [b"a"]),
    ],
)
def test_verify_wants_equally_many_images_before_it_asks(address, image_a, image_b):
    said = f"must hold equally many images. Received: {len(image_a)} and {len(image_b)}"
    with Client(address) as client, pytest.raises(ValueError, match=said):
        client.verify(image_a, image_b)


@pytest.mark.parametrize("what", ["status", "metadata", "predict", "whole"])
@fuzzed
@given(st.data())
def test_changed_answers_over_rest(rest_port, what, data):
    peer, url = rest_port
    vars(peer).update(vars(Peer()))
    content = ok(peer.status) if what == "whole" else getattr(peer, what)
    setattr(peer, what, data.draw(mutated(content)))
    changes_nothing_but_errors(url, "status" if what == "whole" else what)


@pytest.mark.parametrize("what", ["status", "metadata", "predict"])
@fuzzed
@given(st.data())
def test_changed_answers_over_grpc(grpc_port, what, data):
    peer, url = grpc_port
    peer.metadata, peer.status = METADATA_MESSAGE, status_message().SerializeToString()
    peer.predict = message().SerializeToString()
    setattr(peer, what, data.draw(mutated(getattr(peer, what))))
    changes_nothing_but_errors(url, what)


def changes_nothing_but_errors(url, what):
    # too short for a second try, and for an answer that waits for bytes that were cut
    with Client(url, timeout=0.2 if url.startswith("http") else 2) as client:
        try:
            answer = ask(client, what)
        except ServingError as error:
            assert error.message and str(error).isprintable()
        else:
            assert right(answer)
