"""The client against a real HTTP server and a real gRPC server that keep the contract."""

import base64
import functools
import json
import re
import socket
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from keras_shared.presets.names import version_dir
from keras_shared.serving import Client, ServingError, SignatureDef, Status, TensorInfo
from keras_shared.serving.client import _arrays

sys.path.insert(0, __file__.rpartition("/")[0])
from embedded_server import Embedded
from recording import RefusedError, Server, from_folder, from_function

FLOATS = {"x": ("float32", (None, 2))}


@functools.cache
def published(name):
    return from_folder(version_dir(name))


def doubled(factor=2.0):
    outputs = {"y": ("float32", (None, 2))}
    return from_function(lambda x: {"y": x * np.float32(factor)}, FLOATS, outputs)


@pytest.fixture(params=[Server, pytest.param(Embedded, marks=pytest.mark.slow)])
def server(request):
    with request.param() as server:
        server.models["m"] = {1: doubled()}
        yield server


@pytest.fixture(params=["rest", "grpc"])
def url(request, server):
    return getattr(server, request.param)


@pytest.fixture
def client(url):
    with Client(url, timeout=20) as client:
        yield client


X = np.array([[1, 2], [3, 4]], "float32")


def kinds(server):
    return [kind for kind, path, _ in server.requests if "metadata" not in path.lower()]


def test_predict(client, server):
    answer = client.predict("m", {"x": X})
    assert list(answer) == ["y"] and answer["y"].dtype == np.float32
    np.testing.assert_array_equal(answer["y"], 2 * X)
    server.models["m"][2] = doubled(3)
    np.testing.assert_array_equal(client.predict("m", {"x": X.tolist()})["y"], 3 * X)
    np.testing.assert_array_equal(client.predict("m", {"x": X.astype(int)}, version=1)["y"], 2 * X)


def test_every_dtype_comes_back_as_it_went(client, server):
    edges = {
        "float32": [0.1, -0.0, np.nan, np.inf, -np.inf, 1e-45, 3.4028235e38, 1 / 3, 9e6, 123456.7],
        "float64": [0.1, np.nan, -np.inf, 5e-324, 1.7976931348623157e308, 1 / 3],
        "int8": [-128, 127], "int16": [-32768, 32767], "int32": [-(2**31), 2**31 - 1],
        "int64": [-(2**63), 2**63 - 1], "uint8": [0, 255],
        "uint32": [0, 2**32 - 1], "uint64": [0, 2**64 - 1], "bool": [True, False],
    }  # fmt: skip
    sides = {dtype: (dtype, (None,)) for dtype in edges}
    server.models["m"] = {1: from_function(lambda **given: given, sides, sides)}
    sent = {dtype: np.array(numbers, dtype) for dtype, numbers in edges.items()}
    back = client.predict("m", sent)
    for dtype, array in sent.items():
        assert back[dtype].dtype == dtype
        np.testing.assert_array_equal(back[dtype], array)
    assert np.signbit(back["float32"][1])


def test_bytes_and_text(client, server):
    sides = {"raw": ("string", (None,)), "name": ("string", (None, 2))}
    outputs = {"raw_bytes": sides["raw"], "name": sides["name"]}
    server.models["m"] = {
        1: from_function(lambda raw, name: {"raw_bytes": raw, "name": name}, sides, outputs)
    }
    raw = [b"\x00\xff\x89PNG\x00", b""]
    names = [["é", 'say "a\\b"'], ["", b"\xff"]]
    back = client.predict("m", {"raw": raw, "name": names})
    assert back["raw_bytes"].tolist() == raw
    assert back["name"].tolist() == [["é", 'say "a\\b"'], ["", "\udcff"]]  # no UTF-8


