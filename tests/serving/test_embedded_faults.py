"""The embedded engine with clients, files and signals that mean it ill."""

import contextlib
import gzip
import http.client
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
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

sys.path.insert(0, __file__.rpartition("/")[0])
from embedded_server import serving
from real import free_port

from keras_shared.serving import Client, ServingError
from keras_shared.serving.embedded import server as engine
from keras_shared.serving.embedded.options import ConfigError, Options
from keras_shared.serving.engine import _ready
from saved_models import write

GOOD = json.dumps({"instances": [[1, 2, 3]]}).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("m")

    def wide(kernel, x):
        return {"y": tf.tile(x @ kernel, [1, tf.where(x[0, 0] > 99.0, 2_000_000, 1)])}

    def slow(kernel, x):
        turns = tf.where(x[0, 0] > 999.0, 10**9, 0)
        return {"y": tf.while_loop(lambda i: i < turns, lambda i: i + 1, [0])[0] + tf.shape(x)[:1]}

    write(base / "wide" / "1", wide)
    write(base / "slow" / "1", slow)
    return base


@contextlib.contextmanager
def wide(folder, **options):
    with serving({"m": folder / "wide"}, **options) as server:
        yield server


def head(length, path="/v1/models/m:predict"):
    return f"POST {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n".encode()


def connected(server):
    return socket.create_connection(("127.0.0.1", server.rest_port), timeout=30)


def answer_of(connection):
    """All that comes until the other side closes."""
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            content += piece
    return content


def fine(server):
    return server.ask("POST", "/v1/models/m:predict", GOOD)[0] == 200


@pytest.mark.slow
def test_bodies_that_are_too_large_or_never_end(folder):
    with wide(folder, max_request_bytes=100_000, rest_api_timeout_in_ms=1000) as server:
        status, found = server.ask("POST", "/v1/models/m:predict", b" " * 100_001)
        assert status == 413 and "more than the 100,000 bytes allowed" in found["error"]
        with connected(server) as connection:  # it says so, and need not send it
            connection.sendall(head("Content-Length: 999999999999"))
            assert answer_of(connection).startswith(b"HTTP/1.1 413")
        with connected(server) as connection:
            connection.sendall(head("Transfer-Encoding: chunked"))
            with pytest.raises(OSError):  # it is cut
                for _ in range(100_000):
                    connection.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")
        with connected(server) as connection:
            connection.sendall(head("Content-Length: 100") + b"{")
            begun = time.monotonic()
            assert answer_of(connection).startswith(b"HTTP/1.1 408")
            assert 0.8 < time.monotonic() - begun < 10
        packed = gzip.compress(b" " * 10**6)
        headers = {"Content-Encoding": "gzip"}
        assert server.ask("POST", "/v1/models/m:predict", packed, **headers)[0] == 413
        assert fine(server)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_client_is_told_of_the_limit(folder, pair, scheme):
    tls = scheme == "https"
    with wide(folder, max_request_bytes=100_000, **(pair if tls else {})) as server:
        trusted = {"certificates": pair["certificate"]} if tls else {}
        with Client(f"{scheme}://localhost:{server.rest_port}", **trusted) as client:
            for rows in (200_000, 2_000_000):
                with pytest.raises(ServingError, match="Send smaller batches") as caught:
                    client.predict("m", {"x": np.ones((rows, 3), "float32")})
                assert "100,000 bytes allowed (--max-request-bytes)" in caught.value.message
                assert caught.value.code == "RESOURCE_EXHAUSTED"


def test_what_is_no_http_and_no_utf_8(folder):
    with wide(folder) as server:
        for sent in (b"\xff\xfe\x00\r\n\r\n", b"GET \xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
                     b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n"):  # fmt: skip
            with connected(server) as connection:
                connection.sendall(sent)
                assert b" 400 " in answer_of(connection).partition(b"\r\n")[0]
        for body in (b"\xff\xfe", b'{"instances": [[1, 2, \xff]]}', b'{"\xff": 1}'):
            assert server.ask("POST", "/v1/models/m:predict", body)[0] == 400
        assert server.ask("GET", "/v1/models/%ff%0a")[0] == 404
        assert fine(server)


def test_a_client_that_offers_http_2(folder):
    """As Java's HttpClient and `curl --http2` do: the server goes on as if it had not."""
    offer = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABk",
    }
    with wide(folder) as server:
        for body in (GOOD, iter([GOOD[:5], GOOD[5:]])):  # of a length that is told, and in chunks
            status, found = server.ask("POST", "/v1/models/m:predict", body, **offer)
            assert status == 200 and len(found["predictions"]) == 1, found


