"""The client's limits of time and memory, against real sockets that are slow, endless or large."""

import contextlib
import functools
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2

from keras_shared.serving import Client, ServingError, SignatureDef, Status, TensorInfo
from keras_shared.serving.client import _promised

sys.path.insert(0, __file__.rpartition("/")[0])
from hostile import dripped, ok, raw_grpc_server, raw_server
from recording import metadata, tensor_message

STATUS = json.dumps(
    {"model_version_status": [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]}
).encode()  # fmt: skip
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PAIRS = {"x": ("float32", (None, 2))}
X = np.array([[1, 2], [3, 4]], "float32")


SLOW = {
    "nothing": lambda: dripped(b"", b"", seconds=0.2, times=10),
    "status line": lambda: dripped(b"HTTP/1.1 ", b"2"),
    "head": lambda: dripped(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "continue": lambda: dripped(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "continue at once": lambda: dripped(
        b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99, seconds=0, times=10**6
    ),
    "body": lambda: dripped(ok(b"x" * 10**4)[:50], b" "),
    "body without end": lambda: dripped(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "chunk size": lambda: dripped(CHUNKED, b"0"),
    "chunk extension": lambda: dripped(CHUNKED + b"5;", b"x"),
    "chunks": lambda: dripped(CHUNKED, b"1\r\n \r\n"),
    "trailer": lambda: dripped(CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(STATUS), STATUS), b"x"),
    "trailers": lambda: dripped(
        CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(STATUS), STATUS), b"X: y\r\n", seconds=0, times=10**6
    ),
}


def ends_in_time(url, timeout=0.3, code="DEADLINE_EXCEEDED"):
    begun = time.monotonic()
    with Client(url, timeout) as client, pytest.raises(ServingError, match=code):
        client.status("m")
    assert time.monotonic() - begun < timeout + 0.7


@pytest.mark.parametrize("slow", SLOW)
def test_the_deadline_holds_whatever_drips(slow):
    with raw_server(lambda _: SLOW[slow]()) as (url, _):
        ends_in_time(url)


def test_the_deadline_holds_for_a_server_that_does_not_read():
    text = TensorInfo("string", (None,))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=1) as client,
    ):
        client._pinned["m", 1] = {"serving_default": SignatureDef({"x": text}, {"x": text})}
        begun = time.monotonic()
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
            client.predict("m", {"x": [b"x" * 20_000_000]}, version=1)
        assert time.monotonic() - begun < 3


def test_the_deadline_holds_for_a_full_queue_of_connections_and_for_names(monkeypatch):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for sock in waiting:
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
    ends_in_time(f"http://127.0.0.1:{listener.getsockname()[1]}")
    for sock in (listener, *waiting):
        sock.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(3))  # as glibc without a net
    for name in ("models.example", "1.2.3.4.5"):
        ends_in_time(f"http://{name}:8501")