def test_an_empty_batch(client, server, url):
    sides = {"x": ("float32", (None, 2)), "n": ("float32", (None,))}
    server.models["m"] = {1: from_function(lambda x, n: {"x": x, "n": n}, sides, sides)}
    none = {"x": np.zeros((0, 2)), "n": np.zeros(0)}
    if url.startswith("http"):
        with pytest.raises(ServingError, match=r"'x' has the shape \(0, 2\).*ask over gRPC"):
            client.predict("m", none)
    else:
        assert client.predict("m", none)["x"].shape == (0, 2)


def test_one_output_that_holds_no_rows(client, server):
    outputs = {"boxes": ("float32", (None, 4)), "n": ("int32", (None,))}

    def none(x):
        return {"boxes": np.zeros((0, 4), "float32"), "n": np.zeros(len(x), "int32")}

    server.models["m"] = {1: from_function(none, FLOATS, outputs)}
    answer = client.predict("m", {"x": X})
    assert answer["boxes"].shape == (0, 4) and answer["n"].tolist() == [0, 0]


@pytest.mark.slow
def test_verify_a_published_model(client, server):
    server.models["siamese_omniglot"] = {1: published("siamese_omniglot")}
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 105, 105, 3), dtype="uint8")
    same = client.verify(images[0], images[0])
    assert isinstance(same, float) and same > 0.5
    batch = client.verify(images, images[::-1])
    assert batch.shape == (2,) and batch.dtype == np.float32
    a, b = (tf.io.encode_png(image).numpy() for image in images)
    assert client.verify(a, b) == pytest.approx(batch[0], abs=1e-6)
    assert client.verify([a, b], [b, a]).tolist() == pytest.approx(batch.tolist(), abs=1e-6)
    for bad in ((a, images[0]), ("a.png", "b.png"), (images[0], images)):
        with pytest.raises(ValueError, match="Expected two images of the same kind"):
            client.verify(*bad)


def test_status_and_metadata(client, server):
    server.failed["m"] = {3: "Could not find variable"}
    assert client.status("m") == [
        Status(1, "AVAILABLE", ""),
        Status(3, "END", "Could not find variable"),
    ]
    float_pairs = TensorInfo("float32", (None, 2))
    assert client.metadata("m") == {
        "serving_default": SignatureDef({"x": float_pairs}, {"y": float_pairs})
    }
    server.models["lenet"] = {1: published("lenet5_mnist")}
    found = client.metadata("lenet")
    assert sorted(found) == ["classify", "classify_bytes", "serving_default"]
    assert found["classify_bytes"].inputs == {"image_bytes": ("string", (None,))}
    assert found["classify"].outputs["scores"] == ("float32", (None, 10))


def test_wrong_inputs_are_refused_before_they_are_sent(client, server):
    server.models["lenet"] = {1: published("lenet5_mnist")}
    sides = {"n": ("int32", (None,))}
    server.models["whole"] = {1: from_function(lambda n: {"n": n}, sides, sides)}
    for name, inputs, message in (
        ("m", {"z": X}, r"takes the inputs \['x'\]. Received: \['z'\]"),
        ("m", {"x": X[0]}, r"of shape \(None, 2\): .*Received: shape \(2,\)"),
        ("m", {"x": np.zeros((2, 3))}, r"Received: shape \(2, 3\)"),
        ("lenet", {"image": [b"\x89PNG"]}, r"To send encoded images, use: \['classify_bytes'\]"),
        ("whole", {"n": [1, 1.5]}, r"'n' takes int32. .* int32 cannot hold: \[1.5\]. Round"),
        ("whole", {"n": [np.nan]}, r"int32 cannot hold: \[nan\]"),
        ("whole", {"n": [2**31]}, r"int32 cannot hold: \[2147483648\]"),
        ("whole", {"n": [1, 2**64]}, r"int32 cannot hold: \[18446744073709551616\]"),
        ("whole", {"n": [1, 2j]}, r"int32 cannot hold: \[0\.\+2\.j\]"),
        ("whole", {"n": [None, 1]}, r"Received: list with None, no number"),
        ("whole", {"n": np.ma.array([1, 2], mask=[0, 1])}, "masked values. Fill them: array.fill"),
        ("m", {"x": [np.ma.array([1.0, 2.0], mask=[0, 1])]}, "Received: masked values"),
        ("m", {"x": X + 1j}, r"float32 cannot hold: \[1.\+1.j "),
        ("m", {"x": [[None, 1.0]]}, "Received: list with None, no number"),
        ("m", {"x": [[10**400, 1.0]]}, "float32 cannot hold: .10000"),
    ):
        with pytest.raises(ValueError, match=message):
            client.predict(name, inputs)
    with pytest.raises(ValueError, match=r"m has no signature 'score'. It has: \['serving_def"):
        client.predict("m", {"x": X}, "score")
    assert kinds(server) == []
    assert client.predict("whole", {"n": [1.0, 2.0]})["n"].tolist() == [1, 2]