@pytest.mark.slow
def test_silent_clients_are_dropped(folder, monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE", 0.5)
    with wide(folder) as server:
        with connected(server) as silent, connected(server) as dripping:
            silent.settimeout(10)
            assert answer_of(silent) == b""
            with pytest.raises(OSError):
                for _ in range(100):
                    dripping.sendall(b"G")
                    time.sleep(0.05)
        with connected(server) as kept:  # one that asks again and again stays
            for _ in range(4):
                kept.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
                content = b""
                while b"SERVING" not in content:
                    piece = kept.recv(1 << 16)
                    assert piece
                    content += piece
                time.sleep(0.3)
        with connected(server) as deaf:  # an answer of many megabytes that is not read
            body = json.dumps({"instances": [[100, 0, 0]]}).encode()
            deaf.sendall(head(f"Content-Length: {len(body)}") + body)
            time.sleep(4)
            deaf.settimeout(20)
            assert not answer_of(deaf).endswith(b"]}")
        assert fine(server)


@pytest.mark.slow
def test_too_many_at_once(folder):
    with wide(folder, max_requests=2, rest_api_timeout_in_ms=2000) as server:
        waiting = [connected(server) for _ in range(2)]
        for connection in waiting:
            connection.sendall(head("Content-Length: 10"))
        time.sleep(0.3)
        status, found = server.ask("POST", "/v1/models/m:predict", GOOD)
        assert status == 503 and "too many requests" in found["error"]
        assert server.ask("GET", "/health")[0] == 200
        for connection in waiting:
            assert b" 408 " in answer_of(connection)
            connection.close()
        assert fine(server)


@pytest.mark.slow
def test_a_graph_that_never_ends(folder):
    with serving({"m": folder / "slow"}, rest_api_timeout_in_ms=1000) as server:
        body = json.dumps({"instances": [[1000, 0, 0]]})
        status, found = server.ask("POST", "/v1/models/m:predict", body)
        assert status == 504, found
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([[1000, 0, 0]])))
        with grpc.insecure_channel(server.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(request, timeout=1)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert server.predict("m", {"instances": [[0, 0, 0]]})[0] == 200


def test_a_port_that_is_taken(folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for name in ("port", "rest_api_port"):
            taken = pytest.raises(ConfigError, match=f"{port} cannot be had for")
            with taken, wide(folder, **{name: port}):
                pass


def test_a_token(folder, tmp_path):
    (tmp_path / "token").write_text("s3cret\n")
    with wide(folder, token_file=str(tmp_path / "token")) as server:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer s3cret\xff"},
        ):
            for method, path in (("POST", "/v1/models/m:predict"), ("GET", "/v1/models/m"),
                                 ("GET", "/monitoring/prometheus/metrics")):  # fmt: skip
                assert server.ask(method, path, GOOD, **headers)[0] == 401
        assert server.ask("GET", "/health")[0] == 200
        for scheme in ("Bearer", "bearer", "BEARER "):  # RFC 9110: its case does not count
            bearer = {"Authorization": f"{scheme} s3cret"}
            assert server.ask("POST", "/v1/models/m:predict", GOOD, **bearer)[0] == 200
        with grpc.insecure_channel(server.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "n"
            metadata_of = (("authorization", "Bearer s3cret"),)
            for metadata, code in (((), "UNAUTHENTICATED"), (metadata_of, "NOT_FOUND")):
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Predict(request, timeout=20, metadata=metadata)
                assert caught.value.code() is grpc.StatusCode[code]
    (tmp_path / "token").write_text("\n")
    empty = {"token_file": str(tmp_path / "token")}
    with pytest.raises(ConfigError, match="holds no token"), wide(folder, **empty):
        pass


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate of this machine, signed by itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    files = {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", files["key"], "-out", files["certificate"]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def test_tls(folder, pair):
    with wide(folder, **pair) as server:
        context = ssl.create_default_context(cafile=pair["certificate"])
        connection = http.client.HTTPSConnection("localhost", server.rest_port, context=context)
        connection.request("POST", "/v1/models/m:predict", GOOD)
        assert connection.getresponse().status == 200
        connection.close()
        with connected(server) as plain:
            plain.sendall(head("Content-Length: 0"))
            assert b"HTTP" not in answer_of(plain)
        root = pathlib.Path(pair["certificate"]).read_bytes()
        credentials = grpc.ssl_channel_credentials(root)
        with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "n"
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(request, timeout=20)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(ConfigError, match="TLS needs both"), wide(folder, key=pair["key"]):
        pass
    locked = f"{pair['key']}.locked"
    packing = ["openssl", "pkey", "-aes256", "-passout", "pass:abcd", "-in", pair["key"], "-out"]
    subprocess.run([*packing, locked], check=True, capture_output=True)
    with pytest.raises(ConfigError, match="locked is encrypted. Expected a key that needs no"):
        Options(**pair | {"key": locked}).pair()
    wrong = {"key": pair["key"], "certificate": pair["key"]}
    with pytest.raises(ConfigError, match="TLS cannot start"), wide(folder, **wrong):
        pass


@contextlib.contextmanager
def launched(*arguments, embedded=True):
    """`keras-shared serve` as a process, once it is ready."""
    rest, over_grpc = free_port(), free_port()
    engine = ["--engine", "embedded"] if embedded else []
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_shared.cli", "serve", *map(str, arguments), *engine,
         "--rest-port", str(rest), "--grpc-port", str(over_grpc)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PATH": "/nowhere"},
    )  # fmt: skip
    process.errors, process.rest_port = [], rest
    log = threading.Thread(target=lambda: process.errors.extend(process.stderr), daemon=True)
    log.start()
    try:
        process.printed = process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        log.join(20)


def inner(process):
    """The process ID of the engine itself, two below."""
    pid = process.pid
    for _ in range(2):
        pid = int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


@pytest.mark.slow
def test_sigterm_lets_requests_end(folder, tmp_path):
    with launched(folder / "slow") as process:
        assert process.printed.startswith("The embedded engine is ready. gRPC: localhost:")
        found = []

        def ask():
            connection = http.client.HTTPConnection("127.0.0.1", process.rest_port, timeout=60)
            body = b'{"instances": ' + b" " * 100 + b"[[0, 0, 0]]}"
            connection.putrequest("POST", "/v1/models/slow:predict")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:50])
            time.sleep(2)
            connection.send(body[50:])
            found.append(connection.getresponse().status)

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(1)
        process.terminate()
        thread.join()
        assert found == [200] and process.wait(30) == 0
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", process.rest_port), timeout=1)


