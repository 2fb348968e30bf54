"""REST connections are used again, and a prediction never arrives twice."""

import concurrent.futures
import contextlib
import http.server
import json
import os
import sys
import threading
import time

import numpy as np
import pytest

from keras_shared.serving import Client, ServingError

sys.path.insert(0, __file__.rpartition("/")[0])
from recording import metadata

ABOUT, _ = metadata({"x": ("float32", (None,))}, {"y": ("float32", (None,))})
X = {"x": np.ones(2, "float32")}


@contextlib.contextmanager
def server(closes=False, chunks=False):
    """A model that gives back its input; the ports that asked, and how many predictions came."""
    asked, predictions = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer(ABOUT)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            predictions.append(body)
            self.answer(json.dumps({"outputs": body["inputs"]["x"]}).encode())

        def answer(self, content):
            asked.append(self.client_address[1])
            self.send_response(200)
            if chunks:
                self.send_header("Transfer-Encoding", "chunked")
                content = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
            else:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = closes  # without a word: no header says so

        def log_message(self, *_):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", asked, predictions
    finally:
        listening.shutdown()
        listening.server_close()


@pytest.mark.parametrize("chunks", [False, True])
def test_a_connection_serves_many_predictions(chunks):
    with server(chunks=chunks) as (url, asked, predictions), Client(url) as client:
        for _ in range(6):
            np.testing.assert_array_equal(client.predict("m", X)["y"], X["x"])
            time.sleep(0.1)
    assert len(predictions) == 6 and len(asked) == 12 and len(set(asked)) == 2


def test_after_a_pause_it_is_a_new_one():
    with server() as (url, asked, _), Client(url) as client:
        client.metadata("m")
        time.sleep(1.2)  # the server may be about to close it
        client.metadata("m")
    assert len(set(asked)) == 2


def test_a_server_that_closes_without_a_word():
    with server(closes=True) as (url, asked, predictions), Client(url) as client:
        for pause in (0, 0, 0.1, 0, 0.1):
            np.testing.assert_array_equal(client.predict("m", X)["y"], X["x"])
            time.sleep(pause)
        assert len(predictions) == 5
        assert len(set(asked)) == 10


def test_threads_share_a_client():
    with server() as (url, asked, predictions), Client(url) as client:
        inputs = [{"x": np.full(2, i, "float32")} for i in range(40)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda one: client.predict("m", one)["y"], inputs)
            for given, answer in zip(inputs, answers, strict=True):
                np.testing.assert_array_equal(answer, given["x"])
    assert len(predictions) == 40 and len(asked) == 80


def test_none_is_left_by_a_client_that_was_closed():
    with server() as (url, asked, _), Client(url) as client:
        client.metadata("m")
        client.close()
        client.metadata("m")
        assert len(set(asked)) == 2
    with pytest.raises(ServingError, match="no connection to"):
        Client(url, timeout=1).metadata("m")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own():
    with server() as (url, asked, _), Client(url) as client:
        client.metadata("m")
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                client.metadata("m")
            os._exit(0)
        os.waitpid(child, 0)
        assert len(asked) == 2 and asked[0] != asked[1]
        client.metadata("m")
        assert asked[2] == asked[0]