def test_errors_carry_code_message_and_advice(client, server):
    for code, status in (
        ("INVALID_ARGUMENT", 400), ("PERMISSION_DENIED", 403), ("UNAUTHENTICATED", 401),
        ("NOT_FOUND", 404), ("ABORTED", 409), ("RESOURCE_EXHAUSTED", 429), ("CANCELLED", 499),
        ("INTERNAL", 500), ("UNIMPLEMENTED", 501), ("DEADLINE_EXCEEDED", 504),
    ):  # fmt: skip

        def refuse(status=status, code=code):
            raise RefusedError(status, code, "XLA compilation disabled")

        server.faults.append(refuse)
        with pytest.raises(ServingError, match=f"{code}: XLA compilation disabled") as caught:
            client.status("m")
        assert caught.value.code == code and caught.value.message == "XLA compilation disabled"
    with pytest.raises(ServingError, match="NOT_FOUND: Servable not found for request: Latest.n"):
        client.predict("n", {"x": X})
    with pytest.raises(ServingError, match="Could not find any versions of model n.*NAME/1"):
        client.status("n")


@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        (
            "UNAVAILABLE",
            "The batch scheduling queue to which this is submitted is full",
            "send few",
        ),
        ("UNAVAILABLE", "the connection to h:1 broke (IncompleteRead: 9)", "See the log of"),
        (
            "UNAVAILABLE",
            "no connection to h:1 (Connection refused)",
            "Is the server running.*https",
        ),
        ("UNKNOWN", "h:1 does not speak HTTP (BadStatusLine)", "https:// or grpcs://"),
        ("INVALID_ARGUMENT", "Client sent an HTTP request to an HTTPS server", "Write https://"),
        ("INVALID_ARGUMENT", "Task size 5 is larger than maximum input batch size 4", "fewer rows"),
        ("INVALID_ARGUMENT", "Unrecognized servable version label: canary", "Client.status.name."),
        ("INVALID_ARGUMENT", "No such input", "Compare the inputs with Client.metadata"),
    ],
)
def test_what_is_said_gives_the_advice_before_the_code(code, message, advice):
    said = str(ServingError(code, message))
    assert re.fullmatch(rf"{code}: {re.escape(message)}\. .*{advice}.*", said), said
    assert "Compare" in advice or "Compare the inputs" not in said


FULL = "The batch scheduling queue to which this task was submitted is full"


def test_a_busy_server_is_asked_once_more(client, server):
    def busy():
        raise RefusedError(503, "UNAVAILABLE", FULL)

    server.faults += [None, busy]  # the signatures are answered, the prediction is refused
    np.testing.assert_array_equal(client.predict("m", {"x": X})["y"], 2 * X)
    server.requests.clear()
    server.faults += [busy, busy]
    with pytest.raises(ServingError, match=f"UNAVAILABLE: {FULL}"):
        client.status("m")
    assert len(server.requests) == 2


def test_a_connection_that_breaks_under_a_prediction_is_not_asked_again(client, server):
    server.faults += [None, server.cut]
    with pytest.raises(ServingError) as caught:
        client.predict("m", {"x": X})
    assert caught.value.code == "UNAVAILABLE" and caught.value.taken
    assert len(kinds(server)) == 1  # it may have run