@pytest.mark.slow
def test_without_tf_serving_it_serves_and_says_so(folder):
    with launched(folder / "wide", embedded=False) as process:
        assert process.printed.startswith("The embedded engine is ready")
        os.kill(inner(process), signal.SIGKILL)
        assert process.wait(20) == 128 + signal.SIGKILL
    said = "".join(process.errors)
    assert "Neither tensorflow_model_server nor docker is on the PATH: the embedded engine" in said
    assert "The server was killed, as the system does when memory is short." in said


@pytest.mark.slow
def test_a_model_that_does_not_load(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").write_bytes(b"broken")
    with launched(tmp_path / "m") as process:
        assert process.printed == "" and process.wait(60) == 1
    said = "".join(process.errors)
    assert "The embedded engine ended with status 1. The last lines of its log:" in said
    assert "m could not be loaded: saved_model.pb is corrupt" in said


@pytest.mark.slow
def test_a_model_config_file(folder, tmp_path):
    (tmp_path / "models.config").write_text(
        f'model_config_list {{ config {{ name: "w" base_path: "{folder}/wide" '
        'model_version_policy { all {} } version_labels { key: "a" value: 1 } } }'
    )
    with launched("--model-config-file", tmp_path / "models.config") as process:
        assert process.printed.startswith("The embedded engine is ready")
        with Client(f"http://127.0.0.1:{process.rest_port}") as client:
            assert client.status("w")[0].state == "AVAILABLE"


@pytest.mark.slow
def test_a_thousand_connections_at_once(folder):
    with wide(folder) as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 3000:
            pytest.skip(f"this machine allows {hard} open files")
        connections = [connected(server) for _ in range(1000)]
        for connection in connections:
            connection.sendall(head(f"Content-Length: {len(GOOD)}\r\nConnection: close") + GOOD)
        found = [answer_of(connection)[9:12] for connection in connections]
        for connection in connections:
            connection.close()
        assert {*found} <= {b"200", b"503"} and found.count(b"200") >= 500
        assert fine(server)


@pytest.mark.slow
def test_a_minute_of_load_through_five_swaps(tmp_path):
    base = tmp_path / "m"
    for number in range(1, 7):
        write(base / f".{number}", lambda kernel, x, n=number: {"y": x @ (kernel * n)})
    (base / ".1").rename(base / "1")
    batching = tmp_path / "batching.config"
    batching.write_text("batch_timeout_micros { value: 1000 } max_enqueued_batches { value: 100 }")
    wrong, counts, ended = [], {}, threading.Event()
    with serving({"m": base}, batching_parameters_file=str(batching)) as server:

        def ask(url):
            with Client(url) as client:
                while not ended.is_set():
                    try:
                        value = float(client.predict("m", {"x": [[1, 0, 0]]})["y"][0, 0])
                        counts[value] = counts.get(value, 0) + 1
                    except Exception as error:
                        wrong.append(error)

        def ask_raw():
            while not ended.is_set():
                status, found = server.predict("m", {"instances": [[1, 0, 0]]})
                if status != 200:
                    wrong.append(found)

        threads = [threading.Thread(target=ask, args=(u,)) for u in (server.rest, server.grpc) * 2]
        threads += [threading.Thread(target=ask_raw) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(2, 7):
            time.sleep(10)
            (base / f".{number}").rename(base / str(number))
        time.sleep(10)
        ended.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:3]
    assert {*counts} == {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}


def test_the_client_knows_tokens_tls_and_labels(folder, pair, tmp_path):
    (tmp_path / "token").write_text("s3cret")
    labels = {"m": {"version_labels": {"stable": 1}}}
    secured = {**pair, "token_file": str(tmp_path / "token")}
    x = np.float32([[1, 0, 0]])
    with serving({"m": folder / "wide"}, labels, **secured) as server:
        urls = (f"https://localhost:{server.rest_port}", f"grpcs://localhost:{server.grpc_port}")
        for url in urls:
            trusted = {"certificates": pair["certificate"], "timeout": 20}
            with Client(url, token="s3cret", **trusted) as client:
                for version in (None, 1, "stable"):
                    answer = client.predict("m", {"x": x}, version=version)
                    assert answer["y"].tolist() == [[1.0, 1.0]]
                assert [*client.metadata("m", "stable")] == ["serving_default"]
                with pytest.raises(ServingError, match="Unrecognized servable version label: no"):
                    client.predict("m", {"x": x}, version="no")
            with Client(url, **trusted) as client, pytest.raises(ServingError) as caught:
                client.status("m")
            assert caught.value.code == "UNAUTHENTICATED"
        for url in urls:
            with Client(url, timeout=20) as client, pytest.raises(ServingError) as caught:
                client.status("m")
            assert caught.value.code == "UNAUTHENTICATED"
            assert "is not trusted" in str(caught.value) and "self" in str(caught.value)


def test_the_request_that_is_printed_is_let_in(folder, pair, tmp_path):
    (tmp_path / "to ken").write_text("s3cret")
    access = {"token_file": str(tmp_path / "to ken"), "certificate": pair["certificate"]}
    with serving({"m": folder / "wide"}, **access, key=pair["key"]) as server:
        shown = _ready(f"https://localhost:{server.rest_port}", 1, ["m"], **access)
        command = shown.partition("try:\n")[2]
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == {"outputs": [[0.0, 0.0]]}, done


def test_tokens_and_certificates_that_cannot_be(pair):
    for url, given, message in (
        ("http://a:1", {"certificates": pair["certificate"]}, "for https:// and grpcs:// alone"),
        ("https://a:1", {"certificates": pair["key"]}, "is a PEM file of certificates. Received"),
        ("https://a:1", {"certificates": "/nowhere"}, "/nowhere .*No such file"),
        ("http://a:1", {"token": "a b"}, "text without spaces"),
        ("http://me:b@a:1", {"token": "a"}, "takes the place of a name and password"),
    ):
        with pytest.raises(ValueError, match=message):
            Client(url, **given)