def test_the_deadline_holds_for_all_addresses_of_a_name_together():
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port, listeners = listener.getsockname()[1], [listener]
        with contextlib.suppress(OSError):  # no IPv6 here
            six = socket.create_server(("::1", port), family=socket.AF_INET6, backlog=0)
            listeners.append(stack.enter_context(six))
        for one in listeners:
            for _ in range(4):
                sock = stack.enter_context(socket.socket(one.family))
                sock.setblocking(False)
                sock.connect_ex(one.getsockname())
        ends_in_time(f"http://localhost:{port}", timeout=1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("no openssl on the PATH")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_over_tls(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with raw_server(lambda _: [ok(STATUS)], context) as (url, _):
        with Client(url, timeout=5) as client, pytest.raises(ServingError) as caught:
            client.status("m")
        assert caught.value.code == "UNAUTHENTICATED" and "self-signed" in caught.value.message
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        with Client(url, timeout=5) as client:
            assert client.status("m") == [Status(1, "AVAILABLE", "")]
    for slow in ("head", "body", "trailer"):
        with raw_server(lambda _, slow=slow: SLOW[slow](), context) as (url, _):
            ends_in_time(url)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # no handshake
        ends_in_time(f"https://127.0.0.1:{silent.getsockname()[1]}")


def test_the_deadline_holds_for_repetitions_too(monkeypatch):
    monkeypatch.setattr("keras_shared.serving.client.FIRST_WAIT", 0.05)
    with raw_server(lambda _: dripped(b"HTTP/1.1 503 x\r\n", b"\r\n", seconds=0.2, times=1)) as (
        url,
        sent,
    ):
        ends_in_time(url, code="UNAVAILABLE|DEADLINE")
    assert 1 <= len(sent) <= 2


def endless(head=b"HTTP/1.1 200 OK\r\n\r\n", piece=b" " * 65536):
    yield head
    while True:
        yield piece


@pytest.mark.parametrize(
    "answer",
    [
        endless,
        lambda: endless(CHUNKED, b"10000\r\n%s\r\n" % (b" " * 65536)),
        lambda: endless(CHUNKED + b"-1\r\n"),
        lambda: endless(b"HTTP/1.1 200 OK\r\nContent-Length: 600000000\r\n\r\n"),
        lambda: endless(b"HTTP/1.1 500 x\r\n\r\n"),
    ],
)
def test_a_body_without_end_is_not_kept(answer):
    with raw_server(lambda _: answer()) as (url, sent):
        with Client(url, timeout=20) as client, pytest.raises(ServingError) as caught:
            client.status("m")
        assert caught.value.code in ("RESOURCE_EXHAUSTED", "UNKNOWN")
        while not sent:
            time.sleep(0.01)
    assert sent[0] < 20e6  # and what the sockets hold


def grows(ask):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ask()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def test_an_answer_is_no_larger_than_the_signature_promises():
    about, _ = metadata(PAIRS, {"y": ("float32", (None, 2))})

    def answer(request):
        if request.startswith(b"GET"):
            yield ok(about)
        else:
            yield from endless(b'HTTP/1.1 200 OK\r\n\r\n{"outputs": [', b"[1, 2]," * 9000)

    with raw_server(answer) as (url, sent):
        with Client(url) as client, pytest.raises(ServingError, match="more than the 8,388,608 b"):
            client.predict("m", {"x": X})
        limit = Client(url, max_response_bytes=len(about))
        assert limit.metadata("m")
        limit = Client(url, max_response_bytes=len(about) - 1)
        with pytest.raises(ServingError, match=r"RESOURCE.*max_response_bytes=number\)"):
            limit.metadata("m")
    assert max(sent) < 20e6


def test_what_a_signature_promises():
    pairs = TensorInfo("float32", (None, 2))
    rows = {"x": np.zeros((10**6, 2))}
    for info, least, most in (
        (pairs, 64 * 2 * 10**6, 2**28),
        (TensorInfo("float32", (None, 2**40)), 2**31 - 1, 2**31 - 1),
        (TensorInfo("float32", (3,)), 5e6, 2**23),
        (TensorInfo("string", (None,)), 1e8, 2**27),
        (TensorInfo("int64", (None, None)), 1e8, 2**27),
        (TensorInfo("int64", None), 1e8, 2**27),
        (TensorInfo("float32", (None, 0)), 64e6, 2**27),
    ):
        assert least <= _promised(SignatureDef({"x": pairs}, {"y": info}), rows) <= most


def test_a_large_answer_that_is_promised_comes():
    about, _ = metadata(PAIRS, {"y": ("float32", (None, 1000))})
    y = np.random.default_rng(0).random((300, 1000), "float32")
    content = json.dumps({"outputs": y.tolist()}).encode()
    assert len(content) > 5e6
    with (
        raw_server(lambda request: [ok(about if request[:3] == b"GET" else content)]) as (url, _),
        Client(url) as client,
    ):
        answer = client.predict("m", {"x": np.zeros((300, 2))})["y"]
    np.testing.assert_array_equal(answer, y)


@pytest.mark.parametrize(
    ("dtype", "proto"),
    [
        ("float32", functools.partial(tensor_message, shape=(2**30,), float_val=[1.0])),
        ("string", functools.partial(tensor_message, "string", (2**30,), string_val=[b"x"])),
        ("int8", functools.partial(tensor_message, "int8", (2**62, 2**62), int_val=[1])),
    ],
)
def test_one_value_does_not_stand_for_gigabytes(dtype, proto):
    _, about = metadata(PAIRS, {"y": (dtype, None)})
    response = predict_pb2.PredictResponse()
    response.outputs["y"].CopyFrom(proto())
    answers = {"GetModelMetadata": about, "Predict": response.SerializeToString()}

    def ask():
        with (
            Client(url) as client,
            pytest.raises(ServingError, match="'y' of shape .* has"),
        ):
            client.predict("m", {"x": X})

    with raw_grpc_server(answers.get) as url:
        assert grows(ask) < 300


def test_a_large_message_is_refused_at_its_head():
    _, about = metadata(PAIRS, {"y": ("float32", (None, 2))})
    answers = {"GetModelMetadata": about, "Predict": bytes(50_000_000)}
    for compression in (None, grpc.Compression.Gzip):
        with raw_grpc_server(answers.get, compression) as url, Client(url) as client:
            with pytest.raises(ServingError, match=r"RESOURCE_EXHAUSTED: .*larger than max") as e:
                client.predict("m", {"x": X})
            assert "max_response_bytes" in str(e.value)
            assert client.metadata("m")


def late_proxy(target, seconds):
    """Every piece arrives `seconds` later, each way."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        while data := source.recv(1 << 16):
            threading.Timer(seconds, late, (sink, data)).start()

    def late(sink, data):
        with contextlib.suppress(OSError):
            sink.sendall(data)

    def accept():
        near, _ = listener.accept()
        far = socket.create_connection(target)
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener


def status_message():
    response = get_model_status_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=1, state=30)
    return response.SerializeToString()


def test_grpc_over_a_slow_line():
    with raw_grpc_server(lambda _: status_message()) as url:
        host, port = url.split(":")
        proxy = late_proxy((host, int(port)), 0.35)
        with Client(f"127.0.0.1:{proxy.getsockname()[1]}", timeout=15) as client:
            assert client.status("m") == [Status(1, "AVAILABLE", "")]
    proxy.close()


def state(pid):
    """Of a process: R, S, T for stopped; see proc(5)."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.slow
def test_a_server_that_is_stopped_for_a_while_answers_then(tmp_path):
    for number, content in enumerate((status_message(), STATUS)):
        (tmp_path / "answer").write_bytes(content)
        process = subprocess.Popen(
            [sys.executable, __file__.replace("test_client_limits", "hostile"),
             tmp_path / "answer"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            url = process.stdout.readline().split()[number]
            with Client(url, timeout=20) as client:
                for _ in range(2):  # while it connects, and when it is connected
                    os.kill(process.pid, signal.SIGSTOP)
                    while state(process.pid) != "T":  # it takes a moment
                        time.sleep(0.001)
                    threading.Timer(0.6, os.kill, (process.pid, signal.SIGCONT)).start()
                    begun = time.monotonic()
                    assert client.status("m") == [Status(1, "AVAILABLE", "")]
                    assert 0.5 < time.monotonic() - begun < 5
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf")])
def test_a_wrong_timeout_or_size(wrong):
    with pytest.raises(ValueError, match="`timeout` is a number of seconds above 0. Received"):
        Client("localhost:1", timeout=wrong)
    if wrong <= 0:
        with pytest.raises(ValueError, match="`max_response_bytes` is a number above 0"):
            Client("localhost:1", max_response_bytes=wrong)