def test_a_connection_cut_before_the_prediction_is_asked_once_more(client, server):
    server.faults.append(server.cut)
    np.testing.assert_array_equal(client.predict("m", {"x": X})["y"], 2 * X)
    assert len(kinds(server)) == 1
    server.faults += [server.cut, server.cut]
    with pytest.raises(ServingError) as caught:
        client.status("m")
    assert caught.value.code == "UNAVAILABLE" and not caught.value.taken
    assert not server.faults


def test_a_prediction_that_ends_unavailable_by_itself_is_not_asked_again(client, server):
    def fails():
        raise RefusedError(503, "UNAVAILABLE", "a parameter server is gone")

    server.faults += [None, fails]
    with pytest.raises(ServingError, match="UNAVAILABLE: a parameter server is gone"):
        client.predict("m", {"x": X})
    assert len(kinds(server)) == 1


@pytest.mark.slow
def test_a_refused_connection_is_tried_until_the_server_is_back(server):
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    for url in (f"http://127.0.0.1:{port}", f"grpc://127.0.0.1:{port}"):
        begun = time.monotonic()
        with Client(url) as client, pytest.raises(ServingError, match="no connection to") as caught:
            client.status("m")
        assert caught.value.code == "UNAVAILABLE" and "Is the server running" in str(caught.value)
        assert 1.3 < time.monotonic() - begun < 5  # waits of 0.2, 0.4 and 0.8 seconds


def test_a_server_that_never_answers(url, server):
    server.faults += [server.hang, None, server.hang]
    with Client(url, timeout=0.5) as client:
        for ask in (lambda: client.status("m"), lambda: client.predict("m", {"x": X})):
            begun = time.monotonic()
            with pytest.raises(ServingError, match="DEADLINE_EXCEEDED.*timeout=seconds"):
                ask()
            assert time.monotonic() - begun < 1.5


def test_the_deadline_holds_for_all_tries_together(url, server):
    def busy():
        time.sleep(0.4)
        raise RefusedError(503, "UNAVAILABLE", "busy")

    server.faults += [busy] * 9
    begun = time.monotonic()
    with Client(url, timeout=0.5) as client, pytest.raises(ServingError):
        client.status("m")
    assert time.monotonic() - begun < 1.2


def test_a_swap_between_signatures_and_prediction(client, server):
    """The version whose signatures were answered is gone: the new one is asked for its own."""
    sides = {"z": ("int64", (None, 2))}

    def swap():
        new = from_function(lambda x: {"z": x.astype("int64") + 7}, FLOATS, sides)
        server.models["m"] = {2: new}

    server.faults += [None, swap]
    answer = client.predict("m", {"x": X})
    assert list(answer) == ["z"] and answer["z"].dtype == np.int64
    np.testing.assert_array_equal(answer["z"], X.astype("int64") + 7)


def test_swaps_in_mid_stream_lose_no_request_and_mix_no_versions(client, server):
    def version(number):
        name = f"y{number % 2}"
        outputs = {name: ("float32", (None, 2))}
        return from_function(lambda x: {name: x * np.float32(number)}, FLOATS, outputs)

    server.models["m"] = {1: version(1)}
    done = threading.Event()

    def publish():
        for number in range(2, 7):
            deadline = time.monotonic() + 10
            while number - 1 not in seen and time.monotonic() < deadline:
                time.sleep(0.01)  # a busy machine may not ask for a while
            time.sleep(0.1)
            server.models["m"][number] = version(number)  # first the new one, then
            del server.models["m"][number - 1]  # the old one goes: AvailabilityPreservingPolicy
        done.set()

    seen = set()
    thread = threading.Thread(target=publish)
    thread.start()
    while not done.is_set():
        [(name, value)] = client.predict("m", {"x": X}).items()
        number = int(value[0, 0])
        assert name == f"y{number % 2}"
        np.testing.assert_array_equal(value, X * number)
        seen.add(number)
    thread.join()
    assert len(seen) > 2


def test_signatures_of_a_named_version_are_asked_once(client, server):
    for _ in range(3):
        client.predict("m", {"x": X}, version=1)
    assert len(server.requests) == 4
    with pytest.raises(ServingError, match=r"Specific\(m, 5\)"):
        client.predict("m", {"x": X}, version=5)


def test_threads_share_a_client(client):
    wrong = []

    def ask(number):
        x = np.full((1, 2), number, "float32")
        if client.predict("m", {"x": x})["y"].tolist() != [[2 * number] * 2]:
            wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_grpc_messages_larger_than_four_megabytes(server):
    sides = {"x": ("float32", (None, 1000))}
    server.models["m"] = {1: from_function(lambda x: {"x": x}, sides, sides)}
    x = np.random.default_rng(0).random((1100, 1000), "float32")
    with Client(server.grpc) as client:
        np.testing.assert_array_equal(client.predict("m", {"x": x})["x"], x)


def test_what_goes_over_the_wire_in_rest(server):
    server.models["lenet"] = {1: published("lenet5_mnist")}
    png = tf.io.encode_png(np.zeros((28, 28, 1), "uint8")).numpy()
    with Client(server.rest) as client:
        client.predict("lenet", {"image_bytes": [png]}, signature="classify_bytes")
    method, path, body = server.requests[-1]
    assert (method, path) == ("POST", "/v1/models/lenet/versions/1:predict")
    assert json.loads(body) == {
        "signature_name": "classify_bytes",
        "inputs": {"image_bytes": [{"b64": base64.b64encode(png).decode()}]},
    }


@pytest.mark.parametrize(
    "wrong",
    ["ftp://host:1", "http://", "", "grpc://", "http://host:99999", "http://host:x", None,
     "http://host:8501/v1/models/m", "http://host:8501/v1/models/", b"http://host"],
)  # fmt: skip
def test_a_wrong_url(wrong):
    with pytest.raises(ValueError, match=r"Expected http://host:8501 .*Received: "):
        Client(wrong)


def test_a_prefix_of_a_proxy_may_hold_v1():
    Client("https://gateway.example.com/api/v1/serving").close()


def test_the_port_of_the_other_protocol(server):
    with Client(f"http://{server.grpc}", timeout=5) as client, pytest.raises(ServingError) as a:
        client.status("m")
    other = server.rest.replace("http", "grpc")
    with Client(other, timeout=5) as client, pytest.raises(ServingError) as b:
        client.status("m")
    for caught in (a, b):
        assert "REST" in str(caught.value) and "8500" in str(caught.value)


def raw_server(*pieces, pause=0.0):
    """A port that reads a request and writes `pieces`, then closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(1 << 16)
            try:
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause)
            except OSError:
                pass
            connection.close()

    threading.Thread(target=answer, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ((HEAD % 400, b'{"model_version_status": ['), "UNAVAILABLE"),  # cut inside the body
        ((HEAD[:30],), "UNAVAILABLE"),  # and of the head
        ((), "UNAVAILABLE"),
        ((HEAD % 5, b"hello"), "UNKNOWN"),
        ((HEAD % 11, b'{"ok": true}'[:11]), "UNKNOWN"),
        ((HEAD % 12, b'{"ok": true}'), "UNKNOWN"),
        ((b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",), "INVALID_ARGUMENT"),
        ((b"HTTP/1.1 404 Not Found\r\n\r\n<html>nginx</html>",), "NOT_FOUND"),
        ((b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",), "UNKNOWN"),
        ((b"SSH-2.0-OpenSSH_9.6\r\n",), "UNKNOWN"),
    ],
)
def test_answers_that_are_cut_or_of_another_program(pieces, code):
    listener, url = raw_server(*pieces)
    with Client(url, timeout=5) as client, pytest.raises(ServingError) as caught:
        client.status("m")
    listener.close()
    assert caught.value.code == code and caught.value.message


def test_an_answer_that_comes_byte_by_byte_has_a_deadline_too():
    listener, url = raw_server(HEAD % 1000, *[b" "] * 1000, pause=0.05)
    begun = time.monotonic()
    with Client(url, timeout=0.6) as client, pytest.raises(ServingError, match="DEADLINE"):
        client.status("m")
    listener.close()
    assert time.monotonic() - begun < 1


def test_an_answer_in_chunks_as_a_proxy_sends_it():
    status = b'{"model_version_status": [{"version": "1", "state": "AVAILABLE", '
    rest = b'"status": {"error_code": "OK", "error_message": ""}}]}'
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (status, rest, b""))
    listener, url = raw_server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    with Client(f"{url}/behind/a/path/") as client:
        assert client.status("m") == [Status(1, "AVAILABLE", "")]
    listener.close()


def test_numbers_at_the_ends_of_their_dtypes():
    def sent(dtype, values):
        signatures = {"s": SignatureDef({"x": TensorInfo(dtype, (None,))}, {})}
        return _arrays("s", signatures, {"x": values})["x"]

    assert sent("uint64", [2**64 - 1, 0]).tolist() == [2**64 - 1, 0]
    assert sent("uint64", [1.0, 0]).tolist() == [1, 0]
    for dtype, values in (
        ("uint64", [2**64, 0]), ("uint64", [-1, 2**64 - 1]), ("uint64", [0.5]),
        ("float32", [1e300]), ("float16", [70_000]),
        ("float16", np.array([1e38], tf.bfloat16.as_numpy_dtype)),
        ("bfloat16", [1e300]), ("bfloat16", [1j]), ("float16", [1 + 1j]), ("uint8", [1j]),
        ("bool", [1j]), ("complex64", [1e300j]), ("int64", [2**53 + 1, 2**64]),
        ("int8", [None, 1]), ("float32", [{}]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=dtype):
            sent(dtype, values)
    assert sent("float32", [2**53, 2**64]).tolist() == [2**53, 2**64]
    assert sent("float32", np.array([1 + 0j, 2])).tolist() == [1, 2]
    assert sent("complex64", [1 + 2j, np.inf]).tolist() == [1 + 2j, np.inf]
    assert sent("float32", np.ma.array([1.0, 2.0])).tolist() == [1, 2]
    assert sent("bfloat16", np.array([1.5], tf.bfloat16.as_numpy_dtype)).tolist() == [1.5]
    assert np.isinf(sent("float32", [np.inf, -np.inf])).all() and np.isnan(
        sent("float32", [np.nan])
    )


def test_what_cannot_be_sent_is_refused_before_it_is():
    with Client(f"http://127.0.0.1:{1}", timeout=1) as client:
        for version in ("1", 1.0, True):
            for ask in (
                lambda v: client.predict("m", {}, version=v),
                lambda v: client.metadata("m", v),
            ):
                with pytest.raises(TypeError, match="`version` is a whole number"):
                    ask(version)
        with pytest.raises(TypeError, match="Write version=1"):
            client.predict("m", {}, version="1")
        for version in (-1, 2**63):
            with pytest.raises(ValueError, match="from 0 to 2.*Received: -?[19]"):
                client.metadata("m", version)
    with pytest.raises(ValueError, match="over REST alone.*'guest'"):
        Client("grpc://guest:key@localhost:8500")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (np.ones((1, 2)), "takes a dict with the inputs \\['pixels'\\]. Received: ndarray"),
        ({"pixels": [[1.0, 2.0], [3.0]]}, "'pixels' takes float32 .*rows of several lengths"),
    ],
)
def test_inputs_are_named(inputs, said):
    from keras_shared.serving.client import _arrays
    from keras_shared.serving.messages import SignatureDef, TensorInfo

    taken = SignatureDef({"pixels": TensorInfo("float32", (None, 2))}, {})
    with pytest.raises((TypeError, ValueError), match=said):
        _arrays("serving_default", {"serving_default": taken}, inputs)
